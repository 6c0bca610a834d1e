#!/usr/bin/env python3
"""Time and memory of searches among random embeddings, written as ``embed`` does.

    python benchmarks/neighbours.py 100000 index.parquet

The first search reads the file from the disk, the others find it in memory.
"""

import os
import sys
import time

import torch
from measure import memory
from torch.nn.functional import normalize

from ms_sincresnet.inference.embeddings import EmbeddingKind
from ms_sincresnet.inference.neighbours import Index
from ms_sincresnet.inference.results import write_table


def write_index(path: str, n_songs: int) -> None:
    """Writes an index of songs that do not exist."""
    torch.manual_seed(0)
    kind, facts = EmbeddingKind("random", 2560), {"size": 1, "modified": None}
    embeddings = (normalize(torch.rand(2560), dim=0) for _ in range(n_songs))
    rows = (kind.row(f"{n}.mp3", each, facts) for n, each in enumerate(embeddings))
    write_table(rows, path, "parquet", kind)


def main(n_songs: int, path: str) -> None:
    """Writes the index if it is missing, and searches it five times."""
    if not os.path.exists(path):
        write_index(path, n_songs)
    with open(path, "rb") as file:
        os.fsync(file)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = memory("RssAnon")  # without mapped files
    for _ in range(5):
        start = time.perf_counter()
        index = Index(path)
        index.search(index.find("0.mp3"), 10, "0.mp3")
        seconds, more = time.perf_counter() - start, memory("RssAnon") - before
        print(f"{seconds:.1f} s, {more // 2**20} MiB more")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
