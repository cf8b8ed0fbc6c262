"""What a grid will take, told before it starts: units, clips, hours on this machine, disk and memory."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass

import pandas as pd
import torch

from palmkit.datasets.resolve import choose_folds, find_dataset
from palmkit.experiments.executor import count_jobs
from palmkit.experiments.rows import read_row
from palmkit.experiments.run import count_passes, prepare
from palmkit.experiments.timing import Clock, minutes
from palmkit.experiments.trials import Trial, dataset_grid
from palmkit.published import paper_datasets
from palmkit.storage import cache_root, run_folder
from palmkit.tables import DatasetError

PROFILES = {  # what a command takes where nothing else is said
    "default": dict(
        checkpoint="mini", datasets=["default"], methods="all", folds="all", seeds=[0, 1, 2]
    ),
    "quick": dict(checkpoint="mini", datasets=["default"], methods="all", folds="first", seeds=[0]),
    "paper": dict(
        checkpoint="pengi",
        datasets=[*paper_datasets()],
        methods="all",
        folds="all",
        seeds=[0, 1, 2],
    ),
}
ENTRY_BYTES = 256  # bytes that the cache takes for an embedding, beside its numbers
ROW_BYTES = 50_000  # of a row's JSON: losses, clips, lambdas


@dataclass(frozen=True)
class Load:
    """A unit that is to be run, and what decides its cost."""

    unit: Trial
    class_names: list[str]
    n_train: int
    n_test: int


@dataclass(frozen=True)
class CostEstimate:
    """`table`: dataset, at_hand, folds, units, done, clips, embed_s, train_s. `disk` and `memory` in bytes."""

    table: pd.DataFrame
    jobs: int
    disk: int
    memory: int | None  # None where the system does not tell

    @property
    def absent(self) -> list[str]:
        return list(self.table.loc[~self.table["at_hand"], "dataset"])

    def __str__(self):
        lines = [
            f"{'dataset':<16}{'folds':>6}{'units':>7}{'done':>6}{'clips':>8}{'embed':>14}{'train, test':>14}"
        ]
        for line in self.table.itertuples():
            lines.append(
                f"{line.dataset:<16}{line.folds:>6}{line.units:>7}{line.done:>6}{line.clips:>8}"
                f"{minutes(line.embed_s):>14}{minutes(line.train_s):>14}{'' if line.at_hand else '  not at hand'}"
            )
        total = self.table.sum(numeric_only=True)
        hours, embed = minutes(total["embed_s"] + total["train_s"]), minutes(total["embed_s"])
        memory = f"{self.memory / 1e9:.1f} GB" if self.memory else "not told by this system"
        return "\n".join(lines) + (
            f"\n{total['units']:.0f} units, {total['done']:.0f} of them done; {total['clips']:.0f} clips to encode."
            f"\nTime, from steps measured here: {hours}, of which {embed} for embedding; {self.jobs} units at a time."
            f"\nDisk: {self.disk / 1e9:.2f} GB for embeddings and rows. Memory: {memory}."
        )


def estimate_cost(model, run, datasets, methods, folds, seeds, **settings) -> CostEstimate:
    """What `run_units` would do. The paper's datasets that are not at hand count as published.

    A few steps of each kind are run to know their time and memory, so this takes minutes on a slow machine. Clips that
    the cache has are counted all the same; in the released protocol a clip counts once an epoch of each seed.
    """
    clock, jobs, absent = Clock(model), count_jobs(model), find_absent(datasets)
    clip_s, lines, disk = clock.clip(), [], 0
    for dataset in datasets:
        units = dataset_grid(
            methods, str(dataset), _choose_folds(dataset, folds, absent), seeds, **settings
        )
        loads, clips = (
            _as_published(dataset, units) if dataset in absent else _at_hand(units, model, run)
        )
        train_s = (
            sum(
                clock.unit(load.unit, load.class_names, load.n_train, load.n_test) for load in loads
            )
            / jobs
        )
        numbers = len({unit.fold for unit in units}), len(units), len(units) - len(loads), clips
        lines.append((str(dataset), dataset not in absent, *numbers, clips * clip_s, train_s))
        disk += clips * (ENTRY_BYTES + 4 * model.dim)
        # A stream takes less a clip than this, and keeps waveforms: as much as seven seconds, whatever their length.
        drawn = {
            (load.unit.fold, load.unit.seed): load.n_train
            for load in loads
            if load.unit.protocol == "released"
        }
        samples = round(model.sample_rate * model.clip_seconds)
        disk += sum(drawn.values()) * 4 * samples
        disk += sum(ROW_BYTES + 4 * load.n_test * (len(load.class_names) + 2) for load in loads)
    columns = ["dataset", "at_hand", "folds", "units", "done", "clips", "embed_s", "train_s"]
    return CostEstimate(pd.DataFrame(lines, columns=columns), jobs, disk, _peak(model, jobs))


def find_absent(datasets) -> list:
    """Those of the paper that are not at hand. Raises DatasetError for another dataset that is not there."""
    absent = []
    for dataset in datasets:
        try:
            find_dataset(dataset)
        except DatasetError:
            if dataset not in paper_datasets():
                raise
            absent.append(dataset)
    return absent


def _choose_folds(dataset, folds, absent):
    if dataset not in absent:
        return choose_folds(dataset, folds)
    known = paper_datasets()[dataset].fold_numbers
    return (
        {"all": known, "first": known[:1]}.get(folds)
        if isinstance(folds, str)
        else [f for f in folds if f in known]
    )


def _at_hand(units: list[Trial], model, run) -> tuple[list[Load], int]:
    """What is to be run, and how many clips that takes."""
    jobs = [job for job in prepare(units, model, run) if read_row(job.path, job.key) is None]
    loads = [
        Load(
            job.unit,
            job.dataset.class_names,
            0 if job.drawn is None else len(job.drawn),
            len(job.dataset.test),
        )
        for job in jobs
    ]
    return loads, count_passes(jobs)


def _as_published(dataset, units: list[Trial]) -> tuple[list[Load], int]:
    """The same from published counts: every class has as many clips as are drawn, and no draw meets another."""
    facts = paper_datasets()[dataset]
    if any(unit.shots < 0 for unit in units):
        raise ValueError(
            f"--shots -1: {dataset} has to be at hand to know how many clips that are; fetch it first"
        )
    tested = dict(zip(facts.fold_numbers, facts.test_clips, strict=True))
    loads = [
        Load(u, facts.class_names, u.shots * len(facts.class_names), tested[u.fold]) for u in units
    ]
    draws = {(load.unit.fold, load.unit.seed): load.n_train for load in loads if load.n_train}
    clips = sum(tested[fold] for fold in {unit.fold for unit in units}) + sum(draws.values())
    if any(
        load.unit.protocol == "released" for load in loads
    ):  # every seed hears its draw anew, and tests so
        heard = {(load.unit.fold, load.unit.seed): load for load in loads if load.n_train}.values()
        untrained = {load.unit.fold: load.n_test for load in loads if not load.n_train}
        passes = sum(load.unit.epochs * load.n_train + load.n_test for load in heard)
        return loads, passes + sum(untrained.values())
    whole = facts.train_clips[0] + facts.test_clips[0] if facts.train_clips else clips
    return loads, min(clips, whole)


def _peak(model, jobs: int) -> int | None:
    """Bytes that the most demanding step took so far: on the GPU, or in this process and as many as will run."""
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024)
        * jobs
    )


def check_disk(needed: int, run) -> None:
    """Raise OSError, saying how much is free where, if embeddings and rows would not fit."""
    for folder in (cache_root().absolute(), run_folder(run).absolute()):
        there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
        if (free := shutil.disk_usage(there).free) < needed:
            raise OSError(
                f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free at {there}: free some space, or "
                "choose another disk with PALMKIT_CACHE and PALMKIT_RUNS"
            )


def fetch_note(absent: list[str]) -> str:
    """What to do about datasets that are not at hand."""
    sizes = ", ".join(f"{name} ({paper_datasets()[name].size})" for name in absent)
    return f"Not at hand: {sizes}. `python -m palmkit fetch {' '.join(absent)}` fetches them."
