"""The fields of a row: what each may be. The first wrong one is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

LARGEST = 2**53  # of a whole number: more are not exact everywhere
LONGEST_NAME = 200  # characters of a dataset's or a method's name: they are names of files too
SHOWN = 80  # characters of a wrong value that an error repeats


class RowError(ValueError):
    """A row that cannot be used; the message says why."""


class Kind(NamedTuple):
    """What a field may be, in words, and the test of a value."""

    words: str
    fits: Callable[[object], bool]
    is_whole: bool = False  # a whole number


def whole(least: int, most: int = LARGEST) -> Kind:
    words = f"a whole number from {least} on" + (f" to {most}" if most < LARGEST else "")
    return Kind(words, lambda value: type(value) is int and least <= value <= most, is_whole=True)


def is_number(value) -> bool:
    """A number that a table can have; NaN and infinity too."""
    return type(value) is float or (type(value) is int and abs(value) <= LARGEST)


def is_list_of(fits) -> Callable[[object], bool]:
    return lambda value: type(value) is list and all(map(fits, value))


def is_dict_of(fits) -> Callable[[object], bool]:
    return lambda value: type(value) is dict and all(map(fits, value.values()))


def is_text(value) -> bool:
    return type(value) is str


def is_folder_name(value) -> bool:
    """A dataset is named by its folder, whose name may have any sign but / and NUL."""
    return (
        type(value) is str
        and len(value.strip()) > 0
        and len(value) <= LONGEST_NAME
        and value not in (".", "..")
        and not set(value) & {"/", "\0"}
    )


def is_name(value) -> bool:
    return is_folder_name(value) and value.isprintable()


def is_score(value) -> bool:
    return is_number(value) and (0 <= value <= 1 or math.isnan(value))


def is_time(value) -> bool:
    return is_number(value) and 0 <= value < LARGEST


TEXT = Kind("a text", is_text)
NAME = Kind("a name: printable, without /", is_name)
FOLDER_NAME = Kind("the name of a folder, without /", is_folder_name)
NUMBER = Kind("a number", is_number)
SCORE = Kind("a number from 0 to 1", is_score)
NUMBERS = Kind("a list of numbers", is_list_of(is_number))
TEXTS = Kind("a list of texts", is_list_of(is_text))
FLAG = Kind("true or false", lambda value: type(value) is bool)
DICT = Kind("an object", lambda value: type(value) is dict)

REQUIRED = ("dataset", "method", "fold", "seed")
KINDS: dict[str, Kind] = {
    "dataset": FOLDER_NAME,
    "method": NAME,
    "fold": Kind("a whole number from 0 on, or null", lambda v: v is None or whole(0).fits(v)),
    "seed": whole(0, 2**32 - 1),
    **dict.fromkeys(("accuracy", "f1", "precision", "recall"), SCORE),
    "loss": NUMBER,
    "shots": whole(-1),
    "batch_size": whole(1),
    "n_classes": whole(1),
    **dict.fromkeys(("epochs", "n_train", "n_test", "n_bad", "trainable"), whole(0)),
    "trial_version": whole(1),
    "lr": Kind("a number over 0", lambda v: is_number(v) and 0 < v < math.inf),
    "momentum": Kind("a number from 0 on and below 1", lambda v: is_number(v) and 0 <= v < 1),
    "crop": Kind("a text or a whole number", lambda v: is_text(v) or whole(0).fits(v)),
    "crop_seed": whole(-LARGEST),
    **dict.fromkeys(("autocast", "compact"), FLAG),
    "options": DICT,
    "chosen": DICT,
    "regime": TEXT,
    "rates": Kind("an object with numbers", is_dict_of(is_number)),
    "seconds": Kind("an object with numbers from 0 on", is_dict_of(is_time)),
    "versions": Kind("an object with texts", is_dict_of(is_text)),
    "class_names": Kind("a list of names", lambda v: TEXTS.fits(v) and len(v) > 0),
    **dict.fromkeys(("losses", "lambdas", "lambdas_initial"), NUMBERS),
    **dict.fromkeys(("clips", "bad_files"), TEXTS),
    "clip_offsets": NUMBERS,
    "test_offsets": Kind("0 or a list of numbers", lambda v: v == 0 or NUMBERS.fits(v)),
    "parts": TEXT,
    "failed": Kind("a text that is not empty", lambda v: is_text(v) and bool(v.strip())),
    **dict.fromkeys(("key", "note", "model_note", "written", "weights", "device"), TEXT),
    **dict.fromkeys(("model", "rate_source"), TEXT),
    "about": Kind("an object with texts", is_dict_of(is_text)),
    **dict.fromkeys(("dataset_digest", "fold_digest", "method_digest", "tensors"), TEXT),
    **dict.fromkeys(("first", "second"), TEXT),
    "encoders": Kind("one or two", lambda v: v in ("one", "two")),
    **dict.fromkeys(("checkpoint_sha256", "protocol", "stochastic", "diverged"), TEXT),
    **dict.fromkeys(("command", "commit", "palmkit"), TEXT),
    # A column that is computed from rows; no row has it.
    "version": Kind("left out", lambda value: False),
}
WHOLE_FIELDS = tuple(name for name, kind in KINDS.items() if kind.is_whole)
# Lists that have an entry for each class. Light rows have them empty.
BY_CLASS = ("lambdas", "lambdas_initial")


def check_row(row) -> None:
    """Raise RowError if a field that every table needs is missing, or a field is not what it may
    be. Fields of other names are left alone.
    """
    if not isinstance(row, dict):
        raise RowError("it is no JSON object")
    for name in REQUIRED if "failed" in row else (*REQUIRED, "accuracy"):
        if name not in row:
            raise RowError(f"it has no field {name!r}")
        _check(name, row[name])
    for name, value in row.items():
        _check(name, value)
    classes = len(row.get("class_names", ()))
    for name in BY_CLASS:
        if row.get(name) and classes and len(row[name]) != classes:
            raise RowError(f"its {name} has {len(row[name])} entries for {classes} classes")


def _check(name: str, value) -> None:
    kind = KINDS.get(name)
    if kind is not None and not kind.fits(value):
        raise RowError(f"its {name} is {shorten(value)}; it must be {kind.words}")


def shorten(value) -> str:
    """A value for an error, in printable ASCII."""
    text = ascii(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
