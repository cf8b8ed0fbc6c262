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


def share_explained(frame: pd.DataFrame, by: Sequence[str], value: str) -> float:
    """R2: the sum of squares of the means of the groups, over that of all values."""
    values = frame[value]
    means = frame.groupby([*by])[value].transform("mean")
    center = values.mean()
    return float(((means - center) ** 2).sum() / ((values - center) ** 2).sum())


def shuffled_shares(
    frame: pd.DataFrame, by: Sequence[str], value: str, within: Sequence[str], draws=1000, seed=0
) -> np.ndarray:
    """[draws]: `share_explained` after the values were shuffled within the groups of `within`."""
    generator = np.random.default_rng(seed)
    blocks = [*frame.groupby([*within]).indices.values()]
    group = frame.groupby([*by]).ngroup().to_numpy()
    counts = np.bincount(group)
    values = frame[value].to_numpy(float) - frame[value].mean()
    shares = np.empty(draws)
    for draw in range(draws):
        for block in blocks:
            values[block] = generator.permutation(values[block])
        means = np.bincount(group, values) / counts
        shares[draw] = (counts * means**2).sum() / (values**2).sum()
    return shares


def intraclass_correlation(table, groups=None, level: float = LEVEL) -> dict[str, float]:
    """Correlation of two repeats of the same row, with the interval of Shrout and Fleiss (1979).

    table: [rows, repeats], two or more of each; their ICC(1, 1). groups: [rows] labels; then
    rows are compared within their group, with one variance for all groups. Returns icc, low, high
    and p (F test of no correlation). Values must be about normal. Raises ValueError for too few.
    """
    table = np.asarray(table, float)
    groups = np.zeros(len(table)) if groups is None else np.asarray(groups)
    rows, repeats = table.shape
    free = rows - len(np.unique(groups))
    if repeats < 2 or free < 1:
        raise ValueError(f"{rows} rows of {repeats} repeats have no intraclass correlation")
    means = table.mean(1)
    _, group = np.unique(groups, return_inverse=True)
    between = means - (np.bincount(group, means) / np.bincount(group))[group]
    freedom = free, rows * (repeats - 1)
    within = ((table - table.mean(1, keepdims=True)) ** 2).sum() / freedom[1]
    ratio = repeats * (between**2).sum() / free / within
    tail = (1 - level) / 2
    limits = ratio / stats.f.ppf(1 - tail, *freedom), ratio / stats.f.ppf(tail, *freedom)
    icc, low, high = ((f - 1) / (f + repeats - 1) for f in (ratio, *limits))
    p = stats.f.sf(ratio, *freedom)
    return {"icc": float(icc), "low": float(low), "high": float(high), "p": float(p)}


def variance_components(
    frame: pd.DataFrame, value: str, factors: Mapping[str, Sequence[str]]
) -> pd.Series:
    """Variance of `value` by factor, and the residual: random effects, estimated by REML.

    factors: {name: columns whose combinations are its levels}, such as
    {"class": ["dataset", "class_name"]}. With balanced data these are the estimates of an analysis
    of variance, where none of those is negative. Here none is.
    """
    y = frame[value].to_numpy(float)
    parts = [np.eye(len(y))]
    for columns in factors.values():
        level = frame.groupby([*columns]).ngroup().to_numpy()
        parts.append((level[:, None] == level).astype(float))
    scale = y.var()
    start = np.full(len(parts), 1 / len(parts))
    bounds = [(1e-6, None)] + [(0, None)] * len(factors)
    found = optimize.minimize(
        _restricted_likelihood, start, (y / np.sqrt(scale), parts), jac=True, bounds=bounds
    )
    names = [RESIDUAL, *factors]
    components = pd.Series(found.x * scale, names, name="variance")
    return components[[*factors, RESIDUAL]]


def _restricted_likelihood(theta, y, parts) -> tuple[float, np.ndarray]:
    """Minus twice the restricted log likelihood of a common mean, and its gradient in theta."""
    inverse = np.linalg.inv(np.tensordot(theta, parts, 1))
    weights = inverse.sum(1)
    projection = inverse - np.outer(weights, weights) / weights.sum()
    residual = projection @ y
    value = -np.linalg.slogdet(inverse)[1] + np.log(weights.sum()) + y @ residual
    slopes = [(projection * part).sum() - residual @ part @ residual for part in parts]
    return float(value), np.array(slopes)
