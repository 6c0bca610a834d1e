"""A data set of synthesised music in GTZAN's layout, behind the quickstart.

No recording is needed to try the recipe: ten styles, told apart by rhythm,
harmony, timbre and register, are described in a table (``STYLES``) and rendered
by one function (``render_track``). Key, tempo, progression, levels, timbre and
noise differ from track to track, so that a network must generalise. It is a toy:
an accuracy reached on it says that the code works and nothing about real music.
"""

import json
import os
import re
import shutil
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from tqdm import tqdm

from ms_sincresnet.errors import DataFolderError, HparamError

MARKER = "synthetic.json"

# What `tone` takes for each instrument with a pitch.
TONES = {
    "bass": {"rolloff": 1.6, "decay_s": 0.5},
    "sub": {"rolloff": 3.0, "decay_s": 0.8},
    "pluck": {"rolloff": 0.8, "decay_s": 0.4, "damping": 2.0},
    "piano": {"rolloff": 1.5, "decay_s": 0.7, "damping": 0.6},
    "keys": {"rolloff": 2.2, "decay_s": 1.0},
    "organ": {"rolloff": 1.0, "attack_s": 0.01},
    "strings": {"rolloff": 1.1, "attack_s": 0.15, "vibrato": 0.004},
    "reed": {"rolloff": 0.9, "attack_s": 0.04, "vibrato": 0.006},
    "synth": {"rolloff": 0.6, "decay_s": 0.8},
    "overdriven": {"rolloff": 1.0, "decay_s": 1.0, "drive": 3.0},
    "distorted": {"rolloff": 0.7, "decay_s": 2.0, "drive": 12.0},
}

# What `_drum` takes for each instrument without a pitch.
DRUMS = {
    "kick": {"hz": 55.0, "decay_s": 0.09, "noise": 0.03},
    "boom": {"hz": 42.0, "decay_s": 0.25, "noise": 0.02},
    "snare": {"hz": 190.0, "decay_s": 0.07, "noise": 0.6},
    "rim": {"hz": 420.0, "decay_s": 0.03, "noise": 0.2},
    "brush": {"hz": 0.0, "decay_s": 0.05, "noise": 0.4},
    "hat": {"hz": 0.0, "decay_s": 0.02, "noise": 0.5, "bright": 2},
    "open_hat": {"hz": 0.0, "decay_s": 0.09, "noise": 0.5, "bright": 2},
    "ride": {"hz": 0.0, "decay_s": 0.2, "noise": 0.3, "bright": 3},
}


class Part(NamedTuple):
    """What one instrument plays in every bar.

    Arguments
    ---------
    instrument : str
        A key of ``TONES`` or ``DRUMS``.
    pattern : str
        One character a step, as many steps as divide a bar of four beats: ``.``
        rests, ``x`` hits a drum, ``1`` to ``8`` plays that degree above the
        chord's root, ``c`` the chord, ``p`` root, fifth and octave, ``?`` a
        degree drawn anew each time. ``|`` separates bars that take turns.
    octave : int
        Octave of the root, 4 holds middle C.
    hold : float
        Length of a note in steps.
    level : float
        Amplitude, before the track's own variation of it.
    """

    instrument: str
    pattern: str
    octave: int = 4
    hold: float = 1.0
    level: float = 1.0


class Style(NamedTuple):
    """How the tracks of one genre are played.

    Arguments
    ---------
    bpm : tuple of float
        Least and greatest tempo, in beats a minute.
    progressions : tuple of str
        Chords in Roman numerals (see ``chord``), one a bar; a track keeps to one.
    parts : tuple of Part
        The instruments.
    """

    bpm: tuple[float, float]
    progressions: tuple[str, ...]
    parts: tuple[Part, ...]


STYLES = {
    "blues": Style(  # 12/8 shuffle, dominant sevenths
        (65, 90),
        ("I7 IV7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7", "I7 I7 IV7 I7 V7 IV7 I7 I7"),
        (
            Part("bass", "1.13.35.56.5", octave=2, hold=1.5),
            Part("piano", "c.cc.cc.cc.c", hold=1.0, level=0.5),
            Part("overdriven", "..?..?.??...|............", 5, 2.0, 0.5),
            Part("ride", "x.xx.xx.xx.x", level=0.4),
            Part("kick", "x.....x....."),
            Part("snare", "...x.....x..", level=0.6),
        ),
    ),
    "classical": Style(  # sustained slow harmonies, no drums
        (50, 80),
        ("I IV V I vi ii V I", "i iv V i bVI iv V i", "I vi IV V"),
        (
            Part("strings", "1.......5.......", octave=2, hold=8.0, level=0.8),
            Part("strings", "c...............", hold=16.0, level=0.6),
            Part("strings", "?.....?.?...?...", octave=5, hold=4.0, level=0.6),
        ),
    ),
    "country": Style(  # alternating bass, plucked strings
        (95, 125),
        ("I IV V I", "I I IV V", "I V I IV"),
        (
            Part("bass", "1.......5.......", octave=2, hold=6.0),
            Part("pluck", "....c.......c.c.", hold=4.0, level=0.8),
            Part("pluck", "1.3.5.3.8.5.3.5.", octave=5, hold=3.0, level=0.7),
            Part("brush", "x.xxx.xxx.xxx.xx", level=0.25),
        ),
    ),
    "disco": Style(  # four-on-the-floor, octave bass, open hats off the beat
        (112, 130),
        ("i7 iv7 bVII7 i7", "ii7 V7 ii7 V7", "i bVI bVII i"),
        (
            Part("bass", "1.8.1.8.1.8.1.8.", octave=2, hold=1.5),
            Part("strings", "c.......c...c...", octave=5, hold=4.0, level=0.4),
            Part("pluck", ".cc..cc..cc..cc.", hold=0.8, level=0.5),
            Part("kick", "x...x...x...x...", level=1.4),
            Part("snare", "....x.......x...", level=0.6),
            Part("open_hat", "..x...x...x...x.", level=0.8),
        ),
    ),
    "hiphop": Style(  # half-time, heavy low drums, dark sparse chords
        (80, 100),
        ("i i bVI bVI", "i7 iv7", "i bVII i v"),
        (
            Part("sub", "1.....1...1.....", octave=1, hold=4.0, level=1.2),
            Part("keys", "c...............", hold=10.0, level=0.4),
            Part("boom", "x.....x...x.....", level=1.5),
            Part("snare", "........x.......", level=1.0),
            Part("hat", "x.x.x.xxx.x.xxx.", level=0.5),
        ),
    ),
    "jazz": Style(  # swing ride cymbal, walking bass
        (130, 190),
        ("ii7 V7 Imaj7 vi7", "Imaj7 vi7 ii7 V7", "i7 iv7 ii7 V7"),
        (
            Part("bass", "1..3..5..6..|1..5..3..2..", octave=2, hold=3.0),
            Part("piano", "..c.....c...|.....c......", hold=2.0, level=0.5),
            Part("reed", "?..?.??.....|..?..?.?..?.", 5, 2.0, 0.4),
            Part("ride", "x..x.xx..x.x", level=0.9),
            Part("hat", "...x.....x..", level=0.4),
        ),
    ),
    "metal": Style(  # distorted power chords, double-kick
        (140, 185),
        ("i bII i bVI", "i bVII bVI V", "i i bIII bII"),
        (
            Part("distorted", "p.ppp.ppp.ppp.pp", octave=2, hold=1.2, level=0.9),
            Part("bass", "1.1.1.1.1.1.1.1.", octave=1, hold=2.0, level=0.6),
            Part("kick", "xxxxxxxxxxxxxxxx", level=1.0),
            Part("snare", "....x.......x...", level=1.0),
            Part("ride", "x...x...x...x...", level=0.6),
        ),
    ),
    "pop": Style(  # bright synth chords, backbeat
        (100, 124),
        ("I V vi IV", "vi IV I V", "I vi IV V"),
        (
            Part("bass", "1.1.1.1.1.1.1.1.", octave=2, hold=1.8, level=0.8),
            Part("synth", "c.....c.....c...", octave=5, hold=5.0, level=0.5),
            Part("synth", "?...?.?.....?...", octave=6, hold=3.0, level=0.4),
            Part("kick", "x.......x.x....."),
            Part("snare", "....x.......x...", level=0.8),
            Part("hat", "x.x.x.x.x.x.x.x.", level=0.4),
        ),
    ),
    "reggae": Style(  # off-beat skank, deep bass, one drop
        (65, 85),
        ("I IV", "i iv", "I ii"),
        (
            Part("sub", "1.....1.3.5.....|....1.3.5...3...", 2, 2.5, 1.4),
            Part("organ", "..c...c...c...c.", hold=0.8, level=0.7),
            Part("pluck", "..c...c...c...c.", octave=5, hold=0.8, level=0.5),
            Part("kick", "........x......."),
            Part("rim", "........x.....x.", level=0.8),
            Part("hat", "x.x.x.x.x.x.x.x.", level=0.3),
        ),
    ),
    "rock": Style(  # guitar riff, backbeat
        (112, 142),
        ("I bVII IV I", "i bVI bVII i", "I IV I V"),
        (
            Part("overdriven", "1.1.8.1.7.1.5.4.", octave=3, hold=1.8, level=0.8),
            Part("overdriven", "p.......p.....p.", octave=3, hold=6.0, level=0.6),
            Part("bass", "1.1.1.1.1.1.5.4.", octave=2, hold=1.8, level=0.8),
            Part("kick", "x.....x.x......."),
            Part("snare", "....x.......x...", level=1.1),
            Part("open_hat", "x.x.x.x.x.x.x.x.", level=0.4),
        ),
    ),
}

GENRES = tuple(STYLES)


def chord(numeral):
    """The degrees of a chord that is written as a Roman numeral.

    Arguments
    ---------
    numeral : str
        ``I`` to ``VII``, in lower case if minor, ``b`` before it lowers the root
        by a semitone; ``7`` or ``maj7`` behind it adds that seventh.

    Returns
    -------
    root : int
        The root, in semitones above the key.
    tones : tuple of int
        The chord's tones, in semitones above its root.

    Example
    -------
    >>> chord("bVII"), chord("ii7")
    ((10, (0, 4, 7)), (2, (0, 3, 7, 10)))
    """
    flat, roman, seventh = re.fullmatch("(b?)([IViv]+)(7|maj7)?", numeral).groups()
    steps = {"I": 0, "II": 2, "III": 4, "IV": 5, "V": 7, "VI": 9, "VII": 11}
    third = 3 if roman.islower() else 4
    sevenths = {None: (), "7": (10,), "maj7": (11,)}
    return steps[roman.upper()] - len(flat), (0, third, 7, *sevenths[seventh])


def _degrees(symbol, tones, rng):
    """The notes a pattern's symbol stands for, in semitones above the chord's root."""
    if symbol == "?":
        symbol = rng.choice(list("134568"))
    seventh = tones[3] if len(tones) > 3 else 10
    scale = (0, 2, tones[1], 5, 7, 9, seventh, 12)
    chords = {"c": tones, "p": (0, 7, 12), "x": ()}
    return chords[symbol] if symbol in chords else (scale[int(symbol) - 1],)


def tone(
    hz,
    duration_s,
    *,
    sample_rate,
    rolloff=1.0,
    attack_s=0.005,
    decay_s=np.inf,
    damping=0.0,
    vibrato=0.0,
    drive=0.0,
):
    """Notes of an instrument with a pitch, sounding together.

    Arguments
    ---------
    hz : sequence of float
        The notes' fundamentals, in Hz.
    duration_s : float
        Length, in seconds.
    sample_rate : int
        In Hz.
    rolloff : float
        The k-th harmonic has the amplitude ``k ** -rolloff``.
    attack_s, decay_s : float
        Time of the rise, and time constant of the fall, in seconds.
    damping : float
        How much faster each harmonic falls than the one below it, in 1/s: a
        plucked string has some, a blown or bowed one none.
    vibrato : float
        Relative depth of a 5.5 Hz vibrato.
    drive : float
        Gain into an amplifier that saturates; 0 leaves it out.

    Returns
    -------
    samples : numpy.ndarray [time]

    Example
    -------
    >>> samples = tone([440.0], 1.0, sample_rate=8000)
    >>> int(np.abs(np.fft.rfft(samples)).argmax())  # 1 s: the bins are 1 Hz wide
    440
    """
    t = np.arange(round(duration_s * sample_rate)) / sample_rate
    bent = t - vibrato * np.cos(2 * np.pi * 5.5 * t) / (2 * np.pi * 5.5)
    samples = np.zeros(len(t))
    for fundamental in hz:
        # The k-th power of one damped oscillation is the k-th harmonic, k times
        # as damped, so a tone is a polynomial. None reaches half the sample rate.
        n_harmonics = int(np.clip(0.45 * sample_rate / fundamental, 1, 16))
        amplitudes = np.arange(1.0, n_harmonics + 1) ** -rolloff
        oscillation = np.exp(2j * np.pi * fundamental * bent - damping * t)
        samples += np.polyval([*amplitudes[::-1], 0], oscillation).imag
    if drive:
        samples = np.tanh(drive * samples)
    rise = np.minimum(1, t / attack_s)
    release = np.minimum(1, t[::-1] / 0.01)
    return samples * rise * release * np.exp(-t / decay_s)


def _drum(*, sample_rate, rng, hz, decay_s, noise, bright=0):
    """A stroke: a sine that falls from three times ``hz``, and a burst of noise.

    The noise is differenced ``bright`` times, which takes away its lows.
    """
    t = np.arange(round(5 * decay_s * sample_rate)) / sample_rate
    fall_s = decay_s / 2 * (1 - np.exp(-4 * t / decay_s))
    body = np.sin(2 * np.pi * hz * (t + fall_s))
    burst = np.diff(rng.standard_normal(len(t) + bright), n=bright) / 2**bright
    return (body + noise * burst) * np.exp(-t / decay_s)


def render_track(genre, track, *, duration_s, sample_rate, seed):
    """One synthesised track.

    Arguments
    ---------
    genre : str
        One of ``GENRES``.
    track : int
        Number of the track within its genre.
    duration_s : float
        Length, in seconds.
    sample_rate : int
        In Hz.
    seed : int
        With the genre and the number it decides the track, whatever else is made.

    Returns
    -------
    samples : numpy.ndarray [time]
        Mono, within [-1, 1].

    Example
    -------
    >>> render_track("jazz", 0, duration_s=3.0, sample_rate=16000, seed=1234).shape
    (48000,)
    """
    style = STYLES[genre]
    rng = np.random.default_rng([seed, GENRES.index(genre), track])
    bar_s = 4 * 60 / rng.uniform(*style.bpm)
    key = rng.integers(-3, 9)
    chords = [chord(numeral) for numeral in rng.choice(style.progressions).split()]
    n_bars = int(np.ceil(duration_s / bar_s))
    mix = np.zeros(round(duration_s * sample_rate))
    for part in style.parts:
        level = part.level * 10 ** (rng.uniform(-4, 4) / 20)
        mix += level * _render_part(
            part, chords, key, n_bars, bar_s, len(mix), sample_rate, rng
        )
    return _record(mix, rng)


def _render_part(part, chords, key, n_bars, bar_s, n_samples, sample_rate, rng):
    """One instrument over the whole track, as humans play: not quite in time."""
    bars = part.pattern.split("|")
    step_s = bar_s / len(bars[0])
    sound = _instrument(part, step_s, sample_rate, rng)
    samples = np.zeros(n_samples)
    for bar in range(n_bars):
        root, tones = chords[bar % len(chords)]
        for step, symbol in enumerate(bars[bar % len(bars)]):
            if symbol == "." or rng.random() < 0.07:  # a hit now and then is left out
                continue
            lowest = 12 * (part.octave + 1) + key + root
            midi = tuple(lowest + note for note in _degrees(symbol, tones, rng))
            late_s = abs(rng.normal(0, 0.004))
            start = round((bar * bar_s + step * step_s + late_s) * sample_rate)
            hit = sound(midi)[: max(0, n_samples - start)]
            samples[start : start + len(hit)] += rng.uniform(0.7, 1.0) * hit
    return samples


def _instrument(part, step_s, sample_rate, rng):
    """A function from MIDI notes, which a drum ignores, to samples."""
    if part.instrument in DRUMS:
        stroke = _drum(sample_rate=sample_rate, rng=rng, **DRUMS[part.instrument])
        return lambda midi: stroke
    timbre = dict(TONES[part.instrument])
    timbre["rolloff"] += rng.uniform(-0.2, 0.3)

    @cache  # a chord returns many times in a track
    def sound(midi):
        hz = 440 * 2 ** ((np.array(midi) - 69) / 12)
        samples = tone(hz, part.hold * step_s, sample_rate=sample_rate, **timbre)
        return 0.3 * samples / np.abs(samples).max()

    return sound


def _record(mix, rng):
    """Puts the mix through a recording: a tilted spectrum, hiss, some peak level."""
    spectrum = np.fft.rfft(mix)
    frequencies = np.linspace(0.01, 1, len(spectrum))
    mix = np.fft.irfft(spectrum * frequencies ** rng.uniform(-0.25, 0.25), len(mix))
    mix /= np.abs(mix).max() or 1
    mix += 10 ** rng.uniform(-3, -2) * rng.standard_normal(len(mix))
    return rng.uniform(0.3, 0.95) * mix / np.abs(mix).max()


def make_synthetic_gtzan(
    folder, *, n_tracks=10, duration_s=30.0, sample_rate=22050, seed=1234
):
    """Makes the synthesised data set, as ``folder/genres/<genre>/<genre>.00000.wav``.

    A folder that already holds the same set is left as it is. The set appears at
    once when it is complete: one whose making was interrupted is made anew.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where to make it.
    n_tracks : int
        Tracks a genre, at least 1.
    duration_s : float
        Length of a track, in seconds.
    sample_rate : int
        In Hz.
    seed : int
        Decides all that is random.

    Returns
    -------
    folder : pathlib.Path
        The folder, absolute.

    Raises
    ------
    HparamError
        If a number cannot be used.
    DataFolderError
        If the folder holds anything but this very set: nothing is overwritten.

    Example
    -------
    >>> toy = getfixture("tmp_path") / "toy"
    >>> toy = make_synthetic_gtzan(toy, n_tracks=1, duration_s=1.0)
    >>> sorted(path.name for path in toy.glob("genres/*/*"))[:2]
    ['blues.00000.wav', 'classical.00000.wav']
    """
    arguments = {
        "n_tracks": n_tracks,
        "duration_s": duration_s,
        "sample_rate": sample_rate,
        "seed": seed,
    }
    limits = {"n_tracks": 1, "duration_s": 0.1, "sample_rate": 8000, "seed": 0}
    for name, least in limits.items():
        if not arguments[name] >= least:
            raise HparamError(
                f"{name}: expected at least {least}, got {arguments[name]}"
            )
    folder = Path(folder).resolve()
    if _is_made(folder, arguments):
        return folder
    unfinished = folder.with_name(folder.name + ".unfinished_synthetic")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _write_tracks(unfinished, **arguments)
        content = {"content": "synthesised music, no recordings", **arguments}
        (unfinished / MARKER).write_text(json.dumps(content, indent=2) + "\n")
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _is_made(folder, arguments):
    """Whether the set is there already; raises if something else is."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / MARKER).read_text())
        found = {name: found[name] for name in arguments}
    except (OSError, ValueError, KeyError, TypeError):
        found = "something else"
    if found != arguments:
        raise DataFolderError(
            f"{folder}: expected nothing or the synthetic data set with {arguments}, "
            f"found {found}. Name another folder, or delete this one."
        )
    return True


def _write_tracks(folder, *, n_tracks, duration_s, sample_rate, seed):
    """Renders and writes every track, as 16-bit wav."""
    with tqdm(total=len(GENRES) * n_tracks, desc="synthesising", unit="track") as bar:
        for genre in GENRES:
            genre_folder = folder / "genres" / genre
            genre_folder.mkdir(parents=True)
            for track in range(n_tracks):
                samples = render_track(
                    genre,
                    track,
                    duration_s=duration_s,
                    sample_rate=sample_rate,
                    seed=seed,
                )
                path = genre_folder / f"{genre}.{track:05d}.wav"
                soundfile.write(path, samples, sample_rate, subtype="PCM_16")
                bar.update()
