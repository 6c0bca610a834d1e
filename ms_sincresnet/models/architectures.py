"""The models of the paper's Table 1."""

from collections.abc import Sequence
from os import PathLike

from torch import nn

from ms_sincresnet.models.base import GenreModel
from ms_sincresnet.nnet.frontend import LogMelSpectrogram, MSSincNet
from ms_sincresnet.nnet.resnet import GenreMLP, ResNetEmbedding
from ms_sincresnet.nnet.sincnet import FrameNetwork


class MSSincResNet(GenreModel):
    """The paper's model: multi-scale SincNet, ResNet, SPP and two linear layers.

    Three equal ``kernel_sizes`` and ``pooling="avg"`` make the paper's SincResNet.

    Arguments
    ---------
    n_genres, hidden_size
        Outputs and hidden units of the classifier, ``GenreMLP``.
    n_filters, kernel_sizes, n_frames, sample_rate, init, padding, backend
        Front-end, as in ``MSSincNet``.
    parametrization
        Of the cut-offs, "hz" or "relative", as in ``SincFilterbank``.
    affine_samples
        Clip length if the layer norm has per-sample weights.
    arch, weights, pooling
        Trunk, as in ``ResNetEmbedding``.

    Example
    -------
    >>> import torch
    >>> model = MSSincResNet(n_genres=10, n_filters=32).eval()
    >>> model(torch.randn(2, 48000)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        n_genres: int = 10,
        n_filters: int = 160,
        kernel_sizes: Sequence[int] = (251, 501, 1001),
        pooling: str = "spp",
        n_frames: int = 1024,
        sample_rate: int = 16000,
        init: str = "mel",
        padding: str = "same",
        backend: str = "auto",
        arch: str = "resnet18",
        weights: str | PathLike | None = None,
        hidden_size: int | None = 512,
        affine_samples: int | None = None,
        parametrization: str = "hz",
    ):
        super().__init__(locals())
        if len(kernel_sizes) != 3:
            raise ValueError(f"expected three kernel_sizes; got {list(kernel_sizes)}")
        sizes = n_filters, tuple(kernel_sizes), n_frames
        self.frontend = MSSincNet(
            *(*sizes, sample_rate, init, padding, backend),
            affine_samples=affine_samples,
            parametrization=parametrization,
        )
        self.embedding = ResNetEmbedding(arch, weights, pooling)
        self.classifier = GenreMLP(self.embedding.embedding_size, hidden_size, n_genres)


class MelResNet(GenreModel):
    """The paper's baseline of a ResNet on log-mel-spectrograms, section 3.3.

    Arguments
    ---------
    n_genres, hidden_size
        Outputs and hidden units of the classifier, ``GenreMLP``.
    n_mels, window_samples, mel_hop, sample_rate
        Bands, window length, hop and rate of the front-end, ``LogMelSpectrogram``.
    arch, weights, pooling
        Trunk, as in ``ResNetEmbedding``.

    Example
    -------
    >>> import torch
    >>> model = MelResNet(n_genres=10).eval()
    >>> model(torch.randn(2, 48000)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        n_genres: int = 10,
        n_mels: int = 160,
        window_samples: int = 512,
        mel_hop: int = 128,
        pooling: str = "avg",
        sample_rate: int = 16000,
        arch: str = "resnet18",
        weights: str | PathLike | None = None,
        hidden_size: int | None = 512,
    ):
        super().__init__(locals())
        self.frontend = LogMelSpectrogram(n_mels, window_samples, mel_hop, sample_rate)
        self.embedding = ResNetEmbedding(arch, weights, pooling)
        self.classifier = GenreMLP(self.embedding.embedding_size, hidden_size, n_genres)


class SincNet(GenreModel):
    """The paper's baseline of the original SincNet on frames of 200 ms, section 3.3.

    Arguments
    ---------
    n_genres, n_filters, kernel_size, sample_rate, init
        Outputs, and the filters as in ``SincFilterbank``.
    frame_samples, frame_hop, train_frames
        Frame length, frame hop, and frames drawn from each clip in training.

    Example
    -------
    >>> import torch
    >>> model = SincNet(n_genres=10, n_filters=8).eval()
    >>> model(torch.randn(2, 48000)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        n_genres: int = 10,
        n_filters: int = 80,
        kernel_size: int = 251,
        frame_samples: int = 3200,
        frame_hop: int = 160,
        train_frames: int = 16,
        sample_rate: int = 16000,
        init: str = "mel",
    ):
        super().__init__(locals())
        self.frontend = nn.Identity()
        self.embedding = FrameNetwork(**self.config)  # from clips to log-posteriors
        self.classifier = nn.Identity()


MODELS = {model.__name__: model for model in (MSSincResNet, MelResNet, SincNet)}
