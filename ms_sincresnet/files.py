"""Files that are written whole or not at all, weights, and file names as text."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ms_sincresnet.errors import WeightsError

if TYPE_CHECKING:  # torch takes seconds to load
    from torch import Tensor


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name that becomes ``path`` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Unique per process and thread; short, since path.name may be as long as allowed.
    name = f".ms-sincresnet-{os.getpid()}-{threading.get_ident()}.tmp"
    temporary_path = path.with_name(name + path.suffix[:8])
    try:
        yield temporary_path
        os.replace(temporary_path, path)
    except BaseException:
        temporary_path.unlink(missing_ok=True)
        raise


def file_state(path: str | os.PathLike) -> dict[str, Any]:
    """Size of a file and time of its last change; both None if it is missing."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return {"size": None, "modified": None}
    modified = datetime.fromtimestamp(state.st_mtime_ns / 1e9, timezone.utc)
    return {"size": state.st_size, "modified": modified.isoformat()}


def n_processors() -> int:
    """Processors that this process may use, by its affinity and its control groups."""
    if hasattr(os, "sched_getaffinity"):  # on Linux
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    with suppress(OSError, ValueError):
        group = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
        places = [Path("/sys/fs/cgroup", group), *Path("/sys/fs/cgroup", group).parents]
        for place in places:
            with suppress(OSError, ValueError):
                quota, period = map(int, (place / "cpu.max").read_text().split())
                count = min(count, max(1, quota // period))
    return count


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def as_json(data: Any) -> str:
    """The text of a JSON file."""
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def as_markdown(header: Iterable, rows: Iterable[Iterable]) -> str:
    """A table in Markdown."""
    header = [*header]
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def write_json(data: Any, path: str | os.PathLike) -> None:
    """Writes a JSON file, whole or not at all."""
    with atomic_path(path) as temporary_path:
        temporary_path.write_text(as_json(data), encoding="utf-8")


def load_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """Tensors by name, of a ``.safetensors`` file or a state dict that torch saved."""
    import torch
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file of weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the bytes provoke
        # Its message is not quoted: it advises to unpickle the file without checks.
        kinds = "a safetensors file, or a state dict written by torch.save"
        reason = f"not a file of weights ({kinds}); nothing in it was run"
        if re.search(r"numpy[\w.]*\.(scalar|dtype)", str(error)):
            fault = "it holds a NumPy scalar, such as an accuracy, which could run code"
            advice = "save it with float(value) in its place, or the weights alone"
            reason = f"{fault}; {advice}"
        raise WeightsError(f"{path}: {reason}") from error
    if not isinstance(state, dict):
        raise WeightsError(
            f"{path}: expected a dict of tensors by name; got {type(state).__name__}"
        )
    return state


def as_utf8(text: str) -> str:
    """Text that encodes as UTF-8; undecodable bytes of a file name become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def natural(name: str) -> tuple:
    """A sort key that compares numbers by value and ignores case."""
    parts = re.split("([0-9]+)", name.casefold())
    parts[1::2] = map(int, parts[1::2])
    return parts, name


def printable(text: str) -> str:
    """Text with its control characters escaped, safe to print to a terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )
