"""Jobs: trials with their clips, the digests of these, and the key and path of the row."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from palmkit.audio import digest, file_digest
from palmkit.data import Dataset, draw_shots
from palmkit.datasets.resolve import list_folds, load_dataset
from palmkit.experiments.rows import row_path, trial_key
from palmkit.experiments.trials import Trial, find_method
from palmkit.experiments.tuning import check_unseen, clip_digests
from palmkit.experiments.variations import modify_draw, modify_task, task_options
from palmkit.models.pair import check_two
from palmkit.models.pengi import Pengi
from palmkit.plugins import plugin_digest
from palmkit.tables import SPLITS


@dataclass(frozen=True)
class ClipSet:
    """Identifies the test clips of a task (no draw), or the training clips of a draw.

    Two are equal if their clips are the same.
    """

    dataset: str
    fold: int | None
    options: str  # those of the task, as JSON
    draw: tuple[int, int] | None = None  # shots, seed


@dataclass(frozen=True)
class Job:
    """A trial with everything needed to run it, and the path of its row."""

    trial: Trial
    dataset: Dataset
    drawn: pd.DataFrame | None  # the training clips; None where nothing is learned
    digests: dict[str, str]  # columns of its row
    key: str
    path: Path

    @property
    def file(self) -> str:
        """The row's file, below the run's `rows`."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def tested(self) -> ClipSet:
        """The test clips."""
        options = json.dumps(task_options(self.trial.options), sort_keys=True)
        return ClipSet(self.trial.dataset, self.trial.fold, options)

    @property
    def learned(self) -> ClipSet:
        """The training clips."""
        return replace(self.tested, draw=(self.trial.shots, self.trial.seed))

    @property
    def uses_stream(self) -> bool:
        """Whether the trial learns from embeddings of every epoch."""
        return self.trial.protocol == "released" and self.drawn is not None

    @property
    def tunes_audio(self) -> bool:
        """Whether the trial learns inside the audio encoder. It embeds its clips itself."""
        return find_method(self.trial.method).tunes_audio

    @property
    def n_train(self) -> int:
        """How many training clips there are."""
        return 0 if self.drawn is None else len(self.drawn)


def prepare(trials: list[Trial], model, run) -> list[Job]:
    """Each trial as a job. Each fold is read once, and drawn from once per seed.

    Raises ValueError if the model cannot run a trial, or if a dataset shares clips with the one
    that options are tuned on.
    """
    model_digest = model.digest()
    read = functools.cache(load_dataset)

    @functools.cache
    def version(dataset: str) -> str:
        return _digest_clips([read(dataset, fold) for fold in list_folds(dataset)])

    @functools.cache
    def load(clips: ClipSet) -> tuple[Dataset, str]:
        dataset = modify_task(read(clips.dataset, clips.fold), **json.loads(clips.options))
        return dataset, dataset.digest()

    @functools.cache
    def draw(clips: ClipSet) -> pd.DataFrame:
        dataset, _ = load(replace(clips, draw=None))
        return modify_draw(draw_shots(dataset.train, *clips.draw), **json.loads(clips.options))

    known_clips = functools.cache(clip_digests)

    @functools.cache
    def check_once(clips: ClipSet, tuned_on: str) -> None:
        check_unseen(load(clips)[0], tuned_on, known_clips(tuned_on))

    jobs = []
    for trial in trials:
        _check_model(trial, model)
        options = json.dumps(task_options(trial.options), sort_keys=True)
        clips = ClipSet(trial.dataset, trial.fold, options)
        dataset, fold_digest = load(clips)
        method = find_method(trial.method)
        drawn = draw(replace(clips, draw=(trial.shots, trial.seed))) if method.learns else None
        digests = {
            "dataset_digest": version(trial.dataset),
            "fold_digest": fold_digest,
            "weights": model_digest,
            "method_digest": plugin_digest(method),
        }
        tuned_on = ""
        if trial.tuned_on:
            check_once(clips, trial.tuned_on)
            tuned_on = version(trial.tuned_on)
        key = trial_key(trial, fold_digest, model_digest, digests["method_digest"], tuned_on)
        jobs.append(Job(trial, dataset, drawn, digests, key, row_path(run, trial, key)))
    return jobs


def _digest_clips(folds: list[Dataset]) -> str:
    """The version of a dataset: sha256 of the fold, split, path, class and content of all clips.

    The order of rows in a table does not count.
    """
    clips = set()
    for dataset in folds:
        for split in SPLITS:
            frame = getattr(dataset, split)
            for path, name in zip(frame["path"], frame["class_name"], strict=True):
                place = (str(dataset.fold), split, dataset.relative(path))
                clips.add((*place, name, file_digest(path)))
    return digest(json.dumps(sorted(clips)).encode())


def _check_model(trial: Trial, model) -> None:
    """Raise ValueError if the model cannot run the trial."""
    if trial.protocol == "released" and not isinstance(model, Pengi):
        raise ValueError(
            f"the released protocol runs PENGI's encoders in train mode, and {model.name} is "
            "another model: use protocol='frozen'"
        )
    if find_method(trial.method).needs_pair:
        check_two(trial.method, model)
