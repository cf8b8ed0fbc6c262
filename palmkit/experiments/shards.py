"""Clips embedded by worker processes before the trials, in shards, into the cache that they share.

A shard is a list of clips. A clip's embedding depends on nothing but the clip, so shards give the
bits that one process gives. What a shard leaves out, for a file that cannot be read or a lost
worker, is embedded afterwards by the command, which then says what is wrong.
"""

from __future__ import annotations

import logging
import math
import os

from palmkit.embeddings import embed
from palmkit.experiments.cached import list_missing
from palmkit.experiments.executor import START, Failure, in_parallel, uses_engine
from palmkit.experiments.quiet import show_nothing
from palmkit.experiments.references import ModelReference, check_versions, own_versions
from palmkit.storage import progress_bar

log = logging.getLogger(__name__)

SMALLEST, LARGEST = 16, 1024  # clips of a shard
SHARDS = 4  # for each worker, so that all end at about the same time
DECODERS = 2  # threads of a worker that decode: others use the other cores


def embed_in_shards(
    model, reference: ModelReference, cache: str, wanted: list[tuple], jobs: int, clock
) -> None:
    """Embed clips into the cache by `jobs` workers, where that saves time.

    wanted: (settings, paths) with `settings.arguments(model)` those of `embed`. clock: a Clock
    of the model.
    """
    if jobs < 2 and not uses_engine():
        return
    calls = []
    for settings, paths in wanted:
        missing = list_missing(model, paths, cache, **settings.arguments(model))
        size = shard_size(len(missing), jobs)
        shards = [missing[n : n + size] for n in range(0, len(missing), size)]
        calls += [(reference, own_versions(), cache, settings, shard) for shard in shards]
    seconds = [clock.embedding(len(call[-1])) for call in calls]
    if not uses_engine() and (sum(seconds) <= START or len(calls) < 2):
        return
    names = [f"a shard of {len(call[-1])} clips" for call in calls]
    label = f"embed in {len(calls)} shards"
    with progress_bar(sum(len(call[-1]) for call in calls), label, "clip") as bar:
        for n, done in in_parallel(embed_shard, calls, seconds, jobs, names):
            if isinstance(done, Failure):
                log.debug("%s: %s\n%s", names[n], done.message, done.details)
            bar.update(len(calls[n][-1]))


def shard_size(clips: int, jobs: int) -> int:
    """Clips of a shard."""
    return min(max(math.ceil(clips / (SHARDS * jobs)), SMALLEST), LARGEST)


def embed_shard(reference, versions, cache, settings, paths) -> int:
    """In a worker: embed the clips into its cache. Returns their number."""
    check_versions(versions)
    model = reference.load()
    decoders = min(DECODERS, os.cpu_count() or 1)
    arguments = settings.arguments(model)
    embed(model, paths, cache=cache, workers=decoders, on_progress=show_nothing, **arguments)
    return len(paths)
