"""Ensembles of methods, from the test logits that a run has kept. Nothing is fitted."""

from __future__ import annotations

import pandas as pd
import torch

from palmkit.experiments.rows import load_tensors
from palmkit.experiments.variations import task_options
from palmkit.results.method_style import learns
from palmkit.training import score

SAME = ("protocol", "crop", "crop_seed", "weights", "fold_digest")  # of the rows of a cell
CELL = ["dataset", "fold", "seed", "shots", "regime"]  # trials of a cell have the same test clips


def ensemble_rows(rows: pd.DataFrame, run, methods: list[str]) -> pd.DataFrame:
    """Scores of the mean of the methods' probabilities, a line for each cell that has them all.

    rows: of `load_rows`, one row of each of the methods in a cell. Columns: CELL, method
    ("palm + gda"), accuracy, f1, precision, recall, loss; NaN if a method diverged. A method that
    learns nothing, which has one row, is in every cell of its dataset and fold.
    Raises ValueError for fewer than two methods, several rows of a method in a cell, rows of a cell
    with another protocol, crop, model or task, and if no cell has all methods.
    """
    methods = [*dict.fromkeys(methods)]
    if len(methods) < 2:
        raise ValueError(f"an ensemble needs two methods or more, not {methods}")
    lines = []
    wanted = rows[rows["method"].isin(methods)]
    learned = learns(wanted["method"])
    for cell, part in wanted[learned].groupby(CELL, dropna=False):
        part = pd.concat([part, _of_fold(wanted[~learned], part)])
        counts = part["method"].value_counts()
        place = ", ".join(f"{name}={value}" for name, value in zip(CELL, cell, strict=True))
        if (counts > 1).any():
            raise ValueError(
                f"{counts.index[0]} has {counts.iloc[0]} rows of {place}: choose one setting"
            )
        if varied := _varied(part):
            raise ValueError(f"the rows of {place} differ in {', '.join(varied)}: choose one")
        if len(part) == len(methods):
            scores = _score_mean(part, run)
            lines.append(dict(zip(CELL, cell, strict=True), method=" + ".join(methods)) | scores)
    if not lines:
        raise ValueError(f"no dataset, fold and seed has rows of all of {', '.join(methods)}")
    return pd.DataFrame(lines)


def _of_fold(rows: pd.DataFrame, part: pd.DataFrame) -> pd.DataFrame:
    """The rows of the dataset and the fold that all rows of `part` have."""
    fold = (
        rows["fold"].isna() if part["fold"].isna().all() else rows["fold"] == part["fold"].iloc[0]
    )
    return rows[(rows["dataset"] == part["dataset"].iloc[0]) & fold]


def _varied(rows: pd.DataFrame) -> list[str]:
    """The settings, of those that all rows of a cell must share, in which they differ."""
    tasks = rows["options"].map(lambda options: str(sorted(task_options(options).items())))
    shared = rows.reindex(columns=SAME).assign(task=tasks).astype(str)
    return [name for name in shared if shared[name].nunique() > 1]


def _score_mean(rows: pd.DataFrame, run) -> dict:
    kept = [load_tensors(row, run) for _, row in rows.iterrows()]
    labels = kept[0]["labels"]
    if not all(torch.equal(one["labels"], labels) for one in kept):
        raise ValueError("the rows are of different test clips")
    mean = torch.stack([torch.softmax(one["logits"].double(), 1) for one in kept]).mean(0)
    scores = score(mean.log().clamp(min=-1e4), labels)  # the log of 0 is no number
    return scores if mean.isfinite().all() else dict.fromkeys(scores, float("nan"))
