"""Containers that libsndfile does not read, written here by FFmpeg's own encoders."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from ms_sincresnet.data.audio import AUDIO_SUFFIXES, read_audio
from ms_sincresnet.data.containers import FOREIGN_SUFFIXES, decode_container
from ms_sincresnet.data.sound_files import DecodingError
from ms_sincresnet.errors import AudioFileError

from .sounds import LOSSLESS, LOSSY, add_audio, pcm_noise, sine, write_container

av = pytest.importorskip("av")


def tone(rate=48000, duration_s=1.0, channels=1):
    """A 16-bit tone of 440 Hz and half full scale."""
    pcm = (32768 * sine(440, rate, duration_s)).astype(np.int16)
    return np.repeat(pcm[:, None], channels, axis=1)


def write_m4a(path, pcm=None):
    """Writes AAC, a tone by default."""
    return write_container(path, *LOSSY["a.m4a"], tone() if pcm is None else pcm)


def add_video(container, n_frames=5):
    """Adds a video stream; returns the function that fills it with noise."""
    stream = container.add_stream("mpeg4", rate=25)
    stream.width = stream.height = 64

    def fill():
        for n in range(n_frames):
            pixels = np.random.default_rng(n).integers(0, 256, (64, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))

    return fill


def reference(path, pcm, rate=48000):
    """The same samples, read from a wav file."""
    path = path.with_suffix(".reference.wav")
    soundfile.write(path, pcm, rate)
    return read_audio(path)


@pytest.mark.parametrize(
    ("name", "channels", "rate"),
    [
        ("alac.m4a", 2, 44100),
        ("flac.mka", 6, 48000),
        ("a.wv", 8, 48000),  # PyAV lists more planes than these
        ("a.tta", 1, 96000),
    ],
)
def test_lossless_containers_give_what_a_wav_gives(tmp_path, name, channels, rate):
    pcm = pcm_noise(rate + 17, channels)
    path = write_container(tmp_path / name, *LOSSLESS[name], pcm, rate)
    # Not always to the last bit, since the order of six channels differs.
    expected = reference(path, pcm, rate)
    np.testing.assert_allclose(read_audio(path), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", LOSSY)
def test_a_tone_keeps_its_pitch_level_and_length(tmp_path, name):
    path = write_container(tmp_path / name, *LOSSY[name], tone(channels=2))
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(16000, abs=1600)  # padding of the encoder
    spectrum = np.abs(np.fft.rfft(samples[4000:12000] * np.hanning(8000)))
    assert spectrum.argmax() * 2 == 440
    assert np.abs(samples[4000:12000]).max() == pytest.approx(0.5, abs=0.03)
    assert path.suffix in FOREIGN_SUFFIXES & AUDIO_SUFFIXES


@pytest.mark.parametrize("layout", ["s16le", "s32le", "f32le", "f64le", "u8"])
def test_all_sample_formats_have_the_same_full_scale(tmp_path, layout):
    pcm = tone()
    path = write_container(tmp_path / "a.mka", "matroska", f"pcm_{layout}", pcm)
    accuracy = 1 / 128 if layout == "u8" else 1e-6
    expected = reference(path, pcm)
    np.testing.assert_allclose(read_audio(path), expected, rtol=0, atol=accuracy)


@pytest.mark.parametrize(
    "name", ["an m4a.mp3", "an m4a", "http://a.m4a", "%d 'à' \udcff.m4a", "-i.m4a"]
)
def test_a_name_is_never_a_format_a_protocol_or_a_pattern(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True, parents=True)
    write_m4a(tmp_path / "source.m4a").rename(name)
    assert len(read_audio(name)) > 16000


def test_the_first_audio_stream_is_read_and_no_video(tmp_path, capfd, caplog):
    pcm = pcm_noise(48000, 2)
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        fillers = [
            add_video(container, n_frames=75),  # longer than the audio
            add_audio(container, "alac", pcm, 48000),
            add_audio(container, "aac", pcm_noise(3 * 48000, 1, seed=1), 48000),
        ]
        for fill in fillers:
            fill()
    np.testing.assert_array_equal(read_audio(path), reference(path, pcm))
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_a_rising_bit_rate_does_not_look_like_a_missing_end(tmp_path, caplog):
    pcm = pcm_noise(10 * 48000, 1)
    pcm[: 5 * 48000] = 0
    path = write_container(tmp_path / "a.aac", *LOSSY["a.aac"], pcm)
    assert len(read_audio(path)) > 160000
    assert caplog.messages == []


def test_video_and_odd_tags_are_skipped(tmp_path):
    pcm, title = pcm_noise(48000, 1), "Grüße".encode()
    plain = write_container(tmp_path / "plain.m4a", "mp4", "aac", pcm)
    tagged = tmp_path / "tagged.m4a"
    with av.open(str(tagged), "w", format="mp4") as container:
        container.metadata.update(title=title.decode(), comment="long " * 20000)
        fillers = add_audio(container, "aac", pcm, 48000), add_video(container)
        for fill in fillers:
            fill()
    assert title in tagged.read_bytes()
    tagged.write_bytes(tagged.read_bytes().replace(title, b"Gr\xfc\xdfe \xff"))
    np.testing.assert_array_equal(read_audio(tagged), read_audio(plain))


def test_channels_may_change_within_a_file_but_not_the_rate(tmp_path, caplog):
    path = tmp_path / "all.aac"
    with path.open("wb") as file:
        for channels, rate in [(2, 48000), (1, 48000), (2, 32000)]:
            pcm = tone(rate, channels=channels)
            part = write_container(tmp_path / "1.aac", *LOSSY["a.aac"], pcm, rate)
            file.write(part.read_bytes())
    samples = read_audio(path)
    assert len(samples) == pytest.approx(32000, abs=2000)
    for start in (4000, 22000):
        peak = np.abs(samples[start : start + 6000]).max()
        assert peak == pytest.approx(0.5, abs=0.02)
    (warning,) = caplog.messages
    assert "rate changes from 48000 to 32000 Hz); using the 2.0" in warning


@pytest.mark.parametrize("name", ["a.m4a", "a.webm", "flac.mka", "a.aac"])
def test_a_damaged_file_gives_the_rest_and_a_warning(tmp_path, name, caplog, capfd):
    kind = (LOSSY | LOSSLESS)[name]
    path = write_container(tmp_path / name, *kind, pcm_noise(10 * 48000, 1))
    whole = read_audio(path)
    assert caplog.messages == []
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    part = read_audio(path)
    assert 0.4 * len(whole) < len(part) < 0.6 * len(whole)
    np.testing.assert_allclose(part[:60000], whole[:60000], rtol=0, atol=1e-6)
    (warning,) = caplog.messages
    assert f"{path}: damaged or cut short" in warning
    assert capfd.readouterr() == ("", "")
    if name == "flac.mka":  # damage in the middle
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes(50) + content[middle + 50 :])
        assert len(read_audio(path)) > 0.9 * len(whole)
        assert len(caplog.messages) == 2


def write_unusable(path, kind):
    """Writes a file that PyAV must refuse."""
    match kind:
        case "text":
            path.write_text("This is no audio.\n" * 1000)
        case "list":
            path.write_text("ffconcat version 1.0\nfile song.m4a\n")
        case "film without sound":
            with av.open(str(path), "w", format="mp4") as container:
                add_video(container)()
        case "unknown codec":
            content = write_container(path, "matroska", "flac", tone()).read_bytes()
            path.write_bytes(content.replace(b"A_FLAC", b"A_FLAX"))
        case "no sound in packets":
            content = write_m4a(path).read_bytes()
            start = content.index(b"mdat") + 4
            path.write_bytes(content[:start] + b"\xff" * len(content[start:]))
        case "protected":  # the tag of encrypted packets, from shops
            head, tag, rest = write_m4a(path).read_bytes().partition(b"stsd")
            path.write_bytes(head + tag + rest.replace(b"mp4a", b"drms", 1))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", ""),
        ("list", "no format that it is sure of"),
        ("film without sound", "no audio stream"),
        ("protected", "protected against copying"),
        ("unknown codec", "unknown codec"),
        ("no sound in packets", "damaged packets"),
    ],
)
def test_an_unusable_file_is_named_with_the_reason(tmp_path, kind, message, capfd):
    write_m4a(tmp_path / "song.m4a")  # the target of lists
    path = tmp_path / "track.m3u8"
    write_unusable(path, kind)
    match = rf"not readable as audio \(libsndfile: Format .*; FFmpeg: {message}"
    with pytest.raises(AudioFileError, match=match) as error:
        read_audio(path)
    assert str(error.value).startswith(f"{path}: not readable")
    assert str(error.value).endswith("Replace it, or leave it out.")
    assert capfd.readouterr() == ("", "")


def test_noise_is_not_mistaken_for_music(tmp_path):
    for seed in range(10):
        (tmp_path / "a.m4a").write_bytes(np.random.default_rng(seed).bytes(300_000))
        with pytest.raises(DecodingError):
            decode_container(tmp_path / "a.m4a")


def test_many_files_leave_nothing_open(tmp_path):
    path = write_m4a(tmp_path / "a.m4a")
    fds = Path("/proc/self/fd")
    n_open = len(list(fds.iterdir()))
    for _ in range(10):
        read_audio(path)
        decode_container(path)  # and left there
    assert len(list(fds.iterdir())) == n_open
