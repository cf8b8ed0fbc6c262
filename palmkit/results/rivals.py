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

TRIAL_COLUMNS = ("dataset", "fold", "seed", "method", "regime", "names", "shots", "lr", "epochs")
RESULT_COLUMNS = ("accuracy", "loss", "ece", "fit_seconds", "chosen", "diverged", "weights")
COLUMNS = TRIAL_COLUMNS + RESULT_COLUMNS
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
        rows[name] = rows.get(name)  # rows without options to choose lack them
    table = rows.assign(
        names=rows["options"].map(_right_or_wrong),
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


def _right_or_wrong(options: dict) -> str:
    """Which names the classes of a trial have."""
    return "wrong" if "names" in options else "right"


def _as_text(chosen) -> str:
    """Chosen options as "alpha=1.0 beta=3.0"; "" where none were chosen."""
    if not isinstance(chosen, dict):
        return ""
    return " ".join(f"{name}={value}" for name, value in chosen.items())


def _trial_calibration_error(row, run) -> float:
    tensors = load_tensors(row, run)
    return calibration_error(confidence_frame(tensors["logits"], tensors["labels"]))


def read_rivals(path: Path) -> pd.DataFrame:
    """The table that tools/make_rivals.py wrote, see `label_entrants`."""
    return label_entrants(pd.read_csv(path, comment="#"))


def label_entrants(table: pd.DataFrame) -> pd.DataFrame:
    """A table of trials with the columns `entrant`, `kind` and `tuned_on`.

    entrant: the method. PALM with another training than the paper's is an entrant of its own.
    kind: one of REGIMES; "transductive" for methods that see the whole test batch.
    tuned_on: the dataset of kind "transfer", else "".
    A trial of a method that learns nothing stands there for every seed and number of shots.
    """
    method = table["method"]
    regime = table["regime"].str.partition(":")
    is_paper = (table["lr"] == PAPER["lr"]) & (table["epochs"] == PAPER["epochs"])
    is_other = (method == "palm") & ~is_paper
    table = table.assign(
        entrant=method.mask(is_other, method + SLOWER),
        kind=regime[0].mask(is_transductive(method), "transductive"),
        tuned_on=regime[2],
        chosen=table["chosen"].astype(object).fillna(""),
    )
    return _repeat_unlearned(table)


def _repeat_unlearned(table: pd.DataFrame) -> pd.DataFrame:
    """The table with methods that learn nothing at each seed and number of shots of the others."""
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
    return _seed_intervals(seed_scores(table), SHARE)


def _seed_intervals(scores: pd.DataFrame, bounds: tuple[float, float]) -> pd.DataFrame:
    """mean, low, high (`seed_interval`) of each line of scores [lines, seeds]."""
    limits = [seed_interval(values, bounds=bounds) for values in scores.to_numpy()]
    return pd.DataFrame(limits, scores.index, columns=["mean", "low", "high"])


def board_scores(table: pd.DataFrame, shots: int) -> pd.DataFrame:
    """[dataset and seed, entrants] accuracies at a number of shots, for `compare_entrants`."""
    part = table[table["shots"] == shots]
    return part.groupby(["dataset", "seed", "entrant"])["accuracy"].mean().unstack("entrant")


def regime_changes(table: pd.DataFrame, beside: tuple[str, ...] = ()) -> pd.DataFrame:
    """How much the choice of options changes: the regimes, on the datasets that have all three.

    Indexed by (entrant, shots). published: the accuracy. support, transfer: their differences to
    it, each a mean with the limits of its interval over seeds: support, support_low, support_high,
    and so on. Entrants are the methods with options to choose.
    beside: further entrants, without such options; they have `published` alone.
    """
    tuned_on = set(table["tuned_on"]) - {""}
    part = table[~table["dataset"].isin(tuned_on)]
    chosen = set(part.loc[part["kind"] == "transfer", "entrant"])
    part = part[part["entrant"].isin(chosen | set(beside))]
    published = seed_scores(part[part["kind"] == "published"])
    columns = {"published": published.mean(axis=1)}
    for kind in REGIMES[1:]:
        scores = seed_scores(part[part["kind"] == kind])
        change = (scores - published).dropna(how="all")
        found = _seed_intervals(change, DIFFERENCE)
        columns[kind] = found["mean"]
        columns[f"{kind}_low"] = found["low"]
        columns[f"{kind}_high"] = found["high"]
    return pd.DataFrame(columns)


def name_costs(table: pd.DataFrame) -> pd.DataFrame:
    """[entrants, shots]: accuracy with right names minus accuracy with wrong ones."""
    part = table[(table["kind"] == "published") & learns(table["method"])]
    wrong = part[part["names"] == "wrong"]
    right = part[part["names"] == "right"]
    right = right[right["shots"].isin(wrong["shots"]) & right["entrant"].isin(wrong["entrant"])]
    lost = seed_scores(right) - seed_scores(wrong)
    fewest = wrong["shots"].min()
    return lost.mean(axis=1).unstack("shots").sort_values(fewest)


# Figures.


def plot_curves(curves: pd.DataFrame, groups: dict[str, list[str]], always, axes) -> None:
    """Accuracy against shots, a panel for each group of entrants; those of `always` in each."""
    shots = [*curves.index.unique("shots")]
    for ax, (title, entrants) in zip(np.ravel(axes), groups.items(), strict=True):
        for entrant in [*always, *entrants]:
            _plot_curve(curves.loc[entrant], entrant, ax, is_thick=entrant in always)
        ax.set_xscale("log", base=2)
        ax.set_xticks(shots, shots)
        ax.set(title=title, xlabel="clips a class", ylabel="accuracy")
        ax.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))


def _plot_curve(curve: pd.DataFrame, entrant: str, ax, is_thick: bool) -> None:
    """An entrant's means by shots, with their intervals."""
    color = _entrant_color(entrant)
    ax.plot(
        curve.index,
        curve["mean"],
        marker="o",
        markersize=3,
        color=color,
        linewidth=2.2 if is_thick else 1,
        linestyle="-" if is_thick else "--",
        label=entrant_label(entrant),
    )
    ax.vlines(curve.index, curve["low"], curve["high"], color=color, linewidth=0.7)


def _entrant_color(entrant: str) -> str:
    return method_color(entrant.removesuffix(SLOWER))


def plot_costs(costs: pd.DataFrame, ax) -> None:
    """Accuracy against seconds of a fit, where SHORTEST stands for less, too.

    costs: indexed by entrant, with seconds and accuracy.
    """
    costs = costs.assign(seconds=costs["seconds"].clip(lower=SHORTEST))
    for entrant, line in costs.iterrows():
        ax.plot(line["seconds"], line["accuracy"], "o", color=_entrant_color(entrant))
    _label_points(costs, ax)
    ax.set_xscale("log")
    ax.set_xlim(SHORTEST / 2, 10 * costs["seconds"].max())  # room for the last name
    ax.set(xlabel=f"seconds of a fit (log; {SHORTEST:g}: or less)", ylabel="accuracy")


def _label_points(costs: pd.DataFrame, ax, gap: float = 0.035) -> None:
    """Names beside the points. A name moves up where another one is near.

    gap: least distance of near names, as a share of the span of accuracies.
    """
    lowest = costs["accuracy"].min()
    span = np.ptp(costs["accuracy"]) or 1
    placed: list[tuple[float, float]] = []
    for entrant, line in costs.sort_values("accuracy").iterrows():
        x = np.log10(line["seconds"])
        y = (line["accuracy"] - lowest) / span
        while _is_near(x, y, placed, gap):
            y += gap / 4
        placed.append((x, y))
        place = (line["seconds"] * 1.15, lowest + y * span)
        ax.annotate(entrant_label(entrant), place, fontsize=7, va="center")


def _is_near(x: float, y: float, placed: list[tuple[float, float]], gap: float) -> bool:
    """Whether a name at x (decades of seconds) and y would meet one that is placed."""
    return any(abs(x - other_x) < 0.6 and abs(y - other_y) < gap for other_x, other_y in placed)
