"""ONNX files and programs: PyTorch's log-posteriors from onnxruntime, and nothing else.

Every network has batch norms that are not neutral and cut-offs off their start.
"""

import json
import sys
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch

from ms_sincresnet import MelResNet, MSSincResNet, SincNet
from ms_sincresnet.errors import ModelFolderError, UserError
from ms_sincresnet.inference import onnx
from ms_sincresnet.inference.onnx import export_onnx, export_program

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CLIP = 48000
MODELS = {
    "MSSincResNet": lambda: MSSincResNet(n_filters=8),
    # Frames of 48000 samples that are not evenly spread, and a layer norm to learn.
    "as released": lambda: MSSincResNet(
        n_filters=8,
        padding="valid",
        pooling="avg",
        hidden_size=None,
        affine_samples=CLIP,
    ),
    "MelResNet": lambda: MelResNet(n_mels=32),
    "SincNet": lambda: SincNet(n_filters=4, frame_hop=4000),
}


def trained(system):
    """A system as if it were trained: no parameter or statistic is what it was."""
    torch.manual_seed(0)
    model = MODELS[system]().eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif value.is_floating_point():
                value += 0.1 * value.std(correction=0) * torch.randn_like(value)
            if value.ndim == 1 and value.is_floating_point():  # norms and biases
                value += 0.1 * torch.randn_like(value).abs()
    model.settings = {
        "genres": [f"genre {number}" for number in range(10)],
        "clip_samples": CLIP,
        "hop_samples": 8000,
        "voting": "mean",
        "full_scale": 32768.0,
    }
    return model


def clips(batch):
    """Noise and tones at levels from loud to quiet."""
    generator = torch.Generator().manual_seed(batch)
    wavs = 0.1 * torch.randn(batch, CLIP, generator=generator)
    tones = 0.01 * torch.arange(1, batch + 1)[:, None] * torch.arange(CLIP)
    return (wavs + tones.sin()) * torch.logspace(0, -2, batch)[:, None]


@pytest.fixture(scope="module", params=MODELS)
def system(request):
    """A system."""
    return trained(request.param)


@pytest.fixture(scope="module")
def file(system, tmp_path_factory):
    """Its ONNX file, alone in a folder."""
    path = tmp_path_factory.mktemp("onnx") / "new" / "model.onnx"
    assert export_onnx(system, path) == path
    return path


@pytest.fixture(scope="module")
def session(file):
    """onnxruntime with the file."""
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("batch", [1, 3, 17])
def test_onnxruntime_gives_pytorchs_log_posteriors(system, session, batch):
    wavs = clips(batch)
    (found,) = session.run(["log_posteriors"], {"wavs": wavs.numpy()})
    with torch.no_grad():
        expected = system(wavs)
    assert expected.std() > 0.01
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-4)


def test_the_file_tells_what_it_needs(system, file, session):
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    (wavs,), (log_posteriors,) = session.get_inputs(), session.get_outputs()
    assert (wavs.name, wavs.shape) == ("wavs", ["batch", CLIP])
    assert (log_posteriors.name, log_posteriors.shape) == (
        "log_posteriors",
        ["batch", 10],
    )
    facts = session.get_modelmeta().custom_metadata_map
    assert facts.pop("system") == type(system).__name__
    assert facts.pop("voting") == "mean"
    assert {name: json.loads(fact) for name, fact in facts.items()} == {
        "sample_rate": 16000,
        "clip_samples": CLIP,
        "hop_samples": 8000,
        "genres": system.settings["genres"],
        "full_scale": 32768.0,
    }


def test_the_file_holds_float32_and_folded_batch_norms(system, file):
    model = onnx.load(file)
    operators = Counter(node.op_type for node in model.graph.node)
    if not isinstance(system, SincNet):  # which has none behind a convolution
        assert not operators["BatchNormalization"]
    assert not operators["Sin"]
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    types = {value.data_type for value in model.graph.initializer}
    assert types <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    weights = sum(value.nbytes for value in system.state_dict().values())
    assert file.stat().st_size < 1.05 * weights + 2**21
    for folder in (b"site-packages", b"ms_sincresnet/"):
        assert folder not in file.read_bytes()


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_program_needs_none_of_the_package(system, tmp_path):
    before = {name: value.clone() for name, value in system.state_dict().items()}
    program = export_program(system.train(), CLIP)
    assert system.training
    system.eval()
    for name, value in system.state_dict().items():
        assert value.equal(before[name])
    graphs = [module.graph for module in program.graph_module.modules()]
    names = {str(node.target) for graph in graphs for node in graph.nodes}
    assert not any("sinc" in name for name in names)
    if not isinstance(system, SincNet):
        assert not any("batch_norm" in name for name in names)
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    with torch.no_grad():
        for batch in (1, 4):
            expected = system(clips(batch))
            found = loaded(clips(batch))
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_a_song_is_named_by_the_file_of_a_model_folder_alone(
    model_folder, write_song, tmp_path, capfd
):
    path = export_onnx(str(model_folder), tmp_path / "model.onnx")
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    song = write_song(tmp_path / "song.wav", ("jazz", 4), ("metal", 6))
    wav, rate = soundfile.read(song, dtype="float32")
    assert rate == int(facts["sample_rate"])
    size, hop = int(facts["clip_samples"]), int(facts["hop_samples"])
    starts = range(0, len(wav) - size + 1, hop)
    cut = np.stack([wav[start : start + size] for start in starts])
    (found,) = session.run(None, {"wavs": float(facts["full_scale"]) * cut})
    genres = json.loads(facts["genres"])
    votes = Counter(genres[winner] for winner in found.argmax(1))
    assert votes.most_common(1)[0][0] == "metal"


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_extra_is_named(package, model_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs {package}.*ms_sincresnet\[export\]"):
        export_onnx(model_folder, tmp_path / "model.onnx")


def test_a_system_without_genres_is_refused(tmp_path):
    bare = MelResNet(n_mels=8)
    with pytest.raises(ModelFolderError, match="MelResNet: it does not tell"):
        export_onnx(bare, tmp_path / "model.onnx")
    bare.save_pretrained(tmp_path / "bare")
    with pytest.raises(ModelFolderError, match="bare: it does not tell"):
        export_onnx(tmp_path / "bare", tmp_path / "model.onnx")


def test_a_folder_is_not_overwritten(model_folder, tmp_path):
    with pytest.raises(UserError, match="a folder; expected the name of the file"):
        export_onnx(model_folder, tmp_path)


def test_what_onnxruntime_computes_otherwise_is_not_written(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_text("an older file")
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="off PyTorch's by .* no file was written"):
        export_onnx(trained("MelResNet"), path)
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_text() == "an older file"
