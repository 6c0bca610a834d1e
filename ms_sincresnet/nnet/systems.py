"""Whole systems: clips of waveform to log-posteriors."""

from torch import nn

from ms_sincresnet.nnet.classifier import GenreMLP
from ms_sincresnet.nnet.embedding import ResNetEmbedding
from ms_sincresnet.nnet.frontend import MSSincNet


class MSSincResNet(nn.Module):
    """The paper's system, Fig. 1: multi-scale SincNet, ResNet, SPP, two linear layers.

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
        }
        self.frontend = MSSincNet(
            n_filters, kernel_sizes, n_frames, sample_rate, init, padding, backend
        )
        self.embedding = ResNetEmbedding(arch, weights, pooling)
        self.classifier = GenreMLP(self.embedding.embedding_size, hidden_size, n_genres)

    def forward(self, wavs):
        """Log-posteriors of a batch of clips.

        Arguments
        ---------
        wavs : torch.Tensor [batch, time]
            Clips at ``sample_rate``, on any scale.

        Returns
        -------
        torch.Tensor [batch, n_genres]
            Log-posteriors.
        """
        return self.classifier(self.embedding(self.frontend(wavs)))[:, 0]
