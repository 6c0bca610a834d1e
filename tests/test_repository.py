"""What holds for the repository as a whole, SpeechBrain's contribution rules first."""

import ast
import csv
import re
import subprocess
import sys
from dataclasses import fields
from importlib import metadata
from pathlib import Path

import pytest
from speechbrain.utils.run_opts import RunOptions

import ms_sincresnet

ROOT = Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "ms_sincresnet").rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").rglob("*.py"))
HPARAMS = sorted((ROOT / "recipes").glob("*/hparams/*.yaml"))
TABLES = sorted((ROOT / "tests/recipes").glob("*.csv"))
RUN_OPTIONS = {field.name for field in fields(RunOptions)}

PUBLIC_NAMES = {
    "GaussianNoise",
    "GenreBrain",
    "GenreClassifier",
    "GenreMLP",
    "MSSincNet",
    "MSSincResNet",
    "MelResNet",
    "RandomGain",
    "ResNetEmbedding",
    "SincFilterbank",
    "SincNet",
    "SongPrediction",
    "SpatialPyramidPooling",
    "WarmupStepScheduler",
    "__version__",
    "split_clips",
    "vote",
}

# Extras for who develops or measures, not for the library.
NOT_IMPORTED = {"bench", "dev"}

# The columns of SpeechBrain's recipe tests.
COLUMNS = (
    "Task,Dataset,Script_file,Hparam_file,Data_prep_file,Readme_file,Result_url,"
    "HF_repo,test_debug_flags,test_debug_checks,performance"
)


def relative(path):
    """A path as it is written in the repository, for the names of tests."""
    return path.relative_to(ROOT).as_posix()


each_source = pytest.mark.parametrize("path", LIBRARY + RECIPES, ids=relative)
each_hparam_file = pytest.mark.parametrize("path", HPARAMS, ids=relative)


def rows():
    """Every row of the recipe tables, with the table's name."""
    for table in TABLES:
        with table.open(newline="") as file:
            for row in csv.DictReader(file):
                yield table.stem, row


def row_of(path):
    """The row of the recipe tables that belongs to an hparam file."""
    (row,) = (row for _, row in rows() if row["Hparam_file"] == relative(path))
    return row


def definitions(tree, *, private):
    """Functions, classes and their methods: (dotted name, node). No nested ones."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        if node.name.startswith("__") or (node.name[0] == "_" and not private):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            for name, method in definitions(node, private=private):
                yield f"{node.name}.{name}", method


def is_record(node):
    """Whether a definition is a NamedTuple: fields, and nothing to run."""
    bases = getattr(node, "bases", [])
    return "NamedTuple" in {getattr(base, "id", None) for base in bases}


def arguments(node):
    """Names of what a caller gives to a function or to a class's constructor."""
    if isinstance(node, ast.FunctionDef):
        spec = node.args
        names = [arg.arg for arg in spec.posonlyargs + spec.args + spec.kwonlyargs]
        return [name for name in names if name not in ("self", "cls")]
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and child.name == "__init__":
            return arguments(child)
    if is_record(node):
        return [child.target.id for child in node.body if hasattr(child, "target")]
    return []


def is_property(node):
    """Whether a method is read like an attribute."""
    decorators = getattr(node, "decorator_list", [])
    return "property" in {getattr(name, "id", None) for name in decorators}


def gives_back(node):
    """Whether a function returns or yields a value."""
    if isinstance(node, ast.Return | ast.Yield) and node.value is not None:
        return True
    inner = ast.FunctionDef | ast.Lambda | ast.ClassDef
    children = ast.iter_child_nodes(node)
    return any(gives_back(child) for child in children if not isinstance(child, inner))


def sections(docstring):
    """The underlined sections of a docstring, by heading."""
    parts = re.split(r"^(\w+)\n-{3,}$", docstring, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def described(section):
    """Names that an Arguments section describes, also several on a line."""
    lines = re.findall(r"^([\w, *]+) :", section, flags=re.MULTILINE)
    return {name.strip(" *") for line in lines for name in line.split(",")}


@each_source
def test_every_module_class_and_function_has_a_docstring(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    everything = definitions(tree, private=True)
    assert [name for name, node in everything if not ast.get_docstring(node)] == []


@each_source
def test_docstrings_describe_each_argument_and_what_is_returned(path):
    faults = []
    for name, node in definitions(ast.parse(path.read_text()), private=False):
        docstring = sections(ast.get_docstring(node) or "")
        missing = set(arguments(node)) - described(docstring.get("Arguments", ""))
        faults += [f"{name}: {argument} in Arguments" for argument in missing]
        returns = isinstance(node, ast.FunctionDef) and gives_back(node)
        if (
            returns
            and not is_property(node)
            and not docstring.keys() & {"Returns", "Yields"}
        ):
            faults.append(f"{name}: Returns")
    assert faults == []


@pytest.mark.parametrize("path", LIBRARY, ids=relative)
def test_library_docstrings_have_an_example(path):
    tree = ast.parse(path.read_text())
    public = dict(definitions(tree, private=False))
    without = [
        name
        for name, node in public.items()
        if "." not in name  # a method is shown by its class
        and not name.endswith("Error")
        and not is_record(node)
        and ">>> " not in sections(ast.get_docstring(node)).get("Example", "")
    ]
    assert without == []


@each_hparam_file
def test_every_hparam_is_used(path):
    """SpeechBrain's rule (tests/utils/check_yaml.py); our Brain is in the library."""
    row = row_of(path)
    readers = [ROOT / row["Script_file"], ROOT / row["Data_prep_file"]]
    readers += (ROOT / "ms_sincresnet/training").glob("*.py")
    code = "\n".join(reader.read_text() for reader in readers)
    text = re.sub(r"(^|\s)#.*", "", path.read_text(), flags=re.MULTILINE)
    keys = re.findall(r"^(\w+):(?! *!apply)", text, flags=re.MULTILINE)
    assert keys
    unused = [
        key
        for key in keys
        if f"<{key}>" not in text
        and not re.search(rf'(hparams|modules)(\.{key}\b|(\[|\.get\()"{key}")', code)
        and not re.search(rf'attr\((self\.)?hparams, "{key}"', code)
        and key not in RUN_OPTIONS
    ]
    assert unused == []


def test_every_hparam_file_has_one_row():
    listed = sorted(row["Hparam_file"] for _, row in rows())
    assert listed == [relative(path) for path in HPARAMS]
    assert listed


@pytest.mark.parametrize("table", TABLES, ids=relative)
def test_recipe_tables_have_speechbrains_columns(table):
    assert table.read_text().splitlines()[0] == COLUMNS


@pytest.mark.parametrize(
    ("dataset", "row"), [pytest.param(*row, id=row[1]["Hparam_file"]) for row in rows()]
)
def test_recipe_rows_are_complete(dataset, row):
    assert row["Dataset"] == dataset
    assert row["Task"]
    for column in ("Script_file", "Hparam_file", "Data_prep_file", "Readme_file"):
        assert (ROOT / row[column]).is_file(), column
        assert row[column].startswith(f"recipes/{dataset}/")
    readme = (ROOT / row["Readme_file"]).read_text()
    for link in f"{row['Result_url']} {row['HF_repo']}".split():
        assert link in readme
    known = RUN_OPTIONS | set(
        re.findall(r"^(\w+):", (ROOT / row["Hparam_file"]).read_text(), re.MULTILINE)
    )
    flags = re.findall(r"--(\w+)", row["test_debug_flags"])
    assert "debug" in flags
    assert set(flags) <= known


def test_the_public_names_are_those_of_the_design():
    assert set(ms_sincresnet.__all__) == PUBLIC_NAMES
    for name in ms_sincresnet.__all__:
        assert getattr(ms_sincresnet, name).__doc__, name
    with pytest.raises(AttributeError, match="NoSuchName"):
        _ = ms_sincresnet.NoSuchName


def test_importing_the_package_loads_no_torch():
    command = "import sys, ms_sincresnet; print('torch' in sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    assert loaded.stdout == "False\n"


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="3.10 cannot tell the provider of every module"
)
def test_the_package_requires_what_the_library_imports():
    imported = set()
    for path in LIBRARY:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])
    providers = metadata.packages_distributions()
    # PyTorch brings triton on Linux, and it is done without elsewhere.
    imported -= sys.stdlib_module_names | {"ms_sincresnet", "triton"}
    needed = {normal(providers[name][0]) for name in imported}
    required, extras = set(), set()
    for requirement in metadata.requires("ms_sincresnet"):
        _, _, extra = requirement.partition("extra ==")
        if extra.strip(" \"'") not in NOT_IMPORTED:
            (extras if extra else required).add(normal(requirement))
    extras -= required
    # SpeechBrain needs the first two, torch.onnx onnxscript, pandas pyarrow.
    unseen = {"sentencepiece", "torchaudio", "onnxscript", "pyarrow", "tensorboard"}
    assert required <= needed | unseen
    assert extras <= needed | unseen
    assert needed <= required | extras


def normal(requirement):
    """The normalised name of a package in a requirement."""
    return re.match(r"[\w-]+", requirement)[0].lower().replace("_", "-")


def test_version_and_changelog_agree():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {ms_sincresnet.__version__}\n" in citation
    headings = re.findall(
        "^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert headings[0] == "Unreleased"


@pytest.fixture(scope="module")
def repository_files():
    """Every file that is in the repository or would be added to it."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    files = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    return [path for path in files if path.is_file()]


def test_no_file_names_a_machine_or_a_package_index(repository_files):
    machine = r"(?<![\w.])/(home|root|work|tmp|opt|mnt|srv|Users)/\w"
    index = r"pypi\.org|pythonhosted\.org|npmjs\.|debian\.org"
    found = [
        f"{relative(path)}: {match[0]}"
        for path in repository_files
        for match in re.finditer(
            f"{machine}|{index}", path.read_text(encoding="utf-8", errors="ignore")
        )
    ]
    assert found == []


def test_the_repository_holds_no_data(repository_files):
    data = {".aiff", ".au", ".ckpt", ".flac", ".mp3", ".ogg", ".safetensors", ".wav"}
    found = [
        relative(path)
        for path in repository_files
        if path.suffix.lower() in data or path.stat().st_size > 512 * 1024
    ]
    assert found == []
