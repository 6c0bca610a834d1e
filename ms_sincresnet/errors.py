"""Errors that a user can fix: where, what was expected, what was found, what to do.

The commands print the message of a ``UserError`` and exit; any other exception is a bug
and keeps its traceback.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake in the user's input: a path, a file, an hparam."""


class AudioFileError(UserError):
    """A file that cannot be used as audio."""


class NoAudioError(AudioFileError):
    """A file that holds no audio, such as a silent film or a text."""


class DataFolderError(UserError):
    """A data set that is missing or laid out differently than expected."""


class HparamError(UserError):
    """An hparam that is unknown or has an unusable value."""


class WeightsError(UserError):
    """Weights that are missing or do not fit the model."""


class ModelFolderError(UserError):
    """A model folder that is missing or incomplete."""


@contextmanager
def exit_on_user_error(interrupted: str = "interrupted") -> Iterator[None]:
    """Ends a command with the message of a ``UserError`` and no traceback.

    ``interrupted`` is printed if the user interrupts it: how to resume, if it can be.
    """
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(interrupted)


@contextmanager
def needs_extra(what: str, extra: str) -> Iterator[None]:
    """Turns a failed import into a ``UserError`` that names the extra to install."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{what} needs {error.name}, which is not installed; "
            f"run `pip install '.[{extra}]'` in a clone of the repository"
        ) from error
