"""From a source to a recording: room, distance, microphone, noise, cutting, level.

What differs from domain to domain (rooms, noise, dullness) is written in `Domain`. What is drawn
for a recording is kept in the draw's parameters, under names that no source uses:

| name | what |
|---|---|
| reverb, wet | seconds of reverberation; the room's share |
| drive | how often louder than full scale an overdriven clip was |
| low_pass_hz | the edge of the low-pass of a dull recording |
| snr_db | level of the clip above the noise behind it |
| excerpt | seconds of the source that are left |
| level | the largest magnitude |
"""

from __future__ import annotations

import numpy as np
from scipy import signal

from palmkit_synthetic.dsp import (
    SAMPLE_RATE,
    band,
    duration,
    low_pass,
    noise,
    normalize,
    overdrive,
    peak,
    samples,
    tone,
    wander,
)


def finish(draw, x: np.ndarray) -> np.ndarray:
    """A source (any length) as it would come from a recorder.

    float32 with a largest magnitude of at most 1; shorter than the source if an excerpt was cut.
    """
    x = peak(np.nan_to_num(x))
    if draw.chance(draw.domain.room_chance):
        x = room(draw, x)
    if draw.chance(0.5):
        x = equalise(draw, x)
    if draw.chance(draw.domain.overload_chance):
        x = overload(draw, x)
    if draw.chance(draw.domain.dull_chance):
        x = dull(draw, x)
    x = peak(x)
    if draw.chance(draw.domain.noise_chance):
        x = x + background(draw, x)
    if draw.chance(0.25) and len(x) > 2 * SAMPLE_RATE:
        x = cut(draw, x)
    level = draw.vary_log(0.05, 1.0)
    draw.parameters["level"] = level
    return (peak(x) * level).astype(np.float32)


def room(draw, x: np.ndarray) -> np.ndarray:
    """Reverberation by a made-up impulse response of the domain's kind."""
    seconds = draw.vary_log(*draw.domain.reverb_seconds)
    wet = draw.vary(*draw.domain.wet)
    draw.parameters["reverb"] = seconds
    draw.parameters["wet"] = wet
    answer = impulse_response(draw, samples(seconds))
    return (1 - wet) * x + wet * signal.oaconvolve(x, answer)[: len(x)]


def impulse_response(draw, n: int) -> np.ndarray:
    """[n] what a room answers to one clap: noise that dies away, of energy 1."""
    fall = 10 ** (-3 * np.arange(n) / n)  # 60 dB down at its end
    tail = draw.rng.standard_normal(n) * fall
    if draw.domain.room == "shoebox":
        # The tail builds up over 40 ms; before it come a few mirror images of the source.
        tail *= np.minimum(1, np.arange(n) / samples(0.04))
        for delay in draw.rng.uniform(0.003, 0.05, 7):
            tail[min(samples(delay), n - 1)] += draw.vary(-3, 3)
    answer = low_pass(tail, draw.vary_log(2000, 12_000), 1)  # walls swallow high tones first
    answer /= np.sqrt((answer**2).sum()) + 1e-9
    return answer


def equalise(draw, x: np.ndarray) -> np.ndarray:
    """A microphone's or loudspeaker's colour: one broad band raised or lowered."""
    low = draw.vary_log(80, 2000)
    gain = draw.vary(-0.6, 1.5)
    high = low * draw.vary(3, 12)
    return x + gain * band(x, low, high, 1)


def overload(draw, x: np.ndarray) -> np.ndarray:
    """A recording that was too loud for its recorder."""
    x = peak(x)
    drive = draw.vary(1.5, 5)
    draw.parameters["drive"] = drive
    return overdrive(x, drive)


def dull(draw, x: np.ndarray) -> np.ndarray:
    """A recording without high tones: far away, behind a wall, or by a poor codec."""
    edge = draw.vary_log(*draw.domain.dull_hz)
    draw.parameters["low_pass_hz"] = edge
    return low_pass(x, edge, 3)


def background(draw, x: np.ndarray) -> np.ndarray:
    """Noise of the domain's kind, that far below the clip's mean power as the domain says."""
    snr = draw.vary(*draw.domain.snr_db)
    draw.parameters["snr_db"] = snr
    around = noise(draw.rng, len(x), draw.vary(0, 2))
    if draw.domain.noise == "busy":
        around = busier(draw, around)
    return normalize(around) * x.std() * 10 ** (-snr / 20)


def busier(draw, around: np.ndarray) -> np.ndarray:
    """Steady noise with gusts and with mains hum."""
    n = len(around)
    hum = np.zeros(n)
    for partial in (1, 2, 3, 5):
        mains = draw.pick([50, 60])  # each partial's own: odd, but part of what a clip is
        hum += tone(mains * partial, n) / partial
    gusts = noise(draw.rng, n, 0.8, 150, 5000)
    gusts *= wander(draw.rng, n, 3) ** 2
    steady_level = draw.vary(0.1, 0.6)
    hum_level = draw.vary(0, 0.5)
    return steady_level * around + gusts + hum_level * hum


def cut(draw, x: np.ndarray) -> np.ndarray:
    """A short excerpt from the first event on.

    It is alone (whoever reads it tiles it), or followed by digital silence.
    """
    longest = samples(draw.vary(0.8, 3.5))
    loud = int(np.argmax(np.abs(x) > 0.05))
    first = max(loud - samples(0.05), 0)
    start = min(first, max(len(x) - longest, 0))
    piece = x[start:][:longest]
    draw.parameters["excerpt"] = duration(piece)
    if draw.chance(0.5):
        return piece
    return np.pad(piece, (0, len(x) - len(piece)))
