"""The beets plugin, by the command line of beets on libraries of tones."""

import logging
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
import yaml
from mediafile import MediaFile

from ms_sincresnet.inference import batch

from .sounds import set_tags

beets = pytest.importorskip("beets")
from beets import importer, plugins, ui  # noqa: E402
from beets.ui.commands.import_.session import TerminalImportSession  # noqa: E402

PLUGIN = "ms_sincresnet"
TONES = {"1.mp3": "rock", "2.flac": "jazz", "3.ogg": "rock", "4.wav": "metal"}
TONES |= {"5.mp3": "blues", "6.flac": "rock"}
NAMES = {title: [genre.title()] for title, genre in TONES.items()}
NONE, ROCK = dict.fromkeys(TONES, []), dict.fromkeys(TONES, ["Rock"])
# PyTorch takes seconds to load: not before it is needed.
IMPORT = """
import sys
from beets.ui import main
main(["sincgenre", "title:none"])
assert "beetsplug.ms_sincresnet" in sys.modules
assert not {"torch", "pandas", "scipy"} & sys.modules.keys()
main(sys.argv[1:])
"""


class Beets:
    """The command line of beets, a folder of songs without genres, and a library."""

    def __init__(self, folder, capfd):
        self.folder, self.music, self.capfd = folder, folder / "music", capfd
        self.config = {
            "plugins": [PLUGIN],
            "directory": str(folder / "lib"),
            "create_backup_before_migrations": False,
            "ui": {"color": False},
            "import": {"copy": False, "write": True, "quiet_fallback": "asis"},
            PLUGIN: {},
        }

    def set(self, **options):
        """Changes options of the plugin."""
        self.config[PLUGIN] |= options
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config))

    def __call__(self, *args, status=0):
        """The output of a command, which runs in this process."""
        beets.config.clear()
        plugins._instances.clear()
        plugins.BeetsPlugin.listeners.clear()
        plugins.BeetsPlugin._raw_listeners.clear()
        logging.getLogger("beets").handlers.clear()
        with pytest.raises(SystemExit) as stop:
            sys.exit(ui.main(list(args)))
        printed = "".join(self.capfd.readouterr())
        assert (stop.value.code or 0) == status, printed
        return printed

    def stored(self):
        lines = self("ls", "-f", "$title: $genres").splitlines()
        pairs = (line.split(": ") for line in lines)
        return {title: genres.split("; ") if genres else [] for title, genres in pairs}

    def in_files(self):
        return {song: MediaFile(self.music / song).genres or [] for song in TONES}


@pytest.fixture
def beet(tmp_path, write_song, model_folder, monkeypatch, capfd):
    monkeypatch.setenv("BEETSDIR", str(tmp_path))
    beet = Beets(tmp_path, capfd)
    beet.set(model=str(model_folder))
    beet.music.mkdir()
    for name, genre in TONES.items():
        path = write_song(beet.music / name, (genre, 3.5))
        set_tags(path, artist="Ada", album="Tones", title=name)
    return beet


@pytest.fixture
def library(beet):
    """A library that was imported without genres."""
    beet.set(auto=False)
    beet("import", "-qA", str(beet.music))
    assert beet.stored() == NONE
    return beet


def test_an_import_in_a_process_of_its_own(beet):
    set_tags(beet.music / "4.wav", genres=["Noise", "Drone"])
    flac = (beet.music / "2.flac").read_bytes()
    cut = flac[: flac.index(b"\xff\xf8")]  # its tags are whole
    (beet.music / "cut.flac").write_bytes(cut)
    command = [sys.executable, "-c", IMPORT, "import", "-qA", str(beet.music)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert "cut.flac" in printed and "Traceback" not in printed
    assert beet("ls", "-f", "$title", "genres::^$").split() == ["2.flac"]  # the cut one
    # Beets writes no tags when it imports as is, but on command.
    assert beet.in_files() == NONE | {"4.wav": ["Noise", "Drone"]}
    beet("write")
    assert beet.in_files() == NAMES | {"4.wav": ["Noise", "Drone"]}


def test_an_import_that_writes_tags_writes_the_genres(beet, monkeypatch):
    choice = Mock(return_value=importer.Action.RETAG)
    monkeypatch.setattr(TerminalImportSession, "choose_match", choice)
    beet("import", "-q", str(beet.music))
    assert beet.stored() == beet.in_files() == NAMES


def test_the_command_writes_genres_and_only_force_replaces_them(library):
    printed = library("sincgenre", "--pretend")
    assert [printed.count(name) for name in ("+ Rock", "+ Jazz")] == [3, 1]
    assert library.stored() == library.in_files() == NONE
    library("sincgenre", "title:1.mp3")
    assert library.stored() == library.in_files() == NONE | {"1.mp3": ["Rock"]}
    library("modify", "-y", "title:1.mp3", "genres=Polka")
    assert "keep their genres (no --force): 1" in library("sincgenre")
    assert library.stored() == library.in_files() == NAMES | {"1.mp3": ["Polka"]}
    assert "- Polka" in library("sincgenre", "--force")
    assert library.stored() == library.in_files() == NAMES


def test_nothing_is_wiped_when_nothing_is_found(library, monkeypatch):
    library("modify", "-y", "genres=Polka")
    assert "unsure" in library("sincgenre", "-f", "-t", "1")
    assert library.stored() == dict.fromkeys(TONES, ["Polka"])
    silent, missing, bad = (library.music / x for x in ("2.flac", "4.wav", "6.flac"))
    soundfile.write(silent, np.zeros(56000), 16000)
    missing.unlink()
    classify_songs = batch.classify_songs

    def crash(classifier, paths):
        for number, pair in enumerate(classify_songs(classifier, paths)):
            if str(bad) in paths and number == len(paths) // 6:
                raise RuntimeError(bad.name)
            yield pair

    monkeypatch.setattr(batch, "classify_songs", crash)
    printed = library("sincgenre", "-f")
    kept = {path.name: ["Polka"] for path in (silent, missing, bad)}
    assert all(name in printed for name in kept)
    assert library.stored() == NAMES | kept


def test_genres_get_the_names_of_the_user(library):
    library.config["import"]["write"] = False
    library.set(genre_map={"rock": ["Hard Rock", "Oldies"], "Jazz": "Be Bop"})
    library("sincgenre")
    rock = dict.fromkeys(("1.mp3", "3.ogg", "6.flac"), ["Hard Rock", "Oldies"])
    assert library.stored() == NAMES | rock | {"2.flac": ["Be Bop"]}
    assert library.in_files() == NONE


def test_albums_get_one_genre_and_leave_those_of_single_songs(library):
    library("modify", "-y", "title:2.flac", "genres=Polka")
    library("sincgenre", "--albums")
    assert library.stored() == library.in_files() == ROCK | {"2.flac": ["Polka"]}
    assert library("ls", "-a", "-f", "$genres").strip() == "Rock"
    library("sincgenre", "-af")
    assert library.stored() == ROCK


@pytest.mark.parametrize("options, names", [("-qA", ROCK), ("-qAs", NAMES)])
def test_albums_and_songs_without_one_at_import(beet, options, names):
    beet.set(album=True)
    beet("import", options, str(beet.music))
    assert beet.stored() == names


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"threshold": 70}, "expected 0 to 1; found 70"),
        ({"genre_map": {"rocks": "Rock"}}, "metal, jazz; found ['rocks']"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(beet, options, reason):
    beet.set(**options)
    printed = beet("import", "-qA", str(beet.music))
    assert "this import sets no more genres" in printed and reason in printed
    assert beet.stored() == NONE
    (line,) = beet("sincgenre", status=1).splitlines()
    assert "error: " in line and reason in line


def test_a_plugin_that_cannot_be_loaded_is_reported(beet, monkeypatch):
    from beetsplug import ms_sincresnet

    monkeypatch.setattr(ms_sincresnet, "Item", dict)  # has no genres
    assert "needs beets 2.7" in beet("version")
