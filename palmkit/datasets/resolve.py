"""A dataset's name becomes a folder: a path, a name in PALMKIT_DATA, or a generated dataset."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from palmkit.data import Dataset, read_dataset
from palmkit.datasets.manifest import BY_HAND, read_manifest
from palmkit.storage import data_root
from palmkit.tables import DatasetError, find_folds

SKIP_BAD = "PALMKIT_SKIP_BAD"  # the environment variable of --skip-bad; notebooks inherit it


def find_dataset(dataset, root=None, **reading) -> Path:
    """The folder of a dataset.

    dataset: a path; the name of a folder in PALMKIT_DATA; or the name of a generated dataset,
    which is made at first use. Recordings without tables (class folders, a CSV, or a known layout)
    are split by `import_dataset`.
    reading: how, as `import_dataset` takes it: path_column, class_column, fold_column,
    group_column, split_column, underscores. root: the folder that a CSV's paths are relative to.
    Raises DatasetError for an unknown name.
    """
    path = _find_path(dataset)
    reading = {name: value for name, value in reading.items() if value not in (None, "keep")}
    if root is not None:
        reading["audio_root"] = root
    if path is not None:
        return _existing_folder(path, reading)
    from palmkit_synthetic.tasks import TASKS, build_task  # the generators need SciPy

    if str(dataset) in TASKS:
        folder = build_task(str(dataset))
        return _existing_folder(folder, reading) if reading else folder
    raise DatasetError(_unknown(str(dataset), data_root() / dataset, list(TASKS)))


def _find_path(dataset) -> Path | None:
    """The path of a dataset that is there, None for another. Raises DatasetError for no name."""
    if not str(dataset).strip():
        raise DatasetError("the dataset's name is empty: give a folder or a name")
    try:
        path = Path(dataset).expanduser()
        paths = [one for one in (path, data_root() / path) if one.exists()]
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(
            f"{str(dataset)[:100]!r} ({len(str(dataset))} letters) cannot be a dataset's name "
            f"({reason}): give a folder or a name"
        ) from error
    return paths[0] if paths else None


def _existing_folder(path: Path, reading: dict) -> Path:
    from palmkit.datasets.import_folder import has_tables, import_dataset, is_raw_audio
    from palmkit.datasets.listing import list_listings

    if path.is_file() and not is_raw_audio(path):
        raise DatasetError(
            f"{path} is a file, and no CSV: give a dataset's folder, or a .csv file with the "
            "columns path and classname"
        )
    if not path.is_file() and not path.is_dir():
        raise DatasetError(f"{path} is neither a folder nor a file: give a dataset's folder")
    if reading or path.is_file():
        return import_dataset(path, **reading)
    if has_tables(path):
        return path
    if tables := list_listings(path):
        raise DatasetError(
            f"{path} has no train.csv and test.csv, but {', '.join(tables)}: give the path of that "
            "table as the dataset"
        )
    return import_dataset(path) if is_raw_audio(path) else path


def _unknown(dataset: str, in_data_root: Path, generated: list[str]) -> str:
    """The message about the name of no folder and no generated dataset."""
    published = {
        name: row for name, row in _manifest().items() if row["kind"] in ("dataset", BY_HAND)
    }
    missing = f"there is no dataset folder {dataset}"
    if str(in_data_root) != str(dataset):
        missing += f", nor {in_data_root}"
    if dataset in published:
        return f"{missing}: `palmkit fetch {dataset}` fetches it, or says how to get it"
    root = data_root()
    folders = [entry.name for entry in root.iterdir() if entry.is_dir()] if root.is_dir() else []
    names = {name.lower(): name for name in [*generated, *published, *folders]}
    close = difflib.get_close_matches(Path(dataset).name.lower(), names, n=3, cutoff=0.6)
    meant = f" Did you mean {' or '.join(names[name] for name in close)}?" if close else ""
    return (
        f"{missing}.{meant} PALMKIT_DATA names the folder of datasets; generated ones are "
        f"{', '.join(generated)}; `palmkit fetch NAME` fetches published ones"
    )


def _manifest() -> dict[str, dict[str, str]]:
    try:
        return read_manifest()
    except FileNotFoundError:
        return {}


def list_folds(dataset, **reading) -> list[int | None]:
    """The folds of a dataset, [1, 2, ...], or [None] if it has a single split.

    reading: as in `find_dataset`.
    """
    return find_folds(find_dataset(dataset, **reading))


def load_dataset(
    dataset, fold: int | None = None, skip_bad: bool | None = None, **reading
) -> Dataset:
    """One fold of a dataset, given as in `find_dataset`. Raises DatasetError.

    skip_bad: leave out files that cannot be decoded (`Dataset.left_out` names them); None: as the
    environment variable PALMKIT_SKIP_BAD says.
    """
    found = read_dataset(find_dataset(dataset, **reading), fold)
    if skip_bad is None:
        skip_bad = os.environ.get(SKIP_BAD, "") not in ("", "0")
    if not skip_bad:
        return found
    from palmkit.datasets.bad_files import leave_out_bad_files  # PyTorch is behind it

    return leave_out_bad_files(found)


def choose_folds(dataset, folds="all") -> list[int | None]:
    """The folds of a dataset that "all", "first" or a list of numbers means; [None] is a single
    split. Raises ValueError for a fold that the dataset does not have.
    """
    root = find_dataset(dataset)
    known = find_folds(root)
    if folds == "all":
        return known
    if folds == "first":
        return known[:1]
    if isinstance(folds, str) or not len(folds) or not all(str(fold).isdigit() for fold in folds):
        raise ValueError(f'folds={folds!r}: use "all", "first" or a list of numbers')
    if unknown := {int(fold) for fold in folds} - set(known):
        there = "no folds" if known == [None] else f"the folds {known}"
        raise ValueError(f"{root.name} has {there}; there is no fold {sorted(unknown)}")
    return [int(fold) for fold in folds]
