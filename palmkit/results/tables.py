"""Rows to tables: mean over folds for each seed, then mean and standard deviation over seeds."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from palmkit.published import without_swapped_folds
from palmkit.results.formats import (
    DIGITS,
    NOTHING,
    format_score,
    format_spread,
    to_csv,
    to_latex,
    to_markdown,
)
from palmkit.results.loading import load_rows
from palmkit.results.method_style import is_transductive, method_names, order_methods
from palmkit.results.settings import (
    ANY,
    KIND,
    SETTINGS,
    label_settings,
    select,
    setting,
    split_settings,
)
from palmkit.results.statistics import ANY_NUMBER, SHARE, interval_limits, seed_interval
from palmkit.results.versions import (
    CELL,
    dataset_labels,
    describe_duplicates,
    drop_repeats,
    is_duplicate,
    mark_versions,
    versioned_datasets,
)
from palmkit.storage import atomic_write, run_folder

__all__ = [
    "AVERAGE",
    "FORMATS",
    "SETTINGS",
    "ResultTable",
    "format_tables",
    "intervals",
    "load_rows",
    "result_tables",
    "select",
    "setting",
    "split_settings",
    "split_tables",
    "summarise",
    "to_latex",
    "to_markdown",
    "to_wide",
    "write_tables",
]

METRIC_NAMES = {
    "accuracy": "Accuracy",
    "f1": "F1, macro average",
    "precision": "Precision, macro average",
    "recall": "Recall, macro average",
    "loss": "Cross-entropy loss",
}
METRICS = tuple(METRIC_NAMES)
# Between which values a metric lies; another column of rows may have any.
BOUNDS = dict.fromkeys(METRICS, SHARE) | {"loss": (0.0, np.inf)}
FORMATS = {"markdown": "md", "latex": "tex", "csv": "csv"}  # {format: suffix of its files}
AVERAGE = "AVERAGE"
SHOWN_WARNINGS = 10  # of seeds that are left out; the rest is counted


def __getattr__(name: str):
    if name == "METHOD_NAMES":  # looked up at each import: methods from outside may have come
        return method_names()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def split_tables(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The tables that rows make: one for each group of `split_settings`. So transductive methods
    have tables of their own.

    If TUT2017 has its swapped folds, there is one more table without them. If a dataset has several
    versions, rows have the version as `version`.
    """
    tables = []
    for label, group in split_settings(mark_versions(rows)):
        tables.append((label, group))
        kept = without_swapped_folds(group)
        if len(kept) < len(group) and set(kept["dataset"]) == set(group["dataset"]):
            tables.append((", ".join(filter(None, [label, "TUT2017: fold 1 only"])), kept))
    return tables


def summarise(rows: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """One line for each dataset and method, then AVERAGE over all datasets.

    Columns: dataset, method, mean, std (over seeds, ddof 1), seeds, folds. A seed counts only if it
    has every fold that the dataset has in `rows`. AVERAGE is given to methods that have every
    dataset. Versions of a dataset are lines of their own, labelled; there is no AVERAGE then. What
    is left out gives a warning. Raises ValueError for rows of different settings, and where no
    seed is complete.
    """
    if metric not in METRICS:
        raise ValueError(f"there is no metric {metric!r}; there are {', '.join(METRICS)}")
    if metric not in rows or rows[metric].isna().all() and not rows["accuracy"].isna().all():
        raise ValueError(f"no row has a {metric}: choose another metric, or run the trials again")
    rows = mark_versions(rows)
    if len(groups := split_settings(rows)) > 1:
        labels = "; ".join(label for label, _ in groups)
        raise ValueError(
            f"these rows have different settings and are not averaged: {labels}. "
            "Use select(rows, ...)"
        )
    versioned = versioned_datasets(rows)
    rows = _without_duplicates(rows)
    cells, folds = _seed_means(rows.assign(dataset=dataset_labels(rows)), metric)
    average = _seed_averages(cells)
    if versioned:
        warnings.warn(
            f"the rows are of several versions of {', '.join(versioned)}, which stand apart; "
            f"so there is no {AVERAGE}",
            stacklevel=2,
        )
    elif cells["dataset"].nunique() > 1:
        cells = pd.concat([cells, average])
    table = cells.groupby(["dataset", "method"])["mean"].agg(["mean", "std", "count"]).reset_index()
    table = table.rename(columns={"count": "seeds"})
    table["folds"] = table["dataset"].map(folds).astype("Int64")
    return table.sort_values(["dataset", "method"], key=_order).reset_index(drop=True)


def _without_duplicates(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without those that share a cell with another row; a warning names the first of them."""
    rows = drop_repeats(rows)
    duplicate = is_duplicate(rows, ["version"])
    if duplicate.any():
        twice = rows[duplicate]
        cells = len(twice.drop_duplicates([*CELL, "version"]))
        more = f" ({cells} cells in all)" if cells > 1 else ""
        warnings.warn(f"left out: {describe_duplicates(twice)}{more}", stacklevel=3)
    return rows[~duplicate]


def _seed_means(rows: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, pd.Series]:
    """Complete seeds (dataset, method, seed, mean over folds), and each dataset's folds.

    Raises ValueError if no seed is complete.
    """
    by = ["dataset", "method", "seed"]
    cells = rows.groupby(by)[metric].agg(["mean", "count"]).reset_index()
    folds = rows.groupby("dataset")["fold"].nunique(dropna=False)
    complete = cells["count"] == cells["dataset"].map(folds)
    missing = [
        f"{cell.dataset}, {cell.method}, seed {cell.seed}: {cell.count} of {folds[cell.dataset]} "
        "folds; left out"
        for cell in cells[~complete].itertuples()
    ]
    if not complete.any():
        reason = "; ".join(missing[:3]) or "there are no rows of a single trial"
        raise ValueError(f"no seed of any method has all folds, so there is no table ({reason})")
    for text in missing[:SHOWN_WARNINGS]:
        warnings.warn(text, stacklevel=3)
    if more := missing[SHOWN_WARNINGS:]:
        warnings.warn(f"{len(more)} more seeds without all folds; left out", stacklevel=3)
    return cells.loc[complete, [*by, "mean"]], folds


def _seed_averages(cells: pd.DataFrame) -> pd.DataFrame:
    """Each seed's mean over datasets, for seeds that have every dataset."""
    average = cells.groupby(["method", "seed"])["mean"].agg(["mean", "count"]).reset_index()
    average = average[average["count"] == cells["dataset"].nunique()]
    return average.assign(dataset=AVERAGE)[["dataset", "method", "seed", "mean"]]


def intervals(rows: pd.DataFrame, by: list[str], metric: str = "accuracy") -> pd.DataFrame:
    """Mean over folds for each seed, then mean and Student's interval over seeds, for a study.

    by: columns, in the order of the index. Columns: mean, low, high, seeds, and diverged: trials
    whose training diverged. A seed with one of those is left out. Limits are cut at the metric's
    BOUNDS, and NaN for one seed and for equal ones (`seed_interval`). The caller must ensure that
    rows with the same `by` differ in no other setting.
    Raises ValueError for rows of several versions of a dataset, and for several rows of one trial.
    """
    rows = _check_distinct(rows, by)
    bad = rows.get("diverged", pd.Series("", rows.index)).fillna("") != ""
    rows = rows.assign(diverged=bad, value=rows[metric].astype(float).where(~bad))
    seeds = rows.groupby([*by, "seed"], sort=False)
    seeds = seeds.agg(
        value=("value", lambda values: values.mean(skipna=False)), diverged=("diverged", "sum")
    )
    lines = {}
    for key, cells in seeds.groupby(by if len(by) > 1 else by[0], sort=False):
        values = cells["value"].dropna()
        bounds = BOUNDS.get(metric, ANY_NUMBER)
        mean, low, high = seed_interval(values, bounds=bounds) if len(values) else (np.nan,) * 3
        lines[key] = [mean, low, high, len(values), int(cells["diverged"].sum())]
    columns = ["mean", "low", "high", "seeds", "diverged"]
    table = pd.DataFrame.from_dict(lines, orient="index", columns=columns)
    if len(by) > 1:
        table.index = pd.MultiIndex.from_tuples(lines, names=by)
    else:
        table.index = pd.Index([*lines], name=by[0])
    return table


def _check_distinct(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Rows, each once. Raises ValueError for versions of a dataset and for duplicates.

    Frames without `key`, which are not rows of a run, are returned unchanged.
    """
    if not {*CELL, "key"} <= set(rows):
        return rows
    rows = rows.reset_index(drop=True)
    if versioned := versioned_datasets(rows):
        raise ValueError(
            f"the rows are of several versions of {', '.join(versioned)}: select those of one by "
            "their dataset_digest"
        )
    rows = drop_repeats(rows)
    settings = label_settings(rows).add_prefix("setting ")
    named = rows[by].astype(str).add_prefix("by ")
    duplicate = is_duplicate(pd.concat([rows, settings, named], axis=1), [*settings, *named])
    if duplicate.any():
        raise ValueError(describe_duplicates(rows[duplicate]))
    return rows


def _order(column: pd.Series) -> pd.Series:
    """Keys to sort by: methods in their order, datasets by name, AVERAGE last."""
    if column.name == "method":
        return pd.Series(order_methods(column), column.index)
    return pd.Series(order_datasets(column), column.index)


def order_datasets(names) -> pd.Categorical:
    """[n] names of datasets as an ordered Categorical: by name, AVERAGE last."""
    categories = sorted(set(names), key=lambda name: (name == AVERAGE, name))
    return pd.Categorical(names, categories=categories, ordered=True)


def to_wide(table: pd.DataFrame, digits: int = DIGITS) -> pd.DataFrame:
    """The paper's form: datasets down, methods across, "mean ± std (n)" where n > 1."""

    def cell(line):
        spread = format_spread(line["std"], line["seeds"], digits)
        texts = (format_score(line["mean"], digits), spread, f"(n={line['seeds']})")
        return " ".join(filter(None, texts))

    methods, datasets = order_methods(table["method"]), order_datasets(table["dataset"])
    cells = table.assign(cell=table.apply(cell, axis=1))
    cells = cells.pivot(index="dataset", columns="method", values="cell")
    cells = cells.loc[[*datasets.categories], [*methods.categories]].fillna(NOTHING)
    return cells.rename(columns=method_names()).rename_axis(columns=None)


@dataclass(frozen=True)
class ResultTable:
    """One table of a run: rows of equal settings and their summary.

    number: 1 for a run's first table, and so on.
    """

    label: str  # what tells its settings from the other tables'; "" where there is only one
    rows: pd.DataFrame
    summary: pd.DataFrame
    metric: str = "accuracy"
    number: int = 1

    def wide(self, digits: int = DIGITS) -> pd.DataFrame:
        return to_wide(self.summary, digits).rename_axis(index=self.label or "dataset")

    @property
    def caption(self) -> str:
        """What the table shows, in sentences."""
        text = (
            f"{METRIC_NAMES[self.metric]}: mean over folds for each seed, then mean ± standard "
            "deviation over n seeds."
        )
        if is_transductive(self.rows["method"]).any():
            text += " These methods are transductive: they see the whole test batch."
        return f"{text} Settings: {self.label}." if self.label else text

    def numbers(self) -> pd.DataFrame:
        """One line for each dataset and method.

        Columns: dataset, method, SETTINGS, transductive (yes or no), metric, mean, std, n (seeds),
        low and high (Student's interval at 95 percent, cut at BOUNDS; empty for one seed and for
        equal ones), folds, table (the label). A setting that does not affect the method is empty.
        """
        summary = self.summary
        numbers = (summary[name].to_numpy(float) for name in ("mean", "std", "seeds"))
        low, high = interval_limits(*numbers, bounds=BOUNDS[self.metric])
        settings = _settings_of_methods(self.rows).reindex(summary["method"])
        found = {
            "metric": self.metric,
            "mean": summary["mean"],
            "std": summary["std"],
            "n": summary["seeds"],
            "low": low,
            "high": high,
            "folds": summary["folds"],
            "table": self.label,
        }
        lines = summary[["dataset", "method"]].join(settings.set_axis(summary.index))
        return lines.assign(**found)


def _settings_of_methods(rows: pd.DataFrame) -> pd.DataFrame:
    """SETTINGS and KIND of each method as text; "" for one that does not affect it."""
    labels = label_settings(rows).replace(ANY, "")[[*SETTINGS, KIND]]
    return labels.groupby(rows["method"]).agg(lambda column: "; ".join(sorted(set(column))))


def format_tables(tables: list[ResultTable], format: str = "markdown") -> str:
    """The tables as one text: "markdown", "latex" or "csv" (numbers, one table after the other)."""
    if format == "csv":
        return to_csv(pd.concat([table.numbers() for table in tables], ignore_index=True))
    if format == "latex":
        return "\n".join(map(_as_latex, tables))
    return "\n\n".join(to_markdown(table.wide()) for table in tables) + "\n"


def _as_latex(table: ResultTable) -> str:
    number = f"-{table.number}" if table.number > 1 else ""
    return to_latex(table.wide(), table.caption, f"tab:{table.metric}{number}")


def result_tables(rows: pd.DataFrame, metric: str = "accuracy") -> list[ResultTable]:
    """The summary of each table of `split_tables`.

    A table without any complete seed gives a warning. Raises ValueError if all tables are so.
    """
    tables, problems = [], []
    for label, group in split_tables(rows):
        try:
            summary = summarise(group, metric)
        except ValueError as error:
            problems.append(f"{label}: {error}" if label else str(error))
        else:
            tables.append(ResultTable(label, group, summary, metric, len(tables) + 1))
    if not tables:
        raise ValueError("; ".join(problems) or "there are no rows")
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return tables


def write_tables(run, metric: str = "accuracy", tables=None) -> list[Path]:
    """Write `tables/results.{md,tex,csv}` of a run, one set for each table; the paths.

    tables: `result_tables` of the run's rows, where they are at hand.
    """
    paths = []
    for table in tables or result_tables(load_rows(run), metric):
        number = f"-{table.number}" if table.number > 1 else ""
        for format, suffix in FORMATS.items():
            path = run_folder(run) / "tables" / f"results{number}.{suffix}"
            atomic_write(path, format_tables([table], format))
            paths.append(path)
    return paths
