"""One small model of each class of Table 1."""

import functools

import pytest
import torch

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
