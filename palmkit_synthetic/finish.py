"""From a source to a recording: room, distance, microphone, noise, cutting, level.

What differs from domain to domain (rooms and noise) is written in `Domain`.
"""

from __future__ import annotations

import numpy as np
from scipy import signal

from palmkit_synthetic.dsp import SAMPLE_RATE, band, low_pass, noise, peak, samples, tone, wander


def finish(draw, x: np.ndarray) -> np.ndarray:
    """A source (any length) as it would come from a recorder: float32 with a largest magnitude of
    at most 1.
    """
    x = peak(np.nan_to_num(x))
    if draw.chance(draw.domain.room_chance):
        x = room(draw, x)
    if draw.chance(0.5):
        x = equalise(draw, x)
    if draw.chance(0.15):  # overdriven
        x = np.tanh(peak(x) * draw.vary(1.5, 5))
    if draw.chance(0.15):  # far away, behind a wall, or a poor codec
        x = low_pass(x, 3000 * 4 ** draw.vary(0, 1), 3)
    x = peak(x)
    if draw.chance(draw.domain.noise_chance):
        x = x + background(draw, x)
    if draw.chance(0.25) and len(x) > 2 * SAMPLE_RATE:
        x = cut(draw, x)
    draw.parameters["level"] = level = 0.05 * 20 ** draw.vary(0, 1)
    return (peak(x) * level).astype(np.float32)


def room(draw, x: np.ndarray) -> np.ndarray:
    """Reverberation by a made-up impulse response of the domain's kind."""
    short, long = draw.domain.reverb_seconds
    seconds, wet = short * (long / short) ** draw.vary(0, 1), draw.vary(*draw.domain.wet)
    draw.parameters |= {"reverb": seconds, "wet": wet}
    n = samples(seconds)
    tail = draw.rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)  # 60 dB down at its end
    if (
        draw.domain.room == "shoebox"
    ):  # the tail builds up; before it, a few mirror images of the source
        tail *= np.minimum(1, np.arange(n) / samples(0.04))
        for delay in draw.rng.uniform(0.003, 0.05, 7):
            tail[min(samples(delay), n - 1)] += draw.vary(-3, 3)
    answer = low_pass(tail, 2000 * 6 ** draw.vary(0, 1), 1)
    answer /= np.sqrt((answer**2).sum()) + 1e-9
    return (1 - wet) * x + wet * signal.oaconvolve(x, answer)[: len(x)]


def equalise(draw, x: np.ndarray) -> np.ndarray:
    """A microphone's or loudspeaker's colour: one broad band raised or lowered."""
    low = 80 * 25 ** draw.vary(0, 1)
    return x + draw.vary(-0.6, 1.5) * band(x, low, low * draw.vary(3, 12), 1)


def background(draw, x: np.ndarray) -> np.ndarray:
    """Noise of the domain's kind, as far below the clip's mean power as its range of
    signal-to-noise ratios says.
    """
    draw.parameters["snr_db"] = snr = draw.vary(*draw.domain.snr_db)
    around = noise(draw.rng, len(x), draw.vary(0, 2))
    if draw.domain.noise == "busy":
        hum = sum(tone(draw.pick([50, 60]) * k, len(x)) / k for k in (1, 2, 3, 5))
        gusts = noise(draw.rng, len(x), 0.8, 150, 5000) * wander(draw.rng, len(x), 3) ** 2
        around = draw.vary(0.1, 0.6) * around + gusts + draw.vary(0, 0.5) * hum
    return around / (around.std() + 1e-9) * x.std() * 10 ** (-snr / 20)


def cut(draw, x: np.ndarray) -> np.ndarray:
    """A short excerpt from the first event on: alone (whoever reads it tiles it) or with digital
    silence after it.
    """
    keep = samples(draw.vary(0.8, 3.5))
    first = max(int(np.argmax(np.abs(x) > 0.05)) - samples(0.05), 0)
    piece = x[min(first, max(len(x) - keep, 0)) :][:keep]
    return piece if draw.chance(0.5) else np.pad(piece, (0, len(x) - len(piece)))
