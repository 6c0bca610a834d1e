"""MS-SincResNet: music genre classification from the raw waveform.

P.-C. Chang, Y.-S. Chen, C.-H. Lee, "MS-SincResNet: Joint learning of 1D and 2D
kernels using multi-scale SincNet and ResNet for music genre classification",
ICMR 2021. A plugin of SpeechBrain.

The public names are imported when they are first used, so that
``import ms_sincresnet`` alone loads no PyTorch.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "SincFilterbank": "nnet.filterbank",
    "MSSincNet": "nnet.frontend",
    "SpatialPyramidPooling": "nnet.resnet",
    "ResNetEmbedding": "nnet.resnet",
    "GenreMLP": "nnet.resnet",
    "vote": "nnet.voting",
    "MSSincResNet": "models",
    "SincNet": "models",
    "MelResNet": "models",
    "split_clips": "data.clips",
    "RandomGain": "data.augment",
    "GaussianNoise": "data.augment",
    "WarmupStepScheduler": "training.schedule",
    "GenreBrain": "training.brain",
    "GenreClassifier": "inference.classifier",
    "SongPrediction": "inference.predictions",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__():
    return sorted(__all__)
