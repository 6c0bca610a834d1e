"""Synthesised music in GTZAN's layout, so that the quickstart needs no recordings.

Ten styles differ in rhythm, harmony, timbre and register, and their tracks in key,
tempo, chords, levels and noise. An accuracy on it says nothing about real music.
"""

import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.random import Generator, default_rng
from tqdm import tqdm

from ms_sincresnet.errors import DataFolderError, HparamError
from ms_sincresnet.files import read_json, write_json

MARKER = "synthetic.json"

# Pitched instruments: roll-off of the harmonics, attack and decay in s, overdrive.
TONES = {
    "bass": (1.6, 0.005, 0.5, 0.0),
    "pluck": (0.8, 0.005, 0.25, 0.0),
    "piano": (1.6, 0.005, 0.7, 0.0),
    "organ": (1.0, 0.01, np.inf, 0.0),
    "strings": (1.1, 0.15, np.inf, 0.0),
    "synth": (0.6, 0.005, 0.8, 0.0),
    "overdriven": (1.0, 0.005, 1.0, 3.0),
    "distorted": (0.7, 0.005, 2.0, 12.0),
}
# Drums: pitch in Hz, decay in s, level of the noise and order of its difference.
DRUMS = {
    "kick": (55.0, 0.09, 0.03, 0),
    "snare": (190.0, 0.07, 0.6, 0),
    "hat": (0.0, 0.03, 0.5, 2),
    "ride": (0.0, 0.15, 0.4, 2),
}
# Slowest and fastest tempo in beats per minute, and alternative chord progressions.
STYLES = {
    "blues": (65, 90, "I7 IV7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7, I7 I7 IV7 I7 V7 IV7"),
    "classical": (50, 80, "I IV V I vi ii V I, i iv V i bVI iv V i, I vi IV V"),
    "country": (95, 125, "I IV V I, I I IV V, I V I IV"),
    "disco": (112, 130, "i7 iv7 bVII7 i7, ii7 V7 ii7 V7, i bVI bVII i"),
    "hiphop": (80, 100, "i i bVI bVI, i7 iv7, i bVII i v"),
    "jazz": (130, 190, "ii7 V7 Imaj7 vi7, Imaj7 vi7 ii7 V7, i7 iv7 ii7 V7"),
    "metal": (140, 185, "i bII i bVI, i bVII bVI V, i i bIII bII"),
    "pop": (100, 124, "I V vi IV, vi IV I V, I vi IV V"),
    "reggae": (65, 85, "I IV, i iv, I ii"),
    "rock": (112, 142, "I bVII IV I, i bVI bVII i, I IV I V"),
}
# Style, instrument, octave, length of a note in steps, level, and the steps of a bar:
# "x" is a stroke, "1" to "8" a degree above the root, "?" any degree, "c" the chord and
# "p" a power chord; "|" separates bars that alternate.
PARTS: list[tuple[Any, ...]] = [
    ("blues", "bass", 2, 1.5, 1.0, "1.13.35.56.5"),
    ("blues", "piano", 4, 1.0, 0.5, "c.cc.cc.cc.c"),
    ("blues", "overdriven", 5, 2.0, 0.5, "..?..?.??...|............"),
    ("blues", "kick", 0, 0, 1.0, "x.....x....."),
    ("classical", "strings", 2, 8.0, 0.8, "1.......5......."),
    ("classical", "strings", 4, 16.0, 0.6, "c..............."),
    ("classical", "strings", 5, 4.0, 0.6, "?.....?.?...?..."),
    ("country", "bass", 2, 6.0, 1.0, "1.......5......."),
    ("country", "pluck", 4, 4.0, 0.8, "....c.......c.c."),
    ("country", "pluck", 5, 3.0, 0.7, "1.3.5.3.8.5.3.5."),
    ("country", "hat", 0, 0, 0.3, "x.xxx.xxx.xxx.xx"),
    ("disco", "bass", 2, 1.5, 1.0, "1.8.1.8.1.8.1.8."),
    ("disco", "pluck", 4, 0.8, 0.5, ".cc..cc..cc..cc."),
    ("disco", "kick", 0, 0, 1.4, "x...x...x...x..."),
    ("disco", "ride", 0, 0, 0.8, "..x...x...x...x."),
    ("hiphop", "bass", 1, 4.0, 1.2, "1.....1...1....."),
    ("hiphop", "piano", 4, 10.0, 0.4, "c..............."),
    ("hiphop", "kick", 0, 0, 1.5, "x.....x...x....."),
    ("hiphop", "snare", 0, 0, 1.0, "........x......."),
    ("hiphop", "hat", 0, 0, 0.5, "x.x.x.xxx.x.xxx."),
    ("jazz", "bass", 2, 3.0, 1.0, "1..3..5..6..|1..5..3..2.."),
    ("jazz", "piano", 4, 2.0, 0.5, "..c.....c...|.....c......"),
    ("jazz", "organ", 5, 2.0, 0.4, "?..?.??.....|..?..?.?..?."),
    ("jazz", "ride", 0, 0, 0.9, "x..x.xx..x.x"),
    ("metal", "distorted", 2, 1.2, 0.9, "p.ppp.ppp.ppp.pp"),
    ("metal", "kick", 0, 0, 1.0, "xxxxxxxxxxxxxxxx"),
    ("metal", "snare", 0, 0, 1.0, "....x.......x..."),
    ("pop", "bass", 2, 1.8, 0.8, "1.1.1.1.1.1.1.1."),
    ("pop", "synth", 5, 5.0, 0.5, "c.....c.....c..."),
    ("pop", "synth", 6, 3.0, 0.4, "?...?.?.....?..."),
    ("pop", "kick", 0, 0, 1.0, "x.......x.x....."),
    ("pop", "snare", 0, 0, 0.8, "....x.......x..."),
    ("reggae", "bass", 1, 2.5, 1.4, "1.....1.3.5.....|....1.3.5...3..."),
    ("reggae", "organ", 4, 0.8, 0.7, "..c...c...c...c."),
    ("reggae", "pluck", 5, 0.8, 0.5, "..c...c...c...c."),
    ("reggae", "kick", 0, 0, 1.0, "........x......."),
    ("rock", "overdriven", 3, 1.8, 0.8, "1.1.8.1.7.1.5.4."),
    ("rock", "overdriven", 3, 6.0, 0.6, "p.......p.....p."),
    ("rock", "kick", 0, 0, 1.0, "x.....x.x......."),
    ("rock", "snare", 0, 0, 1.1, "....x.......x..."),
    ("rock", "hat", 0, 0, 0.6, "x.x.x.x.x.x.x.x."),
]
GENRES = tuple(STYLES)


def chord(numeral: str) -> tuple[int, tuple[int, ...]]:
    """Root above the key and tones above the root, in semitones: "bVII", "ii7" …"""
    roman = numeral.strip("b7maj")
    root = {"I": 0, "II": 2, "III": 4, "IV": 5, "V": 7, "VI": 9, "VII": 11}
    seventh = () if numeral[-1] != "7" else (11,) if "maj" in numeral else (10,)
    tones = (0, 3 if roman.islower() else 4, 7, *seventh)
    return root[roman.upper()] - numeral.startswith("b"), tones


def tone(hz: np.ndarray, duration_s: float, rate: int, *timbre: float) -> np.ndarray:
    """Notes that sound together; an entry of ``TONES`` describes the instrument."""
    rolloff, attack_s, decay_s, drive = timbre
    t = np.arange(round(duration_s * rate)) / rate
    samples = np.zeros(len(t))
    for fundamental in hz:
        n_harmonics = int(np.clip(0.45 * rate / fundamental, 1, 16))
        amplitudes = np.arange(1.0, n_harmonics + 1) ** -rolloff
        # Powers of one oscillation are its harmonics, so a note is a polynomial.
        oscillation = np.exp(2j * np.pi * fundamental * t)
        samples += np.polyval([*amplitudes[::-1], 0], oscillation).imag
    if drive:
        samples = np.tanh(drive * samples)
    envelope = np.minimum(t / attack_s, 1) * np.minimum(t[::-1] / 0.01, 1)
    return samples * envelope * np.exp(-t / decay_s)


def _stroke(instrument: str, rate: int, rng: Generator) -> np.ndarray:
    """A stroke of a drum: a sine that falls from three times its pitch, and noise."""
    hz, decay_s, noise, order = DRUMS[instrument]
    t = np.arange(round(5 * decay_s * rate)) / rate
    phase_s = t + decay_s / 2 * (1 - np.exp(-4 * t / decay_s))
    burst = np.diff(rng.standard_normal(len(t) + order), n=order) / 2**order
    return (np.sin(2 * np.pi * hz * phase_s) + noise * burst) * np.exp(-t / decay_s)


def render_track(
    genre: str, track: int, *, duration_s: float, sample_rate: int, seed: int
) -> np.ndarray:
    """Mono samples within [-1, 1], decided by the arguments alone."""
    slowest, fastest, progressions = STYLES[genre]
    rng = default_rng([seed, GENRES.index(genre), track])
    bar_s = 4 * 60 / rng.uniform(slowest, fastest)
    key = int(rng.integers(57, 69))  # MIDI notes A3 to A4
    progression = rng.choice(progressions.split(", ")).split()
    chords = [(key + root, tones) for root, tones in map(chord, progression)]
    mix = np.zeros(round(duration_s * sample_rate))
    for part in PARTS:
        if part[0] == genre:
            _play(mix, part, chords, bar_s, sample_rate, rng)
    mix /= np.abs(mix).max() or 1
    mix += 10 ** rng.uniform(-3, -2) * rng.standard_normal(len(mix))
    return rng.uniform(0.3, 0.95) * mix / np.abs(mix).max()


def _play(
    mix: np.ndarray, part: tuple, chords: list, bar_s: float, rate: int, rng: Generator
) -> None:
    """Adds one part to the mix, slightly out of time and with a few notes missing."""
    _, instrument, octave, hold, level, pattern = part
    bars = pattern.split("|")
    step_s = bar_s / len(bars[0])
    level *= 10 ** (rng.uniform(-4, 4) / 20)
    rolloff_change = rng.uniform(-0.2, 0.3)

    @cache  # chords recur, and all strokes of a drum sound alike
    def sound(midi: tuple[int, ...]) -> np.ndarray:
        if instrument in DRUMS:
            return _stroke(instrument, rate, rng)
        hz = 440 * 2 ** ((np.array(midi) - 69) / 12)
        rolloff, *envelope = TONES[instrument]
        samples = tone(hz, hold * step_s, rate, rolloff + rolloff_change, *envelope)
        return 0.3 * samples / np.abs(samples).max()

    for bar in range(int(np.ceil(len(mix) / rate / bar_s))):
        root, tones = chords[bar % len(chords)]
        scale = (0, 2, tones[1], 5, 7, 9, tones[3] if len(tones) > 3 else 10, 12)
        notes: dict[str, Any] = {str(n): (note,) for n, note in enumerate(scale, 1)}
        notes |= {"c": tones, "p": (0, 7, 12), "x": ()}
        for step, symbol in enumerate(bars[bar % len(bars)]):
            if symbol == "." or rng.random() < 0.07:
                continue
            if symbol == "?":
                symbol = rng.choice(list("134568"))
            samples = sound(tuple(root + 12 * (octave - 4) + n for n in notes[symbol]))
            start_s = bar * bar_s + step * step_s + abs(rng.normal(0, 0.004))
            space = mix[round(start_s * rate) :][: len(samples)]
            space += level * rng.uniform(0.7, 1.0) * samples[: len(space)]


def make_synthetic_gtzan(
    folder: str | Path,
    *,
    n_tracks: int = 10,
    duration_s: float = 30.0,
    sample_rate: int = 22050,
    seed: int = 1234,
) -> Path:
    """Writes the data set as ``folder/genres/<genre>/<genre>.00000.wav``.

    The folder appears when the data set is complete. If it already holds this data set,
    it stays as it is; if it holds anything else, a ``DataFolderError`` is raised.

    Arguments
    ---------
    folder
        Folder to write.
    n_tracks
        Tracks per genre, at least 1.
    duration_s, sample_rate
        Length of a track in s, and its rate in Hz.
    seed
        Seed of everything random.

    Returns
    -------
    The absolute path of the folder.

    Example
    -------
    >>> toy = getfixture("tmp_path") / "toy"
    >>> toy = make_synthetic_gtzan(toy, n_tracks=1, duration_s=1.0)
    >>> sorted(path.name for path in toy.glob("genres/*/*"))[:2]
    ['blues.00000.wav', 'classical.00000.wav']
    """
    form: Any = {"duration_s": duration_s, "sample_rate": sample_rate, "seed": seed}
    arguments = {"n_tracks": n_tracks, **form}
    for (name, value), least in zip(arguments.items(), (1, 0.1, 8000, 0), strict=True):
        if not value >= least:
            raise HparamError(f"{name}: expected at least {least}, got {value}")
    content = {"content": "synthesised music, no recordings", **arguments}
    folder = Path(folder).resolve()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        try:
            found = read_json(folder / MARKER)
        except (OSError, ValueError):
            found = "something else"
        if found != content:
            raise DataFolderError(
                f"{folder}: expected nothing or the synthetic data set with "
                f"{arguments}, found {found}. Name another folder, or delete this one."
            )
        return folder
    unfinished = folder.with_name(folder.name + ".unfinished_synthetic")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        tracks = [(genre, track) for genre in GENRES for track in range(n_tracks)]
        for genre, track in tqdm(tracks, desc="synthesising", unit="track"):
            path = unfinished / "genres" / genre / f"{genre}.{track:05d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = render_track(genre, track, **form)
            soundfile.write(path, samples, sample_rate, subtype="PCM_16")
        write_json(content, unfinished / MARKER)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder
