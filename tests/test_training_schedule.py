"""The learning rates of the paper, epoch by epoch."""

import pytest

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
    schedule = WarmupStepScheduler()
    assert {schedule(epoch)[0] for epoch in epochs} == {rate}
    # SpeechBrain sets the second value for the next epoch.
    assert {schedule(epoch - 1)[1] for epoch in epochs} == {rate}


def test_each_number_can_be_chosen():
    schedule = WarmupStepScheduler(0.1, 8.0, warmup_epochs=2, step=1, factor=0.25)
    assert [schedule(epoch)[0] for epoch in range(1, 6)] == [0.1, 0.1, 8.0, 2.0, 0.5]
    unwarmed = WarmupStepScheduler(warmup_epochs=0, step=2)
    assert [unwarmed(epoch)[0] for epoch in range(1, 4)] == [0.005, 0.005, 0.0025]
