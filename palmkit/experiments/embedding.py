"""Embeddings of clips and streams before the trials run, in this process or by workers."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pandas as pd

from palmkit.embeddings import embed, unique_clips
from palmkit.experiments.cached import count_missing
from palmkit.experiments.calls import Call, Loading, Referred
from palmkit.experiments.clip_sources import (
    EmbeddedClips,
    EmbedSettings,
    audio_source,
    settings_at_test,
    stream_key,
    stream_source,
    support_settings,
)
from palmkit.experiments.executor import Failure, count_jobs, in_parallel
from palmkit.experiments.jobs import ClipSet, Job
from palmkit.experiments.quiet import no_progress
from palmkit.experiments.shards import embed_in_shards
from palmkit.experiments.timing import Clock
from palmkit.storage import progress_bar


def make_sources(jobs: list[Job], model, loading: Loading, clock: Clock) -> dict[Path, object]:
    """The clips of each job, by its path; a Failure where one of them cannot be read.

    None where workers have caches of their own, and embed what they need.
    """
    if loading.apart:
        return dict.fromkeys(job.path for job in jobs)
    embedded = [job for job in jobs if not (job.uses_stream or job.tunes_audio)]
    if loading.model is not None:
        frames = _list_frames(embedded).items()
        wanted = [(settings, unique_clips(sets.values())["path"]) for settings, sets in frames]
        about = (loading.model, loading.cache, wanted, count_jobs(model), clock)
        embed_in_shards(model, *about)
    sources = _embed_all(embedded, model, loading.cache)
    sources |= {job.path: audio_source(job, model) for job in jobs if job.tunes_audio}
    return sources | _embed_streams([job for job in jobs if job.uses_stream], model, loading, clock)


def count_passes(jobs: list[Job], model, cache="default") -> int:
    """How many clips are to be encoded before the trials.

    A clip counts once, if the cache does not have it. A training clip of a stream counts once for
    each epoch, and a test clip once for each stream, also where the cache has them. What a trial
    of ASPL encodes is part of the trial, and not counted.
    """
    embedded = [job for job in jobs if not (job.uses_stream or job.tunes_audio)]
    missing = [
        count_missing(model, _paths_of(sets.values()), cache, **settings.arguments(model))
        for settings, sets in _list_frames(embedded).items()
    ]
    streams = {stream_key(job): job for job in jobs if job.uses_stream}
    return sum(missing) + sum(map(_stream_passes, streams.values()))


def _paths_of(frames) -> set[str]:
    return {path for frame in frames for path in frame["path"]}


def _stream_passes(job: Job) -> int:
    """Clips that are encoded for a stream, and for its test."""
    return job.trial.epochs * job.n_train + len(job.dataset.test)


# Frozen embeddings.


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
            known[settings_at_test(job.trial), job.tested],
            known.get((support_settings(job.trial), job.learned)) if job.n_train else None,
        )
        for job in jobs
    }


def _list_frames(jobs: list[Job]) -> dict[EmbedSettings, dict[ClipSet, pd.DataFrame]]:
    """The sets of clips by how they are embedded. Each once: many trials share a few sets."""
    frames: dict[EmbedSettings, dict[ClipSet, pd.DataFrame]] = {}
    for job in jobs:
        frames.setdefault(settings_at_test(job.trial), {})[job.tested] = job.dataset.test
        if job.drawn is not None:
            frames.setdefault(support_settings(job.trial), {})[job.learned] = job.drawn
    return frames


# Streams.


def _embed_streams(jobs: list[Job], model, loading: Loading, clock: Clock) -> dict[Path, object]:
    """Compute each stream once for all methods, several at a time. Returns sources by job path.

    A source reads the stream from the cache. Without a cache it holds the stream.
    """
    streams = {stream_key(job): job for job in jobs}
    sources = [stream_source(job, model, loading.cache) for job in streams.values()]
    seconds = [clock.embedding(_stream_passes(job)) for job in streams.values()]
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
    return {job.path: found[stream_key(job)] for job in jobs}


def _compute_stream(call: Call | Referred, quiet: bool) -> EmbeddedClips | None:
    """Compute a stream into the cache. Without a cache it is returned."""
    source = call.load().source
    with no_progress() if quiet else contextlib.nullcontext():
        embedded = EmbeddedClips(*source.load())
    return embedded if source.cache is None else None
