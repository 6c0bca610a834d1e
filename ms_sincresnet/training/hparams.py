"""Hparams of recipes: overrides of included files, and errors that name the hparam.

A file of hparams may build on another: ``base: !include:other.yaml``, with the values
that differ. hyperpyyaml leaves what it includes under the key ``base``, to any depth;
``open_hparams`` leads the command line's overrides there, and ``flatten`` lifts the
values to the top, where recipes read them.
"""

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import yaml
from hyperpyyaml import resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ms_sincresnet.errors import HparamError, UserError


@contextmanager
def open_hparams(
    hparams_file: str | Path, overrides: str = "", how_to_get: str = ""
) -> Iterator[tuple[TextIO, dict[str, Any]]]:
    """Opens a file of hparams for ``load_hyperpyyaml``, with errors that name it.

    Yaml that cannot be parsed, a placeholder that was left, and values that a
    constructor refuses with a ``ValueError`` are mistakes of the user. Any other error
    is a bug and passes.

    Arguments
    ---------
    hparams_file
        The yaml file.
    overrides
        Overrides as yaml, as ``speechbrain.parse_arguments`` returns them.
    how_to_get
        Advice that ends the message if a placeholder was left.

    Yields
    ------
    The open file, and the overrides, nested to reach what the file includes.

    Raises
    ------
    HparamError
        If the file is missing, an override is given twice or is no hparam of the file,
        or the block finds one of the mistakes above.

    Example
    -------
    >>> from hyperpyyaml import load_hyperpyyaml
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "all.yaml").write_text("seed: 1\\nfold: 0\\n")
    >>> _ = (folder / "one.yaml").write_text("base: !include:all.yaml\\n  seed: 2\\n")
    >>> with open_hparams(folder / "one.yaml", "fold: 3") as (file, overrides):
    ...     flatten(load_hyperpyyaml(file, overrides))
    {'seed': 2, 'fold': 3}
    """
    try:
        nested = _nest(Path(hparams_file), overrides)
        with open(hparams_file, encoding="utf-8") as file:
            yield file, nested
    except UserError:
        raise
    except (YAMLError, yaml.YAMLError) as error:
        raise HparamError(f"{hparams_file}: not valid yaml: {error}") from error
    except ValueError as error:
        left = re.match(r"'(.+)' is a !PLACEHOLDER", str(error))
        if not left:
            raise HparamError(f"{hparams_file}: {error}") from error
        raise HparamError(
            f"{hparams_file}: {left[1]} is missing; give --{left[1]}=…\n{how_to_get}"
        ) from None


def _nest(hparams_file: Path, overrides: str) -> dict[str, Any]:
    """Overrides under ``base``, to the depth of the first file that has the hparam."""
    files = list(_names_by_file(hparams_file))
    try:
        given = YAML().load(overrides) or {}
    except YAMLError as error:
        problem = getattr(error, "problem", error)
        raise HparamError(f"options: {overrides!r}: {problem}") from None
    if not isinstance(given, dict):
        raise HparamError(f"options: expected --name=value; got {overrides!r}")
    nested: dict[str, Any] = {}
    for name, value in given.items():
        depth = next((n for n, names in enumerate(files) if name in names), None)
        if depth is None:
            similar = difflib.get_close_matches(name, sum(files, []), n=1)
            hint = f"; did you mean --{similar[0]}?" if similar else ""
            raise HparamError(f"--{name}: no such hparam in {hparams_file}{hint}")
        place = nested
        for _ in range(depth):
            place = place.setdefault("base", {})
        place[name] = value
    return nested


def _names_by_file(path: Path) -> Iterator[list[str]]:
    """Names of the hparams of a file, then of the one that it includes, and so on."""
    if not path.is_file():
        raise HparamError(f"{path}: no such hparams file")
    root = yaml.compose(path.read_text(encoding="utf-8"))
    if not isinstance(root, yaml.MappingNode):
        raise HparamError(f"{path}: not valid yaml: expected name: value on each line")
    nodes = {key.value: value for key, value in root.value}
    base = nodes.pop("base", None)
    yield list(nodes)
    if base is not None:
        yield from _names_by_file(path.parent / base.tag.removeprefix("!include:"))


def flatten(hparams: dict[str, Any]) -> dict[str, Any]:
    """Hparams of a file and of those that it includes, without any ``__name``.

    Arguments
    ---------
    hparams
        Hparams as ``load_hyperpyyaml`` returns them.

    Returns
    -------
    A dict without ``base``.

    Example
    -------
    >>> flatten({"fold": 1, "base": {"seed": 2, "__set_seed": None}})
    {'seed': 2, 'fold': 1}
    """
    if "base" in hparams:
        hparams = flatten(hparams["base"]) | hparams
    hidden = re.compile("base$|__")
    return {name: value for name, value in hparams.items() if not hidden.match(name)}


def plain_hparams(hparams_file: str | Path, overrides: str = "") -> dict[str, Any]:
    """Hparams of a recipe as ``read_plainly`` returns them: nothing is built.

    Arguments
    ---------
    hparams_file, overrides
        As in ``open_hparams``.

    Returns
    -------
    Values by name.

    Example
    -------
    >>> path = getfixture("tmp_path") / "recipe.yaml"
    >>> _ = path.write_text("a: 1\\nb: !ref <a>\\nc: !apply:os.getcwd\\n")
    >>> plain_hparams(path, "a: 2")
    {'a': 2, 'b': 2, 'c': None}
    """
    with open_hparams(hparams_file, overrides) as (file, nested):
        return read_plainly(resolve_references(file, nested).read())


def read_plainly(text: str) -> dict[str, Any]:
    """Hparams in resolved yaml; of ``!new:NAME``, the name and its arguments.

    Nothing is built or run. Other tags become None.
    """
    values = yaml.load(text, _PlainLoader)
    return flatten(values) if isinstance(values, dict) else {}


class _PlainLoader(yaml.SafeLoader):
    """Reads hyperpyyaml's tags without obeying them."""


def _named(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> tuple[str, dict]:
    """Name and arguments of ``!new:``."""
    if isinstance(node, yaml.MappingNode):
        return name, loader.construct_mapping(node, deep=True)
    return name, {}


_PlainLoader.add_multi_constructor("!new:", _named)
_PlainLoader.add_multi_constructor("!", lambda loader, tag, node: None)
