"""Read the rows of a run."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

import pandas as pd

from palmkit.experiments.failures import describe_failed
from palmkit.experiments.row_fields import RowError, check_row
from palmkit.experiments.rows import parse_row
from palmkit.storage import run_folder

# Lists with an entry for each training step, clip or class: most of a row's text, and no table
# needs them.
HEAVY_FIELDS = (
    *("losses", "clips", "clip_offsets", "test_offsets", "lambdas", "lambdas_initial"),
    "class_names",
)


def load_rows(run, details: bool = False) -> pd.DataFrame:
    """All rows of a run, one a trial.

    details: also load what was recorded for each step, clip and class (HEAVY_FIELDS); otherwise a
    row has `n_classes` instead. A damaged row, and that of a trial that failed, is left out, with a
    warning that names it. Raises FileNotFoundError if there is no row.
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


def read_rows(run, details: bool = False) -> tuple[list[dict], list[dict]]:
    """The rows of a run, and those of trials that failed. A damaged row gives a warning."""
    rows, failed = [], []
    for path in _list_rows(run):
        try:
            row = read_light_row(path, details)
        except RowError as error:
            warnings.warn(f"row {path} is left out: {error}", stacklevel=3)
            continue
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


def read_light_row(path: Path, details: bool = False) -> dict:
    """One row, with HEAVY_FIELDS if details. Raises RowError, in one sentence."""
    try:
        data = path.read_bytes()
        row = parse_row(data if details else cut_lists(data))
    except OSError as error:
        raise RowError(f"it cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise RowError(f"it is no JSON ({error})") from None
    check_row(row)
    upgrade_row(row)
    if not details:
        row["n_classes"] = row.get("n_classes") or len(row.get("class_names", []))
        for field in HEAVY_FIELDS:
            row.pop(field, None)
    return row


def cut_lists(data: bytes) -> bytes:
    """A row's text with its long lists emptied, so that they are not parsed.

    In a row that `json.dumps(row, indent=1)` wrote, such a list ends at the first line that is
    " ]": no string contains a line break, and inner lists are indented further. A text of any other
    layout comes back as it is.
    """
    cuts = []
    for field in HEAVY_FIELDS:
        head = f'\n "{field}": ['.encode()
        start = data.find(head + b"\n")
        if field == "class_names" or start < 0:
            continue
        end = data.find(b"\n ]", start)
        if end < 0:
            return data
        cuts.append((start + len(head), end + len(b"\n ")))
    pieces, position = [], 0
    for start, end in sorted(cuts):
        pieces.append(data[position:start])
        position = end
    return b"".join([*pieces, data[position:]])


def upgrade_row(row: dict) -> None:
    """Add the fields of later versions to a row of an earlier version."""
    if "parts" in row:
        row.setdefault("stochastic", row.pop("parts"))
    row.setdefault("note", "")
    row.setdefault("options", {})
    row.setdefault("regime", "published")
    row.setdefault("encoders", "one")
