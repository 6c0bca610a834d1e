"""Rules for the repository as a whole, SpeechBrain's contribution rules first."""

import ast
import csv
import inspect
import pydoc
import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
from speechbrain.utils.run_opts import RunOptions

import ms_sincresnet

ROOT = Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "ms_sincresnet").rglob("*.py"))
BEETS = sorted((ROOT / "beetsplug").rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").rglob("*.py"))
HPARAMS = sorted((ROOT / "recipes").glob("*/hparams/*.yaml"))
RUN_OPTIONS = {field.name for field in fields(RunOptions)}

# The columns of SpeechBrain's recipe tests.
COLUMNS = (
    "Task,Dataset,Script_file,Hparam_file,Data_prep_file,Readme_file,Result_url,"
    "HF_repo,test_debug_flags,test_debug_checks,performance"
)


def relative(path):
    """A path as it is written in the repository, for the names of tests."""
    return path.relative_to(ROOT).as_posix()


def rows():
    """Every row of the recipe tables, with the table's name."""
    for table in sorted((ROOT / "tests/recipes").glob("*.csv")):
        with table.open(newline="") as file:
            for row in csv.DictReader(file):
                yield table.stem, row


each_row = pytest.mark.parametrize(
    ("dataset", "row"), [pytest.param(*row, id=row[1]["Hparam_file"]) for row in rows()]
)


def definitions(body, prefix=""):
    """Functions, classes and methods, nested ones left out: (dotted name, node)."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            if not node.name.startswith("__"):
                yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from definitions(node.body, f"{prefix}{node.name}.")


def documented():
    """Classes and functions that a yaml file, a recipe or a command names."""
    names = {f"ms_sincresnet.{x}.{name}" for name, x in ms_sincresnet._HOMES.items()}
    templates = (ROOT / "ms_sincresnet").glob("*/templates/*.yaml*")
    for path in [*ROOT.glob("recipes/*/*.yaml"), *HPARAMS, *templates]:
        names |= set(re.findall(r"!\w+:(ms_sincresnet\.[\w.]+\.\w+)", path.read_text()))
    for path in [*RECIPES, *(ROOT / "ms_sincresnet/cli").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    found = {}
    for name in names:
        if re.match(r"ms_sincresnet\.(?!errors\.|files\.|cli\.)", name):
            named = pydoc.locate(name)
            if inspect.isclass(named) or inspect.isfunction(named):
                found[f"{named.__module__}.{named.__qualname__}"] = named
    return dict(sorted(found.items()))


def arguments(named):
    """Arguments of a function, of a class's constructor, or fields of a NamedTuple."""
    own = inspect.isfunction(named) or vars(named).keys() & {"__init__", "_fields"}
    parameters = inspect.signature(named).parameters.values() if own else ()
    others = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return [x.name for x in parameters if x.kind not in others]


def sections(docstring):
    parts = re.split(r"^(\w+)\n-{3,}$", docstring, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("path", LIBRARY + BEETS + RECIPES, ids=relative)
def test_each_file_is_short_and_everything_in_it_has_a_docstring(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 450
    tree = ast.parse(text)
    for name, node in [("module", tree), *definitions(tree.body)]:
        docstring = ast.get_docstring(node)
        assert docstring, name
        assert not re.match(r"(What|Whether|Which|How|Where)\b", docstring), name


def test_the_package_leaves_the_plugins_of_others_to_be_found():
    assert [path.name for path in BEETS] == ["ms_sincresnet.py"]  # no __init__.py


@pytest.mark.parametrize("name", DOCUMENTED := documented())
def test_names_that_users_write_have_full_docstrings(name):
    named = DOCUMENTED[name]
    docstring = sections(inspect.getdoc(named))
    described = docstring.get("Arguments", "")
    for argument in arguments(named):
        line = rf"^(\*|\w+, )*{argument}\b"
        assert re.search(line, described, re.MULTILINE), argument
    returned = inspect.isfunction(named) and named.__annotations__.get("return")
    if returned not in (False, None, "None"):
        assert docstring.keys() & {"Returns", "Yields"}
    assert ">>> " in docstring.get("Example", "")


def hparams_text(path):
    """An hparam file, then the files that it includes, without comments."""
    text = re.sub(r"(^|\s)#.*", "", path.read_text(), flags=re.MULTILINE)
    included = re.findall(r"!include:(\S+)", text)
    return "\n".join([text, *(hparams_text(path.parent / name) for name in included)])


@each_row
def test_every_hparam_is_used(dataset, row):
    """SpeechBrain's rule (tests/utils/check_yaml.py); our Brain is in the library."""
    readers = [ROOT / row["Script_file"], ROOT / row["Data_prep_file"]]
    readers += (ROOT / "ms_sincresnet/training").glob("*.py")
    code = "\n".join(reader.read_text() for reader in readers)
    text = hparams_text(ROOT / row["Hparam_file"])
    keys = re.findall(r"^(\w+):(?! *!(?:apply|include))", text, flags=re.MULTILINE)
    assert len(keys) > 20
    for key in set(keys) - RUN_OPTIONS:
        read = rf'(hparams|modules)(\.{key}\b|(\[|\.get\()"{key}")'
        read += rf'|attr\((self\.)?hparams, "{key}"'
        assert f"<{key}>" in text or re.search(read, code), key


def test_every_hparam_file_has_one_row():
    listed = sorted(row["Hparam_file"] for _, row in rows())
    assert listed == [relative(path) for path in HPARAMS] != []


@each_row
def test_recipe_rows_are_complete(dataset, row):
    assert ",".join(row) == COLUMNS
    assert row["Dataset"] == dataset and row["Task"]
    for column in ("Script_file", "Hparam_file", "Data_prep_file", "Readme_file"):
        assert (ROOT / row[column]).is_file(), column
        assert row[column].startswith(f"recipes/{dataset}/")
    readme = (ROOT / row["Readme_file"]).read_text()
    for link in f"{row['Result_url']} {row['HF_repo']}".split():
        assert link in readme
    text = hparams_text(ROOT / row["Hparam_file"])
    known = RUN_OPTIONS | set(re.findall(r"^(\w+):", text, re.MULTILINE))
    assert {"debug"} <= {*re.findall(r"--(\w+)", row["test_debug_flags"])} <= known


def test_version_and_changelog_agree():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {ms_sincresnet.__version__}\n" in citation
    headings = re.findall("^## .*", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "## Unreleased"


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
    for path in repository_files:
        text = path.read_text(encoding="utf-8", errors="ignore")
        assert not re.search(f"{machine}|{index}", text), relative(path)


def test_the_repository_holds_no_data(repository_files):
    data = {".aiff", ".au", ".ckpt", ".flac", ".mp3", ".ogg", ".safetensors", ".wav"}
    bundled = ROOT / "ms_sincresnet/bundled/model.safetensors"
    assert bundled.stat().st_size < 26e6
    for path in set(repository_files) - {bundled}:
        assert path.suffix.lower() not in data, relative(path)
        assert path.stat().st_size <= 512 * 1024, relative(path)
