"""Trials (one method on one fold of a dataset, with a seed and settings), and grids of trials.

The fields of `Trial` are the one description of an experiment. The flags of the command line, the
keys of rows, the columns of tables and the parameters of notebooks derive from them, so a new
setting is one line here. Nothing heavy is imported at the top: `palmkit --help` is built from this
module.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import json
import logging
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palmkit.names import unknown_method, unknown_name
from palmkit.plugins import has_plugins
from palmkit_synthetic import TASK_NAMES

log = logging.getLogger(__name__)

PROTOCOLS = ("frozen", "released")  # the paper's text, and what its published code does
# How options of a method are set: as published, chosen by clips left out of the support set, or
# tuned on another dataset ("transfer:ESC50").
REGIMES = ("published", "support", "transfer:DATASET")
TRANSFER = "transfer:"
PAPER_METHODS = ("zeroshot", "coop", "cocoop", "palm")
# They see the whole test batch, so they have tables of their own.
TRANSDUCTIVE_NAMES = ("transclip", "text-mixture")
# Other methods; "all" does not stand for them. All but ASPL are on frozen features.
RIVAL_NAMES = (
    *("linear-probe", "prototypes", "text-prototypes", "centred-mix"),
    *("zs-lp", "clap-probe", "taskres", "cross-modal-probe", "lp-plus-plus", "ss-text"),
    *("tip-adapter", "tip-adapter-f", "treff", "treff-f", "gda", "kernel-ridge"),
    *("product-kernel-ridge", "malp"),
    *TRANSDUCTIVE_NAMES,
    *("palm-aspl", "palm-aspl-star", "coop-aspl", "coop-aspl-star"),
    *("cocoop-aspl", "cocoop-aspl-star"),
)
# The keys of palmkit.methods.METHODS, which loads PyTorch.
METHOD_NAMES = (*PAPER_METHODS, "palm-dagger", "solved-palm", *RIVAL_NAMES)
CROPS = ("random", "start", "center")
# What is random in the released protocol; the same names as in palmkit.protocols.train_mode.
STOCHASTIC = ("crops", "bn0", "specaugment", "drop_path", "audio_dropout", "text_dropout")


# Checks of values. Each gets the field's name and a value, and returns the value in its one form.


def clean_text(name: str, value) -> str:
    return str(value)


LARGEST = 1_000_000  # of epochs, clips, shots and folds: more is a slip of the pen
LARGEST_SEED = 2**63 - 1


def clean_integer(name: str, value, least: int | None = None, most: int = LARGEST) -> int:
    try:
        if isinstance(value, bool | str):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name}={value!r}: use a whole number") from None
    if abs(number) > most:  # it may have more digits than Python prints
        raise ValueError(f"{name} is too large: use a whole number, {most:,} at most")
    if least is not None and number < least:
        raise ValueError(f"{name}={number}: use a whole number, {least} or more")
    return number


def clean_fold(name: str, value) -> int | None:
    return None if value is None else clean_integer(name, value, least=0)


def clean_seed(name: str, value) -> int:
    number = clean_integer(name, value, least=0, most=LARGEST_SEED)
    if number >= 2**32:  # NumPy's legacy generator, of the published draw, takes no larger ones
        raise ValueError(f"{name}={number}: use a whole number below 2**32")
    return number


def clean_shots(name: str, value) -> int:
    number = clean_integer(name, value)
    if number < -1:
        raise ValueError(f"{name}={number}: use 1 or more, or -1 for all clips")
    return number


def clean_number(name: str, value, below: float = math.inf, zero: bool = False) -> float:
    """A finite number over 0 (or from 0 on, with `zero`) and below `below`."""
    allowed = f"a number {'from 0 on' if zero else 'over 0'}"
    allowed += f" and below {below:g}" if below < math.inf else ""
    if isinstance(value, bool | str):
        raise ValueError(f"{name}={value!r}: use {allowed}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r}: use {allowed}") from None
    if not (0 < number < below or (zero and number == 0)):
        raise ValueError(f"{name}={number:g}: use {allowed}")
    return number


def clean_flag(name: str, value) -> bool:
    if value not in (True, False):
        raise ValueError(f"{name}={value!r}: use True or False")
    return bool(value)


def clean_protocol(name: str, value) -> str:
    if value not in PROTOCOLS:
        raise ValueError(unknown_name("protocol", value, PROTOCOLS))
    return value


def clean_regime(name: str, value) -> str:
    if isinstance(value, str) and value.removeprefix(TRANSFER) not in ("", "DATASET", value):
        return value
    if str(value).startswith("transfer"):
        raise ValueError(f"{name}={value!r}: name the dataset to tune on, say transfer:ESC50")
    if value not in REGIMES:
        raise ValueError(unknown_name("regime", value, REGIMES))
    return value


def clean_crop(name: str, value) -> str | int:
    if value in CROPS:
        return value
    try:
        return clean_integer(name, value, least=0, most=2**40)
    except ValueError:
        raise ValueError(
            f"{name}={value!r}: use {', '.join(map(repr, CROPS))} or a start in samples (int)"
        ) from None


def clean_stochastic(name: str, value) -> tuple[str, ...]:
    """Names of random parts, in order. "all" or some of STOCHASTIC; "none" is ()."""
    names = [value] if isinstance(value, str) else list(value)
    if names == ["none"]:
        names = []
    if names == ["all"]:
        return STOCHASTIC
    if unknown := [one for one in names if one not in STOCHASTIC]:
        raise ValueError(unknown_name("random part", unknown[0], STOCHASTIC))
    return tuple(one for one in STOCHASTIC if one in names)


def clean_options(name: str, value) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{name}={value!r}: use a dict of option names and values")
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        raise ValueError(
            f"{name}={value!r}: use values that JSON has (numbers, texts, lists)"
        ) from None


# Texts of the command line. Each returns a value for the check.


def parse_integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def parse_crop(text: str) -> str | int:
    return int(text) if text.lstrip("-").isdigit() else text


@dataclass(frozen=True)
class Setting:
    """How a field of `Trial` is described, checked, and given on the command line.

    clean: a function of (name, value); returns a normalised value or raises ValueError.
    parse: turns a text of the command line into a value; raises ValueError.
    several: the argument of `make_grid` that takes several values of this field; "" if there is
        none.
    trained: only training depends on it, so it does not apply to a method that learns nothing.
    fitted: it is an argument of `palmkit.training.fit`.
    protocol: the only protocol that it applies to; "" for all.
    """

    help: str
    clean: Callable[[str, Any], Any] = clean_text
    parse: Callable[[str], Any] = str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    several: str = ""
    flag: str = ""
    trained: bool = False
    fitted: bool = False
    protocol: str = ""


def setting(default, help: str, **more):
    """A field of Trial with its description."""
    return field(default=default, metadata={"setting": Setting(help, **more)})


@dataclass(frozen=True)
class Trial:
    """What to run. The defaults are the paper's settings.

    stochastic: what is random in the released protocol, "all" or some of STOCHASTIC. Nothing is
    random in the frozen protocol. autocast: the audio encoder of the released protocol in half
    precision where PyTorch considers it safe; faster on a GPU. options: keyword arguments of the
    method (context_length=8, say), and `variations.VARIATIONS` of the task.
    Raises ValueError for a value that cannot be run.
    """

    method: str = field(
        metadata={
            "setting": Setting("names of methods, or all: the paper's four", several="methods")
        }
    )
    dataset: str = field(
        metadata={
            "setting": Setting(
                "folders, names in PALMKIT_DATA, or default: the generated datasets",
                several="datasets",
            )
        }
    )
    fold: int | None = setting(
        None, "numbers of folds, first, or all", clean=clean_fold, several="folds"
    )
    seed: int = setting(
        0,
        "seeds of the few-shot draw, the initial values and the shuffling",
        clean=clean_seed,
        parse=parse_integer,
        several="seeds",
        fitted=True,
    )
    shots: int = setting(
        16,
        "training clips per class; -1: all clips",
        clean=clean_shots,
        parse=parse_integer,
        metavar="N",
        trained=True,
    )
    protocol: str = setting(
        "frozen",
        "frozen: frozen encoders, as in the paper's text; released: train mode, as in its code",
        clean=clean_protocol,
        choices=PROTOCOLS,
    )
    regime: str = setting(
        "published",
        "published: the options as given; support: chosen by clips left out of the support set; "
        "transfer:DATASET: tuned on another dataset",
        clean=clean_regime,
        metavar="REGIME",
        trained=True,
    )
    stochastic: tuple[str, ...] = setting(
        "all",
        f"what is random in the released protocol: all, none, or some of {', '.join(STOCHASTIC)}",
        clean=clean_stochastic,
        metavar="PART",
        protocol="released",
    )
    epochs: int = setting(
        50,
        "epochs of training",
        clean=functools.partial(clean_integer, least=0),
        parse=parse_integer,
        metavar="N",
        trained=True,
        fitted=True,
    )
    batch_size: int = setting(
        16,
        "clips per training step",
        clean=functools.partial(clean_integer, least=1),
        parse=parse_integer,
        metavar="N",
        trained=True,
        fitted=True,
    )
    lr: float = setting(
        0.05,
        "learning rate of SGD",
        clean=clean_number,
        parse=parse_number,
        metavar="RATE",
        trained=True,
        fitted=True,
    )
    momentum: float = setting(
        0.9,
        "momentum of SGD",
        clean=functools.partial(clean_number, below=1, zero=True),
        parse=parse_number,
        metavar="SHARE",
        trained=True,
        fitted=True,
    )
    crop: str | int = setting(
        "random",
        "which part of a long clip is used: random, start, center, or a start in samples",
        clean=clean_crop,
        parse=parse_crop,
        metavar="CROP",
    )
    crop_seed: int = setting(
        0,
        "seed of random crops",
        clean=functools.partial(clean_integer, most=LARGEST_SEED),
        parse=parse_integer,
        metavar="N",
    )
    autocast: bool = setting(
        False,
        "use half precision for the audio encoder of the released protocol, where it is safe",
        clean=clean_flag,
        protocol="released",
    )
    options: dict = field(
        default_factory=dict,
        metadata={
            "setting": Setting(
                "an option of the method (context_length=8) or of the task (pca_dim=8)",
                clean=clean_options,
                metavar="KEY=VALUE",
                flag="option",
            )
        },
    )

    def __post_init__(self):
        for name, described in FIELDS.items():
            self._set(name, described.clean(name, getattr(self, name)))
        self._check_protocol()
        method = find_method(self.method)
        check_options(method, self.options)
        self._check_regime(method)
        self._check_tuned(method)
        self._check_pair(method)
        if method.learns:
            if self.shots == 0:
                raise ValueError(NO_SHOTS)
            return
        if "pca_dim" in self.options:
            raise ValueError(
                f"pca_dim: its axes come from the support set, and {self.method} uses none"
            )
        for name, value in UNTRAINED.items():
            self._set(name, value)
        self._set("stochastic", tuple(part for part in self.stochastic if part == "crops"))

    def _set(self, name: str, value) -> None:
        object.__setattr__(self, name, value)

    def _check_protocol(self) -> None:
        if self.protocol == "frozen":
            if self.stochastic not in (STOCHASTIC, ()):
                raise ValueError(
                    f"stochastic={', '.join(self.stochastic)} is for the released protocol; "
                    "in the frozen one nothing is random"
                )
            if self.autocast:
                raise ValueError(
                    "autocast is for the released protocol; "
                    "in the frozen one clips are encoded only once"
                )
            self._set("stochastic", ())
        elif given := [name for name in ("pca_dim", "corruption") if name in self.options]:
            raise ValueError(
                f"{', '.join(given)}: only in the frozen protocol, where clips have one embedding"
            )

    def _check_regime(self, method: type) -> None:
        if self.regime == "published" or not method.learns:
            return
        from palmkit.experiments.selection import check_choices

        check_choices(method, self.regime)
        if self.protocol == "released":
            raise ValueError(
                f"regime={self.regime}: only in the frozen protocol, where clips have one embedding"
            )
        if self.tuned_on and "pca_dim" in self.options:
            raise ValueError("pca_dim: options that are tuned on other features do not carry over")
        if self.tuned_on and is_related(self.dataset, self.tuned_on):
            raise ValueError(
                f"regime={self.regime}: {self.dataset} has recordings of the dataset that options "
                "are tuned on; leave it out"
            )

    @property
    def tuned_on(self) -> str:
        """The dataset on which options are tuned; "" in the other regimes."""
        return self.regime.removeprefix(TRANSFER) if self.regime.startswith(TRANSFER) else ""

    def _check_tuned(self, method: type) -> None:
        if not method.tunes_audio:
            return
        if self.protocol == "released":
            raise ValueError(
                f"{self.method} is for the frozen protocol: it learns inside the audio encoder, "
                "and the embeddings of the released protocol are computed before training"
            )
        if "pca_dim" in self.options:
            raise ValueError(
                f"pca_dim: its axes come from embeddings, and {self.method} changes these"
            )

    def _check_pair(self, method: type) -> None:
        if method.needs_pair and "pca_dim" in self.options:
            raise ValueError(
                f"pca_dim: its axes mix the features of two models, which {self.method} takes apart"
            )

    @property
    def name(self) -> str:
        return f"{self.method} on {Path(self.dataset).name}, fold {self.fold}, seed {self.seed}"

    def fit_settings(self) -> dict:
        """The arguments of `palmkit.training.fit`."""
        return {name: getattr(self, name) for name, one in FIELDS.items() if one.fitted}


FIELDS: dict[str, Setting] = {
    one.name: one.metadata["setting"] for one in dataclasses.fields(Trial)
}
AXES = {one.several: name for name, one in FIELDS.items() if one.several}  # {"methods": "method"}
SETTINGS = tuple(name for name, one in FIELDS.items() if not one.several)
TRAINED = tuple(name for name, one in FIELDS.items() if one.trained)
DEFAULTS = {
    one.name: one.default if one.default is not dataclasses.MISSING else {}
    for one in dataclasses.fields(Trial)
    if one.name in SETTINGS
}
NO_SHOTS = "shots=0: use 1 or more, or -1 for all clips"
UNTRAINED = {
    "shots": 0,
    "epochs": 0,
    "autocast": False,
    "regime": "published",
}  # of a method that learns nothing


def find_method(name: str) -> type:
    """The class of a method, of the kit or from outside. Raises ValueError for another name."""
    check_method_name(name)
    from palmkit.methods import get_method  # loads PyTorch

    return get_method(name)


def check_method_name(name: str) -> None:
    """Raise ValueError for a name of no method. Loads nothing, if no method is from outside."""
    if name in METHOD_NAMES:
        return
    if not has_plugins("palmkit.methods"):
        raise ValueError(unknown_method(name, METHOD_NAMES))
    from palmkit.methods import get_method  # loads PyTorch

    get_method(name)


def check_settings(settings: dict) -> None:
    """Raise ValueError for a value that no trial takes. Loads nothing."""
    for name, value in settings.items():
        if name not in SETTINGS:
            raise ValueError(unknown_name("setting", name, SETTINGS))
        FIELDS[name].clean(name, value)
        if name == "shots" and value == 0:
            raise ValueError(NO_SHOTS)


def check_options(method: type, options: dict) -> None:
    """Raise ValueError for an option that neither the method nor the task has."""
    from palmkit.experiments.variations import VARIATIONS, check_task_options, method_options

    parameters = inspect.signature(method).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        known = None
    else:
        known = [one.name for one in parameters if one.name not in ("model", "class_names", "seed")]
    for option in method_options(options):
        if known is not None and option not in known:
            raise ValueError(unknown_name(f"{method.name} option", option, [*known, *VARIATIONS]))
    check_task_options(options)


def expand_methods(methods) -> list[str]:
    """Names of methods, each once; "all" stands for the paper's four."""
    names = [methods] if isinstance(methods, str) else [*methods]
    expanded = [one for name in names for one in (PAPER_METHODS if name == "all" else (name,))]
    return [*dict.fromkeys(expanded)]


def check_trials(methods, seeds=(0,), **settings) -> None:
    """Raise ValueError for a method, a seed or a setting that cannot be run.

    No dataset is opened.
    """
    for method in expand_methods(methods):
        for seed in seeds:
            Trial(method, "", seed=seed, **settings)


def make_grid(methods, datasets, folds="all", seeds=(0, 1, 2), **settings) -> list[Trial]:
    """The trials of a grid, each once. folds: "all", "first" or numbers. methods: names, "all" for
    the paper's four.

    A method that learns nothing runs with the first seed only, as in the paper. Raises ValueError
    before it generates a dataset.
    """
    from palmkit.datasets.resolve import choose_folds

    methods = expand_methods(methods)
    datasets = [*dict.fromkeys(str(dataset) for dataset in datasets)]
    seeds = [*dict.fromkeys(seeds)]
    check_trials(methods, seeds, **settings)  # before datasets, which may have to be generated
    datasets = without_related(datasets, settings.get("regime", "published"))
    check_datasets(datasets)
    trials = []
    for dataset in datasets:
        trials += dataset_grid(methods, dataset, choose_folds(dataset, folds), seeds, **settings)
    if not trials:
        raise ValueError("nothing to run: name at least one method, dataset and seed")
    return trials


# Datasets of the paper that share recordings: ESC50-Actions is ten classes of ESC50.
FAMILIES = (("ESC50", "ESC50-Actions", "ESC10"),)


def is_related(dataset: str, other: str) -> bool:
    """Whether two datasets, names or folders, are the same or are known to share recordings."""
    names = {Path(dataset).name, Path(other).name}
    return len(names) == 1 or any(names <= {*family} for family in FAMILIES)


def without_related(datasets: list[str], regime: str, also=()) -> list[str]:
    """The datasets without the one that options are tuned on, and without its relatives.

    A message names what is left out. also: names that `check_datasets` takes. Raises ValueError if
    nothing is left.
    """
    if not regime.startswith(TRANSFER):
        return datasets
    tuned_on = regime.removeprefix(TRANSFER)
    check_datasets([tuned_on], also)
    kept = [dataset for dataset in datasets if not is_related(dataset, tuned_on)]
    if not kept:
        raise ValueError(f"regime={regime}: name a dataset that options are not tuned on")
    if left_out := [dataset for dataset in datasets if dataset not in kept]:
        log.info("%s: left out, because options are tuned on them", ", ".join(left_out))
    return kept


def check_datasets(datasets, also=()) -> None:
    """Raise DatasetError for an unknown dataset. This generates nothing.

    Known are folders, names in PALMKIT_DATA, generated datasets, and the names in `also`.
    """
    from palmkit.csv_files import DatasetError
    from palmkit.storage import data_root, path_exists

    unknown = [
        name
        for name in map(str, datasets)
        if not path_exists(name) and not path_exists(data_root() / name)
    ]
    if not set(unknown) - set(also):
        return
    for name in unknown:
        if name in TASK_NAMES or name in also:
            continue
        folder = data_root()
        there = [one.name for one in folder.glob("[!.]*")] if folder.is_dir() else []
        close = difflib.get_close_matches(name, [*TASK_NAMES, *there, *also], n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise DatasetError(
            f"there is no dataset folder {name}, nor {folder / name} (PALMKIT_DATA names the "
            f"folder of datasets); generated ones are {', '.join(TASK_NAMES)}, and "
            f"`palmkit fetch NAME` fetches published ones{hint}"
        )


def dataset_grid(methods, dataset: str, folds, seeds, **settings) -> list[Trial]:
    """The trials of one dataset on these folds."""
    trials = []
    for fold in dict.fromkeys(folds):
        for seed in seeds:
            for method in expand_methods(methods):
                if seed == seeds[0] or find_method(method).learns:
                    trials.append(Trial(method, dataset, fold, seed, **settings))
    return trials


def sweep(
    name: str, values, methods, datasets, folds="all", seeds=(0, 1, 2), **settings
) -> list[Trial]:
    """The grid of `make_grid` once for each value of one setting: a field of Trial (shots, lr, ...)
    or an option.

    The value None leaves the setting at its default. Such a trial is the same in every sweep, and
    has the same row.
    """
    options = settings.pop("options", {})
    trials = []
    for value in values:
        chosen = {**settings, "options": options}
        if value is not None and name in FIELDS:
            chosen[name] = value
        elif value is not None:
            chosen["options"] = options | {name: value}
        trials += make_grid(methods, datasets, folds, seeds, **chosen)
    return trials


def stochastic_label(trial: Trial) -> str:
    """What was random, as a row records it: "all", "none" or "crops + bn0"."""
    return "all" if trial.stochastic == STOCHASTIC else " + ".join(trial.stochastic) or "none"
