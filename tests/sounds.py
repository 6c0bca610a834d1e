"""Audio that tests write to files, and reports and results that they read."""

import json
import multiprocessing
from functools import partial

import av
import numpy as np
import pandas as pd
import soundfile
from mediafile import MediaFile

PLAIN = ["wav", "rf64", "w64", "aiff", "caf", "au", "flac", "ogg", "mp3", "voc", "paf"]
PLAIN += ["avr", "pvf"]
SUBTYPES = ["PCM_24", "FLOAT", "PCM_U8", "ULAW", "IMA_ADPCM"]
# Format and subtype of libsndfile by file name.
SOUND_FILES = {
    **{f"a.{suffix}": (suffix, None) for suffix in PLAIN},
    **{f"{subtype}.wav": ("wav", subtype) for subtype in SUBTYPES},
    "a.sf": ("ircam", None),
    "a.sph": ("nist", None),
    "a.wave": ("wavex", None),
    "a.opus": ("ogg", "OPUS"),
    "16 bits.caf": ("caf", "ALAC_16"),
}
PCM = ["pcm_s16le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_u8"]
# Container and encoder of FFmpeg by file name.
CONTAINERS = {
    f"{codec}.{suffix}": (container, codec)
    for suffix, container, *codecs in [
        ("m4a", "ipod", "aac", "alac"),
        ("mp4", "mp4", "aac", "libmp3lame"),
        ("mov", "mov", "pcm_s16le"),
        ("3gp", "3gp", "aac"),
        ("mka", "matroska", "libmp3lame", "flac", *PCM),
        ("webm", "webm", "libopus"),
        ("ts", "mpegts", "aac", "mp2", "libopus"),
        ("wma", "asf", "wmav1", "wmav2"),
        ("aac", "adts", "aac"),
        ("wv", "wv", "wavpack"),
        ("ogg", "ogg", "flac"),
        ("caf", "caf", "alac"),
        ("aiff", "aiff", "pcm_s24be"),
        *[(kind, kind, kind) for kind in ("mp2", "ac3", "eac3", "tta")],
    ]
    for codec in codecs
}
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def read_report(folder):
    """The report of a preparation as written."""
    return json.loads((folder / "manifests" / "report.json").read_text())


def run_in_fork(function, *args):
    """Runs a function in another process; returns the exit code."""
    process = multiprocessing.get_context("fork").Process(target=function, args=args)
    process.start()
    process.join(60)
    return process.exitcode


def read_results(path):
    """Rows of ``classify``, by a user's reader."""
    readers = {"csv": pd.read_csv, "parquet": pd.read_parquet}
    read = readers.get(str(path).rpartition(".")[2], partial(pd.read_json, lines=True))
    return read(path)


def set_tags(path, **tags):
    """Changes tags of a song."""
    file = MediaFile(path)
    file.update(tags)
    file.save()
    return path


def noise(*shape, seed=0):
    """Noise well below full scale, in float32."""
    return (np.random.default_rng(seed).standard_normal(shape) / 20).astype(np.float32)


def pcm_noise(*shape, seed=0):
    """16-bit noise well below full scale."""
    samples = np.random.default_rng(seed).standard_normal(shape) * 1600
    return samples.astype(np.int16)


def sine(hz, rate=16000, duration_s=1.0, phase=0.0):
    """A sine of amplitude 0.5 in float64."""
    radians = 2 * np.pi * hz * np.arange(round(rate * duration_s)) / rate
    return 0.5 * np.sin(radians + phase)


def add_audio(container, codec, pcm, rate, bit_rate=192_000):
    """Adds a stream to a PyAV container; returns the function that fills it."""
    layout = LAYOUTS[pcm.shape[1]]
    stream = container.add_stream(codec, rate=rate, layout=layout, bit_rate=bit_rate)
    context = stream.codec_context
    formats = [format.name for format in context.codec.audio_formats]
    context.format = min(formats, key=lambda name: name not in ("s16", "s16p"))

    def fill():
        frame_size = context.frame_size or 1024
        resampler = av.AudioResampler(context.format, layout, rate, frame_size)
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), "s16", layout)
        frame.sample_rate, frame.pts = rate, 0
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))

    return fill


def write_container(path, kind, codec, pcm, rate=48000, bit_rate=192_000):
    """Encodes 16-bit samples [time, channels] with PyAV."""
    # Without the index at the front, half an m4a would not be readable at all.
    options = {"movflags": "faststart"} if kind == "ipod" else None
    with av.open(str(path), "w", format=kind, options=options) as container:
        add_audio(container, codec, pcm, rate, bit_rate)()


def write_sound(path, pcm):
    """Writes 16-bit samples [time, channels] at 48 kHz in the format of a file name."""
    if path.name in CONTAINERS:
        write_container(path, *CONTAINERS[path.name], pcm)
    else:
        file_format, subtype = SOUND_FILES[path.name]
        soundfile.write(path, pcm, 48000, subtype, format=file_format)
