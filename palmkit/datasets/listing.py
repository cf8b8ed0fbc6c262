"""A table of recordings: a CSV with columns of any name, read as `Recordings`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from palmkit.csv_files import read_header
from palmkit.datasets.recordings import Recordings, read_fold, read_split_words, refuse_lists
from palmkit.tables import DatasetError, check_rows, read_table

SUFFIXES = (".csv", ".tsv")  # of a file that is a table


@dataclass(frozen=True)
class Columns:
    """Names of a CSV's columns. None: the column of the kit's name, if there is one.

    root: the folder that the paths are relative to; None is the CSV's own.
    """

    path: str | None = None
    classname: str | None = None
    fold: str | None = None
    group: str | None = None
    split: str | None = None
    root: str | Path | None = None

    @property
    def is_given(self) -> bool:
        return any(value is not None for value in vars(self).values())

    def named(self) -> dict[str, str]:
        """{the kit's name: the CSV's} of the columns that the CSV must have."""
        given = {role: name for role, name in vars(self).items() if role != "root" and name}
        return {"path": "path", "classname": "classname"} | given


def is_table(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES


def read_listing(path: Path, columns: Columns = Columns()) -> Recordings:
    """The recordings of a CSV. Raises DatasetError, which names file and row."""
    base = path.parent if columns.root is None else Path(columns.root).expanduser().resolve()
    if not base.is_dir():
        raise DatasetError(f"there is no folder {base}: correct the root")
    named = columns.named()
    rows = [
        (line, row | {role: row[name] for role, name in named.items()})
        for line, row in read_table(path, tuple(named.values()))
    ]
    lines, values = zip(*check_rows(base, path, rows), strict=True)
    clips = pd.DataFrame(values, index=lines).fillna("")  # a row may be shorter than the header
    refuse_lists(path, named["classname"], clips["classname"])
    # The split or folds that the user names come before a column of the other's name.
    if columns.fold and not columns.split:
        clips = clips.drop(columns="split", errors="ignore")
    if "split" in clips:
        clips["split"] = read_splits(path, clips["split"])
    elif "fold" in clips:
        clips["fold"] = read_folds(path, clips["fold"])
    return Recordings(path, base, "a table", clips)


def read_listings(folder: Path, columns: Columns) -> Recordings:
    """The recordings of the one CSV in a folder, or one level below, that has these columns.

    Or of several that are named as splits: train.csv, test.csv. Raises DatasetError.
    """
    tables = [
        path
        for pattern in ("*", "*/*")
        for path in sorted(folder.glob(pattern))
        if is_table(path) and set(columns.named().values()) <= set(_header(path))
    ]
    if len(tables) == 1:
        return read_listing(tables[0], columns)
    words = read_split_words(path.stem for path in tables)
    if words and {path.parent for path in tables} == {tables[0].parent}:
        return _read_split_listings(folder, tables, words, columns)
    there = f"{len(tables)} CSVs" if tables else "no CSV"
    raise DatasetError(
        f"{folder} has {there} with the columns {', '.join(columns.named().values())}: give the "
        "path of the CSV, and the folder of its recordings as root"
    )


def _read_split_listings(
    folder: Path, tables: list[Path], words: dict[str, str], columns: Columns
) -> Recordings:
    """CSVs named as splits, as one table with a column `split`."""
    found = [read_listing(path, columns) for path in tables]
    clips = pd.concat(
        [one.clips.assign(split=words[one.source.stem]) for one in found], ignore_index=True
    )
    again = clips["path"][clips["path"].duplicated()]
    if len(again):
        raise DatasetError(f"{folder}: {again.iloc[0]} stands in two of its CSVs: remove one row")
    return Recordings(folder, found[0].base, "a table for each split", clips)


def list_listings(folder: Path) -> list[str]:
    """Names of the CSVs in a folder with the columns path and classname."""
    tables = sorted(path for path in folder.iterdir() if is_table(path))
    return [path.name for path in tables if {"path", "classname"} <= set(_header(path))]


def _header(path: Path) -> list[str]:
    try:
        return read_header(path)
    except DatasetError:
        return []


def read_splits(path: Path, cells: pd.Series) -> pd.Series:
    """The words train, test and validation for those in a column. Raises DatasetError."""
    if known := read_split_words(cells.unique()):
        return cells.map(known)
    beside = ["train"] if "train" in cells.unique() else []
    bad = next(cell for cell in cells if not read_split_words([cell, *beside]))
    raise DatasetError(
        f"{path}, row {cells.index[cells == bad][0]}: the split is {bad!r}, not train or test (or "
        "validation); correct it, or remove the column `split` to have a split made"
    )


def read_folds(path: Path, cells: pd.Series) -> pd.Series:
    """Numbers of folds: 1, 2, ..., or 0, 1, ... where every number up to the last is there."""
    numbers = {cell: read_fold(cell) for cell in cells.unique()}
    there = {number for number in numbers.values() if number is not None}
    from_zero = len(there) > 1 and there == set(range(len(there)))
    for line, cell in cells.items():
        if numbers[cell] is None or (numbers[cell] == 0 and not from_zero):
            raise DatasetError(
                f"{path}, row {line}: the fold is {cell!r}, not 1, 2, ...; correct it, or "
                "remove the column `fold` to have a split made"
            )
    return cells.map(numbers)
