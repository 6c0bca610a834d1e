"""The Brain, its schedule and its report."""
