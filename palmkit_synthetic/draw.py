"""What a generator draws from: named parameters within the domain's bands, and accidents."""

from __future__ import annotations

import numpy as np

from palmkit_synthetic.domain import TRAIN, Domain
from palmkit_synthetic.dsp import SAMPLE_RATE


class Draw:
    """What a sound function is handed: a random generator, the domain, and the clip's length.

    `uniform` and `log` draw the parameters of the source, once a clip and by name; they are kept in
    `parameters` (in a scene, whose layers share names, the last of a name). `vary` is for accidents
    within the clip (no two barks are equal), which have the same ranges in all domains.
    """

    def __init__(self, rng: np.random.Generator, domain: Domain = TRAIN, seconds: float = 5.0):
        self.rng, self.domain, self.seconds = rng, domain, seconds
        self.n = round(seconds * SAMPLE_RATE)
        self.parameters: dict[str, float] = {}

    def _position(self) -> float:
        low, high = self.domain.bands[self.rng.integers(len(self.domain.bands))]
        return self.rng.uniform(low, high)

    def uniform(self, name: str, low: float, high: float) -> float:
        """A parameter, evenly spread between low and high (as far as the domain allows)."""
        self.parameters[name] = value = low + (high - low) * self._position()
        return value

    def log(self, name: str, low: float, high: float) -> float:
        """A parameter whose logarithm is evenly spread: frequencies, times, rates."""
        self.parameters[name] = value = low * (high / low) ** self._position()
        return value

    def vary(self, low: float, high: float) -> float:
        """An accident: evenly spread, not kept."""
        return self.rng.uniform(low, high)

    def count(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, options):
        return options[self.rng.integers(len(options))]
