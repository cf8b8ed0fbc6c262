"""The CSV tables that say which clips a dataset trains and tests on: read, checked, written."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from palmkit.clip_paths import find_clip, leaves_folder
from palmkit.csv_files import COLUMNS, DatasetError, read_table
from palmkit.storage import atomic_write

SPLITS = ("train", "test")


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
    rows = check_rows(root, path, read_table(path))
    clips = [(str(root / row["path"]), row["classname"]) for _, row in rows]
    frame = pd.DataFrame(clips, columns=["path", "class_name"], index=[line for line, _ in rows])
    frame.attrs["csv"] = str(path)
    return frame


def write_split(root, split: str, fold: int | None, clips: Iterable[tuple[str, str]]) -> Path:
    """Write the table of a split, whole or not at all. clips: (path below `root`, class name)."""
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in [COLUMNS, *clips]:
        # csv leaves a carriage return unquoted, and would read it as the end of the row.
        (quoted if "\r" in "".join(row) else plain).writerow(row)
    path = split_path(root, split, fold)
    atomic_write(path, text.getvalue())
    return path


def check_rows(root: Path, path: Path, rows) -> list[tuple[int, dict[str, str]]]:
    """The rows of `read_table`, each path as the file's is below `root`.

    Raises DatasetError for the first bad row.
    """
    checked = []
    for line, row, problem in resolve_rows(root, rows):
        if problem:
            raise DatasetError(f"{path}, row {line}: {problem}")
        checked.append((line, row))
    return checked


def resolve_rows(root: Path, rows) -> Iterator[tuple[int, dict[str, str], str | None]]:
    """(line, row, what is wrong with it and what to do, or None) of each row of `read_table`.

    The path of a good row is the file's below `root`, however the table writes it.
    """
    first: dict[str, tuple[int, str]] = {}
    for line, row in rows:
        problem, clip = _row_problem(row), row["path"]
        if not problem:
            clip = find_clip(root, row["path"])
            problem = _file_problem(root, row["path"]) if clip is None else None
        if not problem:
            problem = _repeated(row, *first.setdefault(os.path.normpath(clip), (line, row)), line)
            row = row if clip == row["path"] else row | {"path": clip}
        yield line, row, problem


def _row_problem(row: dict) -> str | None:
    """What is wrong with the cells of a row, or None."""
    if None in row:
        return "it has more fields than the header; put names with a comma in quotes"
    if not (row["classname"] or "").strip():
        return "the class name is empty; fill it in, or remove the row"
    if not (row["path"] or "").strip():
        return "the path is empty; fill it in, or remove the row"
    if "\0" in row["path"] or "\0" in row["classname"]:
        return "it holds a NUL character; save the table as CSV in UTF-8"
    return None


def _repeated(row: dict, first_line: int, first_row: dict, line: int) -> str | None:
    """What is wrong with a row whose file stands in an earlier row; None if it does not."""
    if first_line == line:
        return None
    problem = f"{row['path']} stands in row {first_line} already"
    names = first_row["classname"], row["classname"]
    if names[0] == names[1]:
        return f"{problem}; remove one of the two"
    return (
        f"{problem}, as {names[0]!r} there and {names[1]!r} here; a clip has one class (several "
        "are multi-label data, which cannot be used): remove one of the two"
    )


def _file_problem(root: Path, clip: str) -> str:
    """Why a cell of a table names no file of the folder."""
    # Links inside the folder may point anywhere: audio often lies on another disk.
    if leaves_folder(root, clip):
        return (
            f"{clip} leaves the dataset's folder; write paths relative to {root}, or give the "
            "recordings' folder as root (--root)"
        )
    path = root / clip
    try:
        if path.is_dir():
            return f"{path} is a folder, no audio file; correct the path, or remove the row"
        os.stat(path)
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long, for example
        return f"{clip[:100]} cannot be a file ({error.strerror}); correct the path"
    return f"there is no file {path}; correct the path, fetch the file, or remove the row"
