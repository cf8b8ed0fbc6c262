"""Figures. Each function takes data and an axes (a new one by default) and returns the axes."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from palmkit.audio import SAMPLE_RATE
from palmkit.results.statistics import critical_difference, mean_ranks
from palmkit.results.tables import METHOD_NAMES
from palmkit.storage import run_folder

# One colour a method, everywhere; from seaborn's palette for colour-blind readers.
COLORS = dict(
    zip(METHOD_NAMES, (sns.color_palette("colorblind")[n] for n in (7, 0, 1, 2, 4)), strict=True)
)

PNG_DPI = 150


def _axes(ax, **size):
    return ax if ax is not None else plt.subplots(layout="constrained", **size)[1]


def plot_waveform(waveform, ax=None):
    """[n] samples at 44.1 kHz over seconds."""
    ax = _axes(ax, figsize=(7, 1.8))
    ax.plot(np.arange(len(waveform)) / SAMPLE_RATE, waveform, linewidth=0.3, color="0.3")
    ax.set(xlabel="time (s)", ylabel="amplitude", xlim=(0, len(waveform) / SAMPLE_RATE))
    return ax


def plot_log_mel(log_mel, ax=None, hop=320, colorbar=True, frequencies=None, **limits):
    """[frames, mel] in dB over seconds and mel band. hop: samples from frame to frame; limits: vmin, vmax in dB;
    frequencies: each band's, in Hz, for an axis that tells kHz."""
    ax = _axes(ax, figsize=(7, 2.4))
    extent = (0, len(log_mel) * hop / SAMPLE_RATE, 0, log_mel.shape[1])
    image = ax.imshow(
        log_mel.T, origin="lower", aspect="auto", cmap="magma", extent=extent, **limits
    )
    ax.set(xlabel="time (s)", ylabel="mel band")
    if frequencies is not None:
        marks = np.array([1000, 2000, 4000, 8000, 16000])
        marks = marks[(marks >= frequencies[0]) & (marks <= frequencies[-1])]
        places = np.interp(marks, frequencies, np.arange(len(frequencies)) + 0.5)
        ax.set_yticks(places, [f"{mark / 1000:g}" for mark in marks])
        ax.set_ylabel("frequency (kHz)")
    if colorbar:
        ax.figure.colorbar(image, ax=ax, label="dB")
    return ax


def plot_image(image, segments=4, ax=None):
    """[size, size]: what the Swin trunk sees, time segments stacked along frequency, lines between them."""
    ax = _axes(ax, figsize=(4, 4))
    ax.imshow(image, origin="lower", cmap="magma", interpolation="nearest")
    step = len(image) // segments
    for n in range(1, segments):
        ax.axhline(n * step - 0.5, color="white", linewidth=0.8)
    ax.set(
        xlabel="frame within its segment",
        ylabel="segment and mel band",
        yticks=[n * step for n in range(segments)],
    )
    ax.set_yticklabels([f"segment {n + 1}" for n in range(segments)])
    return ax


def plot_study(
    table: pd.DataFrame, ax=None, method="palm", label=None, reference=None, color=None, **axis
):
    """`intervals` of one study as dots with their limits, in the order of the index; `reference`: a dotted line.

    axis: xlabel, and xscale="log" for values that are numbers; without it they stand at equal distances.
    """
    ax = _axes(ax, figsize=(4, 2.8))
    scaled = "xscale" in axis
    x = np.array(table.index, float) if scaled else np.arange(len(table))
    reach = np.nan_to_num(np.stack([table["mean"] - table["low"], table["high"] - table["mean"]]))
    label = label or f"{METHOD_NAMES.get(method, method)} (n={int(table['seeds'].max())})"
    color = COLORS.get(method) if color is None else color
    ax.errorbar(
        x, table["mean"], reach, fmt="o-" if scaled else "o", capsize=3, color=color, label=label
    )
    if reference is not None:
        ax.axhline(
            reference, color=COLORS["zeroshot"], linestyle=":", label=METHOD_NAMES["zeroshot"]
        )
    ax.set(ylabel="accuracy", **axis)
    ax.set_xticks(x, [str(value) for value in table.index])
    ax.minorticks_off()
    return ax


def plot_losses(rows: pd.DataFrame, ax=None):
    """Training loss per epoch, one thin line a unit, the median of each method thick."""
    ax = _axes(ax, figsize=(6, 3))
    for method, group in rows.groupby("method", sort=False):
        curves = [
            np.array([part.mean() for part in np.array_split(np.array(row.losses), row.epochs)])
            for row in group.itertuples()
            if row.losses
        ]
        for curve in curves:
            ax.plot(
                range(1, len(curve) + 1), curve, color=COLORS.get(method), alpha=0.25, linewidth=0.7
            )
        if curves:
            label = f"{METHOD_NAMES.get(method, method)} (median of {len(curves)})"
            ax.plot(
                range(1, len(curves[0]) + 1),
                np.median(curves, 0),
                color=COLORS.get(method),
                label=label,
            )
    ax.set(xlabel="epoch", ylabel="loss, mean of an epoch")
    ax.legend(frameon=False)
    return ax


def plot_accuracy(table: pd.DataFrame, chance: dict[str, float] | None = None, ax=None):
    """Bars of `summarise`: datasets across, methods side by side, one standard deviation over seeds as error bar."""
    datasets, methods = list(dict.fromkeys(table["dataset"])), list(dict.fromkeys(table["method"]))
    ax = _axes(ax, figsize=(max(5, 1.2 * len(datasets) + 2), 3.2))
    width = 0.8 / len(methods)
    for n, method in enumerate(methods):
        lines = table[table["method"] == method].set_index("dataset").reindex(datasets)
        seeds = int(lines["seeds"].max())
        ax.bar(
            np.arange(len(datasets)) + (n - (len(methods) - 1) / 2) * width, lines["mean"], width,
            yerr=lines["std"] if seeds > 1 else None, capsize=3, color=COLORS.get(method, f"C{n}"),
            label=f"{METHOD_NAMES.get(method, method)} (n={seeds})",
        )  # fmt: skip
    for x, dataset in enumerate(datasets):
        if chance and dataset in chance:
            ax.plot(
                [x - 0.45, x + 0.45],
                [chance[dataset]] * 2,
                "k:",
                label="chance" if x == 0 else None,
            )
    ax.set(ylabel="accuracy", ylim=(0, 1), xticks=range(len(datasets)))
    ax.set_xticklabels(datasets, rotation=30 if len(datasets) > 4 else 0)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_lambdas(lambdas: pd.DataFrame, ax=None):
    """Histogram of `lambda_frame`, initial and learned, pooled over what is in the frame."""
    ax = _axes(ax, figsize=(6, 3))
    edges = np.linspace(0, 1, 41)
    ax.hist(lambdas["initial"], edges, color="0.75", label=f"initial (n={len(lambdas)})")
    ax.hist(
        lambdas["learned"],
        edges,
        color=COLORS["palm"],
        alpha=0.7,
        label=f"learned (n={len(lambdas)})",
    )
    ax.set(
        xlabel=r"$\lambda$ (0: text only, 1: learned vector only)",
        ylabel="classes x folds x seeds",
        xlim=(0, 1),
    )
    ax.legend(frameon=False)
    return ax


def plot_lambdas_by_class(lambdas: pd.DataFrame, ax=None):
    """Each class's lambdas over folds and seeds: initial in grey, learned in PALM's colour, by learned median."""
    classes = lambdas.groupby("class_name")["learned"].median().sort_values().index
    ax = _axes(ax, figsize=(6, max(2, 0.28 * len(classes) + 0.8)))
    for column, color, shift in (("initial", "0.6", 0.15), ("learned", COLORS["palm"], -0.15)):
        for y, name in enumerate(classes):
            values = lambdas.loc[lambdas["class_name"] == name, column]
            ax.plot(
                values,
                [y + shift] * len(values),
                ".",
                color=color,
                label=column if y == 0 else None,
            )
    ax.set(xlabel=r"$\lambda$", yticks=range(len(classes)), xlim=(0, 1))
    ax.set_yticklabels(classes)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_critical_difference(scores: pd.DataFrame, ax=None):
    """Mean ranks over `scores` [datasets, methods], best first; a bar joins those that Nemenyi's test does not part."""
    ranks = mean_ranks(scores).sort_values()
    reach = critical_difference(len(ranks), len(scores))
    ends = [
        ranks[ranks <= rank + reach].index[-1] for rank in ranks
    ]  # the farthest that each one still reaches
    groups = [(first, last) for n, (first, last) in enumerate(zip(ranks.index, ends, strict=True))
              if first != last and last not in ends[:n]]  # fmt: skip
    ax = _axes(ax, figsize=(6.5, 2.2))
    for method, rank in ranks.items():
        ax.plot(rank, 0, "o", color=COLORS.get(method), markersize=9, clip_on=False)
        label = f"{METHOD_NAMES.get(method, method)}\n{rank:.2f}"
        ax.annotate(label, (rank, 0), (0, 12), textcoords="offset points", ha="center")
    for y, (first, last) in enumerate(groups, 1):
        ax.plot(
            [ranks[first], ranks[last]], [-y, -y], color="0.2", linewidth=3, solid_capstyle="butt"
        )
    y = -len(groups) - 1
    ax.plot([1, 1 + reach], [y, y], "|-", color="0.5")
    ax.text(1 + reach, y, f"  critical difference {reach:.2f}", va="center", color="0.4")
    ax.set(
        xlabel=f"mean rank over {len(scores)} datasets (1: best)",
        xlim=(0.8, len(ranks) + 0.2),
        ylim=(y - 0.7, 2),
    )
    ax.set(xticks=range(1, len(ranks) + 1), yticks=[])
    ax.spines[["left", "right", "top"]].set_visible(False)
    return ax


def save_figure(ax, run, name: str) -> Path:
    """Keep the figure of an axes in `runs/RUN/figures` as PNG and PDF; the PNG's path."""
    folder = run_folder(run) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context({"pdf.fonttype": 42}):  # letters stay letters, as journals ask
        for suffix in ("pdf", "png"):
            ax.figure.savefig(folder / f"{name}.{suffix}", dpi=PNG_DPI, bbox_inches="tight")
    return folder / f"{name}.png"
