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

from palmkit.checksums import verify_folder
from palmkit.tables import DatasetError, read_split


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


def find_folds(root) -> list[int | None]:
    """The folds of a dataset folder, [1, 2, ...], or [None] where it has one split."""
    root = Path(root)
    folds = sorted(
        int(m[1])
        for p in root.glob("csv_files/train_*.csv")
        if (m := re.fullmatch(r"train_(\d+)\.csv", p.name))
    )
    return folds or [None]


def read_dataset(root, fold: int | None = None) -> Dataset:
    """Read a dataset folder: `train.csv` and `test.csv` (else in `csv_files/`), or `csv_files/train_K.csv` for fold K.

    Columns `path` (relative to the folder) and `classname`.
    Class names are sorted; labels count them. Raises DatasetError, naming file and row, or files that are no longer
    as they were fetched.
    """
    root = Path(root)
    if problem := verify_folder(root):
        raise DatasetError(problem)
    folds = find_folds(root)
    if fold is None and folds != [None]:
        raise DatasetError(f"{root.name} has folds {folds}: say which, fold=1 for example")
    folder, suffix = split_folder(root, fold)
    if not (folder / f"train{suffix}.csv").is_file():
        known = f"it has folds {folds}" if folds != [None] else "it has no folds"
        raise DatasetError(
            f"{root.name}: there is no {folder.name}/train{suffix}.csv (fold={fold}; {known})"
        )
    frames = [read_split(root, folder / f"{part}{suffix}.csv") for part in ("train", "test")]
    train_classes, test_classes = (set(frame["class_name"]) for frame in frames)
    if train_classes != test_classes:
        raise DatasetError(
            f"{root.name}, fold {fold}: train and test have different classes; only in train: "
            f"{sorted(train_classes - test_classes)}, only in test: {sorted(test_classes - train_classes)}"
        )
    class_names = sorted(train_classes)
    if len(class_names) < 2:
        raise DatasetError(
            f"{root.name}: a classification task needs two classes or more, not {class_names}"
        )
    if same := indistinguishable_names(class_names):
        raise DatasetError(
            f"{root.name}, fold {fold}: the class names {' and '.join(map(repr, same[0]))} differ in case or spaces "
            "only; the text encoder reads them alike, so give one class one spelling in the CSVs"
        )
    for frame in frames:
        frame["label"] = frame["class_name"].map(
            {name: label for label, name in enumerate(class_names)}
        )
    return Dataset(root.name, root, fold, class_names, *frames)


def split_folder(root: Path, fold: int | None) -> tuple[Path, str]:
    """Where the tables of a fold are, and what follows "train" and "test" in their names.

    A split in csv_files/ was added to the published repositories later; where both are, the paper's is above it.
    """
    above = fold is None and (root / "train.csv").is_file()
    return root if above else root / "csv_files", "" if fold is None else f"_{fold}"


def indistinguishable_names(class_names) -> list[tuple[str, ...]]:
    """Names that CLIP's tokenizer reads alike, for it folds case and spaces."""
    groups: dict[str, list[str]] = {}
    for name in class_names:
        groups.setdefault(" ".join(name.lower().split()), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def draw_shots(train: pd.DataFrame, shots: int = 16, seed: int = 0) -> pd.DataFrame:
    """The published few-shot draw, exactly: for each class in sorted order, `sample(shots)` from NumPy's legacy stream.

    A class with fewer clips gives all of them and draws nothing; how many did is warned of. shots=-1: all clips.
    """
    if shots == -1:
        return train.copy()
    if shots < 1:
        raise ValueError(f"shots={shots}: use 1 or more, or -1 for all clips")
    stream = np.random.RandomState(
        seed
    )  # what np.random.seed(seed) starts, without touching the global generator
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
            f"{len(short)} classes have fewer than {shots} clips and give all: {', '.join(short)}",
            stacklevel=2,
        )
    drawn = pd.concat(chosen)
    drawn.attrs = dict(train.attrs)
    return drawn
