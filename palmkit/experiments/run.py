"""Units of work: one method, fold and seed, written as one row. A grid that stops goes on where it stopped."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import platform
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from safetensors.torch import save

from palmkit.corruptions import Corruption
from palmkit.data import Dataset, draw_shots
from palmkit.datasets.resolve import load_dataset
from palmkit.embeddings import Embeddings, embed, unique_clips
from palmkit.experiments.executor import count_jobs, in_parallel
from palmkit.experiments.rows import read_row, row_path, trial_key
from palmkit.experiments.timing import Clock, minutes
from palmkit.experiments.trials import Trial, parts_label
from palmkit.experiments.variations import (
    ProjectedModel,
    method_options,
    modify_draw,
    modify_task,
    principal_axes,
)
from palmkit.methods import METHODS, UNLEARNED
from palmkit.methods.base import normalize
from palmkit.protocols.streams import EpochEmbeddings, crop_seed_at_test, embed_stream
from palmkit.protocols.train_mode import text_dropout, with_bn_statistics
from palmkit.storage import atomic_write, progress_bar
from palmkit.training import TrainingDiverged, fit, predict, score

PACKAGES = (
    "torch",
    "torchaudio",
    "timm",
    "open_clip_torch",
    "numpy",
    "pandas",
    "scikit-learn",
    "soundfile",
)


@dataclass(frozen=True)
class Job:
    """A unit with all that is needed to run it, and where its row belongs."""

    unit: Trial
    dataset: Dataset
    drawn: pd.DataFrame | None  # the training clips; None where nothing is learned
    key: str
    path: Path

    @property
    def frames(self):
        """The clips to test on and to learn from."""
        return self.dataset.test, self.drawn


def run_trials(units: list[Trial], model, run, cache="default", told=None) -> list[dict]:
    """Run the units that `runs/RUN` has no row of; all rows, in the units' order.

    Clips are embedded first; then units run, several at a time on a CPU (see `workers`), behind one progress bar.
    told: called with a sentence on what is about to be done and how long it will take, measured on this machine.
    """
    jobs = prepare(units, model, run)
    missing = {job.path: job for job in jobs if read_row(job.path, job.key) is None}
    if missing:
        _run_missing([*missing.values()], model, {"cache": cache}, told)
    return [read_row(job.path, job.key) for job in jobs]


def prepare(units: list[Trial], model, run) -> list[Job]:
    """Each unit with its fold, its draw and its key. A fold is read once, and drawn from once a seed."""
    weights = model.digest()
    read = functools.cache(load_dataset)

    @functools.cache
    def load(dataset, fold, options):
        varied = modify_task(read(dataset, fold), **json.loads(options))
        return varied, varied.digest()

    @functools.cache
    def draw(dataset, fold, options, shots, seed):
        return modify_draw(
            draw_shots(load(dataset, fold, options)[0].train, shots, seed), **json.loads(options)
        )

    jobs = []
    for unit in units:
        task = unit.dataset, unit.fold, json.dumps(unit.options, sort_keys=True)
        dataset, digest = load(*task)
        drawn = None if unit.method in UNLEARNED else draw(*task, unit.shots, unit.seed)
        key = trial_key(unit, digest, weights, model.config)
        jobs.append(Job(unit, dataset, drawn, key, row_path(run, unit, key)))
    return jobs


def _run_missing(jobs: list[Job], model, cache: dict, told) -> None:
    clock, processes, weights = Clock(model), count_jobs(model), model.digest()
    seconds = [
        clock.unit(job.unit, job.dataset.class_names, len(_clips(job)), len(job.dataset.test))
        for job in jobs
    ]
    if told:
        clips, longest = count_passes(jobs), max([*seconds, sum(seconds) / processes])
        told(
            f"{len(jobs)} units, {processes} at a time: {minutes(longest)}, after at most "
            f"{minutes(clips * clock.clip())} for embedding {clips} clips"
        )
    embedded = _embed_all([job for job in jobs if not _uses_stream(job)], model, cache)
    heard = _embed_streams([job for job in jobs if _uses_stream(job)], model, cache, clock)
    calls = [
        (
            job.unit,
            model,
            job.dataset,
            heard(job) if _uses_stream(job) else [embedded(job, frame) for frame in job.frames],
        )
        for job in jobs
    ]
    # A unit of one method takes a hundred times as long as one of another, so the bar counts seconds of work.
    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} to go{postfix}"
    with progress_bar(sum(seconds), f"{len(jobs)} units", "s", bar_format=form) as bar:
        for n, (row, tensors) in in_parallel(_run, calls, seconds, processes):
            row |= {"key": jobs[n].key, "weights": weights}
            atomic_write(jobs[n].path.with_suffix(".safetensors"), save(tensors))
            atomic_write(
                jobs[n].path, json.dumps(row, indent=1)
            )  # last: a row that is there is complete
            bar.set_postfix_str(jobs[n].unit.name)
            bar.update(seconds[n])


def _clips(job: Job) -> list[str]:
    return [] if job.drawn is None else list(job.drawn["path"])


def _embed_all(jobs: list[Job], model, cache: dict):
    """A function that gives a job's frame as Embeddings. A clip is encoded once, in however many folds and draws."""
    frames: dict[tuple, dict] = {}

    def setting(job, frame):  # only what is tested on is damaged
        damage = job.unit.options.get("damage") if frame is job.dataset.test else None
        return *_crop(job.unit), tuple(damage or ())

    for job in jobs:
        for frame in filter(lambda frame: frame is not None, job.frames):
            frames.setdefault(setting(job, frame), {})[id(frame)] = frame
    known = {}
    for (crop, seed, damage), those in frames.items():
        options = {"transform": Corruption(*damage, model.sample_rate)} if damage else {}
        found = embed(
            model, unique_clips(those.values()), crop=crop, crop_seed=seed, **options, **cache
        )
        known |= {(crop, seed, damage, n): found.select(frame) for n, frame in those.items()}
    return lambda job, frame: None if frame is None else known[(*setting(job, frame), id(frame))]


def _crop(unit: Trial):
    """How test clips are cropped: `crop` and `crop_seed` of `embed`."""
    return unit.crop, crop_seed_at_test(unit.parts, unit.seed, unit.crop_seed)


def _uses_stream(job: Job) -> bool:
    """Whether a unit learns from a stream, not from a table."""
    return job.unit.protocol == "released" and job.drawn is not None


def _stream_of(job: Job) -> tuple:
    """Jobs with the same draw and the same of these share a stream: the method is not among them."""
    unit, parts = job.unit, tuple(part for part in job.unit.parts if part != "text_dropout")
    settings = dict(
        epochs=unit.epochs,
        batch_size=unit.batch_size,
        seed=unit.seed,
        stochastic=parts,
        autocast=unit.autocast,
    )
    return (
        id(job.drawn),
        id(job.dataset.test),
        *(settings | {"crop": unit.crop, "crop_seed": unit.crop_seed}).items(),
    )


def count_passes(jobs: list[Job]) -> int:
    """Clips that go through the audio encoder at most: each once, or in all epochs of each stream and once at test."""
    frozen = [job for job in jobs if not _uses_stream(job)]
    streams = {_stream_of(job): job for job in jobs if _uses_stream(job)}.values()
    plain = len({path for job in frozen for path in [*job.dataset.test["path"], *_clips(job)]})
    return plain + sum(job.unit.epochs * len(job.drawn) + len(job.dataset.test) for job in streams)


def _embed_streams(jobs: list[Job], model, cache: dict, clock: Clock):
    """Compute the streams, several at a time, each once for all methods. A function that gives a job's source: the
    arguments of `hear`, for streams are large and a unit had better read its own; without a cache, what it gives."""
    jobs = {_stream_of(job): job for job in jobs}
    calls = [
        (model, job.drawn, job.dataset.test, dict(stream[2:]), cache)
        for stream, job in jobs.items()
    ]
    sources = dict(zip(jobs, calls, strict=True))
    seconds = [count_passes([job]) * clock.clip() for job in jobs.values()]
    processes = min(count_jobs(model), max(len(calls), 1))
    with progress_bar(len(calls) if processes > 1 else 0, "streams", "stream") as bar:
        for n, heard in in_parallel(
            _embed_stream_quietly if processes > 1 else embed_stream_and_test,
            calls,
            seconds,
            processes,
        ):
            if heard and cache["cache"] is None:
                sources[[*jobs][n]] = heard
            bar.update()
    return lambda job: sources[_stream_of(job)]


def embed_stream_and_test(
    model, drawn, test, settings: dict, cache: dict
) -> tuple[Embeddings, EpochEmbeddings]:
    """The test clips as they sound once bn0 has drifted, and the draw in every epoch."""
    stream = embed_stream(model, drawn, **settings, **cache)
    seed = crop_seed_at_test(settings["stochastic"], settings["seed"], settings["crop_seed"])
    return embed(
        with_bn_statistics(model, stream.bn0), test, crop=settings["crop"], crop_seed=seed, **cache
    ), stream


def _embed_stream_quietly(*call):
    """The bars of several processes would write over each other; what the cache has need not come through a pipe."""
    before = os.environ.get("PALMKIT_PROGRESS", "")
    os.environ["PALMKIT_PROGRESS"] = "0"
    try:
        heard = embed_stream_and_test(*call)
    finally:
        os.environ["PALMKIT_PROGRESS"] = before
    return heard if call[-1]["cache"] is None else None


def _run(unit: Trial, model, dataset: Dataset, source) -> tuple[dict, dict]:
    return run_trial(
        unit, model, dataset, *(source if len(source) == 2 else embed_stream_and_test(*source))
    )


def run_trial(
    unit: Trial, model, dataset: Dataset, test: Embeddings, support: Embeddings | None
) -> tuple[dict, dict]:
    """One unit: its row, and its tensors (test logits and labels, and what was learned as `prompt.*`).

    test, support: the embedded test clips, and the embedded draw where the method learns; a Stream of it if the
    protocol is the released one.
    """
    clock = [time.perf_counter()]
    if "width" in unit.options:
        model, test, support = project_features(model, test, support, unit.options["width"])
    method = METHODS[unit.method](
        model, dataset.class_names, seed=unit.seed, **method_options(unit.options)
    )
    row = {
        **asdict(unit),
        "parts": parts_label(unit),
        "rates": {
            "dropout": model.config["projection_dropout"],
            "drop_path": model.config["audio"]["drop_path_rate"],
        },
        "dataset": dataset.name,
        "note": model.note,
        "model_note": model.config["note"],
        "class_names": dataset.class_names,
        "trainable": sum(parameter.numel() for parameter in method.parameters()),
    }
    if hasattr(method, "lambdas"):
        row["lambdas_initial"] = method.lambdas.tolist()
    losses, diverged = [], ""
    clock.append(time.perf_counter())
    if support is not None:
        row["clips"] = [dataset.relative(path) for path in support.paths]
        row["clip_offsets"] = (
            support.offsets[-1] if isinstance(support, EpochEmbeddings) else support.offsets
        )
        settings = {
            name: getattr(unit, name) for name in ("epochs", "batch_size", "lr", "momentum", "seed")
        }
        noise = (
            text_dropout(model, unit.seed)
            if "text_dropout" in unit.parts
            else contextlib.nullcontext()
        )
        try:
            with noise:
                losses = fit(method, support.features, support.labels, **settings)
        except (
            TrainingDiverged
        ) as error:  # an outcome like another: the row says so, and its scores are NaN
            losses, diverged = error.losses, str(error)
    clock.append(time.perf_counter())
    logits = predict(method, test.features)
    clock.append(time.perf_counter())
    scores = score(logits, test.labels)
    row |= dict.fromkeys(scores, float("nan")) if diverged else scores
    row |= {
        "diverged": diverged,
        "n_train": len(row.get("clips", [])),
        "n_test": len(test.labels),
        "losses": losses,
        "test_offsets": test.offsets if any(test.offsets) else 0,
        "seconds": dict(zip(("prepare", "fit", "test"), _differences(clock), strict=True)),
        "device": str(model.device),
        "versions": {package: version(package) for package in PACKAGES}
        | {"python": platform.python_version()},
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if hasattr(method, "lambdas"):
        row["lambdas"] = method.lambdas.tolist()
    tensors = {"logits": logits, "labels": test.labels}
    if isinstance(support, EpochEmbeddings):
        tensors |= {f"bn0.{name}": tensor for name, tensor in support.bn0.items()}
    return row, tensors | {
        f"prompt.{name}": tensor for name, tensor in method.prompt_learner_state().items()
    }


def project_features(model, test: Embeddings, support: Embeddings | None, width: int):
    """Model, test clips and support set, all projected to the first `width` principal axes of the support set."""
    if support is None:
        raise ValueError(
            "width: the axes are the support set's, and a method that learns nothing has none"
        )
    axes = principal_axes(support.features, width)
    parts = (replace(part, features=normalize(part.features @ axes)) for part in (test, support))
    return ProjectedModel(model, axes), *parts


def _differences(clock):
    return [round(after - before, 3) for before, after in zip(clock, clock[1:], strict=False)]
