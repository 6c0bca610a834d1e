"""ONNX files give PyTorch's log-posteriors, without this package."""

import copy
import json
import os
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from ms_sincresnet import MelResNet, MSSincNet, MSSincResNet, SincNet
from ms_sincresnet.errors import ModelFolderError, UserError
from ms_sincresnet.inference import onnx as module
from ms_sincresnet.inference.onnx import export_onnx
from ms_sincresnet.pretrained.model_folder import save_model_folder

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CLIP = 48000
SETTINGS = {"genres": [f"genre {number}" for number in range(10)], "voting": "mean"}
SETTINGS |= {"clip_samples": CLIP, "hop_samples": 8000, "full_scale": 32768.0}
MODELS = {
    # Frames of unequal numbers of samples, and a layer norm with weights.
    "MSSincResNet": partial(MSSincResNet, 10, 8, padding="valid", affine_samples=CLIP),
    "MelResNet": partial(MelResNet, n_mels=32),
    "SincNet": partial(SincNet, n_filters=4, frame_samples=800, frame_hop=4000),
}


def trained(name):
    """A model whose norms and cut-offs differ from their initial values."""
    torch.manual_seed(0)
    model = MODELS[name]()
    if name != "SincNet":
        trunk = model.embedding.trunk
        for layer in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
            del layer[1]  # the other block has all operators, and exports in less time
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
        elif value.is_floating_point():
            value += 0.1 * value.std(correction=0) * torch.randn_like(value)
        if value.ndim == 1 and value.is_floating_point():  # norms and biases
            value += 0.1 * torch.randn_like(value).abs()
    model.settings = dict(SETTINGS)
    return model


def clips(batch):
    generator = torch.Generator().manual_seed(batch)
    wavs = 0.1 * torch.randn(batch, CLIP, generator=generator)
    tones = 0.01 * torch.arange(1, batch + 1)[:, None] * torch.arange(CLIP)
    return (wavs + tones.sin()) * torch.logspace(0, -2, batch)[:, None]


@pytest.fixture(scope="module", params=MODELS)
def exported(request, tmp_path_factory):
    model = trained(request.param)
    before = copy.deepcopy(model.state_dict())
    path = tmp_path_factory.mktemp("onnx") / "new" / "model.onnx"
    assert export_onnx(model, path) == path
    assert model.training
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())
    return model.eval(), path


def test_the_file_gives_pytorchs_log_posteriors_and_describes_its_use(exported):
    model, file = exported
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        (found,) = session.run(["log_posteriors"], {"wavs": clips(batch).numpy()})
        with torch.no_grad():
            expected = model(clips(batch))
        assert expected.std() > 0.01
        found = torch.from_numpy(found)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)

    facts = session.get_modelmeta().custom_metadata_map
    assert facts.pop("system") == type(model).__name__
    assert facts.pop("voting") == "mean"
    found = {name: json.loads(fact) for name, fact in facts.items()}
    assert found | {"voting": "mean"} == {"sample_rate": 16000, **SETTINGS}


def test_one_file_holds_all_and_names_no_folder(exported):
    model, file = exported
    assert os.listdir(file.parent) == [file.name]
    graph = onnx.load(file).graph
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    weights = sum(value.nbytes for value in model.state_dict().values())
    assert file.stat().st_size < 1.05 * weights + 2**21
    for folder in (b"site-packages", b"ms_sincresnet/"):
        assert folder not in file.read_bytes()


@torch.no_grad()
def test_front_ends_with_zeros_at_the_edges():
    frontend = MSSincNet(n_filters=4).eval()
    for norm in frontend.norms:
        norm.running_mean.uniform_(-0.1, 0.1)
    wavs = clips(2)[:, :8000]
    found = module._Frontend(frontend, 8000)(wavs)
    torch.testing.assert_close(found, frontend(wavs), rtol=0, atol=1e-4)


def test_a_model_without_genres_is_refused(tmp_path):
    with pytest.raises(ModelFolderError, match="MelResNet: its genres are not known"):
        export_onnx(MelResNet(n_mels=8), tmp_path / "model.onnx")


@pytest.mark.parametrize("exported", ["MelResNet"], indirect=True)
def test_a_file_that_differs_is_not_written(exported, tmp_path, monkeypatch):
    """The exporter returns another model's file, which saves time as well."""
    folder, path = tmp_path / "model", tmp_path / "model.onnx"
    save_model_folder(folder, MODELS["MelResNet"](), **SETTINGS)
    proto = SimpleNamespace(model_proto=onnx.load(exported[1]))
    monkeypatch.setattr(torch.onnx, "export", lambda *parts, **options: proto)
    monkeypatch.setattr(module, "export_program", lambda *parts: None)
    path.write_text("an older file")
    with pytest.raises(UserError, match="differ from PyTorch's by .* no file was writ"):
        export_onnx(str(folder), path)
    assert path.read_text() == "an older file"
    assert sorted(os.listdir(tmp_path)) == ["model", "model.onnx"]
