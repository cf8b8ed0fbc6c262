"""What a generator draws from: named parameters within the domain's bands, and accidents."""

from __future__ import annotations

import numpy as np

from palmkit_synthetic import dsp
from palmkit_synthetic.domain import TRAIN, Domain


class Draw:
    """What a sound function is handed: a random generator, the domain, and the clip's length.

    `uniform` and `log` draw the parameters of the source, once a clip and by name; they are kept in
    `parameters` (in a scene, whose layers share names, the last of a name). `vary` and `vary_log`
    are for accidents within the clip (no two barks are equal), which have the same ranges in all
    domains and are not kept.

    seconds, n: the clip's length in seconds and in samples. rng: for all else that is drawn. The
    order of all draws is part of what a clip is.
    """

    def __init__(self, rng: np.random.Generator, domain: Domain = TRAIN, seconds: float = 5.0):
        self.rng = rng
        self.domain = domain
        self.seconds = seconds
        self.n = round(seconds * dsp.SAMPLE_RATE)
        self.parameters: dict[str, float] = {}

    # --- parameters of the source

    def uniform(self, name: str, low: float, high: float) -> float:
        """A parameter, evenly spread between low and high (as far as the domain allows)."""
        value = low + (high - low) * self._position()
        self.parameters[name] = value
        return value

    def log(self, name: str, low: float, high: float) -> float:
        """A parameter whose logarithm is evenly spread: frequencies, times, rates."""
        value = low * (high / low) ** self._position()
        self.parameters[name] = value
        return value

    def _position(self) -> float:
        """A place in a parameter's range (0 to 1), within one of the domain's bands."""
        low, high = self.domain.bands[self.rng.integers(len(self.domain.bands))]
        return self.rng.uniform(low, high)

    # --- accidents

    def vary(self, low: float, high: float) -> float:
        """An accident: evenly spread, not kept."""
        return self.rng.uniform(low, high)

    def vary_log(self, low: float, high: float) -> float:
        """An accident whose logarithm is evenly spread, not kept."""
        return low * (high / low) ** self.vary(0, 1)

    def count(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """Whether something happens that has this probability."""
        return bool(self.rng.random() < probability)

    def pick(self, options):
        """One of the options, all of them equally likely."""
        return options[self.rng.integers(len(options))]

    # --- waveforms as long as the clip

    def silence(self) -> np.ndarray:
        """[n] zeros, to place events in."""
        return np.zeros(self.n)

    def noise(self, slope: float = 0.0, low: float = 20.0, high: float = 20_000.0) -> np.ndarray:
        """[n] noise; see `dsp.noise`."""
        return dsp.noise(self.rng, self.n, slope, low, high)

    def wander(self, rate: float, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """[n] a random curve; see `dsp.wander`."""
        return dsp.wander(self.rng, self.n, rate, low, high)

    def harmonics(self, frequency, amplitudes) -> np.ndarray:
        """[n] partials of one fundamental; see `dsp.harmonics`."""
        return dsp.harmonics(self.rng, frequency, self.n, amplitudes)
