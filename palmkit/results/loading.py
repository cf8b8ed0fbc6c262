"""Read the rows of a run."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from palmkit.experiments.failures import describe_failed
from palmkit.experiments.light_rows import HEAVY_FIELDS, read_light_row
from palmkit.experiments.row_fields import RowError
from palmkit.storage import run_folder

__all__ = ["HEAVY_FIELDS", "load_failed", "load_rows", "read_rows"]


def load_rows(run, details: bool | Collection[str] = False) -> pd.DataFrame:
    """All rows of a run, one a trial.

    details: also load what was recorded for each step, clip and class (HEAVY_FIELDS, or those that
    are named). Without `class_names` a row has `n_classes` instead. Without details, memory does
    not depend on epochs, clips and classes. A damaged row, and that of a trial that failed, is left
    out, with a warning that names it. Raises FileNotFoundError if there is no row.
    """
    rows, failed = read_rows(run, details)
    if failed and not rows:
        raise FileNotFoundError(describe_failed(failed, len(failed)))
    if failed:
        warnings.warn(describe_failed(failed, len(rows) + len(failed)), stacklevel=2)
    if not rows:
        folder, name = run_folder(run) / "rows", Path(str(run)).name
        raise FileNotFoundError(f"there are no rows in {folder}: run `palmkit run --name {name}`")
    return pd.DataFrame(rows)


def read_rows(run, details: bool | Collection[str] = False) -> tuple[list[dict], list[dict]]:
    """The rows of a run, and those of trials that failed. A damaged row gives a warning.

    Equal lists of class names are one list in memory.
    """
    rows, failed, names = [], [], {}
    for path in _list_rows(run):
        try:
            row = read_light_row(path, details)
        except RowError as error:
            warnings.warn(f"row {path} is left out: {error}", stacklevel=3)
            continue
        if "class_names" in row:
            same = row["class_names"]
            row["class_names"] = names.setdefault(tuple(same), same)
        (failed if "failed" in row else rows).append(row)
    return rows, failed


def _list_rows(run) -> list[Path]:
    """The files of the rows; not the hidden ones (`._NAME.json`) that a Mac leaves behind."""
    return sorted((run_folder(run) / "rows").glob("*/[!.]*.json"))


def load_failed(run) -> list[dict]:
    """The rows of trials that failed. Other rows are not parsed."""
    found = []
    for path in _list_rows(run):
        with contextlib.suppress(RowError, OSError):  # `load_rows` tells of those
            if b'"failed"' in path.read_bytes():
                found.append(read_light_row(path))
    return [row for row in found if "failed" in row]
