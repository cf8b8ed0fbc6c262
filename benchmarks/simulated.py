"""Datasets, embeddings and runs of any size, made in seconds: what `benchmarks/scale.py` measures.

Clips are tiny WAV files, each of another content. Embeddings are random unit vectors, put into the
kit's own store. Rows are those of real trials, copied with another seed, another score and random
logits. No audio is encoded, and only one trial of each kind is run.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from palmkit.audio import content_key
from palmkit.embeddings import Embeddings, provenance
from palmkit.experiments.jobs import Job, prepare
from palmkit.experiments.one_trial import run_trial
from palmkit.experiments.rows import model_columns, write_row
from palmkit.experiments.rows import provenance as program
from palmkit.experiments.trials import Trial, make_grid, stochastic_label
from palmkit.storage import cache_folder
from palmkit.store import TensorStore
from palmkit.tables import write_split

RATE = 44_100  # Hz, mini-PENGI's
SAMPLES = 24  # of a clip
METHODS = ("zeroshot", "palm", "solved-palm", "linear-probe", "prototypes")
EPOCHS = 50
LEFT_OUT = 2  # trials that a simulated run has still to do


def class_name(number: int) -> str:
    return f"sound of kind {number:04d}"


def make_dataset(root: Path, clips: int, classes: int, folds: int = 0) -> Path:
    """A dataset folder: a single split in halves, or folds that each test one part of the clips.

    Every class has clips in each part. Files are in `audios`, one folder for each class.
    """
    parts = max(folds, 2)
    names = []
    for label in range(classes):
        (root / "audios" / f"{label:04d}").mkdir(parents=True)
    for number in range(clips):
        label = number % classes
        name = f"audios/{label:04d}/{number:07d}.wav"
        (root / name).write_bytes(make_wav(number))
        names.append((name, class_name(label), number // classes % parts))
    for fold in range(1, folds + 1) if folds else [None]:
        tested = 0 if fold is None else fold - 1
        for split in ("train", "test"):
            rows = [(p, c) for p, c, part in names if (part == tested) == (split == "test")]
            write_split(root, split, fold, rows)
    return root


def make_wav(number: int) -> bytes:
    """A WAV file of 16-bit mono; its samples are the digits of its number, so all differ."""
    samples = [1000 * int(digit) for digit in f"{number:0{SAMPLES}d}"]
    data = struct.pack(f"<{SAMPLES}h", *samples)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def fill_cache(model, paths) -> None:
    """Random unit embeddings of these clips, as `embed` would keep them."""
    rng = np.random.default_rng(0)
    setting = provenance(model, "random", 0)
    with TensorStore(cache_folder("default"), "embeddings", setting) as store:
        for path in paths:
            feature = rng.standard_normal(model.dim).astype("float32")
            entry = {"feature": feature / np.linalg.norm(feature), "offset": np.array(0)}
            store.put(content_key(path, model.sample_rate), entry)


def grid(datasets, rows: int, methods=METHODS, folds="all", **settings) -> list[Trial]:
    """A grid of about this many trials: as many seeds as that takes."""
    one, two = (
        len(make_grid(methods, datasets, folds, range(seeds), **settings)) for seeds in (1, 2)
    )
    seeds = max(1, round((rows - one) / (two - one)) + 1)
    return make_grid(methods, datasets, folds, range(seeds), **settings)


def make_run(run, trials: list[Trial], model, left_out: int = LEFT_OUT) -> int:
    """Rows of the trials but for the last ones; how many.

    They have the keys that `palmkit run` looks for, and the fields and sizes of real ones.
    """
    jobs = prepare(trials, model, run)
    kept = jobs[: len(jobs) - left_out]
    rng = np.random.default_rng(0)
    origin = program() | {"checkpoint_sha256": getattr(model, "checkpoint_sha256", "")}
    origin |= model_columns(model)

    @cache
    def example(method: str, shots: int, dataset: str) -> tuple[dict, dict]:
        job = next(j for j in kept if j.trial.method == method and j.trial.dataset == dataset)
        return run_trial(
            replace(job.trial, epochs=1), model, job.dataset, *random_clips(job, model)
        )

    for job in kept:
        trial = job.trial
        row, tensors = example(trial.method, trial.shots, trial.dataset)
        row = row | asdict(trial) | own_fields(job, rng) | {"key": job.key} | job.digests | origin
        row["losses"] = [*row["losses"]] * trial.epochs
        labels = torch.tensor(list(job.dataset.test["label"]))
        logits = torch.randn(len(labels), len(job.dataset.class_names))
        write_row(job.path, row, tensors | {"logits": logits, "labels": labels})
    return len(kept)


def random_clips(job: Job, model) -> Iterator[Embeddings]:
    """The test clips and the draw of a trial, with random features."""
    for frame in (job.dataset.test, job.drawn):
        if frame is None:
            yield None
            continue
        features = torch.nn.functional.normalize(torch.randn(len(frame), model.dim), dim=-1)
        labels = torch.tensor(list(frame["label"]))
        yield Embeddings(features, labels, list(frame["path"]), [0] * len(frame))


def own_fields(job: Job, rng) -> dict:
    """What differs between the rows of one method."""
    scores = dict.fromkeys(("accuracy", "f1", "precision", "recall"), float(rng.uniform(0.3, 0.9)))
    drawn = [] if job.drawn is None else list(map(job.dataset.relative, job.drawn["path"]))
    about = {"dataset": job.dataset.name, "stochastic": stochastic_label(job.trial)}
    return {**scores, **about, **({"clips": drawn} if drawn else {})}
