"""Audio files of every kind, heard in full, and written here; mono; resampling."""

import io
import os
import re
import struct
import tempfile
from contextlib import suppress
from functools import cache, partial
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
import torch
from mutagen.id3 import APIC, ID3

from ms_sincresnet.data.audio import (
    AUDIO_SUFFIXES,
    SAMPLE_RATE,
    AudioNormalizer,
    read_audio,
    read_blocks,
)
from ms_sincresnet.data.mpeg import parse
from ms_sincresnet.errors import AudioFileError, NoAudioError

from .sounds import (
    CONTAINERS,
    PCM,
    SOUND_FILES,
    add_audio,
    noise,
    pcm_noise,
    sine,
    write_container,
    write_sound,
)


def random_bytes(size, seed=0):
    return np.random.default_rng(seed).bytes(size)


JUNK = random_bytes(30_000)


def music(seconds, rate=44100, channels=2, hz=440):
    """A tone with some noise in every channel."""
    samples = sine(hz, rate, seconds)[:, None] / 3
    return (samples + noise(len(samples), channels) / 10).astype(np.float32)


def pcm_music(*args):
    return (music(*args) * 32767).astype(np.int16)


def libsndfile(kind, samples, rate, **options):
    """The bytes of a file that libsndfile writes."""
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, **options)
    return stream.getvalue()


@cache
def sound(kind, seconds=3, rate=44100, channels=2, hz=440, **options):
    """The bytes of a file with music that libsndfile writes."""
    return libsndfile(kind, music(seconds, rate, channels, hz), rate, **options)


def dsf(seconds=2):
    """A DSF file: one bit per sample, here at random."""
    rate, block = 2822400, 4096
    data = random_bytes(int(seconds * rate) // 8 // block * block)
    layout = 52, 1, 0, 1, 1, rate, 1, 8 * len(data), block, 0
    head = struct.pack("<4sQQQ", b"DSD ", 28, 92 + len(data), 0)
    head += struct.pack("<4sQIIIIIIQII", b"fmt ", *layout)
    return head + struct.pack("<4sQ", b"data", 12 + len(data)) + data


@cache
def contained(kind, codec, seconds=3, rate=44100, channels=2):
    """The bytes of a file with music that FFmpeg writes."""
    with tempfile.NamedTemporaryFile() as file:
        pcm = pcm_music(seconds, rate, channels)
        write_container(file.name, kind, codec, pcm, rate)
        return Path(file.name).read_bytes()


def film(kind, codec):
    """A film, and if it has a codec, two audio streams, of 3 s and 5 s."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=kind) as container:
        video = container.add_stream("mpeg4" if kind != "mpeg" else "mpeg1video", 25)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        fillers = [
            add_audio(container, codec, pcm_music(length), 44100)
            for length in (3, 5)
            if codec
        ]
        for n in range(25):
            pixels = np.random.default_rng(n).integers(0, 256, (64, 64, 3), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(video.encode(None))
        for fill in fillers:
            fill()
    return stream.getvalue()


def patched(content, mark, offset, *numbers, order="<"):
    """Bytes with 32-bit numbers in place of others, at an offset from a mark."""
    place = content.index(mark) + offset
    new = struct.pack(f"{order}{len(numbers)}I", *numbers)
    return content[:place] + new + content[place + len(new) :]


def open_wav(size):
    """A wav file whose writer did not state its size."""
    return patched(patched(sound("WAV"), b"data", 4, size), b"RIFF", 4, size)


def open_au(size):
    """An au file that states another size."""
    return patched(AU(), b".snd", 8, size, order=">")


def open_flac():
    """A FLAC file with an unknown number of samples."""
    return patched(FLAC(), b"fLaC", 22, 0)  # but for four bits, which are zero already


def cover():
    """A tag with a picture, which resembles frames in places."""
    stream, tag = io.BytesIO(), ID3()
    tag.add(APIC(mime="image/jpeg", data=random_bytes(300_000, seed=1)))
    tag.save(stream)
    return stream.getvalue()


def tagged(content):
    """An mp3 with tags before and behind it."""
    ape = struct.pack("<8sIIII8x", b"APETAGEX", 2000, 40, 0, 1 << 31) + bytes(40)
    return cover() + content + ape + b"TAG" + b"A title".ljust(125, b"\0")


def untagged(content):
    """An mp3 without the frame that states its length."""
    place = max(content.find(b"Xing"), content.find(b"Info"))
    return content[place - 36 + parse(content[place - 36 : place - 32]).size :]


def half(content):
    return content[: len(content) // 2]


def hole(content, size):
    """A file with zeros in its middle."""
    middle = len(content) // 2
    return content[:middle] + bytes(size) + content[middle + size :]


MP3, OGG, FLAC, AU = (partial(sound, kind) for kind in ("MP3", "OGG", "FLAC", "AU"))
VBR = partial(sound, "MP3", bitrate_mode="VARIABLE")
OPUS = partial(sound, "OGG", rate=48000, subtype="OPUS")
M4A, AAC = partial(contained, "ipod", "aac"), partial(contained, "adts", "aac")
MKA = partial(contained, "matroska", "flac")
AMR = {"codec": "libopencore_amrnb", "rate": 8000, "channels": 1}
UNKNOWN = 0, 2**32 - 1, 0x7FFFF000  # sizes that writers state for want of another
WHOLE = {  # seconds, and what makes the bytes
    **{
        f"{rate}, {channels}.mp3": (1, partial(MP3, 1, rate, channels))
        for rate in (8000, 22050, 48000)
        for channels in (1, 2)
    },
    "variable.mp3": (3, VBR),
    "six channels.wav": (3, partial(sound, "WAV", channels=6)),
    "a.dsf": (2, dsf),
    "a.amr": (3, partial(contained, "amr", **AMR)),
    "a.flv": (3, partial(contained, "flv", "libmp3lame")),
    "film.mkv": (3, partial(film, "matroska", "aac")),
    "film.mpg": (3, partial(film, "mpeg", "mp2")),
    "film.mp4": (3, partial(film, "mp4", "aac")),
    # Faults that cost no audio.
    "no length.mp3": (3, lambda: untagged(MP3())),
    "no length, variable.mp3": (3, lambda: untagged(VBR())),
    "tags.mp3": (3, lambda: tagged(MP3())),
    "broken tag.mp3": (3, lambda: b"ID3\4\0\0\x7f\x7f\x7f\x7f" + MP3()),
    "junk first.mp3": (3, lambda: JUNK + MP3()),
    "junk last.mp3": (3, lambda: MP3() + JUNK),
    "tag first.flac": (3, lambda: cover() + FLAC()),
    "unknown length.flac": (3, open_flac),
    **{f"size {size}.wav": (3, partial(open_wav, size)) for size in UNKNOWN},
    "unknown size.au": (3, partial(open_au, 2**32 - 1)),
    "an mp3, in truth.wav": (3, MP3),
    "an m4a, in truth.mp3": (3, M4A),
    "no suffix": (3, OGG),
    "joined.mp3": (7, lambda: MP3(2, hz=2764) + MP3(5)),
    "joined, with tags.mp3": (7, lambda: tagged(MP3(2)) + tagged(MP3(5))),
    "joined, two rates.mp3": (5, lambda: MP3(2, rate=48000) + MP3(3)),
    "joined, mono first.mp3": (5, lambda: MP3(2, channels=1) + MP3(3)),
    "chained.ogg": (7, lambda: OGG(2) + OGG(5)),
    "chained, two rates.ogg": (5, lambda: OGG(2) + OGG(rate=22050)),
    "chained, two codecs.ogg": (5, lambda: OGG(2) + OPUS(3)),
    "joined.aac": (5, lambda: AAC(2) + AAC(3)),
    "joined, two rates.aac": (5, lambda: AAC(2) + AAC(3, rate=32000)),
}
ZEROS = bytes(10**8)
HALVED = ["a.wav", "a.aiff", "a.rf64", "a.w64", "a.au", "a.mp3", "a.ogg", "a.opus"]
HALVED += ["a.flac", "flac.mka", "aac.m4a", "aac.aac", "wavpack.wv"]
DAMAGED = {  # the least and the most seconds, of ten if they are whole
    "half, no length.mp3": (4, 6, lambda: half(untagged(MP3(10)))),
    "half, unknown length.flac": (1, 2, lambda: half(open_flac())),
    "joined, the last one cut.mp3": (7, 9, lambda: MP3(3) + half(MP3(10))),
    "hole.mp3": (9, 10, lambda: hole(MP3(10), 5000)),
    "hole.flac": (8, 9.5, lambda: hole(FLAC(10), 90_000)),
    "zeros at the end.mp3": (4, 6, lambda: half(MP3(10)) + bytes(80_000)),
    # More than may be in memory.
    "zeros.mp3": (2.9, 3.1, lambda: MP3() + ZEROS),
    "zeros, no length.mp3": (2.9, 3.1, lambda: untagged(MP3()) + ZEROS),
    "zeros.aac": (2.9, 3.1, lambda: AAC() + ZEROS),
    "size 1 GB.au": (2.9, 3.1, lambda: open_au(2**30)),
}


@pytest.mark.parametrize("name", [*SOUND_FILES, *CONTAINERS, *WHOLE])
def test_all_of_a_file_is_heard_without_a_word(tmp_path, name, caplog, capfd):
    path, seconds = tmp_path / name, 2
    if name in WHOLE:
        seconds, make = WHOLE[name]
        path.write_bytes(make())
    else:
        write_sound(path, pcm_music(2, 48000))
    samples = read_audio(path)
    assert len(samples) / SAMPLE_RATE == pytest.approx(seconds, abs=0.15)
    if not name.endswith("dsf"):  # to the end
        assert np.abs(samples[-6000:-3000]).max() > 0.1
        assert np.abs(samples[3000:6000]).max() > 0.1
    assert path.suffix in AUDIO_SUFFIXES or not path.suffix
    assert caplog.messages == []
    assert capfd.readouterr() == ("", "")


def peak_mb():
    """The peak of this process's memory, native libraries included."""
    state = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+)", state)[1]) / 1024


def samples_and_mb(path, **options):
    """The number of samples in a file, and the memory to read them in blocks."""
    with suppress(OSError):  # where it is allowed, the peak starts anew
        Path("/proc/self/clear_refs").write_text("5")
    before = peak_mb()
    n_samples = sum(map(len, read_blocks(path, **options)))
    return n_samples, peak_mb() - before


@pytest.mark.parametrize("name", [*HALVED, *DAMAGED])
def test_a_damaged_file_gives_what_is_left_and_a_warning(tmp_path, name, caplog, capfd):
    path, least, most = tmp_path / name, 3.9, 6
    if name in DAMAGED:
        least, most, make = DAMAGED[name]
        path.write_bytes(make())
    else:
        write_sound(path, pcm_music(10, 48000))
        os.truncate(path, path.stat().st_size // 2)
    told = []
    n_samples, mb = samples_and_mb(path, warn=told.append)
    assert least <= n_samples / SAMPLE_RATE <= most
    assert mb < 50
    assert caplog.messages == []
    assert len(read_audio(path)) == n_samples
    assert caplog.messages == told
    (warning,) = told
    assert warning.startswith(f"{path}: damaged or cut short (")
    seconds = float(re.search(r"using the ([0-9.]+) s that were", warning)[1])
    assert seconds == pytest.approx(n_samples / SAMPLE_RATE, abs=0.01)
    assert capfd.readouterr() == ("", "")


def normalize(samples, rate, target_rate=SAMPLE_RATE):
    """The samples as mono ones at another rate."""
    return AudioNormalizer(target_rate)(torch.as_tensor(samples), rate).numpy()


@pytest.mark.parametrize(
    ("name", "rate", "channels", "target_rate"),
    [
        ("FLOAT.wav", 8000, 2, SAMPLE_RATE),
        ("FLOAT.wav", 48000, 6, SAMPLE_RATE),
        ("FLOAT.wav", 22050, 2, 8000),
        ("a.mp3", 44100, 2, SAMPLE_RATE),
    ],
)
def test_blocks_are_resampled_as_a_whole(tmp_path, name, rate, channels, target_rate):
    file_format, subtype = SOUND_FILES[name]
    samples = noise(5 * rate + 7, channels)
    soundfile.write(tmp_path / name, samples, rate, subtype, format=file_format)
    read = read_audio(tmp_path / name, target_rate)
    samples, _ = soundfile.read(tmp_path / name, dtype="float32", always_2d=True)
    expected = soxr.resample(samples.mean(axis=1), rate, target_rate, quality="HQ")
    assert (read.shape, read.dtype) == (expected.shape, np.float32)
    accuracy = 1e-6 if name == "FLOAT.wav" else 2e-6
    np.testing.assert_allclose(read, expected, rtol=0, atol=accuracy)
    if name == "FLOAT.wav":
        np.testing.assert_array_equal(read, normalize(samples, rate, target_rate))


def odd_wav(value, n_samples=3 * SAMPLE_RATE, rate=SAMPLE_RATE):
    """A wav file of noise with an odd value after 2.5 s."""
    samples = noise(n_samples, 2)
    samples[40000:40001] = value
    return libsndfile("WAV", samples, rate, subtype="FLOAT")


UNSURE = "not readable as audio"
PROTECTED = "protected against copying"  # by the tag of encrypted packets, from shops
ONES = [2**32 - 1] * 15_000
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.m4a\n"
UNUSABLE = {  # what the error says, and what makes the bytes
    "text": (UNSURE, lambda: b"This is no audio.\n" * 1000),
    "playlist": (UNSURE, lambda: PLAYLIST),
    "zeros": (UNSURE, lambda: bytes(200_000)),
    "three frames": (UNSURE, lambda: JUNK + untagged(MP3())[: 3 * 417] + JUNK),
    **{f"noise {n}": (UNSURE, partial(random_bytes, 300_000, n)) for n in range(3)},
    "head": ("no audio stream", lambda: M4A()[:200]),
    "drms": (PROTECTED, lambda: M4A().replace(b"mp4a", b"drms")),
    "unknown codec": ("unknown codec", lambda: MKA().replace(b"A_FLAC", b"A_FLAX")),
    "no sound": ("damaged packets", lambda: patched(M4A(), b"mdat", 4, *ONES)),
    "many samples": (
        "its table of samples is damaged",
        lambda: patched(M4A(), b"stsz", 8, 2**31, 10**8, order=">"),
    ),
    "no samples": ("empty track", lambda: odd_wav(0, n_samples=0)),
    "NaN": (r"NaN or infinity at 2\.500 s", lambda: odd_wav(np.nan)),
    # of which the resampler would make NaN
    "loud": (r"found -3e\+38 at 2\.500 s", lambda: odd_wav(-3e38)),
    # A minute of samples would become nine days of them.
    "slow": ("1000 to 6144000 Hz, found 1 Hz", lambda: odd_wav(0, 99, rate=1)),
}


SUFFIXES = [".mp3", ".m3u8", ".m4a", ".ts", ".ogg", ".dts", ".mpg", ""]


@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_is_not_usable_is_named_with_the_reason(tmp_path, kind, capfd):
    (tmp_path / "a.m4a").write_bytes(M4A())  # the target of lists
    message, make = UNUSABLE[kind]
    content = make()
    for suffix in SUFFIXES:
        path = tmp_path / f"track{suffix}"
        path.write_bytes(content)
        with pytest.raises(AudioFileError, match=message) as error:
            read_audio(path)
        assert type(error.value) is AudioFileError or suffix == ".ts"
        assert str(error.value).startswith(f"{path}: ")
    assert capfd.readouterr() == ("", "")


def test_files_without_audio_are_distinguished(tmp_path):
    source, silent = tmp_path / "code.ts", tmp_path / "silent.mkv"
    source.write_text("export const audio: string[] = [];\n" * 100)
    silent.write_bytes(film("matroska", None))
    for path in (source, silent):
        with pytest.raises(NoAudioError, match=f"{path}: not readable as audio"):
            read_audio(path)


def test_an_excerpt_is_cut_from_the_whole(tmp_path):
    path = tmp_path / "track.mp3"
    path.write_bytes(MP3(4))
    whole = read_audio(path)
    for excerpt, expected in [
        ((1.5, 2), whole[24000:56000]),
        ((3.5, 2), whole[-32000:]),  # its last two seconds
        ((9, 9), whole),
    ]:
        np.testing.assert_array_equal(read_audio(path, excerpt=excerpt), expected)


LOSSLESS = ["alac.m4a", "flac.mka", "wavpack.wv", "tta.tta"]
LOSSLESS += [f"{codec}.mka" for codec in PCM]


@pytest.mark.parametrize(
    ("name", "channels"), [*product(LOSSLESS, (2, 6)), ("wavpack.wv", 8)]
)
def test_lossless_containers_give_what_a_wav_gives(tmp_path, name, channels):
    pcm = 4 * pcm_noise(44117, channels)
    for path in (tmp_path / name, tmp_path / "a.wav"):
        write_sound(path, pcm)
    # Not always to the last bit, since the order of six channels differs.
    accuracy = 1 / 128 if "u8" in name else 1e-7
    read, expected = read_audio(tmp_path / name), read_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(read, expected, rtol=0, atol=accuracy)


def test_what_an_encoder_adds_to_each_part_of_a_joined_mp3_is_dropped(tmp_path):
    paths = [tmp_path / name for name in ("1.mp3", "2.mp3", "both.mp3")]
    contents = MP3(2, hz=2764), MP3(3)
    for path, content in zip(paths, [*contents, b"".join(contents)], strict=True):
        path.write_bytes(content)
    first, second, both = map(read_audio, paths)
    assert len(both) == len(first) + len(second) == 5 * SAMPLE_RATE
    np.testing.assert_allclose(both[:31000], first[:31000], rtol=0, atol=1e-5)
    np.testing.assert_allclose(both[33000:], second[1000:], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["an m4a.raw", "an m4a", "a: b.m4a", "http://a.m4a", "concat:a|b.m4a"]
    + ["subfile,,:a.m4a", "%d 'à' \udcff.m4a", "-i.m4a"],
)
@pytest.mark.parametrize("make", [M4A, lambda: OGG(1) + OGG(2)])
def test_a_name_is_no_format_protocol_or_pattern(tmp_path, monkeypatch, name, make):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True, parents=True)
    Path(name).write_bytes(make())
    assert len(read_audio(name)) == pytest.approx(48000, abs=2000)


def test_half_an_hour_is_read_in_flat_memory(tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(1800 * 8000, np.int16), 8000)
    n_samples, mb = samples_and_mb(path)
    assert n_samples == 1800 * 16000
    assert mb < 30  # all of it would take 110


MIDDLE = music(4, channels=1)
SAME, OPPOSITE = np.hstack([MIDDLE, MIDDLE]), np.hstack([MIDDLE, -MIDDLE])
STEREO = {  # and the channel that is heard, or None for the mean
    "out of phase": (OPPOSITE, 0),
    "19 dB": (np.hstack([MIDDLE, -0.79 * MIDDLE]), None),
    "21 dB": (np.hstack([MIDDLE, -0.84 * MIDDLE]), 0),
    "silence first": (np.vstack([np.zeros((40 * 44100, 2)), OPPOSITE]), 0),
    "out of phase first": (np.vstack([OPPOSITE / 4, SAME]), None),
}


@pytest.mark.parametrize("name", STEREO)
def test_stereo_out_of_phase_gives_one_channel(tmp_path, name):
    samples, channel = STEREO[name]
    mono = samples.mean(1) if channel is None else samples[:, channel]
    expected = soxr.resample(mono, 44100, SAMPLE_RATE, quality="HQ")
    soundfile.write(tmp_path / "a.flac", samples, 44100, subtype="PCM_24")
    for read in (read_audio(tmp_path / "a.flac"), normalize(samples, 44100)):
        np.testing.assert_allclose(read, expected, rtol=0, atol=1e-5)
