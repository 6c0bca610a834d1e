"""Re-encoded twins: found at any quality and offset, kept on one side of a split."""

import logging
from functools import cache, partial

import numpy as np
import pytest
import soundfile

from ms_sincresnet.data.cache import cache_audio
from ms_sincresnet.data.folds import split_fold
from ms_sincresnet.data.prepare import find_tracks, prepare_manifests
from ms_sincresnet.data.synthetic import GENRES, render_track
from ms_sincresnet.data.twins import find_twins

from .sounds import write_container

RATE = 16000


def write_mp3(path, samples, bit_rate):
    path.parent.mkdir(parents=True, exist_ok=True)
    pcm = (32767 * samples).astype(np.int16)[:, None]
    write_container(path, "mp3", "libmp3lame", pcm, RATE, bit_rate)


@cache
def song(nth, seed=5):
    """A synthetic song of 6 s; from the eleventh on, a second one of its genre."""
    genre, track = GENRES[nth % 10], nth // 10
    return render_track(genre, track, duration_s=6, sample_rate=RATE, seed=seed)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """12 songs as two mp3s each; the better copy of the first is in another genre."""
    root = tmp_path_factory.mktemp("data")
    for nth in range(12):
        genre = ["jazz", "rock"][nth % 2]
        write_mp3(root / genre / f"{nth:02}.mp3", song(nth), 32_000)
        other = "rock" if nth == 0 else genre
        write_mp3(root / other / f"best of {nth:02}.mp3", 0.7 * song(nth), 128_000)
    return root


def split(fold, tracks):
    groups = tracks.get("recording")
    return split_fold(tracks.genre, fold, 3, 0.3, seed=1, groups=groups)


def test_twelve_songs_are_twelve_pairs_that_stay_together(data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for fold in range(3):
        report = prepare_manifests(
            find_tracks(data),
            tmp_path,
            data.parent / "cache of twins",
            assign_parts=partial(split, fold),
            options={},
            describe=lambda tracks: dict(zip(tracks.ID, tracks.part, strict=True)),
        )
        pairs = [sorted(pair["tracks"]) for pair in report["twins"]]
        numbers = [[name[-2:] for name in pair] for pair in pairs]
        assert sorted(numbers) == [[f"{nth:02}"] * 2 for nth in range(12)]
        assert ["jazz.00", "rock.best of 00"] in pairs
        assert all(report[a] == report[b] for a, b in pairs)
        assert report["identical"] == report["apart"] == []
        for pair in report["twins"]:
            assert abs(pair["offset_s"]) < 0.01
            assert pair["correlation"] > 0.8
    assert "12 pairs of re-encoded twins" in caplog.messages[-1]
    assert "more than one part" not in caplog.text


def test_the_offset_of_an_excerpt_is_found_and_fingerprints_are_kept(tmp_path):
    samples, other = song(3), song(3, seed=6)
    soundfile.write(tmp_path / "song.wav", samples, RATE)
    excerpt = -samples[round(2.3 * RATE) : round(5.3 * RATE)]
    write_mp3(tmp_path / "excerpt.mp3", excerpt, 24_000)
    soundfile.write(tmp_path / "other.wav", other, RATE)
    soundfile.write(tmp_path / "short.wav", samples[:2000], RATE)
    soundfile.write(tmp_path / "silence.wav", 0 * samples, RATE)
    names = ["silence.wav", "song.wav", "other.wav", "excerpt.mp3", "short.wav"]
    tracks = [cache_audio(tmp_path / name, tmp_path) for name in names]
    (pair,) = find_twins(tracks, tmp_path)
    assert pair[:2] == (1, 3)
    assert pair.offset_s == pytest.approx(2.3, abs=0.1)  # the encoder delays the sound
    assert pair.correlation < -0.8
    fingerprints = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    assert len(fingerprints) == 4
    damaged = next(iter(fingerprints))
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert find_twins(tracks, tmp_path) == [pair]
    fresh = [p for p, time in fingerprints.items() if p.stat().st_mtime_ns != time]
    assert fresh == [damaged]
    (again,) = find_twins(tracks[::-1], tmp_path)
    assert again[:3] == (1, 3, pytest.approx(-pair.offset_s))
