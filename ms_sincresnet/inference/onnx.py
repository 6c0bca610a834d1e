"""Clip classifiers for other runtimes: torch.export programs and ONNX files.

What is exported are the definitions, since the fast paths are operators of this package
alone; filters are constants, and batch norms are part of the convolutions.
"""

import copy
import json
import math
from pathlib import Path

import torch
from torch import nn

from ms_sincresnet.errors import ModelFolderError, UserError
from ms_sincresnet.files import atomic_path
from ms_sincresnet.models.architectures import GenreModel
from ms_sincresnet.models.weights import read_network
from ms_sincresnet.nnet.filtering import fold_norm
from ms_sincresnet.nnet.frontend import MSSincNet
from ms_sincresnet.nnet.resnet import ResNetEmbedding, fold_batch_norms
from ms_sincresnet.nnet.sincnet import FrameNetwork
from ms_sincresnet.pretrained.hub import fetch

INPUT, OUTPUT = "wavs", "log_posteriors"
TOLERANCE = 1e-4


def export_program(model, clip_samples):
    """A system as a program of ``torch.export``, which needs none of this package.

    Arguments
    ---------
    model : GenreModel
        The system, such as ``MSSincResNet``.
    clip_samples : int
        Samples of a clip.

    Returns
    -------
    torch.export.ExportedProgram
        Clips [batch, clip_samples], ``wavs``, to log-posteriors [batch, n_genres], for
        any number of clips, in float32 on the CPU.

    Example
    -------
    >>> from ms_sincresnet import MelResNet
    >>> program = export_program(MelResNet(n_mels=64), clip_samples=16000)
    >>> program.module()(torch.randn(3, 16000)).shape
    torch.Size([3, 10])
    """
    network = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    if isinstance(network.frontend, MSSincNet):
        network.frontend = _Frontend(network.frontend, clip_samples)
    if isinstance(network.embedding, ResNetEmbedding):
        network.embedding.trunk = fold_batch_norms(network.embedding.trunk)
    if isinstance(network.embedding, FrameNetwork):
        network.embedding = _Frames(network.embedding)
    # torch.export.save warns of channels last, and of memory that is not all in use.
    for value in (*network.parameters(), *network.buffers()):
        value.data = value.data.clone(memory_format=torch.contiguous_format)
    return torch.export.export(
        network,
        (torch.zeros(2, clip_samples),),
        dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
    )


class _Frontend(nn.Module):
    """What ``MSSincNet`` does in evaluation."""

    def __init__(self, frontend, clip_samples):
        super().__init__()
        self.definition = frontend
        self.scales = nn.ModuleList()
        for bank, norm in zip(frontend.banks, frontend.norms, strict=True):
            filters, offsets = fold_norm(bank.filters(), norm)
            padding = frontend.zeros_at_the_edges(bank)
            conv = nn.Conv1d(1, *filters.shape, padding=padding).requires_grad_(False)
            conv.weight.copy_(filters[:, None])
            conv.bias.copy_(offsets)
            n_samples = clip_samples + 2 * padding - bank.kernel_size + 1
            average = _Average(n_samples, frontend.n_frames)
            self.scales.append(nn.Sequential(conv, nn.ReLU(), average))

    def forward(self, wavs):
        """Maps of clips."""
        wavs = self.definition.normalize(wavs)[:, None]
        return torch.stack([scale(wavs) for scale in self.scales], dim=1)


class _Average(nn.Module):
    """Adaptive average pooling, with the samples of each frame as constants.

    torch.onnx's own finds them in float32, some of them wrong: 48000 · 1024 > 2^24.
    """

    def __init__(self, n_samples, n_frames):
        super().__init__()
        frames = torch.arange(n_frames)
        starts = frames * n_samples // n_frames
        counts = -((frames + 1) * -n_samples // n_frames) - starts
        steps = torch.arange(int(counts.max()))
        samples = (starts[:, None] + steps).clamp(max=n_samples - 1)
        self.register_buffer("samples", samples)
        self.register_buffer("weights", (steps < counts[:, None]) / counts[:, None])

    def forward(self, activations):
        """Averages of the samples of each frame."""
        return (activations[..., self.samples] * self.weights).sum(-1)


class _Frames(nn.Module):
    """What ``FrameNetwork`` does in evaluation, with all frames as one batch."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        filters = network.bank.filters()
        network.bank.filters = lambda: filters

    def forward(self, wavs):
        """Log-posteriors of clips [batch, 1, n_genres]."""
        network = self.network
        frames = wavs.unfold(1, network.frame_samples, network.frame_hop)
        maps = network.frame_maps(frames.flatten(0, 1))
        frames = network._log_posteriors(maps, wavs.shape[0])
        return frames.logsumexp(1, keepdim=True) - math.log(frames.shape[1])


def export_onnx(source, path):
    """Writes a system as an ONNX file.

    Clips of waveform ``wavs`` [batch, clip_samples] in, ``log_posteriors`` [batch,
    n_genres] out, in float32, for any number of clips. Its metadata tell the rest of
    what names a song's genre: ``genres`` (json), ``sample_rate``, ``clip_samples``,
    ``hop_samples``, ``voting``, and ``full_scale``, what samples in [-1, 1] are to be
    multiplied with. The file is checked with onnxruntime before it gets its name. At
    its full size, ``MSSincResNet`` then takes some 400 MB for each clip of a batch.

    Arguments
    ---------
    source : str, pathlib.Path or GenreModel
        A model folder, the name ``user/repository`` on the Hub, or a system with
        ``settings``, such as ``MSSincResNet.from_pretrained`` returns of either.
    path : str or pathlib.Path
        The file.

    Returns
    -------
    pathlib.Path
        The same.

    Raises
    ------
    UserError
        If the packages of the extra ``export`` are not installed, if ``path`` is a
        folder, or if onnxruntime's log-posteriors are off PyTorch's by more than 1e-4.
    ModelFolderError
        If there is no such model, or it does not tell its genres and clips.
    WeightsError
        If its weights are damaged or do not fit.

    Example
    -------
    >>> export_onnx("nowhere", "model.onnx")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.ModelFolderError: nowhere: no such model folder
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch.onnx needs it)
    except ImportError as error:
        raise UserError(
            f"an ONNX file needs {error.name}, which is not installed: "
            "pip install 'ms_sincresnet[export]'"
        ) from error
    if Path(path).is_dir():
        raise UserError(f"{path}: a folder; expected the name of the file to write")
    model = source if isinstance(source, GenreModel) else read_network(fetch(source))
    if not model.settings:
        what = type(model).__name__ if source is model else source
        raise ModelFolderError(
            f"{what}: it does not tell its genres and clips; expected a model folder, "
            "as train.py writes it"
        )
    facts = {
        "system": type(model).__name__,
        "sample_rate": model.config["sample_rate"],
        **model.settings,
    }
    program = export_program(model, facts["clip_samples"])
    exported = torch.onnx.export(
        program,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes={INPUT: {0: "batch"}},
        dynamo=True,
        verbose=False,
    )
    proto = exported.model_proto
    for part in (proto.graph, *proto.graph.node):  # which name folders of this machine
        part.ClearField("metadata_props")
    texts = {
        name: fact if isinstance(fact, str) else json.dumps(fact, ensure_ascii=False)
        for name, fact in facts.items()
    }
    onnx.helper.set_model_props(proto, texts)
    with atomic_path(path) as temporary_path:
        onnx.save(proto, temporary_path)
        options = {"providers": ["CPUExecutionProvider"]}
        session = onnxruntime.InferenceSession(temporary_path, **options)
        _check(session, model, facts)
    return Path(path)


@torch.no_grad()
def _check(session, model, facts):
    """Raises if onnxruntime's log-posteriors are not PyTorch's."""
    generator = torch.Generator().manual_seed(0)
    model = copy.deepcopy(model).cpu().float().eval()
    for n_clips in (1, 3):
        wavs = torch.randn(n_clips, facts["clip_samples"], generator=generator)
        wavs *= 0.1 * facts["full_scale"]
        (found,) = session.run([OUTPUT], {INPUT: wavs.numpy()})
        off = (torch.from_numpy(found) - model(wavs)).abs().max().item()
        if not off <= TOLERANCE:  # nor NaN
            raise UserError(
                f"onnxruntime's log-posteriors are off PyTorch's by {off:.2g}, more "
                f"than {TOLERANCE:g}; no file was written"
            )
