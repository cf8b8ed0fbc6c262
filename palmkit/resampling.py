"""Waveforms of one sample rate become waveforms of another."""

from __future__ import annotations

import functools
import math
import threading

import soxr
import torch
import torchaudio

# Values in a kernel of torchaudio. Rates in common use need 2 million at most, 44,101 Hz 2 billion.
MAX_KERNEL = 2**23
MARGIN = 8  # a resampled value depends on samples in this many blocks before and after its own
SEGMENT = 2**22  # values that are resampled at a time: in double precision they take much memory
SOXR = f"soxr {soxr.__version__} VHQ"


def resample_part(read, frames: int, first: int, last: int, rate: int, sample_rate: int):
    """Values `first` to `last` of what `resample` gives of all: to the last bit.

    read(start, stop): the samples between, [..., stop - start], of `frames`.
    """
    old, new = _ratio(rate, sample_rate)
    margin = 0 if old == new else MARGIN
    block = max(first // new - margin, 0)
    stop = min((-(-last // new) + margin) * old, frames)
    part = _convolve(read(block * old, stop), rate, sample_rate)
    return part[..., first - block * new : last - block * new]


def resample(waveform: torch.Tensor, rate: int, sample_rate: int) -> torch.Tensor:
    """[..., n] float32 at `rate` -> float32 at `sample_rate`: torchaudio's windowed sinc.

    The kernel is the published code's. The convolution runs in double precision, for in single
    precision its last bits depend on the processor. For a ratio whose kernel would be too large,
    soxr computes its values as it goes.
    """
    if rate != sample_rate and uses_soxr(rate, sample_rate):
        return _resample_by_soxr(waveform, rate, sample_rate)
    n = waveform.shape[-1]
    length = resampled_length(n, rate, sample_rate)
    if rate == sample_rate or length <= SEGMENT:
        return _convolve(waveform, rate, sample_rate)

    def read(start, stop):
        return waveform[..., start:stop]

    resampled = waveform.new_empty(*waveform.shape[:-1], length)
    for first in range(0, length, SEGMENT):
        last = min(first + SEGMENT, length)
        part = resample_part(read, n, first, last, rate, sample_rate)
        resampled[..., first:last] = part
    return resampled


def _convolve(waveform: torch.Tensor, rate: int, sample_rate: int) -> torch.Tensor:
    if rate == sample_rate:
        return waveform
    return _resampler(rate, sample_rate)(waveform.double()).float()


def uses_soxr(rate: int, sample_rate: int) -> bool:
    """Whether torchaudio's kernel for this ratio would be too large."""
    old, new = _ratio(rate, sample_rate)
    width = math.ceil(6 * old / (0.99 * min(old, new)))
    return old != new and new * (old + 2 * width) > MAX_KERNEL


def resampled_length(n: int, rate: int, sample_rate: int) -> int:
    """Samples of a channel after `resample`. torchaudio rounds in single precision."""
    old, new = _ratio(rate, sample_rate)
    if old == new:
        return n
    return min(int(torch.tensor(new * n / old).ceil()), new * (n // old + 1))


def _ratio(rate: int, sample_rate: int) -> tuple[int, int]:
    divisor = math.gcd(rate, sample_rate)
    return rate // divisor, sample_rate // divisor


def _resample_by_soxr(waveform: torch.Tensor, rate: int, sample_rate: int) -> torch.Tensor:
    length = math.ceil(waveform.shape[-1] * sample_rate / rate)
    resampled = torch.zeros(*waveform.shape[:-1], length)
    rows = waveform.reshape(-1, waveform.shape[-1]).numpy()
    for row, to in zip(rows, resampled.view(-1, length), strict=True):
        got = torch.from_numpy(soxr.resample(row, rate, sample_rate, "VHQ"))[:length]
        to[: len(got)] = got  # one value may be missing
    return resampled


_building = threading.Lock()


def _resampler(rate: int, sample_rate: int):
    with _building:  # several threads that need the same kernel build it once
        return _build_resampler(rate, sample_rate)


@functools.lru_cache(maxsize=8)  # up to 64 MB each
def _build_resampler(rate: int, sample_rate: int):
    # Its kernel has single precision, as published: dtype=torch.float64 would make another one.
    return torchaudio.transforms.Resample(rate, sample_rate).double()
