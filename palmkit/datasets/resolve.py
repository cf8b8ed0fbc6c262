"""A dataset's name becomes a folder: a path, a name in PALMKIT_DATA, or a generated dataset."""

from __future__ import annotations

from pathlib import Path

from palmkit.data import Dataset, find_folds, read_dataset
from palmkit.storage import data_root
from palmkit.tables import DatasetError


def find_dataset(dataset) -> Path:
    """The folder of a dataset given as a path, as a name in the folder that PALMKIT_DATA tells, or as the name of a
    generated one, which is made if it is not there yet. A folder of class folders, or a CSV, is split by `own_dataset`.
    """
    root = Path(dataset).expanduser()
    named = data_root() / root
    if not root.exists() and named.exists():
        root = named
    if root.exists():
        from palmkit.datasets.import_folder import is_raw_audio, own_dataset

        if is_raw_audio(root):
            return own_dataset(root)
    if not root.is_dir():
        from palmkit_synthetic.tasks import TASKS, build_task

        if str(dataset) in TASKS:
            return build_task(str(dataset))
        raise DatasetError(
            f"there is no dataset folder {dataset}, nor {named} (PALMKIT_DATA tells where datasets are); generated "
            f"ones are {', '.join(TASKS)}, and published ones come by `python -m palmkit fetch NAME`"
        )
    return root


def list_folds(dataset) -> list[int | None]:
    """The folds of a dataset, [1, 2, ...], or [None] where it has one split."""
    return find_folds(find_dataset(dataset))


def load_dataset(dataset, fold: int | None = None) -> Dataset:
    """One fold of a dataset, given as in `find_dataset`. Raises DatasetError, see `palmkit.data.read_dataset`."""
    return read_dataset(find_dataset(dataset), fold)


def choose_folds(dataset, folds="all") -> list[int | None]:
    """The folds of a dataset that "all", "first" or a list of numbers means; None is a single split."""
    known = list_folds(dataset)
    if folds == "all":
        return known
    if folds == "first":
        return known[:1]
    if unknown := {int(fold) for fold in folds} - set(known):
        there = "no folds" if known == [None] else f"folds {known}"
        raise ValueError(
            f"{find_dataset(dataset).name} has {there}; there is no fold {sorted(unknown)}"
        )
    return [int(fold) for fold in folds]
