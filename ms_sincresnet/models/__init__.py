"""Clips of waveform to log-posteriors: the models of the paper's Table 1."""

from ms_sincresnet.models.architectures import MODELS, MelResNet, MSSincResNet, SincNet
from ms_sincresnet.models.base import GenreModel

__all__ = ["MODELS", "GenreModel", "MSSincResNet", "MelResNet", "SincNet"]
