"""Methods beside each other: accuracy against shots, regimes, cost, calibration, wrong names.

The table has a line for each trial, see `rivals_table`; tools/make_rivals.py writes it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from palmkit.experiments.rows import load_tensors
from palmkit.results.confidence import calibration_error, confidence_frame
from palmkit.results.loading import load_rows
from palmkit.results.method_style import is_transductive, learns, method_color, method_label
from palmkit.results.statistics import DIFFERENCE, SHARE, seed_interval

COLUMNS = (
    *("dataset", "fold", "seed", "method", "regime", "names", "shots", "lr", "epochs"),
    *("accuracy", "loss", "ece", "fit_seconds", "chosen", "diverged", "weights"),
)
DIGEST = 10  # characters of a model's digest
PAPER = {"lr": 0.05, "epochs": 50}  # PALM's training
SLOWER = " (.01, 100 epochs)"  # marks PALM trained as in ASPL's paper
SHORTEST = 1e-3  # seconds: rows have whole milliseconds
REGIMES = ("published", "support", "transfer")


def rivals_table(run) -> pd.DataFrame:
    """COLUMNS of the rows of a run, a line for each trial.

    names: "right", or "wrong" where classes have other names. ece: `calibration_error` of the test
    logits. fit_seconds: of the fit, without the choice of options. chosen: "alpha=1.0 beta=3.0".
    Raises ValueError for a run with rows of one encoder and of two.
    """
    rows = load_rows(run)
    if rows["encoders"].nunique() > 1:
        raise ValueError(
            f"the run {Path(str(run)).name} has rows of one encoder and of two, which are not "
            "compared in one table: use a run for each"
        )
    for name in ("chosen", "regime"):
        rows[name] = rows.get(name)
    table = rows.assign(
        names=rows["options"].map(lambda options: "wrong" if "names" in options else "right"),
        regime=rows["regime"].fillna("published"),
        chosen=rows["chosen"].map(_as_text),
        fit_seconds=rows["seconds"].map(lambda seconds: seconds["fit"]),
        diverged=rows["diverged"].astype(bool),
        weights=rows["weights"].str[:DIGEST],
        ece=[_trial_calibration_error(row, run) for _, row in rows.iterrows()],
    )
    order = ["dataset", "names", "regime", "method", "shots", "lr", "epochs", "fold", "seed"]
    table = table.sort_values(order, ignore_index=True)[list(COLUMNS)]
    return table.round({"accuracy": 6, "loss": 4, "ece": 4, "fit_seconds": 4})


def _as_text(chosen) -> str:
    pairs = chosen.items() if isinstance(chosen, dict) else ()
    return " ".join(f"{name}={value}" for name, value in pairs)


def _trial_calibration_error(row, run) -> float:
    tensors = load_tensors(row, run)
    return calibration_error(confidence_frame(tensors["logits"], tensors["labels"]))


def read_rivals(path: Path) -> pd.DataFrame:
    """The table that tools/make_rivals.py wrote, see `label_entrants`."""
    return label_entrants(pd.read_csv(path, comment="#"))


def label_entrants(table: pd.DataFrame) -> pd.DataFrame:
    """A table of trials with `entrant`, `kind` and `tuned_on`, and methods that learn nothing once
    for every seed and number of shots.

    entrant: the method, PALM with another training apart. kind: one of REGIMES; "transductive" for
    methods that see the whole test batch. tuned_on: the dataset of kind "transfer", else "".
    """
    regime = table["regime"].str.partition(":")
    is_paper = (table["lr"] == PAPER["lr"]) & (table["epochs"] == PAPER["epochs"])
    is_other = (table["method"] == "palm") & ~is_paper
    table = table.assign(
        entrant=table["method"].where(~is_other, table["method"] + SLOWER),
        kind=regime[0].mask(is_transductive(table["method"]), "transductive"),
        tuned_on=regime[2],
        chosen=table["chosen"].astype(object).fillna(""),
    )
    learned = learns(table["method"])
    cells = table.loc[learned, ["shots", "seed"]].drop_duplicates()
    repeated = table[~learned].drop(columns=["shots", "seed"]).merge(cells, how="cross")
    return pd.concat([table[learned], repeated], ignore_index=True)


def entrant_label(entrant: str) -> str:
    """What tables call an entrant."""
    method = entrant.removesuffix(SLOWER)
    return method_label(method) + entrant[len(method) :]


def shown_labels(entrants) -> dict[str, str]:
    """{entrant: its label in tables and figures}."""
    return {entrant: entrant_label(entrant) for entrant in entrants}


# Means. A dataset counts once, whatever the number of its folds.


def seed_scores(table: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """[entrant and shots, seeds] mean over datasets of the mean over folds.

    Raises ValueError if an entrant lacks a dataset that another one has: means over other datasets
    cannot be compared.
    """
    over_folds = table.groupby(["entrant", "shots", "seed", "dataset"])[metric].mean()
    cells = over_folds.unstack("dataset")
    incomplete = cells.isna().any(axis=1)
    if incomplete.any():
        entrant, shots, seed = cells.index[incomplete][0]
        raise ValueError(f"{entrant} lacks a dataset at {shots} shots, seed {seed}")
    return cells.mean(axis=1).unstack("seed")


def mean_table(table: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """[entrants, shots] means over seeds, and `all`: the mean over shots. The best comes first."""
    over_seeds = seed_scores(table, metric).mean(axis=1)
    means = over_seeds.unstack("shots")
    means["all"] = means.mean(axis=1, skipna=False)
    return means.sort_values("all", ascending=metric != "accuracy")


def shot_curves(table: pd.DataFrame) -> pd.DataFrame:
    """[entrant and shots] mean, low, high: Student's interval over seeds, 95 percent."""
    scores = seed_scores(table)
    limits = [seed_interval(values, bounds=SHARE) for values in scores.to_numpy()]
    return pd.DataFrame(limits, scores.index, columns=["mean", "low", "high"])


def board_scores(table: pd.DataFrame, shots: int) -> pd.DataFrame:
    """[dataset and seed, entrants] accuracies at a number of shots, for `compare_entrants`."""
    part = table[table["shots"] == shots]
    return part.groupby(["dataset", "seed", "entrant"])["accuracy"].mean().unstack("entrant")


def regime_changes(table: pd.DataFrame, beside: tuple[str, ...] = ()) -> pd.DataFrame:
    """Methods with options to choose: accuracy of each regime on the datasets that have all three.

    beside: entrants without such options, of which the table has `published` alone.

    Indexed by (entrant, shots): published, and support and transfer as differences to it, each mean
    with the limits of its interval over seeds: support, support_low, support_high, and so on.
    """
    tuned_on = set(table["tuned_on"]) - {""}
    part = table[~table["dataset"].isin(tuned_on)]
    chosen = set(part.loc[part["kind"] == "transfer", "entrant"])
    part = part[part["entrant"].isin(chosen | set(beside))]
    published = seed_scores(part[part["kind"] == "published"])
    lines = {"published": published.mean(axis=1)}
    for kind in REGIMES[1:]:
        scores = seed_scores(part[part["kind"] == kind])
        change = (scores - published).dropna(how="all")
        limits = [seed_interval(values, bounds=DIFFERENCE) for values in change.to_numpy()]
        found = pd.DataFrame(limits, change.index, columns=[kind, f"{kind}_low", f"{kind}_high"])
        lines |= {name: found[name] for name in found}
    return pd.DataFrame(lines)


def name_costs(table: pd.DataFrame) -> pd.DataFrame:
    """[entrants, shots]: accuracy with right names minus accuracy with wrong ones."""
    part = table[(table["kind"] == "published") & learns(table["method"])]
    wrong = part[part["names"] == "wrong"]
    right = part[(part["names"] == "right") & part["shots"].isin(wrong["shots"])]
    right = right[right["entrant"].isin(wrong["entrant"])]
    lost = seed_scores(right) - seed_scores(wrong)
    return lost.mean(axis=1).unstack("shots").sort_values(wrong["shots"].min())


# Figures.


def plot_curves(curves: pd.DataFrame, groups: dict[str, list[str]], always, axes) -> None:
    """Accuracy against shots, a panel for each group of entrants; those of `always` in each."""
    for ax, (title, entrants) in zip(np.ravel(axes), groups.items(), strict=True):
        for entrant in [*always, *entrants]:
            curve = curves.loc[entrant]
            color = method_color(entrant.removesuffix(SLOWER))
            style = dict(linewidth=2.2, linestyle="-")
            if entrant not in always:
                style = dict(linewidth=1, linestyle="--")
            ax.plot(curve.index, curve["mean"], "o", markersize=3, color=color, **style,
                    label=entrant_label(entrant))  # fmt: skip
            ax.vlines(curve.index, curve["low"], curve["high"], color=color, linewidth=0.7)
        ax.set_xscale("log", base=2)
        shots = [*curves.index.unique("shots")]
        ax.set_xticks(shots, shots)
        ax.set(title=title, xlabel="clips a class", ylabel="accuracy")
        ax.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))


def plot_costs(costs: pd.DataFrame, ax) -> None:
    """Accuracy against seconds of a fit, where SHORTEST stands for less, too.

    costs: indexed by entrant, with seconds and accuracy.
    """
    costs = costs.assign(seconds=costs["seconds"].clip(lower=SHORTEST))
    for entrant, line in costs.iterrows():
        color = method_color(entrant.removesuffix(SLOWER))
        ax.plot(line["seconds"], line["accuracy"], "o", color=color)
    _label_points(costs, ax)
    ax.set_xscale("log")
    ax.set_xlim(SHORTEST / 2, 10 * costs["seconds"].max())  # room for the last name
    ax.set(xlabel=f"seconds of a fit (log; {SHORTEST:g}: or less)", ylabel="accuracy")


def _label_points(costs: pd.DataFrame, ax, gap: float = 0.035) -> None:
    """Names beside the points. A name moves up where another one is near."""
    lowest = costs["accuracy"].min()
    span = np.ptp(costs["accuracy"]) or 1
    placed: list[tuple[float, float]] = []
    for entrant, line in costs.sort_values("accuracy").iterrows():
        x = np.log10(line["seconds"])
        y = (line["accuracy"] - lowest) / span
        while any(abs(x - a) < 0.6 and abs(y - b) < gap for a, b in placed):
            y += gap / 4
        placed.append((x, y))
        beside = (line["seconds"] * 1.15, lowest + y * span)
        ax.annotate(entrant_label(entrant), beside, fontsize=7, va="center")
