"""From an audio file to a waveform of a model's sample rate and clip length.

What is done, and in which order, follows the published PALM code.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import random
import re
import threading
from pathlib import Path

import soundfile
import torch
import torchaudio


class AudioError(ValueError):
    """An audio file that cannot be used; the message names it and says why."""


def decode(data: bytes, path, sample_rate: int) -> torch.Tensor:
    """Decode a file's bytes to float32 in [-1, 1] at `sample_rate`: [samples of all channels].

    Channels are put one after the other, not mixed: the published code does so (`reshape(-1)` of
    [channels, n]), and a stereo file therefore becomes twice as long. `path` is only for messages.
    Raises AudioError.
    """
    waveform, rate = read_samples(data, path)
    return resample(waveform, rate, sample_rate).reshape(-1)


def read_samples(data: bytes, path) -> tuple[torch.Tensor, int]:
    """A file's bytes -> (float32 [channels, n] in [-1, 1], its sample rate). Raises AudioError."""
    if not data:
        raise AudioError(f"{path}: the file is empty (0 bytes); fetch or copy it again")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            samples = file.read(dtype="float32", always_2d=True)
            rate, log = file.samplerate, file.extra_info
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        reason = getattr(error, "error_string", error)
        raise AudioError(
            f"{path}: cannot be decoded ({reason}); is it an audio file, and whole?"
        ) from error
    # libsndfile reads a cut WAV file up to its end and only logs it. Sizes of 2 GB and over are
    # placeholders, written by programs that did not know the length.
    sizes = re.search(r"data\s*:\s*(\d+) \(should be (\d+)\)", log)
    if sizes and 1.01 * int(sizes[2]) < int(sizes[1]) < 2**31 - 2**16:
        raise AudioError(
            f"{path}: is cut short ({sizes[2]} of {sizes[1]} bytes of sound); "
            "fetch or copy it again"
        )
    if len(samples) == 0:
        raise AudioError(
            f"{path}: holds no samples (zero length); fetch or copy it again, or remove its row"
        )
    waveform = torch.from_numpy(samples.T.copy())  # [channels, n]
    if not waveform.isfinite().all():
        raise AudioError(
            f"{path}: holds NaN or infinite samples; replace the file or remove its row"
        )
    return waveform, rate


def resample(waveform: torch.Tensor, rate: int, sample_rate: int) -> torch.Tensor:
    """[..., n] float32 at `rate` -> float32 at `sample_rate`: torchaudio's windowed sinc.

    The kernel is the published code's. The convolution runs in double precision, for in single
    precision its last bits depend on the processor.
    """
    if rate == sample_rate:
        return waveform
    return _resampler(rate, sample_rate)(waveform.double()).float()


_building = threading.Lock()


def _resampler(rate: int, sample_rate: int):
    with _building:  # several threads that need the same kernel build it once
        return _build_resampler(rate, sample_rate)


@functools.lru_cache(maxsize=32)
def _build_resampler(rate: int, sample_rate: int):
    # Its kernel has single precision, as published: dtype=torch.float64 would make another one.
    return torchaudio.transforms.Resample(rate, sample_rate).double()


def count_samples(seconds: float, sample_rate: int) -> int:
    """Samples in a clip of this length: `count_samples(model.clip_seconds, model.sample_rate)`."""
    return round(seconds * sample_rate)


def crop_clip(
    waveform: torch.Tensor, samples: int, crop="random", rng=None, path="the clip"
) -> tuple[torch.Tensor, int]:
    """Bring [n] to [samples]: tiled if shorter, cropped if longer. Returns (clip, crop's start).

    crop: "random" (start drawn by `rng.randrange(n - samples)`, the published draw, at training and
    at test), "start", "center" or a start in samples. `rng` is a `random.Random`; without one
    Python's global generator is used, as in the published code. `path` is only for messages.
    """
    if crop not in ("random", "start", "center") and (
        isinstance(crop, bool) or not isinstance(crop, int)
    ):
        raise ValueError(
            f"crop={crop!r}: use 'random', 'start', 'center' or a start in samples (int)"
        )
    spare = waveform.numel() - samples
    if isinstance(crop, int) and not 0 <= crop <= max(spare, 0):
        raise ValueError(
            f"crop={crop}: a start must lie in 0..{max(spare, 0)} "
            f"({path} has {waveform.numel()} samples)"
        )
    if spare <= 0:
        repeats = -(-samples // waveform.numel())
        return waveform.repeat(repeats)[:samples], 0
    start = {"start": 0, "center": spare // 2}.get(crop, crop)
    if crop == "random":
        start = (rng or random).randrange(spare)
    return waveform[start : start + samples].clone(), start


def read_clip(path, crop="random", rng=None, sample_rate=44_100, seconds=7.0) -> torch.Tensor:
    """Read one clip as the published loader does: [seconds x sample_rate] float32 samples.

    crop, rng: as in `crop_clip`. The defaults are PENGI's rate and length, the paper's only model;
    for another model pass `model.sample_rate` and `model.clip_seconds`.
    Raises AudioError for a missing, empty, corrupt or NaN file.
    """
    samples = count_samples(seconds, sample_rate)
    return crop_clip(decode(read_bytes(path), path, sample_rate), samples, crop, rng, path)[0]


def read_bytes(path) -> bytes:
    """The file's bytes, or an AudioError that names it."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror or error})") from error


def digest(data: bytes) -> str:
    """sha256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path) -> str:
    """sha256 of a file's bytes; a process computes it again if size, times or inode changed."""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror})") from error
    return _file_digest(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


@functools.lru_cache(maxsize=200_000)
def _file_digest(path, *_stat) -> str:
    return digest(read_bytes(path))
