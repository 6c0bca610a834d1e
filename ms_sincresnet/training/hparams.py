"""Reading a recipe's hparams, with errors that name the hparam."""

import difflib
import json
from pathlib import Path

import speechbrain as sb
import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references

from ms_sincresnet.errors import HparamError, UserError


def parse_arguments(arguments):
    """As ``speechbrain.parse_arguments``, and values may hold any character.

    SpeechBrain pastes values into yaml, where those that hold an equals sign, a number
    sign or a colon, as paths may, come out as something else.

    Arguments
    ---------
    arguments : list of str
        The command line: a yaml file, overrides, run options.

    Returns
    -------
    hparams_file : str
        The yaml file.
    run_opts : speechbrain.utils.run_opts.RunOptions
        The run options.
    overrides : str
        Overrides as yaml.

    Example
    -------
    >>> _, _, overrides = parse_arguments(["a.yaml", "--folder=take: 1=#2", "--fold=3"])
    >>> yaml.safe_load(overrides)
    {'folder': 'take: 1=#2', 'fold': 3}
    """
    quoted = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--") and equals and not _reads_as_itself(value):
            # The escape stands for an equals sign, at which SpeechBrain splits.
            value = json.dumps(value, ensure_ascii=False).replace("=", r"\x3D")
        quoted.append(f"{name}{equals}{value}")
    return sb.parse_arguments(quoted)


def _reads_as_itself(value):
    """Whether yaml takes a value for what it says, or for a quotation, list or tag."""
    try:
        node = yaml.compose(value)
    except yaml.YAMLError:
        return value[0] in "[{"  # meant as yaml: the mistake will be told
    if isinstance(node, yaml.ScalarNode) and node.style is None:
        return "=" not in value and node.value == value
    return not isinstance(node, yaml.MappingNode) or bool(node.flow_style)


def load_hparams(hparams_file, overrides=""):
    """Loads a recipe's yaml file and builds what it names.

    Arguments
    ---------
    hparams_file : str
        The yaml file.
    overrides : str
        Overrides as yaml, as ``speechbrain.parse_arguments`` returns them.

    Returns
    -------
    dict
        The hparams by name.

    Raises
    ------
    HparamError
        If the file is missing or not yaml, an override is given twice or is no hparam
        of it, or something that it builds refuses its arguments.

    Example
    -------
    >>> load_hparams("nowhere.yaml")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.HparamError: nowhere.yaml: no such hparams file
    """
    text = _read(hparams_file, overrides)
    try:
        return load_hyperpyyaml(text, overrides)
    except UserError:
        raise
    except (ValueError, TypeError, AttributeError, KeyError, ImportError) as error:
        raise HparamError(f"{hparams_file}: {error}") from error


def plain_hparams(hparams_file, overrides=""):
    """Reads a recipe's hparams and builds nothing.

    For what can be checked before a model is built and its weights are downloaded.

    Arguments
    ---------
    hparams_file : str
        The yaml file.
    overrides : str
        Overrides as yaml.

    Returns
    -------
    dict
        The scalars by name; None for lists, mappings and what would be built.

    Raises
    ------
    HparamError
        As ``load_hparams``.

    Example
    -------
    >>> path = getfixture("tmp_path") / "recipe.yaml"
    >>> _ = path.write_text("a: 1\\nb: !ref <a>\\nc: !new:torch.nn.ReLU\\n")
    >>> plain_hparams(path, "a: 2")
    {'a': 2, 'b': 2, 'c': None}
    """
    text = _read(hparams_file, overrides)
    try:
        root = yaml.compose(resolve_references(text, overrides or None))
    except ValueError as error:
        raise HparamError(f"{hparams_file}: {error}") from error
    scalars = yaml.constructor.SafeConstructor()
    return {
        key.value: scalars.construct_object(value)
        if isinstance(value, yaml.ScalarNode) and not value.tag.startswith("!")
        else None
        for key, value in root.value
    }


def _read(hparams_file, overrides):
    """The text of a yaml file, if file and overrides are what they should be."""
    if not Path(hparams_file).is_file():
        raise HparamError(f"{hparams_file}: no such hparams file")
    text = Path(hparams_file).read_text(encoding="utf-8")
    _refuse_unknown(hparams_file, text, overrides)
    return text


def _refuse_unknown(hparams_file, text, overrides):
    """Raises for the first override that is given twice, or that the file lacks."""
    known = _names(text, f"{hparams_file}: not valid yaml with a key a line")
    given = _names(overrides or "{}", f"{overrides!r}: not valid as overrides")
    for name in given:
        if name not in known:
            similar = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean --{similar[0]}?" if similar else ""
            raise HparamError(f"--{name}: no such hparam in {hparams_file}{hint}")
        if given.count(name) > 1:
            raise HparamError(f"--{name}: given more than once; leave one of them")


def _names(text, fault):
    """The keys of a yaml text that is a mapping."""
    try:
        root = yaml.compose(text)
    except yaml.YAMLError as error:
        raise HparamError(f"{fault}: {error}") from error
    if not isinstance(root, yaml.MappingNode):
        raise HparamError(f"{fault}: expected name: value")
    return [key.value for key, _ in root.value]
