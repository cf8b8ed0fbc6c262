"""What was published, as data: the paper's numbers and datasets, each file a table with its source."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent


def published_rows() -> pd.DataFrame:
    """The 350 fold and seed results of the released logs, in the columns of our rows."""
    return pd.read_csv(FOLDER / "official_logs.csv")


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
    train_clips: tuple[int, ...]  # of each fold, derived from the test clips where folds partition the data; else empty

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
