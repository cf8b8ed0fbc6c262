"""Datasets in the published layout, and the published few-shot draw."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from palmkit.datasets.lock import what_changed


class DatasetError(ValueError):
    """A dataset that cannot be used; the message names file and row and says what to do."""


@dataclass(frozen=True)
class Dataset:
    """One fold of a dataset. `.train`, `.test`: DataFrames (path, class_name, label), indexed by row of their CSV."""

    name: str
    root: Path
    fold: int | None
    class_names: list[str]
    train: pd.DataFrame
    test: pd.DataFrame

    def digest(self) -> str:
        """sha256 of what the split lists: relative paths, sizes and classes."""
        sha = hashlib.sha256(repr(self.class_names).encode())
        for frame in (self.train, self.test):
            for path, label in zip(frame["path"], frame["label"], strict=True):
                sha.update(f"{self.relative(path)}|{label}|{os.path.getsize(path)}\n".encode())
        return sha.hexdigest()

    def relative(self, path) -> str:
        """A clip's path as its CSV has it."""
        return Path(path).relative_to(self.root).as_posix()


def dataset_root(dataset) -> Path:
    """The folder of a dataset given as a path, as a name in the folder that PALMKIT_DATA tells, or as the name of a
    generated one, which is made if it is not there yet. A folder of class folders, or a CSV, is split by `own_dataset`.
    """
    root = Path(dataset).expanduser()
    named = data_root() / root
    if not root.exists() and named.exists():
        root = named
    if root.exists():
        from palmkit.datasets.own import is_own, own_dataset

        if is_own(root):
            return own_dataset(root)
    if not root.is_dir():
        from palmkit_mini.tasks import TASKS, build_task

        if str(dataset) in TASKS:
            return build_task(str(dataset))
        raise DatasetError(
            f"there is no dataset folder {dataset}, nor {named} (PALMKIT_DATA tells where datasets are); generated "
            f"ones are {', '.join(TASKS)}, and published ones come by `python -m palmkit fetch NAME`"
        )
    return root


def data_root() -> Path:
    """Where datasets are looked for by name: PALMKIT_DATA, or `data` in the current folder."""
    return Path(os.environ.get("PALMKIT_DATA") or "data").expanduser()


def list_folds(root) -> list[int | None]:
    """The folds of a dataset, [1, 2, ...], or [None] where it has one split."""
    root = dataset_root(root)
    folds = sorted(
        int(m[1]) for p in root.glob("csv_files/train_*.csv") if (m := re.fullmatch(r"train_(\d+)\.csv", p.name))
    )
    return folds or [None]


def choose_folds(dataset, folds="all") -> list[int | None]:
    """The folds of a dataset that "all", "first" or a list of numbers means; None is a single split."""
    known = list_folds(dataset)
    if folds == "all":
        return known
    if folds == "first":
        return known[:1]
    if unknown := {int(fold) for fold in folds} - set(known):
        there = "no folds" if known == [None] else f"folds {known}"
        raise ValueError(f"{dataset_root(dataset).name} has {there}; there is no fold {sorted(unknown)}")
    return [int(fold) for fold in folds]


def load_dataset(root, fold: int | None = None) -> Dataset:
    """Read a dataset folder: `train.csv` and `test.csv` (else in `csv_files/`), or `csv_files/train_K.csv` for fold K.

    root: a folder, or a name in the folder PALMKIT_DATA. Columns `path` (relative to the folder) and `classname`.
    Class names are sorted; labels count them. Raises DatasetError, naming file and row, or files that are no longer
    as they were fetched.
    """
    root = dataset_root(root)
    if problem := what_changed(root):
        raise DatasetError(problem)
    folds = list_folds(root)
    if fold is None and folds != [None]:
        raise DatasetError(f"{root.name} has folds {folds}: say which, fold=1 for example")
    folder, suffix = split_folder(root, fold)
    if not (folder / f"train{suffix}.csv").is_file():
        known = f"it has folds {folds}" if folds != [None] else "it has no folds"
        raise DatasetError(f"{root.name}: there is no {folder.name}/train{suffix}.csv (fold={fold}; {known})")
    frames = [read_split(root, folder / f"{part}{suffix}.csv") for part in ("train", "test")]
    train_classes, test_classes = (set(frame["class_name"]) for frame in frames)
    if train_classes != test_classes:
        raise DatasetError(
            f"{root.name}, fold {fold}: train and test have different classes; only in train: "
            f"{sorted(train_classes - test_classes)}, only in test: {sorted(test_classes - train_classes)}"
        )
    class_names = sorted(train_classes)
    if len(class_names) < 2:
        raise DatasetError(f"{root.name}: a classification task needs two classes or more, not {class_names}")
    if same := alike(class_names):
        raise DatasetError(
            f"{root.name}, fold {fold}: the class names {' and '.join(map(repr, same[0]))} differ in case or spaces "
            "only; the text encoder reads them alike, so give one class one spelling in the CSVs"
        )
    for frame in frames:
        frame["label"] = frame["class_name"].map({name: label for label, name in enumerate(class_names)})
    return Dataset(root.name, root, fold, class_names, *frames)


def split_folder(root: Path, fold: int | None) -> tuple[Path, str]:
    """Where the tables of a fold are, and what follows "train" and "test" in their names.

    A split in csv_files/ was added to the published repositories later; where both are, the paper's is above it.
    """
    above = fold is None and (root / "train.csv").is_file()
    return root if above else root / "csv_files", "" if fold is None else f"_{fold}"


def alike(class_names) -> list[tuple[str, ...]]:
    """Names that CLIP's tokenizer reads alike, for it folds case and spaces."""
    groups: dict[str, list[str]] = {}
    for name in class_names:
        groups.setdefault(" ".join(name.lower().split()), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


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
            rows = [(reader.line_num, row) for row in reader]  # blank lines are no rows, but count as lines
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
    if os.path.isabs(clip) or plain.split(os.sep)[0] == "..":  # links inside the folder may point anywhere
        return f"{clip} leaves the dataset's folder"
    if first.setdefault(plain, line) != line:
        return f"{clip} stands in row {first[plain]} already"
    if not (root / clip).is_file():
        return f"there is no file {root / clip}"
    return None


def draw_shots(train: pd.DataFrame, shots: int = 16, seed: int = 0) -> pd.DataFrame:
    """The published few-shot draw, exactly: for each class in sorted order, `sample(shots)` from NumPy's legacy stream.

    A class with fewer clips gives all of them and draws nothing; how many did is warned of. shots=-1: all clips.
    """
    if shots == -1:
        return train.copy()
    if shots < 1:
        raise ValueError(f"shots={shots}: use 1 or more, or -1 for all clips")
    stream = np.random.RandomState(seed)  # what np.random.seed(seed) starts, without touching the global generator
    chosen, short = [], []
    for class_name in sorted(train["class_name"].unique()):
        clips = train[train["class_name"] == class_name]
        if len(clips) < shots:
            short.append(f"{class_name} ({len(clips)})")
            chosen.append(clips)
        else:
            chosen.append(clips.sample(shots, random_state=stream))
    if short:
        warnings.warn(
            f"{len(short)} classes have fewer than {shots} clips and give all: {', '.join(short)}", stacklevel=2
        )
    drawn = pd.concat(chosen)
    drawn.attrs = dict(train.attrs)
    return drawn
