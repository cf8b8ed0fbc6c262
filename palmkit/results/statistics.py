"""How certain a number is: intervals over seeds, a bootstrap over clips, and tests over datasets.

Tests over datasets follow Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets"
(JMLR 7, 2006). Scores are accuracies as fractions, so differences of them are fractions too.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95
# Digits of scores that are compared. Two means of the same numbers are a tie, in whatever order
# they were summed.
DIGITS = 10


def seed_interval(values, level: float = LEVEL) -> tuple[float, float, float]:
    """Mean of [n] values, one a seed, with the limits of Student's interval: (mean, low, high).

    One value has no interval: its limits are NaN. Raises ValueError for no value.
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values must be [n] with one value at least, not {list(values.shape)}")
    if len(values) == 1:
        return float(values[0]), np.nan, np.nan
    half = half_interval(values.std(ddof=1), len(values), level)
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def half_interval(std, n, level: float = LEVEL):
    """Half the width of Student's interval of a mean over n seeds; NaN for one seed.

    std: standard deviation over the seeds (ddof 1). Numbers, or arrays of one shape.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return stats.t.ppf((1 + level) / 2, np.subtract(n, 1)) * std / np.sqrt(n)


def difference_margin(std_a, seeds_a, std_b, seeds_b, level: float = LEVEL) -> float:
    """How far two means differ by their seeds alone: half the width of Welch's interval.

    std_a, std_b: [datasets] standard deviations over seeds_a, seeds_b seeds; a number is one
    dataset. For several datasets it is the margin of the difference of the unweighted means over
    all: variances add, degrees of freedom are Satterthwaite's. A side with one seed has no std
    (NaN): it is treated as one more draw from the other side's distribution, which widens the
    margin. NaN if neither side has a std.
    """
    terms = []  # variance of a mean, and its degrees of freedom
    for a, n_a, b, n_b in np.broadcast(std_a, seeds_a, std_b, seeds_b):
        if n_a > 1 and n_b > 1:
            terms += [(a**2 / n_a, n_a - 1), (b**2 / n_b, n_b - 1)]
        elif n_a > 1 or n_b > 1:
            std = a if n_a > 1 else b
            terms += [(std**2 * (1 / n_a + 1 / n_b), max(n_a, n_b) - 1)]
        else:
            return np.nan
    variance, freedom = np.array(terms, float).T
    if not variance.any():
        return 0.0
    degrees = variance.sum() ** 2 / (variance**2 / freedom).sum()
    datasets = np.broadcast(std_a, std_b).size
    half = stats.t.ppf((1 + level) / 2, degrees) * np.sqrt(variance.sum())
    return float(half / datasets)


def paired_bootstrap(
    right_a, right_b, draws: int = 10_000, seed: int = 0, level: float = LEVEL
) -> dict[str, float]:
    """Method a against b on the same [clips] test clips, each right (1) or wrong (0).

    Clips are drawn anew, in pairs. Returns the difference (a minus b), its percentile interval
    low..high, and p: twice the smaller share of draws on one side of zero. This is the noise of the
    test clips alone, not that of seeds.
    """
    gain = np.asarray(right_a, float) - np.asarray(right_b, float)
    if gain.ndim != 1 or not len(gain):
        raise ValueError(
            f"right_a and right_b must be [clips] with one clip at least, not {list(gain.shape)}"
        )
    # A draw depends only on how often each value occurs. Counts are faster to draw than indices,
    # as scipy.stats.bootstrap does.
    values, counts = np.unique(gain, return_counts=True)
    generator = np.random.default_rng(seed)
    sums = generator.multinomial(len(gain), counts / len(gain), draws) @ values
    low, high = np.quantile(sums / len(gain), [(1 - level) / 2, (1 + level) / 2])
    p = min(1.0, 2 * (1 + min((sums <= 0).sum(), (sums >= 0).sum())) / (1 + draws))
    return {"difference": float(gain.mean()), "low": float(low), "high": float(high), "p": float(p)}


def holm(p) -> np.ndarray:
    """Holm's adjustment of [m] p-values for m comparisons (step-down, never above 1).

    scipy has none.
    """
    p = np.asarray(p, float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def rank_biserial(difference) -> float:
    """Matched-pairs rank-biserial correlation of [n] differences (Kerby 2014).

    (sum of positive ranks - sum of negative ones) / all; 1: all are positive. Zeros are left out,
    as in the signed-rank test. NaN if there is nothing else.
    """
    difference = np.round(np.asarray(difference, float), DIGITS)
    difference = difference[difference != 0]
    ranks = stats.rankdata(np.abs(difference))
    return float((ranks * np.sign(difference)).sum() / ranks.sum()) if len(ranks) else np.nan


def cohens_dz(difference) -> float:
    """Mean of [n] paired differences over their standard deviation (ddof 1).

    Infinite if all are the same.
    """
    difference = np.asarray(difference, float)
    with np.errstate(divide="ignore"):
        return float(difference.mean() / difference.std(ddof=1))


def compare_paired(scores: pd.DataFrame, reference: str = "palm") -> pd.DataFrame:
    """`reference` against every other column of `scores` [datasets, methods].

    One line for each method: difference (mean), wins, ties, losses, p (Wilcoxon's signed-rank test,
    two-sided, without ties), p_holm, rank_biserial, cohens_dz, n (datasets). Raises ValueError for
    a missing score, and for a method that ties with the reference on every dataset.
    """
    if scores.isna().any(axis=None):
        raise ValueError("a paired test needs a score of every method on every dataset")
    lines = {}
    for method in scores.columns.drop(reference):
        gain = (scores[reference] - scores[method]).round(DIGITS)
        if not gain.any():
            raise ValueError(
                f"{reference} and {method} tie on every dataset: there is nothing to test"
            )
        lines[method] = {
            "difference": gain.mean(),
            "wins": (gain > 0).sum(),
            "ties": (gain == 0).sum(),
            "losses": (gain < 0).sum(),
            "p": stats.wilcoxon(gain[gain != 0]).pvalue,
            "rank_biserial": rank_biserial(gain),
            "cohens_dz": cohens_dz(gain),
            "n": len(gain),
        }
    table = pd.DataFrame.from_dict(lines, orient="index").rename_axis("method")
    table.insert(list(table).index("p") + 1, "p_holm", holm(table["p"]))
    return table.astype(dict.fromkeys(("wins", "ties", "losses", "n"), int))


def mean_ranks(scores: pd.DataFrame) -> pd.Series:
    """Mean rank of each method over `scores` [datasets, methods]: 1 is best, ties share."""
    return scores.round(DIGITS).rank(axis=1, ascending=False).mean()


def friedman(scores: pd.DataFrame) -> tuple[float, float]:
    """Friedman's chi-squared over `scores` [datasets, 3 methods or more], and its p."""
    found = stats.friedmanchisquare(*scores.round(DIGITS).to_numpy().T)
    return float(found.statistic), float(found.pvalue)


def critical_difference(methods: int, datasets: int, level: float = LEVEL) -> float:
    """Nemenyi's critical difference: mean ranks closer than this do not differ.

    q is the studentized range over the root of 2.
    """
    q = stats.studentized_range.ppf(level, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * datasets)))


def group_ranks(ranks: pd.Series, difference: float) -> list[tuple[str, str]]:
    """The groups of methods that do not differ: (first, last) of each, none inside another.

    ranks: mean ranks by method, in ascending order.
    """
    groups, farthest = [], []
    for first, rank in ranks.items():
        last = ranks[ranks <= rank + difference].index[-1]
        if first != last and last not in farthest:
            groups.append((first, last))
        farthest.append(last)
    return groups
