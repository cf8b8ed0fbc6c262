"""Rows of different versions of a dataset, and several rows of one trial: they are never averaged.

A dataset's version is the row's `dataset_digest`, over all folds. It changes with the content of
the folder, so two folders of one name are two versions too. Rows without a digest are a version of
their own. So are rows that the kit wrote before its results changed (`trial_version`).
"""

from __future__ import annotations

import pandas as pd

DIGEST_LENGTH = 8
CELL = ["dataset", "method", "fold", "seed"]


def mark_versions(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with a column `version`: "" for a dataset of one version, else short digest and date."""
    if "version" in rows:
        return rows
    digests = _text_column(rows, "dataset_digest")
    kit = rows.get("trial_version", pd.Series(1, rows.index)).fillna(1).astype(int).astype(str)
    versions = digests + kit
    short = digests.str[:DIGEST_LENGTH].where(digests != "", "no digest")
    dates = _text_column(rows, "written").groupby([rows["dataset"], versions]).transform("max")
    labels = (short + ", " + dates.str[:10]).str.removesuffix(", ")
    kits = kit.groupby([rows["dataset"], digests]).transform("nunique")
    labels = labels.where(kits == 1, labels + ", results of version " + kit)
    several = versions.groupby(rows["dataset"]).transform("nunique") > 1
    return rows.assign(version=labels.where(several, ""))


def dataset_labels(rows: pd.DataFrame) -> pd.Series:
    """The name of each row's dataset, with its version where there are several."""
    versions = mark_versions(rows)["version"]
    return rows["dataset"].where(versions == "", rows["dataset"] + " (" + versions + ")")


def versioned_datasets(rows: pd.DataFrame) -> list[str]:
    """The datasets that have rows of several versions."""
    marked = mark_versions(rows)
    return sorted(set(marked.loc[marked["version"] != "", "dataset"]))


def drop_repeats(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without repeated ones: the same trial with the same key."""
    if "key" not in rows:
        return rows
    return rows[~rows.duplicated([*CELL, *rows.columns.intersection(["version"]), "key"])]


def is_duplicate(rows: pd.DataFrame, by=()) -> pd.Series:
    """[n] bool: does a row share method, dataset, fold, seed and `by` with another row?"""
    return rows.duplicated([*CELL, *by], keep=False)


def describe_duplicates(rows: pd.DataFrame) -> str:
    """A sentence about the first of some duplicates, which names the rows' keys."""
    first = rows.iloc[0]
    cells = rows.groupby(CELL, dropna=False, observed=True).ngroup()
    same = rows[cells == cells.iloc[0]]
    keys = ", ".join(str(key)[:10] for key in same["key"]) if "key" in same else "unknown"
    fold = "" if pd.isna(first["fold"]) else f", fold {first['fold']:.0f}"
    return (
        f"{first['dataset']}, {first['method']}{fold}, seed {first['seed']}: {len(same)} rows of "
        f"equal settings (keys {keys}); delete all but one of them"
    )


def _text_column(rows: pd.DataFrame, name: str) -> pd.Series:
    return rows.get(name, pd.Series("", rows.index)).fillna("").astype(str)
