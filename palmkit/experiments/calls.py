"""What worker processes are sent, and what they run.

With a named model and a cache, a worker is sent references and loads the rest itself. Without, it
is sent the model and the embeddings.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from palmkit.data import Dataset
from palmkit.embeddings import Embeddings, embed, unique_clips
from palmkit.experiments.clip_sources import (
    EmbeddedClips,
    EmbedSettings,
    audio_source,
    settings_at_test,
    stream_source,
    support_settings,
)
from palmkit.experiments.executor import in_parallel, shares_cache
from palmkit.experiments.jobs import Job
from palmkit.experiments.one_trial import run_trial
from palmkit.experiments.quiet import no_progress
from palmkit.experiments.references import (
    DatasetReference,
    ModelReference,
    check_versions,
    own_versions,
)
from palmkit.experiments.stacks import fit_together, make_stacks, run_stacks
from palmkit.experiments.status import Progress
from palmkit.experiments.trials import Trial, find_method
from palmkit.storage import progress_bar


@dataclass(frozen=True)
class Loading:
    """How workers get the model and the embeddings.

    model: None where the model must be sent, because it has no name or there is no cache.
    cache: the folder, as `embed` takes it.
    """

    model: ModelReference | None
    cache: object

    @classmethod
    def of(cls, model, checkpoint, cache) -> Loading:
        """checkpoint: what the model was loaded by, or None."""
        if checkpoint is None or cache is None:
            return cls(None, cache)
        return cls(ModelReference.of(model, checkpoint), str(cache))

    @property
    def apart(self) -> bool:
        """Whether workers have caches of their own, and embed what they need."""
        return self.model is not None and not shares_cache()

    def refer(self, job: Job) -> JobReference | None:
        """What a worker is sent instead of the job; None where it is sent the job itself."""
        if self.model is None:
            return None
        trial, options = job.trial, job.tested.options
        fold = (trial.dataset, trial.fold, options, job.digests["fold_digest"])
        dataset = DatasetReference.of(*fold)
        return JobReference(trial, self.model, dataset, self.cache, own_versions())


@dataclass(frozen=True)
class JobReference:
    """How to load a job with its model, clips and embeddings. About a kilobyte."""

    trial: Trial
    model: ModelReference
    dataset: DatasetReference
    cache: str
    versions: tuple

    def load(self) -> Call:
        """The job with all that it needs.

        Raises WorkerDiffers if this process has other versions, weights or clips.
        """
        check_versions(self.versions)
        trial, model, dataset = self.trial, self.model.load(), self.dataset.load()
        learns = find_method(trial.method).learns
        drawn = self.dataset.draw(trial.shots, trial.seed) if learns else None
        job = Job(trial, dataset, drawn, {}, "", Path())
        if job.uses_stream:
            source = stream_source(job, model, self.cache)
        elif job.tunes_audio:
            source = audio_source(job, model)
        else:
            source = self._embedded(job)
        return Call(None, trial, model, dataset, source)

    def _embedded(self, job: Job) -> EmbeddedClips:
        clips = functools.partial(_load_clips, self.model, self.dataset, self.cache)
        test = clips(settings_at_test(job.trial), None)
        if not job.n_train:
            return EmbeddedClips(test, None)
        draw = (job.trial.shots, job.trial.seed)
        return EmbeddedClips(test, clips(support_settings(job.trial), draw))


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
    with no_progress():
        clips = embed(loaded, unique_clips([frame]), cache=cache, **arguments)
    return clips.select(frame)


@dataclass(frozen=True)
class Call:
    """A trial with all that it needs. If it has a reference, pickling keeps only that."""

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
    """A `Call` as a worker gets it. It loads when it runs, so an error is that trial's failure."""

    reference: JobReference

    def load(self) -> Call:
        return self.reference.load()


# In a worker.


def _run_job(call: Call | Referred, tuned: dict | None) -> tuple[dict, dict]:
    """Row and tensors of a trial. tuned: the options of regime "transfer"."""
    call = call.load()
    clips = call.source.load()
    return run_trial(call.trial, call.model, call.dataset, *clips, tuned=tuned)


def _run_stack(calls: list[tuple[Call | Referred, dict | None]]) -> list[tuple[dict, dict]]:
    """Row and tensors of each trial of a stack. They learn together, if there are several."""
    if len(calls) == 1:
        return [_run_job(*calls[0])]
    loaded = [call.load() for call, _ in calls]
    return [
        run_trial(call.trial, call.model, call.dataset, *call.source.load(), fitted=fitted)
        for call, fitted in zip(loaded, fit_together(loaded), strict=True)
    ]


# In the command.


def run_calls(
    jobs: list[Job], calls: list[tuple], seconds: list[float], processes: int, progress: Progress
):
    """Yield (n, the row and tensors of jobs[n], or a Failure) as trials finish.

    calls: arguments of `_run_job` for each job. seconds: of each job.
    """
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
