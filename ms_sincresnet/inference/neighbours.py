"""Songs whose embeddings are nearest to a song's: an exact search through all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ms_sincresnet.errors import UserError
from ms_sincresnet.files import as_utf8, file_state
from ms_sincresnet.inference.results import GROUP, is_current, load_arrow


class Index:
    """Output of ``embed``: a parquet file, or a folder of its parts."""

    def __init__(self, path: str) -> None:
        self._parts = sorted(Path(path).glob("part-*.parquet")) or [Path(path)]
        for part in self._parts:
            with _open(part) as file:
                for first in file.iter_batches(1, columns=["model"]):
                    self.model = first["model"][0].as_py()
                    return
        raise UserError(f"{path}: no songs in this index; run `embed` again")

    def find(self, song: str) -> np.ndarray | None:
        """The embedding of a song, unless its file is new or has changed."""
        arrow, state = load_arrow(), file_state(song)
        names = arrow.array(_names(song))
        for part in self._parts:
            with _open(part) as file:
                for group in range(file.num_row_groups):
                    paths = file.read_row_group(group, ["path"])["path"]
                    found = arrow.compute.is_in(paths, value_set=names)
                    if arrow.compute.any(found).as_py():
                        rows = file.read_row_group(group).filter(found).to_pylist()
                        for row in rows:
                            if is_current(row, state):
                                return np.array(row["embedding"], np.float32)
        return None

    def search(self, query: np.ndarray, top: int, song: str) -> list[tuple[float, str]]:
        """Cosines and paths of the nearest songs, other than the song itself."""
        best, own = list[tuple[float, str]](), _names(song)
        for part in self._parts:
            with _open(part) as file:
                for rows in file.iter_batches(GROUP, columns=["path", "embedding"]):
                    # Songs with an error have none.
                    paths = rows["path"].filter(rows["embedding"].is_valid())
                    values = rows["embedding"].flatten().to_numpy()
                    cosines = values.reshape(-1, len(query)) @ query
                    order = np.argsort(-cosines, kind="stable")[: top + len(own)]
                    near = [(-float(cosines[n]), paths[int(n)].as_py()) for n in order]
                    best += [each for each in near if each[1] not in own]
                    best = sorted(best)[:top]
        return [(-distance, path) for distance, path in best]


@contextmanager
def _open(part: Path) -> Iterator[Any]:
    """An open file, mapped to memory."""
    try:
        with load_arrow().parquet.ParquetFile(part, memory_map=True) as file:
            if not {"embedding", "model"} <= {*file.schema_arrow.names}:
                raise ValueError("it has other columns")
            yield file
    except (OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{part}: cannot be read as an index ({error})") from error


def _names(song: str) -> list[str]:
    """A song's path in the forms in which an index may have it."""
    full, near = os.path.abspath(song), os.path.relpath(os.path.abspath(song))
    forms = {song, os.path.normpath(song), near, f"./{near}", full}
    return [*map(as_utf8, forms)]
