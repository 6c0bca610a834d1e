"""Batch norm over the clips of several processes, as if one process saw all of them.

Gradients are those of the sum of all processes' losses.
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; gradients are summed as well."""

    @staticmethod
    def forward(ctx, tensor):
        """Sums the tensors."""
        total = tensor.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        """Sums the gradients of all processes' losses."""
        return _SumOverProcesses.apply(gradient)


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes, or itself without a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return _SumOverProcesses.apply(tensor)
    return tensor


def mean_over_processes(tensor: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    return _SumOverProcesses.apply(tensor) / distributed.get_world_size()


def moments_over_processes(
    mean: Tensor, variance: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance [channels] and count [1] of all processes' values."""
    mean, variance = mean.double(), variance.double()
    squares = variance + mean.square()
    totals = torch.cat([count * mean, count * squares, mean.new_tensor([count])])
    sums, squares, total = sum_over_processes(totals).split([len(mean)] * 2 + [1])
    mean = sums / total
    return mean, squares / total - mean.square(), total


@torch.no_grad()
def update_running_statistics(
    norm: _BatchNorm, mean: Tensor, variance: Tensor, count: int | Tensor
) -> None:
    """Updates a batch norm from a batch's mean, biased variance and count."""
    norm.num_batches_tracked += 1
    unbiased = variance * (count / (count - 1 + (count == 1)))
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)


def scale_and_offset(
    norm: _BatchNorm, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor]:
    """A batch norm as a·x + b: a = γ / √(v + ε) and b = β − m·a, in float64."""
    scale = norm.weight * torch.rsqrt(variance.double() + norm.eps)
    return scale, norm.bias - mean.double() * scale


class _SharedStatistics(_BatchNorm):
    """Normalises in training by the statistics of all processes' values."""

    def forward(self, feats: Tensor) -> Tensor:
        """Normalises [batch, channels, …]; in evaluation like any batch norm."""
        if not self.training:
            return super().forward(feats)
        self._check_input_dim(feats)
        # Also under autocast, statistics have at least the parameters' precision.
        dtype = torch.promote_types(feats.dtype, self.weight.dtype)
        values = feats.movedim(1, -1).to(dtype)
        dims, count = tuple(range(values.ndim - 1)), values[..., 0].numel()
        variance, mean = torch.var_mean(values, dims, correction=0)
        mean, variance, total = moments_over_processes(mean, variance, count)
        update_running_statistics(self, mean, variance, total)
        scale, offset = scale_and_offset(self, mean, variance)
        normed = values * scale.to(values.dtype) + offset.to(values.dtype)
        return normed.movedim(-1, 1).to(feats.dtype)


class SharedBatchNorm1d(_SharedStatistics, nn.BatchNorm1d):
    """BatchNorm1d by shared statistics, on any device; SyncBatchNorm is for GPUs."""


class SharedBatchNorm2d(_SharedStatistics, nn.BatchNorm2d):
    """BatchNorm2d by shared statistics, on any device."""


def share_statistics(module: nn.Module) -> None:
    """Makes the batch norms of a model, on its device, share statistics; in place."""
    for norm in module.modules():
        if type(norm) is nn.BatchNorm1d:
            norm.__class__ = SharedBatchNorm1d
        elif type(norm) is nn.BatchNorm2d:
            on_cpu = norm.weight.device.type == "cpu"
            kind: Any = SharedBatchNorm2d if on_cpu else nn.SyncBatchNorm
            norm.__class__ = kind
            norm.process_group = None  # all processes, to SyncBatchNorm
