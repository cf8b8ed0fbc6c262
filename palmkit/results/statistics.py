"""How certain a number is: intervals over seeds, over clips and over both, and tests.

Tests over datasets follow Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets"
(JMLR 7, 2006). Scores are accuracies as fractions, so differences of them are fractions too.

Two rules hold for every interval over seeds. Limits are cut at the bounds of what is measured, 0
and 1 for an accuracy. The true value lies between the bounds, so a cut interval contains it exactly
as often as the whole one does. (On a logit scale limits also respect the bounds, but a seed that is
right on every clip has no logit, and folds and datasets are averaged as accuracies.) And equal
values give no interval: that two or three seeds agree does not show that the next one would.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95
# Digits of scores that are compared. Two means of the same numbers are a tie, in whatever order
# they were summed.
DIGITS = 10
# Where a measure lies: limits of intervals are cut there.
SHARE = (0.0, 1.0)  # an accuracy
DIFFERENCE = (-1.0, 1.0)  # of two accuracies
ANY_NUMBER = (-np.inf, np.inf)


def seed_interval(
    values, level: float = LEVEL, bounds: tuple[float, float] = ANY_NUMBER
) -> tuple[float, float, float]:
    """Mean of [n] values, one a seed, with the limits of Student's interval: (mean, low, high).

    bounds: SHARE for accuracies, DIFFERENCE for differences of them; limits are cut there. One
    value, or equal ones, have no interval: the limits are NaN. Raises ValueError for no value.
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values must be [n] with one value at least, not {list(values.shape)}")
    std = values.std(ddof=1) if len(values) > 1 else np.nan
    low, high = interval_limits(values.mean(), std, len(values), level, bounds)
    return float(values.mean()), float(low), float(high)


def interval_limits(mean, std, n, level: float = LEVEL, bounds: tuple[float, float] = ANY_NUMBER):
    """Limits of Student's interval of a mean over n seeds, cut at the bounds: (low, high).

    std: standard deviation over the seeds (ddof 1). Numbers, or arrays of one shape. NaN for one
    seed, and for equal seeds (std 0).
    """
    std = np.where(np.round(std, DIGITS) > 0, std, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        half = stats.t.ppf((1 + level) / 2, np.subtract(n, 1)) * std / np.sqrt(n)
    return np.clip(mean - half, *bounds), np.clip(mean + half, *bounds)


def seed_clip_interval(
    scores, level: float = LEVEL, bounds: tuple[float, float] = SHARE
) -> tuple[float, float, float]:
    """Mean of scores [seeds, clips] with limits for new seeds AND new clips: (mean, low, high).

    scores: 1 where a seed is right about a test clip, else 0; or the differences of two methods,
    pair by pair, with bounds=DIFFERENCE. Clips of several folds stand one after the other.

    Student's interval with the standard error of `two_way_error`. One seed, one clip or equal
    scores have no interval: the limits are NaN.

    Why no bootstrap: it draws from the seeds that there are, and three are too few. Simulated with
    three seeds, 20 or 120 clips and little or much difference between seeds, intervals at 95
    percent contained the truth in 93 to 99 of 100 runs; those of a bootstrap over seeds and clips
    in 86 to 99, of seeds alone (`seed_interval`) in 86 to 96, of clips alone in 58 to 95.
    """
    error, degrees = two_way_error(scores)
    mean = float(np.mean(scores))
    half = stats.t.ppf((1 + level) / 2, degrees) * error
    return mean, float(np.clip(mean - half, *bounds)), float(np.clip(mean + half, *bounds))


def two_way_error(scores) -> tuple[float, float]:
    """Standard error of the mean of scores [seeds, clips], and its degrees of freedom.

    Seeds and clips are both random, and crossed: score = mean + seed + clip + rest. The mean
    squares of seeds, of clips and of the rest estimate the variance of the mean, (seeds + clips -
    rest) / (seeds x clips). It is never taken below that of seeds or of clips alone. Degrees of
    freedom are Satterthwaite's. NaN, NaN for one seed, one clip or equal scores.
    """
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"scores must be [seeds, clips], not {list(scores.shape)}")
    seeds, clips = scores.shape
    if min(seeds, clips) == 1 or not np.ptp(scores):
        return np.nan, np.nan
    of_seed, of_clip = scores.mean(1), scores.mean(0)
    rest = scores - of_seed[:, None] - of_clip + scores.mean()
    squares = np.array([clips * of_seed.var(ddof=1), seeds * of_clip.var(ddof=1), (rest**2).sum()])
    freedom = np.array([seeds - 1, clips - 1, (seeds - 1) * (clips - 1)])
    squares[2] /= freedom[2]
    total = max(squares[0] + squares[1] - squares[2], squares[0], squares[1])
    degrees = total**2 / (squares**2 / freedom).sum()
    return float(np.sqrt(total / scores.size)), float(max(degrees, seeds - 1))


def difference_margin(std_a, seeds_a, std_b, seeds_b, level: float = LEVEL) -> float:
    """How far two means differ by their seeds alone: half the width of Welch's interval.

    std_a, std_b: [datasets] standard deviations over seeds_a, seeds_b seeds; a number is one
    dataset. For several datasets it is the margin of the difference of the unweighted means over
    all: variances add, degrees of freedom are Satterthwaite's. A side with one seed has no std
    (NaN): it is treated as one more draw from the other side's distribution, which widens the
    margin. NaN if neither side has a std, or if all seeds are equal: that is no certainty.
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
    if not np.round(np.sqrt(variance), DIGITS).any():
        return np.nan
    degrees = variance.sum() ** 2 / (variance**2 / freedom).sum()
    datasets = np.broadcast(std_a, std_b).size
    half = stats.t.ppf((1 + level) / 2, degrees) * np.sqrt(variance.sum())
    return float(half / datasets)


def paired_bootstrap(
    right_a, right_b, draws: int = 10_000, seed: int = 0, level: float = LEVEL
) -> dict[str, float]:
    """Method a against b on the same [clips] test clips, each right (1) or wrong (0).

    Clips are drawn anew, in pairs. Returns the difference (a minus b), its percentile interval
    low..high, and p of the exact `sign_test` on clips won and lost. This is the noise of the test
    clips alone, not that of seeds (`seed_clip_interval` has both). With few clips the interval is
    too narrow: of 20 clips, 5 lost and none won, it leaves out zero, where the exact p is 0.0625.
    Equal clips give no interval: the limits are NaN.
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
    if len(values) == 1:
        low = high = np.nan
    p = sign_test((gain > 0).sum(), (gain < 0).sum())
    return {"difference": float(gain.mean()), "low": float(low), "high": float(high), "p": p}


def sign_test(won, lost) -> float:
    """Exact two-sided p of `won` against `lost` pairs; ties do not count. 1 if there are only ties.

    On test clips that one of two methods alone is right about, this is McNemar's exact test. On
    datasets it is the sign test.
    """
    won, lost = int(won), int(lost)
    return float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0


def compare_clips(right_a, right_b) -> dict[str, float]:
    """Method a against b on the same [clips] test clips, each right (True) or wrong (False).

    Returns won, lost (clips that a alone, b alone is right about), difference (of accuracies), p
    (`sign_test`) and clips. Raises ValueError for other values than right and wrong.
    """
    a, b = np.asarray(right_a, float), np.asarray(right_b, float)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"two lists of clips of one length, not {list(a.shape)}, {list(b.shape)}")
    if not np.isin([a, b], (0, 1)).all():
        raise ValueError("a clip is right (1) or wrong (0): compare one seed at a time")
    won, lost = int((a > b).sum()), int((a < b).sum())
    difference = (won - lost) / len(a)
    counts = {"won": won, "lost": lost}
    return counts | {"difference": difference, "p": sign_test(won, lost), "clips": len(a)}


def equivalence_test(difference, margin: float) -> float:
    """p of two one-sided t tests: are [n] paired differences, one a seed, within ± margin?

    A small p says that the mean difference is smaller than the margin, in either direction. A large
    p says nothing: neither that there is a difference nor that there is none. NaN for one seed and
    for equal ones. Raises ValueError for a margin that is not positive.
    """
    difference = np.asarray(difference, float)
    if not margin > 0:
        raise ValueError(f"the margin must be positive, not {margin}")
    if len(difference) < 2 or not np.round(np.ptp(difference), DIGITS):
        return np.nan
    above = stats.ttest_1samp(difference, -margin, alternative="greater")
    below = stats.ttest_1samp(difference, margin, alternative="less")
    return float(max(above.pvalue, below.pvalue))


def describe_difference(low: float, high: float, margin: float) -> str:
    """What an interval of a difference shows, in a word or two.

    "higher" or "lower": it leaves out zero. "equal within 0.03": it does not, and lies within ±
    margin (the interval's form of `equivalence_test`, stricter at the same level). "not shown":
    neither a difference nor that there is none.
    """
    if low > 0 or high < 0:
        return "higher" if low > 0 else "lower"
    return f"equal within {margin:g}" if -margin < low and high < margin else "not shown"


def holm(p) -> np.ndarray:
    """Holm's adjustment of [m] p-values of one family of comparisons (step-down, never above 1).

    scipy has none. A p that is NaN stays NaN, and counts as a comparison.
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
