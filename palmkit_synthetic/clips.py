"""One clip: from (concept, number, seed, domain) to a waveform.

A clip depends on nothing else, so each one can be made again by itself and played.
"""

from __future__ import annotations

import zlib

import numpy as np

from palmkit_synthetic.concepts import CONCEPTS
from palmkit_synthetic.domain import TRAIN, Domain
from palmkit_synthetic.draw import Draw
from palmkit_synthetic.dsp import SAMPLE_RATE
from palmkit_synthetic.finish import finish

SECONDS = 5.0


def draw_clip(
    concept: str, index: int, seed: int = 0, domain: Domain = TRAIN, seconds: float = SECONDS
) -> tuple[np.ndarray, dict]:
    """Clip number `index` of a concept: [samples] float32 at 44.1 kHz, and its parameters.

    The waveform may be shorter than asked. Raises KeyError for an unknown concept.
    """
    if concept not in CONCEPTS:
        raise KeyError(f"there is no concept {concept!r}; CONCEPTS lists them")
    rng = np.random.default_rng([seed, index, zlib.crc32(f"{domain.name}/{concept}".encode())])
    draw = Draw(rng, domain, seconds)
    waveform = finish(draw, CONCEPTS[concept].generate(draw))
    return waveform, draw.parameters


def make_clip(
    concept: str, index: int, seed: int = 0, domain: Domain = TRAIN, seconds: float = SECONDS
) -> np.ndarray:
    """[samples] float32 at 44.1 kHz: one clip, repeated up to its length if it is shorter."""
    waveform, _ = draw_clip(concept, index, seed, domain, seconds)
    return np.resize(waveform, round(seconds * SAMPLE_RATE))
