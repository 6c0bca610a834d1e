"""``python -m ms_sincresnet.plots``: the figures from the command line."""

from ms_sincresnet.plots.command import main

if __name__ == "__main__":
    main()
