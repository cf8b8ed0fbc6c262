"""Rows by their settings."""

from __future__ import annotations

import pandas as pd

from palmkit.experiments import trials
from palmkit.experiments.trials import TRAINED
from palmkit.results.method_style import is_transductive, learns

# Those of the trial, then those of the model and of a method from outside.
SETTINGS = (*trials.SETTINGS, "encoders", "weights", "rates", "method_digest")
# Values for rows that are older than a setting.
BEFORE = {
    "regime": "published",
    "stochastic": "none",
    "autocast": "False",
    "method_digest": "",
    "encoders": "one",
}
ANY = "any"  # the value of a setting that does not affect a row
# Not a setting of a trial: whether its method sees the whole test batch. Such methods are never in
# one group with others, zero-shot included.
KIND = "transductive"
ENCODERS = "encoders"  # "one" or "two" models that embed clips
ALWAYS_SHOWN = {ENCODERS: "two", KIND: "yes"}  # values that label a group also where all have them
LABEL_LENGTH = 12  # of a digest in a label


def select(rows: pd.DataFrame, **settings) -> pd.DataFrame:
    """Rows with these settings: select(rows, shots=16, method=["palm", "coop"])."""
    for column, wanted in settings.items():
        rows = rows[rows[column].isin(wanted if isinstance(wanted, list | tuple) else [wanted])]
    return rows


def setting(rows: pd.DataFrame, name: str, default=None) -> pd.Series:
    """A setting of each row, a field or one of its options; `default` where it was not given."""
    if name in rows:
        return rows[name]
    return rows["options"].map(lambda options: options.get(name, default))


def label_settings(rows: pd.DataFrame) -> pd.DataFrame:
    """KIND ("yes" or "no") and SETTINGS of each row as text; ANY for what does not affect it."""
    labels = rows.reindex(columns=list(SETTINGS)).astype(object).map(_as_text)
    for name, value in BEFORE.items():
        labels[name] = labels[name].replace("", value)
    unlearned = ~learns(rows["method"])
    labels.loc[unlearned, [*TRAINED, "stochastic", "autocast"]] = ANY
    labels.loc[(labels["protocol"] != "released") | unlearned, "rates"] = ANY
    # A method's source matters only beside another source of the same method.
    sources = labels["method_digest"].groupby(rows["method"]).transform("nunique")
    labels.loc[sources == 1, "method_digest"] = ANY
    labels.insert(0, KIND, is_transductive(rows["method"]).map({True: "yes", False: "no"}))
    return labels


def _as_text(value) -> str:
    """A setting as text; "" for one that the row does not have. Entries of a dict in one order."""
    if isinstance(value, dict):
        return str(dict(sorted(value.items())))
    return "" if value is None or value != value else str(value)


def split_settings(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Rows in groups of equal settings, each with a label of what differs: "shots=4, epochs=50".

    Rows of a method that does not learn have no settings of training. They are part of every group
    whose other settings they share. Transductive methods have groups of their own, which come last
    and are always labelled as such; so are rows of two encoders.
    """
    labels = label_settings(rows)
    varied = [name for name in labels if labels.loc[labels[name] != ANY, name].nunique() > 1]
    for name, value in ALWAYS_SHOWN.items():
        if name not in varied and (labels[name] == value).any():
            varied.insert(0, name)
    if not varied:
        return [("", rows)] if len(rows) else []
    labels = labels[varied]
    groups, placed = [], pd.Series(False, rows.index)
    kinds = labels.drop_duplicates().sort_values(varied, key=_is_last)
    for values in kinds.to_numpy():
        fits = ((labels == values) | (labels == ANY)).all(axis=1)
        if not (placed | ~fits).all():
            groups.append((_group_label(varied, values, rows[fits]), rows[fits]))
            placed |= fits
    return groups


def _is_last(column: pd.Series) -> pd.Series:
    return column == ("yes" if column.name == KIND else ANY)


def _group_label(names: list[str], values, rows: pd.DataFrame) -> str:
    shown = []
    for name, value in zip(names, values, strict=True):
        if name in ("weights", "method_digest"):
            value = value[:LABEL_LENGTH]
        if name == "weights" and "model" in rows and rows["model"].nunique() == 1:
            value += f" ({rows['model'].iloc[0]})"
        if (name, value) != ("rates", ANY):
            shown.append(f"{name}={value}")
    return ", ".join(shown)
