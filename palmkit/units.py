"""Units of work: one method, fold and seed, written as one row. A grid that stops goes on where it stopped."""

from __future__ import annotations

import datetime
import json
import platform
import time
import warnings
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from safetensors.torch import save

from palmkit import audio
from palmkit.data import dataset_root, draw_shots, list_folds, load_dataset
from palmkit.embeddings import EMBEDDING_VERSION, embed
from palmkit.methods import METHODS, UNLEARNED
from palmkit.storage import atomic_write, progress_bar, run_folder
from palmkit.training import fit, predict, score

UNIT_VERSION = 1  # raise it when a unit's result changes for other reasons than its settings
TRAINED = ("shots", "epochs", "batch_size", "lr", "momentum")  # settings that a method which learns nothing has not
UNTRAINED = {"shots": 0, "epochs": 0}
PAPER_METHODS = ("zeroshot", "coop", "cocoop", "palm")
PACKAGES = ("torch", "torchaudio", "timm", "open_clip_torch", "numpy", "pandas", "scikit-learn", "soundfile")


@dataclass(frozen=True)
class Unit:
    """What to run. The defaults are the paper's settings; `options` go to the method (context_length=8, say)."""

    method: str
    dataset: str
    fold: int | None = None
    seed: int = 0
    shots: int = 16
    protocol: str = "frozen"
    epochs: int = 50
    batch_size: int = 16
    lr: float = 0.05
    momentum: float = 0.9
    crop: str | int = "random"
    crop_seed: int = 0
    options: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"there is no method {self.method!r}; there are {', '.join(METHODS)}")
        if self.protocol != "frozen":
            raise ValueError(f"there is no protocol {self.protocol!r}; there is: frozen")

    @property
    def name(self) -> str:
        return f"{self.method} on {Path(self.dataset).name}, fold {self.fold}, seed {self.seed}"


def plan(methods, datasets, folds="all", seeds=(0, 1, 2), **settings) -> list[Unit]:
    """The grid's units. folds: "all" or numbers; methods: names or "all" (the paper's four).

    A method that learns nothing runs with the first seed only, as in the paper. Raises before anything is run.
    """
    methods = PAPER_METHODS if methods in ("all", ["all"], ("all",)) else methods
    units = []
    for dataset in datasets:
        known = list_folds(dataset)
        chosen = known if folds in ("all", ["all"], ("all",), None) else [int(fold) for fold in folds]
        if unknown := set(chosen) - set(known):
            there = "no folds" if known == [None] else f"folds {known}"
            raise ValueError(f"{dataset_root(dataset).name} has {there}; there is no fold {sorted(unknown)}")
        units += [
            Unit(method, str(dataset), fold, seed, **(settings | (UNTRAINED if method in UNLEARNED else {})))
            for fold in chosen
            for seed in seeds
            for method in methods
            if method not in UNLEARNED or seed == seeds[0]
        ]
    if not units:
        raise ValueError("nothing to run: name at least one method, dataset and seed")
    return units


def unit_key(unit: Unit, dataset: str, weights: str) -> str:
    """sha256 of all that a unit's result depends on; rows carry it, and one with the same key is not run again."""
    told = {**asdict(unit), "dataset": dataset, "weights": weights}
    told["versions"] = [UNIT_VERSION, EMBEDDING_VERSION]
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


def run_units(units: list[Unit], pengi, run, cache=...) -> list[dict]:
    """Run the units that `runs/RUN` has no row of; all rows, in the units' order. One progress bar over units."""
    weights = pengi.digest()
    kwargs = {} if cache is ... else {"cache": cache}
    rows = []
    opened = None  # the fold at hand; units of one fold stand together and share its test embeddings
    with progress_bar(len(units), "units", "unit") as bar:
        for unit in units:
            bar.set_postfix_str(unit.name)
            if opened != (unit.dataset, unit.fold):
                dataset = load_dataset(unit.dataset, unit.fold)
                opened, digest, embedded = (unit.dataset, unit.fold), dataset.digest(), {}
            path = row_path(run, unit, key := unit_key(unit, digest, weights))
            row = read_row(path, key)
            if row is None:
                crop = (unit.crop, unit.crop_seed)
                if crop not in embedded:
                    embedded[crop] = embed(pengi, dataset.test, crop=unit.crop, crop_seed=unit.crop_seed, **kwargs)
                row, tensors = run_unit(unit, pengi, dataset, embedded[crop], **kwargs)
                row |= {"key": key, "weights": weights}
                atomic_write(path.with_suffix(".safetensors"), save(tensors))
                atomic_write(path, json.dumps(row, indent=1))  # last: a row that is there is complete
            rows.append(row)
            bar.update()
    return rows


def run_unit(unit: Unit, pengi, dataset, test, **cache) -> tuple[dict, dict]:
    """One unit: its row, and its tensors (test logits and labels, and what was learned as `prompt.*`)."""
    clock = [time.perf_counter()]
    method = METHODS[unit.method](pengi, dataset.class_names, seed=unit.seed, **unit.options)
    learns = any(parameter.requires_grad for parameter in method.parameters())
    row = {
        **asdict(unit),
        "dataset": dataset.name,
        "note": pengi.note,
        "class_names": dataset.class_names,
        "trainable": sum(parameter.numel() for parameter in method.parameters()),
    }
    if hasattr(method, "lambdas"):
        row["lambdas_initial"] = method.lambdas.tolist()
    losses = []
    if learns:
        train = draw_shots(dataset.train, unit.shots, unit.seed)
        support = embed(pengi, train, crop=unit.crop, crop_seed=unit.crop_seed, **cache)
        row["clips"] = [dataset.relative(path) for path in support.paths]
        row["clip_offsets"] = support.offsets
        clock.append(time.perf_counter())
        settings = {name: getattr(unit, name) for name in ("epochs", "batch_size", "lr", "momentum", "seed")}
        losses = fit(method, support.features, support.labels, **settings)
    clock.append(time.perf_counter())
    logits = predict(method, test.features)
    clock.append(time.perf_counter())
    row |= score(logits, test.labels)
    row |= {
        "n_train": len(row.get("clips", [])),
        "n_test": len(test.labels),
        "losses": losses,
        "test_offsets": test.offsets if any(test.offsets) else 0,
        "seconds": dict(
            zip(("prepare", "fit", "test") if learns else ("prepare", "test"), _differences(clock), strict=True)
        ),
        "device": str(pengi.device),
        "versions": {package: version(package) for package in PACKAGES} | {"python": platform.python_version()},
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if hasattr(method, "lambdas"):
        row["lambdas"] = method.lambdas.tolist()
    tensors = {"logits": logits, "labels": test.labels}
    return row, tensors | {f"prompt.{name}": tensor for name, tensor in method.prompt_learner_state().items()}


def _differences(clock):
    return [round(after - before, 3) for before, after in zip(clock, clock[1:], strict=False)]
