"""Results beside the published numbers, and what the differences mean."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd

from palmkit.experiments.trials import TRAINED, Trial
from palmkit.published import SWAPPED_FOLDS, paper_datasets, published_rows, without_swapped_folds
from palmkit.results.method_style import learns
from palmkit.results.statistics import difference_margin
from palmkit.results.tables import AVERAGE, summarise
from palmkit.results.versions import dataset_labels, mark_versions

COMPARED = ["dataset", "method", "ours", "ours_std", "paper", "paper_std", "difference"]
JUDGED = [
    *("dataset", "method", "ours", "paper", "difference", "margin", "seeds", "paper_seeds"),
    *("verdict", "reason"),
]
# The paper's settings are a trial's defaults. Both protocols count as the paper's: its text has one
# and its code has the other.
PUBLISHED_SETTINGS = {
    name: getattr(Trial("palm", ""), name) for name in (*TRAINED, "crop", "options")
}
# The claim at stake is PALM's lead over the next method, 0.031 on the mean of eleven datasets.
REPRODUCED_WITHIN = 0.03
# Zero-shot has no seeds. Only the random crops of long clips move its mean, and by less than this.
UNLEARNED_WITHIN = 0.01


def compare(
    rows: pd.DataFrame, metric: str = "accuracy", swapped_folds: bool = True
) -> pd.DataFrame:
    """Ours beside the released logs: ours, paper, difference, seeds and folds of ours.

    A dataset that is not in the paper has no number of the paper, and no result of a model that is
    not PENGI has one. The paper's AVERAGE is over its eleven datasets, so it is given only if ours
    is over the same. swapped_folds=False leaves TUT2017's folds 2 to 4 out, on both sides.
    """
    return _join(*_sides(rows, swapped_folds), metric)[[*COMPARED, "seeds", "folds"]]


def _sides(rows: pd.DataFrame, swapped_folds: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Our rows, with the versions of their datasets, and the rows of the logs."""
    rows, logs = mark_versions(rows), published_rows()
    if swapped_folds:
        return rows, logs
    return without_swapped_folds(rows), without_swapped_folds(logs)


def _join(rows: pd.DataFrame, logs: pd.DataFrame, metric: str) -> pd.DataFrame:
    ours, paper = summarise(rows, metric), summarise(logs, metric)
    if set(ours["dataset"]) - {AVERAGE} != set(paper["dataset"]) - {AVERAGE}:
        paper = paper[paper["dataset"] != AVERAGE]
    columns = {"mean_paper": "paper", "std_paper": "paper_std", "mean": "ours", "std": "ours_std"}
    joined = ours.merge(paper, on=["dataset", "method"], how="left", suffixes=("", "_paper"))
    joined = joined.rename(columns=columns)
    cells = other_model_cells(rows)
    is_other = [cell in cells for cell in zip(joined["dataset"], joined["method"], strict=True)]
    joined.loc[is_other, ["paper", "paper_std", "seeds_paper", "folds_paper"]] = np.nan
    joined["difference"] = joined["ours"] - joined["paper"]
    return joined


def other_model_cells(rows: pd.DataFrame) -> set[tuple[str, str]]:
    """(dataset, method) of rows of a model that is not PENGI, as `model_note` says, or of two
    models. With each comes the method's mean, (AVERAGE, method).
    """
    others = rows[(_model_notes(rows) != "") | has_two_encoders(rows)]
    methods = others["method"]
    cells = {*zip(dataset_labels(others), methods, strict=True)}
    return cells | {(AVERAGE, method) for method in methods}


def has_two_encoders(rows: pd.DataFrame) -> pd.Series:
    """[n] whether a row is of two encoders. The published table is of one."""
    return rows.get("encoders", pd.Series("one", rows.index)) == "two"


def _model_notes(rows: pd.DataFrame) -> pd.Series:
    """What each row says of its model; "" for PENGI. Rows of before 0.2 have a note only."""
    column = "model_note" if "model_note" in rows else "note"
    return rows[column].fillna("") if column in rows else pd.Series("", rows.index)


def compare_with_paper(rows: pd.DataFrame, swapped_folds: bool = True) -> pd.DataFrame:
    """The accuracies of `compare`, and what their differences mean.

    Columns: JUDGED. margin: what seeds explain at 95 percent (`difference_margin`), or
    UNLEARNED_WITHIN for the mean of zero-shot, which has no seeds. verdict and reason:

    - A dataset's difference is "within noise" or "outside noise", or has "no spread". It decides
      nothing by itself: one in twenty is outside by chance.
    - A method's mean over the paper's eleven datasets is "reproduced" if seeds explain the
      difference and difference ± margin stays within ± REPRODUCED_WITHIN. It is "not reproduced" if
      they do not explain it, and "undecided" if the margin is too wide to say.
    - Rows of two encoders, of a model with a note, or with other settings, folds or test clips than
      the paper's, are "not comparable".
    """
    rows, logs = _sides(rows, swapped_folds)
    table = _join(rows, logs, "accuracy").rename(columns={"seeds_paper": "paper_seeds"})
    reasons = _reasons(rows, logs)
    unlearned = ~learns(table["method"])
    lines = []
    for line, learns_nothing in zip(table.itertuples(index=False), unlearned, strict=True):
        whole = line.dataset == AVERAGE
        chosen = table["dataset"] != AVERAGE if whole else table["dataset"] == line.dataset
        cells = table[chosen & (table["method"] == line.method)]
        margin = UNLEARNED_WITHIN if whole and learns_nothing else _margin(cells)
        # If one dataset is not comparable, the mean is not either.
        reason = next(filter(None, (reasons(name, line.method) for name in cells["dataset"])), "")
        if not reason and not line.paper >= 0:
            reason = "the paper's mean is over other datasets"
        found = "not comparable" if reason else verdict(line.difference, margin, whole)
        lines.append(line._asdict() | {"margin": margin, "verdict": found, "reason": reason})
    return pd.DataFrame(lines)[JUDGED].astype({"paper_seeds": "Int64"})


def _margin(cells: pd.DataFrame) -> float:
    columns = ("ours_std", "seeds", "paper_std", "paper_seeds")
    return difference_margin(*(cells[name] for name in columns))


def verdict(difference: float, margin: float, whole: bool = True) -> str:
    """The rule of `compare_with_paper` for a mean over the eleven datasets, or for one dataset.

    whole: whether it is the mean.
    """
    if whole:
        if abs(difference) > margin:
            return "not reproduced"
        return "reproduced" if abs(difference) + margin <= REPRODUCED_WITHIN else "undecided"
    if np.isnan(margin):
        return "no spread"
    return "within noise" if abs(difference) <= margin else "outside noise"


def verdict_table(rows: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """`compare_with_paper` as text for a page.

    If TUT2017 is among the datasets, there are two tables: with its swapped folds and without.
    """
    table = compare_with_paper(rows)
    if set(rows["dataset"]) & set(SWAPPED_FOLDS):
        without = compare_with_paper(rows, swapped_folds=False)
        table = pd.concat({"all folds": table, "TUT2017: fold 1 only": without})

    def as_text(value) -> str:
        return format(value, f".{digits}f") if isinstance(value, float) else str(value)

    return table.map(as_text).replace({"nan": "–", "<NA>": "–"})


def _reasons(rows: pd.DataFrame, logs: pd.DataFrame):
    """A function (dataset, method) -> why our rows of it cannot be compared with the logs' rows."""
    ours = dict(iter(rows.groupby([dataset_labels(rows), "method"])))
    theirs = dict(iter(logs.groupby(["dataset", "method"])))

    @functools.cache
    def reason(dataset: str, method: str) -> str:
        cell = (dataset, method)
        return why_not_comparable(ours[cell], theirs.get(cell, logs[:0]))

    return reason


def why_not_comparable(rows: pd.DataFrame, logs: pd.DataFrame) -> str:
    """Why rows of one dataset and method cannot be compared with the logs' rows of the same.

    Empty if they can.
    """
    dataset, method = rows[["dataset", "method"]].iloc[0]
    if "version" in rows and (rows["version"] != "").any():
        return f"there are rows of several versions of {dataset}"
    if has_two_encoders(rows).any():
        return "they have two encoders, and the paper's have one"
    # A note of the model counts; `note` may be the user's own.
    if notes := [note for note in _model_notes(rows).unique() if note]:
        return "; ".join(notes)
    if logs.empty:
        return f"the logs have no {method} on {dataset}"
    return _other_data(rows, logs) or _other_settings(rows)


def _other_data(rows: pd.DataFrame, logs: pd.DataFrame) -> str:
    """How folds or test clips differ from the paper's; "" if they do not."""
    dataset = rows["dataset"].iloc[0]
    folds = rows["fold"].fillna(0).astype(int)  # one split: None in our rows, 0 in the logs
    if missing := sorted(set(logs["fold"]) ^ set(folds)):
        return f"{dataset}: only one side has fold {', '.join(map(str, missing))}"
    clips = folds.map(lambda fold: paper_datasets()[dataset].test_clips[max(fold, 1) - 1])
    if "n_test" in rows and (other := rows["n_test"] != clips).any():
        ours, theirs = rows["n_test"][other].iloc[0], clips[other].iloc[0]
        return f"{dataset}: {ours} test clips, the paper's are {theirs}"
    return ""


def _other_settings(rows: pd.DataFrame) -> str:
    """The first setting that differs from the paper's; empty if none does."""
    trained = learns(rows["method"]).all()
    for name, published in PUBLISHED_SETTINGS.items():
        if name not in rows or (name in TRAINED and not trained):
            continue
        if other := [value for value in rows[name] if value != published]:
            return f"{name}={other[0]}, the paper's is {published}"
    return ""
