"""The same trials on several models: what is due to the model, and what to the method.

The table has a line for each trial, see COLUMNS; tools/make_two_models.py writes it.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from palmkit.results.method_style import learns, method_categories, method_label
from palmkit.results.statistics import DIFFERENCE, DIGITS, seed_interval

# scale: of the logits, NaN for the model's own. held_out: PALM's accuracy on clips that are left
# out of the support set. lambdas: PALM's, in the order of the classes, "0.61 0.48". weights: the
# beginning of the model's digest.
COLUMNS = (
    *("model", "dataset", "fold", "seed", "method", "lr", "scale", "accuracy"),
    *("held_out", "lambdas", "weights"),
)
DIGEST = 10  # characters of a model's digest
SEED1 = "mini-PENGI, training seed 1"  # not shipped
PAPER_RATE = 0.05
CELL = ["model", "dataset", "seed"]


# Parts of the table.


def read_table(path: Path) -> pd.DataFrame:
    """The table that tools/make_two_models.py wrote."""
    table = pd.read_csv(path, comment="#")
    return table.astype({"lambdas": object}).fillna({"lambdas": ""})


def paper_settings(table: pd.DataFrame) -> pd.DataFrame:
    """The trials at the paper's rate with the model's own scale."""
    return table[(table["lr"] == PAPER_RATE) & table["scale"].isna()]


def palm_trials(table: pd.DataFrame) -> pd.DataFrame:
    """PALM's trials with the model's own scale, at all rates."""
    return table[(table["method"] == "palm") & table["scale"].isna()]


def score_cells(table: pd.DataFrame) -> pd.DataFrame:
    """[model, dataset and seed; methods] accuracies, `paper_settings` only.

    Methods that learn nothing are repeated for every seed. Raises ValueError if a cell is missing.
    """
    part = paper_settings(table)
    learned = learns(part["method"])
    seeds = part.loc[learned, ["seed"]].drop_duplicates()
    unlearned = part[~learned].drop(columns="seed")
    rows = pd.concat([part[learned], unlearned.merge(seeds, how="cross")])
    cells = rows.pivot(index=CELL, columns="method", values="accuracy")
    if cells.isna().any(axis=None):
        scores = cells.stack(future_stack=True)
        missing = scores.index[scores.isna()]
        raise ValueError(f"there is no trial of {missing[0]}")
    models = [*dict.fromkeys(part["model"])]
    return cells.loc[models, method_categories(cells.columns)]


def method_means(cells: pd.DataFrame) -> pd.DataFrame:
    """[methods, models] means over datasets and seeds."""
    return cells.groupby(level="model", sort=False).mean().T


def seed_means(cells: pd.DataFrame) -> pd.DataFrame:
    """[model and seed; methods] means over datasets."""
    return cells.groupby(level=["model", "seed"], sort=False).mean()


def wording_accuracies(figures: dict[str, pd.DataFrame], datasets) -> pd.DataFrame:
    """[prompts; model and dataset] zero-shot accuracy, the mean over folds.

    figures: figures.csv of each model, of its shipped training seed.
    """
    rows = pd.concat(figures, names=["model"]).reset_index("model")
    rows = rows[rows["kind"] == "wording"]
    rows = rows[rows["dataset"].isin(datasets)]
    means = rows.groupby(["method", "model", "dataset"])["accuracy"].mean()
    return means.unstack(["model", "dataset"])


# The order of the methods.


def kendall(a, b) -> float:
    """Tau (b) of two lists of accuracies. Means of the same numbers are a tie."""
    found = stats.kendalltau(np.round(a, DIGITS), np.round(b, DIGITS))
    return round(float(found.statistic), DIGITS)


def rank_agreement(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """Kendall's tau (b) of the methods' order in two parts of `score_cells`.

    one, other: [dataset and seed; methods], with the same methods and datasets. tau: of the means
    over datasets and seeds. within: mean over datasets of the tau on one dataset (means over
    seeds), with the limits of Student's interval over datasets, low and high.
    """
    first = one.groupby(level="dataset", sort=False).mean()
    second = other.groupby(level="dataset", sort=False).mean()
    taus = [kendall(first.loc[name], second.loc[name]) for name in first.index]
    within, low, high = seed_interval(taus, bounds=DIFFERENCE)
    tau = kendall(one.mean(), other.mean())
    return {"tau": tau, "within": within, "low": low, "high": high}


def seed_pairs(one, other, same_model: bool) -> list[tuple]:
    """Pairs of different seeds of two models; each pair once if they are one model."""
    pairs = [(s, t) for s in one for t in other if s != t]
    return [(s, t) for s, t in pairs if s < t] if same_model else pairs


def tau_table(cells: pd.DataFrame) -> pd.DataFrame:
    """Agreement within each model and between models, over other draws: tau of each pair of seeds.

    A pair of different seeds has other support sets, so a model does not agree with itself either.
    Indexed by (model, model); columns `tau` (mean over pairs), `least`, `most`, and `pairs`.
    """
    means = seed_means(cells)
    models = means.index.unique("model")
    lines = {}
    for a, b in itertools.combinations_with_replacement(models, 2):
        one, other = means.loc[a], means.loc[b]
        pairs = seed_pairs(one.index, other.index, a == b)
        taus = [kendall(one.loc[s], other.loc[t]) for s, t in pairs]
        lines[a, b] = {
            "tau": np.mean(taus),
            "least": min(taus),
            "most": max(taus),
            "pairs": len(taus),
        }
    return pd.DataFrame(lines).T.astype({"pairs": int})


# PALM's rate and lambda.


def choose_rates(table: pd.DataFrame) -> pd.DataFrame:
    """PALM's trials at the rate with the highest accuracy on clips left out of the support set.

    One line for each model, dataset and seed. A tie goes to the rate nearest to the paper's.
    """
    trials = palm_trials(table).dropna(subset="held_out")
    distance = np.abs(np.log(trials["lr"] / PAPER_RATE))
    ranked = trials.assign(distance=distance).sort_values(
        ["held_out", "distance"], ascending=[False, True], kind="stable"
    )
    best = ranked.drop_duplicates(CELL)
    return best.drop(columns="distance").sort_index()


def parse_lambdas(text: str) -> list[float]:
    """The lambdas of a row of two_models.csv, one for each class, from numbers between spaces."""
    return [float(value) for value in text.split()]


def rate_curves(table: pd.DataFrame) -> pd.DataFrame:
    """[model and rate] accuracy (test), held_out and lambda of PALM: means of all its trials."""
    trials = palm_trials(table)
    means = [np.mean(parse_lambdas(text)) for text in trials["lambdas"]]
    trials = trials.assign(**{"lambda": means})
    groups = trials.groupby(["model", "lr"], sort=False)
    return groups[["accuracy", "held_out", "lambda"]].mean()


def widest_rate(curves: pd.DataFrame, loss: float) -> pd.Series:
    """The largest rate of each model whose accuracy is within `loss` of its best."""
    accuracy = curves["accuracy"]
    best = accuracy.groupby(level="model").transform("max")
    near = accuracy[accuracy >= best - loss].reset_index()
    return near.groupby("model", sort=False)["lr"].max()


def lambda_table(table: pd.DataFrame) -> pd.DataFrame:
    """[dataset, seed and class number; models] PALM's learned lambdas at the paper's settings."""
    trials = palm_trials(paper_settings(table))
    trials = trials[CELL].assign(value=trials["lambdas"].map(parse_lambdas))
    values = trials.explode("value")
    values["class"] = values.groupby(CELL).cumcount()
    wide = values.pivot(index=["dataset", "seed", "class"], columns="model", values="value")
    models = [*dict.fromkeys(values["model"])]
    return wide[models].astype(float)


def lambda_correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of the classes' lambdas between two draws, of one model and of two.

    Means over pairs of different seeds, as in `tau_table`. "within datasets": after the mean lambda
    of the dataset was subtracted.
    """
    wide = lambda_table(table)
    centred = wide - wide.groupby(level=["dataset", "seed"]).transform("mean")
    lines = {}
    for a, b in itertools.combinations_with_replacement(wide.columns, 2):
        lines[f"{a} / {b}"] = {
            "all classes": _mean_correlation(wide[a], wide[b]),
            "within datasets": _mean_correlation(centred[a], centred[b]),
        }
    return pd.DataFrame(lines).T


def _mean_correlation(a: pd.Series, b: pd.Series) -> float:
    """Mean rank correlation over pairs of seeds of two columns of `lambda_table`."""
    one, other = a.unstack("seed"), b.unstack("seed")
    pairs = seed_pairs(one, other, a.name == b.name)
    return np.mean([one[s].corr(other[t], method="spearman") for s, t in pairs])


# Figures.

MODEL_COLORS = ("#0173b2", "#de8f05", "#949494")
SPACING = 0.22  # between the models of one method


def plot_methods(cells: pd.DataFrame, ax) -> None:
    """Accuracy of each method on each model, the best of the first model on top.

    Lines are intervals over seeds (95 percent) of the mean over datasets.
    """
    means = seed_means(cells)
    models = means.index.unique("model")
    order = means.loc[models[0]].mean().sort_values(ascending=False).index
    rows = np.arange(len(order))
    for n, (model, color) in enumerate(zip(models, MODEL_COLORS, strict=False)):
        intervals = [seed_interval(means.loc[model][method].to_numpy()) for method in order]
        mean, low, high = np.array(intervals).T
        y = rows + SPACING * (n - (len(models) - 1) / 2)
        ax.hlines(y, low, high, color=color, linewidth=1)
        ax.plot(mean, y, "o", color=color, markersize=4, label=model)
    ax.set_yticks(rows, [method_label(name) for name in order], fontsize=7.5)
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set(xlabel="accuracy, mean of the datasets")
    ax.legend(frameon=False, fontsize=8, loc="upper left")


def plot_rates(curves: pd.DataFrame, scales: dict[str, float], axes) -> None:
    """PALM by rate (first axes) and by rate x scale squared (the others).

    Accuracy on the first two, on test clips and (dotted) on clips left out of the support set;
    mean lambda on the third. curves: `rate_curves`. scales: the models' logit scales.
    """
    by_rate, by_step, lambdas = axes
    models = curves.index.unique("model")
    for model, color in zip(models, MODEL_COLORS, strict=False):
        curve = curves.loc[model]
        step = curve.index * scales[model] ** 2
        for ax, x in ((by_rate, curve.index), (by_step, step)):
            ax.plot(x, curve["accuracy"], "o-", color=color, markersize=4, label=model)
            ax.plot(x, curve["held_out"], ":", color=color)
        lambdas.plot(step, curve["lambda"], "o-", color=color, markersize=4)
    for ax in axes:
        ax.set_xscale("log")
        ax.set(xlabel="rate x scale²", ylabel="accuracy of PALM")
    by_rate.set(xlabel="rate")
    lambdas.set(ylabel="mean learned lambda")
    by_rate.legend(frameon=False, fontsize=7, loc="lower left")
