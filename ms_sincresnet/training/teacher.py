"""A second task in training: a teacher's tags and features of the same clip."""

from os import PathLike

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ms_sincresnet.data.audio import SAMPLE_RATE
from ms_sincresnet.errors import HparamError


class TeacherTargets:
    """A teacher's tags and features of clips, by track and start.

    Arguments
    ---------
    path
        Parquet file with the columns ID, start (in s), tags and features.

    Raises
    ------
    HparamError
        If the file is missing or lacks a column, or a clip is not in it.

    Example
    -------
    >>> path = getfixture("tmp_path") / "teacher.parquet"
    >>> row = {"ID": "jazz.1", "start": 1.5, "tags": [0.25], "features": [2.0, 3.0]}
    >>> pd.DataFrame([row]).to_parquet(path)
    >>> TeacherTargets(path)("jazz.1", 24000)
    tensor([0.2500, 2.0000, 3.0000])
    """

    def __init__(self, path: str | PathLike):
        try:
            table = pd.read_parquet(path)
            values = np.hstack([np.stack(table.tags), np.stack(table.features)])
            starts = (table.start * SAMPLE_RATE).round().astype(int)
        except (OSError, ValueError, AttributeError) as error:
            advice = "teacher.py writes it"
            raise HparamError(f"teacher_targets: {path}: {error}; {advice}") from error
        rows = torch.from_numpy(values.astype(np.float32))
        clips = zip(table.ID, starts, strict=True)
        self.path, self.rows = path, dict(zip(clips, rows, strict=True))

    def __call__(self, track_id: str, start: int) -> Tensor:
        """Targets [tags + features] of the clip that starts at a sample."""
        if (track_id, start) not in self.rows:
            clip = f"{track_id} at {start / SAMPLE_RATE:g} s"
            advice = "make it from this data, and keep clip_grid at 24000"
            raise HparamError(f"teacher_targets: {self.path}: no {clip}; {advice}")
        return self.rows[track_id, start]


class TeacherHead(nn.Module):
    """Linear predictions of a teacher's tags and features, as a loss.

    Only training uses it: no model folder holds it.

    Arguments
    ---------
    embedding_size, n_tags, n_features
        Sizes of the embedding, the tags (probabilities) and the features.
    weight
        Multiplies the loss.

    Example
    -------
    >>> teacher = TeacherHead(embedding_size=8, n_tags=2, n_features=3)
    >>> teacher(torch.randn(4, 1, 8), torch.rand(4, 5)).shape
    torch.Size([])
    """

    def __init__(
        self,
        embedding_size: int = 2560,
        n_tags: int = 50,
        n_features: int = 200,
        weight: float = 0.1,
    ):
        super().__init__()
        self.linear = nn.Linear(embedding_size, n_tags + n_features)
        self.norm = nn.BatchNorm1d(n_features)  # of the teacher's scale
        self.norm.requires_grad_(False)
        self.sizes, self.weight = (n_tags, n_features), weight

    def forward(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        """Loss of embeddings [batch, 1, size] against targets [batch, tags + features].

        Cross-entropy, summed over the tags, and the features' squared error.
        """
        predicted, features = self.linear(embeddings[:, 0]).float().split(self.sizes, 1)
        tags, expected = targets.split(self.sizes, 1)
        cross_entropy = F.binary_cross_entropy_with_logits(predicted, tags)
        error = F.mse_loss(features, self.norm(expected))
        return self.weight * (self.sizes[0] * cross_entropy + 5 * error)
