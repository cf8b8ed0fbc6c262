"""Tables of what methods cost, from rows of `palmkit.experiments.profiling.measure`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from palmkit.experiments.profiling import BASE, VARIED
from palmkit.results.method_style import method_color, method_label

CPU = "cpu"
NOT_MEASURED = "not measured"


def main_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the first model, on the CPU if it was measured there, else on the first device."""
    rows = rows[rows["model"] == rows["model"].iloc[0]]
    on_cpu = rows[rows["device"] == CPU]
    return rows[rows["device"] == rows["device"].iloc[0]] if on_cpu.empty else on_cpu


def gpu_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the first model on a GPU; none if no GPU was at hand."""
    rows = rows[rows["model"] == rows["model"].iloc[0]]
    return rows[rows["device"].str.startswith("cuda")]


def pick(rows: pd.DataFrame, what: str, value: str = "seconds", threads=None) -> pd.Series:
    """A value by method at BASE, with this number of threads, or with the most.

    rows: of one model and device. Empty where it was not measured.
    """
    threads = rows["threads"].max() if threads is None else threads
    fits = (rows[list(BASE)] == BASE).all(axis=1) & (rows["threads"] == threads)
    return rows[fits & (rows["what"] == what)].set_index("method")[value].astype(float)


def encoding(rows: pd.DataFrame, what: str = "encode", value: str = "seconds") -> float:
    """A value of encoding a batch of BASE's clips with the most threads; NaN if not measured."""
    found = rows[(rows["what"] == what) & (rows["threads"] == rows["threads"].max())][value]
    return float(found.iloc[0]) if len(found) else np.nan


def ratios(costs: dict[str, pd.Series], reference: str = "palm") -> pd.DataFrame:
    """Each cost by method, over that of the reference: one line for each name in `costs`."""
    table = pd.DataFrame(costs).T
    if reference not in table:
        return table * np.nan
    return table.div(table[reference], axis=0).drop(columns=reference)


def step_lines(times: pd.DataFrame, batch: int = 16) -> pd.DataFrame:
    """A straight line for each method through its datasets: epoch = beside + steps * step.

    times: method, dataset, n_train, epoch_seconds (`palmkit.published.epoch_seconds`). The median
    epoch of each dataset counts once for each size of its training set. Columns: step and beside
    (seconds), datasets.
    """
    times = times.assign(steps=-(-times["n_train"] // batch))
    medians = times.groupby(["method", "dataset", "steps"], as_index=False)[
        "epoch_seconds"
    ].median()
    lines = {}
    for method, part in medians.groupby("method"):
        step, beside = np.polyfit(part["steps"], part["epoch_seconds"], 1)
        lines[method] = {"step": step, "beside": beside, "datasets": part["dataset"].nunique()}
    return pd.DataFrame(lines).T.astype({"datasets": int})


def epoch_ratios(times: pd.DataFrame, reference: str = "palm") -> pd.DataFrame:
    """Epochs of each dataset, fold and seed over the reference's: the median of each dataset.

    times: as of `step_lines`. [datasets, methods but the reference].
    """
    keys = ["dataset", "fold", "seed"]
    epochs = times.pivot(index=keys, columns="method", values="epoch_seconds")
    relative = epochs.div(epochs[reference], axis=0).drop(columns=reference)
    return relative.groupby("dataset").median()


def plot_step_times(rows: pd.DataFrame, axes) -> None:
    """Time of a training step over each of VARIED, one axes each; bars: fastest and slowest run.

    rows: of one model and device. The legend is the figure's, below the axes.
    """
    steps = rows[(rows["what"] == "training step") & (rows["threads"] == rows["threads"].max())]
    for ax, (what, values) in zip(axes, VARIED.items(), strict=True):
        others = {name: value for name, value in BASE.items() if name != what}
        part = steps[(steps[list(others)] == others).all(axis=1)].sort_values(what)
        for method, line in part.groupby("method"):
            reach = line["seconds"] - line["fastest"], line["slowest"] - line["seconds"]
            style = dict(color=method_color(method), label=method_label(method))
            ax.errorbar(line[what], line["seconds"], reach, fmt="o-", capsize=3, **style)
        label = {"context": "context tokens"}.get(what, what)
        ax.set(xlabel=label, xscale="log", yscale="log")
        ax.set_xticks(values, map(str, values))
        ax.minorticks_off()
    axes[0].set_ylabel("training step (s)")
    handles = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False)


def format_cost(value: float) -> str:
    """Three significant digits: "0.0123", "217", "1,440"; NOT_MEASURED for a missing value."""
    if pd.isna(value):
        return NOT_MEASURED
    digits = max(0, 2 - int(np.floor(np.log10(abs(value))))) if value else 0
    rounded = round(value, 2 - int(np.floor(np.log10(abs(value))))) if value else 0.0
    return f"{rounded:,.{digits}f}"
