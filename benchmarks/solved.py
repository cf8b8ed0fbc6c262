"""Solved PALM beside its rivals and without its parts, on the generated datasets.

    python benchmarks/solved.py [--to notebooks/data/solved.csv]

Every method gets the same clips: both folds, some draws of the support set, 1 to 16 shots. Without
a checkpoint the model is mini-PENGI, whose numbers are not PENGI's. Prints the mean accuracy over
datasets of every method and number of shots, and the time of a fit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F

from palmkit import (
    PALM,
    Method,
    ZeroShot,
    draw_shots,
    embed,
    fit,
    list_folds,
    load_dataset,
    load_model,
    predict,
)
from palmkit.methods.base import normalize
from palmkit.methods.solved import SolvedPALM
from palmkit_synthetic.tasks import TASKS, build_tasks

SHOTS = (1, 2, 4, 8, 16)
SEEDS = (0, 1, 2, 3, 4)
# beta and lambda of 2501.11175, found on ImageNet, by shots.
PUBLISHED_KERNEL = {1: (3, 0.05), 2: (2.6, 0.05), 4: (1.5, 0.05), 8: (1.66, 0.07), 16: (1.7, 0.1)}


class KernelRidge(Method):
    """Kernel ridge regression of what the text leaves unexplained (2501.11175, raw cosines)."""

    name = "kernel-ridge"

    def __init__(self, model, class_names, seed=0):
        super().__init__(model, class_names, seed)
        self.text = model.encode_text([model.prompt.format(name) for name in self.class_names])

    def fit(self, features, labels, **settings):
        shots = int(labels.bincount().max())
        nearest = min(PUBLISHED_KERNEL, key=lambda one: abs(one - shots))
        self.beta, strength = PUBLISHED_KERNEL[nearest]
        self.clips = normalize(features)
        target = F.one_hot(labels, len(self.text)).to(self.clips)
        system = self.kernel(self.clips) / strength + torch.eye(len(labels)).to(self.clips)
        self.dual = torch.linalg.solve(system, target - self.clips @ self.text.T)

    def kernel(self, x):
        return torch.exp(-self.beta * (1 - x @ self.clips.T))

    def forward(self, audio_features):
        x = normalize(audio_features)
        return x @ self.text.T + self.kernel(x) @ self.dual


class CentredMix(Method):
    """Cosines with text plus class mean, both unit vectors without what all classes share."""

    name = "centred-mix"

    def fit(self, features, labels, **settings):
        text = self.model.encode_text(self.class_names)
        x = normalize(features)
        means = torch.stack([x[labels == label].mean(0) for label in range(len(text))])
        self.mean = means.mean(0)
        u = normalize(self.mean)
        text = text - text.mean(0)
        self.weights = normalize(text - (text @ u)[:, None] * u) + normalize(means - self.mean)

    def forward(self, audio_features):
        return (normalize(audio_features) - self.mean) @ self.weights.T


class Shuffled(SolvedPALM):
    """Every class under the name of the next one."""

    name = "solved-shuffled"

    def encode_class_names(self):
        super().encode_class_names()
        self.f = self.f.roll(1, 0)


METHODS = {
    "Zero-shot": (ZeroShot, {}),
    "PALM": (PALM, {}),
    "Kernel ridge": (KernelRidge, {}),
    "Centred mix": (CentredMix, {}),
    "Solved PALM": (SolvedPALM, {}),
    "no shrinking": (SolvedPALM, {"shrink": False}),
    "no discount": (SolvedPALM, {"discount": False}),
    "neither": (SolvedPALM, {"shrink": False, "discount": False}),
    "no centring": (SolvedPALM, {"centre": False}),
    "no sharp ridge": (SolvedPALM, {"ridges": (3.0,)}),
    "no soft ridge": (SolvedPALM, {"ridges": (0.03,)}),
    "fixed theta": (SolvedPALM, {"fixed_theta": "prior"}),
    "no norm term": (SolvedPALM, {"norm_term": False}),
    "no text": (SolvedPALM, {"text": False}),
    "shuffled names": (Shuffled, {}),
}


class Task(NamedTuple):
    """One fold of a dataset. train and test: Embeddings."""

    dataset: str
    fold: int | None
    data: object
    train: object
    test: object


def main() -> None:
    given = parse_arguments()
    model = load_model("mini", device=given.device)
    tasks = list(embed_tasks(model, given.datasets))
    rows = [row for task in tasks for row in run_task(model, task, given)]
    table = summarise(pd.DataFrame(rows))
    if given.to:
        table.round(4).to_csv(given.to, index=False)
    print(describe(table, list(given.methods)))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--shots", type=int, nargs="+", default=list(SHOTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--to", type=Path, metavar="CSV", help="also write the table there")
    return parser.parse_args()


def embed_tasks(model, names) -> Iterator[Task]:
    for name, root in zip(names, build_tasks(names), strict=True):
        for fold in list_folds(root):
            data = load_dataset(root, fold=fold)
            yield Task(name, fold, data, embed(model, data.train), embed(model, data.test))


def run_task(model, task: Task, given) -> Iterator[dict]:
    """A row for each method, number of shots and draw."""
    for shots in given.shots:
        for seed in given.seeds:
            support = task.train.select(draw_shots(task.data.train, shots, seed))
            for label in given.methods:
                cls, options = METHODS[label]
                method = cls(model, task.data.class_names, seed=seed, **options)
                start = time.perf_counter()
                if cls.learns:
                    fit(method, support.features, support.labels, seed=seed)
                seconds = time.perf_counter() - start
                right = predict(method, task.test.features).argmax(1) == task.test.labels
                accuracy = right.double().mean().item()
                yield {
                    "dataset": task.dataset,
                    "shots": shots,
                    "method": label,
                    "accuracy": accuracy,
                    "seconds": seconds,
                }


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each dataset, number of shots and method: mean and spread over its trials."""
    groups = rows.groupby(["dataset", "shots", "method"], sort=False)
    return groups.agg(
        accuracy=("accuracy", "mean"),
        std=("accuracy", "std"),
        trials=("accuracy", "size"),
        fit_seconds=("seconds", "median"),
    ).reset_index()


def describe(table: pd.DataFrame, methods) -> str:
    """Percent correct, mean over datasets, and milliseconds of a fit with the most shots."""
    wide = table.pivot_table(index="method", columns="shots", values="accuracy", sort=False)
    wide = (100 * wide).round(2).loc[methods]
    most = table[table["shots"] == table["shots"].max()]
    wide["ms"] = (1000 * most.groupby("method")["fit_seconds"].median()).round(1)
    return wide.to_string()


if __name__ == "__main__":
    main()
