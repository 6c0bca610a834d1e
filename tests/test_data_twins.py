"""Re-encoded twins: found at any quality and offset, kept on one side of a split."""

import json
import logging
from functools import cache

import av
import numpy as np
import pandas as pd
import pytest
import soundfile

from ms_sincresnet.data.cache import cache_audio
from ms_sincresnet.data.folds import split_fold
from ms_sincresnet.data.prepare import find_tracks, prepare_manifests
from ms_sincresnet.data.synthetic import GENRES, render_track
from ms_sincresnet.data.twins import find_twins

RATE = 22050


def write_mp3(path, samples, bit_rate):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mp3", rate=RATE, layout="mono")
        stream.bit_rate = bit_rate
        samples = samples.astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)


@cache
def song(nth, seed=5):
    """A synthetic song of 10 s; from the eleventh on, a second one of its genre."""
    genre, track = GENRES[nth % 10], nth // 10
    return render_track(genre, track, duration_s=10, sample_rate=RATE, seed=seed)


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


def prepare(data, folder, caplog, fold):
    """Parts of the tracks by ID, and the report."""

    def assign_parts(tracks):
        groups = tracks.get("recording")
        return split_fold(tracks.genre, fold, 3, 0.3, seed=1, groups=groups)

    with caplog.at_level(logging.INFO):
        report = prepare_manifests(
            find_tracks(data),
            folder / "manifests",
            data.parent / "cache of twins",
            assign_parts=assign_parts,
            options={},
        )
    assert json.loads((folder / "manifests" / "report.json").read_text()) == report
    parts = {}
    for part in ("train", "valid", "test"):
        rows = pd.read_csv(folder / "manifests" / f"{part}.csv")
        parts |= dict.fromkeys(rows.ID, part)
    return parts, report


def test_twelve_songs_as_two_mp3s_are_twelve_pairs_that_stay_together(
    data, tmp_path, caplog
):
    for fold in range(3):
        parts, report = prepare(data, tmp_path, caplog, fold)
        pairs = [sorted(pair["tracks"]) for pair in report["twins"]]
        numbers = [[name[-2:] for name in pair] for pair in pairs]
        assert sorted(numbers) == [[f"{nth:02}"] * 2 for nth in range(12)]
        assert ["jazz.00", "rock.best of 00"] in pairs
        assert all(parts[a] == parts[b] for a, b in pairs)
        assert report["identical"] == report["apart"] == []
        for pair in report["twins"]:
            assert abs(pair["offset_s"]) < 0.01
            assert pair["correlation"] > 0.8
    assert "12 pairs of re-encoded twins" in caplog.messages[-1]
    assert "more than one part" not in caplog.text


def test_the_offset_of_an_excerpt_is_found_and_fingerprints_are_kept(tmp_path):
    samples, other = song(3), song(3, seed=6)
    soundfile.write(tmp_path / "song.wav", samples, RATE)
    excerpt = -samples[round(4.3 * RATE) : round(7.3 * RATE)]
    write_mp3(tmp_path / "excerpt.mp3", excerpt, 24_000)
    soundfile.write(tmp_path / "other.wav", other, RATE)
    soundfile.write(tmp_path / "short.wav", samples[:2000], RATE)
    soundfile.write(tmp_path / "silence.wav", 0 * samples, RATE)
    names = ["silence.wav", "song.wav", "other.wav", "excerpt.mp3", "short.wav"]
    tracks = [cache_audio(tmp_path / name, tmp_path) for name in names]
    (pair,) = find_twins(tracks, tmp_path)
    assert pair[:2] == (1, 3)
    assert pair.offset_s == pytest.approx(4.3, abs=0.1)  # the encoder delays the sound
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
