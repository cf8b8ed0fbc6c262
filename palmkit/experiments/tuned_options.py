"""Options of methods that are tuned on another dataset: regime "transfer"."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path

from palmkit.datasets.resolve import SKIP_BAD
from palmkit.experiments.cached import count_missing
from palmkit.experiments.calls import Loading
from palmkit.experiments.clip_sources import EmbedSettings, support_settings
from palmkit.experiments.executor import Failure, attempt, count_jobs, in_parallel
from palmkit.experiments.jobs import Job
from palmkit.experiments.quiet import no_progress
from palmkit.experiments.references import skipping_bad
from palmkit.experiments.selection import combinations
from palmkit.experiments.timing import Clock
from palmkit.experiments.trials import Trial, find_method
from palmkit.experiments.tuning import load_tuning_tasks, tune, tuning_draws
from palmkit.experiments.variations import method_options


def tune_all(jobs: list[Job], costs: dict, model, loading: Loading) -> dict[Path, dict | Failure]:
    """The tuned options of each job, by its path; a Failure where they cannot be found.

    They are found once for all jobs of the same method, method options, shots, crop and training.
    costs: seconds of each job, by its path.
    """

    @functools.cache
    def load(dataset: str, shots: int, settings: EmbedSettings) -> list | Failure:
        if loading.apart:  # only their number counts here
            return attempt(
                lambda: [one for _, some in tuning_draws(dataset, shots) for one in some]
            )
        arguments = settings.arguments(model)
        return attempt(lambda: load_tuning_tasks(model, dataset, shots, loading.cache, **arguments))

    found, groups, calls, seconds = {}, [], [], []
    for group in _tuned_together(jobs):
        trial = group[0].trial
        tasks = load(trial.tuned_on, trial.shots, support_settings(trial))
        if isinstance(tasks, Failure):
            found |= dict.fromkeys((job.path for job in group), tasks)
            continue
        count = len(combinations(find_method(trial.method), method_options(trial.options)))
        groups.append([job.path for job in group])
        calls.append((TuningCall(loading, os.environ.get(SKIP_BAD, ""), trial, model, tasks),))
        seconds.append(count * len(tasks) * costs[group[0].path])
    for n, options in in_parallel(_tune, calls, seconds, count_jobs(model)):
        found |= dict.fromkeys(groups[n], options)
    return found


@dataclass(frozen=True)
class TuningCall:
    """A trial with the tasks that its options are tuned on.

    Pickling drops model and tasks where a worker can load them.
    """

    loading: Loading
    skip_bad: str
    trial: Trial
    model: object
    tasks: list | None

    def __reduce__(self):
        carried = (self.model, self.tasks) if self.loading.model is None else (None, None)
        return TuningCall, (self.loading, self.skip_bad, self.trial, *carried)

    def load(self) -> tuple:
        """The arguments of `tune`."""
        if self.tasks is not None:
            return self.trial, self.model, self.tasks
        model, trial = self.loading.model.load(), self.trial
        arguments = support_settings(trial).arguments(model)
        about = (trial.tuned_on, trial.shots, self.loading.cache)
        with skipping_bad(self.skip_bad), no_progress():
            return trial, model, load_tuning_tasks(model, *about, **arguments)


def _tune(call: TuningCall) -> dict:
    return tune(*call.load())


def _tuned_together(jobs: list[Job]) -> list[list[Job]]:
    """The jobs with tuned options, in groups that share these options."""
    shared: dict[tuple, list[Job]] = {}
    for job in jobs:
        trial = job.trial
        if trial.tuned_on:
            options = json.dumps(method_options(trial.options), sort_keys=True)
            settings = {name: one for name, one in trial.fit_settings().items() if name != "seed"}
            key = (trial.method, options, trial.tuned_on, trial.shots, support_settings(trial))
            shared.setdefault((*key, *settings.items()), []).append(job)
    return [*shared.values()]


def tuning_work(jobs: list[Job], model, clock: Clock, cache="default") -> tuple[int, float]:
    """The cost of tuning options for the jobs: clips to encode, and seconds on one core."""
    clips: dict[tuple, set[str]] = {}
    seconds = 0.0
    for group in _tuned_together(jobs):
        trial = group[0].trial
        count = len(combinations(find_method(trial.method), method_options(trial.options)))
        wanted = clips.setdefault(support_settings(trial), set())
        for data, draws in tuning_draws(trial.tuned_on, trial.shots):
            wanted.update(path for frame in (data.test, *draws) for path in frame["path"])
            about = [(data.class_names, len(drawn), len(data.test)) for drawn in draws]
            seconds += count * sum(clock.trial(trial, *one) for one in about)
    missing = [
        count_missing(model, paths, cache, **settings.arguments(model))
        for settings, paths in clips.items()
    ]
    return sum(missing), seconds
