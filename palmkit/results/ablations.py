"""Analysis of studies: variants against the default, and the sweep of shots, start and rate.

Accuracies are fractions, so changes of them are fractions too.
"""

from __future__ import annotations

import pandas as pd

from palmkit.experiments.sweeps import SHOTS, STARTS
from palmkit.extras import extra
from palmkit.results.method_style import method_label
from palmkit.results.statistics import (
    DIFFERENCE,
    describe_difference,
    seed_interval,
)

with extra("report"):
    import matplotlib.pyplot as plt

CURVE = ["method", "start", "lr"]  # what a curve over shots belongs to


def seed_means(
    rows: pd.DataFrame,
    by: list[str],
    metric: str = "accuracy",
) -> pd.DataFrame:
    """Mean over folds, then over datasets: one line for each of `by` and seed.

    A dataset counts the same with one fold as with five.
    """
    folds = rows.groupby([*by, "seed", "dataset"], sort=False)
    of_dataset = folds[metric].mean()
    datasets = of_dataset.groupby([*by, "seed"], sort=False)
    return datasets.mean().reset_index()


def _summarize_seeds(
    rows: pd.DataFrame,
    metric: str,
) -> tuple[float, float, float, int]:
    """Mean, low, high (of `seed_interval`) and the number of seeds.

    metric: a column of differences of accuracies.
    """
    seeds = seed_means(rows, [], metric)
    mean, low, high = seed_interval(seeds[metric], bounds=DIFFERENCE)
    return mean, low, high, len(seeds)


def compare_variants(
    rows: pd.DataFrame,
    default: str,
    margin: float,
) -> pd.DataFrame:
    """Each variant against the default one, in pairs of equal dataset, fold and seed.

    rows: with columns variant, dataset, fold, seed, accuracy; the same trials of every variant.
    Columns: accuracy, change (variant minus default), low, high (Student's interval over seeds,
    95 percent, of the mean over datasets), verdict (`describe_difference` with this margin), seeds.
    Raises ValueError if a variant lacks a trial of the default.
    """
    accuracies = _accuracies_by_variant(rows)
    lines = {}
    for variant in rows["variant"].unique():
        own = accuracies[variant]
        change = own - accuracies[default]
        trials = change.rename("change").reset_index()
        mean, low, high, seeds = _summarize_seeds(trials, "change")
        of_datasets = own.groupby("dataset").mean()
        lines[variant] = {
            "accuracy": of_datasets.mean(),
            "change": mean,
            "low": low,
            "high": high,
            "verdict": describe_difference(low, high, margin),
            "seeds": seeds,
        }
    table = pd.DataFrame(lines.values(), index=[*lines])
    table.loc[default, "verdict"] = "default"
    return table.rename_axis("variant")


def _accuracies_by_variant(rows: pd.DataFrame) -> pd.DataFrame:
    """[trials, variants], indexed by dataset, fold and seed; fold is 0 for a single split."""
    rows = rows.assign(fold=rows["fold"].fillna(0))
    trials = rows.set_index(["variant", "dataset", "fold", "seed"])
    table = trials["accuracy"].unstack("variant")
    incomplete = table.isna().any()
    if incomplete.any():
        missing = [*table.columns[incomplete]]
        raise ValueError(f"not every variant has every dataset, fold and seed: {missing}")
    return table


def add_gain(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of learned methods with `gain`: accuracy minus zero-shot's on the same test clips."""
    keys = ["dataset", "fold"]
    table = table.assign(fold=table["fold"].fillna(0))
    is_zero_shot = table["method"] == "zeroshot"
    zero_shot = table[is_zero_shot].set_index(keys)
    learned = table[~is_zero_shot]
    test_clips = learned.set_index(keys).index
    before = test_clips.map(zero_shot["accuracy"])
    return learned.assign(gain=learned["accuracy"] - before)


def gain_curves(table: pd.DataFrame) -> pd.DataFrame:
    """Mean gain over zero-shot with Student's interval over seeds, by CURVE and shots.

    table: of `add_gain`. Columns: mean, low, high, seeds, datasets.
    """
    point = [*CURVE, "shots"]
    lines = {}
    for key, part in table.groupby(point):
        summary = _summarize_seeds(part, "gain")
        lines[key] = (*summary, part["dataset"].nunique())
    columns = ["mean", "low", "high", "seeds", "datasets"]
    index = pd.MultiIndex.from_tuples(lines, names=point)
    return pd.DataFrame(lines.values(), index, columns)


def fewest_shots(curves: pd.DataFrame) -> pd.Series:
    """Of each curve: the smallest number of shots from which on its mean is above zero.

    curves: of `gain_curves`. NA for a curve that ends at zero or below.
    """
    found = {}
    for key, part in curves.groupby(CURVE):
        means = part["mean"].droplevel(CURVE)
        found[key] = _start_of_gain(means)
    index = pd.MultiIndex.from_tuples(found, names=CURVE)
    return pd.Series(list(found.values()), index, "Int64")


def _start_of_gain(means: pd.Series):
    """The smallest number of shots from which on all means are above zero, or NA.

    means: of one curve, indexed by shots.
    """
    fewest = pd.NA
    falling = means.sort_index(ascending=False)
    for shots, mean in falling.items():
        if not mean > 0:
            break
        fewest = shots
    return fewest


def rates_chosen_elsewhere(
    table: pd.DataFrame,
    shots: int,
    start: str,
) -> pd.DataFrame:
    """Accuracy of each method at the rate that is best on the *other* datasets.

    So no rate is chosen on the data that it is reported on. table: of `add_gain`, with two datasets
    or more. One line for each method, dataset and seed: lr (the chosen rate), accuracy.
    """
    of_shots = table["shots"] == shots
    of_start = table["start"] == start
    rows = table[of_shots & of_start]
    trials = rows.groupby(["method", "dataset", "lr"])
    means = trials["accuracy"].mean()
    means = means.unstack("dataset")
    chosen = []
    for dataset in means.columns:
        others = means.drop(columns=dataset)
        if others.empty:  # one dataset: there is no other
            continue
        own = rows[rows["dataset"] == dataset]
        by_rate = others.mean(axis=1)
        for method, scores in by_rate.groupby("method"):
            _, lr = scores.idxmax()
            chosen.append(_accuracies_at_rate(own, method, lr))
    columns = ["method", "dataset", "seed", "lr", "accuracy"]
    if not chosen:
        return pd.DataFrame(columns=columns)
    return pd.concat(chosen)[columns]


def _accuracies_at_rate(
    rows: pd.DataFrame,
    method: str,
    lr: float,
) -> pd.DataFrame:
    """Means over folds of one method at one rate: method, dataset, seed, accuracy, lr."""
    of_method = rows["method"] == method
    of_rate = rows["lr"] == lr
    part = rows[of_method & of_rate]
    folds = part.groupby(["method", "dataset", "seed"])
    means = folds["accuracy"].mean().reset_index()
    return means.assign(lr=lr)


def lead_over(
    scores: pd.DataFrame,
    method: str = "palm",
) -> pd.DataFrame:
    """How far a method is ahead of each other one, in pairs of equal dataset and seed.

    scores: columns method, dataset, seed, accuracy. Columns: lead (mean over datasets, then over
    seeds), low, high (Student's interval over seeds), seeds, datasets.
    """
    wide = scores.pivot_table("accuracy", ["dataset", "seed"], "method")
    others = wide.columns.drop(method) if method in wide else []
    lines = {}
    for other in others:
        lead = wide[method] - wide[other]
        lead = lead.dropna().rename("lead").reset_index()
        summary = _summarize_seeds(lead, "lead")
        lines[other] = (*summary, lead["dataset"].nunique())
    columns = ["lead", "low", "high", "seeds", "datasets"]
    table = pd.DataFrame.from_dict(lines, orient="index", columns=columns)
    return table.rename_axis("method")


def plot_sweep(curves: pd.DataFrame, axes) -> None:
    """Mean gains over shots, in points: a row of axes for each method, a column for each start.

    curves: of `gain_curves`. axes: [3, 3], those of STARTS. Each rate has a colour; the legend is
    the figure's, above the axes. A method has no curve in a column of a start it does not have.
    """
    panels = _name_panels(axes)
    colors = _rate_colors(curves)
    drawn = {}  # a line of each rate, for the legend
    for (method, start, lr), part in curves.groupby(CURVE):
        ax = panels[method, start]
        drawn[lr] = _plot_curve(part, ax, lr, colors[lr])
    for (method, start), ax in panels.items():
        _format_panel(ax, method, start)
    figure = axes.flat[0].figure
    figure.legend(
        handles=[drawn[lr] for lr in colors],
        loc="outside upper center",
        ncols=4,
        frameon=False,
    )
    figure.supxlabel("clips a class")
    figure.supylabel("gain over zero-shot (points)")


def _name_panels(axes) -> dict:
    """{(method, start): axes}. PALM has every start."""
    panels = {}
    for method, row in zip(STARTS, axes, strict=True):
        for start, ax in zip(STARTS["palm"], row, strict=True):
            panels[method, start] = ax
    return panels


def _rate_colors(curves: pd.DataFrame) -> dict:
    """{rate: colour}, from the smallest rate, which is dark, to the largest."""
    rates = sorted(curves.index.unique("lr"))
    steps = max(len(rates) - 1, 1)
    color_map = plt.get_cmap("viridis")
    colors = {}
    for number, rate in enumerate(rates):
        colors[rate] = color_map(0.9 * number / steps)
    return colors


def _plot_curve(curve: pd.DataFrame, ax, lr: float, color):
    """One curve of `gain_curves` over shots; returns its line."""
    points = 100 * curve["mean"].droplevel(CURVE)
    (line,) = ax.plot(
        points.index,
        points,
        "o-",
        color=color,
        markersize=3,
        label=f"rate {lr:g}",
    )
    return line


def _format_panel(ax, method: str, start: str) -> None:
    """Zero line, title and ticks of an axes; hides one whose method lacks the start."""
    if start not in STARTS[method]:
        ax.set_visible(False)
        return
    ax.axhline(0, color="0.6", linewidth=0.8)
    title = f"{method_label(method)}, from {start}"
    ax.set(xscale="log", title=title)
    ax.set_xticks(SHOTS, map(str, SHOTS))
    ax.minorticks_off()


def as_points(change: float) -> str:
    """A change of accuracy in points with one digit and a sign: 0.1234 -> "+12.3"."""
    points = round(100 * change, 1)
    points += 0.0  # makes 0.0 of -0.0
    return f"{points:+.1f}"
