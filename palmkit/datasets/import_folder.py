"""Recordings of one's own as a dataset: a folder of class folders, or a CSV with `path,classname`."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from palmkit import audio
from palmkit.audio import file_digest
from palmkit.checksums import LOCK
from palmkit.data import indistinguishable_names
from palmkit.datasets.filenames import parse_file_name
from palmkit.storage import atomic_write, cache_root
from palmkit.tables import DatasetError, read_table, row_problems

SUFFIXES = {".aif", ".aiff", ".au", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav"}
SPLIT_VERSION = 1  # raise it when equal files and settings are split otherwise
PARTS = ("train", "test")


def is_raw_audio(path) -> bool:
    """Whether a path is a CSV, or a folder of folders of audio files without tables, and no published dataset's."""
    path = Path(path)
    if path.is_file():
        return path.suffix.lower() == ".csv"
    if not path.is_dir() or (path / LOCK).exists() or (path / "audios").exists():
        return False
    tables = [*path.glob("*.csv"), *path.glob("csv_files/*.csv")]
    return not tables and any(_sounds(folder) for folder in path.iterdir() if folder.is_dir())


def own_dataset(path, folds: int = 5, groups: str | None = None, seed: int = 0, root=None) -> Path:
    """Make a dataset of recordings where they are; the folder that `load_dataset` takes. Nothing is copied or changed.

    path: a folder with a folder of audio files for each class, called as the class; or a CSV with the columns `path`
        (relative to the CSV's folder) and `classname`, which may have a column `split` (train, test) or `fold` (1, 2,
        ...: fold K is tested on the rows that say K). Where there is neither, a split is made:
    folds: stratified by class and never through a group; 1 makes a single split with a quarter to test.
    groups: what belongs together. A column of the CSV, or a regular expression whose first group is taken from each
        file's path ("([^/]+)_" say). Default: a column `group`, else recording or speaker where file names tell it (see
        `check.source`), else each file by itself. Files of equal bytes always belong together.
    root: where the tables go (default: the cache), with `split.json` that tells how they were made. Equal files and
        settings give equal tables. Raises DatasetError.
    """
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
    listed = [
        [row.path, row.classname, os.path.getsize(base / row.path)] for row in clips.itertuples()
    ]
    made = {"source": str(path), "version": SPLIT_VERSION, **how}
    made["clips"] = audio.digest(json.dumps([listed, clips.to_csv()]).encode())
    key = audio.digest(json.dumps(made, sort_keys=True).encode())[:16]
    root = Path(root) if root else cache_root() / "own" / key / name
    if (root / "split.json").is_file() and json.loads((root / "split.json").read_text()) == made:
        return root
    if root.exists():
        raise DatasetError(f"{root} is there already and is another dataset: choose another root")
    _write(root, base, _splits(clips, how), made)
    return root


def _sounds(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )


def _read_folder(path: Path) -> pd.DataFrame:
    if not path.is_dir():
        raise DatasetError(f"there is no folder or CSV {path}")
    classes = {folder.name: _sounds(folder) for folder in sorted(path.iterdir()) if folder.is_dir()}
    rows = [
        (sound.relative_to(path).as_posix(), name)
        for name, sounds in classes.items()
        for sound in sounds
    ]
    clips = pd.DataFrame(rows, columns=["path", "classname"])
    return _checked(clips, path)


def _read_csv(path: Path) -> pd.DataFrame:
    rows = read_table(path)
    if problem := next(row_problems(path.parent, rows), None):
        raise DatasetError(f"{path}, row {problem[0]}: {problem[1]}")
    clips = pd.DataFrame([row for _, row in rows], index=[line for line, _ in rows])
    for column, fits in (
        ("split", lambda v: v in PARTS),
        ("fold", lambda v: v.isdigit() and v != "0"),
    ):
        for line, value in clips[column].items() if column in clips else ():
            if not fits(value):
                wanted = "train or test" if column == "split" else "1, 2, ..."
                raise DatasetError(f"{path}, row {line}: the {column} is {value!r}, not {wanted}")
    return _checked(clips, path)


def _checked(clips: pd.DataFrame, path: Path) -> pd.DataFrame:
    names = sorted(clips["classname"].unique())
    if len(names) < 2:
        raise DatasetError(
            f"{path} has the classes {names}; a task needs two or more, with audio files in each"
        )
    if same := indistinguishable_names(names):
        raise DatasetError(
            f"{path}: the class names {' and '.join(map(repr, same[0]))} differ in case or spaces only"
        )
    return clips


def _groups(clips: pd.DataFrame, base: Path, groups: str | None) -> tuple[pd.Series, str]:
    """What belongs together, as one label a clip, and how it was found."""
    column = groups or "group"
    if column in clips:
        label, how = clips[column], f"the column `{column}`"
    elif groups:
        try:
            label = clips["path"].str.extract(re.compile(groups))[0]
        except (re.error, ValueError) as error:
            raise DatasetError(
                f"groups={groups!r} is no column and no regular expression with a group: {error}"
            ) from error
        how = f"the regular expression {groups}"
        if (without := clips["path"][label.isna()]).any():
            raise DatasetError(
                f"groups={groups!r} does not match {without.iloc[0]} ({len(without)} such files)"
            )
    else:
        told = [parse_file_name(path) for path in clips["path"]]
        kinds = [kind for kind in ("speaker", "recording") if all(kind in t for t in told)]
        label = pd.Series(
            [t[kinds[0]] for t in told] if kinds else clips["path"].tolist(), clips.index
        )
        how = f"{kinds[0]}s that file names tell" if kinds else "each file by itself"
    return _joined(label, [file_digest(base / path) for path in clips["path"]]), how


def _joined(label: pd.Series, content: list[str]) -> pd.Series:
    """Groups that share a file's bytes are one group."""
    first: dict[str, str] = {}
    same: dict[str, str] = {}

    def find(name):
        while name in same:
            name = same[name]
        return name

    for name, sha in zip(label, content, strict=True):
        a, b = find(first.setdefault(sha, name)), find(name)
        if a != b:
            same[b] = a
    return label.map(find)


def _splits(clips: pd.DataFrame, how: dict) -> dict[int | None, dict[str, pd.DataFrame]]:
    """{fold: {"train": ..., "test": ...}}, None for a single split."""
    if "split" in clips:
        splits = {None: {part: clips[clips["split"] == part] for part in PARTS}}
    else:
        single = "fold" not in clips and how["folds"] == 1
        number = (
            clips["fold"].astype(int)
            if "fold" in clips
            else _fold_numbers(clips, how["folds"], how["seed"])
        )
        splits = {
            None if single else fold: {
                "train": clips[number != fold],
                "test": clips[number == fold],
            }
            for fold in ([1] if single else sorted(number.unique()))
        }
    for fold, parts in splits.items():
        for part, frame in parts.items():
            if lacking := sorted(set(clips["classname"]) - set(frame["classname"])):
                raise DatasetError(
                    f"{'the split' if fold is None else f'fold {fold}'} has no clip of {', '.join(lacking)} to {part} "
                    "on: a class needs recordings (groups) for both; use fewer folds, or mend the split"
                )
    return splits


def _fold_numbers(clips: pd.DataFrame, folds: int, seed: int) -> pd.Series:
    if folds < 1:
        raise DatasetError(f"folds={folds}: use 2 or more, or 1 for a single split")
    groups = clips.groupby("classname")["group"].nunique().sort_values()
    fewest = int(groups.iloc[0])
    if fewest < max(folds, 2):
        way = f"use folds={fewest}" if fewest > 1 else "it needs two, to train and to test on"
        raise DatasetError(
            f"{groups.index[0]} has {fewest} recordings (groups), too few for folds={folds}: {way}"
        )
    pieces = folds if folds > 1 else min(4, fewest)
    number = pd.Series(0, clips.index)
    splitter = StratifiedGroupKFold(pieces, shuffle=True, random_state=seed)
    for fold, (_, test) in enumerate(splitter.split(clips, clips["classname"], clips["group"]), 1):
        number.iloc[test] = fold
    return number


def _write(root: Path, base: Path, splits: dict, made: dict) -> None:
    """The published layout around a link to the recordings; `split.json` last, for a folder that has it is whole."""
    root.mkdir(parents=True)
    try:
        (root / "audios").symlink_to(base, target_is_directory=True)
    except OSError as error:
        root.rmdir()
        raise DatasetError(
            f"{root / 'audios'} cannot be made a link to {base} ({error.strerror}): choose another root, or copy the "
            "recordings to audios/ in a folder of the published layout"
        ) from error
    for fold, parts in splits.items():
        for part, frame in parts.items():
            table = frame.assign(path="audios/" + frame["path"])[["path", "classname"]]
            name = f"{part}.csv" if fold is None else f"csv_files/{part}_{fold}.csv"
            atomic_write(root / name, table.to_csv(index=False))
    atomic_write(root / "split.json", json.dumps(made, indent=1))
