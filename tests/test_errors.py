"""Errors of the user's end a command with one line, those of the program do not."""

import pytest

from ms_sincresnet import errors

KINDS = [
    errors.AudioFileError,
    errors.DataFolderError,
    errors.HparamError,
    errors.WeightsError,
    errors.ModelFolderError,
]


@pytest.mark.parametrize("kind", [errors.UserError, *KINDS])
def test_a_command_ends_with_the_message_of_a_user_error(kind):
    with pytest.raises(SystemExit) as ended, errors.exit_on_user_error():
        raise kind("jazz.wav: no such file")
    # A string as code: Python prints it to stderr and exits with status 1.
    assert ended.value.code == "error: jazz.wav: no such file"


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, KeyError])
def test_a_fault_of_the_program_keeps_its_traceback(kind):
    with pytest.raises(kind), errors.exit_on_user_error():
        raise kind("a bug")


def test_an_interrupted_command_says_how_to_go_on():
    told = pytest.raises(SystemExit, match="last checkpoint")
    with told, errors.exit_on_user_error():
        raise KeyboardInterrupt


def test_a_command_without_errors_goes_on():
    with errors.exit_on_user_error():
        done = True
    assert done


@pytest.mark.parametrize("kind", KINDS)
def test_callers_may_catch_all_user_errors_or_value_errors(kind):
    assert issubclass(kind, errors.UserError)
    assert issubclass(kind, ValueError)
