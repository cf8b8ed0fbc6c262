"""What was published, as data: the paper's numbers and datasets.

Each CSV file is a table, its source stands in sources.csv. Accuracies are fractions, methods have
the kit's names. Grades: A, read in logs or code; B, read in a paper or a digest of one; C, derived
from other numbers.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent
# TUT2017's fold 1 is tested on a quarter of its clips, the others on three quarters: train and test
# look swapped there.
SWAPPED_FOLDS = {"TUT2017": (2, 3, 4)}


def citations() -> pd.DataFrame:
    """The source of each table: table, grade, source, what."""
    return pd.read_csv(FOLDER / "sources.csv")


def published_rows() -> pd.DataFrame:
    """The 350 fold and seed results of the released logs (grade A), in the columns of our rows.

    Fold 0: one split.
    """
    return pd.read_csv(FOLDER / "official_logs.csv")


def without_swapped_folds(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows, ours or the logs', without folds whose train and test look swapped (SWAPPED_FOLDS)."""
    swapped = pd.Series(False, rows.index)
    for dataset, folds in SWAPPED_FOLDS.items():
        swapped |= (rows["dataset"] == dataset) & rows["fold"].isin(folds)
    return rows[~swapped]


def printed_table() -> pd.DataFrame:
    """The table as its authors print it (A): method, dataset (AVERAGE too), seed, accuracy.

    seed NA: the printed mean over seeds. Ten cells differ from what the logs give.
    """
    return pd.read_csv(FOLDER / "paper_table.csv", dtype={"seed": "Int64"})


def epoch_seconds() -> pd.DataFrame:
    """Time of the 315 training runs on an A100, from the progress bars in the released logs (A).

    method, dataset, fold, seed, n_train, n_test; epoch_seconds: the median epoch; run_seconds: 50
    epochs and the test, NA for the one run whose log stops early.
    """
    return pd.read_csv(FOLDER / "epoch_seconds.csv", dtype={"run_seconds": "Int64"})


def dagger_rows() -> pd.DataFrame:
    """PALM-dagger, PALM without its learned vectors: the bars of the paper's ablation (B).

    One accuracy for each dataset.
    """
    return pd.read_csv(FOLDER / "palm_dagger.csv")


def rival_rows() -> pd.DataFrame:
    """What later work reports on the same datasets.

    method, dataset or AVERAGE, accuracy, grade, source; rerun_of: the kit's name of the method,
    where somebody ran one of the paper's again, else empty.
    """
    return pd.read_csv(FOLDER / "rivals.csv", keep_default_na=False)


@dataclass(frozen=True)
class DatasetFacts:
    """One of the paper's eleven datasets, as its repository, logs and class lists have it."""

    name: str
    repo: str  # on Hugging Face
    task: str
    size: str  # as printed
    folds: int
    class_names: tuple[str, ...]
    test_clips: tuple[int, ...]  # of each fold, from the logs
    # Of each fold, derived from the test clips where folds partition the data; else empty.
    train_clips: tuple[int, ...]

    @property
    def fold_numbers(self) -> list[int | None]:
        """As `list_folds` gives them."""
        return [None] if self.folds == 1 else [*range(1, self.folds + 1)]


@functools.cache
def paper_datasets() -> dict[str, DatasetFacts]:
    """The eleven datasets by name, in the paper's order."""
    rows = pd.read_csv(FOLDER / "datasets.csv", dtype=str, keep_default_na=False)
    return {
        row.dataset: DatasetFacts(
            row.dataset,
            row.repo,
            row.task,
            row.size,
            int(row.folds),
            tuple(row.class_names.split("|")),
            tuple(map(int, row.test_clips.split(";"))),
            tuple(map(int, filter(None, row.train_clips.split(";")))),
        )  # fmt: skip
        for row in rows.itertuples()
    }
