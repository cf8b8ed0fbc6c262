"""Results beside the published numbers, and what the differences mean."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd

from palmkit.experiments.trials import TRAINED, Trial
from palmkit.methods import UNLEARNED
from palmkit.published import SWAPPED_FOLDS, paper_datasets, published_rows, without_swapped_folds
from palmkit.results.statistics import difference_margin
from palmkit.results.tables import AVERAGE, summarise


def compare(
    rows: pd.DataFrame, metric: str = "accuracy", swapped_folds: bool = True
) -> pd.DataFrame:
    """Ours beside the released logs, dataset by dataset: ours, paper, difference, seeds and folds of ours.

    A dataset that the paper has not, has no paper's number. The paper's AVERAGE is over its eleven datasets, so it is
    joined only when ours is over the same. swapped_folds=False leaves TUT2017's folds 2 to 4 out, on both sides.
    """
    columns = [
        "dataset",
        "method",
        "ours",
        "ours_std",
        "paper",
        "paper_std",
        "difference",
        "seeds",
        "folds",
    ]
    return _join(*_sides(rows, swapped_folds), metric)[columns]


def _sides(rows, swapped_folds):
    sides = rows, published_rows()
    return sides if swapped_folds else tuple(map(without_swapped_folds, sides))


def _join(rows, logs, metric):
    ours, paper = summarise(rows, metric), summarise(logs, metric)
    if set(ours["dataset"]) - {AVERAGE} != set(paper["dataset"]) - {AVERAGE}:
        paper = paper[paper["dataset"] != AVERAGE]
    columns = {"mean_paper": "paper", "std_paper": "paper_std", "mean": "ours", "std": "ours_std"}
    joined = ours.merge(
        paper, on=["dataset", "method"], how="left", suffixes=("", "_paper")
    ).rename(columns=columns)
    joined["difference"] = joined["ours"] - joined["paper"]
    return joined


# The paper's settings are a unit's defaults; of a protocol, its text has one and its code another, and both count.
PUBLISHED_SETTINGS = {
    name: getattr(Trial("palm", ""), name) for name in (*TRAINED, "crop", "options")
}
REPRODUCED_WITHIN = 0.03  # the claim at stake is PALM's lead over the next method, 0.031 on the mean of eleven datasets
UNLEARNED_WITHIN = (
    0.01  # zero-shot has no seeds: only the random crops of long clips move its mean, and by less
)


def compare_with_paper(rows: pd.DataFrame, swapped_folds: bool = True) -> pd.DataFrame:
    """The accuracies of `compare` and what their difference means: margin, seeds of both sides, verdict and reason.

    margin is what the seeds explain at 95 percent (`difference_margin`). A dataset's difference is "within noise" or
    "outside noise" ("no spread": no seeds to tell by), and that never makes or breaks a reproduction: one in twenty is
    outside by chance. A method is judged by its mean over the paper's eleven datasets alone. It is "reproduced" if the
    seeds explain the difference and difference ± margin stays within ± REPRODUCED_WITHIN, "not reproduced" if they do
    not explain it, "undecided" if the margin is too wide to say. Zero-shot has no seeds, and its margin is
    UNLEARNED_WITHIN. Rows of a model with a note of its own, or with other settings, folds or test clips than the
    paper's: "not comparable".
    """
    rows, logs = _sides(rows, swapped_folds)
    table = _join(rows, logs, "accuracy").rename(columns={"seeds_paper": "paper_seeds"})
    ours, theirs = (dict(iter(side.groupby(["dataset", "method"]))) for side in (rows, logs))
    hindrance = functools.cache(
        lambda *cell: _why_not_comparable(ours[cell], theirs.get(cell, logs[:0]))
    )
    lines = []
    for line in table.itertuples(index=False):
        whole = line.dataset == AVERAGE
        chosen = table["dataset"] != AVERAGE if whole else table["dataset"] == line.dataset
        cells = table[chosen & (table["method"] == line.method)]
        margin = difference_margin(
            *(cells[name] for name in ("ours_std", "seeds", "paper_std", "paper_seeds"))
        )
        margin = UNLEARNED_WITHIN if whole and line.method in UNLEARNED else margin
        reasons = [
            hindrance(name, line.method) for name in cells["dataset"]
        ]  # what hinders one hinders the mean
        reason = next(
            filter(None, reasons),
            "" if line.paper >= 0 else "the paper's mean is over other datasets",
        )
        found = "not comparable" if reason else verdict(line.difference, margin, whole)
        lines.append(line._asdict() | {"margin": margin, "verdict": found, "reason": reason})
    numbers = ["ours", "paper", "difference", "margin", "seeds", "paper_seeds"]
    return pd.DataFrame(lines)[["dataset", "method", *numbers, "verdict", "reason"]].astype(
        {"paper_seeds": "Int64"}
    )


def verdict(difference: float, margin: float, whole: bool = True) -> str:
    """The rule of `judge` for a mean over the eleven datasets (whole), or for one dataset's difference."""
    if not whole:
        return (
            "no spread"
            if np.isnan(margin)
            else "within noise"
            if abs(difference) <= margin
            else "outside noise"
        )
    if abs(difference) > margin:
        return "not reproduced"
    return "reproduced" if abs(difference) + margin <= REPRODUCED_WITHIN else "undecided"


def verdict_table(rows: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """`judge` as text for a page; twice where TUT2017 is among the datasets, with its swapped folds and without."""
    table = compare_with_paper(rows)
    if set(rows["dataset"]) & set(SWAPPED_FOLDS):
        table = pd.concat(
            {
                "all folds": table,
                "TUT2017: fold 1 only": compare_with_paper(rows, swapped_folds=False),
            }
        )
    table = table.map(
        lambda value: format(value, f".{digits}f") if isinstance(value, float) else str(value)
    )
    return table.replace({"nan": "–", "<NA>": "–"})


def _why_not_comparable(ours: pd.DataFrame, logs: pd.DataFrame) -> str:
    """Why rows of one dataset and method cannot stand beside the logs' rows of the same; empty if they can."""
    dataset, method = ours[["dataset", "method"]].iloc[0]
    own = (
        "model_note" if "model_note" in ours else "note"
    )  # a sentence of the user's own hinders nothing
    if own in ours and (notes := [note for note in ours[own].fillna("").unique() if note]):
        return "; ".join(notes)
    if logs.empty:
        return f"the logs have no {method} on {dataset}"
    folds = ours["fold"].fillna(0).astype(int)  # one split: None in our rows, 0 in the logs
    if missing := sorted(set(logs["fold"]) ^ set(folds)):
        return f"{dataset}: only one side has fold {', '.join(map(str, missing))}"
    clips = folds.map(lambda fold: paper_datasets()[dataset].test_clips[max(fold, 1) - 1])
    if "n_test" in ours and (other := ours["n_test"] != clips).any():
        return f"{dataset}: {ours['n_test'][other].iloc[0]} test clips, the paper's are {clips[other].iloc[0]}"
    for name in (
        PUBLISHED_SETTINGS if method not in UNLEARNED else set(PUBLISHED_SETTINGS) - set(TRAINED)
    ):
        if name in ours and (
            other := [value for value in ours[name] if value != PUBLISHED_SETTINGS[name]]
        ):
            return f"{name}={other[0]}, the paper's is {PUBLISHED_SETTINGS[name]}"
    return ""
