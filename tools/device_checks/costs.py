"""Seconds and peak memory at PENGI's size, beside the straightforward (padded) computation.

Both take turns in this process on the same inputs and must give the same numbers (`speed.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import soundfile
import torch
from speed import ESC50, TOLERANCE, check_same, learner_rows, number
from straightforward import Audio

from device_checks import FULL, TF32, Line, Setup, holds, precision
from palmkit import ZeroShot, embed
from palmkit.audio import count_samples
from palmkit.experiments.profiling import Stopwatch, infer
from palmkit.models.random import random_pengi

SIZES = dict(clips=64, classes=50, batch=16, repeats=3)
SMALL = dict(clips=3, classes=4, batch=3, repeats=1)
SAME = f"same numbers to {TOLERANCE:.0e}"


def check(setup: Setup) -> Iterator[Line]:
    setup.tell("costs: the model")
    model, sizes = (setup.there, SMALL) if setup.small else (random_pengi(setup.device), SIZES)
    stopwatch = Stopwatch(model.device, sizes["repeats"])
    torch.manual_seed(0)
    with precision(FULL):
        yield from embedding_lines(setup, model, stopwatch, sizes["clips"])
        yield from method_lines(setup, model, stopwatch, sizes["classes"], sizes["batch"])


def embedding_lines(setup: Setup, model, stopwatch: Stopwatch, clips: int) -> Iterator[Line]:
    """Waveforms of 7 s on the device to embeddings, and files of 5 s to embeddings."""
    setup.tell(f"costs: embedding {clips} clips")
    samples = count_samples(model.clip_seconds, model.sample_rate)
    waveforms = (0.1 * torch.randn(clips, samples)).to(model.device)
    ours, plain = functools.partial(model.encode_audio, waveforms), Audio(model)
    straightforward = functools.partial(without_gradient, plain, waveforms)
    check_same(ours(), straightforward(), "encode_audio")
    measured = stopwatch(palmkit=ours, plain=straightforward)
    yield holds(f"{clips} clips, `encode_audio`", describe(**measured), SAME, True)
    with precision(TF32):
        measured = stopwatch(palmkit=ours)
    yield Line(f"{clips} clips, `encode_audio`, TF32 on", describe(**measured))
    paths = write_noise(setup.folder / "noise", clips)
    measured = stopwatch(palmkit=functools.partial(embed, model, paths, cache=None))
    yield Line(f"{clips} clips from files, `embed`", describe(**measured))


def method_lines(setup: Setup, model, stopwatch, classes: int, batch: int) -> Iterator[Line]:
    """A training step and an evaluation batch of the paper's methods. Zero-shot trains nothing."""
    names, about = ESC50[:classes], f"{classes} classes, batch {batch}"
    setup.tell(f"costs: methods, {about}")
    zero_shot, features = ZeroShot(model, names), torch.randn(batch, model.dim).to(model.device)
    measured = stopwatch(palmkit=functools.partial(infer, zero_shot, features))
    yield Line(f"Zero-shot, evaluation batch, {about}", describe(**measured))
    for row in learner_rows(model, stopwatch, names, batch):
        setup.tell(f"costs: {row['what']}")
        value = describe(row["palmkit"], row["plain"])
        if row["plain_clips"] < row["clips"]:
            value += f" (scaled up from {row['plain_clips']} clips)"
        yield holds(f"{row['what']}, {about}", value, SAME, True)


@torch.no_grad()
def without_gradient(run, inputs) -> torch.Tensor:
    return run(inputs)


def describe(palmkit: dict, plain: dict | None = None) -> str:
    """Seconds and MiB; with `plain` also those of the straightforward computation, and the ratio
    of the seconds.
    """
    text = f"{number(palmkit['seconds'])} s, {palmkit['mib']:,.0f} MiB"
    if plain is None:
        return text
    ratio = number(plain["seconds"] / palmkit["seconds"])
    plainly = f"{number(plain['seconds'])} s, {plain['mib']:,.0f} MiB"
    return f"{text}; straightforward: {plainly}; ratio {ratio}"


def write_noise(folder, count: int) -> list[str]:
    """Five seconds of noise each, 16-bit mono at 44.1 kHz."""
    folder.mkdir()
    paths = [str(folder / f"{n}.wav") for n in range(count)]
    for path in paths:
        soundfile.write(path, (0.1 * torch.randn(5 * 44_100)).numpy(), 44_100, subtype="PCM_16")
    return paths
