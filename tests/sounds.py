"""Audio that tests write to files, and reports and results that they read."""

import json
from functools import partial

import numpy as np
import pandas as pd
from mediafile import MediaFile


def read_report(folder):
    """The report of a preparation as written."""
    return json.loads((folder / "manifests" / "report.json").read_text())


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


# Container and encoder by file name.
LOSSY = {
    "a.m4a": ("ipod", "aac"),
    "a.mp4": ("mp4", "aac"),
    "a.aac": ("adts", "aac"),
    "a.webm": ("webm", "libopus"),
    "a.mka": ("matroska", "libmp3lame"),
    "a.wma": ("asf", "wmav2"),
    "a.ac3": ("ac3", "ac3"),
    "a.eac3": ("eac3", "eac3"),
}
LOSSLESS = {
    "alac.m4a": ("ipod", "alac"),
    "flac.mka": ("matroska", "flac"),
    "a.wv": ("wv", "wavpack"),
    "a.tta": ("tta", "tta"),
}
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def add_audio(container, codec, pcm, rate):
    """Adds a stream to a PyAV container; returns the function that fills it."""
    import av

    layout = LAYOUTS[pcm.shape[1]]
    stream = container.add_stream(codec, rate=rate, layout=layout, bit_rate=192_000)
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


def write_container(path, container_format, codec, pcm, rate=48000):
    """Encodes 16-bit samples [time, channels] with PyAV."""
    import av

    # Without the index at the front, half an m4a would not be readable at all.
    options = {"movflags": "faststart"} if container_format == "ipod" else None
    with av.open(str(path), "w", format=container_format, options=options) as container:
        add_audio(container, codec, pcm, rate)()
    return path
