"""Waveform to log-posteriors: modules in the order in which data flows."""
