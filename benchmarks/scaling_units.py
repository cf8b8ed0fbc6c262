"""What `scaling.py` measures: units of work of a grid, on random features and waveforms."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from palmkit import PALM, fit, predict
from palmkit.experiments.executor import in_parallel
from palmkit.methods import METHODS
from palmkit.methods.stack import fit_stack
from palmkit.models.pengi import load_mini
from palmkit.models.random import random_pengi
from palmkit.published import paper_datasets
from palmkit.training import score

MODELS = {"mini-PENGI": load_mini, "PENGI's size": random_pengi}
CLOSED = ("kernel-ridge", "solved-palm", "gda", "prototypes")
SGD = ("palm", "coop", "cocoop")
STEPS = 5  # of SGD in a unit
CLASSES, SHOTS, TESTED = 10, 16, 40
NAMES = list(paper_datasets()["ESC50"].class_names)[:CLASSES]


@functools.cache
def load(model: str):
    """The model, which a process keeps."""
    return MODELS[model]("cpu")


@functools.cache
def support(model: str, seed=0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random features [n, dim] of unit length, and labels [n]."""
    labels = torch.arange(CLASSES * SHOTS) % CLASSES
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(
        torch.randn(len(labels), load(model).dim, generator=generator), dim=-1
    ), labels


@functools.cache
def make(method: str, model: str):
    return METHODS[method](load(model), NAMES)


def embed_clips(model: str) -> None:
    """Four clips through the audio encoder."""
    encoder = load(model)
    samples = round(encoder.sample_rate * encoder.clip_seconds)
    encoder.encode_audio(torch.randn(4, samples, generator=torch.Generator().manual_seed(0)) / 10)


def closed_forms(model: str) -> None:
    """A trial of each closed form: class texts, fit, and test."""
    features, labels = support(model)
    for name in CLOSED:
        method = METHODS[name](load(model), NAMES)
        fit(method, features, labels)
        score(predict(method, features[:TESTED]), labels[:TESTED])


def sgd_steps(method: str, model: str) -> None:
    """Some steps of SGD with batches of 16."""
    batches = [range(16 * n, 16 * n + 16) for n in range(STEPS)]
    fit(make(method, model), *support(model), batches=batches, lr=1e-6)


UNITS: dict[str, Callable[[str], None]] = {
    "embedding, 4 clips": embed_clips,
    f"{len(CLOSED)} closed forms": closed_forms,
    **{f"{METHODS[name].label}, {STEPS} steps": functools.partial(sgd_steps, name) for name in SGD},
}


def several(unit: str, model: str, count: int) -> None:
    """A call of a worker: so many units."""
    for _ in range(count):
        UNITS[unit](model)


def seconds_of(unit: str, model: str, count: int, processes: int, calls: int = 4) -> float:
    """Seconds for `calls` calls of `count` units each, in so many processes of one thread."""
    work = [(unit, model, count)] * calls
    start = time.perf_counter()
    # The seconds given are those for which processes are used.
    for _, failed in in_parallel(several, work, [100.0] * calls, processes):
        if failed is not None:
            raise RuntimeError(failed.message)
    return time.perf_counter() - start


# PALM with several seeds, each alone and in one stack.

EPOCHS = 5


def seeds_alone(model: str, seeds: int) -> list[torch.Tensor]:
    """z of each seed."""
    learned = []
    for seed in range(seeds):
        method = PALM(load(model), NAMES, seed=seed)
        fit(method, *support(model, seed), epochs=EPOCHS, seed=seed)
        learned.append(method.z.detach())
    return learned


def seeds_stacked(model: str, seeds: int) -> list[torch.Tensor]:
    methods = [PALM(load(model), NAMES, seed=seed) for seed in range(seeds)]
    features, labels = zip(*(support(model, seed) for seed in range(seeds)), strict=True)
    about = {"seeds": range(seeds), "lrs": [0.05] * seeds, "epochs": EPOCHS}
    fit_stack(methods, features, labels, **about)
    return [method.z.detach() for method in methods]


# A small trial, stage by stage.


def stages(method: str, model: str) -> dict[str, Callable[[], object]]:
    """The parts of a trial in a worker that has its model and its embeddings."""
    features, labels = support(model)
    made = METHODS[method](load(model), NAMES)
    logits = predict(made, features[:TESTED])
    return {
        "class texts": lambda: METHODS[method](load(model), NAMES),
        "fit": lambda: fit(made, features, labels),
        "predict": lambda: predict(made, features[:TESTED]),
        "score": lambda: score(logits, labels[:TESTED]),
    }
