"""What a number varies with: variance components, intraclass correlation, a permutation.

A share of the sum of squares rises with the number of groups, whether or not the groups matter. So
it is compared with the share after shuffling; variance components have no such bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import optimize, stats

from palmkit.results.statistics import LEVEL

RESIDUAL = "residual"


def share_explained(
    frame: pd.DataFrame,
    by: Sequence[str],
    value: str,
) -> float:
    """R2: the sum of squares of the means of the groups, over that of all values."""
    values = frame[value]
    groups = frame.groupby([*by])
    means = groups[value].transform("mean")
    center = values.mean()
    between = ((means - center) ** 2).sum()
    total = ((values - center) ** 2).sum()
    return float(between / total)


def shuffled_shares(
    frame: pd.DataFrame,
    by: Sequence[str],
    value: str,
    within: Sequence[str],
    draws: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """[draws]: `share_explained` after the values were shuffled within the groups of `within`."""
    generator = np.random.default_rng(seed)
    blocks = frame.groupby([*within]).indices
    group = _group_numbers(frame, by)
    counts = np.bincount(group)
    values = frame[value].to_numpy(float)
    values = values - frame[value].mean()
    shares = np.empty(draws)
    for draw in range(draws):
        for block in blocks.values():
            values[block] = generator.permutation(values[block])
        means = np.bincount(group, values) / counts
        between = (counts * means**2).sum()
        shares[draw] = between / (values**2).sum()
    return shares


def _group_numbers(frame: pd.DataFrame, by: Sequence[str]) -> np.ndarray:
    """[lines of frame]: the number, from 0 on, of the group that a line belongs to."""
    return frame.groupby([*by]).ngroup().to_numpy()


def intraclass_correlation(
    table,
    groups=None,
    level: float = LEVEL,
) -> dict[str, float]:
    """Correlation of two repeats of the same row, with the interval of Shrout and Fleiss (1979).

    table: [rows, repeats], two or more of each; their ICC(1, 1). groups: [rows] labels; then
    rows are compared within their group, with one variance for all groups. Returns icc, low, high
    and p (F test of no correlation). Values must be about normal. Raises ValueError for too few.
    """
    table = np.asarray(table, float)
    if groups is None:
        groups = np.zeros(len(table))
    ratio, freedom = _mean_square_ratio(table, groups)
    repeats = table.shape[1]
    tail = (1 - level) / 2
    lowest = ratio / stats.f.ppf(1 - tail, *freedom)
    highest = ratio / stats.f.ppf(tail, *freedom)
    return {
        "icc": _correlation(ratio, repeats),
        "low": _correlation(lowest, repeats),
        "high": _correlation(highest, repeats),
        "p": float(stats.f.sf(ratio, *freedom)),
    }


def _mean_square_ratio(
    table: np.ndarray,
    groups,
) -> tuple[float, tuple[int, int]]:
    """F of rows within their group against repeats within their row; its degrees of freedom."""
    rows, repeats = table.shape
    labels, group = np.unique(groups, return_inverse=True)
    free = rows - len(labels)
    if repeats < 2 or free < 1:
        raise ValueError(f"{rows} rows of {repeats} repeats have no intraclass correlation")
    freedom = free, rows * (repeats - 1)
    means = table.mean(1)
    group_means = np.bincount(group, means) / np.bincount(group)
    between = means - group_means[group]
    within = table - means[:, None]
    between_square = repeats * (between**2).sum() / freedom[0]
    within_square = (within**2).sum() / freedom[1]
    return between_square / within_square, freedom


def _correlation(ratio: float, repeats: int) -> float:
    """ICC(1, 1) of a ratio of mean squares."""
    return float((ratio - 1) / (ratio + repeats - 1))


def variance_components(
    frame: pd.DataFrame,
    value: str,
    factors: Mapping[str, Sequence[str]],
) -> pd.Series:
    """Variance of `value` by factor, and the residual: random effects, estimated by REML.

    factors: {name: columns whose combinations are its levels}, such as
    {"class": ["dataset", "class_name"]}. With balanced data these are the estimates of an analysis
    of variance, where none of those is negative. Here none is.
    """
    y = frame[value].to_numpy(float)
    parts = [np.eye(len(y))]  # of the residual
    for columns in factors.values():
        level = _group_numbers(frame, columns)
        same_level = level[:, None] == level
        parts.append(same_level.astype(float))
    scale = y.var()
    standardized = y / np.sqrt(scale)
    start = np.full(len(parts), 1 / len(parts))
    bounds = [(1e-6, None)] + [(0, None)] * len(factors)
    found = optimize.minimize(
        _restricted_likelihood,
        start,
        args=(standardized, parts),
        jac=True,
        bounds=bounds,
    )
    names = [RESIDUAL, *factors]
    components = pd.Series(found.x * scale, names, name="variance")
    return components[[*factors, RESIDUAL]]


def _restricted_likelihood(theta, y, parts) -> tuple[float, np.ndarray]:
    """Minus twice the restricted log likelihood of a common mean, and its gradient in theta."""
    covariance = np.tensordot(theta, parts, 1)
    inverse = np.linalg.inv(covariance)
    weights = inverse.sum(1)
    total = weights.sum()
    projection = inverse - np.outer(weights, weights) / total
    residual = projection @ y
    _, log_determinant = np.linalg.slogdet(inverse)
    value = -log_determinant + np.log(total) + y @ residual
    slopes = []
    for part in parts:
        trace = (projection * part).sum()
        slopes.append(trace - residual @ part @ residual)
    return float(value), np.array(slopes)
