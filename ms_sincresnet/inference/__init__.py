"""Predictions for whole songs: one, several as a table, exported, or on a web page."""
