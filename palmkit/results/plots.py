"""Figures. Each function takes data and an axes (a new one by default) and returns the axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from palmkit.extras import extra
from palmkit.results.confidence import reliability
from palmkit.results.diagnose import epoch_losses
from palmkit.results.formats import format_difference
from palmkit.results.method_style import method_color, method_colors, method_label
from palmkit.results.statistics import DIGITS, critical_difference, group_ranks, mean_ranks
from palmkit.storage import run_folder

with extra("report"):
    import matplotlib.pyplot as plt

PAGE_STYLE = {"figure.dpi": 100, "legend.frameon": False}  # of figures on a notebook's page
PNG_DPI = 150
CAPTION = "Description"  # the key of a caption in a PNG file
FREQUENCY_TICKS = (1000, 2000, 4000, 8000, 16000)  # Hz


def __getattr__(name: str):
    if name == "COLORS":  # looked up at each import: methods from outside may have come
        return method_colors()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def set_page_style() -> None:
    """Figures of this notebook look like those of the others: PAGE_STYLE."""
    plt.rcParams.update(PAGE_STYLE)


def _axes(ax, **size):
    if ax is not None:
        return ax
    _, ax = plt.subplots(layout="constrained", **size)
    return ax


def _legend_beside(ax) -> None:
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def plot_waveform(waveform, ax=None, *, sample_rate: int):
    """[n] samples over seconds. sample_rate: in Hz."""
    ax = _axes(ax, figsize=(7, 1.8))
    seconds = np.arange(len(waveform)) / sample_rate
    ax.plot(seconds, waveform, linewidth=0.3, color="0.3")
    ax.set_xlim(0, len(waveform) / sample_rate)
    ax.set_xlabel("time (s)")
    ax.set_ylabel("amplitude")
    return ax


def plot_log_mel(
    log_mel,
    ax=None,
    *,
    hop: int,
    sample_rate: int,
    colorbar: bool = True,
    frequencies=None,
    **limits,
):
    """[frames, mel] in dB over seconds and mel band.

    hop: samples from frame to frame. sample_rate: in Hz. limits: vmin, vmax in dB. frequencies: of
    each band in Hz, for an axis in kHz.
    """
    ax = _axes(ax, figsize=(7, 2.4))
    frames, bands = log_mel.shape
    extent = (0, frames * hop / sample_rate, 0, bands)
    style = dict(origin="lower", aspect="auto", cmap="magma", extent=extent)
    image = ax.imshow(log_mel.T, **style, **limits)
    ax.set_xlabel("time (s)")
    ax.set_ylabel("mel band")
    if frequencies is not None:
        _label_frequencies(ax, frequencies)
    if colorbar:
        ax.figure.colorbar(image, ax=ax, label="dB")
    return ax


def _label_frequencies(ax, frequencies) -> None:
    """Ticks in kHz on an axis of bands."""
    ticks = [f for f in FREQUENCY_TICKS if frequencies[0] <= f <= frequencies[-1]]
    centers = np.arange(len(frequencies)) + 0.5
    places = np.interp(ticks, frequencies, centers)
    ax.set_yticks(places, [f"{tick / 1000:g}" for tick in ticks])
    ax.set_ylabel("frequency (kHz)")


def plot_image(image, segments=4, ax=None):
    """[size, size] input of the Swin trunk: time segments stacked along frequency, with lines."""
    ax = _axes(ax, figsize=(4, 4))
    ax.imshow(image, origin="lower", cmap="magma", interpolation="nearest")
    step = len(image) // segments
    for n in range(1, segments):
        ax.axhline(n * step - 0.5, color="white", linewidth=0.8)
    ax.set_xlabel("frame within its segment")
    ax.set_ylabel("segment and mel band")
    labels = [f"segment {n + 1}" for n in range(segments)]
    ax.set_yticks([n * step for n in range(segments)], labels)
    return ax


def plot_study(
    table: pd.DataFrame, ax=None, method="palm", label=None, reference=None, color=None, **axis
):
    """`intervals` of one study: means with their limits, in the order of the index.

    reference: accuracy of zero-shot, as a dotted line. axis: xlabel, and xscale="log" for values
    that are numbers; without it they stand at equal distances.
    """
    ax = _axes(ax, figsize=(4, 2.8))
    scaled = "xscale" in axis
    x = np.array(table.index, float) if scaled else np.arange(len(table))
    error = np.stack([table["mean"] - table["low"], table["high"] - table["mean"]])
    error = np.maximum(error, 0)  # NaN stays: no interval, and no caps that would look like one
    seeds = int(table["seeds"].max())
    label = label or f"{method_label(method)} (n={seeds})"
    color = method_color(method) if color is None else color
    marks = "o-" if scaled else "o"
    ax.errorbar(x, table["mean"], error, fmt=marks, capsize=3, color=color, label=label)
    if reference is not None:
        zero_shot = dict(color=method_color("zeroshot"), label=method_label("zeroshot"))
        ax.axhline(reference, linestyle=":", **zero_shot)
    ax.set(ylabel="accuracy", **axis)
    ax.set_xticks(x, [str(value) for value in table.index])
    ax.minorticks_off()
    return ax


def plot_differences(table: pd.DataFrame, ax=None, margin: float | None = None, **axis):
    """`describe_pairs` by line and method: means with their intervals, lines from the top down.

    table: its index is (line, method). Methods of a line stand side by side. margin: a grey band of
    ± margin, where differences do not matter. axis: xlabel, title, ...
    """
    lines, methods = ([*dict.fromkeys(table.index.get_level_values(n))] for n in (0, 1))
    ax = _axes(ax, figsize=(7, 0.5 * len(lines) + 1.2))
    if margin is not None:
        ax.axvspan(-margin, margin, color="0.92", zorder=0, label=f"± {margin:g}")
    ax.axvline(0, color="0.6", linewidth=0.8)
    for n, method in enumerate(methods):
        part = table.xs(method, level=1).reindex(lines)
        places = np.arange(len(lines)) + (n - (len(methods) - 1) / 2) * 0.5 / len(methods)
        error = np.stack([part["mean"] - part["low"], part["high"] - part["mean"]])
        style = dict(fmt="o", capsize=3, color=method_color(method), label=method_label(method))
        ax.errorbar(part["mean"], places, xerr=np.maximum(error, 0), **style)
    ax.set_yticks(range(len(lines)), lines)
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.set(**axis)
    return ax


def plot_differences_grid(points: pd.DataFrame, ax=None, limit: float = 10, **axis):
    """Differences in points by line and column, as numbers on colours: red below 0, blue above.

    limit: the difference, in points, from which the colour is the same. axis: xlabel, title, ...
    """
    ax = _axes(ax, figsize=(3.5, 0.25 * len(points) + 1))
    ax.imshow(points, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for (y, x), value in np.ndenumerate(points.to_numpy()):
        color = "white" if abs(value) > 0.7 * limit else "black"
        style = dict(ha="center", va="center", fontsize=7, color=color)
        ax.text(x, y, format_difference(value, 1), **style)
    ax.set_xticks(range(points.shape[1]), points.columns)
    ax.set_yticks(range(points.shape[0]), points.index)
    ax.tick_params(length=0)
    ax.set(**axis)
    return ax


def plot_losses(rows: pd.DataFrame, ax=None):
    """Training loss per epoch: one thin line a trial, the median of each method thick.

    rows: with `losses`, as `run_trials` or `load_rows(run, details=True)` give them.
    """
    ax = _axes(ax, figsize=(6, 3))
    for method, group in rows.groupby("method", sort=False):
        records = group[["losses", "epochs"]].to_dict("records")
        curves = [epoch_losses(row) for row in records]
        curves = [curve for curve in curves if len(curve)]
        color = method_color(method)
        for curve in curves:
            _plot_curve(ax, curve, color=color, alpha=0.25, linewidth=0.7)
        if curves:
            label = f"{method_label(method)} (median of {len(curves)})"
            _plot_curve(ax, np.median(curves, 0), color=color, label=label)
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss, mean of an epoch")
    _legend_beside(ax)
    return ax


def _plot_curve(ax, curve, **style) -> None:
    """[epochs] values over epochs, which count from 1."""
    epochs = range(1, len(curve) + 1)
    ax.plot(epochs, curve, **style)


def plot_accuracy(table: pd.DataFrame, chance: dict[str, float] | None = None, ax=None):
    """Bars of `summarise`: datasets across, methods side by side, a standard deviation as error.

    Errors are cut at 0 and 1. There is none for one seed and for equal seeds.

    chance: accuracy of guessing by dataset, as dotted lines.
    """
    datasets = list(dict.fromkeys(table["dataset"]))
    methods = list(dict.fromkeys(table["method"]))
    ax = _axes(ax, figsize=(min(max(5, 1.2 * len(datasets) + 2), 11), 3.2))
    width = 0.8 / len(methods)
    for n, method in enumerate(methods):
        of_method = table[table["method"] == method]
        lines = of_method.set_index("dataset").reindex(datasets)
        shift = (n - (len(methods) - 1) / 2) * width
        _plot_bars(ax, method, lines, shift, width)
    _plot_chance(ax, datasets, chance or {})
    ax.set_ylim(0, 1)
    ax.set_ylabel("accuracy")
    ax.set_xticks(range(len(datasets)))
    if len(datasets) > 4:
        ax.set_xticklabels(datasets, rotation=30, ha="right", rotation_mode="anchor")
    else:
        ax.set_xticklabels(datasets)
    _legend_beside(ax)
    return ax


def _plot_bars(ax, method: str, lines: pd.DataFrame, shift: float, width: float) -> None:
    """A method's bars, one a dataset, each beside the dataset's place by `shift`."""
    seeds = int(lines["seeds"].max())
    places = np.arange(len(lines)) + shift
    error = _error_within(lines["mean"], lines["std"]) if seeds > 1 else None
    style = dict(capsize=3, color=method_color(method))
    label = f"{method_label(method)} (n={seeds})"
    ax.bar(places, lines["mean"], width, yerr=error, label=label, **style)


def _error_within(mean: pd.Series, std: pd.Series) -> np.ndarray:
    """[2, n] lengths of error bars below and above, cut at 0 and 1; NaN for equal seeds."""
    std = std.where(std.round(DIGITS) > 0)
    return np.maximum(np.stack([np.minimum(std, mean), np.minimum(std, 1 - mean)]), 0)


def _plot_chance(ax, datasets: list[str], chance: dict[str, float]) -> None:
    for x, dataset in enumerate(datasets):
        if dataset in chance:
            label = "chance" if x == 0 else None
            ax.plot([x - 0.45, x + 0.45], [chance[dataset]] * 2, "k:", label=label)


def plot_lambdas(lambdas: pd.DataFrame, ax=None):
    """Histogram of `lambda_frame`, initial and learned, pooled over what is in the frame."""
    ax = _axes(ax, figsize=(6, 3))
    edges = np.linspace(0, 1, 41)
    count = f"(n={len(lambdas)})"
    ax.hist(lambdas["initial"], edges, color="0.75", label=f"initial {count}")
    learned = dict(color=method_color("palm"), alpha=0.7, label=f"learned {count}")
    ax.hist(lambdas["learned"], edges, **learned)
    ax.set_xlim(0, 1)
    ax.set_xlabel(r"$\lambda$ (0: text only, 1: learned vector only)")
    ax.set_ylabel("classes x folds x seeds")
    _legend_beside(ax)
    return ax


def plot_lambdas_by_class(lambdas: pd.DataFrame, ax=None):
    """Each class's lambdas over folds and seeds, initial and learned, by learned median."""
    medians = lambdas.groupby("class_name")["learned"].median()
    classes = medians.sort_values().index
    ax = _axes(ax, figsize=(6, max(2, 0.28 * len(classes) + 0.8)))
    styles = {"initial": ("0.6", 0.15), "learned": (method_color("palm"), -0.15)}
    for column, (color, shift) in styles.items():
        for y, name in enumerate(classes):
            values = lambdas.loc[lambdas["class_name"] == name, column]
            heights = [y + shift] * len(values)
            label = column if y == 0 else None
            ax.plot(values, heights, ".", color=color, label=label)
    ax.set_xlim(0, 1)
    ax.set_xlabel(r"$\lambda$")
    ax.set_yticks(range(len(classes)))
    ax.set_yticklabels(classes)
    _legend_beside(ax)
    return ax


def plot_critical_difference(scores: pd.DataFrame, ax=None):
    """Mean ranks over `scores` [datasets, methods], best first (Demsar 2006).

    A bar joins methods whose ranks do not differ by Nemenyi's test.
    """
    ranks = mean_ranks(scores).sort_values()
    difference = critical_difference(len(ranks), len(scores))
    groups = group_ranks(ranks, difference)
    ax = _axes(ax, figsize=(6.5, 2.2))
    for method, rank in ranks.items():
        _plot_rank(ax, method, rank)
    for y, (first, last) in enumerate(groups, 1):
        bar = dict(color="0.2", linewidth=3, solid_capstyle="butt")
        ax.plot([ranks[first], ranks[last]], [-y, -y], **bar)
    lowest = -len(groups) - 1
    _plot_difference(ax, difference, lowest)
    ax.set_xlabel(f"mean rank over {len(scores)} datasets (1: best)")
    ax.set_xlim(0.8, len(ranks) + 0.2)
    ax.set_ylim(lowest - 0.7, 2)
    ax.set_xticks(range(1, len(ranks) + 1))
    ax.set_yticks([])
    ax.spines[["left", "right", "top"]].set_visible(False)
    return ax


def _plot_rank(ax, method: str, rank: float) -> None:
    """A method's mean rank as a point with its name."""
    ax.plot(rank, 0, "o", color=method_color(method), markersize=9, clip_on=False)
    label = f"{method_label(method)}\n{rank:.2f}"
    ax.annotate(label, (rank, 0), (0, 12), textcoords="offset points", ha="center")


def _plot_difference(ax, difference: float, y: float) -> None:
    """The critical difference as a scale of its length."""
    ax.plot([1, 1 + difference], [y, y], "|-", color="0.5")
    text = f"  critical difference {difference:.2f}"
    ax.text(1 + difference, y, text, va="center", color="0.4")


def plot_class_differences(changes: pd.DataFrame, names, ax=None, method="palm"):
    """`class_differences` in the order of its lines, with intervals; names: of the classes.

    Filled where p_holm < 0.05.
    """
    ax = _axes(ax, figsize=(9, 3))
    x, color = np.arange(len(changes)), method_color(method)
    clear = changes["p_holm"].to_numpy() < 0.05
    for chosen, fill in ((clear, color), (~clear, "white")):
        part = changes[chosen]
        error = [part["difference"] - part["low"], part["high"] - part["difference"]]
        marks = dict(fmt="o", color=color, markerfacecolor=fill, linewidth=1)
        ax.errorbar(x[chosen], part["difference"], error, **marks)
    ax.axhline(0, color="k", linewidth=0.8)
    ax.set(ylabel="difference of recall", xlim=(-1, len(changes)), ylim=(-1, 1))
    ax.set_xticks(x, names, rotation=90, fontsize=7)
    return ax


def plot_reliability(frame: pd.DataFrame, ax=None):
    """Accuracy by confidence of each method of a `clip_frame`. Below the diagonal: too sure."""
    ax = _axes(ax, figsize=(4, 3.2))
    ax.plot([0, 1], [0, 1], "k:", linewidth=1)
    for method, part in frame.groupby("method", sort=False):
        bins = reliability(part)
        style = dict(color=method_color(method), label=method_label(method))
        ax.plot(bins["confidence"], bins["accuracy"], "o-", **style)
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    return ax


def save_figure(ax, run, name: str, caption: str = "") -> Path:
    """Keep the figure of an axes in `runs/RUN/figures` as PNG and PDF; the PNG's path.

    caption: a sentence for the report; those of the notebooks' figures are in `captions`.
    """
    folder = run_folder(run) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    keys = {"png": CAPTION, "pdf": "Subject"}
    with plt.rc_context({"pdf.fonttype": 42}):  # letters stay letters, as journals ask
        for suffix in ("pdf", "png"):
            about = {keys[suffix]: caption} if caption else None
            path = folder / f"{name}.{suffix}"
            ax.figure.savefig(path, dpi=PNG_DPI, bbox_inches="tight", metadata=about)
    return folder / f"{name}.png"
