"""Rows of embeddings, written to parquet files and resumed as predictions are."""

from base64 import b64decode, b64encode
from typing import Any, NamedTuple

import numpy as np

from ms_sincresnet.errors import UserError
from ms_sincresnet.files import as_utf8
from ms_sincresnet.inference.batch import model_identity, song_row
from ms_sincresnet.inference.results import Kind, Row, load_arrow


class EmbeddingKind(NamedTuple):
    """The ``model_identity`` and the length of the embeddings that all rows share."""

    model: str
    length: int

    def row(self, file: Any, outcome: Any, facts: Row) -> Row:
        """The row of a song, in types that JSON has."""
        failed = isinstance(outcome, UserError)
        error = song_row(file, outcome)["error"] if failed else None
        code = None if failed else b64encode(outcome.numpy().data).decode()
        return {"file": as_utf8(str(file)), "embedding": code, "error": error, **facts}

    def columns(self) -> list[str]:
        """Columns of parquet."""
        return ["path", "size", "modified", "embedding", "error", "warning", "model"]

    def types(self) -> dict[str, Any]:
        """Types of the columns that are no text."""
        arrow = load_arrow()
        embedding = arrow.list_(arrow.float32(), self.length)
        return {"size": arrow.int64(), "embedding": embedding}

    def flat(self, row: Row) -> Row:
        """A row by columns."""
        code = row["embedding"]
        values = None if code is None else np.frombuffer(b64decode(code), np.float32)
        return row | {"path": row["file"], "embedding": values, "model": self.model}

    def nested(self, flat: Row) -> Row:
        """The row of a flat one."""
        if (values := flat["embedding"]) is not None:
            flat["embedding"] = b64encode(np.array(values, np.float32).data).decode()
        return {"file": flat.pop("path"), **flat}

    def check(self, row: Any) -> None:
        """Refuses a row of another model."""
        if not isinstance(row, dict) or not {"file", "error", "embedding"} <= {*row}:
            raise ValueError("it was not written by this command")
        if row.get("model") != self.model:
            raise ValueError(f"its model is {row.get('model')}; expected {self.model}")


def kind_of(classifier: Any, embeds: bool, top: int, *options: Any) -> Any:
    """The kind of the rows of predictions, with some options, or of embeddings."""
    identity = model_identity(classifier)
    if embeds:
        trunk = classifier.mods.embedding_model.embedding
        return EmbeddingKind(identity, trunk.embedding_size)
    n_genres = len(classifier.hparams.label_encoder.ind2lab)
    return Kind(identity, min(top, n_genres), *options)
