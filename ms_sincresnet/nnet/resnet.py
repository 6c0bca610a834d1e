"""Maps to one embedding a clip, by an ImageNet ResNet."""

import copy
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from ms_sincresnet.errors import WeightsError
from ms_sincresnet.nnet.backends.op import needs_gradient
from ms_sincresnet.nnet.pooling import SpatialPyramidPooling

POOLING_LEVELS = {"spp": (1, 2), "avg": (1,)}
CLIPS_AT_A_TIME = 4  # on a CPU: fewer are slower, more want fresh memory each time


class ResNetEmbedding(nn.Module):
    """ResNet over the learned maps, then spatial pyramid pooling.

    The paper's sections 2.2.3 and 2.2.4: the maps of the scales are the channels of
    an image; the volume that the last convolution makes of it, 512 @ 5 × 32, is pooled.

    Arguments
    ---------
    arch : str
        A ResNet of torchvision by its name.
    weights : str or None
        What the trunk starts from. None: random; "imagenet": torchvision's weights,
        downloaded once; else the path of a file that torch.save wrote, with
        torchvision's keys (its ``fc`` is not read).
    pooling : str
        "spp" (1 × 1 and 2 × 2 blocks) or "avg" (global average).

    Raises
    ------
    ValueError
        If ``arch`` or ``pooling`` is unknown.
    WeightsError
        If the weights cannot be had or do not fit.

    Example
    -------
    >>> embedding = ResNetEmbedding()
    >>> embedding(torch.randn(2, 3, 160, 256)).shape
    torch.Size([2, 1, 2560])
    """

    def __init__(self, arch="resnet18", weights=None, pooling="spp"):
        super().__init__()
        if pooling not in POOLING_LEVELS:
            raise ValueError(
                f"pooling must be one of {', '.join(POOLING_LEVELS)}; got {pooling!r}"
            )
        archs = torchvision.models.list_models(torchvision.models, include="resnet*")
        if arch not in archs:
            raise ValueError(f"arch must be one of {', '.join(archs)}; got {arch!r}")
        resnet = torchvision.models.get_model(arch, weights=None)
        channels = resnet.fc.in_features
        del resnet.fc, resnet.avgpool
        self.trunk = nn.Sequential()
        for name, module in resnet.named_children():
            self.trunk.add_module(name, module)
        # Convolutions are half as fast again with the channels last.
        self.trunk.to(memory_format=torch.channels_last)
        self.pooling = SpatialPyramidPooling(POOLING_LEVELS[pooling])
        self.embedding_size = self.pooling.output_size(channels)
        self._folded = (None, None)  # what it was folded from, and the folded trunk
        if weights is not None:
            load_trunk(self.trunk, trunk_weights(arch, weights), weights)

    def forward(self, feats, wav_lens=None):
        """Embeds a batch of maps.

        Arguments
        ---------
        feats : torch.Tensor [batch, scales, n_filters, n_frames]
            Maps; ImageNet's trunk takes three scales.
        wav_lens : torch.Tensor [batch], optional
            Relative lengths, as SpeechBrain passes them. Clips are whole: not used.

        Returns
        -------
        torch.Tensor [batch, 1, embedding_size]
            One embedding a clip: 2560 numbers with "spp", 512 with "avg".
        """
        tracing = torch.compiler.is_compiling()
        if self.training and needs_gradient(self.trunk, feats) and not tracing:
            return self._embed(partial(forward_lightly, self.trunk), feats)
        if (
            needs_gradient(self.trunk, feats)
            or tracing
            or not can_be_folded(self.trunk)
        ):
            return self._embed(self.trunk, feats)
        trunk = self._folded_trunk(feats.device.type)
        at_a_time = CLIPS_AT_A_TIME if feats.device.type == "cpu" else len(feats)
        return torch.cat([self._embed(trunk, few) for few in feats.split(at_a_time)])

    def train(self, mode=True):
        """As in ``Module``; ``p.data`` may have changed unseen, so all is folded again.

        Arguments
        ---------
        mode : bool
            Training, or evaluation.

        Returns
        -------
        ResNetEmbedding
            Itself.
        """
        self._folded = (None, None)
        return super().train(mode)

    def _apply(self, *args, **kwargs):
        """Folds again what is moved or cast: new values may lie where old ones did."""
        self._folded = (None, None)
        return super()._apply(*args, **kwargs)

    def __getstate__(self):
        """Copies and files are without the folded trunk."""
        return self.__dict__ | {"_folded": (None, None)}

    def _embed(self, trunk, feats):
        """Embeds maps by the trunk or a folded copy of it."""
        feats = feats.contiguous(memory_format=torch.channels_last)
        return self.pooling(trunk(feats))[:, None]

    def _folded_trunk(self, device_type):
        """The trunk without batch norms, in autocast's type; made when it changes."""
        dtype = self.trunk.conv1.weight.dtype
        if torch.is_autocast_enabled(device_type):
            dtype = torch.get_autocast_dtype(device_type)
        values = [*self.trunk.parameters(), *self.trunk.buffers()]
        source = (
            dtype,
            [
                # Inference tensors cannot change, and have no version.
                (value.data_ptr(), 0 if value.is_inference() else value._version)
                for value in values
            ],
        )
        if self._folded[0] != source:
            self._folded = source, fold_batch_norms(self.trunk).to(dtype)
        return self._folded[1]


def forward_lightly(trunk, feats):
    """The trunk's forward pass, of which the convolutions' outputs alone are kept.

    Batch norms, ReLUs and the pooling are computed again in the backward pass, block by
    block: a third less is kept, for next to no time. There is one backward pass for
    each forward pass; ``retain_graph`` and second derivatives are for evaluation mode.
    Processes that share statistics do so again then, in the same order all of them.

    Arguments
    ---------
    trunk : torch.nn.Sequential
        A ResNet without its last layers, in training.
    feats : torch.Tensor [batch, channels, frequency, time]
        Its input.

    Returns
    -------
    torch.Tensor
        Its output.

    Example
    -------
    >>> trunk = ResNetEmbedding().trunk
    >>> forward_lightly(trunk, torch.randn(2, 3, 64, 64)).shape
    torch.Size([2, 512, 2, 2])
    """
    stem, blocks = [], []
    for child in trunk.children():
        (blocks.extend if isinstance(child, nn.Sequential) else stem.append)(child)
    for part in (nn.Sequential(*stem), *blocks):
        feats = checkpoint(
            part,
            feats,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=partial(_keep_convolutions, part),
        )
    return feats


def _keep_convolutions(part):
    """The contexts of the forward pass of a part, and of its second one."""
    first, second = create_selective_checkpoint_contexts(
        [torch.ops.aten.convolution.default]
    )
    return first, _FrozenStatistics(part, second)


class _FrozenStatistics:
    """Does not count the second forward pass in running statistics."""

    def __init__(self, part, context):
        self.context = context
        self.norms = [norm for norm in part.modules() if isinstance(norm, _BatchNorm)]

    def __enter__(self):
        self.before = [
            (norm.momentum, norm.num_batches_tracked.clone()) for norm in self.norms
        ]
        for norm in self.norms:
            norm.momentum = 0.0
        self.context.__enter__()

    def __exit__(self, *error):
        self.context.__exit__(*error)
        for norm, (momentum, n_batches) in zip(self.norms, self.before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(n_batches)


def can_be_folded(trunk):
    """Whether folding would go unnoticed.

    Arguments
    ---------
    trunk : torch.nn.Module
        A network.

    Returns
    -------
    bool
        Whether all of it is in evaluation and no hook looks on.

    Example
    -------
    >>> can_be_folded(nn.BatchNorm2d(8)), can_be_folded(nn.BatchNorm2d(8).eval())
    (False, True)
    """
    return not any(
        module.training or module._forward_hooks or module._forward_pre_hooks
        for module in trunk.modules()
    )


def fold_batch_norms(trunk):
    """A copy of a network whose batch norms are part of the convolutions before them.

    Arguments
    ---------
    trunk : torch.nn.Module
        A network in evaluation mode; a convolution and its batch norm are neighbours
        among a module's children, as in torchvision's ResNets.

    Returns
    -------
    torch.nn.Module
        The copy, which cannot be trained.

    Example
    -------
    >>> block = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)).eval()
    >>> fold_batch_norms(block)[1]
    Identity()
    """
    folded = copy.deepcopy(trunk).requires_grad_(False)
    for parent in list(folded.modules()):
        for (name, module), (next_name, norm) in pairwise([*parent.named_children()]):
            if isinstance(module, nn.Conv2d) and isinstance(norm, _BatchNorm):
                setattr(parent, name, fuse_conv_bn_eval(module, norm))
                setattr(parent, next_name, nn.Identity())
    return folded.to(memory_format=torch.channels_last)


def trunk_weights(arch, weights):
    """Weights of a ResNet, from torchvision or from a file.

    Arguments
    ---------
    arch : str
        A ResNet of torchvision by its name.
    weights : str or pathlib.Path
        "imagenet" or the path of a file.

    Returns
    -------
    dict
        torchvision's state dict.

    Raises
    ------
    WeightsError
        If they cannot be downloaded or the file cannot be read.

    Example
    -------
    >>> trunk_weights("resnet18", "nowhere.pth")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.WeightsError: nowhere.pth: no such file of ResNet weights; \
expected "imagenet" or a file that torch.save wrote
    """
    if weights == "imagenet":
        source = torchvision.models.get_model_weights(arch).DEFAULT
        try:
            return source.get_state_dict(progress=True, check_hash=True)
        except (URLError, OSError, RuntimeError) as error:
            raise WeightsError(
                f"the ImageNet weights of {arch} could not be downloaded from "
                f"{source.url} ({error}). Download that file elsewhere and give its "
                "path (--resnet_weights=FILE), or train from random weights "
                "(--resnet_weights=null)."
            ) from error
    if not Path(weights).is_file():
        raise WeightsError(
            f"{weights}: no such file of ResNet weights; expected "
            '"imagenet" or a file that torch.save wrote'
        )
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the bytes provoke
        # Its text is not quoted: it advises to run whatever the file holds.
        raise WeightsError(
            f"{weights}: not a file of weights; expected a dict of tensors by name, "
            "as torch.save(resnet.state_dict(), file) writes it"
        ) from error
    if not isinstance(state, dict):
        raise WeightsError(
            f"{weights}: expected a dict of tensors by name; got a "
            f"{type(state).__name__}"
        )
    return state


def load_trunk(trunk, state, source):
    """Loads torchvision's weights into the trunk, without their ``fc``.

    Arguments
    ---------
    trunk : torch.nn.Module
        The ResNet without its last layers.
    state : dict
        torchvision's state dict.
    source : str
        Where it came from, for the error.

    Raises
    ------
    WeightsError
        If names or shapes differ.

    Example
    -------
    >>> trunk = ResNetEmbedding().trunk
    >>> load_trunk(trunk, trunk.state_dict(), "itself")
    """
    state = {name: value for name, value in state.items() if str(name)[:3] != "fc."}
    expected = trunk.state_dict()
    # Old files lack the counters of the batch norms, which nothing depends on.
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    missing = expected.keys() - state.keys() - counters
    unknown = state.keys() - expected.keys()
    if missing or unknown:
        raise WeightsError(
            f"{source}: not the weights of this ResNet; missing: "
            f"{_some(missing)}; unknown: {_some(unknown)}"
        )
    for name, value in state.items():
        if value.shape != expected[name].shape:
            raise WeightsError(
                f"{source}: {name} has shape {list(value.shape)}, expected "
                f"{list(expected[name].shape)}: weights of another ResNet"
            )
    trunk.load_state_dict(state, strict=False)


def _some(names, at_most=3):
    """The first few names, and how many more there are."""
    listed = ", ".join(sorted(map(str, names))[:at_most]) or "none"
    more = len(names) - at_most
    return f"{listed} and {more} more" if more > 0 else listed
