"""The same trials on several models: what is due to the model, and what to the method.

The table has a line for each trial, see COLUMNS; tools/make_two_models.py writes it.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats

from palmkit import METHODS, draw_shots, embed, fit, load_dataset, predict
from palmkit.results.loading import load_rows
from palmkit.results.method_style import learns, method_categories, method_label
from palmkit.results.statistics import DIFFERENCE, DIGITS, seed_interval
from palmkit.training import TrainingDiverged

COLUMNS = (
    *("model", "dataset", "fold", "seed", "method", "lr", "scale", "accuracy"),
    *("held_out", "lambdas", "weights"),
)
SEED1 = "mini-PENGI, training seed 1"  # not shipped
DIGEST = 10  # characters of a model's digest
PAPER_RATE = 0.05
FOLDS = 4  # of the support set, of 16 clips a class: 12 to learn from, 4 left out


def make_table(run, models: dict, held_out: dict[str, float]) -> pd.DataFrame:
    """COLUMNS of the rows of a run. models: by the name that the table shows.

    scale: of the logits, NaN for the model's own. held_out: accuracy on clips left out of the
    support set, of PALM. lambdas: those of PALM in the order of the classes, "0.61 0.48".
    """
    names = {model.digest(): name for name, model in models.items()}
    rows = load_rows(run, details=True)
    rows = rows[rows["weights"].isin(names)]
    table = rows.assign(
        model=rows["weights"].map(names),
        scale=rows["options"].map(lambda options: options.get("scale", np.nan)),
        weights=rows["weights"].str[:DIGEST],
        lambdas=[_as_text(row) for row in rows.to_dict("records")],
    )
    keys = [trial_key(*cell) for cell in zip(
        table["weights"], table["dataset"], table["seed"], table["lr"], strict=True
    )]  # fmt: skip
    is_palm = (table["method"] == "palm") & table["scale"].isna()
    table["held_out"] = [held_out.get(key, np.nan) for key in keys]
    table["held_out"] = table["held_out"].where(is_palm)
    order = ["method", "scale", "lr", "dataset", "seed"]
    table["place"] = table["model"].map({name: n for n, name in enumerate(models)})
    table = table.sort_values(["place", *order], ignore_index=True)[list(COLUMNS)]
    return table.round({"accuracy": 6, "held_out": 6})


def _as_text(row: dict) -> str:
    values = row.get("lambdas") if row["method"] == "palm" else None
    return " ".join(f"{value:.4f}" for value in values) if isinstance(values, list) else ""


def trial_key(digest: str, dataset: str, seed: int, lr: float) -> str:
    return f"{digest} {Path(dataset).name} {seed} {lr:g}"


def read_table(path: Path) -> pd.DataFrame:
    """The table that tools/make_two_models.py wrote."""
    return pd.read_csv(path, comment="#").astype({"lambdas": object}).fillna({"lambdas": ""})


def held_out_accuracy(model, trial) -> float:
    """Accuracy of PALM on clips that are left out of the support set. No test clip is used.

    The clips of each class are dealt to FOLDS folds in the order of the draw. 0 where the training
    diverged.
    """
    data = load_dataset(trial.dataset, trial.fold)
    support = embed(model, draw_shots(data.train, trial.shots, trial.seed))
    return score_left_out(model, data.class_names, support, trial.seed, lr=trial.lr)


def score_left_out(model, class_names, support, seed: int, **settings) -> float:
    """The same for a support set that is embedded. settings: of `fit`."""
    labels = support.labels
    rank = torch.zeros_like(labels)
    for label in labels.unique():
        rank[labels == label] = torch.arange(int((labels == label).sum()))
    right = 0
    for fold in range(FOLDS):
        out = rank % FOLDS == fold
        method = METHODS["palm"](model, class_names, seed=seed)
        try:
            fit(method, support.features[~out], labels[~out], seed=seed, **settings)
        except TrainingDiverged:
            continue
        guess = predict(method, support.features[out]).argmax(1)
        right += int((guess == labels[out].to(guess.device)).sum())
    return right / len(labels)


# Parts of the table.


def paper_settings(table: pd.DataFrame) -> pd.DataFrame:
    """The trials at the paper's rate with the model's own scale."""
    return table[(table["lr"] == PAPER_RATE) & table["scale"].isna()]


def score_cells(table: pd.DataFrame) -> pd.DataFrame:
    """[model, dataset and seed; methods] accuracies, `paper_settings` only.

    Methods that learn nothing are repeated for every seed. Raises ValueError if a cell is missing.
    """
    part = paper_settings(table)
    learned = learns(part["method"])
    seeds = part.loc[learned, ["seed"]].drop_duplicates()
    once = part[~learned].drop(columns="seed").merge(seeds, how="cross")
    index = ["model", "dataset", "seed"]
    cells = pd.concat([part[learned], once]).pivot(index=index, columns="method", values="accuracy")
    if cells.isna().any(axis=None):
        gap = cells.stack(future_stack=True)
        raise ValueError(f"there is no trial of {gap.index[gap.isna()][0]}")
    order = [*dict.fromkeys(part["model"])]
    return cells.loc[order, method_categories(cells.columns)]


def method_means(cells: pd.DataFrame) -> pd.DataFrame:
    """[methods, models] means over datasets and seeds."""
    return cells.groupby(level="model", sort=False).mean().T


def wording_accuracies(figures: dict[str, pd.DataFrame], datasets) -> pd.DataFrame:
    """[prompts; model and dataset] zero-shot accuracy, the mean over folds.

    figures: figures.csv of each model, of its shipped training seed.
    """
    part = pd.concat(figures, names=["model"]).reset_index("model")
    part = part[(part["kind"] == "wording") & part["dataset"].isin(datasets)]
    keys = ["method", "model", "dataset"]
    return part.groupby(keys)["accuracy"].mean().unstack(["model", "dataset"])


# The order of the methods.


def rank_agreement(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """Kendall's tau (b) of the methods' order in two parts of `score_cells`.

    one, other: [dataset and seed; methods], with the same methods and datasets. tau: of the means
    over datasets and seeds. within: mean over datasets of the tau on one dataset (means over
    seeds), with the limits of Student's interval over datasets, low and high.
    """
    means = [part.groupby(level="dataset", sort=False).mean() for part in (one, other)]
    taus = [kendall(means[0].loc[name], means[1].loc[name]) for name in means[0].index]
    within, low, high = seed_interval(taus, bounds=DIFFERENCE)
    tau = kendall(*(part.mean() for part in means))
    return {"tau": tau, "within": within, "low": low, "high": high}


def kendall(a, b) -> float:
    """Tau (b) of two lists of accuracies. Means of the same numbers are a tie."""
    tau = stats.kendalltau(np.round(a, DIGITS), np.round(b, DIGITS)).statistic
    return round(float(tau), DIGITS)


def tau_table(cells: pd.DataFrame) -> pd.DataFrame:
    """Agreement within each model and between models, over other draws: tau of each pair of seeds.

    A pair of different seeds has other support sets, so a model does not agree with itself either.
    Indexed by (model, model); columns `tau` (mean over pairs), `least`, `most`, and `pairs`.
    """
    means = cells.groupby(level=["model", "seed"], sort=False).mean()
    models, lines = [*means.index.unique("model")], {}
    for a, b in itertools.combinations_with_replacement(models, 2):
        one, other = means.loc[a], means.loc[b]
        pairs = [(s, t) for s in one.index for t in other.index if s != t and (a != b or s < t)]
        taus = [kendall(one.loc[s], other.loc[t]) for s, t in pairs]
        lines[a, b] = {"tau": np.mean(taus), "least": min(taus), "most": max(taus),
                       "pairs": len(taus)}  # fmt: skip
    return pd.DataFrame(lines).T.astype({"pairs": int})


# Variance.

# A draw of the support set belongs to its dataset: seed 0 of one has nothing of seed 0 of another.
NESTED = {"draw": "dataset"}


def crossed_components(cells: pd.DataFrame) -> pd.DataFrame:
    """Variance of accuracy by model, method, dataset, draw and their interactions, in points.

    An analysis of variance of the balanced table of `score_cells`, with every factor taken as
    random; the draw is nested in the dataset. The estimates are those of the mean squares, so one
    may be negative, which means about 0. The last line, of all factors together, is the residual.

    Indexed by term ("model x method"): freedom, variance (points squared), std (points, 0 for a
    negative one), share (of the sum of the positive ones).
    """
    frame = cells.rename_axis(columns="method").stack().rename("value").reset_index()
    frame = frame.rename(columns={"seed": "draw"})
    factors = ["model", "method", "dataset", "draw"]
    sizes = frame[factors].nunique()
    squares: dict[frozenset, np.ndarray] = {}
    for size in range(1, len(factors) + 1):
        for term in itertools.combinations(factors, size):
            closed = frozenset(term) | {NESTED[name] for name in term if name in NESTED}
            found = np.array([_sum_of_squares(frame, term), np.prod(sizes[[*term]] - 1)])
            squares[closed] = squares.get(closed, 0) + found
    shown = {term: _shown(term, factors) for term in squares}
    places = {term: [factors.index(name) for name in names] for term, names in shown.items()}
    terms = sorted(squares, key=lambda term: (len(places[term]), places[term]))
    # Expected mean square of a term: each term that contains it, by how many values a level has.
    counts = [[sizes.drop([*other]).prod() if term <= other else 0 for other in terms]
              for term in terms]  # fmt: skip
    mean_squares = [squares[term][0] / squares[term][1] for term in terms]
    variance = 1e4 * np.linalg.solve(np.array(counts, float), np.array(mean_squares))
    names = [" x ".join(shown[term]) for term in terms]
    freedom = [int(squares[term][1]) for term in terms]
    table = pd.DataFrame({"freedom": freedom, "variance": variance}, names)
    table["std"] = table["variance"].clip(lower=0) ** 0.5
    table["share"] = table["variance"].clip(lower=0) / table["variance"].clip(lower=0).sum()
    return table


def _shown(term: frozenset, factors: list[str]) -> list[str]:
    """The names of a term, without the dataset that a draw is nested in."""
    hidden = {NESTED[name] for name in term if name in NESTED}
    return [name for name in factors if name in term and name not in hidden]


def _sum_of_squares(frame: pd.DataFrame, term: tuple[str, ...]) -> float:
    """Of an interaction in a balanced table: means minus all that smaller terms explain."""
    effect = np.zeros(len(frame))
    for size in range(len(term) + 1):
        for inner in itertools.combinations(term, size):
            means = frame.groupby([*inner])["value"].transform("mean") if inner else (
                frame["value"].mean())  # fmt: skip
            effect = effect + (-1) ** (len(term) - size) * np.asarray(means)
    return float((effect**2).sum())


# PALM's rate, scale and lambda.


def choose_rates(table: pd.DataFrame) -> pd.DataFrame:
    """PALM's trials at the rate with the highest accuracy on clips left out of the support set.

    One line for each model, dataset and seed. A tie goes to the rate nearest to the paper's.
    """
    part = table[(table["method"] == "palm") & table["scale"].isna() & table["held_out"].notna()]
    part = part.assign(distance=np.abs(np.log(part["lr"] / PAPER_RATE)))
    part = part.sort_values(["held_out", "distance"], ascending=[False, True], kind="stable")
    return part.drop_duplicates(["model", "dataset", "seed"]).drop(columns="distance").sort_index()


def rate_curves(table: pd.DataFrame) -> pd.DataFrame:
    """[model and rate] accuracy (test), held_out and lambda of PALM: means of all its trials."""
    part = table[(table["method"] == "palm") & table["scale"].isna()]
    means = [np.mean([float(value) for value in text.split()]) for text in part["lambdas"]]
    part = part.assign(**{"lambda": means})
    return part.groupby(["model", "lr"], sort=False)[["accuracy", "held_out", "lambda"]].mean()


def widest_rate(curves: pd.DataFrame, loss: float) -> pd.Series:
    """The largest rate of each model whose accuracy is within `loss` of its best."""
    accuracy = curves["accuracy"]
    near = accuracy >= accuracy.groupby(level="model").transform("max") - loss
    return near[near].reset_index().groupby("model", sort=False)["lr"].max()


def lambda_table(table: pd.DataFrame) -> pd.DataFrame:
    """[dataset, seed and class number; models] PALM's learned lambdas at the paper's settings."""
    part = paper_settings(table)
    part = part[part["method"] == "palm"]
    part = part.assign(value=part["lambdas"].map(lambda text: [float(x) for x in text.split()]))
    part = part[["model", "dataset", "seed", "value"]].explode("value")
    part["class"] = part.groupby(["model", "dataset", "seed"]).cumcount()
    wide = part.pivot(index=["dataset", "seed", "class"], columns="model", values="value")
    return wide[[*dict.fromkeys(part["model"])]].astype(float)


def lambda_correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of the classes' lambdas between two draws, of one model and of two.

    Means over pairs of different seeds, as in `tau_table`. "within datasets": after the mean lambda
    of the dataset was subtracted.
    """
    wide = lambda_table(table)
    centred = wide - wide.groupby(level=["dataset", "seed"]).transform("mean")
    lines = {}
    for a, b in itertools.combinations_with_replacement(wide.columns, 2):
        line = {}
        for name, values in {"all classes": wide, "within datasets": centred}.items():
            one, other = (values[model].unstack("seed") for model in (a, b))
            pairs = [(s, t) for s in one for t in other if s != t and (a != b or s < t)]
            line[name] = np.mean([one[s].corr(other[t], method="spearman") for s, t in pairs])
        lines[f"{a} / {b}"] = line
    return pd.DataFrame(lines).T


# Figures.

MODEL_COLORS = ("#0173b2", "#de8f05", "#949494")


def plot_methods(cells: pd.DataFrame, ax) -> None:
    """Accuracy of each method on each model, the best of the first model on top.

    Lines are intervals over seeds (95 percent) of the mean over datasets.
    """
    by_seed = cells.groupby(level=["model", "seed"], sort=False).mean()
    models = [*by_seed.index.unique("model")]
    order = by_seed.loc[models[0]].mean().sort_values(ascending=False).index
    for n, (model, color) in enumerate(zip(models, MODEL_COLORS, strict=False)):
        limits = np.array([seed_interval(values) for values in by_seed.loc[model][order].T.values])
        y = np.arange(len(order)) + 0.22 * (n - (len(models) - 1) / 2)
        ax.hlines(y, limits[:, 1], limits[:, 2], color=color, linewidth=1)
        ax.plot(limits[:, 0], y, "o", color=color, markersize=4, label=model)
    ax.set_yticks(np.arange(len(order)), [method_label(name) for name in order], fontsize=7.5)
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set(xlabel="accuracy, mean of the datasets")
    ax.legend(frameon=False, fontsize=8, loc="upper left")


def plot_rates(curves: pd.DataFrame, scales: dict[str, float], axes) -> None:
    """PALM by rate (first axes) and by rate x scale squared (the others).

    Accuracy on the first two, on test clips and (dotted) on clips left out of the support set;
    mean lambda on the third. curves: `rate_curves`. scales: the models' logit scales.
    """
    for model, color in zip(curves.index.unique("model"), MODEL_COLORS, strict=False):
        curve, marks = curves.loc[model], dict(color=color, markersize=4)
        square = scales[model] ** 2
        for ax, factor in zip(axes, (1, square), strict=False):
            ax.plot(curve.index * factor, curve["accuracy"], "o-", label=model, **marks)
            ax.plot(curve.index * factor, curve["held_out"], ":", color=color)
        axes[2].plot(curve.index * square, curve["lambda"], "o-", **marks)
    for ax, label in zip(axes, ("rate", "rate x scale²", "rate x scale²"), strict=True):
        ax.set_xscale("log")
        ax.set(xlabel=label, ylabel="accuracy of PALM")
    axes[2].set(ylabel="mean learned lambda")
    axes[0].legend(frameon=False, fontsize=7, loc="lower left")
