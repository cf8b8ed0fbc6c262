"""The released protocol on the device: a short stream with and without autocast."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from device_checks import FULL, Line, Setup, holds, precision, within
from device_checks.rows import write_tones
from palmkit.protocols.streams import embed_stream
from palmkit.protocols.train_mode import STOCHASTIC

EPOCHS, BATCH = 2, 4
# Drawn by the CPU's generator, so that they are the same on every device. The device draws the
# others (drop_path, audio_dropout).
SAME_ANYWHERE = ("crops", "bn0", "specaugment")
FLOAT32, HALF = 1e-4, 5e-2  # relative; half precision has 8 bits (bfloat16) or 11 (float16)
DIFFERENT = 1e-2  # two seeds differ by more than this, or nothing is random


def check(setup: Setup) -> Iterator[Line]:
    clips = write_tones(setup.folder / "stream", train=4, test=1)["train"]
    with precision(FULL):
        setup.tell("released protocol: CPU and device")
        shared = dict(stochastic=SAME_ANYWHERE)
        there, here = stream(setup.there, clips, **shared), stream(setup.here, clips, **shared)
        yield within("stream, device to CPU", error(there, here), FLOAT32)
        statistics = [distance(there.bn0[name], value) for name, value in here.bn0.items()]
        yield within("statistics of bn0 after it, device to CPU", max(statistics), FLOAT32)
        setup.tell("released protocol: with and without autocast")
        half = stream(setup.there, clips, autocast=True, **shared)
        yield within("stream with autocast to the one without", error(half, there), HALF)
        changed = error(half, there)
        yield holds("autocast changes the stream", f"{changed:.1e}", "over 0", changed > 0)
        for autocast in (False, True):
            yield from repeat_lines(setup, clips, autocast)


def repeat_lines(setup: Setup, clips, autocast: bool) -> Iterator[Line]:
    """All parts random, computed twice: the same bits; another seed: other embeddings."""
    label = f"stream, all random, autocast {'on' if autocast else 'off'}"
    start = time.perf_counter()
    settings = dict(stochastic=STOCHASTIC, autocast=autocast)
    one = stream(setup.there, clips, **settings)
    seconds = time.perf_counter() - start
    again, other = (stream(setup.there, clips, seed=seed, **settings) for seed in (0, 1))
    is_same = torch.equal(one.features, again.features)
    value = f"{'equal' if is_same else f'differ by {error(again, one):.1e}'}; {seconds:.2f} s"
    yield holds(f"{label}, twice", value, "equal to the last bit", is_same)
    changed = error(other, one)
    what = f"{label}, another seed"
    yield holds(what, f"{changed:.1e}", f"over {DIFFERENT:.0e}", changed > DIFFERENT)


def stream(model, clips, **settings):
    return embed_stream(model, clips, EPOCHS, BATCH, cache=None, **settings)


def error(one, other) -> float:
    return distance(one.features, other.features)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Norm of the difference over norm of the other."""
    one, other = one.double().flatten(), other.double().flatten()
    return float((one - other).norm() / other.norm())
