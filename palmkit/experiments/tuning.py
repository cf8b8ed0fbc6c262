"""The data of regime "transfer": tasks of one dataset, on which options for others are tuned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from palmkit.audio import file_digest
from palmkit.data import Dataset, draw_shots
from palmkit.datasets.resolve import list_folds, load_dataset
from palmkit.embeddings import Embeddings, embed, unique_clips
from palmkit.experiments.selection import tune_options
from palmkit.experiments.trials import Trial, find_method
from palmkit.experiments.variations import method_options
from palmkit.tables import SPLITS

SEEDS = (0, 1, 2)  # of the draws on every fold, the paper's


@dataclass(frozen=True)
class TuningTask:
    """One fold and one draw of the dataset that is tuned on."""

    class_names: list[str]
    seed: int
    support: Embeddings
    test: Embeddings


def load_tuning_tasks(model, dataset: str, shots: int, cache, **embedding) -> list[TuningTask]:
    """The tasks of every fold with SEEDS. embedding: arguments of `embed`."""
    tasks = []
    for data, draws in tuning_draws(dataset, shots):
        label = f"embed {data.name} to tune on"
        clips = unique_clips([data.test, *draws])
        embedded = embed(model, clips, cache=cache, label=label, **embedding)
        test = embedded.select(data.test)
        for seed, drawn in zip(SEEDS, draws, strict=True):
            tasks.append(TuningTask(data.class_names, seed, embedded.select(drawn), test))
    return tasks


def tuning_draws(dataset: str, shots: int) -> Iterator[tuple[Dataset, list[pd.DataFrame]]]:
    """Every fold of the dataset that is tuned on, with its draw for each of SEEDS."""
    for fold in list_folds(dataset):
        data = load_dataset(dataset, fold)
        yield data, [draw_shots(data.train, shots, seed) for seed in SEEDS]


def tune(trial: Trial, model, tasks: list[TuningTask]) -> dict:
    """The options of a trial's method that do best on the tasks."""
    settings = {name: value for name, value in trial.fit_settings().items() if name != "seed"}
    given = method_options(trial.options)
    return tune_options(find_method(trial.method), model, tasks, given, **settings)


def clip_digests(dataset: str) -> set[str]:
    """sha256 of the files of all clips of a dataset."""
    folds = [load_dataset(dataset, fold) for fold in list_folds(dataset)]
    return {file_digest(path) for data in folds for path in _paths(data)}


def check_unseen(dataset: Dataset, tuned_on: str, digests: set[str]) -> None:
    """Raise ValueError if a dataset has clips, by content, of the one that is tuned on."""
    shared = sum(file_digest(path) in digests for path in _paths(dataset))
    if shared:
        raise ValueError(
            f"{dataset.name} has {shared} clips of {tuned_on}, on which options are tuned: "
            "leave it out"
        )


def _paths(data: Dataset) -> list[str]:
    return [str(path) for split in SPLITS for path in getattr(data, split)["path"]]
