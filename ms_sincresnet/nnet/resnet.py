"""Maps to one embedding per clip, by an ImageNet ResNet, and to log-posteriors."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from ms_sincresnet.errors import WeightsError
from ms_sincresnet.files import load_weights
from ms_sincresnet.nnet.devices import capable

POOLING_LEVELS = {"spp": (1, 2), "avg": (1,)}
CLIPS_AT_A_TIME = 4  # on a CPU: fewer are slower, more need fresh memory each time


class SpatialPyramidPooling(nn.Module):
    """Averages of the whole volume and of its blocks, per channel.

    The paper's section 2.2.4 and Fig. 3: 512 @ 5 × 32 becomes 512 @ 1 × 1 (global)
    and 512 @ 2 × 2 (local). Of five rows, the middle one lies in both halves.

    Arguments
    ---------
    levels
        Each level cuts frequency and time into that many parts.

    Example
    -------
    >>> SpatialPyramidPooling()(torch.zeros(4, 512, 5, 32)).shape
    torch.Size([4, 2560])
    """

    def __init__(self, levels: Iterable[int] = (1, 2)):
        super().__init__()
        self.levels = tuple(levels)

    def forward(self, volume: Tensor) -> Tensor:
        """Averages [batch, channels · Σ level²] of a volume, block by block."""
        device, volume = volume.device, capable(volume)
        pooled = [F.adaptive_avg_pool2d(volume, level) for level in self.levels]
        return torch.cat([p.flatten(2).mT.flatten(1) for p in pooled], 1).to(device)

    def output_size(self, channels: int) -> int:
        """Size of the output for a volume of so many channels."""
        return channels * sum(level**2 for level in self.levels)


class GenreMLP(nn.Module):
    """Two linear layers from embeddings to log-posteriors, the paper's Fig. 1.

    Arguments
    ---------
    input_size
        Size of an embedding.
    hidden_size
        Units of the hidden layer; None: one linear layer, as in the released code.
    n_genres
        Number of genres.

    Example
    -------
    >>> GenreMLP()(torch.zeros(4, 1, 2560)).shape
    torch.Size([4, 1, 10])
    """

    def __init__(
        self, input_size: int = 2560, hidden_size: int | None = 512, n_genres: int = 10
    ):
        super().__init__()
        self.layers: nn.Module
        if hidden_size is None:
            self.layers = nn.Linear(input_size, n_genres)
        else:
            first = nn.Linear(input_size, hidden_size)
            last = nn.Linear(hidden_size, n_genres)
            self.layers = nn.Sequential(first, nn.ReLU(), last)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Log-posteriors [batch, clips, n_genres], in at least float32."""
        scores = self.layers(embeddings)
        dtype = torch.promote_types(scores.dtype, torch.float32)
        return scores.log_softmax(-1, dtype=dtype)


class ResNetEmbedding(nn.Module):
    """ResNet over the learned maps, then spatial pyramid pooling.

    The paper's sections 2.2.3 and 2.2.4: the scales are the channels of an image. In
    evaluation without gradients, batch norms are folded into the convolutions: hooks on
    blocks see the usual outputs, those on single layers do not.

    Arguments
    ---------
    arch
        Name of a ResNet of torchvision.
    weights
        Initial weights of the trunk. None: random; "imagenet": torchvision's, which are
        downloaded once; otherwise a ``.pth`` or ``.safetensors`` file with its names.
    pooling
        "spp" (1 × 1 and 2 × 2 blocks) or "avg" (global average).

    Raises
    ------
    ValueError
        If ``arch`` or ``pooling`` is unknown.
    WeightsError
        If the weights are not available or do not fit.

    Example
    -------
    >>> embedding = ResNetEmbedding()
    >>> embedding(torch.randn(2, 3, 160, 256)).shape
    torch.Size([2, 1, 2560])
    """

    def __init__(
        self,
        arch: str = "resnet18",
        weights: str | PathLike | None = None,
        pooling: str = "spp",
    ):
        super().__init__()
        if pooling not in POOLING_LEVELS:
            raise ValueError(f"pooling must be one of spp, avg; got {pooling!r}")
        archs = torchvision.models.list_models(torchvision.models, include="resnet*")
        if arch not in archs:
            raise ValueError(f"arch must be one of {', '.join(archs)}; got {arch!r}")
        resnet = torchvision.models.get_model(arch, weights=None)
        channels = resnet.fc.in_features
        del resnet.fc, resnet.avgpool
        self.trunk = nn.Sequential(OrderedDict(resnet.named_children()))
        # Convolutions are half as fast again with the channels last.
        self.trunk.to(memory_format=torch.channels_last)
        self.recompute = False  # activations, in the backward pass: saves memory
        self.fast_trunk: Callable[[Tensor], Tensor] | None = None  # see winograd.py
        self.pooling = SpatialPyramidPooling(POOLING_LEVELS[pooling])
        self.embedding_size = self.pooling.output_size(channels)
        if weights is not None:
            load_trunk(self.trunk, arch, weights)

    def forward(self, feats: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Embeddings [batch, 1, size] of maps [batch, 3, n_filters, n_frames]."""
        if self.fast_trunk is not None and not torch.is_grad_enabled():
            return self.pooling(self.fast_trunk(feats))[:, None]
        if torch.compiler.is_compiling():  # compilers choose what to keep and fuse
            return self._embed(self.trunk, feats)
        needs_gradient = torch.is_grad_enabled() and any(
            values.requires_grad for values in (feats, *self.trunk.parameters())
        )
        training = any(module.training for module in self.trunk.modules())
        if training and needs_gradient and self.recompute:
            return self._embed(partial(checkpointed_forward, self.trunk), feats)
        if training or needs_gradient:
            return self._embed(self.trunk, feats)
        device = feats.device.type
        half = torch.is_autocast_enabled(device)  # cast once, not for every few clips
        dtype = torch.get_autocast_dtype(device) if half else None
        trunk = fold_batch_norms(self.trunk, dtype)
        at_a_time = CLIPS_AT_A_TIME if device == "cpu" else len(feats)
        return torch.cat([self._embed(trunk, few) for few in feats.split(at_a_time)])

    def _embed(self, trunk: Any, feats: Tensor) -> Tensor:
        """Embeddings of maps by the trunk or an equivalent."""
        feats = feats.contiguous(memory_format=torch.channels_last)
        return self.pooling(trunk(feats))[:, None]


def fold_batch_norms(network: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A network in evaluation, each batch norm folded into the convolution before it.

    The two are neighbours in torchvision's ResNets. All else is the original's. The
    convolutions' weights are of the given type.
    """
    folded = copy.copy(network)
    folded._modules = {
        name: fold_batch_norms(child, dtype) for name, child in network.named_children()
    }
    for (name, conv), (next_name, norm) in pairwise(network.named_children()):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm):
            weight, bias = fuse_conv_bn_weights(
                *(conv.weight, conv.bias, norm.running_mean, norm.running_var),
                *(norm.eps, norm.weight, norm.bias),
            )
            cast = (each.to(dtype or each.dtype) for each in (weight, bias))
            parameters = dict(zip(("weight", "bias"), cast, strict=True))
            getattr(folded, name)._parameters = parameters
            setattr(folded, next_name, nn.Identity())
    return folded


def checkpointed_forward(trunk: nn.Sequential, feats: Tensor) -> Tensor:
    """A ResNet trunk's training pass that keeps only the outputs of convolutions.

    The rest is recomputed in the backward pass, block by block, which saves a third of
    the memory for a tenth more time. One backward pass per forward pass:
    ``retain_graph`` and second derivatives need evaluation mode.
    """
    options: Any = {"use_reentrant": False, "preserve_rng_state": False}
    for part in (trunk[:4], *chain(*trunk[4:])):  # the stem, and blocks of the stages
        contexts = partial(_keep_convolutions, part)
        feats = checkpoint(part, feats, context_fn=contexts, **options)
    return feats


def _keep_convolutions(part: nn.Module) -> tuple[Any, Any]:
    """Contexts of a part's forward pass and of its recomputation."""
    forward, recomputation = create_selective_checkpoint_contexts(
        [torch.ops.aten.convolution.default]
    )
    return forward, _frozen_statistics(part, recomputation)


@contextmanager
def _frozen_statistics(part: nn.Module, context: Any) -> Iterator[None]:
    """A context in which batch norms leave their running statistics as they are."""
    norms = [norm for norm in part.modules() if isinstance(norm, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        with context:
            yield
    finally:
        for norm, (momentum, n_batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(n_batches)


def load_trunk(trunk: nn.Module, arch: str, weights: str | PathLike) -> None:
    """Loads torchvision's weights, "imagenet" or a file, without their ``fc``."""
    if weights == "imagenet":
        source = torchvision.models.get_model_weights(arch).DEFAULT
        try:
            state = source.get_state_dict(progress=True, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"cannot download the ImageNet weights of {arch} from {source.url} "
                f"({error}). Give them as --resnet_weights=FILE, or train from random "
                "weights with --resnet_weights=null"
            ) from error
    elif Path(weights).is_file():
        state = load_weights(weights)
    else:
        raise WeightsError(
            f"{weights}: no such file of ResNet weights; expected "
            '"imagenet" or the path of a .pth or .safetensors file'
        )
    state = {str(name): value for name, value in state.items()}
    state = {name: value for name, value in state.items() if name[:3] != "fc."}
    for name, expected in trunk.state_dict().items():
        if name in state and state[name].shape != expected.shape:
            raise WeightsError(
                f"{weights}: {name} has shape {list(state[name].shape)}, that of "
                f"{arch} {list(expected.shape)}"
            )
    # Batch norms do without the counters that old files lack.
    missing, unknown = map(sorted, trunk.load_state_dict(state, strict=False))
    if missing or unknown:
        raise WeightsError(
            f"{weights}: not the weights of a {arch}: {len(missing)} missing, such as "
            f"{missing[:2]}; {len(unknown)} unknown, such as {unknown[:2]}"
        )
