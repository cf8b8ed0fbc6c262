"""Run trials; each is written as one row. An interrupted grid continues where it stopped."""

from __future__ import annotations

import functools
import logging

from palmkit.data import Dataset
from palmkit.experiments.beside import check_beside
from palmkit.experiments.calls import Call, Loading, run_calls
from palmkit.experiments.embedding import count_passes, make_sources
from palmkit.experiments.executor import Failure, attempt, count_jobs
from palmkit.experiments.failures import TrialsFailed, failed_row, forget_mended
from palmkit.experiments.jobs import Job, prepare
from palmkit.experiments.light_rows import HEAVY_FIELDS
from palmkit.experiments.model_defaults import warn_of_rates
from palmkit.experiments.references import WorkerDiffers, own_versions
from palmkit.experiments.rows import (
    count_old_rows,
    make_compact,
    model_columns,
    provenance,
    read_finished,
    update_row,
    write_row,
)
from palmkit.experiments.settings import check_settings
from palmkit.experiments.status import Progress
from palmkit.experiments.timing import Clock, duration
from palmkit.experiments.trials import Trial
from palmkit.experiments.tuned_options import tune_all, tuning_work
from palmkit.leftovers import remove_abandoned
from palmkit.storage import cache_folder, run_folder
from palmkit.store import finish_abandoned

log = logging.getLogger(__name__)


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
    A trial that fails gets a row that says why, and the others go on.

    retry_failed: run trials again that failed before.
    compact: for thousands of trials. Test logits are kept as float16, and what was learned is not
    kept. A compact row is run again where compact is False.
    checkpoint: what the model was loaded by. Worker processes load it themselves, and read
    embeddings from the cache. Without it they are sent the model and the embeddings.
    details: False returns rows without HEAVY_FIELDS (`light_rows`), which take little memory.

    Raises TrialsFailed at the end if trials failed, and FileNotFoundError if the run's folder is
    deleted meanwhile.
    """
    check_settings()
    jobs = prepare(trials, model, run)
    _warn_of_left_out(jobs)
    remove_abandoned(run_folder(run))
    finish_abandoned(cache_folder(cache))
    shorten = functools.partial(_shorten, details=details)
    rows = {job.path: shorten(_read_finished(job, compact)) for job in jobs}
    unfinished = {path for path, row in rows.items() if _is_unfinished(row, retry_failed)}
    missing = {job.path: job for job in jobs if job.path in unfinished}
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


def _warn_of_left_out(jobs: list[Job]) -> None:
    """Name the files that --skip-bad left out, once for each dataset and set of files."""
    lines = [_describe_left_out(job.dataset) for job in jobs if job.dataset.left_out]
    for line in dict.fromkeys(lines):
        log.warning("%s", line)


def _describe_left_out(dataset: Dataset) -> str:
    count, files = len(dataset.left_out), "; ".join(dataset.left_out[:3])
    more = f" and {count - 3} more, see the rows" if count > 3 else ""
    return f"{dataset.name}: {count} bad files are left out: {files}{more}"


def _is_unfinished(row: dict | None, retry_failed: bool) -> bool:
    return row is None or (retry_failed and "failed" in row)


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


def _run_missing(
    jobs: list[Job], run, model, loading: Loading, compact: bool, progress: Progress
) -> None:
    """Run the jobs, and write their rows. A job that fails in one step is left out of the next."""
    rows = _Rows(run, model, compact)
    warn_of_rates([job.trial for job in jobs], model)
    clock = Clock(model)
    processes = count_jobs(model)
    # A method that cannot take a step is found here, before its clips are embedded.
    costs = {job.path: attempt(_measure, clock, job) for job in jobs}
    jobs = rows.without_failed(jobs, costs)
    if not jobs:
        return
    embedding = _announce(jobs, [costs[job.path] for job in jobs], processes, clock, loading.cache)
    progress.plan({job.file: costs[job.path] for job in jobs}, processes, embedding)
    sources = make_sources(jobs, model, loading, clock)
    jobs = rows.without_failed(jobs, sources)
    tuned = tune_all([job for job in jobs if job.trial.tuned_on], costs, model, loading)
    jobs = rows.without_failed(jobs, sources | tuned)
    calls = [
        (
            Call(loading.refer(job), job.trial, model, job.dataset, sources[job.path]),
            tuned.get(job.path),
        )
        for job in jobs
    ]
    seconds = [costs[job.path] for job in jobs]
    progress.begin([job.file for job in jobs])
    for n, done in run_calls(jobs, calls, seconds, processes, progress):
        rows.record(jobs[n], done)
        progress.finish(jobs[n].file)


def _measure(clock: Clock, job: Job) -> float:
    """Seconds that a trial will take."""
    return clock.trial(job.trial, job.dataset.class_names, job.n_train, len(job.dataset.test))


def _announce(jobs: list[Job], seconds: list[float], processes: int, clock: Clock, cache) -> float:
    """Log what there is to do and how long it takes.

    seconds: of each job. Returns the seconds that embedding takes at most.
    """
    # A dataset to tune on that cannot be read fails its trials later.
    tuning = attempt(tuning_work, jobs, clock.model, clock, cache)
    more, tuning_s = (0, 0.0) if isinstance(tuning, Failure) else tuning
    clips = count_passes(jobs, clock.model, cache) + more
    processes = min(processes, len(jobs))
    longest = max([*seconds, (sum(seconds) + tuning_s) / processes])
    embedding = clock.embedding(clips)
    log.info(
        "To do: %d trials, %d at a time: %s, after at most %s for embedding %d clips",
        len(jobs),
        processes,
        duration(longest),
        duration(embedding),
        clips,
    )
    return embedding


class _Rows:
    """Writes the rows of a run: the result of each trial, or why it failed."""

    def __init__(self, run, model, compact: bool):
        self.run, self.model, self.compact = run, model, compact
        self.folder = run_folder(run) / "rows"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.origin = provenance()
        self.origin |= {"checkpoint_sha256": getattr(model, "checkpoint_sha256", "")}
        self.origin |= model_columns(model)
        self.shown: set[str] = set()  # failures that the user has read

    def record(self, job: Job, done) -> None:
        """Write a trial's row. done: its row and tensors, or a Failure.

        Raises WorkerDiffers for a Failure that ends the run, and FileNotFoundError if the folder
        is gone.
        """
        if not self.folder.is_dir():
            raise _deleted(self.run, "its rows are gone")
        if isinstance(done, Failure):
            self._record_failure(job, done)
            return
        row, tensors = make_compact(*done) if self.compact else done
        write_row(job.path, row | self._columns(job), tensors)
        log.debug("%s: accuracy %.4f", job.trial.name, row["accuracy"])

    def without_failed(self, jobs: list[Job], results: dict) -> list[Job]:
        """The jobs that have a result; the others are recorded as failed."""
        for job in jobs:
            if isinstance(results[job.path], Failure):
                self.record(job, results[job.path])
        return [job for job in jobs if not isinstance(results[job.path], Failure)]

    def _record_failure(self, job: Job, failure: Failure) -> None:
        """Write why a trial failed. A reason that many trials share is shown once."""
        if failure.ends_run:
            raise WorkerDiffers(failure.message)
        if self._is_done_by_another(job):
            return
        level = logging.DEBUG if failure.message in self.shown else logging.WARNING
        log.log(level, "%s failed: %s", job.trial.name, failure.message)
        self.shown.add(failure.message)
        log.debug("%s", failure.details)
        row = failed_row(job.trial, job.dataset, self.model, failure.message)
        update_row(job.path, row | self._columns(job))

    def _is_done_by_another(self, job: Job) -> bool:
        """Whether another command has finished a trial meanwhile, which failed in this one."""
        row = _read_finished(job, self.compact)
        return row is not None and "failed" not in row

    def _columns(self, job: Job) -> dict:
        """The columns that a trial does not know of itself."""
        return {"key": job.key} | job.digests | self.origin
