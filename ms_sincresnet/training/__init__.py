"""Training, its figures, cross-validation and export; the commands import this late."""
