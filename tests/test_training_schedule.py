"""The learning rates of the paper, epoch by epoch."""

from ms_sincresnet.training.schedule import WarmupStepScheduler


def test_the_papers_rates():
    schedule = WarmupStepScheduler()
    rates = [schedule(epoch)[0] for epoch in range(1, 201)]
    falls = [rate for n in range(7) for rate in [0.005 / 2**n] * 30]
    assert rates == [1e-5] * 5 + falls[:195]
    # SpeechBrain sets the second value for the next epoch.
    assert [schedule(epoch)[1] for epoch in range(200)] == rates


def test_each_number_can_be_chosen():
    schedule = WarmupStepScheduler(0.1, 8.0, warmup_epochs=2, step=1, factor=0.25)
    assert [schedule(epoch)[0] for epoch in range(1, 6)] == [0.1, 0.1, 8.0, 2.0, 0.5]
    unwarmed = WarmupStepScheduler(warmup_epochs=0, step=2)
    assert [unwarmed(epoch)[0] for epoch in range(1, 4)] == [0.005, 0.005, 0.0025]
