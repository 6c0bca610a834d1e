"""The learning rates of the paper, epoch by epoch."""

import pytest
import speechbrain as sb
import torch
from torch import nn

from ms_sincresnet.training.schedule import WarmupStepScheduler


@pytest.mark.parametrize(
    ("epochs", "rate"),
    [
        (range(1, 6), 1e-5),
        (range(6, 36), 0.005),
        (range(36, 66), 0.0025),
        (range(66, 96), 0.00125),
        (range(186, 201), 0.005 / 64),
    ],
)
def test_the_papers_rates(epochs, rate):
    assert {WarmupStepScheduler()(epoch)[0] for epoch in epochs} == {rate}


def test_each_number_can_be_chosen():
    schedule = WarmupStepScheduler(0.1, 8.0, warmup_epochs=2, step=1, factor=0.25)
    assert [schedule(epoch)[0] for epoch in range(1, 6)] == [0.1, 0.1, 8.0, 2.0, 0.5]
    unwarmed = WarmupStepScheduler(warmup_epochs=0, step=2)
    assert [unwarmed(epoch)[0] for epoch in range(1, 4)] == [0.005, 0.005, 0.0025]


def test_speechbrains_protocol_trains_each_epoch_at_its_rate():
    """As in its recipes: call with the epoch, set the optimizer to the new rate."""
    schedule = WarmupStepScheduler(warmup_epochs=1, step=2)
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=schedule(1)[0])
    used = []
    for epoch in range(1, 7):
        used.append(optimizer.param_groups[0]["lr"])
        old, new = schedule(epoch)
        assert old == used[-1]
        sb.nnet.schedulers.update_learning_rate(optimizer, new)
    assert used == [1e-5, 0.005, 0.005, 0.0025, 0.0025, 0.00125]
