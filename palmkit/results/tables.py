"""Rows to tables: mean over folds per seed, then mean and standard deviation over seeds, as in the paper."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from palmkit.experiments.rows import read_row
from palmkit.experiments.trials import TRAINED
from palmkit.methods import UNLEARNED
from palmkit.published import without_swapped_folds
from palmkit.results.statistics import seed_interval
from palmkit.storage import atomic_write, run_folder

METHOD_NAMES = {
    "zeroshot": "Zero-shot", "coop": "COOP", "cocoop": "COCOOP", "palm": "PALM", "palm-dagger": "PALM†",
}  # fmt: skip
METRICS = ("accuracy", "f1", "precision", "recall", "loss")
AVERAGE = "AVERAGE"


def load_rows(run) -> pd.DataFrame:
    """All rows of a run, one a unit, with every field a row has. Raises FileNotFoundError if there is none."""
    folder = run_folder(run) / "rows"
    rows = [row for path in sorted(folder.glob("*/*.json")) if (row := read_row(path)) is not None]
    if not rows:
        raise FileNotFoundError(
            f"there are no rows in {folder}: run `python -m palmkit run --name {Path(str(run)).name}`"
        )
    return pd.DataFrame(rows)


def select(rows: pd.DataFrame, **settings) -> pd.DataFrame:
    """Rows with these settings: select(rows, shots=16, method=["palm", "coop"])."""
    for column, wanted in settings.items():
        rows = rows[rows[column].isin(wanted if isinstance(wanted, list | tuple) else [wanted])]
    return rows


SETTINGS = (
    "shots", "protocol", "parts", "epochs", "batch_size", "lr", "momentum", "crop", "crop_seed", "options", "weights",
    "rates", "autocast",
)  # fmt: skip


def split_settings(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Rows in groups of equal settings, each with a label of what tells it from the others: "shots=4, epochs=50".

    Rows of a method that learns nothing have no settings of training and stand in every group that they fit otherwise.
    """
    keys = rows.reindex(columns=list(SETTINGS)).astype(str)
    keys["parts"] = keys["parts"].replace("nan", "none")  # rows of before there were any
    keys["autocast"] = keys["autocast"].replace("nan", "False")
    keys.loc[rows["method"].isin(UNLEARNED), [*TRAINED, "parts", "autocast"]] = "any"
    keys.loc[(keys["protocol"] != "released") | rows["method"].isin(UNLEARNED), "rates"] = "any"
    keys = keys[
        [column for column in SETTINGS if keys.loc[keys[column] != "any", column].nunique() > 1]
    ]
    if keys.columns.empty:
        return [("", rows)] if len(rows) else []
    groups, placed = [], pd.Series(False, rows.index)
    for values in (
        keys.drop_duplicates().sort_values(list(keys), key=lambda c: c == "any").to_numpy()
    ):
        fits = ((keys == values) | (keys == "any")).all(axis=1)
        if not (placed | ~fits).all():
            told = [
                f"{c}={v}" for c, v in zip(keys, values, strict=True) if (c, v) != ("rates", "any")
            ]
            groups.append((", ".join(told), rows[fits]))
            placed |= fits
    return groups


def split_tables(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The tables that rows make: one for each group of `split_settings`, and where TUT2017 has its swapped folds, one
    more without them."""
    tables = []
    for label, group in split_settings(rows):
        tables.append((label, group))
        kept = without_swapped_folds(group)
        if len(kept) < len(group) and set(kept["dataset"]) == set(group["dataset"]):
            tables.append((", ".join(filter(None, [label, "TUT2017: fold 1 only"])), kept))
    return tables


def summarise(rows: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """One line a dataset and method: mean, std (over seeds, ddof 1), seeds, folds; then AVERAGE over all datasets.

    Each seed counts only if it has every fold that the others have; incomplete ones are left out with a warning, and
    AVERAGE is given only to a method that has every dataset. Rows of different settings are not mixed: ValueError.
    """
    if metric not in METRICS:
        raise ValueError(f"there is no metric {metric!r}; there are {', '.join(METRICS)}")
    if len(groups := split_settings(rows)) > 1:
        labels = "; ".join(label for label, _ in groups)
        raise ValueError(
            f"these rows have different settings and are not averaged: {labels}. Use select(rows, ...)"
        )
    cells = rows.groupby(["dataset", "method", "seed"])[metric].agg(["mean", "count"]).reset_index()
    folds = rows.groupby("dataset")["fold"].nunique(dropna=False)
    whole = cells["count"] == cells["dataset"].map(folds)
    for cell in cells[~whole].itertuples():
        warnings.warn(
            f"{cell.dataset}, {cell.method}, seed {cell.seed}: {cell.count} of {folds[cell.dataset]} folds; left out",
            stacklevel=2,
        )
    cells = cells[whole]
    everything = cells["dataset"].nunique()
    average = cells.groupby(["method", "seed"])["mean"].agg(["mean", "count"]).reset_index()
    average = average[average["count"] == everything].assign(dataset=AVERAGE)
    columns = ["dataset", "method", "seed", "mean"]
    lines = pd.concat([cells[columns], average[columns]]) if everything > 1 else cells[columns]
    table = lines.groupby(["dataset", "method"])["mean"].agg(["mean", "std", "count"]).reset_index()
    table = table.rename(columns={"count": "seeds"})
    table["folds"] = table["dataset"].map(folds).astype("Int64")
    return table.sort_values(["dataset", "method"], key=_order).reset_index(drop=True)


def setting(rows: pd.DataFrame, name: str, default=None) -> pd.Series:
    """A setting of each row, be it a field of a unit or one of its options; `default` where it was not given."""
    return (
        rows[name]
        if name in rows
        else rows["options"].map(lambda options: options.get(name, default))
    )


def intervals(rows: pd.DataFrame, by: list[str], metric: str = "accuracy") -> pd.DataFrame:
    """Mean over folds for each seed, then mean and Student's interval over seeds: one line a value of `by`.

    by: columns, in the order of the index. Columns: mean, low, high, seeds, and diverged, units whose training did; a
    seed with one of those counts for nothing. For studies, whose rows differ in settings: what `by` does not name must
    not differ, and whoever calls sees to that.
    """
    bad = rows.get("diverged", pd.Series("", rows.index)).fillna("") != ""
    rows = rows.assign(diverged=bad, value=rows[metric].astype(float).where(~bad))
    seeds = rows.groupby([*by, "seed"], sort=False).agg(value=("value", lambda v: v.mean(skipna=False)),
                                                        diverged=("diverged", "sum"))  # fmt: skip
    lines = {}
    for key, cells in seeds.groupby(by if len(by) > 1 else by[0], sort=False):
        values = cells["value"].dropna()
        mean, low, high = seed_interval(values) if len(values) else (np.nan,) * 3
        lines[key] = [mean, low, high, len(values), int(cells["diverged"].sum())]
    table = pd.DataFrame.from_dict(
        lines, orient="index", columns=["mean", "low", "high", "seeds", "diverged"]
    )
    table.index = (
        pd.MultiIndex.from_tuples(lines, names=by)
        if len(by) > 1
        else pd.Index([*lines], name=by[0])
    )
    return table


def _order(column: pd.Series) -> pd.Series:
    """Methods as in the paper, AVERAGE last."""
    if column.name == "method":
        known = list(METHOD_NAMES)
        return column.map(lambda name: f"{known.index(name):02d}" if name in known else f"99{name}")
    return column.map(lambda name: f"~{name}" if name == AVERAGE else name)


def to_wide(table: pd.DataFrame, digits: int = 4) -> pd.DataFrame:
    """The paper's form: datasets down, methods across, "mean ± std (n)" where there is more than one seed."""

    def cell(line):
        spread = f" ± {line['std']:.{digits}f}" if line["seeds"] > 1 else ""
        return f"{line['mean']:.{digits}f}{spread} (n={line['seeds']})"

    cells = table.assign(cell=table.apply(cell, axis=1)).pivot(
        index="dataset", columns="method", values="cell"
    )
    methods = sorted(
        cells.columns, key=lambda name: [*METHOD_NAMES].index(name) if name in METHOD_NAMES else 99
    )
    cells = cells.loc[
        sorted(cells.index, key=lambda name: (name == AVERAGE, name)), methods
    ].fillna("–")
    return cells.rename(columns=METHOD_NAMES).rename_axis(columns=None)


def to_markdown(table: pd.DataFrame) -> str:
    lines = [[table.index.name or "", *table.columns], ["---"] * (1 + len(table.columns))]
    lines += [[index, *values] for index, values in zip(table.index, table.to_numpy(), strict=True)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def to_latex(table: pd.DataFrame) -> str:
    text = table.astype(str).apply(
        lambda column: column.str.replace("±", r"$\pm$").str.replace("–", "--")
    )
    text.columns = [name.replace("†", r"$^\dagger$") for name in table.columns]
    text.index = [str(name).replace("_", r"\_") for name in table.index]
    return text.to_latex(column_format="l" + "c" * len(text.columns), escape=False)


FORMATS = {"markdown": to_markdown, "latex": to_latex, "csv": lambda table: table.to_csv()}


def write_tables(run, metric: str = "accuracy") -> list[Path]:
    """Write `tables/results.{md,tex,csv}` of a run (one set for each table of `split_tables`); the paths."""
    paths = []
    for n, (label, rows) in enumerate(split_tables(load_rows(run))):
        table = to_wide(summarise(rows, metric)).rename_axis(index=label or "dataset")
        for name, suffix in (("markdown", "md"), ("latex", "tex"), ("csv", "csv")):
            paths.append(run_folder(run) / "tables" / f"results{f'-{n + 1}' if n else ''}.{suffix}")
            atomic_write(paths[-1], FORMATS[name](table))
    return paths
