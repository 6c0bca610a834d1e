import pytest
import torch

from ms_sincresnet.training.checkpoints import WholeCheckpointer


class Killed(torch.nn.Linear):
    """A module during whose saving the process dies."""

    def state_dict(self, *args, **kwargs):
        raise KeyboardInterrupt


def test_a_save_that_is_cut_off_leaves_the_checkpoint_before(tmp_path):
    model = torch.nn.Linear(2, 2)
    checkpointer = WholeCheckpointer(tmp_path, {"model": model})
    whole = checkpointer.save_checkpoint(meta={"epoch": 1})
    checkpointer.add_recoverable("killed", Killed(1, 1))
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save_checkpoint(meta={"epoch": 2})
    assert len(list(tmp_path.iterdir())) == 2

    saved = model.weight.detach().clone()
    torch.nn.init.zeros_(model.weight)
    checkpointer = WholeCheckpointer(tmp_path, {"model": model})
    assert checkpointer.recover_if_possible().path == whole.path
    assert torch.equal(model.weight, saved)
    checkpointer.save_and_keep_only(meta={"epoch": 2})
    (left,) = tmp_path.iterdir()  # the unfinished one has become the next
    assert checkpointer.find_checkpoint().path == left != whole.path
