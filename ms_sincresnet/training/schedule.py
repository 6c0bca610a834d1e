"""Learning rate by epoch."""


class WarmupStepScheduler:
    """A small rate for a few epochs, then a base rate that falls in steps.

    By default as in the paper's section 2.3. It depends on the epoch alone, so there is
    no state to save.

    Arguments
    ---------
    warmup_lr, warmup_epochs
        The small rate, and its epochs.
    base_lr
        The rate after these.
    step, factor
        Epochs between two falls of the rate, and its factor at each.

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

    def __call__(self, epoch: int) -> tuple[float, float]:
        """Rates of an epoch, counted from 1, and of the next."""
        return self._rate(epoch), self._rate(epoch + 1)

    def _rate(self, epoch: int) -> float:
        """Rate of an epoch."""
        if epoch <= self.warmup_epochs:
            return self.warmup_lr
        falls = (epoch - self.warmup_epochs - 1) // self.step
        return self.base_lr * self.factor**falls
