"""Building blocks of the generators.

Noise, curves, envelopes, resonators, a voice, and ways to repeat an event.
Waveforms are float64 arrays [samples] at 44.1 kHz of no particular level; `finish` sets it.

Clips are compared bit for bit: the order of random draws and of float operations is part of what
these functions promise.
"""

from __future__ import annotations

import numpy as np
from scipy import fft, signal

SAMPLE_RATE = 44_100
TAU = 2 * np.pi
# The highest edge of a filter that SciPy designs well: a little below half the sample rate.
HIGHEST_EDGE = 0.48 * SAMPLE_RATE


def samples(seconds: float) -> int:
    """Seconds as a number of samples, at least one."""
    return max(int(seconds * SAMPLE_RATE), 1)


def duration(x: np.ndarray) -> float:
    """The length of a waveform in seconds."""
    return len(x) / SAMPLE_RATE


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
    f[0] = f[1]  # the power law has no value at 0 Hz
    edges = (1 + (low / f) ** 4) * (1 + (f / high) ** 4)
    gain = f ** (-slope / 2) / edges
    real = rng.standard_normal(len(f))
    imaginary = rng.standard_normal(len(f))
    spectrum = gain * (real + 1j * imaginary)
    return normalize(fft.irfft(spectrum, size)[:n])


def band(x: np.ndarray, low: float, high: float, order: int = 2) -> np.ndarray:
    """Butterworth band-pass between two edges in Hz."""
    edges = [max(low, 15), min(high, HIGHEST_EDGE)]
    sections = signal.butter(order, edges, "bandpass", fs=SAMPLE_RATE, output="sos")
    return signal.sosfilt(sections, x)


def low_pass(x: np.ndarray, edge: float, order: int = 2) -> np.ndarray:
    """Butterworth low-pass with its edge in Hz."""
    sections = signal.butter(order, min(edge, HIGHEST_EDGE), fs=SAMPLE_RATE, output="sos")
    return signal.sosfilt(sections, x)


def overdrive(x: np.ndarray, drive: float) -> np.ndarray:
    """Soft clipping at a magnitude of 1, of x made `drive` times as loud."""
    return np.tanh(drive * x)


# --- curves and envelopes


def curve(n: int, *points: float) -> np.ndarray:
    """[n] straight lines through the points, evenly spaced in time."""
    positions = np.linspace(0, len(points) - 1, n)
    return np.interp(positions, np.arange(len(points)), points)


def wander(rng, n: int, rate: float, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """[n] a curve through random values between low and high, `rate` of them a second."""
    count = max(4, int(n / SAMPLE_RATE * rate) + 3)
    return curve(n, *rng.uniform(low, high, count))


def strike(n: int, decay: float, attack: float = 0.0005) -> np.ndarray:
    """[n] a short rise, then exponential decay (seconds)."""
    t = time(n)
    rise = np.minimum(1, t / attack)
    return rise * np.exp(-np.maximum(t - attack, 0) / decay)


def swell(n: int, rise: float = 0.1, fall: float = 0.3) -> np.ndarray:
    """[n] fades in and out over these shares of the length."""
    position = np.linspace(0, 1, n)
    fade_in = np.minimum(1, position / max(rise, 1e-3))
    fade_out = np.minimum(1, (1 - position) / max(fall, 1e-3))
    return fade_in * fade_out


def gate(on: np.ndarray, edge: float = 100.0) -> np.ndarray:
    """A switch (0 or 1) without clicks; edge: Hz, the higher the quicker it switches."""
    return low_pass(on.astype(float), edge)


# --- tones


def cycles(frequency, n: int) -> np.ndarray:
    """[n] cycles gone by, of a constant or moving frequency (Hz)."""
    return np.cumsum(np.broadcast_to(frequency, n)) / SAMPLE_RATE


def phase(frequency, n: int) -> np.ndarray:
    """[n] position within the current cycle, from 0 to 1."""
    return cycles(frequency, n) % 1


def tone(frequency, n: int) -> np.ndarray:
    """[n] a sine of a constant or moving frequency (Hz)."""
    return np.sin(TAU * cycles(frequency, n))


def saw(frequency, n: int) -> np.ndarray:
    """A sawtooth whose jump is rounded over two samples (polyBLEP), so that it hardly aliases."""
    step = np.broadcast_to(frequency, n) / SAMPLE_RATE
    position = np.cumsum(step) % 1
    wave = 2 * position - 1
    after = position < step
    before = position > 1 - step
    u = position[after] / step[after]
    v = (position[before] - 1) / step[before]
    wave[after] -= 2 * u - u * u - 1
    wave[before] -= 2 * v + v * v + 1
    return wave


def harmonics(rng, frequency, n: int, amplitudes) -> np.ndarray:
    """Partials 1, 2, 3... of one fundamental, at random phases."""
    turn = np.exp(1j * TAU * cycles(frequency, n))
    partial = np.ones(n, complex)
    total = np.zeros(n)
    for amplitude in amplitudes:
        partial = partial * turn
        start = np.exp(1j * rng.uniform(0, TAU))
        total += (amplitude * start * partial).real
    return total


def pulses(frequency, n: int) -> np.ndarray:
    """[n] one sample of 1 at the start of each cycle."""
    return np.diff(np.floor(cycles(frequency, n)), prepend=0)


# --- struck things


def burst(
    rng, seconds: float, decay: float, slope=0.0, low=20.0, high=20_000.0, attack=0.0005
) -> np.ndarray:
    """A short noise that is struck: clicks, claps, blasts."""
    n = samples(seconds)
    return noise(rng, n, slope, low, high) * strike(n, decay, attack)


def contact(rng, n: int, decay: float, level: float = 0.5, attack: float = 0.0005) -> np.ndarray:
    """[n] white noise that dies within milliseconds: two hard things touch."""
    return level * rng.standard_normal(n) * strike(n, decay, attack)


def multiples(base: float, *ratios: float) -> np.ndarray:
    """[ratios] base times each ratio: the modes of a body of this pitch, or their decays."""
    return base * np.array(ratios)


def ring(frequencies, decays, amplitudes, seconds: float) -> np.ndarray:
    """A struck body: modes that die away, each at its own speed (seconds)."""
    t = time(samples(seconds))
    total = np.zeros(len(t))
    for frequency, decay, amplitude in zip(frequencies, decays, amplitudes, strict=True):
        if frequency < 18_000:  # above it nothing is audible
            total += amplitude * np.exp(-t / decay) * np.sin(TAU * frequency * t)
    return total


# --- a voice: source and filter


def resonate(x: np.ndarray, formants, tilt: float = 0.0, window: int = 512) -> np.ndarray:
    """Filter by moving resonances, frame by frame.

    formants: (centre in Hz, a number or [n]; width; gain) of each.
    tilt: spectral fall, as a power of f. window: samples of a frame; four frames overlap.
    """
    hop = window // 4
    frames = -(-len(x) // hop) + 3  # as many hops as cover x, and those that reach into its end
    f = np.maximum(fft.rfftfreq(window, 1 / SAMPLE_RATE), 40.0)  # no infinite tilt at 0 Hz
    middle = np.clip(np.arange(frames) * hop - window // 2 + hop, 0, len(x) - 1)
    gain = _gain_of_formants(f, formants, middle, len(x))
    taper = signal.windows.hann(window, sym=False)
    padded = np.pad(x, (window - hop, frames * hop + window - len(x)))
    cut = np.lib.stride_tricks.sliding_window_view(padded, window)[: frames * hop : hop] * taper
    spectra = fft.rfft(cut) * gain * (f / 500) ** -tilt
    shaped = fft.irfft(spectra, window) * taper / 1.5  # four squared Hann windows add up to 1.5
    return _overlap(shaped, hop)[window - hop :][: len(x)]


def _gain_of_formants(f: np.ndarray, formants, middle: np.ndarray, n: int) -> np.ndarray:
    """[frames, frequencies] what resonances let through; middle: [frames] each frame's sample."""
    gain = np.full((len(middle), len(f)), 0.015)  # a little of all, between the resonances
    for centre, width, strength in formants:
        moving = np.broadcast_to(centre, n)[middle, None]
        gain += strength / (1 + ((f - moving) / width) ** 2)
    return gain


def _overlap(frames: np.ndarray, hop: int) -> np.ndarray:
    """The sum of frames [frames, 4 * hop], each a hop later than the one before."""
    count = len(frames)
    out = np.zeros((count + 4) * hop)
    for quarter in range(4):
        piece = frames[:, quarter * hop : (quarter + 1) * hop]
        out[quarter * hop : (quarter + count) * hop] += piece.ravel()
    return out


def voice(rng, pitch, formants, *, tilt=0.0, jitter=0.01, breath=0.05, rough=0.0) -> np.ndarray:
    """Throat and mouth: pulses of a wandering period, and breath, through moving resonances.

    The largest magnitude is 1.
    pitch: [n] Hz. tilt: spectral fall beyond that of a sawtooth, as a power of f. jitter: share by
        which the period wanders. breath: level of noise beside the pulses. rough: how much weaker
        every second pulse is (growl, hoarseness).
    """
    n = len(pitch)
    pitch = pitch * wander(rng, n, 60, 1 - jitter, 1 + jitter)
    every_second = np.floor(cycles(pitch, n)) % 2
    source = normalize(saw(pitch, n) * (1 - rough * every_second))
    air = breath * rng.standard_normal(n)
    return peak(resonate(source + air, formants, tilt))


# --- events in time


def place(x: np.ndarray, event: np.ndarray, at: float, gain: float = 1.0) -> None:
    """Add an event to x at a time in seconds; what does not fit is cut."""
    start = int(at * SAMPLE_RATE)
    if 0 <= start < len(x):
        fits = min(len(event), len(x) - start)
        x[start : start + fits] += gain * event[:fits]


def sequence(draw, make, count, gap, start=(0.0, 0.6)) -> np.ndarray:
    """Events one after the other, with gaps between them: a dog's barks, coughs, moos.

    make: returns an event. count, gap, start: ranges of the number of events, of the seconds
    between them, and of the seconds before the first.
    """
    x = draw.silence()
    at = draw.vary(*start)
    for _ in range(draw.count(*count)):
        event = make()
        place(x, event, at, draw.vary(0.5, 1))
        at += duration(event) + draw.vary_log(*gap)
    return x


def repeat(
    draw, make, rate: float, jitter: float = 0.1, weaker: float = 0.3, count: int = 200
) -> np.ndarray:
    """Events at a steady rate (a second), early or late by a share `jitter`: steps, clicks.

    make: returns an event. weaker: the share by which one may be softer. count: at most so many.
    """
    x = draw.silence()
    at = draw.vary(0, min(0.5, 1 / rate))
    for _ in range(count):
        if at >= draw.seconds:
            break
        place(x, make(), at, draw.vary(1 - weaker, 1))
        at += max(0.15, 1 + jitter * draw.rng.standard_normal()) / rate
    return x


def scatter(draw, make, rate: float, spread: float = 1.0) -> np.ndarray:
    """Events at random moments, `rate` a second on average, of random loudness: drops, crackles.

    make: returns an event; 12 are made and recur. spread: of the loudness.
    """
    x = draw.silence()
    kinds = [make() for _ in range(12)]
    count = draw.rng.poisson(rate * draw.seconds)
    for at in draw.rng.uniform(0, draw.seconds, count):
        event = draw.pick(kinds)
        place(x, event, at, np.exp(-spread * draw.rng.exponential()))
    return x
