"""The Hub's errors as sentences."""

import pytest
from huggingface_hub import errors

from ms_sincresnet.errors import ModelFolderError, UserError
from ms_sincresnet.models.hub import hub_errors


def test_faults_of_the_hub_alone_are_reported_and_by_their_first_line():
    for error in (UserError("of the model"), KeyError("of the program")):
        with pytest.raises(type(error)) as found, hub_errors("user/songs"):
            raise error
        assert found.value is error
    for error, line in [
        (errors.LocalTokenNotFoundError("no token\nlog in"), "no token"),
        (errors.OfflineModeIsEnabled("offline\nadvice"), "offline"),
        (OSError(28, "No space left"), "[Errno 28] No space left"),
        (TimeoutError(), "TimeoutError"),
    ]:
        with pytest.raises(ModelFolderError) as found, hub_errors("user/songs"):
            raise error
        expected = f"user/songs: the Hub is unreachable or refuses: {line}"
        assert str(found.value) == expected
