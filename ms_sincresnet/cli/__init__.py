"""The command ``ms-sincresnet``: classifies songs, and publishes models."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ms_sincresnet.cli.parser import parse
from ms_sincresnet.errors import exit_on_user_error


def main(argv: list[str] | None = None) -> int:
    """Runs a command line, and returns its exit status."""
    arguments = parse(argv)
    with exit_on_user_error(), _messages():
        try:
            status = arguments.run(arguments)
            sys.stdout.flush()
        except KeyboardInterrupt as interrupt:  # the message: how to resume
            print(str(interrupt) or "interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:  # the reader has closed the standard output
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
    return status or 0


@contextmanager
def _messages() -> Iterator[None]:
    """Shows log messages of this package on the standard error, and no others."""
    from tqdm import tqdm

    from ms_sincresnet.files import printable

    class Handler(logging.Handler):
        """Lines above the progress bar, if there is one."""

        def emit(self, record: logging.LogRecord) -> None:
            level = "" if record.levelno == logging.INFO else f"{record.levelname}: "
            message = printable(level.lower() + record.getMessage())
            tqdm.write(message, file=sys.stderr)

    ours, theirs = logging.getLogger("ms_sincresnet"), logging.getLogger("speechbrain")
    before, handler = (ours.level, theirs.level), Handler()
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    theirs.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(before[0])
        theirs.setLevel(before[1])
