"""Rows without their long lists: what tables, the report and `palmkit status` read.

Most of a row's text are lists with an entry for each training step, clip or class. They are cut out
before the text is parsed, so that thousands of rows are read in seconds and need little memory.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from palmkit.experiments.row_fields import RowError, check_row
from palmkit.experiments.rows import parse_row

# Lists with an entry for each training step, clip or class: most of a row's text, and no table
# needs them.
HEAVY_FIELDS = (
    *("losses", "clips", "clip_offsets", "test_offsets", "lambdas", "lambdas_initial"),
    "class_names",
)


def read_light_row(path: Path, details: bool | Collection[str] = False) -> dict:
    """One row, with HEAVY_FIELDS if details, or with those of them that are named. Raises RowError,
    in one sentence.
    """
    kept = (HEAVY_FIELDS if details else ()) if isinstance(details, bool) else details
    left_out = [field for field in HEAVY_FIELDS if field not in kept]
    try:
        data = path.read_bytes()
        row = parse_row(cut_lists(data, left_out))
    except OSError as error:
        raise RowError(f"it cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise RowError(f"it is no JSON ({error})") from None
    check_row(row)
    upgrade_row(row)
    if "class_names" in left_out:
        row["n_classes"] = row.get("n_classes") or len(row.get("class_names", []))
    for field in left_out:
        row.pop(field, None)
    return row


def cut_lists(data: bytes, fields: Collection[str] = HEAVY_FIELDS) -> bytes:
    """A row's text with its long lists emptied, so that they are not parsed.

    In a row that `json.dumps(row, indent=1)` wrote, such a list ends at the first line that is
    " ]": no string contains a line break, and inner lists are indented further. A text of any other
    layout comes back as it is.
    """
    cuts = []
    for field in fields:
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
