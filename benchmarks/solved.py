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

from palmkit import (
    PALM,
    ZeroShot,
    draw_shots,
    embed,
    fit,
    list_folds,
    load_dataset,
    load_model,
    predict,
)
from palmkit.data import Dataset
from palmkit.embeddings import Embeddings
from palmkit.methods.kernel_ridge import KernelRidge
from palmkit.methods.prototypes import CentredMix
from palmkit.methods.solved import SolvedPALM
from palmkit_synthetic.tasks import TASKS, build_tasks

SHOTS = (1, 2, 4, 8, 16)
SEEDS = (0, 1, 2, 3, 4)


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
    """One fold of a dataset, embedded."""

    dataset: str
    fold: int | None
    data: Dataset
    train: Embeddings
    test: Embeddings


def main() -> None:
    given = parse_arguments()
    model = load_model("mini", device=given.device)
    tasks = list(embed_tasks(model, given.datasets))
    rows = [row for task in tasks for row in run_task(model, task, given)]
    table = summarise(pd.DataFrame(rows))
    if given.to:
        text = table.round(4).to_csv(index=False, lineterminator="\n")
        given.to.write_text(f"# {model.note}. Written by: python benchmarks/solved.py\n{text}")
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
