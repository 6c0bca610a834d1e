"""Errors of the user's end a command with one line, those of the program do not."""

import pytest

from ms_sincresnet import errors


@pytest.mark.parametrize("kind", errors.UserError.__subclasses__())
def test_a_command_ends_with_the_message_of_a_user_error(kind):
    assert issubclass(kind, ValueError)
    with pytest.raises(SystemExit) as ended, errors.exit_on_user_error():
        raise kind("jazz.wav: no such file")
    # A string as code: Python prints it to stderr and exits with status 1.
    assert ended.value.code == "error: jazz.wav: no such file"


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(ValueError, match="a bug"), errors.exit_on_user_error():
        raise ValueError("a bug")
