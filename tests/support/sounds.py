"""Sound files of tests."""

import numpy as np
import soundfile

from palmkit import audio

SAMPLE_RATE = 44_100  # PENGI's, the default of `read_clip`


def decode(data, path, sample_rate=SAMPLE_RATE):
    return audio.decode(data, path, sample_rate)


def samples(n, channels=1, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (n, channels)).astype("float32")


def write(path, data, rate=SAMPLE_RATE, subtype="FLOAT", **kwargs):
    soundfile.write(path, data, rate, subtype=subtype, **kwargs)
    return path
