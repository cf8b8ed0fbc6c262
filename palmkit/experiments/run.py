"""Run trials; each is written as one row. An interrupted grid continues where it stopped."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import logging
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from palmkit.audio import digest, file_digest
from palmkit.corruptions import Corruption
from palmkit.data import Dataset, draw_shots
from palmkit.datasets.resolve import SKIP_BAD, list_folds, load_dataset
from palmkit.embeddings import Embeddings, embed, unique_clips
from palmkit.experiments.beside import check_beside
from palmkit.experiments.cached import count_missing
from palmkit.experiments.executor import (
    Failure,
    attempt,
    count_jobs,
    in_parallel,
    shares_cache,
)
from palmkit.experiments.failures import TrialsFailed, failed_row, forget_mended
from palmkit.experiments.light_rows import HEAVY_FIELDS
from palmkit.experiments.model_defaults import rate_source, warn_of_rates
from palmkit.experiments.references import (
    DatasetReference,
    ModelReference,
    WorkerDiffers,
    check_versions,
    own_versions,
    skipping_bad,
)
from palmkit.experiments.rows import (
    count_old_rows,
    make_compact,
    model_columns,
    provenance,
    read_finished,
    row_path,
    trial_key,
    update_row,
    write_row,
)
from palmkit.experiments.selection import choose_options, combinations
from palmkit.experiments.shards import embed_in_shards
from palmkit.experiments.stacks import Fitted, fit_together, make_stacks, run_stacks
from palmkit.experiments.status import Progress
from palmkit.experiments.timing import Clock, duration
from palmkit.experiments.trials import TRANSFER, Trial, find_method, stochastic_label
from palmkit.experiments.tuning import (
    check_unseen,
    clip_digests,
    load_tuning_tasks,
    tune,
    tuning_draws,
)
from palmkit.experiments.variations import (
    ProjectedModel,
    method_options,
    modify_draw,
    modify_task,
    principal_axes,
    task_options,
)
from palmkit.leftovers import remove_abandoned
from palmkit.methods.aspl import read_inputs
from palmkit.methods.base import normalize
from palmkit.models.about import checkpoint_config, describe, not_pengi_note
from palmkit.models.pair import check_two
from palmkit.models.pengi import Pengi, round_features
from palmkit.plugins import plugin_digest
from palmkit.protocols.streams import EpochEmbeddings, crop_seed_at_test, embed_stream
from palmkit.protocols.train_mode import text_dropout, with_bn_statistics
from palmkit.storage import cache_folder, progress_bar, run_folder
from palmkit.store import finish_abandoned
from palmkit.tables import SPLITS
from palmkit.training import TrainingDiverged, fit, predict, score

log = logging.getLogger(__name__)


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
        options = json.dumps(task_options(self.trial.options), sort_keys=True)
        return ClipSet(self.trial.dataset, self.trial.fold, options)

    @property
    def learned(self) -> ClipSet:
        return replace(self.tested, draw=(self.trial.shots, self.trial.seed))

    @property
    def uses_stream(self) -> bool:
        """Whether a trial learns from embeddings of every epoch."""
        return self.trial.protocol == "released" and self.drawn is not None

    @property
    def tunes_audio(self) -> bool:
        """Whether a trial learns inside the audio encoder, so that it embeds its own clips."""
        return find_method(self.trial.method).tunes_audio

    @property
    def n_train(self) -> int:
        return 0 if self.drawn is None else len(self.drawn)


def run_trials(
    trials: list[Trial],
    model,
    run,
    cache="default",
    retry_failed: bool = False,
    compact: bool = False,
    checkpoint=None,
    details: bool = True,
) -> list[dict]:
    """Run the trials without a row in `runs/RUN`. Returns all rows, in the order of the trials.

    Clips are embedded first. Then the trials run, several at the same time on a CPU (see
    `executor`), with one progress bar. Log messages say what there is to do and how long it takes.
    A trial that fails gets a row that says why, and the others go on; at the end TrialsFailed is
    raised. retry_failed: run those again that failed before. compact: for thousands of trials; the
    test logits are kept as float16, and what was learned is not. A compact row is run again where
    compact is False. checkpoint: what the model was loaded by; then worker processes load it
    themselves, and read embeddings from the cache. Without it they are sent the model and the
    embeddings. Raises FileNotFoundError if the run's folder is deleted meanwhile.
    details: False returns rows without HEAVY_FIELDS (`light_rows`), which take little memory.
    """
    jobs = prepare(trials, model, run)
    for line in dict.fromkeys(_tell_left_out(job.dataset) for job in jobs if job.dataset.left_out):
        log.warning("%s", line)
    remove_abandoned(run_folder(run))
    finish_abandoned(cache_folder(cache))
    shorten = functools.partial(_shorten, details=details)
    rows = {job.path: shorten(_read_finished(job, compact)) for job in jobs}
    missing = {
        job.path: job
        for job in jobs
        if rows[job.path] is None or (retry_failed and "failed" in rows[job.path])
    }
    if old := count_old_rows(run, set(rows)):
        log.info("%d rows of another version of palmkit are not used", old)
    if missing:
        with Progress(run, {job.path: job.key for job in jobs}, own_versions()) as progress:
            check_beside(progress)
            loading = Loading.of(model, checkpoint, cache)
            _run_missing([*missing.values()], run, model, loading, compact, progress)
        rows |= {path: shorten(read_finished(path, job.key)) for path, job in missing.items()}
    if gone := [path for path, row in rows.items() if row is None]:
        raise _deleted(run, f"{len(gone)} of its rows are gone")
    forget_mended(rows)
    if failed := [row for row in rows.values() if "failed" in row]:
        raise TrialsFailed(failed, len(rows) - len(failed))
    return [rows[job.path] for job in jobs]


def _shorten(row: dict | None, details: bool) -> dict | None:
    """A row as `run_trials` returns it. It was read, and checked, as a whole."""
    if row is None or details:
        return row
    return {name: value for name, value in row.items() if name not in HEAVY_FIELDS}


def _deleted(run, what: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"the folder {run_folder(run)} was deleted or changed while the run went on: {what}. "
        "The same command makes what is missing"
    )


def prepare(trials: list[Trial], model, run) -> list[Job]:
    """Each trial with its fold, its draw and its key.

    Each fold is read once, and drawn from once per seed.
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


def _read_finished(job: Job, compact: bool) -> dict | None:
    """The row of a finished trial, marked as of the present version of its dataset.

    None for a compact row, unless compact rows are wanted.

    Its own fold is unchanged, or it would have another key. Other folds may have changed.
    """
    row = read_finished(job.path, job.key)
    if row is not None and row.get("compact") and not compact:
        return None
    version = job.digests["dataset_digest"]
    if row is None or row.get("dataset_digest") == version:
        return row
    return update_row(job.path, row | {"dataset_digest": version})


def _digest_clips(folds: list[Dataset]) -> str:
    """sha256 of every clip's fold, split, path, class and content: the dataset's version.

    The order of a table's rows does not count.
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
    if trial.protocol == "released" and not isinstance(model, Pengi):
        raise ValueError(
            f"the released protocol runs PENGI's encoders in train mode, and {model.name} is "
            "another model: use protocol='frozen'"
        )
    if find_method(trial.method).needs_pair:
        check_two(trial.method, model)


def count_passes(jobs: list[Job], model, cache="default") -> int:
    """Clips that are to be encoded: each once that the cache does not have. For a stream, at most:
    each clip in each epoch, and once at test. What a trial of ASPL encodes is part of the trial.
    """
    embedded = [job for job in jobs if not (job.uses_stream or job.tunes_audio)]
    missing = [
        count_missing(model, _paths_of(sets.values()), cache, **settings.arguments(model))
        for settings, sets in _list_frames(embedded).items()
    ]
    streams = {_stream_key(job): job for job in jobs if job.uses_stream}
    return sum(missing) + sum(map(_stream_passes, streams.values()))


def _paths_of(frames) -> set[str]:
    return {path for frame in frames for path in frame["path"]}


def _stream_passes(job: Job) -> int:
    return job.trial.epochs * job.n_train + len(job.dataset.test)


def _run_missing(
    jobs: list[Job], run, model, loading: Loading, compact: bool, progress: Progress
) -> None:
    rows_folder = run_folder(run) / "rows"
    rows_folder.mkdir(parents=True, exist_ok=True)
    warn_of_rates([job.trial for job in jobs], model)
    origin = provenance() | {"checkpoint_sha256": getattr(model, "checkpoint_sha256", "")}
    origin |= model_columns(model)
    shown: set[str] = set()

    def record(job: Job, done) -> None:
        """Write a trial's row: its result, or why it failed."""
        if not rows_folder.is_dir():
            raise _deleted(run, "its rows are gone")
        if isinstance(done, Failure):
            if done.ends_run:
                raise WorkerDiffers(done.message)
            if _is_done_by_another(job, compact):
                return
        if compact and not isinstance(done, Failure):
            done = make_compact(*done)
        _record(job, done, model, origin, shown)

    def without_failed(jobs: list[Job], results: dict) -> list[Job]:
        """The jobs that have a result; the others are recorded as failed."""
        for job in jobs:
            if isinstance(results[job.path], Failure):
                record(job, results[job.path])
        return [job for job in jobs if not isinstance(results[job.path], Failure)]

    clock = Clock(model)
    processes = count_jobs(model)
    # A method that cannot take a step is found here, before its clips are embedded.
    costs = {job.path: attempt(_measure, clock, job) for job in jobs}
    jobs = without_failed(jobs, costs)
    if not jobs:
        return
    embedding = _announce(jobs, [costs[job.path] for job in jobs], processes, clock, loading.cache)
    progress.plan({job.file: costs[job.path] for job in jobs}, processes, embedding)
    sources = _make_sources(jobs, model, loading, clock)
    jobs = without_failed(jobs, sources)
    tuned = _tune_all([job for job in jobs if job.trial.tuned_on], costs, model, loading)
    jobs = without_failed(jobs, sources | tuned)
    calls = [
        (
            Call(loading.refer(job), job.trial, model, job.dataset, sources[job.path]),
            tuned.get(job.path),
        )
        for job in jobs
    ]
    seconds = [costs[job.path] for job in jobs]
    progress.begin([job.file for job in jobs])
    for n, done in _run_calls(jobs, calls, seconds, processes, progress):
        record(jobs[n], done)
        progress.finish(jobs[n].file)


def _make_sources(jobs: list[Job], model, loading: Loading, clock: Clock) -> dict[Path, object]:
    """What each job learns from and is tested on, by its path; a Failure where that has a bad clip.

    None where a worker with a cache of its own embeds what it needs.
    """
    if loading.apart:
        return dict.fromkeys(job.path for job in jobs)
    embedded = [job for job in jobs if not (job.uses_stream or job.tunes_audio)]
    if loading.model is not None:
        wanted = [(settings, clips["path"]) for settings, clips in _list_clips(embedded)]
        about = (loading.model, loading.cache, wanted, count_jobs(model), clock.clip())
        embed_in_shards(model, *about)
    sources = _embed_all(embedded, model, loading.cache)
    sources |= {job.path: _audio_source(job, model) for job in jobs if job.tunes_audio}
    return sources | _embed_streams([job for job in jobs if job.uses_stream], model, loading, clock)


def _list_clips(jobs: list[Job]) -> list[tuple[EmbedSettings, pd.DataFrame]]:
    """All clips that the jobs embed, by how."""
    frames: dict[EmbedSettings, list[pd.DataFrame]] = {}
    for job in jobs:
        frames.setdefault(_test_settings(job.trial), []).append(job.dataset.test)
        if job.drawn is not None:
            frames.setdefault(_support_settings(job.trial), []).append(job.drawn)
    return [(settings, unique_clips(found)) for settings, found in frames.items()]


def _announce(jobs: list[Job], seconds: list[float], processes: int, clock: Clock, cache) -> float:
    """Log what there is to do and how long it takes. seconds: of each job. Returns the seconds
    that embedding takes at most.
    """
    # A dataset to tune on that cannot be read fails its trials later.
    tuning = attempt(tuning_work, jobs, clock.model, clock, cache)
    more, tuning_s = (0, 0.0) if isinstance(tuning, Failure) else tuning
    clips = count_passes(jobs, clock.model, cache) + more
    longest = max([*seconds, (sum(seconds) + tuning_s) / processes])
    embedding = clips * clock.clip()
    log.info(
        "To do: %d trials, %d at a time: %s, after at most %s for embedding %d clips",
        len(jobs),
        processes,
        duration(longest),
        duration(embedding),
        clips,
    )
    return embedding


def _is_done_by_another(job: Job, compact: bool) -> bool:
    """Whether another command has finished a trial meanwhile, which failed in this one."""
    row = _read_finished(job, compact)
    return row is not None and "failed" not in row


def _run_calls(
    jobs: list[Job], calls: list[tuple], seconds: list[float], processes: int, progress: Progress
):
    """Yield (n, the result of jobs[n]) as trials finish, with a progress bar."""
    names = [job.trial.name for job in jobs]

    def start(n: int) -> None:
        progress.start(jobs[n].file, names[n])

    # A trial of one method takes a hundred times as long as one of another, so the bar counts
    # seconds of work.
    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} to go{postfix}"
    label = f"of {len(jobs)} trials"
    with progress_bar(sum(seconds), f"0 {label}", "s", bar_format=form) as bar:
        stacks = make_stacks([job.trial for job in jobs], [job.n_train for job in jobs])
        about = (calls, seconds, processes, names, start)
        parallel = in_parallel(_run_job, *about)
        if len(stacks) < len(jobs):
            parallel = run_stacks(_run_job, _run_stack, stacks, *about)
        for count, (n, done) in enumerate(parallel, 1):
            yield n, done
            bar.set_description(f"{count} {label}", refresh=False)
            bar.set_postfix_str(names[n])
            bar.update(seconds[n])


def _measure(clock: Clock, job: Job) -> float:
    """Seconds that a trial will take."""
    return clock.trial(job.trial, job.dataset.class_names, job.n_train, len(job.dataset.test))


def _record(job: Job, done, model, origin: dict, shown: set[str]) -> None:
    """Write a trial's row, with its tensors if it did not fail.

    shown: the failures that the user has read; the same one for many trials is shown once.
    """
    columns = {"key": job.key} | job.digests | origin
    if isinstance(done, Failure):
        level = logging.DEBUG if done.message in shown else logging.WARNING
        log.log(level, "%s failed: %s", job.trial.name, done.message)
        shown.add(done.message)
        log.debug("%s", done.details)
        update_row(job.path, failed_row(job.trial, job.dataset, model, done.message) | columns)
        return
    row, tensors = done
    write_row(job.path, row | columns, tensors)
    log.debug("%s: accuracy %.4f", job.trial.name, row["accuracy"])


# What worker processes are sent.


@dataclass(frozen=True)
class Loading:
    """How workers get the model, and the cache folder, as `embed` takes it.

    model: None where the model must be sent: it has no name, or there is no cache.
    """

    model: ModelReference | None
    cache: object

    @classmethod
    def of(cls, model, checkpoint, cache) -> Loading:
        if checkpoint is None or cache is None:
            return cls(None, cache)
        return cls(ModelReference.of(model, checkpoint), str(cache))

    @property
    def apart(self) -> bool:
        """Whether workers embed into caches of their own what they need."""
        return self.model is not None and not shares_cache()

    def refer(self, job: Job) -> JobReference | None:
        if self.model is None:
            return None
        trial, options = job.trial, job.tested.options
        fold = (trial.dataset, trial.fold, options, job.digests["fold_digest"])
        dataset = DatasetReference.of(*fold)
        return JobReference(trial, self.model, dataset, self.cache, own_versions())


@dataclass(frozen=True)
class JobReference:
    """A job without its model, clips and embeddings: how to load them. About a kilobyte."""

    trial: Trial
    model: ModelReference
    dataset: DatasetReference
    cache: str
    versions: tuple

    def load(self) -> Call:
        """The job with what it needs. Raises WorkerDiffers if this process is no equal worker."""
        check_versions(self.versions)
        trial, model, dataset = self.trial, self.model.load(), self.dataset.load()
        learns = find_method(trial.method).learns
        drawn = self.dataset.draw(trial.shots, trial.seed) if learns else None
        job = Job(trial, dataset, drawn, {}, "", Path())
        if job.uses_stream:
            source = _stream_source(job, model, self.cache)
        elif job.tunes_audio:
            source = _audio_source(job, model)
        else:
            source = self._embedded(job)
        return Call(None, trial, model, dataset, source)

    def _embedded(self, job: Job) -> EmbeddedClips:
        clips = functools.partial(_load_clips, self.model, self.dataset, self.cache)
        test = clips(_test_settings(job.trial), None)
        if not job.n_train:
            return EmbeddedClips(test, None)
        draw = (job.trial.shots, job.trial.seed)
        return EmbeddedClips(test, clips(_support_settings(job.trial), draw))


@functools.lru_cache(64)
def _load_clips(
    model: ModelReference,
    dataset: DatasetReference,
    cache: str,
    settings: EmbedSettings,
    draw: tuple[int, int] | None,
) -> Embeddings:
    """Test clips, or those of a draw, from the cache. This process keeps them for later trials."""
    frame = dataset.load().test if draw is None else dataset.draw(*draw)
    loaded = model.load()
    arguments = settings.arguments(loaded)
    with _no_progress():
        clips = embed(loaded, unique_clips([frame]), cache=cache, **arguments)
    return clips.select(frame)


@dataclass(frozen=True)
class Call:
    """A job with all that it needs. A worker process is sent its reference only, if it has one."""

    reference: JobReference | None
    trial: Trial
    model: object
    dataset: Dataset
    source: object

    def __reduce__(self):
        if self.reference is not None:
            return Referred, (self.reference,)
        return Call, (None, self.trial, self.model, self.dataset, self.source)

    def load(self) -> Call:
        return self


@dataclass(frozen=True)
class Referred:
    """A `Call` as a worker gets it. What cannot be loaded is found when it runs, as its failure."""

    reference: JobReference

    def load(self) -> Call:
        return self.reference.load()


# Clips of trials that learn from frozen embeddings, and of methods that learn nothing.


@dataclass(frozen=True)
class EmbeddedClips:
    """The data of a trial: the embedded test clips, and its embedded draw if it learns."""

    test: Embeddings
    support: Embeddings | None

    def load(self) -> tuple[Embeddings, Embeddings | None]:
        return self.test, self.support


@dataclass(frozen=True)
class EmbedSettings:
    """How clips are embedded. corruption: (kind, strength), or () for none."""

    crop: str | int
    crop_seed: int | str
    corruption: tuple = ()

    def arguments(self, model) -> dict:
        """Arguments of `embed`."""
        transform = Corruption(*self.corruption, model.sample_rate) if self.corruption else None
        return {"crop": self.crop, "crop_seed": self.crop_seed, "transform": transform}


def _test_settings(trial: Trial) -> EmbedSettings:
    corruption = tuple(trial.options.get("corruption", ()))
    return replace(_support_settings(trial), corruption=corruption)


def _support_settings(trial: Trial) -> EmbedSettings:
    seed = crop_seed_at_test(trial.stochastic, trial.seed, trial.crop_seed)
    return EmbedSettings(trial.crop, seed)


def _embed_all(jobs: list[Job], model, cache) -> dict[Path, EmbeddedClips | Failure]:
    """The embedded clips of each job, by its path.

    A clip that cannot be read is a Failure of its dataset's jobs. Raises OSError where the cache
    cannot be written.
    """
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.trial.dataset, []).append(job)
    sources = {}
    for n, (dataset, group) in enumerate(groups.items(), 1):
        label = f"embed {Path(dataset).name} ({n} of {len(groups)})"
        try:
            sources |= _embed_dataset(group, model, cache, label)
        except OSError:
            raise
        except Exception as error:  # whatever a decoder, a model or a corruption raises
            sources |= dict.fromkeys((job.path for job in group), Failure.of(error))
    return sources


def _list_frames(jobs: list[Job]) -> dict[EmbedSettings, dict[ClipSet, pd.DataFrame]]:
    """The clips of jobs, each set of them once: thousands of trials share a few sets."""
    frames: dict[EmbedSettings, dict[ClipSet, pd.DataFrame]] = {}
    for job in jobs:
        frames.setdefault(_test_settings(job.trial), {})[job.tested] = job.dataset.test
        if job.drawn is not None:
            frames.setdefault(_support_settings(job.trial), {})[job.learned] = job.drawn
    return frames


def _embed_dataset(jobs: list[Job], model, cache, label: str) -> dict[Path, EmbeddedClips]:
    """The embedded clips of each job of one dataset, by its path.

    label: of the progress bar. A clip in several folds and draws is encoded once.
    """
    known = {}
    for settings, sets in _list_frames(jobs).items():
        clips = unique_clips(sets.values())
        embedded = embed(model, clips, cache=cache, label=label, **settings.arguments(model))
        selected = embedded.select_each(sets.values())
        known |= {(settings, one): found for one, found in zip(sets, selected, strict=True)}
    return {
        job.path: EmbeddedClips(
            known[_test_settings(job.trial), job.tested],
            known.get((_support_settings(job.trial), job.learned)) if job.n_train else None,
        )
        for job in jobs
    }


# Options that are tuned on another dataset.


def _tune_all(jobs: list[Job], costs: dict, model, loading: Loading) -> dict[Path, dict | Failure]:
    """The tuned options of each job, by its path. They are found once for all jobs that share them:
    those of a method with its options, shots, crop and training.
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
        tasks = load(trial.tuned_on, trial.shots, _support_settings(trial))
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
    """A trial with the tasks that its options are tuned on. A worker loads them, if it can."""

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
        arguments = _support_settings(trial).arguments(model)
        about = (trial.tuned_on, trial.shots, self.loading.cache)
        with skipping_bad(self.skip_bad), _no_progress():
            return trial, model, load_tuning_tasks(model, *about, **arguments)


def _tune(call: TuningCall) -> dict:
    return tune(*call.load())


def _tuned_together(jobs: list[Job]) -> list[list[Job]]:
    """The jobs whose options are tuned, in groups that share them."""
    shared: dict[tuple, list[Job]] = {}
    for job in jobs:
        trial = job.trial
        if trial.tuned_on:
            options = json.dumps(method_options(trial.options), sort_keys=True)
            settings = {name: one for name, one in trial.fit_settings().items() if name != "seed"}
            key = (trial.method, options, trial.tuned_on, trial.shots, _support_settings(trial))
            shared.setdefault((*key, *settings.items()), []).append(job)
    return [*shared.values()]


def tuning_work(jobs: list[Job], model, clock: Clock, cache="default") -> tuple[int, float]:
    """What tuning options for the jobs takes: clips to encode, and seconds on one core."""
    clips: dict[tuple, set[str]] = {}
    seconds = 0.0
    for group in _tuned_together(jobs):
        trial = group[0].trial
        count = len(combinations(find_method(trial.method), method_options(trial.options)))
        wanted = clips.setdefault(_support_settings(trial), set())
        for data, draws in tuning_draws(trial.tuned_on, trial.shots):
            wanted.update(path for frame in (data.test, *draws) for path in frame["path"])
            about = [(data.class_names, len(drawn), len(data.test)) for drawn in draws]
            seconds += count * sum(clock.trial(trial, *one) for one in about)
    missing = [
        count_missing(model, paths, cache, **settings.arguments(model))
        for settings, paths in clips.items()
    ]
    return sum(missing), seconds


# Streams: embeddings of every epoch, for trials of the released protocol.


@dataclass(frozen=True)
class StreamSource:
    """The data of a trial of the released protocol.

    Streams are large, so each trial reads its stream from the cache.
    """

    model: Pengi
    drawn: pd.DataFrame
    test: pd.DataFrame
    settings: dict
    cache: object

    def load(self) -> tuple[Embeddings, EpochEmbeddings]:
        """The embedded test clips with the final statistics of bn0, and the draw in every epoch."""
        settings = self.settings
        stream = embed_stream(self.model, self.drawn, cache=self.cache, **settings)
        seed = crop_seed_at_test(settings["stochastic"], settings["seed"], settings["crop_seed"])
        tested = with_bn_statistics(self.model, stream.bn0)
        test = embed(tested, self.test, cache=self.cache, crop=settings["crop"], crop_seed=seed)
        return test, stream


STREAM_SETTINGS = ("epochs", "batch_size", "seed", "autocast", "crop", "crop_seed")


def _stream_settings(trial: Trial) -> dict:
    """Arguments of `embed_stream`.

    Text dropout is not included: it belongs to the method, not to the stream.
    """
    settings = {name: getattr(trial, name) for name in STREAM_SETTINGS}
    parts = tuple(part for part in trial.stochastic if part != "text_dropout")
    return settings | {"stochastic": parts}


def _stream_key(job: Job) -> tuple[ClipSet, str]:
    """The same for jobs that share a stream. The method is not part of it."""
    return job.learned, json.dumps(_stream_settings(job.trial), sort_keys=True)


def _stream_source(job: Job, model, cache) -> StreamSource:
    return StreamSource(model, job.drawn, job.dataset.test, _stream_settings(job.trial), cache)


def _embed_streams(jobs: list[Job], model, loading: Loading, clock: Clock) -> dict[Path, object]:
    """Compute the streams, several at a time, each once for all methods. A source for each job, by
    its path.

    The source reads the stream from the cache; without a cache it holds it.
    """
    streams = {_stream_key(job): job for job in jobs}
    sources = [_stream_source(job, model, loading.cache) for job in streams.values()]
    seconds = [_stream_passes(job) * clock.clip() for job in streams.values()]
    processes = min(count_jobs(model), max(len(sources), 1))
    quiet = processes > 1  # the bars of several processes would write over each other
    calls = [
        (Call(loading.refer(job), job.trial, model, job.dataset, source), quiet)
        for job, source in zip(streams.values(), sources, strict=True)
    ]
    names = [f"the stream of {job.trial.name}" for job in streams.values()]
    found = dict(zip(streams, sources, strict=True))
    with progress_bar(len(calls) if quiet else 0, "streams", "stream") as bar:
        for n, embedded in in_parallel(_compute_stream, calls, seconds, processes, names):
            if embedded is not None:
                found[[*streams][n]] = embedded
            bar.update()
    return {job.path: found[_stream_key(job)] for job in jobs}


def _compute_stream(call: Call | Referred, quiet: bool) -> EmbeddedClips | None:
    """Compute a stream into the cache. Without a cache it is returned."""
    source = call.load().source
    with _no_progress() if quiet else contextlib.nullcontext():
        embedded = EmbeddedClips(*source.load())
    return embedded if source.cache is None else None


@contextlib.contextmanager
def _no_progress():
    before = os.environ.get("PALMKIT_PROGRESS", "")
    os.environ["PALMKIT_PROGRESS"] = "0"
    try:
        yield
    finally:
        os.environ["PALMKIT_PROGRESS"] = before


# Clips of trials that learn inside the audio encoder.


@dataclass(frozen=True)
class UnembeddedClips:
    """Test clips of such a trial. They are embedded when it has learned."""

    frame: pd.DataFrame
    settings: EmbedSettings

    def embed(self, model) -> Embeddings:
        """The embedded clips. They are not kept: no other trial has this model."""
        arguments = self.settings.arguments(model)
        return embed(model, self.frame, cache=None, on_progress=_show_nothing, **arguments)


def _show_nothing(done: int, total: int) -> None:
    """Instead of a progress bar: several processes would write over each other."""


@dataclass(frozen=True)
class AudioSource:
    """The data of such a trial: its test clips, and the log-mels of its draw.

    Log-mels are large, so each trial reads its own, and they are kept in memory only while it runs.
    """

    model: Pengi
    drawn: pd.DataFrame
    settings: EmbedSettings
    test: UnembeddedClips

    def load(self) -> tuple[UnembeddedClips, Embeddings]:
        crop, crop_seed = self.settings.crop, self.settings.crop_seed
        return self.test, read_inputs(self.model, self.drawn, crop, crop_seed)


def _audio_source(job: Job, model) -> AudioSource:
    test = UnembeddedClips(job.dataset.test, _test_settings(job.trial))
    return AudioSource(model, job.drawn, _support_settings(job.trial), test)


# One trial.


def _run_job(call: Call | Referred, tuned: dict | None) -> tuple[dict, dict]:
    call = call.load()
    clips = call.source.load()
    return run_trial(call.trial, call.model, call.dataset, *clips, tuned=tuned)


def _run_stack(calls: list[tuple[Call | Referred, dict | None]]) -> list[tuple[dict, dict]]:
    """The same for trials that learn together; for one trial, as `_run_job`."""
    if len(calls) == 1:
        return [_run_job(*calls[0])]
    loaded = [call.load() for call, _ in calls]
    return [
        run_trial(call.trial, call.model, call.dataset, *call.source.load(), fitted=fitted)
        for call, fitted in zip(loaded, fit_together(loaded), strict=True)
    ]


def run_trial(
    trial: Trial,
    model,
    dataset: Dataset,
    test: Embeddings | UnembeddedClips,
    support: Embeddings | None,
    tuned: dict | None = None,
    fitted: Fitted | None = None,
) -> tuple[dict, dict]:
    """One trial: its row, and its tensors (test logits and labels, and what was learned as
    `prompt.*`).

    test, support: the embedded test clips, and the embedded draw where the method learns, as
    EpochEmbeddings in the released protocol. For a method that learns inside the audio encoder:
    UnembeddedClips, and what `read_inputs` gives. tuned: the options of regime "transfer".
    fitted: the method, if it has learned in a stack. Then the row's seconds of preparing and
    fitting are its equal share of the stack's, and `stacked` is how many shared them.
    """
    start = time.perf_counter()
    if "pca_dim" in trial.options:
        model, test, support = _project_features(model, test, support, trial.options["pca_dim"])
    fitted = fitted or _learn(trial, model, dataset, support, tuned, start)
    method, chosen, initial = fitted.method, fitted.chosen, fitted.initial
    start = time.perf_counter()
    if method.tunes_audio:
        test = test.embed(method.audio_model())
    logits = predict(method, test.features)
    seconds = (*fitted.seconds, time.perf_counter() - start)
    scores, diverged = _score(logits, test.labels, fitted.diverged)
    row = {
        **_describe(trial, model, dataset, method),
        **({} if initial is None else {"lambdas_initial": initial}),
        **({} if trial.regime == "published" else {"chosen": chosen}),
        **_describe_support(dataset, support),
        **scores,
        "diverged": diverged,
        "n_train": 0 if support is None else len(support.paths),
        "n_test": len(test.labels),
        "losses": fitted.losses,
        "test_offsets": test.offsets if any(test.offsets) else 0,
        "seconds": dict(zip(("prepare", "fit", "test"), _rounded(seconds), strict=True)),
        **({"stacked": fitted.size} if fitted.size > 1 else {}),
        "device": str(model.device),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if initial is not None:
        row["lambdas"] = class_lambdas(method)
    return row, _tensors(method, logits, test, support)


def _learn(trial: Trial, model, dataset: Dataset, support, tuned, start: float) -> Fitted:
    """The trial's method, which has learned. start: when preparing it began."""
    options = method_options(trial.options)
    chosen = _choose(trial, model, dataset, support, options) if tuned is None else tuned
    method = find_method(trial.method)(
        model, dataset.class_names, seed=trial.seed, **options, **chosen
    )
    initial = class_lambdas(method)
    built = time.perf_counter()
    losses, diverged = _fit(trial, model, method, support)
    seconds = (built - start, time.perf_counter() - built)
    return Fitted(method, losses, diverged, seconds, initial, chosen)


def _score(logits, labels, diverged: str) -> tuple[dict, str]:
    """The scores, and why the trial diverged, or "". Divergence is a result too: the row records
    it, and its scores are NaN.
    """
    scores = score(logits, labels)
    if not diverged and not logits.isfinite().all():
        diverged = "logits are not finite; mend the method, or lower lr"
    return (dict.fromkeys(scores, float("nan")) if diverged else scores), diverged


def _choose(trial: Trial, model, dataset: Dataset, support, options: dict) -> dict:
    """Options that are chosen inside the support set; {} in the published regime."""
    if trial.regime == "published":
        return {}
    if trial.tuned_on:
        raise ValueError(f"regime={trial.regime}: give the tuned options, or use run_trials")
    about = (find_method(trial.method), model, dataset.class_names, trial.seed, options)
    return choose_options(*about, support.features, support.labels)


def _fit(trial: Trial, model, method, support) -> tuple[list[float], str]:
    """The losses, and the message if training diverged, else ""."""
    if support is None:
        return [], ""
    dropout = contextlib.nullcontext()
    if "text_dropout" in trial.stochastic:
        dropout = text_dropout(model, trial.seed)
    try:
        with dropout:
            losses = fit(method, support.features, support.labels, **trial.fit_settings())
    except TrainingDiverged as error:
        return error.losses, str(error)
    return losses, ""


def _describe(trial: Trial, model, dataset: Dataset, method) -> dict:
    """The columns of a row that do not depend on training."""
    config = checkpoint_config(model)
    return {
        **asdict(trial),
        "stochastic": stochastic_label(trial),
        "rates": _dropout_rates(config),
        "dataset": dataset.name,
        **({"regime": f"{TRANSFER}{Path(trial.tuned_on).name}"} if trial.tuned_on else {}),
        "note": model.note,
        "model": model.name,
        "model_note": not_pengi_note(model),
        "about": describe(model),
        "rate_source": rate_source(trial, model),
        "class_names": dataset.class_names,
        "trainable": sum(parameter.numel() for parameter in method.parameters()),
        **_describe_left_out(dataset),
    }


def _tell_left_out(dataset: Dataset) -> str:
    count, files = len(dataset.left_out), "; ".join(dataset.left_out[:3])
    more = f" and {count - 3} more, see the rows" if count > 3 else ""
    return f"{dataset.name}: {count} bad files are left out: {files}{more}"


def _describe_left_out(dataset: Dataset) -> dict:
    """The files that --skip-bad left out, if any. The key has the digest of the others."""
    if not dataset.left_out:
        return {}
    return {"n_bad": len(dataset.left_out), "bad_files": list(dataset.left_out)}


def _dropout_rates(config: dict) -> dict:
    """Rates of dropout that a checkpoint's config names, which the released protocol uses."""
    if not {"projection_dropout", "audio"} <= {*config}:
        return {}
    return {
        "dropout": config["projection_dropout"],
        "drop_path": config["audio"]["drop_path_rate"],
    }


def _describe_support(dataset: Dataset, support: Embeddings | None) -> dict:
    if support is None:
        return {}
    of_epochs = isinstance(support, EpochEmbeddings)
    return {
        "clips": [dataset.relative(path) for path in support.paths],
        "clip_offsets": support.offsets[-1] if of_epochs else support.offsets,
    }


def class_lambdas(method) -> list[float] | None:
    """PALM's weight of each class. What another method calls `lambdas` is its own affair."""
    lambdas = getattr(method, "lambdas", None)
    if not isinstance(lambdas, torch.Tensor) or len(method.class_names) != lambdas.numel():
        return None
    return lambdas.flatten().tolist()


def _tensors(method, logits, test: Embeddings, support: Embeddings | None) -> dict:
    tensors = {"logits": logits, "labels": test.labels}
    if isinstance(support, EpochEmbeddings):
        tensors |= {f"bn0.{name}": tensor for name, tensor in support.bn0.items()}
    learned = method.prompt_learner_state()
    return tensors | {f"prompt.{name}": tensor for name, tensor in learned.items()}


def _project_features(model, test: Embeddings, support: Embeddings, pca_dim: int):
    """Model, test clips and support set, all projected to the first principal axes of the support
    set.
    """
    axes = principal_axes(support.features.to(model.dtype).cpu(), pca_dim)
    test, support = (
        replace(clips, features=round_features(normalize(clips.features.to(axes) @ axes)))
        for clips in (test, support)
    )
    return ProjectedModel(model, axes), test, support


def _rounded(seconds: tuple[float, ...]) -> list[float]:
    return [round(one, 3) for one in seconds]
