"""What a grid will take: trials, clips, hours on this machine, disk and memory."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from palmkit.datasets.resolve import choose_folds, find_dataset, list_folds
from palmkit.experiments.embedding import count_passes
from palmkit.experiments.executor import count_jobs
from palmkit.experiments.jobs import Job, prepare
from palmkit.experiments.rows import read_finished
from palmkit.experiments.timing import Clock, duration
from palmkit.experiments.trials import (
    TRANSFER,
    Trial,
    check_datasets,
    dataset_grid,
    find_method,
    without_related,
)
from palmkit.experiments.tuned_options import tuning_work
from palmkit.published import DatasetFacts, paper_datasets
from palmkit.storage import cache_root, run_folder
from palmkit.tables import DatasetError

ENTRY_BYTES = 256  # bytes that the cache takes for an embedding, beside its numbers
ROW_BYTES = 50_000  # of a row's JSON: losses, clips, lambdas


@dataclass(frozen=True)
class Work:
    """A trial to run, and what determines its cost."""

    trial: Trial
    class_names: list[str]
    n_train: int
    n_test: int

    @property
    def draw(self) -> tuple[int | None, int]:
        return self.trial.fold, self.trial.seed


@dataclass(frozen=True)
class CostEstimate:
    """`table`: dataset, at_hand, folds, trials, done, clips, embed_s, train_s. `disk` and `memory`
    in bytes.

    memory is None where the system does not tell.
    """

    table: pd.DataFrame
    jobs: int
    disk: int
    memory: int | None

    @property
    def absent(self) -> list[str]:
        """The datasets that are not at hand."""
        return list(self.table.loc[~self.table["at_hand"], "dataset"])

    def __str__(self):
        head = ("dataset", "folds", "trials", "done", "clips", "embed", "train, test")
        lines = [_line(*head, "")]
        for line in self.table.itertuples():
            numbers = (line.folds, line.trials, line.done, line.clips)
            times = (duration(line.embed_s), duration(line.train_s))
            lines.append(
                _line(line.dataset, *numbers, *times, "" if line.at_hand else "not at hand")
            )
        total = self.table.sum(numeric_only=True)
        whole = duration(total["embed_s"] + total["train_s"])
        memory = f"{self.memory / 1e9:.1f} GB" if self.memory else "unknown on this system"
        lines += [
            f"{total['trials']:.0f} trials, {total['done']:.0f} of them done; "
            f"{total['clips']:.0f} clips to encode.",
            f"Time, from steps measured here: {whole}, of which {duration(total['embed_s'])} "
            f"for embedding; {self.jobs} trials at a time.",
            f"Disk: {self.disk / 1e9:.2f} GB for embeddings and rows. Memory: {memory}.",
        ]
        return "\n".join(lines)


def _line(dataset, folds, trials, done, clips, embed, train, note) -> str:
    cells = f"{dataset:<16}{folds:>6}{trials:>7}{done:>6}{clips:>8}{embed:>14}{train:>14}  {note}"
    return cells.rstrip()


def estimate_cost(model, run, datasets, methods, folds, seeds, **settings) -> CostEstimate:
    """What `run_trials` would do. The paper's datasets that are not at hand count as published.

    A few steps of each kind are run to measure their time and memory, so this takes minutes on a
    slow machine. Clips in the cache are not counted. In the released protocol a clip is counted
    once per epoch and seed, also where the cache has some of them. In regime "transfer", the
    dataset that is tuned on has a line of its own, if it and a dataset of the grid are at hand.
    """
    regime = settings.get("regime", "published")
    datasets = without_related([*datasets], regime, paper_datasets())
    clock = Clock(model)
    absent = find_absent(datasets)
    lines, left = [], []
    disk = 0
    for dataset in datasets:
        numbers = _choose_folds(dataset, folds, absent)
        trials = dataset_grid(methods, str(dataset), numbers, seeds, **settings)
        if dataset in absent:
            works, clips = _as_published(paper_datasets()[dataset], trials)
        else:
            works, clips, todo = _at_hand(trials, model, run)
            left += todo
        seconds = [
            clock.trial(work.trial, work.class_names, work.n_train, work.n_test) for work in works
        ]
        line = {
            "dataset": str(dataset),
            "at_hand": dataset not in absent,
            "folds": len({trial.fold for trial in trials}),
            "trials": len(trials),
            "done": len(trials) - len(works),
        }
        lines.append(line | _cost(clips, clock, sum(seconds)))
        disk += _disk_bytes(works, clips, model)
    if any(job.trial.tuned_on for job in left):
        clips, seconds = tuning_work(left, model, clock)
        lines.append(_tuning_line(regime) | _cost(clips, clock, seconds))
        disk += _disk_bytes([], clips, model)
    to_do = sum(line["trials"] - line["done"] for line in lines)
    jobs = max(min(count_jobs(model), to_do), 1)
    for line in lines:
        line["train_s"] /= jobs
    return CostEstimate(pd.DataFrame(lines), jobs, disk, _peak_memory(model, jobs))


def _tuning_line(regime: str) -> dict:
    """The line of the dataset that is tuned on, without its cost. No trial of it is reported."""
    tuned_on = regime.removeprefix(TRANSFER)
    name, folds = Path(tuned_on).name, len(list_folds(tuned_on))
    return {"dataset": f"tune on {name}", "at_hand": True, "folds": folds, "trials": 0, "done": 0}


def _cost(clips: int, clock: Clock, train_s: float) -> dict:
    """A line's columns of cost: clips to embed, and seconds to embed them and to train."""
    return {"clips": clips, "embed_s": clock.embedding(clips), "train_s": train_s}


def _disk_bytes(works: list[Work], clips: int, model) -> int:
    """Bytes of embeddings, waveforms of streams, and rows; at most."""
    embeddings = clips * (ENTRY_BYTES + 4 * model.dim)
    # A stream takes less per clip than this. It keeps waveforms, counted as a clip long, whatever
    # their length.
    streams = {work.draw: work.n_train for work in works if work.trial.protocol == "released"}
    samples = round(model.sample_rate * model.clip_seconds)
    rows = sum(ROW_BYTES + 4 * work.n_test * (len(work.class_names) + 2) for work in works)
    return embeddings + sum(streams.values()) * 4 * samples + rows


def find_absent(datasets) -> list:
    """Those of the paper's datasets that are not at hand.

    Raises DatasetError for another that is not there.
    """
    check_datasets(datasets, also=paper_datasets())
    absent = []
    for dataset in datasets:
        try:
            find_dataset(dataset)
        except DatasetError:
            if dataset not in paper_datasets():
                raise
            absent.append(dataset)
    return absent


def _choose_folds(dataset, folds, absent) -> list[int | None]:
    if dataset not in absent:
        return choose_folds(dataset, folds)
    known = paper_datasets()[dataset].fold_numbers
    if folds == "all":
        return known
    return known[:1] if folds == "first" else [fold for fold in folds if fold in known]


def _at_hand(trials: list[Trial], model, run) -> tuple[list[Work], int, list[Job]]:
    """The trials to run, how many clips they need, and the trials as jobs."""
    jobs = [job for job in prepare(trials, model, run) if read_finished(job.path, job.key) is None]
    works = [
        Work(job.trial, job.dataset.class_names, job.n_train, len(job.dataset.test)) for job in jobs
    ]
    return works, count_passes(jobs, model), jobs


def _as_published(facts: DatasetFacts, trials: list[Trial]) -> tuple[list[Work], int]:
    """The same from published counts. Assumes that every class has enough clips, and that draws
    share none.
    """
    if any(trial.shots < 0 for trial in trials):
        raise ValueError(
            f"--shots -1: {facts.name} has to be at hand, for its training clips are not known; "
            "fetch it first"
        )
    tested = dict(zip(facts.fold_numbers, facts.test_clips, strict=True))
    names = facts.class_names
    works = [Work(one, names, one.shots * len(names), tested[one.fold]) for one in trials]
    learned = {work.draw: work for work in works if work.n_train}
    if any(work.trial.protocol == "released" for work in works):
        # Every seed encodes its draw in each epoch, and tests with its own statistics.
        passes = sum(work.trial.epochs * work.n_train + work.n_test for work in learned.values())
        untrained = {work.trial.fold: work.n_test for work in works if not work.n_train}
        return works, passes + sum(untrained.values())
    # What a trial of ASPL encodes is part of the trial.
    frozen = [work for work in works if not find_method(work.trial.method).tunes_audio]
    drawn = sum({work.draw: work.n_train for work in frozen if work.n_train}.values())
    clips = drawn + sum(tested[fold] for fold in {work.trial.fold for work in frozen})
    if facts.train_clips:
        clips = min(clips, facts.train_clips[0] + facts.test_clips[0])
    return works, clips


def _peak_memory(model, jobs: int) -> int | None:
    """Bytes that the most demanding step took so far: on the GPU; else in this process, times the
    number of processes that will run.
    """
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit * jobs


def check_disk(needed: int, run) -> None:
    """Raise OSError, saying how much is free where, if embeddings and rows would not fit."""
    for folder in (cache_root().absolute(), run_folder(run).absolute()):
        there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
        free = shutil.disk_usage(there).free
        if free < needed:
            raise OSError(
                f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free at {there}: "
                "free some space, or choose another disk with PALMKIT_CACHE and PALMKIT_RUNS"
            )


def fetch_note(absent: list[str]) -> str:
    """What to do about datasets that are not at hand."""
    sizes = ", ".join(f"{name} ({paper_datasets()[name].size})" for name in absent)
    return f"Not at hand: {sizes}. `palmkit fetch {' '.join(absent)}` fetches them."
