"""Programs for other runtimes: filters are constants, batch norms folded into them."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ms_sincresnet.errors import ModelFolderError, UserError, needs_extra
from ms_sincresnet.files import atomic_path
from ms_sincresnet.models import GenreModel
from ms_sincresnet.models.hub import fetch
from ms_sincresnet.nnet.backends.op import pool_windows
from ms_sincresnet.nnet.filtering import fold_norm
from ms_sincresnet.nnet.frontend import MSSincNet
from ms_sincresnet.nnet.resnet import ResNetEmbedding, fold_batch_norms
from ms_sincresnet.nnet.sincnet import FrameNetwork
from ms_sincresnet.pretrained.model_folder import read_model_folder

INPUT, OUTPUT = "wavs", "log_posteriors"
TOLERANCE = 1e-4


def export_program(model: nn.Module, clip_samples: int) -> Any:
    """A model as a program that runs without this package, in float32 on the CPU."""
    network: Any = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    if isinstance(network.frontend, MSSincNet):
        network.frontend = _Frontend(network.frontend, clip_samples)
    if isinstance(network.embedding, ResNetEmbedding):
        trunk: Any = fold_batch_norms(network.embedding.trunk)
        network.embedding.trunk = trunk
    if isinstance(network.embedding, FrameNetwork):
        network.embedding = _Frames(network.embedding)
    # torch.export.save warns of channels-last tensors and of views.
    for value in (*network.parameters(), *network.buffers()):
        value.data = value.data.clone(memory_format=torch.contiguous_format)
    batch = {INPUT: {0: torch.export.Dim("batch")}}
    clips = torch.zeros(2, clip_samples)
    return torch.export.export(network, (clips,), dynamic_shapes=batch)


class _Frontend(nn.Module):
    """``MSSincNet`` in evaluation."""

    def __init__(self, frontend: Any, clip_samples: int) -> None:
        super().__init__()
        self.definition = frontend
        self.scales = nn.ModuleList()
        for bank, norm in zip(frontend.banks, frontend.norms, strict=True):
            filters, offsets = fold_norm(bank.filters(), norm)
            padding = frontend.zeros_at_the_edges(bank)
            conv = nn.Conv1d(1, *filters.shape, padding=padding)  # type: ignore
            conv.weight = nn.Parameter(filters[:, None], requires_grad=False)
            conv.bias = nn.Parameter(offsets, requires_grad=False)
            n_samples = clip_samples + 2 * padding - bank.kernel_size + 1
            average = _Average(n_samples, frontend.n_frames)
            self.scales.append(nn.Sequential(conv, nn.ReLU(), average))

    def forward(self, wavs: Tensor) -> Tensor:
        """Maps [batch, scales, n_filters, n_frames] of clips."""
        wavs = self.definition.normalize(wavs)[:, None]
        return torch.stack([scale(wavs) for scale in self.scales], dim=1)


class _Average(nn.Module):
    """Adaptive average pooling, with the samples of each frame as constants.

    torch.onnx computes them in float32, some wrongly: 48000 · 1024 > 2^24.
    """

    def __init__(self, n_samples: int, n_frames: int) -> None:
        super().__init__()
        starts, ends = pool_windows(n_samples, n_frames)
        counts = ends - starts
        steps = torch.arange(int(counts.max()))
        samples = (starts[:, None] + steps).clamp(max=n_samples - 1)
        self.register_buffer("samples", samples)
        self.register_buffer("weights", (steps < counts[:, None]) / counts[:, None])

    def forward(self, activations: Tensor) -> Tensor:
        """Means [..., n_frames]."""
        samples, weights = self.buffers()
        return (activations[..., samples] * weights).sum(-1)


class _Frames(nn.Module):
    """``FrameNetwork`` in evaluation, with all frames in one batch."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        filters = network.bank.filters()
        network.bank.filters = lambda: filters

    def forward(self, wavs: Tensor) -> Tensor:
        """Log-posteriors of clips [batch, 1, n_genres]."""
        network = self.network
        frames = wavs.unfold(1, network.frame_samples, network.frame_hop)
        maps = network.frame_maps(frames.flatten(0, 1))
        frames = network._log_posteriors(maps, wavs.shape[0])
        return frames.logsumexp(1, keepdim=True) - math.log(frames.shape[1])


def export_onnx(source: str | Path | GenreModel, path: str | Path) -> Path:
    """Writes a model as an ONNX file, if onnxruntime agrees with PyTorch within 1e-4.

    The file maps ``wavs`` [batch, clip_samples] to ``log_posteriors`` [batch,
    n_genres], in float32. Its metadata are ``genres`` (as json), ``sample_rate``,
    ``clip_samples``, ``hop_samples``, ``voting``, and ``full_scale``, the factor for
    samples in [-1, 1]. An ``MSSincResNet`` takes about 400 MB per clip of a batch.

    Arguments
    ---------
    source
        Model folder, ``user/repository`` on the Hub, or a model with ``settings``.
    path
        Name of the file.

    Returns
    -------
    The same name.

    Example
    -------
    >>> export_onnx("no/such/folder", "model.onnx")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.ModelFolderError: no/such/folder: no such model folder
    """
    with needs_extra("an ONNX file", "export"):
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch.onnx needs it)
    if Path(path).is_dir():
        raise UserError(f"{path}: a folder; expected the name of the file to write")
    model: Any = source
    if not isinstance(source, GenreModel):
        model = read_model_folder(fetch(source))
    elif not source.settings:
        name, advice = type(source).__name__, "load it from a model folder"
        raise ModelFolderError(f"{name}: its genres are not known; {advice}")
    names: Any = {"input_names": [INPUT], "output_names": [OUTPUT]}
    names |= {"dynamic_shapes": {INPUT: {0: "batch"}}}
    program = export_program(model, model.settings["clip_samples"])
    exported: Any = torch.onnx.export(program, **names, dynamo=True, verbose=False)
    proto = exported.model_proto
    for part in (proto.graph, *proto.graph.node):  # they name folders of this machine
        part.ClearField("metadata_props")
    facts = {"sample_rate": model.config["sample_rate"], **model.settings}
    for name in facts.keys() - {"training", "voting"}:
        facts[name] = json.dumps(facts[name], ensure_ascii=False)
    facts.pop("training", None)
    onnx.helper.set_model_props(proto, facts | {"system": type(model).__name__})
    with atomic_path(path) as temporary_path:
        onnx.save(proto, temporary_path)
        providers = ["CPUExecutionProvider"]
        _check(onnxruntime.InferenceSession(temporary_path, providers=providers), model)
    return Path(path)


@torch.no_grad()
def _check(session: Any, model: GenreModel) -> None:
    """Raises if onnxruntime's log-posteriors are not PyTorch's."""
    settings, generator = model.settings, torch.Generator().manual_seed(0)
    model = copy.deepcopy(model).cpu().float().eval()
    for n_clips in (1, 3):
        wavs = torch.randn(n_clips, settings["clip_samples"], generator=generator)
        wavs *= 0.1 * settings["full_scale"]
        (found,) = session.run([OUTPUT], {INPUT: wavs.numpy()})
        difference = (torch.from_numpy(found) - model(wavs)).abs().max().item()
        if not difference <= TOLERANCE:  # nor NaN
            reason = "onnxruntime's log-posteriors differ from PyTorch's by"
            raise UserError(f"{reason} {difference:.2g}; no file was written")
