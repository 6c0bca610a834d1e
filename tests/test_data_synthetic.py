"""The synthesised data set: layout, seeding, safety, and tracks that differ."""

from pathlib import Path

import pytest
import soundfile

from ms_sincresnet.data import synthetic
from ms_sincresnet.data.synthetic import make_synthetic_gtzan
from ms_sincresnet.errors import UserError

SMALL = {"n_tracks": 2, "duration_s": 0.5, "sample_rate": 8000, "seed": 7}
GTZAN = ["blues", "classical", "country", "disco", "hiphop"]
GTZAN += ["jazz", "metal", "pop", "reggae", "rock"]


@pytest.fixture
def small(tmp_path):
    return make_synthetic_gtzan(tmp_path / "small", **SMALL)


def contents(folder):
    files = filter(Path.is_file, folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_layout_is_that_of_gtzan(small):
    expected = {f"{g}/{g}.{i:05d}.wav" for g in GTZAN for i in range(2)}
    assert contents(small / "genres").keys() == expected
    info = soundfile.info(small / "genres/jazz/jazz.00001.wav")
    assert (info.samplerate, info.channels, info.frames) == (8000, 1, 4000)
    assert (info.format, info.subtype) == ("WAV", "PCM_16")


def test_a_track_depends_on_nothing_but_the_seed_and_its_place(tmp_path, small):
    two = contents(small / "genres")
    one = make_synthetic_gtzan(tmp_path / "one", **(SMALL | {"n_tracks": 1}))
    for name, content in contents(one / "genres").items():
        assert two[name] == content
    other = make_synthetic_gtzan(tmp_path / "other", **(SMALL | {"seed": 8}))
    assert not set(two.values()) & set(contents(other / "genres").values())
    assert len(set(two.values())) == 20


def test_a_finished_set_or_a_foreign_folder_is_left_alone(small, tmp_path, monkeypatch):
    before = contents(small)
    monkeypatch.setattr(soundfile, "write", None)
    assert make_synthetic_gtzan(small, **SMALL) == small
    with pytest.raises(UserError, match=r"'seed': 8.*found.*'seed': 7"):
        make_synthetic_gtzan(small, **(SMALL | {"seed": 8}))
    assert contents(small) == before
    for name in ("mine.wav", synthetic.MARKER):
        folder = tmp_path / f"with {name}"
        folder.mkdir()
        (folder / name).write_text("[]")
        with pytest.raises(UserError, match=f"{folder}.*Name another folder"):
            make_synthetic_gtzan(folder, **SMALL)
        assert contents(folder) == {name: b"[]"}


def test_an_interrupted_set_leaves_nothing_and_is_rendered_again(tmp_path, monkeypatch):
    write, written = soundfile.write, []

    def write_until_interrupted(path, *args, **kwargs):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *args, **kwargs)

    folder = tmp_path / "toy"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(soundfile, "write", write_until_interrupted)
        make_synthetic_gtzan(folder, **SMALL)
    assert list(tmp_path.iterdir()) == []
    # A killed process cannot clean up; its remains do not count as the data set.
    written[0].parent.mkdir(parents=True)
    written[0].with_name("half.wav").write_bytes(b"half a file")
    make_synthetic_gtzan(folder, **SMALL)
    assert list(tmp_path.iterdir()) == [folder]
    assert len(contents(folder / "genres")) == 20
