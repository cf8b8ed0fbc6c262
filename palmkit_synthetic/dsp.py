"""Building blocks of the generators.

Noise, curves, envelopes, resonators, a voice, and ways to repeat an event.
Waveforms are float64 arrays [samples] at 44.1 kHz of no particular level; `finish` sets it.
"""

from __future__ import annotations

import numpy as np
from scipy import fft, signal

SAMPLE_RATE = 44_100
TAU = 2 * np.pi


def samples(seconds: float) -> int:
    return max(int(seconds * SAMPLE_RATE), 1)


def time(n: int) -> np.ndarray:
    """[n] seconds."""
    return np.arange(n) / SAMPLE_RATE


def normalize(x: np.ndarray) -> np.ndarray:
    """Scaled to standard deviation 1."""
    return x / (x.std() + 1e-9)


def peak(x: np.ndarray) -> np.ndarray:
    """Scaled to a largest magnitude of 1."""
    return x / (np.abs(x).max() + 1e-9)


# --- noise and filters


def noise(rng, n: int, slope: float = 0.0, low: float = 20.0, high: float = 20_000.0) -> np.ndarray:
    """Noise of standard deviation 1 whose power falls as 1/f^slope between two soft edges.

    The edges fall by 12 dB an octave or more.
    """
    size = fft.next_fast_len(max(n, 2048), real=True)
    f = fft.rfftfreq(size, 1 / SAMPLE_RATE)
    f[0] = f[1]
    gain = f ** (-slope / 2) / ((1 + (low / f) ** 4) * (1 + (f / high) ** 4))
    spectrum = gain * (rng.standard_normal(len(f)) + 1j * rng.standard_normal(len(f)))
    return normalize(fft.irfft(spectrum, size)[:n])


def band(x: np.ndarray, low: float, high: float, order: int = 2) -> np.ndarray:
    """Butterworth band-pass."""
    edges = [max(low, 15), min(high, 0.48 * SAMPLE_RATE)]
    return signal.sosfilt(signal.butter(order, edges, "bandpass", fs=SAMPLE_RATE, output="sos"), x)


def low_pass(x: np.ndarray, edge: float, order: int = 2) -> np.ndarray:
    return signal.sosfilt(
        signal.butter(order, min(edge, 0.48 * SAMPLE_RATE), fs=SAMPLE_RATE, output="sos"), x
    )


# --- curves and envelopes


def curve(n: int, *points: float) -> np.ndarray:
    """[n] straight lines through the points, evenly spaced in time."""
    return np.interp(np.linspace(0, len(points) - 1, n), np.arange(len(points)), points)


def wander(rng, n: int, rate: float, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """[n] a curve through random values between low and high, `rate` of them a second."""
    return curve(n, *rng.uniform(low, high, max(4, int(n / SAMPLE_RATE * rate) + 3)))


def strike(n: int, decay: float, attack: float = 0.0005) -> np.ndarray:
    """[n] a short rise, then exponential decay (seconds)."""
    t = time(n)
    return np.minimum(1, t / attack) * np.exp(-np.maximum(t - attack, 0) / decay)


def burst(
    rng, seconds: float, decay: float, slope=0.0, low=20.0, high=20_000.0, attack=0.0005
) -> np.ndarray:
    """A short noise that is struck: clicks, claps, blasts."""
    n = samples(seconds)
    return noise(rng, n, slope, low, high) * strike(n, decay, attack)


def swell(n: int, rise: float = 0.1, fall: float = 0.3) -> np.ndarray:
    """[n] fades in and out over these shares of the length."""
    position = np.linspace(0, 1, n)
    return np.minimum(1, position / max(rise, 1e-3)) * np.minimum(
        1, (1 - position) / max(fall, 1e-3)
    )


def gate(on: np.ndarray, edge: float = 100.0) -> np.ndarray:
    """A switch (0 or 1) without clicks."""
    return low_pass(on.astype(float), edge)


# --- tones and resonators


def cycles(frequency, n: int) -> np.ndarray:
    """[n] phase in cycles of a constant or moving frequency (Hz)."""
    return np.cumsum(np.broadcast_to(frequency, n)) / SAMPLE_RATE


def tone(frequency, n: int) -> np.ndarray:
    return np.sin(TAU * cycles(frequency, n))


def saw(frequency, n: int) -> np.ndarray:
    """A sawtooth whose jump is rounded over two samples (polyBLEP), so that it hardly aliases."""
    step = np.broadcast_to(frequency, n) / SAMPLE_RATE
    phase = np.cumsum(step) % 1
    wave = 2 * phase - 1
    after, before = phase < step, phase > 1 - step
    u, v = phase[after] / step[after], (phase[before] - 1) / step[before]
    wave[after] -= 2 * u - u * u - 1
    wave[before] -= 2 * v + v * v + 1
    return wave


def harmonics(rng, frequency, n: int, amplitudes) -> np.ndarray:
    """Partials 1, 2, 3... of one fundamental, at random phases."""
    turn = np.exp(1j * TAU * cycles(frequency, n))
    partial, total = np.ones(n, complex), np.zeros(n)
    for amplitude in amplitudes:
        partial = partial * turn
        total += (amplitude * np.exp(1j * rng.uniform(0, TAU)) * partial).real
    return total


def ring(frequencies, decays, amplitudes, seconds: float) -> np.ndarray:
    """A struck body: modes that die away, each at its own speed (seconds)."""
    t = time(samples(seconds))
    total = np.zeros(len(t))
    for frequency, decay, amplitude in zip(frequencies, decays, amplitudes, strict=True):
        if frequency < 18_000:
            total += amplitude * np.exp(-t / decay) * np.sin(TAU * frequency * t)
    return total


def pulses(frequency, n: int) -> np.ndarray:
    """[n] one sample of 1 at the start of each cycle."""
    return np.diff(np.floor(cycles(frequency, n)), prepend=0)


# --- a voice: source and filter


def resonate(x: np.ndarray, formants, tilt: float = 0.0, window: int = 512) -> np.ndarray:
    """Filter by moving resonances, frame by frame.

    formants: (centre in Hz, a number or [n]; width; gain) of each.
    """
    hop = window // 4
    frames = -(-len(x) // hop) + 3
    padded = np.pad(x, (window - hop, frames * hop + window - len(x)))
    taper = signal.windows.hann(window, sym=False)
    cut = np.lib.stride_tricks.sliding_window_view(padded, window)[: frames * hop : hop] * taper
    middle = np.clip(np.arange(frames) * hop - window // 2 + hop, 0, len(x) - 1)
    f = np.maximum(fft.rfftfreq(window, 1 / SAMPLE_RATE), 40.0)
    gain = np.full((frames, len(f)), 0.015)
    for centre, width, strength in formants:
        moving = np.broadcast_to(centre, len(x))[middle, None]
        gain += strength / (1 + ((f - moving) / width) ** 2)
    shaped = fft.irfft(fft.rfft(cut) * gain * (f / 500) ** -tilt, window) * taper / 1.5
    out = np.zeros((frames + 4) * hop)
    for quarter in range(4):
        piece = shaped[:, quarter * hop : (quarter + 1) * hop]
        out[quarter * hop : (quarter + frames) * hop] += piece.ravel()
    return out[window - hop :][: len(x)]


def voice(rng, pitch, formants, *, tilt=0.0, jitter=0.01, breath=0.05, rough=0.0) -> np.ndarray:
    """Throat and mouth: pulses of a wandering period, and breath, through moving resonances.

    The largest magnitude is 1.
    pitch: [n] Hz. tilt: spectral fall beyond that of a sawtooth, as a power of f. jitter: share by
        which the period wanders. breath: level of noise beside the pulses. rough: how much weaker
        every second pulse is (growl, hoarseness).
    """
    n = len(pitch)
    pitch = pitch * wander(rng, n, 60, 1 - jitter, 1 + jitter)
    source = normalize(saw(pitch, n) * (1 - rough * (np.floor(cycles(pitch, n)) % 2)))
    return peak(resonate(source + breath * rng.standard_normal(n), formants, tilt))


# --- events in time


def place(x: np.ndarray, event: np.ndarray, at: float, gain: float = 1.0) -> None:
    """Add an event to x at a time in seconds; what does not fit is cut."""
    start = int(at * SAMPLE_RATE)
    if 0 <= start < len(x):
        fits = min(len(event), len(x) - start)
        x[start : start + fits] += gain * event[:fits]


def sequence(draw, make, count, gap, start=(0.0, 0.6)) -> np.ndarray:
    """Events one after the other, with gaps between them: a dog's barks, coughs, moos."""
    x, at = np.zeros(draw.n), draw.vary(*start)
    for _ in range(draw.count(*count)):
        event = make()
        place(x, event, at, draw.vary(0.5, 1))
        at += len(event) / SAMPLE_RATE + gap[0] * (gap[1] / gap[0]) ** draw.vary(0, 1)
    return x


def repeat(
    draw, make, rate: float, jitter: float = 0.1, weaker: float = 0.3, count: int = 200
) -> np.ndarray:
    """Events at a steady rate (a second), early or late by a share `jitter`: steps, clicks."""
    x, at = np.zeros(draw.n), draw.vary(0, min(0.5, 1 / rate))
    for _ in range(count):
        if at >= draw.seconds:
            break
        place(x, make(), at, draw.vary(1 - weaker, 1))
        at += max(0.15, 1 + jitter * draw.rng.standard_normal()) / rate
    return x


def scatter(draw, make, rate: float, spread: float = 1.0) -> np.ndarray:
    """Events at random moments, `rate` a second on average, of random loudness: drops, crackles.

    12 kinds recur.
    """
    x, kinds = np.zeros(draw.n), [make() for _ in range(12)]
    for at in draw.rng.uniform(0, draw.seconds, draw.rng.poisson(rate * draw.seconds)):
        place(x, kinds[draw.rng.integers(12)], at, np.exp(-spread * draw.rng.exponential()))
    return x
