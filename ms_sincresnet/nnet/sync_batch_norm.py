"""Batch norm over the clips of several processes, forward and backward.

Each process of ``torchrun`` sees a part of a step's clips. ``share_statistics`` makes
the batch norms of a model normalise by the moments of all parts, so that the model is
trained as by one process that sees all clips. Gradients are those of the sum of the
processes' losses: what a process gets back is for its own part.
"""

import torch
from torch import distributed, nn


class _SumOverProcesses(torch.autograd.Function):
    """A tensor's sum over all processes. What it does to each loss adds up as well."""

    @staticmethod
    def forward(ctx, tensor):
        """Sums."""
        total = tensor.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        """Sums the gradients of all processes' losses."""
        return _SumOverProcesses.apply(gradient)


def sum_over_processes(tensor):
    """The sum of a tensor over all processes, differentiable.

    Its gradient in a process is that of the sum of all processes' losses.

    Arguments
    ---------
    tensor : torch.Tensor
        A tensor of the same shape and type in all processes, which all call this.

    Returns
    -------
    torch.Tensor
        The same in all processes; without a process group, the tensor itself.

    Example
    -------
    >>> sum_over_processes(torch.ones(2))
    tensor([1., 1.])
    """
    if distributed.is_available() and distributed.is_initialized():
        return _SumOverProcesses.apply(tensor)
    return tensor


def moments_over_processes(mean, variance, count):
    """Mean and variance of the values of all processes.

    Arguments
    ---------
    mean : torch.Tensor [channels]
        Mean of this process's values.
    variance : torch.Tensor [channels]
        Their biased variance.
    count : int
        Their number in a channel; it may differ between processes.

    Returns
    -------
    mean : torch.Tensor [channels]
        Mean of all values, in float64.
    variance : torch.Tensor [channels]
        Their biased variance, in float64.
    count : torch.Tensor [1]
        Their number in a channel, in float64.

    Example
    -------
    >>> moments_over_processes(torch.zeros(1), torch.ones(1), 480)[2]
    tensor([480.], dtype=torch.float64)
    """
    mean, variance = mean.double(), variance.double()
    squares = variance + mean.square()
    totals = torch.cat([count * mean, count * squares, mean.new_tensor([count])])
    sums, squares, count = sum_over_processes(totals).split([len(mean)] * 2 + [1])
    mean = sums / count
    return mean, squares / count - mean.square(), count


@torch.no_grad()
def update_running_statistics(norm, mean, variance, count):
    """What a batch norm does to its running statistics in training.

    Arguments
    ---------
    norm : torch.nn.Module
        The batch norm.
    mean : torch.Tensor [channels]
        Mean of a batch.
    variance : torch.Tensor [channels]
        Its biased variance.
    count : int or torch.Tensor
        Number of values in a channel.

    Example
    -------
    >>> norm = nn.BatchNorm1d(1, momentum=0.5)
    >>> update_running_statistics(norm, torch.ones(1), torch.ones(1), count=2)
    >>> norm.running_mean, norm.running_var
    (tensor([0.5000]), tensor([1.5000]))
    """
    norm.num_batches_tracked += 1
    unbiased = variance * (count / (count - 1 + (count == 1)))
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)


def scale_and_offset(norm, mean, variance):
    """What a batch norm multiplies with and adds.

    Arguments
    ---------
    norm : torch.nn.Module
        The batch norm: γ, β and ε.
    mean : torch.Tensor [channels]
        Mean m.
    variance : torch.Tensor [channels]
        Biased variance v.

    Returns
    -------
    scale : torch.Tensor [channels]
        a = γ / √(v + ε), in float64.
    offset : torch.Tensor [channels]
        β − m·a, in float64.

    Example
    -------
    >>> norm = nn.BatchNorm1d(1, eps=0)
    >>> scale, offset = scale_and_offset(norm, torch.ones(1), torch.full((1,), 4))
    >>> scale.item(), offset.item()
    (0.5, -0.5)
    """
    scale = norm.weight * torch.rsqrt(variance.double() + norm.eps)
    return scale, norm.bias - mean.double() * scale


class _SharedStatistics:
    """Normalises in training by the moments of all processes' values."""

    def forward(self, feats):
        """Normalises [batch, channels, …]; in evaluation as any batch norm."""
        if not self.training:
            return super().forward(feats)
        self._check_input_dim(feats)
        # Under autocast too, moments are in the parameters' type at least.
        values = feats.movedim(1, -1).to(
            torch.promote_types(feats.dtype, self.weight.dtype)
        )
        dims = tuple(range(values.ndim - 1))
        variance, mean = torch.var_mean(values, dims, correction=0)
        mean, variance, count = moments_over_processes(
            mean, variance, values[..., 0].numel()
        )
        update_running_statistics(self, mean, variance, count)
        scale, offset = scale_and_offset(self, mean, variance)
        normed = values * scale.to(values.dtype) + offset.to(values.dtype)
        return normed.movedim(-1, 1).to(feats.dtype)


class SharedBatchNorm1d(_SharedStatistics, nn.BatchNorm1d):
    """As ``torch.nn.BatchNorm1d``, with the moments of all processes in training.

    On any device; ``torch.nn.SyncBatchNorm`` is for GPUs. The fast paths of the
    front-end know it, and share moments without computing the filters' outputs.

    Arguments
    ---------
    num_features : int
        Channels.
    eps : float
        Added to variances.
    momentum : float
        Weight of a batch in the running statistics.

    Example
    -------
    >>> norm = SharedBatchNorm1d(3)
    >>> norm(torch.rand(2, 3, 480)).mean().abs() < 1e-6
    tensor(True)
    """


class SharedBatchNorm2d(_SharedStatistics, nn.BatchNorm2d):
    """As ``torch.nn.BatchNorm2d``, with the moments of all processes in training.

    Arguments
    ---------
    num_features : int
        Channels.
    eps : float
        Added to variances.
    momentum : float
        Weight of a batch in the running statistics.

    Example
    -------
    >>> norm = SharedBatchNorm2d(3)
    >>> norm(torch.rand(2, 3, 16, 16)).mean().abs() < 1e-6
    tensor(True)
    """


def share_statistics(module):
    """Makes the batch norms within a module share statistics between processes.

    In place; parameters, buffers and the names of both stay what they are. On GPUs
    BatchNorm2d becomes PyTorch's own SyncBatchNorm.

    Arguments
    ---------
    module : torch.nn.Module
        A model, on its device.

    Example
    -------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
    >>> share_statistics(model)
    >>> type(model[1]).__name__
    'SharedBatchNorm2d'
    """
    for parent in [*module.modules()]:
        for name, norm in [*parent.named_children()]:
            if type(norm) is nn.BatchNorm1d:
                setattr(parent, name, _shared(norm, SharedBatchNorm1d))
            elif type(norm) is nn.BatchNorm2d and norm.weight.device.type == "cpu":
                setattr(parent, name, _shared(norm, SharedBatchNorm2d))
            elif type(norm) is nn.BatchNorm2d:
                shared = nn.SyncBatchNorm.convert_sync_batchnorm(norm)
                setattr(parent, name, shared)


def _shared(norm, kind):
    """A batch norm of another kind with the same parameters and buffers."""
    shared = kind(norm.num_features, norm.eps, norm.momentum)
    shared._parameters, shared._buffers = norm._parameters, norm._buffers
    return shared.train(norm.training)
