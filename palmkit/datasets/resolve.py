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


def find_dataset(dataset) -> Path:
    """The folder of a dataset.

    dataset: a path; the name of a folder in PALMKIT_DATA; or the name of a generated dataset,
    which is made at first use. Recordings without tables (a folder of class folders, or a CSV)
    are split by `import_dataset`. Raises DatasetError for an unknown name.
    """
    if not str(dataset).strip():
        raise DatasetError("the dataset's name is empty: give a folder or a name")
    path = Path(dataset).expanduser()
    in_data_root = data_root() / path
    if not path.exists() and in_data_root.exists():
        path = in_data_root
    if path.exists():
        return _existing_folder(path)
    from palmkit_synthetic.tasks import TASKS, build_task  # the generators need SciPy

    if str(dataset) in TASKS:
        return build_task(str(dataset))
    raise DatasetError(_unknown(str(dataset), in_data_root, list(TASKS)))


def _existing_folder(path: Path) -> Path:
    from palmkit.datasets.import_folder import import_dataset, is_raw_audio  # scikit-learn

    if is_raw_audio(path):
        return import_dataset(path)
    if not path.is_dir():
        raise DatasetError(
            f"{path} is a file, and no CSV: give a dataset's folder, or a .csv file with the "
            "columns path and classname"
        )
    return path


def _unknown(dataset: str, in_data_root: Path, generated: list[str]) -> str:
    """The message about the name of no folder and no generated dataset."""
    published = {
        name: row for name, row in _manifest().items() if row["kind"] in ("dataset", BY_HAND)
    }
    missing = f"there is no dataset folder {dataset}, nor {in_data_root}"
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


def list_folds(dataset) -> list[int | None]:
    """The folds of a dataset, [1, 2, ...], or [None] if it has a single split."""
    return find_folds(find_dataset(dataset))


def load_dataset(dataset, fold: int | None = None, skip_bad: bool | None = None) -> Dataset:
    """One fold of a dataset, given as in `find_dataset`. Raises DatasetError.

    skip_bad: leave out files that cannot be decoded (`Dataset.left_out` names them); None: as the
    environment variable PALMKIT_SKIP_BAD says.
    """
    found = read_dataset(find_dataset(dataset), fold)
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
