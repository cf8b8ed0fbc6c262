"""Analysis of studies: variants against the default, and the sweep of shots, start and rate.

Accuracies are fractions, so changes of them are fractions too.
"""

from __future__ import annotations

import pandas as pd

from palmkit.experiments.sweeps import SHOTS, STARTS
from palmkit.extras import extra
from palmkit.results.method_style import method_label
from palmkit.results.statistics import DIFFERENCE, describe_difference, seed_interval

with extra("report"):
    import matplotlib.pyplot as plt

CURVE = ["method", "start", "lr"]  # what a curve over shots belongs to


def seed_means(rows: pd.DataFrame, by: list[str], metric: str = "accuracy") -> pd.DataFrame:
    """Mean over folds, then over datasets: one line for each of `by` and seed.

    A dataset counts the same with one fold as with five.
    """
    of_dataset = rows.groupby([*by, "seed", "dataset"], sort=False)[metric].mean()
    return of_dataset.groupby([*by, "seed"], sort=False).mean().reset_index()


def compare_variants(rows: pd.DataFrame, default: str, margin: float) -> pd.DataFrame:
    """Each variant against the default one, in pairs of equal dataset, fold and seed.

    rows: with columns variant, dataset, fold, seed, accuracy; the same trials of every variant.
    Columns: accuracy, change (variant minus default), low, high (Student's interval over seeds,
    95 percent, of the mean over datasets), verdict (`describe_difference` with this margin), seeds.
    Raises ValueError if a variant lacks a trial of the default.
    """
    keys = ["dataset", "fold", "seed"]
    cells = rows.assign(fold=rows["fold"].fillna(0)).set_index(["variant", *keys])["accuracy"]
    wide = cells.unstack("variant")
    if wide.isna().any(axis=None):
        missing = [*wide.columns[wide.isna().any()]]
        raise ValueError(f"not every variant has every dataset, fold and seed: {missing}")
    changes = wide.sub(wide[default], axis=0)
    lines = {}
    for variant in dict.fromkeys(rows["variant"]):
        frame = changes[variant].rename("change").reset_index()
        seeds = seed_means(frame, [], "change")["change"]
        mean, low, high = seed_interval(seeds, bounds=DIFFERENCE)
        verdict = describe_difference(low, high, margin)
        whole = wide[variant].groupby("dataset").mean().mean()
        lines[variant] = (whole, mean, low, high, verdict, len(seeds))
    columns = ["accuracy", "change", "low", "high", "verdict", "seeds"]
    table = pd.DataFrame.from_dict(lines, orient="index", columns=columns)
    table.loc[default, "verdict"] = "default"
    return table.rename_axis("variant")


def add_gain(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of learned methods with `gain`: accuracy minus zero-shot's on the same test clips."""
    keys = ["dataset", "fold"]
    table = table.assign(fold=table["fold"].fillna(0))
    zero_shot = table[table["method"] == "zeroshot"].set_index(keys)["accuracy"]
    learned = table[table["method"] != "zeroshot"]
    return learned.assign(gain=learned["accuracy"] - learned.set_index(keys).index.map(zero_shot))


def gain_curves(table: pd.DataFrame) -> pd.DataFrame:
    """Mean gain over zero-shot with Student's interval over seeds, by CURVE and shots.

    table: of `add_gain`. Columns: mean, low, high, seeds, datasets.
    """
    lines = {}
    for key, part in table.groupby([*CURVE, "shots"]):
        seeds = seed_means(part, [], "gain")["gain"]
        interval = seed_interval(seeds, bounds=DIFFERENCE)
        lines[key] = (*interval, len(seeds), part["dataset"].nunique())
    columns = ["mean", "low", "high", "seeds", "datasets"]
    index = pd.MultiIndex.from_tuples(lines, names=[*CURVE, "shots"])
    return pd.DataFrame(list(lines.values()), index, columns)


def fewest_shots(curves: pd.DataFrame) -> pd.Series:
    """Of each curve: the smallest number of shots from which on its mean is above zero.

    curves: of `gain_curves`. NA for a curve that ends at zero or below.
    """
    found = {}
    for key, part in curves.groupby(CURVE):
        means = part["mean"].droplevel(CURVE).sort_index()
        failing = means.index[~(means > 0)]
        better = means.index if failing.empty else means.index[means.index > failing[-1]]
        found[key] = better[0] if len(better) else pd.NA
    index = pd.MultiIndex.from_tuples(found, names=CURVE)
    return pd.Series(list(found.values()), index, "Int64")


def rates_chosen_elsewhere(table: pd.DataFrame, shots: int, start: str) -> pd.DataFrame:
    """Accuracy of each method at the rate that is best on the *other* datasets.

    So no rate is chosen on the data that it is reported on. table: of `add_gain`, with two datasets
    or more. One line for each method, dataset and seed: lr (the chosen rate), accuracy.
    """
    rows = table[(table["shots"] == shots) & (table["start"] == start)]
    means = rows.groupby(["method", "dataset", "lr"])["accuracy"].mean().unstack("dataset")
    chosen = []
    for dataset in means.columns if len(means.columns) > 1 else []:
        elsewhere = means.drop(columns=dataset).mean(axis=1)
        for method, scores in elsewhere.groupby("method"):
            lr = scores.idxmax()[1]
            own = rows[["method", "dataset", "lr"]].eq([method, dataset, lr]).all(axis=1)
            chosen.append(rows[own].groupby(["method", "dataset", "seed"])["accuracy"].mean())
            chosen[-1] = chosen[-1].reset_index().assign(lr=lr)
    columns = ["method", "dataset", "seed", "lr", "accuracy"]
    return pd.concat(chosen)[columns] if chosen else pd.DataFrame(columns=columns)


def lead_over(scores: pd.DataFrame, method: str = "palm") -> pd.DataFrame:
    """How far a method is ahead of each other one, in pairs of equal dataset and seed.

    scores: columns method, dataset, seed, accuracy. Columns: lead (mean over datasets, then over
    seeds), low, high (Student's interval over seeds), seeds, datasets.
    """
    wide = scores.pivot_table("accuracy", ["dataset", "seed"], "method")
    lines = {}
    for other in wide.columns.drop(method, errors="ignore") if method in wide else []:
        lead = (wide[method] - wide[other]).dropna().rename("lead").reset_index()
        seeds = seed_means(lead, [], "lead")["lead"]
        interval = seed_interval(seeds, bounds=DIFFERENCE)
        lines[other] = (*interval, len(seeds), lead["dataset"].nunique())
    columns = ["lead", "low", "high", "seeds", "datasets"]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("method")


def plot_sweep(curves: pd.DataFrame, axes) -> None:
    """Mean gains over shots, in points: a row of axes for each method, a column for each start.

    curves: of `gain_curves`. axes: [3, 3], those of STARTS. Each rate has a colour; the legend is
    the figure's, above the axes. A method has no curve in a column of a start it does not have.
    """
    starts = STARTS["palm"]
    rates = sorted(curves.index.unique("lr"))
    colors = plt.get_cmap("viridis")([0.9 * n / max(len(rates) - 1, 1) for n in range(len(rates))])
    for (method, start, lr), part in curves.groupby(CURVE):
        ax = axes[[*STARTS].index(method)][starts.index(start)]
        line = 100 * part["mean"].droplevel(CURVE)
        label = f"rate {lr:g}"
        ax.plot(line.index, line, "o-", color=colors[rates.index(lr)], markersize=3, label=label)
    for method, row in zip(STARTS, axes, strict=True):
        for start, ax in zip(starts, row, strict=True):
            if start not in STARTS[method]:
                ax.set_visible(False)
                continue
            ax.axhline(0, color="0.6", linewidth=0.8)
            ax.set(xscale="log", title=f"{method_label(method)}, from {start}")
            ax.set_xticks(SHOTS, map(str, SHOTS))
            ax.minorticks_off()
    lines = {}
    for ax in axes.flat:
        handles, labels = ax.get_legend_handles_labels()
        lines |= dict(zip(labels, handles, strict=True))
    fig = axes.flat[0].figure
    ordered = [f"rate {lr:g}" for lr in rates]
    handles = [lines[name] for name in ordered]
    fig.legend(handles, ordered, loc="outside upper center", ncols=4, frameon=False)
    fig.supxlabel("clips a class")
    fig.supylabel("gain over zero-shot (points)")


def as_points(change: float) -> str:
    """A change of accuracy in points with one digit and a sign: 0.1234 -> "+12.3"."""
    return f"{round(100 * change, 1) + 0.0:+.1f}"
