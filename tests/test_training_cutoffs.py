"""Cut-offs have a rate and a decay of their own, and leave a record."""

import numpy as np
import pandas as pd
import pytest
import speechbrain as sb
import torch

from ms_sincresnet import MSSincResNet, WarmupStepScheduler
from ms_sincresnet.training.brain import GenreBrain
from ms_sincresnet.training.cutoffs import CUTOFFS, record_cutoffs

SGD = {"lr": 1e-5, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}


@pytest.fixture(params=["hz", "relative"])
def model(request):
    return MSSincResNet(2, n_filters=4, parametrization=request.param)


def make_brain(folder, model):
    hparams = {"checkpoint": "last", "voting": "mean", "output_folder": folder}
    hparams |= {"cutoff_lr_factor": 100, "cutoff_weight_decay": 0.0}
    hparams["lr_annealing"] = WarmupStepScheduler(warmup_epochs=1)
    brain = GenreBrain({"model": model}, lambda p: torch.optim.SGD(p, **SGD), hparams)
    brain.init_optimizers()
    return brain


def test_the_factor_outlasts_every_epochs_rate_and_a_resume(tmp_path, model):
    brain = make_brain(tmp_path, model)
    state = brain.optimizer.state_dict()
    cutoffs = {id(p) for bank in model.frontend.banks for p in bank.parameters()}
    for _ in range(2):
        rest, own = brain.optimizer.param_groups
        assert {id(p) for p in own["params"]} == cutoffs
        assert len(rest["params"]) + len(own["params"]) == len([*model.parameters()])
        assert (rest["weight_decay"], own["weight_decay"]) == (1e-4, 0)
        for epoch, lr in [(1, 1e-5), (2, 5e-3)]:
            brain.on_stage_start(sb.Stage.TRAIN, epoch)
            assert (rest["lr"], own["lr"]) == (lr, pytest.approx(100 * lr))
        brain = make_brain(tmp_path, model)
        brain.optimizer.load_state_dict(state)


def test_the_record_is_that_of_the_epochs_however_often_they_ran(tmp_path, model):
    def cutoffs():
        banks = model.frontend.banks
        return torch.cat([torch.stack(bank.cutoffs(), 1) for bank in banks]).detach()

    first = cutoffs()
    record_cutoffs(tmp_path, model, 0)
    torch.manual_seed(0)
    for epoch in (1, 2, 2):  # the second one was killed, and is repeated
        for bank in model.frontend.banks:
            for parameter in bank.parameters():
                parameter.data *= 1.01
                parameter.data += 0.02 * torch.rand(4, 1)
        shifts = record_cutoffs(tmp_path, model, epoch)
    table = pd.read_csv(tmp_path / CUTOFFS)
    assert table.epoch.value_counts().to_dict() == {0: 12, 1: 12, 2: 12}
    last = table[table.epoch == 2]
    np.testing.assert_allclose(last[["low_hz", "high_hz"]], cutoffs(), atol=1e-3)
    assert last.taps.tolist() == [251] * 4 + [501] * 4 + [1001] * 4
    moved = (cutoffs() - first).abs().amax(1)
    assert shifts["largest_shift_hz"] == pytest.approx(moved.max().item(), abs=2e-3)
    assert shifts["median_shift_hz"] == pytest.approx(np.median(moved), abs=2e-3)
