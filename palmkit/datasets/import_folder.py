"""Recordings of one's own as a dataset, with splits. `import_dataset` takes one of these:

- A folder with a folder of audio files for each class, named as the class. Class folders may be
  inside of `train/` and `test/` (and `validation/`), or of `fold1/`, `fold2/`, ...
- A folder in the layout of a known dataset (`palmkit.datasets.readers`).
- A CSV with the columns `path` and `classname`. It may have a column `split` (train, test,
  validation) or `fold` (1, 2, ...: fold K is tested on the rows with K).
- A dataset in the published layout, to change its class names (`underscores`).
"""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
from dataclasses import replace
from numbers import Integral
from pathlib import Path

import pandas as pd

from palmkit.audio import digest
from palmkit.checksums import CHECKSUM_FILE
from palmkit.data import read_dataset
from palmkit.datasets.folders import read_class_folders
from palmkit.datasets.listing import Columns, is_table, read_listing, read_listings
from palmkit.datasets.readers import AudioFolder, find_reader
from palmkit.datasets.recordings import (
    Recordings,
    Split,
    check_classes,
    check_text,
    has_sounds,
    list_folders,
    name_some,
)
from palmkit.datasets.splits import find_groups, made_splits, own_splits
from palmkit.locks import make_folder, one_process
from palmkit.storage import atomic_write, cache_root
from palmkit.tables import DatasetError, find_folds, split_path, write_split

log = logging.getLogger("palmkit")

SPLIT_VERSION = 2  # raise it if equal files and settings give another split
SPLIT_FILE = "split.json"  # says how the tables were made; written last
UNDERSCORES = ("keep", "space")


def has_tables(path: Path) -> bool:
    """Whether a folder has the tables of the published layout."""
    return split_path(path, "train").is_file() or any(path.glob("csv_files/*.csv"))


def is_raw_audio(path) -> bool:
    """Whether a path is recordings without tables: a CSV, class folders, or a known layout.

    A published dataset that lost its tables (a folder with checksums or `audios`) is not.
    """
    path = Path(path)
    if path.is_file():
        return is_table(path)
    if not path.is_dir() or (path / CHECKSUM_FILE).exists() or (path / "audios").exists():
        return False
    if has_tables(path):
        return False
    return find_reader(path) is not None or any(has_sounds(one) for one in list_folders(path))


def import_dataset(
    path,
    folds: int = 5,
    groups: str | None = None,
    seed: int = 0,
    root=None,
    *,
    path_column: str | None = None,
    class_column: str | None = None,
    fold_column: str | None = None,
    group_column: str | None = None,
    split_column: str | None = None,
    audio_root=None,
    underscores: str = "keep",
) -> Path:
    """Make splits of recordings. Returns a folder for `load_dataset`.

    Recordings are neither copied, moved nor changed.

    path: a folder or a CSV; the top of this module says which.
    Where there is no split a split is made:
    folds: stratified by class, no group in two folds; 1 makes a single split with a quarter to
        test.
    groups: clips that stay together. A column of the CSV, or a regular expression whose first
        group is taken from each file's path, such as "([^/]+)_". Default: a column `group`, else
        recording or speaker if all file names tell it (`filenames.py`), else each file by itself.
        Files of equal bytes always stay together.
    root: the folder of the tables (default: in the cache), with `split.json`, which says how they
        were made. Equal files and settings give equal tables. For a CSV, a folder that is there
        and has no tables is taken as `audio_root`.
    path_column, ...: names of the CSV's columns, where they are others.
    audio_root: the folder that the CSV's paths are relative to (default: the CSV's).
    underscores: "space" writes spaces in class names instead.
    A validation split is kept as `validation.csv`, see `Dataset.read_validation`. What was left
    out is logged, and `check_dataset` says it. Raises DatasetError.
    """
    _check_settings(folds, groups, seed, group_column, underscores)
    path = _absolute(path)
    if root is not None and audio_root is None and _is_audio_root(path, Path(root)):
        root, audio_root = None, root
    columns = Columns(
        path_column, class_column, fold_column, group_column, split_column, audio_root
    )
    found = _read(path, columns, underscores)
    splits, how = _own_or_grouped(found, folds, seed, groups, group_column)
    made = _provenance(found, how, underscores)
    place = Path(root) if root else _place_in_cache(found, made)
    if not _is_made(place, made):
        splits = splits or made_splits(found, folds, seed)
        notes = _notes(found, splits, group_column or groups or "group")
        _make(place, bool(root), found, splits, made | {"notes": notes})
    _log_notes(place)
    return place


def _own_or_grouped(found: Recordings, folds: int, seed: int, groups, group_column) -> tuple:
    """(the recordings' own splits, or None; how the split is made, for split.json).

    Without splits, the clips get their groups.
    """
    if splits := own_splits(found):
        return splits, {"split": _describe_splits(found)}
    labels, grouping = find_groups(found, groups, group_column)
    found.clips["group"] = labels
    return None, {"split": "made here", "folds": folds, "seed": seed, "groups": grouping}


def _place_in_cache(found: Recordings, made: dict) -> Path:
    key = digest(json.dumps(made, sort_keys=True).encode())[:16]
    return cache_root() / "imported" / key / found.name


own_dataset = import_dataset  # the name in earlier versions


def read_notes(root: Path) -> list[str]:
    """What was left out of an imported dataset, or kept aside; [] for another dataset."""
    return (_read_split_file(root) or {}).get("notes", [])


@functools.cache
def _log_notes(root: Path) -> None:
    """Log the notes of a dataset, once in a process."""
    for note in read_notes(root):
        log.warning("%s: %s", root.name, note)


def _absolute(path) -> Path:
    try:
        return Path(path).expanduser().resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise DatasetError(f"{str(path)[:100]!r} cannot be a path ({error})") from error


def _check_settings(folds, groups, seed, group_column, underscores) -> None:
    if not isinstance(folds, Integral) or folds < 1:
        raise DatasetError(f"folds={folds!r}: use 2 or more, or 1 for a single split")
    if not isinstance(seed, Integral) or not 0 <= seed < 2**32:
        raise DatasetError(f"seed={seed!r}: use a whole number from 0 to {2**32 - 1}")
    if groups is not None and not groups:
        raise DatasetError("groups is empty: name a column, give an expression, or leave it out")
    if groups and group_column:
        raise DatasetError("groups and group_column are given: give one of them")
    if underscores not in UNDERSCORES:
        raise DatasetError(f"underscores={underscores!r}: use {' or '.join(UNDERSCORES)}")


def _is_audio_root(path: Path, root: Path) -> bool:
    """Whether `root` is meant as the folder of a CSV's recordings, not of the tables."""
    own = (SPLIT_FILE, "csv_files", "train.csv", "audios")
    is_new = not root.is_dir() or not any(root.iterdir())
    return is_table(path) and not is_new and not any(os.path.lexists(root / one) for one in own)


# Reading.


def _read(path: Path, columns: Columns, underscores: str) -> Recordings:
    found = _read_recordings(path, columns).with_one_spelling()
    if underscores == "space":
        names = found.clips["classname"].unique()
        spaced = {name: " ".join(name.replace("_", " ").split()) for name in names}
        if len(set(spaced.values())) < len(names):
            raise DatasetError(f"{path}: with spaces for underscores two classes have one name")
        found = found.rename_classes(spaced)
    check_classes(found)
    check_text(found.name, "dataset")
    return found


def _read_recordings(path: Path, columns: Columns) -> Recordings:
    if path.is_file():
        return read_listing(path, columns)
    if path.is_dir() and has_tables(path) and not columns.is_given:
        return _read_published(path)
    reader, inner = (find_reader(path) if path.is_dir() else None) or (None, path)
    if not columns.is_given:
        return replace(reader.read(inner), source=path) if reader else read_class_folders(path)
    if reader is AudioFolder and columns == Columns(classname=columns.classname):
        return replace(AudioFolder.read(inner, columns.classname), source=path)
    if not path.is_dir():
        raise DatasetError(f"there is no folder or CSV {path}: correct the path")
    return read_listings(path, columns)


def _read_published(path: Path) -> Recordings:
    """A dataset with the tables of the published layout."""
    splits = []
    for fold in find_folds(path):
        data = read_dataset(path, fold)
        parts = (data.train, data.test, data.read_validation())
        splits.append(Split(fold, *(_relative(data, frame) for frame in parts)))
    clips = pd.concat([frame for split in splits for _, frame in split.parts()])
    clips = clips.drop_duplicates("path", ignore_index=True)
    return Recordings(path, path, "the published layout", clips, tuple(splits))


def _relative(data, frame: pd.DataFrame | None) -> pd.DataFrame | None:
    if frame is None:
        return None
    rows = {"path": [data.relative(path) for path in frame["path"]]}
    return pd.DataFrame(rows | {"classname": list(frame["class_name"])})


def _describe_splits(found: Recordings) -> str:
    if found.splits:
        return f"that of {found.layout}"
    column = "split" if "split" in found.clips else "fold"
    if found.layout == "a table for each split":
        return found.layout
    return f"the column `{column}`" if found.layout == "a table" else f"the {column} of the layout"


def _note_torn_groups(splits: list[Split], column: str) -> list[str]:
    """A note about groups that a split of the user's own has in train and in test."""
    torn = set()
    for split in splits:
        if column in split.train:
            torn |= set(split.train[column]) & set(split.test[column]) - {""}
    if not torn:
        return []
    return [
        f"{len(torn)} groups of the column `{column}` are in train and in test, as the given split "
        f"has them: {name_some(sorted(torn))}"
    ]


def _notes(found: Recordings, splits: list[Split], column: str) -> list[str]:
    """What the user should know: what was left out, torn groups, and the validation split."""
    notes = [*found.notes, *_note_torn_groups(splits, column)]
    kept = [len(split.validation) for split in splits if split.validation is not None]
    if any(kept):
        notes.append(
            f"a validation split of {max(kept)} clips is kept in validation.csv: nothing trains "
            "or tests on it"
        )
    return notes


def _provenance(found: Recordings, how: dict, underscores: str) -> dict:
    """What the tables are made by; equal provenance, equal tables."""
    base, clips = found.base, found.clips
    rows = [
        [row.path, row.classname, os.path.getsize(base / row.path)] for row in clips.itertuples()
    ]
    texts = [rows, clips.to_csv()]
    texts += [
        [split.fold, name, frame.to_csv()]
        for split in found.splits
        for name, frame in split.parts()
    ]
    made = {"source": str(found.source), "version": SPLIT_VERSION, **how}
    if found.layout not in ("class folders", "a table"):
        made["layout"] = found.layout
    if underscores != "keep":
        made["underscores"] = underscores
    if base not in (found.source, found.source.parent):
        made["recordings"] = str(base)
    return made | {"clips": digest(json.dumps(texts).encode())}


# Writing.


def _read_split_file(root: Path) -> dict | None:
    """The content of a folder's `split.json`; None if it has none, or a damaged one."""
    try:
        content = json.loads((root / SPLIT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _is_made(root: Path, made: dict) -> bool:
    content = _read_split_file(root)
    return content is not None and {**content, "notes": None} == {**made, "notes": None}


def _make(root: Path, is_given: bool, found: Recordings, splits: list[Split], made: dict) -> None:
    """Make the folder of tables, one process at a time, aside, and rename it when it is whole.

    is_given: the user named the folder, so what is in it is kept.
    """
    _check_place(root, found)
    try:
        with one_process(root, found.name):
            if _is_made(root, made):
                return
            _clear(root, is_given)
            make_folder(root, lambda aside: _write(aside, root, found.base, splits, made))
    except OSError as error:
        reason = getattr(error.__cause__, "strerror", None) or error.strerror or error
        raise DatasetError(
            f"{root} cannot be made ({reason}): choose another root, "
            "or another cache with PALMKIT_CACHE"
        ) from error


def _check_place(root: Path, found: Recordings) -> None:
    path = found.source
    if path.is_dir() and path in root.resolve().parents:
        raise DatasetError(
            f"{root} is inside {path}, where it would be taken for a class: choose another root"
        )


def _clear(root: Path, is_given: bool) -> None:
    """Remove what an import that was cut short left. Raises DatasetError for anything else."""
    if not os.path.lexists(root):
        return
    if is_given and not _is_unfinished(root):
        raise DatasetError(
            f"{root} is there already and holds something else: choose another root, or delete it"
        )
    shutil.rmtree(root)


def _is_unfinished(root: Path) -> bool:
    """Whether a folder has nothing but tables and a link to recordings, and no `split.json`."""
    if not root.is_dir() or root.is_symlink():
        return False
    for one in root.iterdir():
        is_link = one.name == "audios" and one.is_symlink()
        if not is_link and one.name not in ("csv_files", "train.csv", "test.csv"):
            return False
    return os.path.lexists(root / "audios") or not any(root.iterdir())


def _write(aside: Path, root: Path, base: Path, splits: list[Split], content: dict) -> None:
    """The published layout around a link to the recordings."""
    try:
        (aside / "audios").symlink_to(base, target_is_directory=True)
    except OSError as error:
        raise DatasetError(
            f"{root / 'audios'} cannot be made a link to {base} ({error.strerror}): choose another "
            "root, or copy the recordings to audios/ in a folder of the published layout"
        ) from error
    for split in splits:
        for part, frame in split.parts():
            rows = zip("audios/" + frame["path"], frame["classname"], strict=True)
            write_split(aside, part, split.fold, rows)
    atomic_write(aside / SPLIT_FILE, json.dumps(content, indent=1))
