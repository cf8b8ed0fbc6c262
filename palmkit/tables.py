"""The CSV tables of a dataset's splits: read, checked row by row."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pandas as pd


class DatasetError(ValueError):
    """A dataset that cannot be used; the message names file and row and says what to do."""


def read_split(root: Path, path: Path) -> pd.DataFrame:
    """One CSV as (path, class_name), every row checked. The index is the row's line in the file (the header is 1)."""
    rows = read_table(path)
    if problem := next(row_problems(root, rows), None):
        raise DatasetError(f"{path}, row {problem[0]}: {problem[1]}")
    clips = [(str(root / row["path"]), row["classname"]) for _, row in rows]
    frame = pd.DataFrame(clips, columns=["path", "class_name"], index=[line for line, _ in rows])
    frame.attrs["csv"] = str(path)
    return frame


def read_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV with the columns `path` and `classname`, each with its line; their values are not looked at."""
    if not path.is_file():
        raise DatasetError(f"there is no {path}")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or [])
            rows = [
                (reader.line_num, row) for row in reader
            ]  # blank lines are no rows, but count as lines
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is no CSV table in UTF-8: {error}") from error
    if not columns:
        raise DatasetError(f"{path} is no CSV table: it is empty")
    if missing := [column for column in ("path", "classname") if column not in columns]:
        raise DatasetError(f"{path} has no column {', '.join(missing)}; its columns are {columns}")
    if not rows:
        raise DatasetError(f"{path} has no rows")
    return rows


def row_problems(root: Path, rows):
    """(line, what is wrong with it) of each bad row of `read_table`."""
    first: dict[str, int] = {}
    for line, row in rows:
        if problem := _row_problem(root, row, line, first):
            yield line, problem


def _row_problem(root: Path, row: dict, line: int, first: dict[str, int]) -> str | None:
    """What is wrong with a row, or None; `first` keeps each path's first line."""
    if None in row:
        return "it has more fields than the header; put names with a comma in quotes"
    clip = row["path"] or ""
    if not (row["classname"] or "").strip():
        return "the class name is empty"
    if not clip.strip():
        return "the path is empty"
    plain = os.path.normpath(clip)
    if (
        os.path.isabs(clip) or plain.split(os.sep)[0] == ".."
    ):  # links inside the folder may point anywhere
        return f"{clip} leaves the dataset's folder"
    if first.setdefault(plain, line) != line:
        return f"{clip} stands in row {first[plain]} already"
    if not (root / clip).is_file():
        return f"there is no file {root / clip}"
    return None
