"""Containers that libsndfile does not read, written here by FFmpeg's own encoders."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ms_sincresnet.data.audio import (
    AUDIO_SUFFIXES,
    FOREIGN_SUFFIXES,
    read_audio,
    read_blocks,
)
from ms_sincresnet.data.containers import decode_container
from ms_sincresnet.data.sound_files import DecodingError
from ms_sincresnet.errors import AudioFileError

av = pytest.importorskip("av")

# Container and encoder of what is written under each suffix.
LOSSY = {
    ".m4a": ("ipod", "aac"),
    ".m4b": ("ipod", "aac"),
    ".mp4": ("mp4", "aac"),
    ".aac": ("adts", "aac"),
    ".webm": ("webm", "libopus"),
    ".mka": ("matroska", "libmp3lame"),
    ".wma": ("asf", "wmav2"),
    ".ac3": ("ac3", "ac3"),
    ".eac3": ("eac3", "eac3"),
}
LOSSLESS = {
    "alac.m4a": ("ipod", "alac"),
    "flac.mka": ("matroska", "flac"),
    "pcm.mka": ("matroska", "pcm_s16le"),
    "a.wv": ("wv", "wavpack"),
    "a.tta": ("tta", "tta"),
}
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def noise(*shape, seed=0):
    """16-bit noise well below full scale."""
    samples = np.random.default_rng(seed).standard_normal(shape) * 1600
    return samples.astype(np.int16)


def tone(hz=440, rate=48000, duration_s=1.0, channels=1):
    """A 16-bit tone of half full scale."""
    time_s = np.arange(round(rate * duration_s)) / rate
    samples = 16384 * np.sin(2 * np.pi * hz * time_s)
    return np.repeat(samples.astype(np.int16)[:, None], channels, axis=1)


def add_audio(container, codec, pcm, rate):
    """Adds a stream; gives what writes the samples [time, channels] into it."""
    layout = LAYOUTS[pcm.shape[1]]
    stream = container.add_stream(codec, rate=rate, layout=layout, bit_rate=192_000)
    formats = [format.name for format in stream.codec_context.codec.audio_formats]
    formats.sort(key=lambda name: name not in ("s16", "s16p"))
    stream.codec_context.format = formats[0]

    def write():
        resampler = av.AudioResampler(
            format=stream.codec_context.format,
            layout=layout,
            rate=rate,
            frame_size=stream.codec_context.frame_size or 1024,
        )
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), "s16", layout)
        frame.sample_rate, frame.pts = rate, 0
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))

    return write


def write(path, container_format, codec, pcm, rate=48000, options=None):
    """Encodes 16-bit samples [time, channels]."""
    with av.open(str(path), "w", format=container_format, options=options) as container:
        add_audio(container, codec, pcm, rate)()
    return path


def add_video(container, codec="mpeg4", n_frames=5):
    """Adds a video stream; gives what writes noise into it."""
    stream = container.add_stream(codec, rate=25)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"

    def write():
        for n in range(n_frames):
            pixels = np.random.default_rng(n).integers(0, 256, (64, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))

    return write


def reference(path, pcm, rate=48000):
    """What reading the same samples from a wav file gives."""
    path = path.with_suffix(".reference.wav")
    soundfile.write(path, pcm, rate)
    return read_audio(path)


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize(("channels", "rate"), [(1, 16000), (2, 44100), (6, 48000)])
def test_lossless_containers_give_what_a_wav_gives(tmp_path, name, channels, rate):
    pcm = noise(3 * rate + 17, channels)
    path = write(tmp_path / name, *LOSSLESS[name], pcm, rate)
    # Not always to the last bit, as the order of six channels differs.
    expected = reference(path, pcm, rate)
    np.testing.assert_allclose(read_audio(path), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("suffix", LOSSY)
def test_a_tone_keeps_its_pitch_level_and_length(tmp_path, suffix):
    path = write(tmp_path / f"tone{suffix}", *LOSSY[suffix], tone(channels=2))
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(16000, abs=1600)  # padding of the encoder
    middle = samples[4000:12000] * np.hanning(8000)
    spectrum = np.abs(np.fft.rfft(middle))
    assert spectrum.argmax() * 2 == 440
    assert np.abs(samples[4000:12000]).max() == pytest.approx(0.5, abs=0.03)
    assert suffix in FOREIGN_SUFFIXES and suffix not in AUDIO_SUFFIXES


def test_short_frames_come_as_blocks_of_some_length(tmp_path):
    path = write(tmp_path / "a.m4a", *LOSSY[".m4a"], tone(duration_s=10))
    blocks = list(read_blocks(path))  # of frames of 21 ms
    assert min(map(len, blocks[1:-2])) > 5000


def test_eight_channels_are_eight(tmp_path):
    pcm = noise(20000, 8)
    path = write(tmp_path / "a.wv", "wv", "wavpack", pcm)  # planar, as most decoders
    _, blocks = decode_container(path)
    samples = np.concatenate(list(blocks))
    assert sorted(samples[777] * 32768) == sorted(pcm[777])
    np.testing.assert_allclose(read_audio(path), reference(path, pcm), atol=1e-7)


@pytest.mark.parametrize("layout", ["s16", "s32", "flt", "dbl", "u8"])
def test_samples_of_every_kind_have_the_same_full_scale(tmp_path, layout):
    codec = {"flt": "pcm_f32le", "dbl": "pcm_f64le", "u8": "pcm_u8"}.get(
        layout, f"pcm_{layout}le"
    )
    pcm = tone()
    path = write(tmp_path / "a.mka", "matroska", codec, pcm)
    accuracy = 1 / 128 if layout == "u8" else 1e-6
    np.testing.assert_allclose(
        read_audio(path), reference(path, pcm), rtol=0, atol=accuracy
    )


@pytest.mark.parametrize("name", ["an m4a.mp3", "an m4a.wav", "an m4a.raw", "an m4a"])
def test_the_suffix_may_lie(tmp_path, name):
    path = write(tmp_path / "true.m4a", *LOSSY[".m4a"], tone())
    lie = path.rename(tmp_path / name)
    assert len(read_audio(lie)) > 16000


def test_what_libsndfile_reads_is_read_by_libsndfile(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.mp3", tone(), 48000)
    expected = read_audio(tmp_path / "a.mp3")
    lie = (tmp_path / "a.mp3").rename(tmp_path / "an mp3.m4a")
    monkeypatch.setitem(sys.modules, "av", None)
    np.testing.assert_array_equal(read_audio(lie), expected)


@pytest.mark.parametrize(
    "name",
    ["a: b.m4a", "http://a.m4a", "concat:a|b.m4a", "%d 'à' \udcff.m4a", "-i.m4a"],
)
def test_a_name_is_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True, parents=True)
    write(tmp_path / "source.m4a", *LOSSY[".m4a"], tone()).rename(name)
    assert len(read_audio(name)) > 16000


def test_the_first_audio_stream_is_heard_and_no_video(tmp_path, capfd):
    pcm = noise(2 * 48000, 2)
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        writers = [
            add_video(container),
            add_audio(container, "alac", pcm, 48000),
            add_audio(container, "aac", noise(3 * 48000, 1, seed=1), 48000),
        ]
        for write_stream in writers:
            write_stream()
    np.testing.assert_array_equal(read_audio(path), reference(path, pcm))
    assert capfd.readouterr() == ("", "")


def test_sound_that_is_shorter_than_the_video_is_whole(tmp_path, caplog):
    path = tmp_path / "film.mka"
    with av.open(str(path), "w", format="matroska") as container:
        picture = add_video(container, n_frames=75)
        sound = add_audio(container, "flac", noise(48000, 1), 48000)
        picture()
        sound()
    assert len(read_audio(path)) == 16000
    assert caplog.messages == []


def test_a_bit_rate_that_rises_is_not_taken_for_a_missing_end(tmp_path, caplog):
    pcm = noise(10 * 48000, 1)
    pcm[: 5 * 48000] = 0
    path = write(tmp_path / "a.aac", *LOSSY[".aac"], pcm)
    assert len(read_audio(path)) > 160000
    assert caplog.messages == []


def test_cover_art_and_tags_are_not_heard(tmp_path):
    pcm = noise(48000, 1)
    plain = write(tmp_path / "plain.m4a", "mp4", "aac", pcm)
    tagged = tmp_path / "tagged.m4a"
    with av.open(str(tagged), "w", format="mp4") as container:
        container.metadata.update(title="Grüße", comment="long " * 20000)
        sound = add_audio(container, "aac", pcm, 48000)
        picture = add_video(container, "mjpeg", n_frames=1)
        container.streams.video[0].disposition = av.stream.Disposition.attached_pic
        sound()
        picture()
    with av.open(str(tagged)) as container:
        disposition = container.streams.video[0].disposition
        assert disposition == av.stream.Disposition.attached_pic
    content = tagged.read_bytes()
    title = "Grüße".encode()
    assert title in content
    tagged.write_bytes(content.replace(title, b"Gr\xfc\xdfe \xff"))
    np.testing.assert_array_equal(read_audio(tagged), read_audio(plain))


def test_channels_may_change_on_the_way(tmp_path, caplog):
    stereo = write(tmp_path / "2.aac", *LOSSY[".aac"], tone(channels=2))
    mono = write(tmp_path / "1.aac", *LOSSY[".aac"], tone(channels=1))
    path = tmp_path / "both.aac"
    path.write_bytes(stereo.read_bytes() + mono.read_bytes())
    samples = read_audio(path)
    assert len(samples) == pytest.approx(32000, abs=2000)
    for start in (4000, 22000):
        peak = np.abs(samples[start : start + 6000]).max()
        assert peak == pytest.approx(0.5, abs=0.02)
    assert caplog.messages == []


def test_a_sample_rate_that_changes_ends_the_audio_with_a_warning(tmp_path, caplog):
    first = write(tmp_path / "1.aac", *LOSSY[".aac"], tone(), 48000)
    second = write(tmp_path / "2.aac", *LOSSY[".aac"], tone(rate=32000), 32000)
    path = tmp_path / "both.aac"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    np.testing.assert_array_equal(read_audio(path), read_audio(first))
    assert f"{path}: damaged or cut short (its sample rate changes from" in caplog.text
    assert "from 48000 to 32000 Hz); going on with the 1.02 s" in caplog.text


@pytest.mark.parametrize(
    ("name", "container_format", "codec"),
    [
        ("a.m4a", "ipod", "aac"),
        ("a.webm", "webm", "libopus"),
        ("a.mka", "matroska", "flac"),
        ("a.aac", "adts", "aac"),
        ("a.wv", "wv", "wavpack"),
    ],
)
def test_a_file_cut_short_gives_what_is_left_and_a_warning(
    tmp_path, name, container_format, codec, caplog, capfd
):
    options = {"movflags": "faststart"} if name == "a.m4a" else None
    pcm = noise(10 * 48000, 1)
    path = write(tmp_path / name, container_format, codec, pcm, options=options)
    whole = read_audio(path)
    assert caplog.messages == []
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        part = read_audio(path)
    assert 0.4 * len(whole) < len(part) < 0.6 * len(whole)
    np.testing.assert_allclose(part[:60000], whole[:60000], rtol=0, atol=1e-6)
    assert len(caplog.messages) == 1
    assert f"{path}: damaged or cut short" in caplog.messages[0]
    assert capfd.readouterr() == ("", "")


def test_damage_in_the_middle_costs_little_and_is_told_of(tmp_path, caplog):
    path = write(tmp_path / "a.mka", "matroska", "flac", noise(10 * 48000, 1))
    whole = read_audio(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 50] = bytes(50)
    path.write_bytes(content)
    assert len(read_audio(path)) > 0.9 * len(whole)
    assert f"{path}: damaged or cut short" in caplog.text


def write_unusable(path, kind):
    """Writes a file that PyAV must refuse."""
    if kind == "garbage":
        path.write_bytes(np.random.default_rng(0).bytes(200_000))
    elif kind == "zeros":
        path.write_bytes(bytes(200_000))
    elif kind == "text":
        path.write_text("This is no audio.\n" * 1000)
    elif kind == "playlist":
        path.write_text("#EXTM3U\n#EXTINF:1,\nsong.m4a\n#EXT-X-ENDLIST\n")
    elif kind == "list":
        path.write_text("ffconcat version 1.0\nfile song.m4a\n")
    elif kind == "subtitles":
        path.write_text("1\n00:00:00,000 --> 00:00:09,000\nlalala\n\n" * 9)
    elif kind == "film without sound":
        with av.open(str(path), "w", format="mp4") as container:
            add_video(container)()
    elif kind == "head":
        content = write(path, *LOSSY[".m4a"], tone()).read_bytes()
        path.write_bytes(content[:5000])
    elif kind in ("drms", "enca"):  # as in shops
        content = write(path, *LOSSY[".m4a"], tone()).read_bytes()
        start = content.index(b"mp4a", content.index(b"stsd"))
        path.write_bytes(content[:start] + kind.encode() + content[start + 4 :])
    elif kind == "unknown codec":
        content = write(path, "matroska", "flac", tone()).read_bytes()
        path.write_bytes(content.replace(b"A_FLAC", b"A_FLAX"))
    elif kind == "no packets":
        with av.open(str(path), "w", format="matroska") as container:
            container.add_stream("pcm_s16le", rate=48000, layout="mono")
            add_video(container)()
    elif kind == "no sound in packets":
        content = write(path, *LOSSY[".m4a"], tone()).read_bytes()
        start, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
        path.write_bytes(content[:start] + b"\xff" * (end - start) + content[end:])


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("garbage", ""),
        ("zeros", ""),
        ("text", ""),
        ("playlist", ""),
        ("list", "no format that it is sure of"),
        ("subtitles", "no format that it is sure of"),
        ("film without sound", "no audio stream"),
        ("head", ""),
        ("drms", "protected against copying"),
        ("enca", "protected against copying"),
        ("unknown codec", "unknown codec"),
        ("no packets", "empty audio stream"),
        ("no sound in packets", "damaged packets"),
    ],
)
@pytest.mark.parametrize("suffix", [".m4a", ".aac", ".m3u8"])
def test_a_file_that_cannot_be_used_is_named_with_the_reason(
    tmp_path, kind, told, suffix, capfd
):
    write(tmp_path / "song.m4a", *LOSSY[".m4a"], tone())  # what lists lead to
    path = tmp_path / f"track{suffix}"
    write_unusable(path, kind)
    match = rf"not readable as audio \(libsndfile: Format .*; FFmpeg: {told}"
    with pytest.raises(AudioFileError, match=match) as error:
        read_audio(path)
    assert str(error.value).startswith(f"{path}: not readable")
    assert str(error.value).endswith("Replace it, or leave it out.")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_not_taken_for_music(tmp_path, seed):
    path = tmp_path / "noise.m4a"
    path.write_bytes(np.random.default_rng(seed).bytes(300_000))
    with pytest.raises(DecodingError):
        decode_container(path)


def test_a_hundred_files_leave_nothing_open(tmp_path):
    path = write(tmp_path / "a.m4a", *LOSSY[".m4a"], tone())
    fds = Path("/proc/self/fd")
    n_open = len(list(fds.iterdir()))
    for _ in range(100):
        read_audio(path)
        decode_container(path)  # and left there
    assert len(list(fds.iterdir())) == n_open
