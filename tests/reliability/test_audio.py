"""Planted faults in sound files: each is read right, or refused in a sentence that names it."""

import contextlib
import io
import os
import resource
import time
import warnings
from pathlib import Path

import faults
import numpy as np
import pytest
import soundfile
from hypothesis import strategies as st

from palmkit import AudioError, embed, read_clip

pytestmark = pytest.mark.slow

SECONDS = 20  # for one small file, on a slow machine
MEMORY = 2**31  # bytes that a small file may need
RATE, CLIP = 44_100, 7 * 44_100
NOT_WRITTEN = {("AIFF", "DWVW_12"), ("WAV", "MPEG_LAYER_III")}
NOT_WRITTEN |= {("MP3", "MPEG_LAYER_I"), ("MP3", "MPEG_LAYER_II")}
# All that soundfile writes and people have.
KINDS = [
    (form, subtype)
    for form in ("WAV", "WAVEX", "AIFF", "AU", "W64", "RF64", "CAF", "FLAC", "MP3", "OGG", "NIST")
    for subtype in soundfile.available_subtypes(form)
    if soundfile.check_format(form, subtype) and (form, subtype) not in NOT_WRITTEN
]
# Their containers say how long the sound is, or where it ends.
WITH_LENGTH = [
    *(("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_24")),
    *(("AIFF", "PCM_16"), ("AU", "PCM_16"), ("W64", "PCM_16"), ("RF64", "PCM_16")),
    *(("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("FLAC", "PCM_16"), ("NIST", "PCM_16")),
    *(("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS")),
]
SIZE_FIELDS = {"WAV": (40, "little"), "AU": (8, "big"), "FLAC": (22, "big"), "AIFF": (22, "big")}
seeds = st.integers(0, 2**32 - 1)


def make_samples(frames, channels, seed):
    """Noise [frames, channels] of low frequencies: telephone codecs leave out the others."""
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (frames + 15, channels))
    return sum(noise[n : n + frames] for n in range(16)) / 4


def make_sound(form, subtype, frames=9000, channels=1, rate=8000, seed=0) -> bytes:
    rate = 48_000 if form in ("MP3", "OGG") else rate
    samples = make_samples(frames, channels, seed)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


@contextlib.contextmanager
def bounded():
    """An error if more memory or time is used than a small file may need."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = pages * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    start = time.perf_counter()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.perf_counter() - start < SECONDS, "it took too long"


def read_or_refuse(path, data: bytes):
    """The clip, or None where it was refused in a sentence that names the file."""
    path.write_bytes(data)
    try:
        with bounded():
            clip = read_clip(path, crop="center")
    except AudioError as error:
        message = str(error)
        assert message.startswith(f"{path}: ") and "0x" not in message and "\n" not in message
        return None
    assert clip.shape == (CLIP,) and clip.isfinite().all()
    return clip


def flip(data: bytes, places) -> bytes:
    """The bytes with these bits inverted; a place beyond the end counts from the start again."""
    changed = bytearray(data)
    for place in places:
        at = place % (8 * len(data))
        changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


@faults.fuzz(
    "damaged header of a sound file",
    few=60,
    many=3000,
    form=st.sampled_from(KINDS),
    places=st.lists(st.integers(0, 8 * 80 - 1), min_size=1, max_size=4),
)
def test_a_damaged_header(tmp_path, form, places):
    read_or_refuse(tmp_path / "clip.wav", flip(make_sound(*form), places))


@faults.fuzz(
    "bits inverted in a sound file",
    few=40,
    many=2000,
    form=st.sampled_from(KINDS),
    places=st.lists(st.integers(0, 2**20), min_size=1, max_size=8),
)
def test_inverted_bits(tmp_path, form, places):
    read_or_refuse(tmp_path / "clip.wav", flip(make_sound(*form), places))


@faults.fuzz(
    "sound file cut short",
    few=40,
    many=2000,
    form=st.sampled_from(WITH_LENGTH),
    share=st.floats(0, 0.95),
    seed=seeds,
)
def test_a_cut_file(tmp_path, form, share, seed):
    """A twentieth of it is missing, or more."""
    data = make_sound(*form, frames=60_000, seed=seed)
    assert read_or_refuse(tmp_path / "clip.wav", data[: int(share * len(data))]) is None


@faults.fuzz(
    "readable sound of any format",
    few=40,
    many=1000,
    form=st.sampled_from(KINDS),
    frames=st.integers(600, 20_000),
    seed=seeds,
)
def test_readable_sound(tmp_path, form, frames, seed):
    """Whatever soundfile writes is read, with its samples about where they were."""
    rate = 48_000 if form[0] in ("MP3", "OGG") else RATE
    data = make_sound(*form, frames=frames, rate=RATE, seed=seed)
    clip = read_or_refuse(tmp_path / "clip.wav", data)
    assert clip is not None
    if rate == RATE:
        wanted = make_samples(frames, 1, seed)[:500, 0]
        assert np.corrcoef(clip[:500].numpy(), wanted)[0, 1] > 0.7


@faults.fuzz(
    "sample rate of any size",
    few=40,
    many=500,
    rate=st.one_of(st.integers(1, 2**31 - 1), st.integers(1, 200_000)),
    frames=st.integers(1, 3000),
)
def test_any_sample_rate(tmp_path, rate, frames):
    data = bytearray(make_sound("WAV", "PCM_16", frames))
    data[24:28] = rate.to_bytes(4, "little")
    clip = read_or_refuse(tmp_path / "clip.wav", bytes(data))
    assert (clip is not None) == (100 <= rate <= 1_000_000)


@faults.fuzz(
    "length in a header that is wrong",
    few=40,
    many=2000,
    form=st.sampled_from([*SIZE_FIELDS]),
    length=st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 40_000)),
)
def test_a_wrong_length(tmp_path, form, length):
    at, order = SIZE_FIELDS[form]
    data = bytearray(make_sound(form, "PCM_16", frames=4000, rate=RATE))
    data[at : at + 4] = length.to_bytes(4, order)
    clip = read_or_refuse(tmp_path / "clip.wav", bytes(data))
    if clip is not None and form == "FLAC":  # what it announces changes nothing
        assert clip[4000:8000].equal(clip[:4000])


@faults.fuzz(
    "number of samples and channels",
    few=30,
    many=1000,
    form=st.sampled_from([("WAV", "PCM_16"), ("AIFF", "PCM_24"), ("FLAC", "PCM_16")]),
    frames=st.one_of(st.integers(0, 50), st.integers(0, 400_000)),
    channels=st.integers(1, 8),
    seed=seeds,
)
def test_any_length(tmp_path, form, frames, channels, seed):
    """Channels one after the other, then the middle of it, or all of it repeated."""
    data = make_sound(*form, frames, channels, RATE, seed)
    clip = read_or_refuse(tmp_path / "clip.wav", data)
    if frames == 0:
        assert clip is None
        return
    written = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T.reshape(-1)
    start = max(written.size - CLIP, 0) // 2
    assert np.array_equal(clip.numpy(), np.resize(written, max(written.size, CLIP))[start:][:CLIP])


@faults.fuzz(
    "amplitude of any size",
    few=15,
    many=300,
    exponent=st.integers(-38, 38),
    poison=st.sampled_from([None, None, np.nan, np.inf]),
)
def test_any_amplitude(tmp_path, tiny_pengi, exponent, poison):
    """Embeddings are finite, or an error names the file."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 500) * 10.0**exponent
    if poison is not None:
        samples[7] = poison
    path = tmp_path / "clip.wav"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        soundfile.write(path, samples, RATE, subtype="FLOAT")
    try:
        got = embed(tiny_pengi, [path], cache=None)
    except AudioError as error:
        assert str(error).startswith(f"{path}: ")
        assert poison is not None or exponent > 10
        return
    assert got.features.isfinite().all() and poison is None
