"""From an audio file to the waveform that PENGI hears (protocol of the published PALM code)."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import random
import re
from pathlib import Path

import soundfile
import torch
import torchaudio

SAMPLE_RATE = 44_100
CLIP_SAMPLES = 7 * SAMPLE_RATE  # 308,700: seven seconds


class AudioError(ValueError):
    """An audio file that cannot be used; the message names it and says why."""


def decode(data: bytes, path) -> torch.Tensor:
    """Decode a file's bytes to float32 in [-1, 1] at 44.1 kHz: [samples of all channels, one after the other].

    Channels are concatenated in time, not mixed: the published code does so (`reshape(-1)` of [channels, n]), and a
    stereo file therefore becomes twice as long. `path` is only for messages. Raises AudioError.
    """
    waveform, rate = read_samples(data, path)
    return (waveform if rate == SAMPLE_RATE else _resampler(rate)(waveform)).reshape(-1)


def read_samples(data: bytes, path) -> tuple[torch.Tensor, int]:
    """A file's bytes as float32 [channels, n] in [-1, 1], and the file's own sample rate. Raises AudioError."""
    if not data:
        raise AudioError(f"{path}: the file is empty (0 bytes); fetch or copy it again")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            samples, rate, log = (
                file.read(dtype="float32", always_2d=True),
                file.samplerate,
                file.extra_info,
            )
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        reason = getattr(error, "error_string", error)
        raise AudioError(
            f"{path}: cannot be decoded ({reason}); is it an audio file, and whole?"
        ) from error
    # libsndfile reads a cut WAV file up to its end and only logs it; sizes of 2 GB and over are streams' placeholders.
    sizes = re.search(r"data\s*:\s*(\d+) \(should be (\d+)\)", log)
    if sizes and 1.01 * int(sizes[2]) < int(sizes[1]) < 2**31 - 2**16:
        raise AudioError(
            f"{path}: is cut short ({sizes[2]} of {sizes[1]} bytes of sound); fetch or copy it again"
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


@functools.lru_cache(maxsize=32)
def _resampler(rate: int):
    """The transform, not torchaudio.functional.resample: it makes its kernel in double precision, as published."""
    return torchaudio.transforms.Resample(rate, SAMPLE_RATE)


def crop_clip(
    waveform: torch.Tensor, crop="random", rng=None, path="the clip"
) -> tuple[torch.Tensor, int]:
    """Bring [n] samples to [308700] and say where the cut began: tiled if shorter, cropped if longer.

    crop: "random" (start drawn by `rng.randrange(n - 308700)`, the published draw, at training and at test), "start",
    "center" or a start in samples. `rng` is a `random.Random`; without one Python's global generator is used, as in
    the published code.
    """
    if crop not in ("random", "start", "center") and (
        isinstance(crop, bool) or not isinstance(crop, int)
    ):
        raise ValueError(
            f"crop={crop!r}: use 'random', 'start', 'center' or a start in samples (int)"
        )
    spare = waveform.numel() - CLIP_SAMPLES
    if isinstance(crop, int) and not 0 <= crop <= max(spare, 0):
        raise ValueError(
            f"crop={crop}: a start must lie in 0..{max(spare, 0)} ({path} has {waveform.numel()} samples)"
        )
    if spare <= 0:
        repeats = -(-CLIP_SAMPLES // waveform.numel())
        return waveform.repeat(repeats)[:CLIP_SAMPLES], 0
    start = {"start": 0, "center": spare // 2}.get(crop, crop)
    if crop == "random":
        start = (rng or random).randrange(spare)
    return waveform[start : start + CLIP_SAMPLES].clone(), start


def read_clip(path, crop="random", rng=None) -> torch.Tensor:
    """Read one clip as the published loader does: [308700] float32 samples at 44.1 kHz (7 s).

    `crop` and `rng` as in `crop_clip`. Raises AudioError for a missing, empty, corrupt or NaN file.
    """
    return crop_clip(decode(read_bytes(path), path), crop, rng, path)[0]


def read_bytes(path) -> bytes:
    """The file's bytes, or an AudioError that names it."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror or error})") from error


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_digest(path) -> str:
    """sha256 of a file's bytes; not computed anew within a process while size, times and inode stay the same."""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror})") from error
    return _file_digest(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


@functools.lru_cache(maxsize=200_000)
def _file_digest(path, *_stat) -> str:
    return digest(read_bytes(path))
