"""The figures: what was learned and how, and what a song looks like to the model.

``python -m ms_sincresnet.plots COMMAND --help`` tells what each is drawn from. The
functions return a ``matplotlib.figure.Figure``, which ``drawing.save_figure`` writes.
"""
