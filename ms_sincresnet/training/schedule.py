"""The learning rate's schedule."""


class WarmupStepScheduler:
    """A small rate for a few epochs, then a base rate that falls in steps.

    The paper's section 2.3: 1e-5 for the first five epochs, 0.005 from the 6th, halved
    every 30 epochs from there. The rate is a function of the epoch alone, so a
    resumed run has the rate of an unbroken one and there is no state to save.

    Arguments
    ---------
    warmup_lr : float
        Rate of the first ``warmup_epochs`` epochs.
    base_lr : float
        Rate of the next ``step`` epochs.
    warmup_epochs : int
        Epochs of warm-up.
    step : int
        Epochs from one fall to the next.
    factor : float
        What the rate is multiplied with at each fall.

    Example
    -------
    >>> schedule = WarmupStepScheduler()
    >>> [schedule(epoch)[0] for epoch in (5, 6, 35, 36)]
    [1e-05, 0.005, 0.005, 0.0025]
    """

    def __init__(
        self, warmup_lr=1e-5, base_lr=5e-3, warmup_epochs=5, step=30, factor=0.5
    ):
        if step < 1:
            raise ValueError(f"step must be at least 1 epoch; got {step}")
        self.warmup_lr = warmup_lr
        self.base_lr = base_lr
        self.warmup_epochs = warmup_epochs
        self.step = step
        self.factor = factor

    def rate(self, epoch):
        """The learning rate of an epoch.

        Arguments
        ---------
        epoch : int
            Epoch, counted from 1.

        Returns
        -------
        float
            Its rate.

        Example
        -------
        >>> WarmupStepScheduler(warmup_epochs=0, step=2).rate(3)
        0.0025
        """
        if epoch <= self.warmup_epochs:
            return self.warmup_lr
        falls = (epoch - self.warmup_epochs - 1) // self.step
        return self.base_lr * self.factor**falls

    def __call__(self, epoch):
        """SpeechBrain's protocol.

        Arguments
        ---------
        epoch : int
            Epoch, counted from 1.

        Returns
        -------
        old : float
            The rate of this epoch.
        new : float
            The rate of the next one.

        Example
        -------
        >>> WarmupStepScheduler()(5)
        (1e-05, 0.005)
        """
        return self.rate(epoch), self.rate(epoch + 1)
