"""Hparams of recipes: overrides of included files, and errors that name the hparam.

A file may build on another: ``base: !include:other.yaml``, with the values that differ.
hyperpyyaml leaves what it includes under ``base``, to any depth: ``open_hparams`` leads
overrides there, and ``flatten`` lifts all values to the top.
"""

import difflib
import json
import os
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


def quoted(words: list[str]) -> list[str]:
    """A command line of which ``speechbrain.parse_arguments`` takes values as written.

    Otherwise those with an equals sign, ``: `` or `` #`` would be misread. ``~/`` is
    expanded, which shells leave as it is after an equals sign.

    Arguments
    ---------
    words
        A yaml file, overrides and run options.

    Returns
    -------
    The words, such values in quotes.

    Example
    -------
    >>> quoted(["a.yaml", "--seed=1", "--folder=take: 1"])
    ['a.yaml', '--seed=1', '--folder="take: 1"']
    """
    return [*words[:1], *map(_quote, words[1:])]


def _quote(word: str) -> str:
    """An option, or the value after one, that yaml reads as it is written."""
    name, equals, value = word.partition("=")
    if not word.startswith("--"):
        name, equals, value = "", "", word
    if value.startswith("~") and value != "~":  # which is yaml's null
        value = os.path.expanduser(value)
        word = f"{name}{equals}{value}"
    try:
        node = yaml.compose(value)
    except yaml.YAMLError:
        node = None
    is_plain = isinstance(node, yaml.ScalarNode) and node.value == value
    if "=" not in value and (is_plain or re.match(r"""[\[{!"']|$""", value)):
        return word
    # SpeechBrain splits at each equals sign, but not at yaml's escape of it.
    text = json.dumps(value, ensure_ascii=False).replace("=", r"\x3D")
    return f"{name}{equals}{text}"


@contextmanager
def open_hparams(
    hparams_file: str | Path, overrides: str = "", how_to_get: str = ""
) -> Iterator[tuple[TextIO, dict[str, Any]]]:
    """Opens a file of hparams for ``load_hyperpyyaml``, with errors that name it.

    Invalid yaml, unknown names, a placeholder that was left, and values for which a
    constructor raises a ``ValueError`` become an ``HparamError``; bugs pass.

    Arguments
    ---------
    hparams_file
        The yaml file.
    overrides
        As ``speechbrain.parse_arguments`` returns them.
    how_to_get
        Advice for a placeholder that was left.

    Yields
    ------
    The open file, and the overrides, nested to reach what the file includes.

    Example
    -------
    >>> with open_hparams("nowhere.yaml", "seed: 1") as (file, overrides):
    ...     pass
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.HparamError: nowhere.yaml: no such hparams file
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
        message = str(error)
        if left := re.match(r"'(.+)' is a !PLACEHOLDER", message):
            message = f"{left[1]} is missing; give --{left[1]}=…\n{how_to_get}"
        raise HparamError(f"{hparams_file}: {message}") from error


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
        place = nested
        for names in files:
            if name in names:
                place[name] = value
                break
            place = place.setdefault("base", {})
        else:
            similar = difflib.get_close_matches(name, sum(files, []), n=1)
            hint = f"; did you mean --{similar[0]}?" if similar else ""
            raise HparamError(f"--{name}: no such hparam in {hparams_file}{hint}")
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
        As ``load_hyperpyyaml`` returns them.

    Returns
    -------
    Values by name.

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
    """Hparams of a file, unbuilt: of ``!new:NAME``, the name and its arguments.

    Other tags become None.

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
    """Hparams in resolved yaml, as ``plain_hparams`` returns them."""
    values = yaml.load(text, _PlainLoader)
    return flatten(values) if isinstance(values, dict) else {}


class _PlainLoader(yaml.SafeLoader):
    """Reads hyperpyyaml's tags without obeying them."""

    def name_and_arguments(self, name: str, node: yaml.Node) -> tuple[str, dict]:
        """Name and arguments of ``!new:``."""
        if isinstance(node, yaml.MappingNode):
            return name, self.construct_mapping(node, deep=True)
        return name, {}


_PlainLoader.add_multi_constructor("!new:", _PlainLoader.name_and_arguments)
_PlainLoader.add_multi_constructor("!", lambda loader, tag, node: None)
