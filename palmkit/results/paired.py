"""One setting against another, trial by trial: differences, and what they show."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from palmkit.results.formats import DIGITS, NOTHING, format_difference, format_p
from palmkit.results.statistics import (
    DIFFERENCE,
    describe_difference,
    equivalence_test,
    holm,
    seed_interval,
)

TRIAL = ["dataset", "method", "fold", "seed"]  # what the two trials of a pair have in common
SINGLE_SPLIT = 0  # the fold of a dataset that has none
P_VALUES = ["p_differ", "p_equal"]


def paired_differences(
    rows: pd.DataFrame, column: str, reference: str, value: str = "accuracy"
) -> pd.DataFrame:
    """Each trial's value minus that of the same trial in the reference setting.

    rows: one line for each trial and setting. column: the one that names the setting. reference:
    its value for the setting that is subtracted. One line for each pair: TRIAL, `column` and
    difference. A trial without its other half is left out. Raises ValueError for two lines of the
    same trial and setting, and KeyError if no line has the reference setting.
    """
    rows = rows.assign(fold=rows["fold"].fillna(SINGLE_SPLIT).astype(int))
    settings = rows.pivot(index=TRIAL, columns=column, values=value).astype(float)
    trials = pd.MultiIndex.from_frame(rows[TRIAL].drop_duplicates())
    settings = settings.loc[trials, rows[column].unique()]  # in the order of the rows
    change = settings.drop(columns=reference).sub(settings[reference], axis=0)
    pairs = change.reset_index().melt(TRIAL, var_name=column, value_name="difference")
    return pairs.dropna(subset="difference").reset_index(drop=True)


def describe_pairs(
    pairs: pd.DataFrame,
    by: list[str],
    margin: float | None = None,
    bounds: tuple[float, float] = DIFFERENCE,
) -> pd.DataFrame:
    """What `paired_differences` show, one line for each value of the columns `by`.

    A seed's value is its mean over datasets of the mean over folds. Columns: mean, low, high
    (`seed_interval`, cut at `bounds`), seeds, shows (`describe_difference`: of this line alone),
    p_differ (t test of no difference), p_equal (`equivalence_test`) and n (pairs). Both p have
    Holm's correction for the lines of the table. margin: smaller differences do not matter; None:
    equality is not asked for, and there is no p_equal. Without an interval (one seed, or equal
    ones) the p are NaN.
    """
    of_folds = dict.fromkeys([*by, "seed", "dataset"])  # `by` may have the dataset, too
    folds = pairs.groupby([*of_folds], sort=False)["difference"].mean()
    by_seed = folds.groupby([*by, "seed"], sort=False).mean().reset_index()
    lines, keys = [], []
    for key, part in by_seed.groupby(by, sort=False):
        values = part["difference"].to_numpy()
        mean, low, high = seed_interval(values, bounds=bounds)
        line = {"mean": mean, "low": low, "high": high, "seeds": len(values)}
        line["shows"] = describe_difference(low, high, margin or 0)
        line["p_differ"] = np.nan if np.isnan(low) else stats.ttest_1samp(values, 0).pvalue
        if margin is not None:
            line["p_equal"] = equivalence_test(values, margin)
        lines.append(line)
        keys.append(key)
    index = pd.MultiIndex.from_tuples(keys, names=by)
    table = pd.DataFrame(lines, index if len(by) > 1 else index.get_level_values(0))
    corrected = {name: holm(table[name]) for name in P_VALUES if name in table}
    return table.assign(**corrected, n=pairs.groupby(by, sort=False).size())


def first_folds(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs of each dataset's first fold."""
    return pairs[pairs["fold"] == pairs.groupby("dataset")["fold"].transform("min")]


def format_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """`describe_pairs` as text, by the rule for digits; NOTHING where there is no interval."""
    limits = zip(table["low"], table["high"], strict=True)
    shown = pd.DataFrame({"difference": table["mean"].map(format_difference)})
    shown["95% interval"] = [format_limits(low, high) for low, high in limits]
    shown["shows"] = table["shows"]
    for name in table.columns.intersection(P_VALUES, sort=False):
        shown[name] = table[name].map(format_p)
    return shown.assign(seeds=table["seeds"], n=table["n"])


def format_limits(low: float, high: float) -> str:
    """The limits of a difference, "-0.05 to +0.02"; NOTHING where there is no interval.

    A limit just below zero is "-0.00": whether zero lies between the limits can be seen.
    """
    return NOTHING if pd.isna(low) else f"{low:+.{DIGITS}f} to {high:+.{DIGITS}f}"
