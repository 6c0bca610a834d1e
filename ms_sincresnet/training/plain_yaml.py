"""Files of hyperparams, read for what they say and not for what they do.

hyperpyyaml builds, calls and imports whatever a file names.
"""

import yaml

from ms_sincresnet.errors import ModelFolderError


def read_plainly(path):
    """Reads a file of hyperparams and builds nothing that it names.

    Arguments
    ---------
    path : pathlib.Path
        The yaml file.

    Returns
    -------
    dict
        Values by name: of ``!new:NAME``, the name and its arguments; of other things
        to be built, and of references, None.

    Raises
    ------
    ModelFolderError
        If it cannot be read.

    Example
    -------
    >>> path = getfixture("tmp_path") / "hyperparams.yaml"
    >>> _ = path.write_text("a: 1\\nb: !ref <a>\\nc: !new:ms_sincresnet.vote")
    >>> read_plainly(path)
    {'a': 1, 'b': None, 'c': ('ms_sincresnet.vote', {})}
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path}: not yaml ({error})") from error
    return values if isinstance(values, dict) else {}


class _PlainLoader(yaml.SafeLoader):
    """Reads hyperpyyaml's tags without doing what they say."""


def _named(loader, name, node):
    """Name and arguments of ``!new:``."""
    is_mapping = isinstance(node, yaml.MappingNode)
    return name, loader.construct_mapping(node, deep=True) if is_mapping else {}


_PlainLoader.add_multi_constructor("!new:", _named)
_PlainLoader.add_multi_constructor("!", lambda loader, tag, node: None)
