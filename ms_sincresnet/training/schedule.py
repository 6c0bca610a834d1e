"""Learning rate by epoch."""


class WarmupStepScheduler:
    """A small rate for a few epochs, then a base rate that falls in steps.

    The paper's section 2.3: 1e-5 for the first five epochs, 0.005 from the sixth,
    halved every 30 epochs from there. The rate depends on the epoch alone, so there is
    no state to save and a resumed run has the rates of an uninterrupted one.

    Arguments
    ---------
    warmup_lr
        Rate of the first ``warmup_epochs`` epochs.
    base_lr
        Rate of the next ``step`` epochs.
    warmup_epochs
        Epochs of warm-up.
    step
        Epochs between two falls of the rate.
    factor
        Multiplies the rate at each fall.

    Example
    -------
    >>> lr_annealing = WarmupStepScheduler()
    >>> [lr_annealing(epoch)[0] for epoch in (5, 6, 35, 36)]
    [1e-05, 0.005, 0.005, 0.0025]
    """

    def __init__(
        self,
        warmup_lr: float = 1e-5,
        base_lr: float = 5e-3,
        warmup_epochs: int = 5,
        step: int = 30,
        factor: float = 0.5,
    ):
        if step < 1:
            raise ValueError(f"step must be at least 1 epoch; got {step}")
        self.warmup_lr = warmup_lr
        self.base_lr = base_lr
        self.warmup_epochs = warmup_epochs
        self.step = step
        self.factor = factor

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1."""
        if epoch <= self.warmup_epochs:
            return self.warmup_lr
        falls = (epoch - self.warmup_epochs - 1) // self.step
        return self.base_lr * self.factor**falls

    def __call__(self, epoch: int) -> tuple[float, float]:
        """Rates of this epoch and of the next, as SpeechBrain's schedulers return."""
        return self.rate(epoch), self.rate(epoch + 1)
