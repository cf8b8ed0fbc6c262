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
    rows = _first_model(rows)
    devices = rows["device"]
    device = devices.iloc[0]
    if (devices == CPU).any():
        device = CPU
    return rows[devices == device]


def gpu_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the first model on a GPU; none if no GPU was at hand."""
    rows = _first_model(rows)
    on_gpu = rows["device"].str.startswith("cuda")
    return rows[on_gpu]


def _first_model(rows: pd.DataFrame) -> pd.DataFrame:
    models = rows["model"]
    return rows[models == models.iloc[0]]


def pick(
    rows: pd.DataFrame,
    what: str,
    value: str = "seconds",
    threads: int | None = None,
) -> pd.Series:
    """A value by method at BASE, with this number of threads, or with the most.

    rows: of one model and device. Empty where it was not measured.
    """
    found = _measured(rows, what, threads)
    found = _at_sizes(found, BASE)
    found = found.set_index("method")
    return found[value].astype(float)


def encoding(
    rows: pd.DataFrame,
    what: str = "encode",
    value: str = "seconds",
) -> float:
    """A value of encoding a batch of BASE's clips with the most threads; NaN if not measured."""
    found = _measured(rows, what)
    if found.empty:
        return np.nan
    return float(found[value].iloc[0])


def _measured(
    rows: pd.DataFrame,
    what: str,
    threads: int | None = None,
) -> pd.DataFrame:
    """Rows of `what` with this number of threads, or with the most in `rows`."""
    if threads is None:
        threads = rows["threads"].max()
    of_what = rows["what"] == what
    of_threads = rows["threads"] == threads
    return rows[of_what & of_threads]


def _at_sizes(rows: pd.DataFrame, sizes: dict[str, int]) -> pd.DataFrame:
    """Rows with these values of these columns, which are names in BASE."""
    equal = rows[[*sizes]] == pd.Series(sizes)
    return rows[equal.all(axis=1)]


def ratios(
    costs: dict[str, pd.Series],
    reference: str = "palm",
) -> pd.DataFrame:
    """Each cost by method, over that of the reference: one line for each name in `costs`."""
    table = pd.DataFrame(costs).T
    if reference not in table:
        return table * np.nan
    relative = table.div(table[reference], axis=0)
    return relative.drop(columns=reference)


def step_lines(times: pd.DataFrame, batch: int = 16) -> pd.DataFrame:
    """A straight line for each method through its datasets: epoch = beside + steps * step.

    times: method, dataset, n_train, epoch_seconds (`palmkit.published.epoch_seconds`). The median
    epoch of each dataset counts once for each size of its training set. Columns: step and beside
    (seconds), datasets.
    """
    medians = _median_epochs(times, batch)
    lines = {}
    for method, part in medians.groupby("method"):
        step, beside = np.polyfit(part["steps"], part["epoch_seconds"], 1)
        lines[method] = {
            "step": step,
            "beside": beside,
            "datasets": part["dataset"].nunique(),
        }
    table = pd.DataFrame(lines).T
    return table.astype({"datasets": int})


def _median_epochs(times: pd.DataFrame, batch: int) -> pd.DataFrame:
    """The median of epoch_seconds by method, dataset and steps of an epoch."""
    steps = -(-times["n_train"] // batch)  # rounded up: the last batch may be smaller
    times = times.assign(steps=steps)
    groups = times.groupby(["method", "dataset", "steps"])
    medians = groups["epoch_seconds"].median()
    return medians.reset_index()


def epoch_ratios(
    times: pd.DataFrame,
    reference: str = "palm",
) -> pd.DataFrame:
    """Epochs of each dataset, fold and seed over the reference's: the median of each dataset.

    times: as of `step_lines`. [datasets, methods but the reference].
    """
    trial = ["dataset", "fold", "seed"]
    epochs = times.pivot(index=trial, columns="method", values="epoch_seconds")
    relative = epochs.div(epochs[reference], axis=0)
    relative = relative.drop(columns=reference)
    return relative.groupby("dataset").median()


def plot_step_times(rows: pd.DataFrame, axes) -> None:
    """Time of a training step over each of VARIED, one axes each; bars: fastest and slowest run.

    rows: of one model and device. The legend is the figure's, below the axes.
    """
    steps = _measured(rows, "training step")
    for ax, varied in zip(axes, VARIED, strict=True):
        _plot_steps_over(steps, varied, ax)
    axes[0].set_ylabel("training step (s)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure = axes[0].figure
    place = "outside lower center"
    figure.legend(handles, labels, loc=place, ncols=3, frameon=False)


def _plot_steps_over(steps: pd.DataFrame, varied: str, ax) -> None:
    """Time of a training step over one of VARIED; the other sizes are those of BASE."""
    others = BASE.copy()
    del others[varied]
    part = _at_sizes(steps, others)
    part = part.sort_values(varied)
    for method, line in part.groupby("method"):
        seconds = line["seconds"]
        ax.errorbar(
            line[varied],
            seconds,
            yerr=[seconds - line["fastest"], line["slowest"] - seconds],
            fmt="o-",
            capsize=3,
            color=method_color(method),
            label=method_label(method),
        )
    label = "context tokens" if varied == "context" else varied
    ax.set(xlabel=label, xscale="log", yscale="log")
    values = VARIED[varied]
    ax.set_xticks(values, map(str, values))
    ax.minorticks_off()


def format_cost(value: float) -> str:
    """Three significant digits: "0.0123", "217", "1,440"; NOT_MEASURED for a missing value."""
    if pd.isna(value):
        return NOT_MEASURED
    if not value:
        return "0"
    exponent = int(np.floor(np.log10(abs(value))))
    decimals = 2 - exponent  # negative from 1,000 on
    rounded = round(value, decimals)
    shown = max(0, decimals)
    return f"{rounded:,.{shown}f}"
