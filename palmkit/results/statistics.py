"""How certain a number is: intervals over seeds, over clips and over both, and tests.

Tests over datasets follow Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets"
(JMLR 7, 2006). Scores are accuracies as fractions, so differences of them are fractions too.

Two rules hold for every interval over seeds:

- Limits are cut at the bounds of what is measured: 0 and 1 for an accuracy. The true value lies
  between the bounds, so the cut interval contains it as often as the whole one does. Limits on a
  logit scale are not used: a seed that is right on every clip has no logit, and folds and datasets
  are averaged as accuracies.
- Equal values give no interval. Two or three seeds that agree do not show that the next one would.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95
# Scores are compared to so many digits. The order of a sum changes the last digits of a mean, and
# two means of the same numbers are a tie.
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
    mean = values.mean()
    std = values.std(ddof=1) if len(values) > 1 else np.nan
    low, high = interval_limits(mean, std, len(values), level, bounds)
    return float(mean), float(low), float(high)


def interval_limits(mean, std, n, level: float = LEVEL, bounds: tuple[float, float] = ANY_NUMBER):
    """Limits of Student's interval of a mean over n seeds, cut at the bounds: (low, high).

        mean ± t std / sqrt(n),   t: quantile of Student's distribution, n - 1 degrees of freedom

    mean, std (over the seeds, ddof 1), n: numbers, or arrays of one shape. NaN for one seed, and
    for equal seeds (std 0).
    """
    std = np.where(np.round(std, DIGITS) > 0, std, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        half = _student_quantile(level, np.subtract(n, 1)) * std / np.sqrt(n)
    return _cut_limits(mean, half, bounds)


def _student_quantile(level: float, degrees):
    """t, so that Student's distribution has a share of `level` between -t and t."""
    return stats.t.ppf((1 + level) / 2, degrees)


def _cut_limits(mean, half, bounds: tuple[float, float]):
    """mean - half and mean + half, cut at the bounds."""
    return np.clip(mean - half, *bounds), np.clip(mean + half, *bounds)


def _satterthwaite(total: float, parts: np.ndarray, freedom: np.ndarray) -> float:
    """Degrees of freedom of a total of variances: total^2 / sum of part^2 / its own degrees."""
    return total**2 / (parts**2 / freedom).sum()


def seed_clip_interval(
    scores, level: float = LEVEL, bounds: tuple[float, float] = SHARE
) -> tuple[float, float, float]:
    """Mean of scores [seeds, clips] with limits for new seeds AND new clips: (mean, low, high).

    scores: 1 where a seed is right about a test clip, else 0. Or, with bounds=DIFFERENCE, the
    difference of two methods for each seed and clip. Clips of several folds stand one after the
    other.

        mean ± t error,   t: quantile of Student's distribution

    Standard error and degrees of freedom are those of `two_way_error`. One seed, one clip or equal
    scores have no interval: the limits are NaN.

    Why no bootstrap: it draws from the seeds that there are, and three are too few. In simulations
    with three seeds and 20 or 120 clips, with little and with much difference between seeds, so
    many of 100 intervals at 95 percent contained the truth:

    - these intervals: 93 to 99;
    - bootstrap over seeds and clips: 86 to 99;
    - seeds alone (`seed_interval`): 86 to 96;
    - clips alone: 58 to 95.
    """
    error, degrees = two_way_error(scores)
    mean = float(np.mean(scores))
    low, high = _cut_limits(mean, _student_quantile(level, degrees) * error, bounds)
    return mean, float(low), float(high)


def two_way_error(scores) -> tuple[float, float]:
    """Standard error of the mean of scores [seeds, clips], and its degrees of freedom.

    Seeds and clips are both random, and every seed meets every clip:

        score = mean + seed + clip + rest
        error^2 = (MS_seeds + MS_clips - MS_rest) / (seeds x clips)

    MS are mean squares (`_mean_squares`). The sum in brackets is never taken below MS_seeds or
    MS_clips. Degrees of freedom are Satterthwaite's, and seeds - 1 at least. NaN, NaN for one seed,
    one clip or equal scores.
    """
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"scores must be [seeds, clips], not {list(scores.shape)}")
    if min(scores.shape) == 1 or not np.ptp(scores):
        return np.nan, np.nan
    squares, freedom = _mean_squares(scores)
    of_seeds, of_clips, of_rest = squares
    total = max(of_seeds + of_clips - of_rest, of_seeds, of_clips)
    degrees = max(_satterthwaite(total, squares, freedom), len(scores) - 1)
    return float(np.sqrt(total / scores.size)), float(degrees)


def _mean_squares(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean squares of scores [seeds, clips], and their degrees of freedom.

    Both are [3]: of seeds, of clips, and of the rest, which is what their means do not explain.
    """
    seeds, clips = scores.shape
    seed_means = scores.mean(1)
    clip_means = scores.mean(0)
    rest = scores - seed_means[:, None] - clip_means + scores.mean()
    freedom = np.array([seeds - 1, clips - 1, (seeds - 1) * (clips - 1)])
    of_seeds = clips * seed_means.var(ddof=1)
    of_clips = seeds * clip_means.var(ddof=1)
    of_rest = (rest**2).sum() / freedom[2]
    return np.array([of_seeds, of_clips, of_rest]), freedom


def difference_margin(std_a, seeds_a, std_b, seeds_b, level: float = LEVEL) -> float:
    """How far two means differ by their seeds alone: half the width of Welch's interval.

        t sqrt(sum over datasets of std_a^2 / seeds_a + std_b^2 / seeds_b) / datasets

    std_a, std_b: [datasets] standard deviations over seeds_a, seeds_b seeds. Numbers stand for one
    dataset. Of several datasets it is the margin of the difference of the unweighted means over
    all. Degrees of freedom are Satterthwaite's.
    A side with one seed has no std (NaN). It counts as one more draw from the other side's
    distribution, which widens the margin.
    NaN if neither side of a dataset has a std. NaN if all seeds are equal: that is no certainty.
    """
    datasets = np.broadcast(std_a, seeds_a, std_b, seeds_b)
    terms = []
    for dataset in datasets:
        terms += _difference_variances(*dataset)
    variances, freedom = np.array(terms, float).T
    if np.isnan(variances).any() or not np.round(np.sqrt(variances), DIGITS).any():
        return np.nan
    total = variances.sum()
    degrees = _satterthwaite(total, variances, freedom)
    half = _student_quantile(level, degrees) * np.sqrt(total)
    return float(half / datasets.size)


def _difference_variances(std_a, seeds_a, std_b, seeds_b) -> list[tuple[float, float]]:
    """Variances that add up to that of a difference of two means, each with its degrees of freedom.

    See `difference_margin` for a side with one seed.
    """
    if seeds_a > 1 and seeds_b > 1:
        return [(std_a**2 / seeds_a, seeds_a - 1), (std_b**2 / seeds_b, seeds_b - 1)]
    if max(seeds_a, seeds_b) <= 1:
        return [(np.nan, np.nan)]
    std = std_a if seeds_a > 1 else std_b
    return [(std**2 * (1 / seeds_a + 1 / seeds_b), max(seeds_a, seeds_b) - 1)]


def paired_bootstrap(
    right_a, right_b, draws: int = 10_000, seed: int = 0, level: float = LEVEL
) -> dict[str, float]:
    """Method a against b on the same [clips] test clips, each right (1) or wrong (0).

    Clips are drawn anew, in pairs. Returns the difference (a minus b), its percentile interval
    low..high, and p of the exact `sign_test` on clips won and lost. Equal clips give no interval:
    the limits are NaN.
    This is the noise of the test clips alone, not that of seeds (`seed_clip_interval` has both).
    With few clips the interval is too narrow: of 20 clips, 5 lost and none won, it leaves out zero,
    where the exact p is 0.0625.
    """
    gain = np.asarray(right_a, float) - np.asarray(right_b, float)
    if gain.ndim != 1 or not len(gain):
        raise ValueError(
            f"right_a and right_b must be [clips] with one clip at least, not {list(gain.shape)}"
        )
    low = high = np.nan
    if np.ptp(gain) > 0:
        means = _bootstrap_means(gain, draws, seed)
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    p = sign_test((gain > 0).sum(), (gain < 0).sum())
    return {"difference": float(gain.mean()), "low": float(low), "high": float(high), "p": p}


def _bootstrap_means(values: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """[draws] means of as many values as there are, drawn from them with replacement.

    A mean depends only on how often each value is drawn. These counts are multinomial, and faster
    to draw than indices, which scipy.stats.bootstrap draws.
    """
    different, counts = np.unique(values, return_counts=True)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(values), counts / len(values), draws)
    return drawn @ different / len(values)


def sign_test(won, lost) -> float:
    """Exact two-sided p of `won` against `lost` pairs; ties do not count. 1 if there are only ties.

    On test clips that one of two methods alone is right about, this is McNemar's exact test. On
    datasets it is the sign test.
    """
    won, lost = int(won), int(lost)
    if won + lost == 0:
        return 1.0
    return float(stats.binomtest(won, won + lost).pvalue)


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
    won = int((a > b).sum())
    lost = int((a < b).sum())
    return {
        "won": won,
        "lost": lost,
        "difference": (won - lost) / len(a),
        "p": sign_test(won, lost),
        "clips": len(a),
    }


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

    "higher" or "lower": it leaves out zero.
    "equal within 0.03": it has zero, and lies within ± margin. This is the interval's form of
    `equivalence_test`, and stricter at the same level.
    "not shown": neither a difference nor that there is none.
    """
    if low > 0:
        return "higher"
    if high < 0:
        return "lower"
    if -margin < low and high < margin:
        return f"equal within {margin:g}"
    return "not shown"


def holm(p) -> np.ndarray:
    """Holm's adjustment of [m] p-values of one family of comparisons (scipy has none).

        adjusted p_i = max over j <= i of min(1, (m - j + 1) p_j),   p_1 <= p_2 <= ... <= p_m

    A p that is NaN stays NaN, and counts as a comparison.
    """
    p = np.asarray(p, float)
    order = np.argsort(p)
    factors = np.arange(len(p), 0, -1)  # m, m - 1, ..., 1
    stepped_down = np.maximum.accumulate(p[order] * factors)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, stepped_down)
    return adjusted


def rank_biserial(difference) -> float:
    """Matched-pairs rank-biserial correlation of [n] differences (Kerby 2014).

        (sum of positive ranks - sum of negative ranks) / sum of all ranks

    1: all are positive. Zeros are left out, as in the signed-rank test. NaN if all are zero.
    """
    difference = np.round(np.asarray(difference, float), DIGITS)
    difference = difference[difference != 0]
    if not len(difference):
        return np.nan
    ranks = stats.rankdata(np.abs(difference))
    return float((ranks * np.sign(difference)).sum() / ranks.sum())


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
        lines[method] = _paired_statistics(gain)
    table = pd.DataFrame.from_dict(lines, orient="index").rename_axis("method")
    behind_p = list(table).index("p") + 1
    table.insert(behind_p, "p_holm", holm(table["p"]))
    return table.astype(dict.fromkeys(("wins", "ties", "losses", "n"), int))


def _paired_statistics(gain: pd.Series) -> dict[str, float]:
    """Of [datasets] rounded differences to one method: the columns of `compare_paired`."""
    return {
        "difference": gain.mean(),
        "wins": (gain > 0).sum(),
        "ties": (gain == 0).sum(),
        "losses": (gain < 0).sum(),
        "p": stats.wilcoxon(gain[gain != 0]).pvalue,
        "rank_biserial": rank_biserial(gain),
        "cohens_dz": cohens_dz(gain),
        "n": len(gain),
    }


def mean_ranks(scores: pd.DataFrame) -> pd.Series:
    """Mean rank of each method over `scores` [datasets, methods]: 1 is best, ties share."""
    return scores.round(DIGITS).rank(axis=1, ascending=False).mean()


def friedman(scores: pd.DataFrame) -> tuple[float, float]:
    """Friedman's chi-squared over `scores` [datasets, 3 methods or more], and its p."""
    found = stats.friedmanchisquare(*scores.round(DIGITS).to_numpy().T)
    return float(found.statistic), float(found.pvalue)


def critical_difference(methods: int, datasets: int, level: float = LEVEL) -> float:
    """Nemenyi's critical difference: mean ranks closer than this do not differ.

        q sqrt(methods (methods + 1) / (6 datasets))

    q: quantile of the studentized range, over sqrt(2).
    """
    q = stats.studentized_range.ppf(level, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * datasets)))


def group_ranks(ranks: pd.Series, difference: float) -> list[tuple[str, str]]:
    """The groups of methods that do not differ, as (first, last) of each. None is inside another.

    ranks: mean ranks by method, in ascending order. A group goes from one method to the last one
    that is no more than `difference` behind it.
    """
    groups = []
    last_ones = []
    for first, rank in ranks.items():
        near = ranks[ranks <= rank + difference]
        last = near.index[-1]
        if first != last and last not in last_ones:
            groups.append((first, last))
        last_ones.append(last)
    return groups
