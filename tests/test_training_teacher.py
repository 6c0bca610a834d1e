"""The teacher's second task: its targets, its loss, and a training with it."""

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from ms_sincresnet.errors import HparamError
from ms_sincresnet.nnet.sync_batch_norm import share_statistics
from ms_sincresnet.training.teacher import TeacherHead, TeacherTargets


def test_loss_is_cross_entropy_and_normalised_error():
    torch.manual_seed(0)
    teacher = TeacherHead(embedding_size=8, n_tags=2, n_features=3, weight=0.5)
    embeddings, tags, features = torch.rand(6, 1, 8), torch.rand(6, 2), torch.rand(6, 3)
    loss = teacher(embeddings, torch.cat([tags, 9 * features + 7], 1))
    predicted = teacher.linear(embeddings[:, 0])
    centred = features - features.mean(0)
    expected = centred / centred.square().mean(0).sqrt()
    error = (predicted[:, 2:] - expected).square().mean()
    entropy = F.binary_cross_entropy(predicted[:, :2].sigmoid(), tags)
    torch.testing.assert_close(loss, 0.5 * (2 * entropy + 5 * error), rtol=1e-3, atol=0)
    share_statistics(teacher)  # as with several processes
    shared = teacher(embeddings, torch.cat([tags, 9 * features + 7], 1))
    torch.testing.assert_close(shared, loss)


def test_faults_of_the_targets_are_named(tmp_path):
    path = tmp_path / "teacher.parquet"
    with pytest.raises(HparamError, match="teacher.parquet: .*teacher.py writes it"):
        TeacherTargets(path)
    pd.DataFrame({"ID": ["a"], "start": [0.0]}).to_parquet(path)
    with pytest.raises(HparamError, match="tags.*teacher.py writes it"):
        TeacherTargets(path)
    row = {"ID": "jazz.1", "start": 0.0, "tags": [0.5], "features": [1.0]}
    pd.DataFrame([row]).to_parquet(path)
    with pytest.raises(HparamError, match="no jazz.1 at 0.5 s; .*clip_grid"):
        TeacherTargets(path)("jazz.1", 8000)
