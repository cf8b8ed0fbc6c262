"""Units of work: one method, fold and seed, written as one row. A grid that stops goes on where it stopped."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import platform
import time
import warnings
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save

from palmkit import audio
from palmkit.data import Dataset, choose_folds, draw_shots, load_dataset
from palmkit.embeddings import EMBEDDING_VERSION, Embeddings, embed, once
from palmkit.methods import METHODS, UNLEARNED
from palmkit.methods import unit as unit_length
from palmkit.released import STREAM_VERSION, Stream, check_parts, crop_seed_at_test, drifted, embed_stream, text_dropout
from palmkit.runs.variations import Narrowed, method_options, principal_axes, vary, vary_draw
from palmkit.runs.workers import Clock, count_jobs, in_parallel, minutes
from palmkit.storage import atomic_write, progress_bar, run_folder
from palmkit.training import TrainingDiverged, fit, predict, score

UNIT_VERSION = 1  # raise it when a unit's result changes for other reasons than its settings
TRAINED = ("shots", "epochs", "batch_size", "lr", "momentum")  # settings that a method which learns nothing has not
UNTRAINED = {"shots": 0, "epochs": 0}
PROTOCOLS = ("frozen", "released")  # the paper's text, and what its published code does
PAPER_METHODS = ("zeroshot", "coop", "cocoop", "palm")
PACKAGES = ("torch", "torchaudio", "timm", "open_clip_torch", "numpy", "pandas", "scikit-learn", "soundfile")


@dataclass(frozen=True)
class Unit:
    """What to run. The defaults are the paper's settings.

    parts: what is random in the released protocol, "all" or some of `palmkit.released.PARTS`; nothing is in the frozen.
    autocast: the released protocol's audio encoder in half precision where PyTorch thinks it safe; faster on a GPU.
    options: go to the method (context_length=8, say); those of `palmkit.runs.variations` change the task instead.
    """

    method: str
    dataset: str
    fold: int | None = None
    seed: int = 0
    shots: int = 16
    protocol: str = "frozen"
    parts: str | tuple[str, ...] = "all"
    epochs: int = 50
    batch_size: int = 16
    lr: float = 0.05
    momentum: float = 0.9
    crop: str | int = "random"
    crop_seed: int = 0
    autocast: bool = False
    options: dict = field(default_factory=dict)

    def __post_init__(self):
        check_methods([self.method])
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"there is no protocol {self.protocol!r}; there are {', '.join(PROTOCOLS)}")
        if self.protocol == "frozen" and self.parts not in ("all", ()):
            raise ValueError(f"parts={self.parts!r} are the released protocol's; in the frozen one nothing is random")
        if self.protocol == "frozen" and self.autocast:
            raise ValueError("autocast is for the released protocol; in the frozen one clips are encoded only once")
        if self.protocol == "released" and (given := {"width", "damage"} & set(self.options)):
            raise ValueError(f"{', '.join(sorted(given))}: only in the frozen protocol, where clips have one embedding")
        parts = check_parts(self.parts) if self.protocol == "released" else ()
        if self.method in UNLEARNED:  # is only tested
            parts = tuple(part for part in parts if part == "crops")
            object.__setattr__(self, "autocast", False)
        object.__setattr__(self, "parts", parts)

    @property
    def name(self) -> str:
        return f"{self.method} on {Path(self.dataset).name}, fold {self.fold}, seed {self.seed}"


def check_methods(methods) -> None:
    if unknown := [method for method in methods if method not in METHODS]:
        raise ValueError(f"there is no method {unknown[0]!r}; there are {', '.join(METHODS)}")


def plan(methods, datasets, folds="all", seeds=(0, 1, 2), **settings) -> list[Unit]:
    """The grid's units. folds: "all", "first" or numbers; methods: names or "all" (the paper's four).

    A method that learns nothing runs with the first seed only, as in the paper. Raises before anything is run.
    """
    methods = PAPER_METHODS if methods == "all" else methods
    for method in methods:  # is refused before datasets, which may have to be generated
        Unit(method, "", **settings)
    units = [
        unit
        for dataset in datasets
        for unit in grid(methods, str(dataset), choose_folds(dataset, folds), seeds, **settings)
    ]
    if not units:
        raise ValueError("nothing to run: name at least one method, dataset and seed")
    return units


def grid(methods, dataset: str, folds, seeds, **settings) -> list[Unit]:
    """One dataset's units, of these very folds."""
    return [
        Unit(method, dataset, fold, seed, **(settings | (UNTRAINED if method in UNLEARNED else {})))
        for fold in folds
        for seed in seeds
        for method in (PAPER_METHODS if methods == "all" else methods)
        if method not in UNLEARNED or seed == seeds[0]
    ]


def sweep(setting: str, values, methods, datasets, folds="all", seeds=(0, 1, 2), **settings) -> list[Unit]:
    """The grid of `plan` once for each value of one setting, a field of Unit (shots, lr, ...) or else an option.

    None as a value leaves the setting at its default, so the unit is the same, row and all, in every sweep.
    """
    options, units = settings.pop("options", {}), []
    for value in values:
        changed = {} if value is None else {setting: value}
        field_changed = changed if setting in Unit.__dataclass_fields__ else {}
        chosen = {**settings, **field_changed, "options": options if field_changed else options | changed}
        units += plan(methods, datasets, folds, seeds, **chosen)
    return units


def unit_key(unit: Unit, dataset: str, weights: str, config: dict | None = None) -> str:
    """sha256 of all that a unit's result depends on; rows carry it, and one with the same key is not run again.

    config: PENGI's, whose rates of dropout and stochastic depth matter to the released protocol.
    """
    told = {**asdict(unit), "dataset": dataset, "weights": weights}
    told["versions"] = [UNIT_VERSION, EMBEDDING_VERSION]
    if not unit.autocast:  # rows of before there was a choice keep their keys
        del told["autocast"]
    if unit.protocol == "released":
        told |= {"stream": STREAM_VERSION, "config": {k: v for k, v in (config or {}).items() if k != "note"}}
    else:
        del told["parts"]
    return audio.digest(json.dumps(told, sort_keys=True).encode())


def row_path(run, unit: Unit, key: str) -> Path:
    where = run_folder(run) / "rows" / Path(unit.dataset).name
    fold = "split" if unit.fold is None else f"fold{unit.fold}"
    return where / f"{unit.method}-{fold}-shots{unit.shots}-seed{unit.seed}-{key[:10]}.json"


def read_row(path: Path, key: str | None = None) -> dict | None:
    """A finished row, or None if it is not there; a damaged or foreign one is reported and None."""
    if not path.is_file():
        return None
    try:
        row = json.loads(path.read_text())
        if key is None or row["key"] == key:
            return row
        reason = "it belongs to other settings"
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it is damaged: {error}"
    warnings.warn(f"row {path} is not used, {reason}", stacklevel=2)
    return None


@dataclass(frozen=True)
class Job:
    """A unit with all that is needed to run it, and where its row belongs."""

    unit: Unit
    dataset: Dataset
    drawn: pd.DataFrame | None  # the training clips; None where nothing is learned
    key: str
    path: Path

    @property
    def frames(self):
        """The clips to test on and to learn from."""
        return self.dataset.test, self.drawn


def run_units(units: list[Unit], pengi, run, cache=..., told=None) -> list[dict]:
    """Run the units that `runs/RUN` has no row of; all rows, in the units' order.

    Clips are embedded first; then units run, several at a time on a CPU (see `workers`), behind one progress bar.
    told: called with a sentence on what is about to be done and how long it will take, measured on this machine.
    """
    jobs = prepare(units, pengi, run)
    missing = {job.path: job for job in jobs if read_row(job.path, job.key) is None}
    if missing:
        _run_missing([*missing.values()], pengi, {} if cache is ... else {"cache": cache}, told)
    return [read_row(job.path, job.key) for job in jobs]


def prepare(units: list[Unit], pengi, run) -> list[Job]:
    """Each unit with its fold, its draw and its key. A fold is read once, and drawn from once a seed."""
    weights = pengi.digest()
    read = functools.cache(load_dataset)

    @functools.cache
    def load(dataset, fold, options):
        varied = vary(read(dataset, fold), **json.loads(options))
        return varied, varied.digest()

    @functools.cache
    def draw(dataset, fold, options, shots, seed):
        return vary_draw(draw_shots(load(dataset, fold, options)[0].train, shots, seed), **json.loads(options))

    jobs = []
    for unit in units:
        task = unit.dataset, unit.fold, json.dumps(unit.options, sort_keys=True)
        dataset, digest = load(*task)
        drawn = None if unit.method in UNLEARNED else draw(*task, unit.shots, unit.seed)
        key = unit_key(unit, digest, weights, pengi.config)
        jobs.append(Job(unit, dataset, drawn, key, row_path(run, unit, key)))
    return jobs


def _run_missing(jobs: list[Job], pengi, cache: dict, told) -> None:
    clock, processes, weights = Clock(pengi), count_jobs(pengi), pengi.digest()
    seconds = [clock.unit(job.unit, job.dataset.class_names, len(_clips(job)), len(job.dataset.test)) for job in jobs]
    if told:
        clips, longest = count_passes(jobs), max([*seconds, sum(seconds) / processes])
        told(
            f"{len(jobs)} units, {processes} at a time: {minutes(longest)}, after at most "
            f"{minutes(clips * clock.clip())} for embedding {clips} clips"
        )
    embedded = _embed_all([job for job in jobs if not _listens(job)], pengi, cache)
    heard = _hear_all([job for job in jobs if _listens(job)], pengi, cache, clock)
    calls = [
        (job.unit, pengi, job.dataset, heard(job) if _listens(job) else [embedded(job, frame) for frame in job.frames])
        for job in jobs
    ]
    # A unit of one method takes a hundred times as long as one of another, so the bar counts seconds of work.
    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} to go{postfix}"
    with progress_bar(sum(seconds), f"{len(jobs)} units", "s", bar_format=form) as bar:
        for n, (row, tensors) in in_parallel(_run, calls, seconds, processes):
            row |= {"key": jobs[n].key, "weights": weights}
            atomic_write(jobs[n].path.with_suffix(".safetensors"), save(tensors))
            atomic_write(jobs[n].path, json.dumps(row, indent=1))  # last: a row that is there is complete
            bar.set_postfix_str(jobs[n].unit.name)
            bar.update(seconds[n])


def _clips(job: Job) -> list[str]:
    return [] if job.drawn is None else list(job.drawn["path"])


def _embed_all(jobs: list[Job], pengi, cache: dict):
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
        options = {"damage": damage} if damage else {}
        found = embed(pengi, once(those.values()), crop=crop, crop_seed=seed, **options, **cache)
        known |= {(crop, seed, damage, n): found.of(frame) for n, frame in those.items()}
    return lambda job, frame: None if frame is None else known[(*setting(job, frame), id(frame))]


def _crop(unit: Unit):
    """How test clips are cropped: `crop` and `crop_seed` of `embed`."""
    return unit.crop, crop_seed_at_test(unit.parts, unit.seed, unit.crop_seed)


def _listens(job: Job) -> bool:
    """Whether a unit learns from a stream, not from a table."""
    return job.unit.protocol == "released" and job.drawn is not None


def _stream_of(job: Job) -> tuple:
    """Jobs with the same draw and the same of these share a stream: the method is not among them."""
    unit, parts = job.unit, tuple(part for part in job.unit.parts if part != "text_dropout")
    settings = dict(epochs=unit.epochs, batch_size=unit.batch_size, seed=unit.seed, parts=parts, autocast=unit.autocast)
    return id(job.drawn), id(job.dataset.test), *(settings | {"crop": unit.crop, "crop_seed": unit.crop_seed}).items()


def count_passes(jobs: list[Job]) -> int:
    """Clips that go through the audio encoder at most: each once, or in all epochs of each stream and once at test."""
    frozen = [job for job in jobs if not _listens(job)]
    streams = {_stream_of(job): job for job in jobs if _listens(job)}.values()
    plain = len({path for job in frozen for path in [*job.dataset.test["path"], *_clips(job)]})
    return plain + sum(job.unit.epochs * len(job.drawn) + len(job.dataset.test) for job in streams)


def _hear_all(jobs: list[Job], pengi, cache: dict, clock: Clock):
    """Compute the streams, several at a time, each once for all methods. A function that gives a job's source: the
    arguments of `hear`, for streams are large and a unit had better read its own; without a cache, what it gives."""
    jobs = {_stream_of(job): job for job in jobs}
    calls = [(pengi, job.drawn, job.dataset.test, dict(stream[2:]), cache) for stream, job in jobs.items()]
    sources = dict(zip(jobs, calls, strict=True))
    seconds = [count_passes([job]) * clock.clip() for job in jobs.values()]
    processes = min(count_jobs(pengi), max(len(calls), 1))
    with progress_bar(len(calls) if processes > 1 else 0, "streams", "stream") as bar:
        for n, heard in in_parallel(_hear_quietly if processes > 1 else hear, calls, seconds, processes):
            if heard and cache.get("cache", ...) is None:
                sources[[*jobs][n]] = heard
            bar.update()
    return lambda job: sources[_stream_of(job)]


def hear(pengi, drawn, test, settings: dict, cache: dict) -> tuple[Embeddings, Stream]:
    """The test clips as they sound once bn0 has drifted, and the draw in every epoch."""
    stream = embed_stream(pengi, drawn, **settings, **cache)
    seed = crop_seed_at_test(settings["parts"], settings["seed"], settings["crop_seed"])
    return embed(drifted(pengi, stream.bn0), test, crop=settings["crop"], crop_seed=seed, **cache), stream


def _hear_quietly(*call):
    """The bars of several processes would write over each other; what the cache has need not come through a pipe."""
    before = os.environ.get("PALMKIT_PROGRESS", "")
    os.environ["PALMKIT_PROGRESS"] = "0"
    try:
        heard = hear(*call)
    finally:
        os.environ["PALMKIT_PROGRESS"] = before
    return heard if call[-1].get("cache", ...) is None else None


def _run(unit: Unit, pengi, dataset: Dataset, source) -> tuple[dict, dict]:
    return run_unit(unit, pengi, dataset, *(source if len(source) == 2 else hear(*source)))


def run_unit(unit: Unit, pengi, dataset: Dataset, test: Embeddings, support: Embeddings | None) -> tuple[dict, dict]:
    """One unit: its row, and its tensors (test logits and labels, and what was learned as `prompt.*`).

    test, support: the embedded test clips, and the embedded draw where the method learns; a Stream of it if the
    protocol is the released one.
    """
    clock = [time.perf_counter()]
    if "width" in unit.options:
        pengi, test, support = narrow(pengi, test, support, unit.options["width"])
    method = METHODS[unit.method](pengi, dataset.class_names, seed=unit.seed, **method_options(unit.options))
    row = {
        **asdict(unit),
        "parts": parts_label(unit),
        "rates": {"dropout": pengi.config["projection_dropout"], "drop_path": pengi.config["audio"]["drop_path_rate"]},
        "dataset": dataset.name,
        "note": pengi.note,
        "model_note": pengi.config["note"],
        "class_names": dataset.class_names,
        "trainable": sum(parameter.numel() for parameter in method.parameters()),
    }
    if hasattr(method, "lambdas"):
        row["lambdas_initial"] = method.lambdas.tolist()
    losses, diverged = [], ""
    clock.append(time.perf_counter())
    if support is not None:
        row["clips"] = [dataset.relative(path) for path in support.paths]
        row["clip_offsets"] = support.offsets[-1] if isinstance(support, Stream) else support.offsets
        settings = {name: getattr(unit, name) for name in ("epochs", "batch_size", "lr", "momentum", "seed")}
        noise = text_dropout(pengi, unit.seed) if "text_dropout" in unit.parts else contextlib.nullcontext()
        try:
            with noise:
                losses = fit(method, support.features, support.labels, **settings)
        except TrainingDiverged as error:  # an outcome like another: the row says so, and its scores are NaN
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
        "device": str(pengi.device),
        "versions": {package: version(package) for package in PACKAGES} | {"python": platform.python_version()},
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if hasattr(method, "lambdas"):
        row["lambdas"] = method.lambdas.tolist()
    tensors = {"logits": logits, "labels": test.labels}
    if isinstance(support, Stream):
        tensors |= {f"bn0.{name}": tensor for name, tensor in support.bn0.items()}
    return row, tensors | {f"prompt.{name}": tensor for name, tensor in method.prompt_learner_state().items()}


def parts_label(unit: Unit) -> str:
    """What of the released protocol was on, as rows tell it: "all", "none" or "crops + bn0"."""
    full = check_parts("all")
    return "all" if unit.parts == full else " + ".join(unit.parts) or "none"


def narrow(pengi, test: Embeddings, support: Embeddings | None, width: int):
    """Model, test clips and support set, all projected to the first `width` principal axes of the support set."""
    if support is None:
        raise ValueError("width: the axes are the support set's, and a method that learns nothing has none")
    axes = principal_axes(support.features, width)
    parts = (replace(part, features=unit_length(part.features @ axes)) for part in (test, support))
    return Narrowed(pengi, axes), *parts


def load_tensors(row, run) -> dict[str, torch.Tensor]:
    """What a row of `run` keeps beside it: test `logits` [n, classes], `labels` [n], and what was learned, `prompt.*`.

    row: a dict, or a line of a DataFrame of rows. Raises FileNotFoundError if the run has no such row.
    """
    fold = None if pd.isna(row["fold"]) else int(row["fold"])
    unit = Unit(row["method"], row["dataset"], fold, int(row["seed"]), int(row["shots"]))
    path = row_path(run, unit, row["key"])
    if read_row(path, row["key"]) is None:
        raise FileNotFoundError(f"run {Path(str(run)).name} has no row {path.name}: run_units first")
    return load_file(path.with_suffix(".safetensors"))


def load_method(row, run, pengi):
    """The method of a row as it was after training, without training. A row with a width needs its axes: ValueError."""
    if "width" in row["options"]:
        raise ValueError("a method on projected features cannot be had back: its support set's axes are not kept")
    names, options = row["class_names"], method_options(row["options"])
    method = METHODS[row["method"]](pengi, names, seed=int(row["seed"]), **options)
    state = load_tensors(row, run)
    learned = {name.removeprefix("prompt."): state[name] for name in state if name.startswith("prompt.")}
    method.load_prompt_learner(learned)
    return method.requires_grad_(False)


def _differences(clock):
    return [round(after - before, 3) for before, after in zip(clock, clock[1:], strict=False)]
