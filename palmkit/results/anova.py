"""Variance components of a balanced table with crossed factors, by an analysis of variance."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

FACTORS = ("model", "method", "dataset", "draw")
# A draw of the support set belongs to its dataset: seed 0 of one has nothing of seed 0 of another.
NESTED = {"draw": "dataset"}


def crossed_components(cells: pd.DataFrame) -> pd.DataFrame:
    """Variance of accuracy by model, method, dataset, draw and their interactions, in points.

    cells: accuracies, [model, dataset and seed; methods], none missing.
    Every factor is taken as random; the draw is nested in the dataset. The estimates are those of
    the mean squares, so one may be negative, which means about 0. The last line, of all factors
    together, is the residual.

    Indexed by term ("model x method"): freedom, variance (points squared), std (points, 0 for a
    negative one), share (of the sum of the positive ones).
    """
    frame = cells.rename_axis(columns="method").stack().rename("value").reset_index()
    frame = frame.rename(columns={"seed": "draw"})
    sizes = frame[[*FACTORS]].nunique()
    squares = sums_of_squares(frame)
    terms = sorted(squares, key=_place)
    freedoms = _freedoms(terms, sizes)
    mean_squares = [squares[term] / freedoms[term] for term in terms]
    variance = 1e4 * np.linalg.solve(expected_counts(terms, sizes), mean_squares)
    labels = [" x ".join(_names(term)) for term in terms]
    table = pd.DataFrame({"freedom": [*freedoms.values()], "variance": variance}, labels)
    positive = table["variance"].clip(lower=0)
    return table.assign(std=positive**0.5, share=positive / positive.sum())


def sums_of_squares(frame: pd.DataFrame) -> dict[frozenset, float]:
    """Of each term. The term of a nested factor has its dataset, and so the sums of both."""
    squares: dict[frozenset, float] = {}
    for names in _subsets(FACTORS):
        term = _closed(names)
        squares[term] = squares.get(term, 0.0) + _sum_of_squares(frame, names)
    return squares


def expected_counts(terms: list[frozenset], sizes: pd.Series) -> np.ndarray:
    """[terms, terms] how often the variance of a term is in the expected mean square of another.

    It is there if it contains the other, as often as a level of it has values.
    """
    counts = np.zeros((len(terms), len(terms)))
    for row, term in enumerate(terms):
        for column, other in enumerate(terms):
            if term <= other:
                counts[row, column] = sizes.drop([*other]).prod()
    return counts


def _subsets(names) -> list[tuple[str, ...]]:
    """All subsets but the empty one, small ones first."""
    sizes = range(1, len(names) + 1)
    return [subset for size in sizes for subset in itertools.combinations(names, size)]


def _closed(names: tuple[str, ...]) -> frozenset:
    """A term with the factors that its own are nested in."""
    return frozenset(names) | {NESTED[name] for name in names if name in NESTED}


def _freedoms(terms: list[frozenset], sizes: pd.Series) -> dict[frozenset, int]:
    """Degrees of freedom of each term."""
    freedoms = dict.fromkeys(terms, 0)
    for names in _subsets(FACTORS):
        freedoms[_closed(names)] += int(np.prod(sizes[[*names]] - 1))
    return freedoms


def _names(term: frozenset) -> list[str]:
    """The names of a term, without the dataset that a draw is nested in."""
    hidden = {NESTED[name] for name in term if name in NESTED}
    return [name for name in FACTORS if name in term and name not in hidden]


def _place(term: frozenset) -> tuple:
    """Terms of few factors come first, then in the order of the factors."""
    names = _names(term)
    return len(names), [FACTORS.index(name) for name in names]


def _sum_of_squares(frame: pd.DataFrame, names: tuple[str, ...]) -> float:
    """Of an interaction in a balanced table: means minus all that smaller terms explain."""
    effect = np.full(len(frame), (-1) ** len(names) * frame["value"].mean())
    for inner in _subsets(names):
        means = frame.groupby([*inner])["value"].transform("mean").to_numpy()
        effect += (-1) ** (len(names) - len(inner)) * means
    return float((effect**2).sum())
