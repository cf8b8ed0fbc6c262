"""Datasets in the published layout, and the published few-shot draw."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd


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
    """The folder of a dataset given as a path, or as a name in the folder that PALMKIT_DATA tells."""
    if dataset == "standin":
        from palmkit.standin import standin_dataset

        return standin_dataset()
    root = Path(dataset).expanduser()
    named = Path(os.environ.get("PALMKIT_DATA", "data")).expanduser() / root
    if not root.is_dir() and named.is_dir():
        return named
    if not root.is_dir():
        raise DatasetError(f"there is no dataset folder {dataset}, nor {named} (PALMKIT_DATA tells where datasets are)")
    return root


def list_folds(root) -> list[int | None]:
    """The folds of a dataset, [1, 2, ...], or [None] where it has one split."""
    root = dataset_root(root)
    folds = sorted(
        int(m[1]) for p in root.glob("csv_files/train_*.csv") if (m := re.fullmatch(r"train_(\d+)\.csv", p.name))
    )
    return list(folds) or [None]


def load_dataset(root, fold: int | None = None) -> Dataset:
    """Read a dataset folder: `train.csv` and `test.csv` (also in `csv_files/`), or `csv_files/train_K.csv` for fold K.

    root: a folder, or a name in the folder PALMKIT_DATA. Columns `path` (relative to the folder) and `classname`.
    Class names are sorted; labels count them. Raises DatasetError, naming file and row.
    """
    root = dataset_root(root)
    folds = list_folds(root)
    if fold is not None or folds == [None]:
        suffix = "" if fold is None else f"_{fold}"
        folders = [root / "csv_files", root] if fold is None else [root / "csv_files"]
        found = [folder for folder in folders if (folder / f"train{suffix}.csv").is_file()]
    if fold is None and folds != [None]:
        raise DatasetError(f"{root.name} has folds {folds}: say which, fold=1 for example")
    if not found:
        known = f"it has folds {folds}" if folds != [None] else "it has no folds"
        raise DatasetError(f"{root.name}: there is no {folders[0].name}/train{suffix}.csv (fold={fold}; {known})")
    frames = [read_split(root, found[0] / f"{part}{suffix}.csv") for part in ("train", "test")]
    train_classes, test_classes = (set(frame["class_name"]) for frame in frames)
    if train_classes != test_classes:
        raise DatasetError(
            f"{root.name}, fold {fold}: train and test have different classes; only in train: "
            f"{sorted(train_classes - test_classes)}, only in test: {sorted(test_classes - train_classes)}"
        )
    class_names = sorted(train_classes)
    if len(class_names) < 2:
        raise DatasetError(f"{root.name}: a classification task needs two classes or more, not {class_names}")
    for frame in frames:
        frame["label"] = frame["class_name"].map({name: label for label, name in enumerate(class_names)})
    return Dataset(root.name, root, fold, class_names, *frames)


def read_split(root: Path, csv: Path) -> pd.DataFrame:
    """One CSV as (path, class_name), every row checked. The index is the row's number in the file (the header is 1)."""
    if not csv.is_file():
        raise DatasetError(f"there is no {csv}")
    try:
        frame = pd.read_csv(csv, dtype=str, keep_default_na=False)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DatasetError(f"{csv} is no CSV table: {error}") from error
    missing = [column for column in ("path", "classname") if column not in frame.columns]
    if missing:
        raise DatasetError(f"{csv} has no column {', '.join(missing)}; its columns are {list(frame.columns)}")
    if frame.empty:
        raise DatasetError(f"{csv} has no rows")
    frame.index += 2
    first: dict[str, int] = {}
    for row, path, class_name in zip(frame.index, frame["path"], frame["classname"], strict=True):
        where = f"{csv}, row {row}"
        if not class_name.strip():
            raise DatasetError(f"{where}: the class name is empty")
        if not path.strip():
            raise DatasetError(f"{where}: the path is empty")
        if os.path.isabs(path) or os.path.normpath(path).startswith(".."):  # links inside the folder may point anywhere
            raise DatasetError(f"{where}: {path} leaves the dataset's folder")
        if first.setdefault(path, row) != row:
            raise DatasetError(f"{where}: {path} stands in row {first[path]} already")
        if not (root / path).is_file():
            raise DatasetError(f"{where}: there is no file {root / path}")
    frame = pd.DataFrame({"path": [str(root / path) for path in frame["path"]], "class_name": frame["classname"]})
    frame.attrs["csv"] = str(csv)
    return frame


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
