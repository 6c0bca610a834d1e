"""The model that comes with the package."""

import json

import soundfile
import torch
from safetensors.torch import load_file
from speechbrain.inference.classifiers import EncoderClassifier

from ms_sincresnet import GenreClassifier, MSSincResNet
from ms_sincresnet.data.synthetic import GENRES, render_track
from ms_sincresnet.models.hub import BUNDLED
from ms_sincresnet.pretrained.model_folder import read_model_folder, save_model_folder


def test_it_is_the_default_of_every_loader_and_command(tmp_path, command):
    song = tmp_path / "song.wav"
    track = render_track("jazz", 0, duration_s=4.0, sample_rate=16000, seed=0)
    soundfile.write(song, track, 16000)
    classifier = GenreClassifier.from_pretrained()
    expected = classifier.predict_song(song)
    assert set(expected.posteriors) == set(GENRES)
    stock = EncoderClassifier.from_hparams(str(BUNDLED), run_opts={"device": "cpu"})
    wav = classifier.load_audio(str(song))[None]
    log_posteriors = stock.classify_batch(wav)[0]
    assert torch.equal(log_posteriors, classifier.classify_batch(wav)[0])
    status, out, _ = command("classify", song, "--format", "jsonl", "--device", "cpu")
    assert (status, json.loads(out)["genre"]) == (0, expected.genre)
    assert "MSSincResNet\n" in command("info")[1]


def test_its_layers_are_halved_and_its_filters_learned():
    weights = load_file(BUNDLED / "model.safetensors")
    model = read_model_folder(BUNDLED)
    for name, value in weights.items():
        is_layer = value.ndim > 1 and name.startswith(("embedding", "classifier"))
        if value.is_floating_point():
            assert value.dtype == (torch.float16 if is_layer else torch.float32), name
    first = MSSincResNet(parametrization="relative").frontend.banks
    for bank, start in zip(model.frontend.banks, first, strict=True):
        low_hz, first_low_hz = bank.cutoffs()[0], start.cutoffs()[0]
        assert (low_hz - first_low_hz).abs().median() > 10
        assert bank.filters().isfinite().all()


def test_a_halved_folder_is_the_rounded_model(tmp_path, tone_model, genres):
    save_model_folder(tmp_path / "half", tone_model, genres, half=True)
    half, whole = read_model_folder(tmp_path / "half"), tone_model
    size = sum(value.nbytes for value in whole.state_dict().values())
    assert (tmp_path / "half/model.safetensors").stat().st_size < 0.51 * size
    for name, original in whole.state_dict().items():
        value = half.state_dict()[name]
        rounded = original.half().float() if value.ndim == 4 else original
        if not name.startswith("classifier"):
            assert torch.equal(value, rounded), name
    wavs = torch.randn(2, 48000)
    torch.testing.assert_close(half(wavs), whole(wavs), rtol=0, atol=0.02)
