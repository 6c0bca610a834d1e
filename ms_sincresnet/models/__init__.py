"""Clips of waveform to log-posteriors: the models of the paper's Table 1."""
