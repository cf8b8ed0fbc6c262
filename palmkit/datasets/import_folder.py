"""Recordings of one's own as a dataset: a folder of class folders, or a CSV."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from palmkit.audio import digest, file_digest
from palmkit.checksums import CHECKSUM_FILE
from palmkit.data import indistinguishable_names
from palmkit.datasets.filenames import parse_file_name
from palmkit.storage import atomic_write, cache_root
from palmkit.tables import SPLITS, DatasetError, check_rows, read_table, write_split

SUFFIXES = {".aif", ".aiff", ".au", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav"}
SPLIT_VERSION = 2  # raise it if equal files and settings give another split
SEEDS_TRIED = 20  # until every class is in both parts of every fold
SINGLE_SPLIT_FOLDS = 4  # a single split tests on one of so many folds


def is_raw_audio(path) -> bool:
    """Whether a path is recordings without tables: a CSV, or a folder of folders of audio files.

    A published dataset that lost its tables (a folder with checksums or `audios`) is not.
    """
    path = Path(path)
    if path.is_file():
        return path.suffix.lower() == ".csv"
    if not path.is_dir() or (path / CHECKSUM_FILE).exists() or (path / "audios").exists():
        return False
    tables = [*path.glob("*.csv"), *path.glob("csv_files/*.csv")]
    return not tables and any(_audio_files(folder) for folder in _folders(path))


def import_dataset(
    path, folds: int = 5, groups: str | None = None, seed: int = 0, root=None
) -> Path:
    """Make splits of recordings. Returns a folder for `load_dataset`.

    Recordings are neither copied, moved nor changed.

    path: a folder with a folder of audio files for each class, named as the class; or a CSV with
        the columns `path` (relative to the CSV's folder) and `classname`. The CSV may have a
        column `split` (train, test) or `fold` (1, 2, ...: fold K is tested on the rows with K).
        Without such a column a split is made:
    folds: stratified by class, no group in two folds; 1 makes a single split with a quarter to
        test.
    groups: clips that stay together. A column of the CSV, or a regular expression whose first
        group is taken from each file's path, such as "([^/]+)_". Default: a column `group`, else
        recording or speaker if all file names tell it (`filenames.py`), else each file by itself.
        Files of equal bytes always stay together.
    root: the folder of the tables (default: in the cache), with `split.json`, which says how they
        were made. Equal files and settings give equal tables. Raises DatasetError.
    """
    _check_settings(folds, groups, seed)
    path = Path(path).expanduser().resolve()
    clips = _read_csv(path) if path.is_file() else _read_folder(path)
    base = path.parent if path.is_file() else path
    name = path.stem if path.is_file() else path.name
    if "split" in clips:
        how = {"split": "the column `split`"}
    elif "fold" in clips:
        how = {"split": "the column `fold`"}
    else:
        clips["group"], grouping = _groups(clips, base, groups)
        how = {"split": "made here", "folds": folds, "seed": seed, "groups": grouping}
    made = _provenance(path, base, clips, how)
    key = digest(json.dumps(made, sort_keys=True).encode())[:16]
    root = Path(root) if root else cache_root() / "imported" / key / name
    if _is_made(root, made):
        return root
    _check_root(root, path)
    _write(root, base, _splits(clips, how), made)
    return root


def _check_settings(folds, groups, seed) -> None:
    if not isinstance(folds, Integral) or folds < 1:
        raise DatasetError(f"folds={folds!r}: use 2 or more, or 1 for a single split")
    if not isinstance(seed, Integral) or not 0 <= seed < 2**32:
        raise DatasetError(f"seed={seed!r}: use a whole number from 0 to {2**32 - 1}")
    if groups is not None and not groups:
        raise DatasetError("groups is empty: name a column, give an expression, or leave it out")


def _check_root(root: Path, path: Path) -> None:
    """Raise DatasetError if tables cannot go to `root`."""
    if root.exists():
        raise DatasetError(
            f"{root} is there already and holds something else: choose another root, or delete it"
        )
    if path.is_dir() and path in root.resolve().parents:
        raise DatasetError(
            f"{root} is inside {path}, where it would be taken for a class: choose another root"
        )


own_dataset = import_dataset  # the name in earlier versions


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir())


def _audio_files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )


def _read_folder(path: Path) -> pd.DataFrame:
    if not path.is_dir():
        raise DatasetError(f"there is no folder or CSV {path}: correct the path")
    rows = [
        (file.relative_to(path).as_posix(), folder.name)
        for folder in _folders(path)
        for file in _audio_files(folder)
    ]
    clips = pd.DataFrame(rows, columns=["path", "classname"])
    _check_classes(clips, path)
    return clips


def _read_csv(path: Path) -> pd.DataFrame:
    rows = read_table(path)
    check_rows(path.parent, path, rows)
    lines, values = zip(*rows, strict=True)
    clips = pd.DataFrame(values, index=lines).fillna("")  # a row may be shorter than the header
    _check_column(path, clips, "split", "train or test", lambda value: value in SPLITS)
    _check_column(path, clips, "fold", "1, 2, ...", _is_fold)
    _check_classes(clips, path)
    return clips


def _is_fold(value: str) -> bool:
    return value.isascii() and value.isdigit() and int(value) > 0


def _check_column(path: Path, clips: pd.DataFrame, column: str, wanted: str, is_valid) -> None:
    """Raise DatasetError for the first bad value of a column that a CSV may have."""
    for line, value in clips[column].items() if column in clips else ():
        if not is_valid(value):
            raise DatasetError(
                f"{path}, row {line}: the {column} is {value!r}, not {wanted}; correct it, or "
                f"remove the column `{column}` to have a split made"
            )


def _check_classes(clips: pd.DataFrame, path: Path) -> None:
    names = sorted(clips["classname"].unique())
    if len(names) < 2:
        raise DatasetError(
            f"{path} has the classes {names}; a task needs two or more, with audio files in each "
            f"({', '.join(sorted(SUFFIXES))})"
        )
    if same := indistinguishable_names(names):
        raise DatasetError(
            f"{path}: the class names {' and '.join(map(repr, same[0]))} differ in case or spaces "
            "only; give one class one spelling"
        )


def _groups(clips: pd.DataFrame, base: Path, groups: str | None) -> tuple[pd.Series, str]:
    """One label a clip, equal for clips that stay together; and how it was found."""
    column = groups or "group"
    if column in clips:
        labels, how = _group_column(clips, column), f"the column `{column}`"
    elif groups:
        labels, how = _match_groups(clips, groups), f"the regular expression {groups}"
    else:
        labels, how = _groups_by_name(clips)
    contents = [file_digest(base / path) for path in clips["path"]]
    return _join_equal_files(labels, contents), how


def _group_column(clips: pd.DataFrame, column: str) -> pd.Series:
    """A column of the CSV; DatasetError where a cell is empty."""
    labels = clips[column]
    if (empty := labels.index[labels.str.strip() == ""]).size:
        raise DatasetError(
            f"row {empty[0]}: the column `{column}` is empty ({len(empty)} such rows): write what "
            "the clip belongs to, or a name of its own"
        )
    return labels


def _match_groups(clips: pd.DataFrame, groups: str) -> pd.Series:
    """The first group of a regular expression in each path."""
    try:
        labels = clips["path"].str.extract(re.compile(groups))[0]
    except (re.error, ValueError) as error:
        raise DatasetError(
            f"groups={groups!r} is no column and no regular expression with a group ({error}): "
            'give a column of the CSV, or an expression such as "([^/]+)_"'
        ) from error
    if labels.isna().any():
        without = clips["path"][labels.isna()]
        raise DatasetError(
            f"groups={groups!r} does not match {without.iloc[0]} ({len(without)} such files): "
            "change the expression, or rename the files"
        )
    return labels


def _groups_by_name(clips: pd.DataFrame) -> tuple[pd.Series, str]:
    """Speaker or recording where every file name tells it; else each file by itself."""
    parsed = [parse_file_name(path) for path in clips["path"]]
    for kind in ("speaker", "recording"):
        if all(kind in origin for origin in parsed):
            labels = [origin[kind] for origin in parsed]
            return pd.Series(labels, clips.index), f"{kind}s that file names tell"
    return clips["path"], "each file by itself"


def _join_equal_files(labels: pd.Series, contents: list[str]) -> pd.Series:
    """Make groups that share a file's bytes one group, named as the first of them."""
    group, names = pd.factorize(labels)
    content, _ = pd.factorize(np.asarray(contents))
    # A graph of groups and contents: a clip is an edge from its group to its content.
    size = len(names) + content.max() + 1
    edges = coo_array((np.ones(len(group)), (group, len(names) + content)), (size, size))
    _, component = connected_components(edges, directed=False)
    first = {}
    for number, name in enumerate(names):
        first.setdefault(component[number], name)
    return pd.Series([first[component[number]] for number in group], labels.index)


@dataclass(frozen=True)
class _Split:
    """The rows to train and to test on; fold None is a single split."""

    fold: int | None
    train: pd.DataFrame
    test: pd.DataFrame


def _splits(clips: pd.DataFrame, how: dict) -> list[_Split]:
    """The splits of a CSV, or else made ones. Raises DatasetError if a class lacks clips."""
    if "split" in clips:
        parts = (clips[clips["split"] == split] for split in SPLITS)
        candidates = [[_Split(None, *parts)]]
    elif "fold" in clips:
        candidates = [_by_number(clips, clips["fold"].astype(int))]
    else:
        candidates = _made_splits(clips, how)
    classes, problems = set(clips["classname"]), []
    for splits in candidates:
        found = [problem for split in splits if (problem := _lacking(split, classes))]
        if not found:
            return splits
        problems += found
    raise DatasetError(problems[0])


def _by_number(clips: pd.DataFrame, number: pd.Series) -> list[_Split]:
    """A fold for each number, tested on the clips that have it."""
    return [
        _Split(int(fold), clips[number != fold], clips[number == fold])
        for fold in sorted(number.unique())
    ]


def _lacking(split: _Split, classes: set[str]) -> str | None:
    """The message about a class that lacks training or test clips in a split, or None."""
    place = "the split" if split.fold is None else f"fold {split.fold}"
    for part, frame in (("train", split.train), ("test", split.test)):
        if lacking := sorted(classes - set(frame["classname"])):
            return (
                f"{place} has no clip of {', '.join(lacking)} to {part} on: a class needs "
                "recordings (groups) for both; use fewer folds, or correct the split"
            )
    return None


def _made_splits(clips: pd.DataFrame, how: dict) -> Iterator[list[_Split]]:
    """Stratified splits that keep groups together, by `seed` and, if needed, by further seeds.

    The splitter is greedy, so a class with few groups may be missing in a fold with one seed and
    not with another.
    """
    folds = how["folds"]
    groups = clips.groupby("classname")["group"].nunique().sort_values()
    fewest = int(groups.iloc[0])
    if fewest < max(folds, 2):
        way = f"use folds={fewest}" if fewest > 1 else "it needs two, to train and to test on"
        raise DatasetError(
            f"{groups.index[0]} has {fewest} recordings (groups), too few for folds={folds}: {way}"
        )
    pieces = folds if folds > 1 else min(SINGLE_SPLIT_FOLDS, fewest)
    for attempt in range(SEEDS_TRIED):
        seed = (how["seed"] + attempt) % 2**32
        splits = _by_number(clips, _fold_numbers(clips, pieces, seed))
        yield splits if folds > 1 else [_Split(None, splits[0].train, splits[0].test)]


def _fold_numbers(clips: pd.DataFrame, folds: int, seed: int) -> pd.Series:
    """The fold (1, 2, ...) that each clip is tested in."""
    number = pd.Series(0, clips.index)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, test) in enumerate(splitter.split(clips, clips["classname"], clips["group"]), 1):
        number.iloc[test] = fold
    return number


def _provenance(path: Path, base: Path, clips: pd.DataFrame, how: dict) -> dict:
    """What the tables are made by; equal provenance, equal tables."""
    rows = [
        [row.path, row.classname, os.path.getsize(base / row.path)] for row in clips.itertuples()
    ]
    content = digest(json.dumps([rows, clips.to_csv()]).encode())
    return {"source": str(path), "version": SPLIT_VERSION, **how, "clips": content}


def _is_made(root: Path, made: dict) -> bool:
    path = root / "split.json"
    return path.is_file() and json.loads(path.read_text()) == made


def _write(root: Path, base: Path, splits: list[_Split], made: dict) -> None:
    """The published layout around a link to the recordings.

    `split.json` is written last, so a folder that has it is whole.
    """
    try:
        root.mkdir(parents=True)
    except OSError as error:
        raise DatasetError(
            f"{root} cannot be made ({error.strerror}): choose another root, "
            "or another cache with PALMKIT_CACHE"
        ) from error
    try:
        (root / "audios").symlink_to(base, target_is_directory=True)
    except OSError as error:
        root.rmdir()
        raise DatasetError(
            f"{root / 'audios'} cannot be made a link to {base} ({error.strerror}): choose another "
            "root, or copy the recordings to audios/ in a folder of the published layout"
        ) from error
    for split in splits:
        for part, frame in (("train", split.train), ("test", split.test)):
            rows = zip("audios/" + frame["path"], frame["classname"], strict=True)
            write_split(root, part, split.fold, rows)
    atomic_write(root / "split.json", json.dumps(made, indent=1))
