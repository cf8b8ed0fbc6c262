"""Recordings made worse by a known amount: noise, level, a band limit, clipping."""

from __future__ import annotations

import numpy as np
import torch

from palmkit.audio import SAMPLE_RATE

CORRUPTION_VERSION = (
    1  # raise it with every change that changes a damaged clip: embeddings of them are cached
)


def add_noise(waveform: np.ndarray, strength: float, rng) -> np.ndarray:
    """White noise; strength: signal to noise in dB. Silence stays silence."""
    noise = rng.standard_normal(len(waveform))
    return waveform + noise * np.sqrt(np.mean(waveform**2) / 10 ** (strength / 10))


def change_level(waveform: np.ndarray, strength: float, rng) -> np.ndarray:
    """Louder or quieter by `strength` dB, in floating point: nothing is cut off."""
    return waveform * 10 ** (strength / 20)


def limit_band(waveform: np.ndarray, strength: float, rng) -> np.ndarray:
    """Nothing above `strength` Hz."""
    spectrum = np.fft.rfft(waveform)
    spectrum[np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE) > strength] = 0
    return np.fft.irfft(spectrum, len(waveform))


def clip_peaks(waveform: np.ndarray, strength: float, rng) -> np.ndarray:
    """The loudest share of the samples (strength, 0 to 1) cut to the level of the softest among them."""
    ceiling = np.quantile(np.abs(waveform), 1 - strength)
    return np.clip(waveform, -ceiling, ceiling)


CORRUPTIONS = {
    "noise": add_noise,
    "level": change_level,
    "band": limit_band,
    "clipping": clip_peaks,
}


def corrupt_clip(
    waveform: torch.Tensor, kind: str, strength: float, seed: str = ""
) -> torch.Tensor:
    """[samples] at 44.1 kHz, damaged; `seed` is any text, a clip's digest say, so that its noise is its own.

    kind and strength: noise (signal to noise, dB), level (dB), band (highest frequency, Hz), clipping (share of samples
    that are cut). Raises ValueError for another kind.
    """
    if kind not in CORRUPTIONS:
        raise ValueError(f"there is no damage {kind!r}; there are {', '.join(CORRUPTIONS)}")
    rng = np.random.default_rng(list(f"{kind}:{seed}".encode()))
    damaged = CORRUPTIONS[kind](waveform.double().numpy(), float(strength), rng)
    return torch.from_numpy(damaged).to(waveform.dtype)


def corruption_key(kind: str, strength: float) -> list:
    """What a cache has to know of a damage."""
    return [CORRUPTION_VERSION, kind, float(strength)]
