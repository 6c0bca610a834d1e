"""Audio files of every kind, heard in full, and written here; mono; resampling."""

import inspect
import io
import os
import re
import resource
import struct
import tempfile
from functools import cache, partial
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
import torch

from ms_sincresnet.data.audio import (
    AUDIO_SUFFIXES,
    SAMPLE_RATE,
    AudioNormalizer,
    read_audio,
    read_blocks,
)
from ms_sincresnet.data.decoding import Faults, decode
from ms_sincresnet.data.mpeg import parse, read_frames
from ms_sincresnet.errors import AudioFileError, NoAudioError

from .sounds import add_audio, noise, pcm_noise, sine, write_container

# Formats that FFmpeg decodes, but that nothing here can write.
WITHOUT_ENCODER = ["ape", "mpc7", "mpc8", "tak", "speex", "shorten", "twinvq", "cook"]
WITHOUT_ENCODER += ["qcelp", "amrwb", "atrac3", "wmapro", "wmalossless", "dst", "ralf"]


def music(seconds, rate=44100, channels=2, hz=440):
    """A tone with some noise in every channel."""
    samples = sine(hz, rate, seconds)[:, None] / 3
    return (samples + noise(len(samples), channels) / 10).astype(np.float32)


@cache
def sound(kind, seconds=3, rate=44100, channels=2, hz=440, **options):
    """The bytes of a file that libsndfile writes."""
    stream = io.BytesIO()
    soundfile.write(
        stream, music(seconds, rate, channels, hz), rate, format=kind, **options
    )
    return stream.getvalue()


@cache
def encoded(kind, codec, seconds, rate, channels):
    """The bytes of a file that FFmpeg writes."""
    pcm = (music(seconds, rate, channels) * 32767).astype(np.int16)
    with tempfile.NamedTemporaryFile() as file:
        write_container(file.name, kind, codec, pcm, rate)
        return Path(file.name).read_bytes()


def contained(kind, codec, path=None, seconds=3, rate=44100, channels=2):
    """Bytes of FFmpeg's encoders, also written to a path."""
    content = encoded(kind, codec, seconds, rate, channels)
    if path is not None:
        path.write_bytes(content)
    return content


def film(kind, codec, path, seconds=3):
    """Writes a film with a second of pictures, and sound unless ``codec`` is None."""
    with av.open(str(path), "w", format=kind) as container:
        video = container.add_stream("mpeg4" if kind != "mpeg" else "mpeg1video", 25)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        if codec:
            pcm = (music(seconds) * 32767).astype(np.int16)
            fill = add_audio(container, codec, pcm, 44100)
        for n in range(25):
            pixels = np.random.default_rng(n).integers(0, 256, (64, 64, 3), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(video.encode(None))
        if codec:
            fill()
    return path.read_bytes()


def with_number(content, place, number, order="<"):
    """Bytes with a 32-bit number in place of another."""
    number = struct.pack(f"{order}I", number)
    return content[:place] + number + content[place + 4 :]


def open_wav(size, riff=None):
    """A wav file whose writer did not state its size."""
    content = sound("WAV")
    content = with_number(content, content.index(b"data") + 4, size)
    return content if riff is None else with_number(content, 4, riff)


def open_flac():
    """A FLAC file with an unknown number of samples."""
    content = bytearray(sound("FLAC"))
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    return bytes(content)


def id3(*frames):
    """An ID3v2.4 tag with frames (name, content)."""

    def size(n):
        return bytes(n >> shift & 127 for shift in (21, 14, 7, 0))

    body = b"".join(name + size(len(text)) + b"\0\0" + text for name, text in frames)
    return b"ID3\4\0\0" + size(len(body)) + body


def cover():
    """A tag with a picture, which resembles frames in places."""
    picture = np.random.default_rng(1).bytes(300_000)
    return id3((b"TIT2", b"\3A title"), (b"APIC", b"\0image/jpeg\0\3\0" + picture))


def tagged(content):
    """An mp3 with tags before and behind it."""
    ape = struct.pack("<8sIIII8x", b"APETAGEX", 2000, 40, 0, 1 << 31) + bytes(40)
    return cover() + content + ape + b"TAG" + b"A title".ljust(125, b"\0")


def untagged(content):
    """An mp3 without the frame that states its length."""
    place = max(content.find(b"Xing"), content.find(b"Info"))
    return content[place - 36 + parse(content[place - 36 : place - 32]).size :]


def vbr(silent_start):
    """A minute of mp3 with a variable bit rate that nothing states."""
    samples = music(60)
    samples[: 2 * 44100] = 0 if silent_start else 6 * noise(2 * 44100, 2)
    stream = io.BytesIO()
    soundfile.write(stream, samples, 44100, format="MP3", bitrate_mode="VARIABLE")
    return untagged(stream.getvalue())


def dsf(seconds=2):
    """A DSF file: one bit per sample, here a triangle's density of ones."""
    rate, block = 2822400, 4096
    n_blocks = int(seconds * rate) // 8 // block
    data = np.random.default_rng(0).bytes(n_blocks * block)
    layout = struct.pack("<4sQIIIIIIQII", b"fmt ", 52, 1, 0, 1, 1, rate, 1,
                         8 * len(data), block, 0)  # fmt: skip
    size = 28 + len(layout) + 12 + len(data)
    return (struct.pack("<4sQQQ", b"DSD ", 28, size, 0) + layout
            + struct.pack("<4sQ", b"data", 12 + len(data)) + data)  # fmt: skip


def part(content, share):
    """The first part of a file."""
    return content[: int(share * len(content))]


def hole(content, size=50):
    """A file with zeros in its middle."""
    middle = len(content) // 2
    return content[:middle] + bytes(size) + content[middle + size :]


MP3, OGG, FLAC, AU = (partial(sound, kind) for kind in ("MP3", "OGG", "FLAC", "AU"))
OPUS = partial(sound, "OGG", rate=48000, subtype="OPUS")
M4A = partial(contained, "ipod", "aac")
WHOLE = {  # bytes, or a function that writes a file; all hold three seconds
    **{
        f"{kind.lower()}.{suffix}": partial(sound, kind)
        for kind, suffix in [
            *(("WAV", "wav"), ("RF64", "rf64"), ("W64", "w64"), ("AIFF", "aif")),
            *(("CAF", "caf"), ("AU", "au"), ("FLAC", "flac"), ("OGG", "ogg")),
            *(("MP3", "mp3"), ("VOC", "voc"), ("IRCAM", "sf"), ("NIST", "sph")),
            *(("PAF", "paf"), ("AVR", "avr"), ("PVF", "pvf"), ("WAVEX", "wave")),
        ]
    },
    "opus.opus": OPUS,
    "24 bits.wav": partial(sound, "WAV", subtype="PCM_24"),
    "float.wav": partial(sound, "WAV", subtype="FLOAT"),
    "8 bits.wav": partial(sound, "WAV", subtype="PCM_U8"),
    "mu law.wav": partial(sound, "WAV", subtype="ULAW"),
    "adpcm.wav": partial(sound, "WAV", subtype="IMA_ADPCM"),
    "mono.mp3": partial(sound, "MP3", channels=1),
    "variable.mp3": partial(sound, "MP3", bitrate_mode="VARIABLE"),
    "low rate.mp3": partial(sound, "MP3", rate=16000),
    "lowest rate.mp3": partial(sound, "MP3", rate=8000, channels=1),
    "six channels.wav": partial(sound, "WAV", channels=6),
    **{
        name: partial(contained, kind, codec)
        for name, kind, codec in [
            *(("aac.m4a", "ipod", "aac"), ("alac.m4a", "ipod", "alac")),
            *(("a.m4b", "ipod", "aac"), ("a.aac", "adts", "aac")),
            *(("a.mov", "mov", "pcm_s16le"), ("a.3gp", "3gp", "aac")),
            *(("flac.mka", "matroska", "flac"), ("pcm.mka", "matroska", "pcm_s16le")),
            *(("mp3.mka", "matroska", "libmp3lame"), ("a.ts", "mpegts", "aac")),
            *(("mp2.ts", "mpegts", "mp2"), ("a.wma", "asf", "wmav2")),
            *(
                ("a.mp2", "mp2", "mp2"),
                ("a.tta", "tta", "tta"),
                ("a.wv", "wv", "wavpack"),
            ),
            *(("flac.ogg", "ogg", "flac"), ("a.flv", "flv", "libmp3lame")),
            *(("alac.caf", "caf", "alac"), ("a.nut", "nut", "aac")),
            *(("mp3.wav", "wav", "libmp3lame"), ("a.aiff", "aiff", "pcm_s24be")),
            *(("old.wma", "asf", "wmav1"), ("mp3 in a film.mp4", "mp4", "libmp3lame")),
        ]
    },
    **{
        name: partial(contained, kind, codec, rate=48000)
        for name, kind, codec in [
            *(("a.webm", "webm", "libopus"), ("a.ac3", "ac3", "ac3")),
            *(("a.eac3", "eac3", "eac3"), ("opus.ts", "mpegts", "libopus")),
        ]
    },
    "a.amr": partial(contained, "amr", "libopencore_amrnb", rate=8000, channels=1),
    "amr.3gp": partial(contained, "3gp", "libopencore_amrnb", rate=8000, channels=1),
    "film.mkv": partial(film, "matroska", "aac"),
    "film.avi": partial(film, "avi", "libmp3lame"),
    "film.mpg": partial(film, "mpeg", "mp2"),
    "film.mp4": partial(film, "mp4", "aac"),
    # Faults that cost no audio.
    "no length.mp3": lambda: untagged(MP3()),
    "no length, mp3.mpga": lambda: untagged(sound("MP3", bitrate_mode="VARIABLE")),
    "tags.mp3": lambda: tagged(MP3()),
    "padded tag.mp3": lambda: id3((b"PRIV", bytes(100_000))) + bytes(9000) + MP3(),
    "broken tag.mp3": lambda: b"ID3\4\0\0\x7f\x7f\x7f\x7f" + MP3(),
    "junk first.mp3": lambda: np.random.default_rng(0).bytes(20000) + MP3(),
    "junk last.mp3": lambda: MP3() + np.random.default_rng(0).bytes(20000),
    "lyrics.mp3": lambda: MP3() + b"LYRICSBEGIN" + b"la " * 999 + b"LYRICS200",
    "tag first.flac": lambda: cover() + FLAC(),
    "unknown length.flac": open_flac,
    "size 0.wav": lambda: open_wav(0),
    "size -1.wav": lambda: open_wav(2**32 - 1),
    "size 2 GB.wav": lambda: open_wav(0x7FFFF000),
    "sizes 0.wav": lambda: open_wav(0, 0),
    "sizes -1.wav": lambda: open_wav(2**32 - 1, 2**32 - 1),
    "sizes 2 GB.wav": lambda: open_wav(0x7FFFF000, 0x7FFFF024),
    "size 0.au": lambda: with_number(AU(), 8, 0, ">"),
    "size -1.au": lambda: with_number(AU(), 8, 2**32 - 1, ">"),
    "size 2 GB.au": lambda: with_number(AU(), 8, 0x7FFFF000, ">"),
    "an mp3, in truth.wav": MP3,
    "an m4a, in truth.mp3": M4A,
    "a flac, in truth.ogg": FLAC,
    "no suffix": OGG,
}
OTHERS = {  # seconds
    "no length, noise first.mp3": (60, lambda: vbr(silent_start=False)),
    "no length, silence first.mp3": (60, lambda: vbr(silent_start=True)),
    "joined.mp3": (7, lambda: MP3(2, hz=2764) + MP3(5)),
    "joined, with tags.mp3": (7, lambda: tagged(MP3(2)) + tagged(MP3(5))),
    "joined, two rates.mp3": (5, lambda: MP3(2, rate=48000) + MP3(3)),
    "joined, no lengths.mp3": (5, lambda: untagged(MP3(2)) + untagged(MP3(3))),
    "joined, mono first.mp3": (5, lambda: MP3(2, channels=1) + MP3(3)),
    "chained.ogg": (7, lambda: OGG(2) + OGG(5)),
    "chained, two rates.ogg": (5, lambda: OGG(2) + OGG(rate=22050)),
    "chained.opus": (5, lambda: OPUS(2) + OPUS(3)),
    "chained, two codecs.ogg": (5, lambda: OGG(2) + OPUS(3)),
    "joined.aac": (5, lambda path: contained("adts", "aac", path, 2)
                   + contained("adts", "aac", path, 3)),
    "joined, two rates.aac": (5, lambda path: contained("adts", "aac", path, 2)
                              + contained("adts", "aac", path, 3, rate=32000)),
    "a.dsf": (2, dsf),
}  # fmt: skip
DAMAGED = {  # the least and the most seconds, of ten if they are whole
    **{
        f"half.{suffix}": (3.9, 6, lambda make=make: part(make(10), 0.5))
        for suffix, make in [
            *(("mp3", MP3), ("ogg", OGG), ("opus", OPUS), ("flac", FLAC), ("au", AU)),
            *((k.lower(), partial(sound, k)) for k in ("WAV", "AIFF", "RF64", "W64")),
        ]
    },
    **{
        f"half, {codec}.{suffix}": (
            4,
            6,
            lambda path, args=(kind, codec): part(contained(*args, path, 10), 0.5),
        )
        for suffix, kind, codec in [
            *(("m4a", "ipod", "aac"), ("mka", "matroska", "flac")),
            *(("aac", "adts", "aac"), ("wv", "wv", "wavpack")),
        ]
    },
    "half, no length.mp3": (4, 6, lambda: part(untagged(MP3(10)), 0.5)),
    "half, with tags.mp3": (4, 6, lambda: cover() + part(MP3(10), 0.5)),
    "half, unknown length.flac": (1, 2, lambda: part(open_flac(), 0.5)),
    "all but a page.ogg": (8, 10, lambda: OGG(10)[:-50]),
    "joined, the first one cut.mp3": (7, 9, lambda: part(MP3(10), 0.5) + MP3(3)),
    "joined, the last one cut.mp3": (7, 9, lambda: MP3(3) + part(MP3(10), 0.5)),
    "hole.mp3": (9, 10, lambda: hole(MP3(10), 5000)),
    "hole.flac": (8, 9.5, lambda: hole(FLAC(10), 90_000)),
    "zeros at the end.mp3": (4, 6, lambda: part(MP3(10), 0.5) + bytes(80_000)),
}


def write(path, make):
    """Writes what a row of the table says."""
    wants_path = "path" in inspect.signature(make).parameters
    content = make(path=path) if wants_path else make()
    path.write_bytes(content)


def test_the_table_is_long_enough():
    assert len(WHOLE) + len(OTHERS) + len(DAMAGED) >= 60
    for name in WITHOUT_ENCODER:
        with pytest.raises(av.codec.codec.UnknownCodecError):
            av.Codec(name, "w")


@pytest.mark.parametrize("name", [*WHOLE, *OTHERS])
def test_all_of_a_file_is_heard_without_a_word(tmp_path, name, caplog, capfd):
    seconds, make = OTHERS.get(name) or (3, WHOLE[name])
    path = tmp_path / name
    write(path, make)
    samples = read_audio(path)
    assert len(samples) / SAMPLE_RATE == pytest.approx(seconds, abs=0.15)
    if not name.endswith("dsf"):  # to the end
        assert np.abs(samples[-6000:-3000]).max() > 0.1
        assert np.abs(samples[3000:6000]).max() > 0.1 or "silence" in name
    assert path.suffix in AUDIO_SUFFIXES or not path.suffix
    assert caplog.messages == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_gives_what_is_left_and_a_warning(tmp_path, name, caplog, capfd):
    least, most, make = DAMAGED[name]
    path = tmp_path / name
    write(path, make)
    samples = read_audio(path)
    assert least <= len(samples) / SAMPLE_RATE <= most
    (warning,) = caplog.messages
    assert warning.startswith(f"{path}: damaged or cut short (")
    seconds = float(re.search(r"using the ([0-9.]+) s that were", warning)[1])
    assert seconds == pytest.approx(len(samples) / SAMPLE_RATE, abs=0.01)
    assert capfd.readouterr() == ("", "")
    caplog.clear()
    told = []
    assert sum(map(len, read_blocks(path, warn=told.append))) == len(samples)
    assert (told, caplog.messages) == ([warning], [])


def normalize(samples, rate, target_rate=SAMPLE_RATE):
    """The samples as mono ones at another rate."""
    return AudioNormalizer(target_rate)(torch.as_tensor(samples), rate).numpy()


@pytest.mark.parametrize(
    ("rate", "target_rate"), [(8000, 16000), (22050, 8000), (44100, 16000)]
)
def test_a_tone_keeps_its_pitch_and_level_at_any_rate(rate, target_rate):
    samples = np.stack([sine(440, rate), np.zeros(rate)], axis=1)
    samples = normalize(samples, rate, target_rate)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(target_rate, abs=1)
    middle = slice(1000, -1000)  # the resampler rings at both ends
    expected = sine(440, target_rate)[middle] / 2  # the mean of tone and silence
    np.testing.assert_allclose(samples[middle], expected, rtol=0, atol=2e-5)


def test_the_normalizer_refuses_three_dimensions():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\)"):
        normalize(np.zeros((2, 3, 4)), SAMPLE_RATE)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (22050, 2), (48000, 6)])
def test_reading_in_blocks_equals_soxr_on_the_whole_file(tmp_path, rate, channels):
    samples = noise(5 * rate + 7, channels)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    expected = soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE, quality="HQ")
    read = read_audio(tmp_path / "a.wav")
    assert read.shape == expected.shape
    np.testing.assert_allclose(read, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(read, normalize(samples, rate))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_formats_are_read_by_str_and_path(tmp_path, suffix):
    folder = tmp_path / 'l\'été "à" $HOME'
    folder.mkdir()
    path = folder / f"kruhový objazd{suffix}"
    soundfile.write(path, music(3), 44100)
    samples = read_audio(path)
    np.testing.assert_array_equal(read_audio(str(path)), samples)
    whole, rate = soundfile.read(path, dtype="float32")
    expected = soxr.resample(whole.mean(axis=1), rate, SAMPLE_RATE, quality="HQ")
    assert samples.shape == expected.shape
    np.testing.assert_allclose(samples, expected, rtol=0, atol=2e-6)


def write_value(value, n_samples=3 * SAMPLE_RATE, rate=SAMPLE_RATE):
    """Returns a function that writes noise with an odd value after 2.5 s."""

    def write(path):
        samples = noise(n_samples, 2)
        samples[40000:40001] = value
        soundfile.write(path, samples, rate, subtype="FLOAT")

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file"),
        (Path.mkdir, "found a folder"),
        (Path.touch, "is empty"),
        (os.mkfifo, "found a pipe, a socket or a device"),
        (write_value(0, n_samples=0), "empty track"),
        (write_value(0, n_samples=1, rate=96000), "empty track"),
        (write_value(np.nan), r"NaN or infinity at 2\.500 s"),
        (write_value(np.inf), r"NaN or infinity at 2\.500 s"),
        # of which the resampler would make NaN
        (write_value(-3e38), r"found -3e\+38 at 2\.500 s"),
        # A minute of samples would become nine days of them.
        (write_value(0, rate=1), "sample rate of 1000 to 6144000 Hz, found 1 Hz"),
        (
            lambda path: path.write_text("This is no audio. " * 100),
            r"not readable as audio \(Invalid data found",
        ),
    ],
)
def test_an_unusable_file_is_named_with_the_reason(tmp_path, write, message):
    path = tmp_path / "track.wav"
    write(path)
    with pytest.raises(AudioFileError, match=message) as error:
        read_audio(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("excerpt", "cut"),
    [
        ((1.5, 2), slice(24000, 56000)),
        ((3.5, 2), slice(-32000, None)),  # its last two seconds
        ((9, 9), slice(None)),  # all of it
    ],
)
def test_an_excerpt_is_cut_from_the_whole(tmp_path, excerpt, cut):
    path = tmp_path / "track.mp3"
    soundfile.write(path, noise(4 * 44100, 2), 44100)
    expected = read_audio(path)[cut]
    np.testing.assert_array_equal(read_audio(path, excerpt=excerpt), expected)


def test_nothing_after_an_excerpt_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(40 * SAMPLE_RATE), SAMPLE_RATE)
    n_read = []

    def note(path, faults):
        for rate, block in decode(path, faults):
            n_read.append(len(block))
            yield rate, block

    monkeypatch.setattr("ms_sincresnet.data.audio.decode", note)
    assert len(read_audio(path, excerpt=(2, 3))) == 3 * SAMPLE_RATE
    assert 0 < sum(n_read) < 8 * SAMPLE_RATE


@pytest.mark.parametrize("n_frames", [9, 10])
def test_damage_is_weighed_by_frames_however_short(monkeypatch, caplog, n_frames):
    def decode(path, faults):
        faults += ["damaged packets"] * 10
        faults.n_frames = n_frames
        yield 8000, np.full(160 * n_frames, 0.5)

    monkeypatch.setattr("ms_sincresnet.data.audio.decode", decode)
    if n_frames < 10:
        with pytest.raises(AudioFileError, match="damaged packets"):
            read_audio("a.amr")
    else:
        assert len(read_audio("a.amr")) == 3200
        assert "using the 0.20 s" in caplog.text


@pytest.mark.parametrize("codec", ["alac", "flac", "pcm_s16le", "wavpack", "tta"])
@pytest.mark.parametrize(("channels", "rate"), [(2, 44100), (6, 48000)])
def test_lossless_containers_give_what_a_wav_gives(tmp_path, codec, channels, rate):
    kind = {"alac": "ipod", "wavpack": "wv", "tta": "tta"}.get(codec, "matroska")
    pcm = pcm_noise(rate + 17, channels)
    path = write_container(tmp_path / "a", kind, codec, pcm, rate)
    soundfile.write(tmp_path / "a.wav", pcm, rate)
    # Not always to the last bit, since the order of six channels differs.
    expected = read_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(read_audio(path), expected, rtol=0, atol=1e-7)


def test_eight_planar_channels_are_eight(tmp_path):
    pcm = pcm_noise(20000, 8)
    path = write_container(tmp_path / "a.wv", "wv", "wavpack", pcm)
    samples = np.concatenate([block for _, block in decode(path, Faults())])
    assert sorted(samples[777] * 32768) == sorted(pcm[777])


@pytest.mark.parametrize("layout", ["s16le", "s32le", "f32le", "f64le", "u8"])
def test_all_sample_formats_have_the_same_full_scale(tmp_path, layout):
    pcm = (sine(440, 48000) * 32767).astype(np.int16)[:, None]
    path = write_container(tmp_path / "a.mka", "matroska", f"pcm_{layout}", pcm)
    soundfile.write(tmp_path / "a.wav", pcm, 48000)
    accuracy = 1 / 128 if layout == "u8" else 1e-6
    expected = read_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(read_audio(path), expected, rtol=0, atol=accuracy)


def test_what_an_encoder_adds_to_each_part_of_a_joined_mp3_is_dropped(tmp_path):
    paths = [tmp_path / name for name in ("1.mp3", "2.mp3", "both.mp3")]
    contents = MP3(2, hz=2764), MP3(3)
    for path, content in zip(paths, [*contents, b"".join(contents)], strict=True):
        path.write_bytes(content)
    first, second, both = map(read_audio, paths)
    assert len(both) == len(first) + len(second) == 5 * SAMPLE_RATE
    np.testing.assert_allclose(both[:31000], first[:31000], rtol=0, atol=1e-5)
    np.testing.assert_allclose(both[33000:], second[1000:], rtol=0, atol=1e-5)


def test_frames_of_all_versions_and_layers_have_the_right_size(tmp_path):
    for rate in (8000, 11025, 16000, 22050, 32000, 44100, 48000):
        for channels in (1, 2):
            content = sound("MP3", 1, rate, channels)
            frames = read_frames(io.BytesIO(content), 0, faults := [])
            n_samples = sum(parse(data[:4]).samples for _, data in frames)
            assert rate <= n_samples < 1.5 * rate
            assert faults == []


@pytest.mark.parametrize(
    "name",
    ["an m4a.raw", "an m4a", "a: b.m4a", "http://a.m4a", "concat:a|b.m4a"]
    + ["subfile,,:a.m4a", "%d 'à' \udcff.m4a", "-i.m4a"],
)
@pytest.mark.parametrize("content", [M4A, lambda path: OGG(1) + OGG(2)])
def test_a_name_is_never_a_format_a_protocol_or_a_pattern(
    tmp_path, monkeypatch, name, content
):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True, parents=True)
    Path(name).write_bytes(content(path=tmp_path / "source"))
    assert len(read_audio(name)) == pytest.approx(48000, abs=2000)


def test_the_first_audio_stream_is_read(tmp_path):
    pcm = pcm_noise(48000, 2)
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        fillers = [
            add_audio(container, "alac", pcm, 48000),
            add_audio(container, "aac", pcm_noise(3 * 48000, 1, seed=1), 48000),
        ]
        for fill in fillers:
            fill()
    soundfile.write(tmp_path / "a.wav", pcm, 48000)
    np.testing.assert_array_equal(read_audio(path), read_audio(tmp_path / "a.wav"))


def write_unusable(path, kind):
    """Writes a file that must be refused."""
    m4a = M4A(path=path)
    match kind:
        case "text":
            path.write_text("This is no audio.\n" * 1000)
        case "playlist":
            path.write_text("#EXTM3U\n#EXTINF:1,\nsong.m4a\n#EXT-X-ENDLIST\n")
        case "list":
            path.write_text("ffconcat version 1.0\nfile song.m4a\n")
        case "zeros":
            path.write_bytes(bytes(200_000))
        case "three frames":
            content = np.random.default_rng(0).bytes(30000)
            path.write_bytes(content + untagged(MP3())[: 3 * 417] + content)
        case "picture":
            content = np.random.default_rng(0).bytes(30000)
            path.write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF\0" + content)
        case "no packets":
            with av.open(str(path), "w", format="matroska") as container:
                container.add_stream("pcm_s16le", rate=48000, layout="mono")
                stream = container.add_stream("mpeg4", 25)
                stream.width = stream.height = 64
                stream.pix_fmt = "yuv420p"
                frame = av.VideoFrame(64, 64, "yuv420p")
                container.mux([*stream.encode(frame), *stream.encode(None)])
        case "unknown codec":
            content = contained("matroska", "flac", path)
            path.write_bytes(content.replace(b"A_FLAC", b"A_FLAX"))
        case "head":
            path.write_bytes(m4a[:200])
        case "no sound in packets":
            start = m4a.index(b"mdat") + 4
            path.write_bytes(m4a[:start] + b"\xff" * len(m4a[start:]))
        case _:  # the tag of encrypted packets, from shops
            start = m4a.index(b"mp4a", m4a.index(b"stsd"))
            path.write_bytes(m4a[:start] + kind.encode() + m4a[start + 4 :])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        *(
            (kind, "not readable as audio")
            for kind in ("text", "playlist", "list", "zeros", "head")
        ),
        ("three frames", "not readable as audio"),
        ("picture", "not readable as audio"),
        ("drms", "protected against copying"),
        ("enca", "protected against copying"),
        ("unknown codec", "unknown codec"),
        ("no packets", "found an empty track"),
        ("no sound in packets", "damaged packets"),
    ],
)
@pytest.mark.parametrize("suffix", [".mp3", ".m3u8"])
def test_what_is_not_audio_is_named_with_the_reason(
    tmp_path, kind, message, suffix, capfd
):
    M4A(path=tmp_path / "song.m4a")  # the target of lists
    path = tmp_path / f"track{suffix}"
    write_unusable(path, kind)
    with pytest.raises(AudioFileError, match=message) as error:
        read_audio(path)
    assert type(error.value) is AudioFileError
    assert str(error.value).startswith(f"{path}: ")
    assert capfd.readouterr() == ("", "")


def test_files_without_audio_are_distinguished(tmp_path):
    source = tmp_path / "code.ts"
    source.write_text("export const audio: string[] = [];\n" * 100)
    silent = tmp_path / "silent.mkv"
    film("matroska", None, silent)
    for path in (source, silent):
        with pytest.raises(NoAudioError, match=f"{path}: not readable as audio"):
            read_audio(path)


@pytest.mark.parametrize("suffix", [".mp3", ".m4a", ".ts", ".ogg", ".dts", ".mpg", ""])
def test_noise_is_not_mistaken_for_music(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    for seed in range(10):
        path.write_bytes(np.random.default_rng(seed).bytes(300_000))
        with pytest.raises(AudioFileError):
            read_audio(path)


def resident_mb():
    """Memory of this process, native libraries included."""
    n_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return n_pages * resource.getpagesize() / 2**20


def test_a_table_of_many_samples_that_are_not_there_fills_no_memory(tmp_path):
    path = write_container(tmp_path / "a.m4a", "ipod", "aac", pcm_noise(48000, 1))
    content = path.read_bytes()
    place = content.index(b"stsz") + 8
    content = with_number(
        with_number(content, place, 2**31, ">"), place + 4, 10**8, ">"
    )
    path.write_bytes(content)
    with pytest.raises(AudioFileError, match="its table of samples is damaged"):
        read_audio(path)


@pytest.mark.parametrize("name", ["a.mp3", "no length.mp3", "a.ogg", "a.aac", "a.au"])
def test_a_gigabyte_of_zeros_fills_no_memory(tmp_path, name, caplog):
    make = {"a.aac": partial(contained, "adts", "aac", tmp_path / "source")}
    make |= {"a.ogg": OGG, "a.mp3": MP3, "no length.mp3": lambda: untagged(MP3())}
    content = make.get(name, AU)()
    if name == "a.au":
        content = with_number(content, 8, 2**30, ">")  # what a header promises
    path = tmp_path / name
    path.write_bytes(content)
    if name != "a.au":
        os.truncate(path, 2**30)
    before = peak = resident_mb()
    n_samples = 0
    for block in read_blocks(path):
        n_samples += len(block)
        peak = max(peak, resident_mb())
    assert n_samples == pytest.approx(48000, abs=2000)
    assert max(peak, resident_mb()) < before + 50
    (_,) = caplog.messages


def test_half_an_hour_is_read_in_flat_memory(tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(1800 * 8000, np.int16), 8000)
    before = resident_mb()
    n_samples = peak = 0
    for block in read_blocks(path):
        n_samples += len(block)
        peak = max(peak, resident_mb())
    assert n_samples == 1800 * 16000
    assert peak < before + 30  # all of it would take 110


def test_many_files_leave_nothing_open_or_in_memory(tmp_path):
    paths = [tmp_path / name for name in ("a.wav", "a.mp3", "chained.ogg", "a.m4a")]
    contents = sound("WAV", 1), MP3(1), OGG(1) + OGG(1), M4A(path=paths[3], seconds=1)
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    n_open = len(os.listdir("/proc/self/fd"))
    for n in range(30):
        for path in paths:
            next(read_blocks(path)).copy()  # and left there
        if n == 9:
            before = resident_mb()
    assert len(os.listdir("/proc/self/fd")) == n_open
    assert resident_mb() < before + 4  # one file takes 0.2, decoded


SIDE = noise(4 * 44100, 1) * 3
MIDDLE = music(4, channels=1)
STEREO = {  # and the channel that is heard, or None for the mean
    "out of phase": (np.hstack([MIDDLE, -MIDDLE]), 0),
    "a rest in the middle": (np.hstack([SIDE + MIDDLE / 99, MIDDLE / 99 - SIDE]), 0),
    "wide": (np.hstack([MIDDLE + SIDE, MIDDLE - SIDE]), None),
    "19 dB": (np.hstack([MIDDLE, -0.79 * MIDDLE]), None),
    "21 dB": (np.hstack([MIDDLE, -0.84 * MIDDLE]), 0),
    "one channel": (np.hstack([MIDDLE, 0 * MIDDLE]), None),
    "silence": (np.zeros((44100, 2), np.float32), None),
    "silence first": (np.vstack([np.zeros((40 * 44100, 2)),
                                 np.hstack([MIDDLE, -MIDDLE])]), 0),
    "out of phase first": (np.vstack([np.hstack([MIDDLE, -MIDDLE]) / 4,
                                      np.hstack([MIDDLE, MIDDLE])]), None),
    "three channels": (np.hstack([MIDDLE, -MIDDLE, 0 * MIDDLE]), None),
}  # fmt: skip


@pytest.mark.parametrize("name", STEREO)
def test_stereo_out_of_phase_gives_one_channel(tmp_path, name):
    samples, channel = STEREO[name]
    mono = samples.mean(1) if channel is None else samples[:, channel]
    expected = soxr.resample(mono, 44100, SAMPLE_RATE, quality="HQ")
    for suffix in ("wav", "flac"):
        path = tmp_path / f"a.{suffix}"
        subtype = "FLOAT" if suffix == "wav" else "PCM_24"
        soundfile.write(path, samples, 44100, subtype=subtype)
        np.testing.assert_allclose(read_audio(path), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(normalize(samples, 44100), expected, rtol=0, atol=1e-5)


def test_the_mix_is_decided_by_the_first_half_minute(tmp_path):
    right = np.hstack([0 * MIDDLE, MIDDLE])
    for left, is_heard in ((-MIDDLE, False), (MIDDLE, True)):
        first = np.hstack([left, MIDDLE]) / 20
        soundfile.write(tmp_path / "a.wav", np.vstack([first] * 8 + [right] * 3), 44100)
        end = read_audio(tmp_path / "a.wav")[-40000:-1000]
        assert (np.abs(end).max() > 0.04) == is_heard


def test_the_longer_part_of_a_joined_file_decides(tmp_path, classifier, write_song):
    parts = [("rock", 5), ("jazz", 25)]
    for name, options in {"a.mp3": {}, "a.ogg": {}}.items():
        for genres in (parts, parts[::-1]):
            content = b""
            for each in genres:
                path = write_song(tmp_path / name, each, rate=44100, **options)
                content += path.read_bytes()
            path.write_bytes(content)
            prediction = classifier.predict_song(path)
            assert prediction.genre == "jazz"
            assert prediction.duration == pytest.approx(30, abs=0.15)
