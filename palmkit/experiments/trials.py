"""Trials (a method, dataset, fold and seed with their settings) and grids of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from palmkit.datasets.resolve import choose_folds
from palmkit.methods import METHODS, UNLEARNED
from palmkit.protocols.train_mode import check_parts

TRAINED = (
    "shots",
    "epochs",
    "batch_size",
    "lr",
    "momentum",
)  # settings that a method which learns nothing has not
UNTRAINED = {"shots": 0, "epochs": 0}
PROTOCOLS = ("frozen", "released")  # the paper's text, and what its published code does
PAPER_METHODS = ("zeroshot", "coop", "cocoop", "palm")


@dataclass(frozen=True)
class Trial:
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
            raise ValueError(
                f"there is no protocol {self.protocol!r}; there are {', '.join(PROTOCOLS)}"
            )
        if self.protocol == "frozen" and self.parts not in ("all", ()):
            raise ValueError(
                f"parts={self.parts!r} are the released protocol's; in the frozen one nothing is random"
            )
        if self.protocol == "frozen" and self.autocast:
            raise ValueError(
                "autocast is for the released protocol; in the frozen one clips are encoded only once"
            )
        if self.protocol == "released" and (given := {"width", "damage"} & set(self.options)):
            raise ValueError(
                f"{', '.join(sorted(given))}: only in the frozen protocol, where clips have one embedding"
            )
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


def make_grid(methods, datasets, folds="all", seeds=(0, 1, 2), **settings) -> list[Trial]:
    """The grid's units. folds: "all", "first" or numbers; methods: names or "all" (the paper's four).

    A method that learns nothing runs with the first seed only, as in the paper. Raises before anything is run.
    """
    methods = PAPER_METHODS if methods == "all" else methods
    for method in methods:  # is refused before datasets, which may have to be generated
        Trial(method, "", **settings)
    units = [
        unit
        for dataset in datasets
        for unit in dataset_grid(
            methods, str(dataset), choose_folds(dataset, folds), seeds, **settings
        )
    ]
    if not units:
        raise ValueError("nothing to run: name at least one method, dataset and seed")
    return units


def dataset_grid(methods, dataset: str, folds, seeds, **settings) -> list[Trial]:
    """One dataset's units, of these very folds."""
    return [
        Trial(
            method, dataset, fold, seed, **(settings | (UNTRAINED if method in UNLEARNED else {}))
        )
        for fold in folds
        for seed in seeds
        for method in (PAPER_METHODS if methods == "all" else methods)
        if method not in UNLEARNED or seed == seeds[0]
    ]


def sweep(
    setting: str, values, methods, datasets, folds="all", seeds=(0, 1, 2), **settings
) -> list[Trial]:
    """The grid of `plan` once for each value of one setting, a field of Unit (shots, lr, ...) or else an option.

    None as a value leaves the setting at its default, so the unit is the same, row and all, in every sweep.
    """
    options, units = settings.pop("options", {}), []
    for value in values:
        changed = {} if value is None else {setting: value}
        field_changed = changed if setting in Trial.__dataclass_fields__ else {}
        chosen = {
            **settings,
            **field_changed,
            "options": options if field_changed else options | changed,
        }
        units += make_grid(methods, datasets, folds, seeds, **chosen)
    return units


def parts_label(unit: Trial) -> str:
    """What of the released protocol was on, as rows tell it: "all", "none" or "crops + bn0"."""
    full = check_parts("all")
    return "all" if unit.parts == full else " + ".join(unit.parts) or "none"
