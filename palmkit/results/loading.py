"""Read the rows of a run."""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd

from palmkit.experiments.rows import RowError, check_row, parse_row
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
    row has `n_classes` instead. A damaged row is left out, with a warning that names its file.
    Raises FileNotFoundError if there is no row.
    """
    folder = run_folder(run) / "rows"
    rows = []
    for path in sorted(folder.glob("*/*.json")):
        try:
            rows.append(read_light_row(path, details))
        except RowError as error:
            warnings.warn(f"row {path} is left out: {error}", stacklevel=2)
    if not rows:
        name = Path(str(run)).name
        raise FileNotFoundError(f"there are no rows in {folder}: run `palmkit run --name {name}`")
    return pd.DataFrame(rows)


def read_light_row(path: Path, details: bool = False) -> dict:
    """One row, with HEAVY_FIELDS if details. Raises RowError, in one sentence."""
    data = path.read_bytes()
    try:
        row = parse_row(data if details else cut_lists(data))
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
