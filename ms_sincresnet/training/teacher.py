"""A second task in training: the tags and features of a teacher for the same clip."""

from os import PathLike

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ms_sincresnet.data.audio import SAMPLE_RATE
from ms_sincresnet.errors import DataFolderError


class TeacherTargets:
    """A teacher's targets [tags + features] of a clip, by track and start.

    Arguments
    ---------
    path
        A parquet file with the columns ID, start (in s), tags and features.
    """

    def __init__(self, path: str | PathLike):
        table = pd.read_parquet(path)
        values = np.hstack([np.stack(table.tags), np.stack(table.features)])
        rows = torch.from_numpy(values.astype(np.float32))
        starts = (table.start * SAMPLE_RATE).round().astype(int)
        self.path = path
        self.rows = dict(zip(zip(table.ID, starts), rows))

    def __call__(self, track_id: str, start: int) -> Tensor:
        """Targets of the clip of a track that starts at a sample."""
        try:
            return self.rows[track_id, start]
        except KeyError:
            raise DataFolderError(
                f"{self.path}: no targets of {track_id} at sample {start}; make them "
                "again from this data"
            ) from None


class TeacherHead(nn.Module):
    """Linear predictions of a teacher's tags and features, as a loss.

    Arguments
    ---------
    embedding_size, n_tags, n_features
        Sizes of the embedding, of the tags (probabilities) and of the features.
    weight
        Multiplies the loss.
    """

    def __init__(
        self,
        embedding_size: int = 2560,
        n_tags: int = 50,
        n_features: int = 200,
        weight: float = 1.0,
    ):
        super().__init__()
        self.linear = nn.Linear(embedding_size, n_tags + n_features)
        self.norm = nn.BatchNorm1d(n_features, affine=False)  # of the teacher's scale
        self.n_tags = n_tags
        self.weight = weight

    def forward(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of the tags and squared error of the normalised features."""
        outputs = self.linear(embeddings[:, 0]).float()
        tags = F.binary_cross_entropy_with_logits(
            outputs[:, : self.n_tags], targets[:, : self.n_tags], reduction="none"
        )
        features = self.norm(targets[:, self.n_tags :])
        error = F.mse_loss(outputs[:, self.n_tags :], features)
        return self.weight * (tags.sum(1).mean() + 5 * error)
