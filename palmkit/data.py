"""Load a dataset folder in the published layout, and draw the published few-shot clips."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd

from palmkit.checksums import verify_folder
from palmkit.names import one_spelling
from palmkit.tables import SPLITS, DatasetError, find_folds, read_split, split_path
from palmkit.thread_pools import map_in_chunks

HASHING_THREADS = 4
NAMED = 20  # classes that a warning names


@dataclass(frozen=True)
class Dataset:
    """One fold of a dataset.

    train, test: DataFrames (path, class_name, label), indexed by the row of their CSV. `label`
    is the index in `class_names`, which are sorted. left_out: files that cannot be used and were
    left out, each with the reason.
    """

    name: str
    root: Path
    fold: int | None
    class_names: list[str]
    train: pd.DataFrame
    test: pd.DataFrame
    left_out: tuple[str, ...] = ()

    def digest(self) -> str:
        """sha256 of class names and of every row's split, relative path, label and file content.

        It does not depend on where the folder is or on the files' times. A process hashes a file
        again only if its size, times or inode changed. Raises AudioError for a missing file.
        """
        from palmkit.audio import file_digest  # PyTorch is behind it, and loading needs none

        frames = {"train": self.train, "test": self.test}
        paths = [path for frame in frames.values() for path in frame["path"]]
        with ThreadPoolExecutor(HASHING_THREADS) as pool:
            contents = iter([*map_in_chunks(pool, file_digest, paths)])
        sha = hashlib.sha256(json.dumps(self.class_names).encode())
        for split, frame in frames.items():
            for path, label in zip(frame["path"], frame["label"], strict=True):
                row = [split, self.relative(path), int(label), next(contents)]
                sha.update(json.dumps(row).encode())
        return sha.hexdigest()

    def read_validation(self) -> pd.DataFrame | None:
        """The validation split, in the columns of `train`; None for a dataset that has none.

        Nothing in the kit trains or tests on it. It is no part of `digest`. Raises DatasetError.
        """
        path = split_path(self.root, "validation", self.fold)
        if not path.is_file():
            return None
        frame = read_split(self.root, path)
        labels = {name: label for label, name in enumerate(self.class_names)}
        if unknown := sorted(set(frame["class_name"]) - set(labels)):
            raise DatasetError(f"{path} has classes that {self.name} does not train on: {unknown}")
        return frame.assign(label=frame["class_name"].map(labels))

    def relative(self, path) -> str:
        """A clip's path relative to the folder, as in its CSV."""
        return Path(path).relative_to(self.root).as_posix()


def read_dataset(root, fold: int | None = None) -> Dataset:
    """Read a dataset folder: `train.csv` and `test.csv`, or those of fold K in `csv_files/`.

    The tables have the columns `path`, relative to the folder, and `classname`. Raises
    DatasetError, which names file and row. It is also raised if files differ from what was fetched.
    """
    root = Path(root)
    if problem := verify_folder(root):
        raise DatasetError(problem)
    name = Path(os.path.abspath(root)).name  # "." has no name
    _check_fold(root, name, fold)
    frames = {split: read_split(root, split_path(root, split, fold)) for split in SPLITS}
    spelling = one_spelling(name for frame in frames.values() for name in frame["class_name"])
    for frame in frames.values():
        frame["class_name"] = frame["class_name"].map(spelling)
    place = name if fold is None else f"{name}, fold {fold}"
    class_names = _check_classes(place, frames)
    labels = {name: label for label, name in enumerate(class_names)}
    for frame in frames.values():
        frame["label"] = frame["class_name"].map(labels)
    return Dataset(name, root, fold, class_names, **frames)


def _check_fold(root: Path, name: str, fold: int | None) -> None:
    """Raise DatasetError if a folder has no such fold."""
    folds = find_folds(root)
    if fold is not None and (isinstance(fold, bool) or not isinstance(fold, Integral)):
        raise DatasetError(f"fold={fold!r}: use a whole number, or None for a single split")
    if fold is None and folds != [None]:
        raise DatasetError(f"{name} has the folds {folds}: choose one, fold={folds[0]} for example")
    if split_path(root, "train", fold).is_file():
        return
    if folds != [None]:
        raise DatasetError(
            f"{name} has no csv_files/train_{fold}.csv, so it has no fold {fold}: choose one "
            f"of the folds {folds}"
        )
    if split_path(root, "train").is_file():
        raise DatasetError(
            f"{name} has no csv_files/train_{fold}.csv: it has no folds, so leave fold out"
        )
    raise DatasetError(
        f"{root} holds no dataset: it has neither a folder of audio files for each class, nor "
        "tables (train.csv, csv_files/train.csv or csv_files/train_1.csv). Choose the folder that "
        "has them, or fetch it again"
    )


def _check_classes(place: str, frames: dict[str, pd.DataFrame]) -> list[str]:
    """The sorted class names. Raises DatasetError if they make no classification task."""
    train, test = (set(frames[split]["class_name"]) for split in SPLITS)
    if train != test:
        raise DatasetError(
            f"{place}: train and test have different classes; only in train: "
            f"{sorted(train - test)}, only in test: {sorted(test - train)}. Give every class clips "
            "in both tables, or remove its rows"
        )
    class_names = sorted(train)
    if len(class_names) < 2:
        raise DatasetError(
            f"{place}: a classification task needs two classes or more, not {class_names}; add "
            "clips of another class to both tables"
        )
    if same := indistinguishable_names(class_names):
        raise DatasetError(
            f"{place}: the class names {' and '.join(map(repr, same[0]))} differ in case, spaces "
            "or invisible characters only, and the text encoder or the reader does not tell them "
            "apart; give one class one spelling in the tables"
        )
    return class_names


def indistinguishable_names(class_names) -> list[tuple[str, ...]]:
    """Groups of names that are equal for CLIP's tokenizer, which folds case and spaces.

    It also composes characters (NFC). Names that differ in invisible characters are equal for the
    reader.
    """
    groups: dict[str, list[str]] = {}
    for name in class_names:
        seen = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
        plain = " ".join(unicodedata.normalize("NFC", seen).split()).lower()
        groups.setdefault(plain, []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def draw_shots(train: pd.DataFrame, shots: int = 16, seed: int = 0) -> pd.DataFrame:
    """The published few-shot draw: for each class in sorted order, `sample(shots)`.

    All classes share one legacy NumPy generator seeded by `seed`, as in the published code. For a
    class with fewer clips, all of them are used and no random number is drawn; a warning names such
    classes, 20 at most. shots=-1: all clips, without a draw.
    """
    if shots == -1:
        return train.copy()
    if not isinstance(shots, Integral) or shots < 1:
        raise ValueError(f"shots={shots!r}: use 1 or more, or -1 for all clips")
    if not isinstance(seed, Integral) or not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed!r}: use a whole number from 0 to {2**32 - 1}")
    # The numbers of np.random.seed(seed), without touching the global generator.
    stream = np.random.RandomState(seed)
    chosen, short = [], []
    places = train.groupby("class_name", observed=True).indices  # one look at each clip
    for class_name in sorted(places):
        clips = places[class_name]
        if len(clips) < shots:
            short.append(f"{class_name} ({len(clips)})")
            chosen.append(clips)
        else:  # what `train[train["class_name"] == class_name].sample(shots)` draws
            chosen.append(clips[stream.choice(len(clips), shots, replace=False)])
    if short:
        more = f" and {len(short) - NAMED} more" if len(short) > NAMED else ""
        warnings.warn(
            f"{len(short)} classes have fewer than {shots} clips, all are used: "
            f"{', '.join(short[:NAMED])}{more}",
            stacklevel=2,
        )
    drawn = train.iloc[np.concatenate(chosen)]
    drawn.attrs = dict(train.attrs)
    return drawn
