"""Recordings in folders: one for each class, perhaps inside of one for each split or fold."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from palmkit.datasets.recordings import (
    FFMPEG_SUFFIXES,
    OTHER_SUFFIXES,
    Recordings,
    check_text,
    has_sounds,
    is_sound,
    list_files,
    list_folders,
    name_some,
    read_fold,
    read_split_words,
)
from palmkit.tables import DatasetError

# A single folder of one of these names, around all others, is no class.
WRAPPERS = ("audio", "clips", "data", "dataset", "recordings", "sounds", "wav", "wavs")

NOISE = "_background_noise_"  # of Speech Commands


def read_class_folders(path: Path) -> Recordings:
    """Recordings of `cat/...`, of `train/cat/...`, `test/cat/...`, or of `fold1/cat/...`, ...

    Hidden folders, and those that systems leave behind, are left out. Raises DatasetError for a
    folder of recordings in a format that cannot be decoded.
    """
    if not path.is_dir():
        raise DatasetError(f"there is no folder or CSV {path}: correct the path")
    inner = _unwrap(path)
    folders = [one for one in list_folders(inner) if has_sounds(one)]
    words = read_split_words(one.name for one in folders)
    numbers = {one.name: _fold_folder(one.name) for one in folders}
    if words:
        outer, column, layout = words, "split", "a folder for each split, and class folders"
    elif folders and all(number is not None for number in numbers.values()):
        outer, column, layout = numbers, "fold", "a folder for each fold, and class folders"
    else:
        _check_mixture(path, folders)
        found = _read_classes(inner)
        found.notes.extend(_note_same_inside(folders))
        return _recordings(path, "class folders", [found], found.table(path))
    inside = [_read_classes(folder) for folder in folders]
    tables = [one.table(path).assign(**{column: outer[one.folder.name]}) for one in inside]
    clips = pd.concat(tables, ignore_index=True)
    _check_inside(path, folders, clips)
    return _recordings(path, layout, inside, clips)


def _recordings(path: Path, layout: str, found: list[_Classes], clips) -> Recordings:
    notes = [note for classes in found for note in classes.notes]
    return Recordings(path, path, layout, clips, notes=tuple(notes))


def _unwrap(path: Path) -> Path:
    """The folder inside of those that only hold one other: `data`, or one around splits."""
    folders = [one for one in list_folders(path) if has_sounds(one)]
    if len(folders) != 1:
        return path
    (only,) = folders
    inside = [one.name for one in list_folders(only)]
    is_split = read_split_words(inside) or all(_fold_folder(name) is not None for name in inside)
    is_class = read_split_words([only.name]) or _fold_folder(only.name) is not None
    if inside and not is_class and (is_split or only.name.lower() in WRAPPERS):
        return _unwrap(only)
    return path


def _fold_folder(name: str) -> int | None:
    """The number of a folder such as `fold1`. A plain number may be a class."""
    return read_fold(name) if name.strip().lower().startswith(("fold", "split")) else None


@dataclass(frozen=True)
class _Classes:
    """The class folders in a folder: (file, class) of each recording, and what was left out."""

    folder: Path
    files: list[tuple[Path, str]]
    notes: list[str]

    def table(self, base: Path) -> pd.DataFrame:
        rows = [(file.relative_to(base).as_posix(), name) for file, name in self.files]
        return pd.DataFrame(rows, columns=["path", "classname"])


def _read_classes(folder: Path) -> _Classes:
    files, notes, refused = [], [], {}
    for class_folder in list_folders(folder):
        there = list_files(class_folder)
        sounds = [file for file in there if is_sound(file)]
        left = [file for file in there if not is_sound(file) and not _is_other(file)]
        for file in sounds:
            check_text(file, "file")
        files += [(file, class_folder.name) for file in sounds]
        shown = class_folder.relative_to(folder.parent)
        if left and not sounds:
            refused[class_folder.name] = _suffixes(left)
        elif left:
            notes.append(f"{_count(left)} in {shown} left out: {_suffixes(left)}")
        elif there and not sounds:
            notes.append(f"{shown} holds no recording, so it is no class")
        if links := _list_links(class_folder):
            notes.append(f"links to folders are not followed: {name_some(links)}")
    if refused:
        raise DatasetError(_unreadable(folder, refused))
    if (folder / NOISE).is_dir():
        notes.append(f"{NOISE} left out: it is no class")
    if beside := [one for one in sorted(folder.iterdir()) if is_sound(one) and one.is_file()]:
        shown = name_some(one.name for one in beside)
        notes.append(f"{_count(beside)} beside the class folders left out: {shown}")
    return _Classes(folder, files, notes)


def _list_links(folder: Path) -> list[str]:
    """Links to folders, which `list_files` does not follow."""
    return [
        os.path.join(place, name)
        for place, folders, _ in os.walk(folder)
        for name in folders
        if os.path.islink(os.path.join(place, name))
    ]


def _is_other(file: Path) -> bool:
    """Whether a file is of a kind that lies beside recordings: texts, tables, pictures."""
    stem = file.stem.lower()
    documents = ("license", "licence", "readme", "makefile", "copying", "authors", "changelog")
    return file.suffix.lower() in OTHER_SUFFIXES or (not file.suffix and stem in documents)


def _suffixes(files: list[Path]) -> str:
    counts = Counter(file.suffix.lower() or "no suffix" for file in files)
    return ", ".join(f"{suffix} ({count})" for suffix, count in sorted(counts.items()))


def _count(files: list[Path]) -> str:
    return "1 file" if len(files) == 1 else f"{len(files)} files"


def _unreadable(folder: Path, refused: dict[str, str]) -> str:
    """The message about class folders without a file that can be read."""
    found = "; ".join(f"{name}: {suffixes}" for name, suffixes in sorted(refused.items()))
    suffixes = " ".join(refused.values())
    how = "convert the files to WAV or FLAC"
    if any(suffix in suffixes for suffix in FFMPEG_SUFFIXES):
        how = "install ffmpeg, or convert the files to WAV or FLAC"
    return (
        f"{folder}: class folders without a file that can be read ({found}): {how}, "
        "or move these folders away"
    )


def _check_mixture(path: Path, folders: list[Path]) -> None:
    """Raise DatasetError for splits or folds with class folders, and other folders beside them."""
    splits = [one for one in folders if read_split_words([one.name])]
    parts = set((read_split_words(one.name for one in splits) or {}).values())
    folds = [one for one in folders if _fold_folder(one.name) is not None]
    outer = splits if {"train", "test"} <= parts else folds if len(folds) > 1 else []
    inside = [any(has_sounds(inner) for inner in list_folders(one)) for one in outer]
    if outer and all(inside):
        others = name_some(one.name for one in folders if one not in outer)
        raise DatasetError(
            f"{path}: {name_some(one.name for one in outer)} are splits or folds with class "
            f"folders, and {others} beside them is none: move it away, or give a CSV"
        )


def _note_same_inside(folders: list[Path]) -> list[str]:
    """A note about class folders that all have the same folders inside: are those the classes?"""
    inside = {
        frozenset(inner.name for inner in list_folders(one) if has_sounds(inner)) for one in folders
    }
    if len(folders) < 2 or len(inside) > 1 or len(names := sorted(*inside)) < 2:
        return []
    return [
        f"{name_some(one.name for one in folders)} are taken as classes, and all have the folders "
        f"{name_some(names)}: if those are the classes, give a CSV"
    ]


def _check_inside(path: Path, folders: list[Path], clips: pd.DataFrame) -> None:
    """Raise DatasetError if the folders of splits or folds hold no class folders."""
    outer = " and ".join(f"{one.name}/" for one in folders[:2])
    names = clips["classname"].unique()
    if not len(names):
        raise DatasetError(
            f"{path}: {outer} are splits or folds, and hold no class folders: put the files into "
            "a folder for each class, or give a CSV that says the classes"
        )
    if read_split_words(names) or all(_fold_folder(name) is not None for name in names):
        raise DatasetError(
            f"{path}: {outer} hold splits or folds again ({name_some(sorted(names))}), no class "
            "folders: give a CSV with the columns path, classname and split or fold"
        )
