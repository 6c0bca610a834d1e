"""Figures, drawn from arrays and tables; each function returns a matplotlib figure."""
