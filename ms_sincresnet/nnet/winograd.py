"""The ResNet's trunk on ncnn, whose convolutions take fewer multiplications."""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import ncnn
import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from ms_sincresnet.nnet.resnet import ResNetEmbedding, fold_batch_norms

MAGIC = "7767517"  # of ncnn's descriptions of networks
CLIPS_AT_A_TIME = 4  # in the last stage, whose weights exceed a cache
ALLOCATORS = ncnn.PoolAllocator(), ncnn.PoolAllocator()  # keep memory for reuse


def use_winograd(network: nn.Module) -> None:
    """Lets ResNets in a network on the CPU evaluate by a ``WinogradTrunk``.

    Those that have other blocks than ResNet-18 and ResNet-34 stay as they are.
    """
    for module in network.modules():
        if isinstance(module, ResNetEmbedding) and module.fast_trunk is None:
            blocks = chain(*module.trunk[4:])
            if all(isinstance(block, BasicBlock) for block in blocks):
                module.fast_trunk = WinogradTrunk(module.trunk)


class WinogradTrunk:
    """A trunk of basic blocks in evaluation, in float32, with the weights of now.

    ncnn computes convolutions of 3 × 3 by minimal filtering (Lavin and Gray, "Fast
    algorithms for convolutional neural networks", CVPR 2016), which PyTorch lacks.
    """

    def __init__(self, trunk: nn.Sequential):
        folded: Any = fold_batch_norms(trunk)
        # A maximum of rectified values is the rectified maximum, of fewer values.
        self._stem = nn.Sequential(folded.conv1, folded.maxpool, folded.relu)
        self._stages = _network([*chain(*folded[4:7])])
        self._last_stage = _network(folded[7], masked=True)
        self._n_threads = torch.get_num_threads()
        self._threads = ThreadPoolExecutor(self._n_threads)

    def __call__(self, feats: Tensor) -> Tensor:
        """Volumes [batch, channels, height, width] of maps."""
        layout: Any = {"memory_format": torch.channels_last}
        # Clip by clip: more need fresh memory each time.
        volumes = (self._stem(clip.contiguous(**layout)) for clip in feats[:, None])
        images = [volume[0].contiguous().numpy() for volume in volumes]
        n_groups = -(-len(images) // CLIPS_AT_A_TIME)
        n_groups += -n_groups % self._n_threads
        size = -(-len(images) // n_groups)
        groups = [images[n : n + size] for n in range(0, len(images), size)]
        found = self._threads.map(self._volumes, groups)
        return torch.from_numpy(np.concatenate([*found]))

    def _volumes(self, images: list[np.ndarray]) -> np.ndarray:
        """Volumes of a few clips, which pass the last stage as a single image.

        Zeros lie between them there, at least a row after the stage halved the height.
        """
        volumes = np.stack([_run(self._stages, input=image) for image in images])
        failed = ~np.isfinite(volumes).all((1, 2, 3))
        volumes[failed] = 0  # which neighbours would notice otherwise
        n_clips, channels, height, width = volumes.shape
        rows = (height + 1) // 2
        image = np.zeros((channels, n_clips, 2 * (rows + 1), width), np.float32)
        image[:, :, :height] = volumes.swapaxes(0, 1)
        mask = np.ones((1, n_clips, rows + 1), np.float32)
        mask[..., rows] = 0
        image, mask = image.reshape(channels, -1, width), mask.reshape(1, -1, 1)
        outputs = _run(self._last_stage, input=image, mask=mask)
        outputs = outputs.reshape(len(outputs), n_clips, rows + 1, -1)[:, :, :rows]
        outputs[:, failed] = np.nan
        return outputs.swapaxes(0, 1)


def _run(network: ncnn.Net, **inputs: np.ndarray) -> np.ndarray:
    """The output [channels, height, width] of a network."""
    extractor = network.create_extractor()
    for name, values in inputs.items():
        extractor.input(name, ncnn.Mat(values))
    return np.array(extractor.extract("output")[1])


def _network(blocks: Sequence[Any], masked: bool = False) -> ncnn.Net:
    """ncnn's network of basic blocks without batch norms.

    If ``masked``, a second input multiplies what convolutions of stride 1 take.
    """
    layers = _Layers()
    volume = layers.add("Input", "input")
    if masked:
        copies = " ".join(f"mask_{n}" for n in range(2 * len(blocks)))
        masks = iter(layers.add("Split", copies, layers.add("Input", "mask")).split())

    def mask(volume: str) -> str:
        if not masked:
            return volume
        pair = f"{volume} {next(masks)}"
        return layers.add("BinaryOp", f"{volume}_masked", pair, "0=2")

    for n, block in enumerate(blocks):
        names = f"{n}_branch {n}_shortcut"
        branch, shortcut = layers.add("Split", names, volume).split()
        branch = mask(layers.convolve(block.conv1, f"{n}_first", branch, rectify=True))
        branch = layers.convolve(block.conv2, f"{n}_second", branch)
        if block.downsample is not None:
            shortcut = layers.convolve(block.downsample[0], f"{n}_down", shortcut)
        total = layers.add("BinaryOp", f"{n}_sum", f"{branch} {shortcut}", "0=0")
        volume = mask(layers.add("ReLU", f"{n}_rectified", total))
    layers.add("Noop", "output", volume)
    return layers.network()


class _Layers:
    """Layers in ncnn's description, and their weights."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.weights: list[Any] = []

    def add(self, kind: str, outputs: str, inputs: str = "", options: str = "") -> str:
        """Adds a layer, named like its first output, and returns its outputs."""
        n_inputs, n_outputs = len(inputs.split()), len(outputs.split())
        name = outputs.split()[0]
        line = f"{kind} {name} {n_inputs} {n_outputs} {inputs} {outputs} {options}"
        self.lines.append(line)
        return outputs

    def convolve(
        self, conv: nn.Conv2d, output: str, inputs: str, rectify: bool = False
    ) -> str:
        """Adds a convolution, and ReLU if ``rectify``; returns its output."""
        self.weights.append(bytes(4))  # float32 follows
        for values in (conv.weight, conv.bias):
            self.weights.append(values.detach().contiguous().numpy())
        sizes = f"1={conv.kernel_size[0]} 3={conv.stride[0]} 4={conv.padding[0]}"
        options = f"0={conv.out_channels} {sizes} 5=1 6={conv.weight.numel()}"
        return self.add("Convolution", output, inputs, f"{options} 9={rectify:d}")

    def network(self) -> ncnn.Net:
        """A network of these layers."""
        network = ncnn.Net()
        for part in ("packed", "storage", "arithmetic"):
            setattr(network.opt, f"use_fp16_{part}", False)
        network.opt.num_threads = 1  # a thread per clip is faster
        network.opt.blob_allocator, network.opt.workspace_allocator = ALLOCATORS
        n_outputs = sum(int(line.split()[3]) for line in self.lines)
        sizes = f"{len(self.lines)} {n_outputs}"
        network.load_param_mem("\n".join([MAGIC, sizes, *self.lines, ""]))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "weights")
            path.write_bytes(b"".join(self.weights))
            network.load_model(str(path))
        return network
