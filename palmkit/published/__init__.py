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
PAPER_LR, PAPER_EPOCHS = 0.05, 50  # of the released code
PAPER_LABELS = {"zeroshot": "Zero-shot", "coop": "COOP", "cocoop": "COCOOP", "palm": "PALM"}


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
    where somebody ran one of the paper's again, else empty; protocol; encoders: "one" or "two"
    audio-text models; lr, epochs: of training, NA where not known; note.
    Rows of different protocols are not comparable. Those without a number are in `unread_rivals`.
    """
    rows = _read_rivals()
    return rows[rows["accuracy"].notna()]


def unread_rivals() -> pd.DataFrame:
    """Later work of which only the protocol is known here: `rival_rows` without accuracy, grade."""
    rows = _read_rivals()
    return rows[rows["accuracy"].isna()].drop(columns=["accuracy", "grade"])


def _read_rivals() -> pd.DataFrame:
    numbers = ("accuracy", "lr", "epochs")
    empty = {"keep_default_na": False, "na_values": dict.fromkeys(numbers, [""])}
    return pd.read_csv(FOLDER / "rivals.csv", dtype={"epochs": "Int64"}, **empty)


def rival_means() -> pd.DataFrame:
    """Means over the eleven datasets, later work beside the paper's methods from the logs.

    Indexed by protocol, encoders and method: blocks that are not to be mixed, the best of each
    first. Columns: accuracy, lr, epochs, note, grade.
    """
    rows = published_rows()
    by = ["dataset", "method"]
    means = rows.groupby([*by, "seed"])["accuracy"].mean().groupby(by).mean()
    paper = means.groupby("method").mean().rename("accuracy").reset_index()
    trained = paper["method"] != "zeroshot"
    paper["lr"] = trained.map({True: PAPER_LR, False: None})
    paper["epochs"] = trained.map({True: PAPER_EPOCHS, False: None}).astype("Int64")
    paper["method"] = paper["method"].map(PAPER_LABELS) + " (the paper's logs)"
    paper = paper.assign(protocol="inductive, 16 shots", encoders="one", note="", grade="A")
    paper.loc[~trained, "note"] = "learns nothing"
    later = rival_rows().query("dataset == 'AVERAGE'")
    columns = ["protocol", "encoders", "method", "accuracy", "lr", "epochs", "note", "grade"]
    table = pd.concat([later[columns], paper[columns]])
    order = {"by": columns[:2] + ["accuracy"], "ascending": [True, True, False]}
    return table.sort_values(**order, kind="stable").set_index(columns[:3])


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
