"""Recordings made worse by a known amount: noise, level, a band limit, clipping."""

from __future__ import annotations

import numpy as np
import torch

# Raise it with every change that changes a corrupted clip: embeddings of them are cached.
CORRUPTION_VERSION = 1


def add_noise(waveform: np.ndarray, strength: float, rng, sample_rate: int) -> np.ndarray:
    """White noise; strength: signal to noise in dB. Silence stays silence."""
    noise = rng.standard_normal(len(waveform))
    return waveform + noise * np.sqrt(np.mean(waveform**2) / 10 ** (strength / 10))


def change_level(waveform: np.ndarray, strength: float, rng, sample_rate: int) -> np.ndarray:
    """Louder or quieter by `strength` dB, in floating point: nothing is cut off."""
    return waveform * 10 ** (strength / 20)


def limit_band(waveform: np.ndarray, strength: float, rng, sample_rate: int) -> np.ndarray:
    """Nothing above `strength` Hz."""
    spectrum = np.fft.rfft(waveform)
    spectrum[np.fft.rfftfreq(len(waveform), 1 / sample_rate) > strength] = 0
    return np.fft.irfft(spectrum, len(waveform))


def clip_peaks(waveform: np.ndarray, strength: float, rng, sample_rate: int) -> np.ndarray:
    """The loudest share of samples (strength, 0 to 1), cut to the level of the softest of them."""
    ceiling = np.quantile(np.abs(waveform), 1 - strength)
    return np.clip(waveform, -ceiling, ceiling)


CORRUPTIONS = {
    "noise": add_noise,
    "level": change_level,
    "band": limit_band,
    "clipping": clip_peaks,
}


# Strengths that make sense. A negative ratio of signal to noise is noise louder than the signal.
RANGES = {"noise": (-60, 120), "level": (-120, 120), "band": (0, 1e6), "clipping": (0, 1)}


def check_strength(kind: str, strength: float) -> None:
    """Raise ValueError for a strength that no recording can have."""
    low, high = RANGES[kind]
    if not low <= strength <= high:
        raise ValueError(f"corruption {kind!r}: strength {strength:g} is not in {low} to {high:g}")


class Corruption:
    """A `transform` of `embed` that makes clips worse, always in the same way.

    kind and strength: "noise" (signal to noise, dB), "level" (dB), "band" (highest frequency, Hz)
    or "clipping" (share of the samples that are cut). sample_rate: of the waveforms, in Hz.
    Raises ValueError for another kind, and for a strength out of RANGES.
    """

    def __init__(self, kind: str, strength: float, sample_rate: int):
        if kind not in CORRUPTIONS:
            known = ", ".join(CORRUPTIONS)
            raise ValueError(f"there is no corruption {kind!r}; use one of {known}")
        check_strength(kind, strength)
        self.kind, self.strength, self.sample_rate = kind, float(strength), sample_rate

    @property
    def key(self) -> list:
        """What a cache needs to know. The model's key holds the sample rate."""
        return [CORRUPTION_VERSION, self.kind, self.strength]

    def at(self, sample_rate: int) -> Corruption:
        """The same for waveforms of another rate. Its noise is another draw of the same power."""
        return Corruption(self.kind, self.strength, sample_rate)

    def __call__(self, waveform: torch.Tensor, seed: str = "") -> torch.Tensor:
        """[samples] -> [samples], worse. seed: any text, the clip's digest say, for the noise."""
        rng = np.random.default_rng(list(f"{self.kind}:{seed}".encode()))
        corrupt = CORRUPTIONS[self.kind]
        worse = corrupt(waveform.double().numpy(), self.strength, rng, self.sample_rate)
        return torch.from_numpy(worse).to(waveform.dtype)
