"""The CSV tables that say which clips a dataset trains and tests on: read, checked, written."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from palmkit.storage import atomic_write

SPLITS = ("train", "test")
COLUMNS = ("path", "classname")


class DatasetError(ValueError):
    """A dataset that cannot be used; the message names file and row and says what to do."""


def find_folds(root) -> list[int | None]:
    """The folds of a dataset folder, [1, 2, ...], or [None] if it has a single split."""
    tables = Path(root).glob("csv_files/train_*.csv")
    numbers = [re.fullmatch(r"train_(0|[1-9]\d*)\.csv", path.name) for path in tables]
    return sorted(int(number[1]) for number in numbers if number) or [None]


def split_path(root, split: str, fold: int | None = None) -> Path:
    """Where the table of a split is, or is to be written.

    `csv_files/train_2.csv` for fold 2; `train.csv`, else `csv_files/train.csv` for a single split.
    The published repositories gained a single split in `csv_files/` later. Where both are there,
    the paper's is the upper one.
    """
    root = Path(root)
    if fold is not None:
        return root / "csv_files" / f"{split}_{fold}.csv"
    upper, lower = root / "train.csv", root / "csv_files" / "train.csv"
    folder = lower.parent if lower.is_file() and not upper.is_file() else root
    return folder / f"{split}.csv"


def read_split(root: Path, path: Path) -> pd.DataFrame:
    """One table as a DataFrame (path, class_name), every row checked.

    The index is the row's line in the file; the header is line 1. Raises DatasetError.
    """
    rows = read_table(path)
    check_rows(root, path, rows)
    clips = [(str(root / row["path"]), row["classname"]) for _, row in rows]
    frame = pd.DataFrame(clips, columns=["path", "class_name"], index=[line for line, _ in rows])
    frame.attrs["csv"] = str(path)
    return frame


def write_split(root, split: str, fold: int | None, clips: Iterable[tuple[str, str]]) -> Path:
    """Write the table of a split, whole or not at all. clips: (path below `root`, class name)."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *clips])
    path = split_path(root, split, fold)
    atomic_write(path, text.getvalue())
    return path


def read_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV with the columns `path` and `classname`, each with its line in the file.

    The values are not checked; `row_problems` does that. Raises DatasetError.
    """
    if not path.is_file():
        problem = f"{path} is a folder" if path.is_dir() else f"there is no {path}"
        raise DatasetError(
            f"{problem}: a table is a CSV file with the columns path and classname; write it, or "
            "fetch the dataset again"
        )
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or [])
            # A blank line is no row, but it counts as a line.
            rows = [(reader.line_num, row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path} is no CSV table in UTF-8 ({error}): save it as CSV in UTF-8"
        ) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}): make it readable") from error
    _check_columns(path, columns)
    if not rows:
        raise DatasetError(f"{path} has no rows: add a row for each clip, as path,classname")
    return rows


def _check_columns(path: Path, columns: list[str]) -> None:
    if not columns:
        raise DatasetError(
            f"{path} is no CSV table: it is empty; write the header path,classname and a row for "
            "each clip"
        )
    if missing := [column for column in COLUMNS if column not in columns]:
        raise DatasetError(
            f"{path} has no column {', '.join(missing)}; its columns are {columns}: the first line "
            "must be a header with path and classname, separated by a comma"
        )
    if repeated := sorted({column for column in COLUMNS if columns.count(column) > 1}):
        raise DatasetError(
            f"{path} has the column {', '.join(repeated)} more than once: keep one of each"
        )


def check_rows(root: Path, path: Path, rows) -> None:
    """Raise DatasetError for the first bad row of a table."""
    for line, problem in row_problems(root, rows):
        raise DatasetError(f"{path}, row {line}: {problem}")


def row_problems(root: Path, rows) -> Iterator[tuple[int, str]]:
    """(line, what is wrong with it and what to do) of each bad row of `read_table`."""
    first: dict[str, int] = {}
    for line, row in rows:
        if problem := _row_problem(root, row, line, first):
            yield line, problem


def _row_problem(root: Path, row: dict, line: int, first: dict[str, int]) -> str | None:
    """What is wrong with a row, or None. `first` collects the first line of each path."""
    if None in row:
        return "it has more fields than the header; put names with a comma in quotes"
    clip = row["path"] or ""
    if not (row["classname"] or "").strip():
        return "the class name is empty; fill it in, or remove the row"
    if not clip.strip():
        return "the path is empty; fill it in, or remove the row"
    if "\0" in clip or "\0" in row["classname"]:
        return "it holds a NUL character; save the table as CSV in UTF-8"
    plain = os.path.normpath(clip)
    # Links inside the folder may point anywhere: audio often lies on another disk.
    if os.path.isabs(clip) or plain.split(os.sep)[0] == "..":
        return f"{clip} leaves the dataset's folder; write paths relative to {root}"
    if first.setdefault(plain, line) != line:
        return f"{clip} stands in row {first[plain]} already; remove one of the two"
    return _file_problem(root, clip)


def _file_problem(root: Path, clip: str) -> str | None:
    path = root / clip
    try:
        if path.is_file():
            return None
    except OSError as error:  # a name that is too long, for example
        return f"{clip[:100]} cannot be a file ({error.strerror}); correct the path"
    if path.is_dir():
        return f"{path} is a folder, no audio file; correct the path, or remove the row"
    if "\\" in clip:
        return f"there is no file {path}; write / between folders"
    return f"there is no file {path}; correct the path, fetch the file, or remove the row"
