"""The models of Table 1: gradients, devices, and the arguments that rebuild them."""

import copy
import functools
import json

import pytest
import torch
from torch.func import functional_call

from ms_sincresnet import MelResNet, MSSincResNet, SincNet
from ms_sincresnet.models.weights import build_on_meta
from ms_sincresnet.nnet.filterbank import SincFilterbank
from ms_sincresnet.nnet.frontend import LogMelSpectrogram

SINCNET = {"n_filters": 8, "kernel_size": 51, "frame_samples": 800, "frame_hop": 400}
SMALL = {
    MSSincResNet: {"n_filters": 8, "n_frames": 64, "kernel_sizes": (101, 51, 25)},
    MelResNet: {"n_mels": 32},
    SincNet: SINCNET | {"train_frames": 4},
}
each_model = pytest.mark.parametrize("model_class", SMALL)


def music(n_samples=8000, batch=2):
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(batch, n_samples, generator=generator)


@functools.cache
def built(model_class):
    torch.manual_seed(0)
    return model_class(**SMALL[model_class]).eval()


def small(model_class):
    return copy.deepcopy(built(model_class))


@each_model
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_parameter_and_silence_is_finite(model_class, training):
    model = small(model_class).train(training)
    model(music())[:, 3].sum().backward()
    banks = [part for part in model.modules() if isinstance(part, SincFilterbank)]
    assert banks or model_class is MelResNet
    for bank in banks:
        assert bank.low_hz_.grad.ne(0).all()
        # The band of the last filter ends at half the sample rate, whatever it is.
        assert bank.band_hz_.grad[:-1].ne(0).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.ne(0).any(), name
    model.zero_grad()
    log_posteriors = model(torch.zeros(2, 8000))
    log_posteriors[:, 3].sum().backward()
    gradients = (parameter.grad for parameter in model.parameters())
    for values in (log_posteriors, *model.buffers(), *gradients):
        assert values.isfinite().all()


@each_model
@pytest.mark.parametrize("training", [True, False])
def test_it_computes_at_full_size_on_the_device_that_it_is_moved_to(
    training, model_class, fake_gpu
):
    model = build_on_meta(model_class, {}).train(training)
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    with fake_gpu:
        moved = {
            name: torch.empty(x.shape, dtype=x.dtype, device="cuda")
            for name, x in state.items()
        }
        wavs = torch.empty(2, 48000, device="cuda")
        log_posteriors = functional_call(model, moved, wavs)
    assert log_posteriors.shape == (2, 10)
    assert log_posteriors.device.type == "cuda"


SONGS = {"n_genres": 6, "sample_rate": 8000}
RESNET = SONGS | {"arch": "resnet34", "hidden_size": None}
SCALES = {"n_filters": 4, "kernel_sizes": (101, 51, 25), "n_frames": 32}
SCALES |= {"init": "linear", "padding": "valid", "backend": "reference"}
SCALES |= {"pooling": "avg", "affine_samples": 4000, "parametrization": "relative"}
MEL = {"n_mels": 24, "window_samples": 256, "mel_hop": 100, "pooling": "spp"}
FRAMES = {"frame_samples": 400, "frame_hop": 100, "train_frames": 2}
FRAMES |= {"n_filters": 4, "kernel_size": 25, "init": "linear"}
OTHER = {
    MSSincResNet: RESNET | SCALES,
    MelResNet: RESNET | MEL,
    SincNet: SONGS | FRAMES,
}


@each_model
def test_the_config_holds_every_argument_and_rebuilds_the_model(model_class):
    model = build_on_meta(model_class, OTHER[model_class])
    assert model.config == json.loads(json.dumps(OTHER[model_class]))
    rebuilt = build_on_meta(model_class, model.config)
    assert rebuilt.config == model.config
    assert str(rebuilt) == str(model)


def test_every_argument_reaches_its_part():
    model = build_on_meta(MSSincResNet, OTHER[MSSincResNet])
    frontend = model.frontend
    assert {bank.sample_rate for bank in frontend.banks} == {8000}
    assert [bank.kernel_size for bank in frontend.banks] == [101, 51, 25]
    assert (frontend.padding, frontend.backend) == ("valid", "reference")
    assert frontend.clip_norm.normalized_shape == (1, 4000)
    assert len(model.embedding.trunk.layer3) == 6  # two in ResNet-18
    assert (frontend.n_frames, model.embedding.embedding_size) == (32, 512)
    mel = build_on_meta(MelResNet, OTHER[MelResNet])
    assert mel.frontend(music(1600)).shape == (2, 3, 24, 17)
    assert mel.frontend.bands.equal(LogMelSpectrogram(24, 256, 100, 8000).bands)
    assert mel.embedding.embedding_size == 2560
    sincnet = SincNet(**OTHER[SincNet])
    bank = sincnet.embedding.bank
    assert (bank.sample_rate, bank.kernel_size) == (8000, 25)
    torch.testing.assert_close(bank.band_hz_, bank.band_hz_[:1].expand(4, 1))
    frames = sum(map(len, sincnet.embedding.clip_maps(music()[0])))
    assert frames == 1 + (8000 - 400) // 100
    assert sincnet(music()).shape == (2, 6)
