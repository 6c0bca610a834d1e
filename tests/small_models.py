"""One small model of each class of Table 1, and ResNets as after training."""

import functools

import pytest
import torch
from torch import nn

from ms_sincresnet import MelResNet, MSSincResNet, SincNet

SMALL = {
    MSSincResNet: {"n_filters": 8, "n_frames": 64, "kernel_sizes": (101, 51, 25)},
    MelResNet: {"n_mels": 32, "hidden_size": None},
    SincNet: {"n_filters": 8, "kernel_size": 51, "frame_samples": 800},
}
each_model = pytest.mark.parametrize("model_class", SMALL)


@functools.cache
def small(model_class):
    """A model of three genres in evaluation, not to be changed."""
    torch.manual_seed(0)
    return model_class(n_genres=3, **SMALL[model_class]).eval()


def trained_resnet(module):
    """A module in evaluation whose batch norms look as after training."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.normal_(norm.weight, 1, 0.3)
            nn.init.normal_(norm.bias, std=0.1)
            norm.num_batches_tracked += 7
    return module.eval()
