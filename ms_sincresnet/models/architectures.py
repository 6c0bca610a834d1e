"""The whole systems of Table 1: clips of waveform to log-posteriors."""

from torch import nn

from ms_sincresnet.models.base import GenreModel
from ms_sincresnet.nnet.classifier import GenreMLP
from ms_sincresnet.nnet.frontend import MSSincNet
from ms_sincresnet.nnet.mel import LogMelSpectrogram
from ms_sincresnet.nnet.resnet import ResNetEmbedding
from ms_sincresnet.nnet.sincnet import FrameNetwork


class MSSincResNet(GenreModel):
    """The paper's system, Fig. 1: multi-scale SincNet, ResNet, SPP, two linear layers.

    With three equal ``kernel_sizes`` and global average pooling, its SincResNet.

    Arguments
    ---------
    n_genres : int
        Number of genres.
    n_filters : int
        Filters a scale, K.
    kernel_sizes : tuple of int
        Taps of each scale's filters, L.
    pooling : str
        "spp" or "avg", as in ``ResNetEmbedding``.
    n_frames : int
        Frames of each map.
    sample_rate : int
        Sample rate of the waveform, in Hz.
    init : str
        Scale of the initial cut-offs, as in ``SincFilterbank``.
    padding : str
        "same" or "valid", as in ``MSSincNet``.
    backend : str
        How the front-end is computed, as in ``MSSincNet``.
    arch : str
        A ResNet of torchvision by its name.
    weights : str or None
        What the ResNet starts from, as in ``ResNetEmbedding``.
    hidden_size : int or None
        Units of the classifier's hidden layer, as in ``GenreMLP``.
    affine_samples : int or None
        Samples of a clip if each has weights in the layer norm, as in ``MSSincNet``.

    Attributes
    ----------
    config : dict
        The arguments that rebuild the model, ``weights`` apart.

    Example
    -------
    >>> import torch
    >>> model = MSSincResNet(n_genres=10, n_filters=32).eval()
    >>> model(torch.randn(2, 48000)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        n_genres=10,
        n_filters=160,
        kernel_sizes=(251, 501, 1001),
        pooling="spp",
        n_frames=1024,
        sample_rate=16000,
        init="mel",
        padding="same",
        backend="auto",
        arch="resnet18",
        weights=None,
        hidden_size=512,
        affine_samples=None,
    ):
        super().__init__()
        if len(kernel_sizes) != 3:
            raise ValueError(
                "kernel_sizes must be three, one for each channel of the ResNet's "
                f"input; got {list(kernel_sizes)}"
            )
        self.config = {
            "n_genres": n_genres,
            "n_filters": n_filters,
            "kernel_sizes": list(kernel_sizes),
            "pooling": pooling,
            "n_frames": n_frames,
            "sample_rate": sample_rate,
            "init": init,
            "padding": padding,
            "backend": backend,
            "arch": arch,
            "hidden_size": hidden_size,
            "affine_samples": affine_samples,
        }
        self.frontend = MSSincNet(
            n_filters,
            kernel_sizes,
            n_frames,
            sample_rate,
            init,
            padding,
            backend,
            affine_samples=affine_samples,
        )
        self.embedding = ResNetEmbedding(arch, weights, pooling)
        self.classifier = GenreMLP(self.embedding.embedding_size, hidden_size, n_genres)


class MelResNet(GenreModel):
    """The paper's baseline of a ResNet on log-mel-spectrograms, section 3.3.

    Arguments
    ---------
    n_genres : int
        Number of genres.
    n_mels : int
        Mel bands.
    window_samples : int
        Samples of a window of the short-term Fourier transform.
    mel_hop : int
        Samples from one window to the next.
    pooling : str
        "avg" or "spp", as in ``ResNetEmbedding``.
    sample_rate : int
        Sample rate of the waveform, in Hz.
    arch : str
        A ResNet of torchvision by its name.
    weights : str or None
        What the ResNet starts from, as in ``ResNetEmbedding``.
    hidden_size : int or None
        Units of the classifier's hidden layer, as in ``GenreMLP``.

    Attributes
    ----------
    config : dict
        The arguments that rebuild the model, ``weights`` apart.

    Example
    -------
    >>> import torch
    >>> model = MelResNet(n_genres=10).eval()
    >>> model(torch.randn(2, 48000)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        n_genres=10,
        n_mels=160,
        window_samples=512,
        mel_hop=128,
        pooling="avg",
        sample_rate=16000,
        arch="resnet18",
        weights=None,
        hidden_size=512,
    ):
        super().__init__()
        self.config = {
            "n_genres": n_genres,
            "n_mels": n_mels,
            "window_samples": window_samples,
            "mel_hop": mel_hop,
            "pooling": pooling,
            "sample_rate": sample_rate,
            "arch": arch,
            "hidden_size": hidden_size,
        }
        self.frontend = LogMelSpectrogram(n_mels, window_samples, mel_hop, sample_rate)
        self.embedding = ResNetEmbedding(arch, weights, pooling)
        self.classifier = GenreMLP(self.embedding.embedding_size, hidden_size, n_genres)


class SincNet(GenreModel):
    """The paper's baseline of the original SincNet on frames of 200 ms, section 3.3.

    It is all embedding: ``FrameNetwork`` goes from clips to log-posteriors.

    Arguments
    ---------
    n_genres : int
        Number of genres.
    n_filters : int
        Filters of the bank, K.
    kernel_size : int
        Taps of each filter, L.
    frame_samples : int
        Samples of a frame.
    frame_hop : int
        Samples from one frame to the next.
    train_frames : int
        Frames that are drawn from each clip in training.
    sample_rate : int
        Sample rate of the waveform, in Hz.
    init : str
        Scale of the initial cut-offs, as in ``SincFilterbank``.

    Attributes
    ----------
    config : dict
        The arguments that rebuild the model.

    Example
    -------
    >>> import torch
    >>> model = SincNet(n_genres=10, n_filters=8).eval()
    >>> model(torch.randn(2, 48000)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        n_genres=10,
        n_filters=80,
        kernel_size=251,
        frame_samples=3200,
        frame_hop=160,
        train_frames=16,
        sample_rate=16000,
        init="mel",
    ):
        super().__init__()
        self.config = {
            "n_genres": n_genres,
            "n_filters": n_filters,
            "kernel_size": kernel_size,
            "frame_samples": frame_samples,
            "frame_hop": frame_hop,
            "train_frames": train_frames,
            "sample_rate": sample_rate,
            "init": init,
        }
        self.frontend = nn.Identity()
        self.embedding = FrameNetwork(**self.config)
        self.classifier = nn.Identity()


MODELS = {system.__name__: system for system in (MSSincResNet, MelResNet, SincNet)}
