"""Errors that a user can mend: where, what was expected, what was found, what to do.

The command lines print the message of a ``UserError`` and exit; every other
exception is a fault of the program and keeps its traceback.
"""

import sys
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake in what the user gave: a path, a file, an hparam."""


class AudioFileError(UserError):
    """A file that cannot be used as audio."""


class DataFolderError(UserError):
    """A data set that is missing or is not laid out as expected."""


class HparamError(UserError):
    """An hparam that is unknown or has a value that cannot be used."""


class WeightsError(UserError):
    """Weights that are missing or do not fit the model."""


class ModelFolderError(UserError):
    """A model folder that is missing or incomplete."""


@contextmanager
def exit_on_user_error():
    """Ends a command with the message of a ``UserError`` and no traceback.

    Example
    -------
    >>> with exit_on_user_error():
    ...     raise HparamError("fold must lie in 0 … 9; got 10")
    Traceback (most recent call last):
    ...
    SystemExit: error: fold must lie in 0 … 9; got 10
    """
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from the last checkpoint")
