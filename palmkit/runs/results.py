"""Rows to tables: mean over folds per seed, then mean and standard deviation over seeds, as in the paper."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from palmkit.methods import UNLEARNED
from palmkit.published import SWAPPED_FOLDS, paper_datasets, published_rows, without_swapped_folds
from palmkit.runs.statistics import difference_margin, seed_interval
from palmkit.runs.units import TRAINED, Unit, load_tensors, read_row
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
    keys = keys[[column for column in SETTINGS if keys.loc[keys[column] != "any", column].nunique() > 1]]
    if keys.columns.empty:
        return [("", rows)] if len(rows) else []
    groups, placed = [], pd.Series(False, rows.index)
    for values in keys.drop_duplicates().sort_values(list(keys), key=lambda c: c == "any").to_numpy():
        fits = ((keys == values) | (keys == "any")).all(axis=1)
        if not (placed | ~fits).all():
            told = [f"{c}={v}" for c, v in zip(keys, values, strict=True) if (c, v) != ("rates", "any")]
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
        raise ValueError(f"these rows have different settings and are not averaged: {labels}. Use select(rows, ...)")
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
    return rows[name] if name in rows else rows["options"].map(lambda options: options.get(name, default))


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
    table = pd.DataFrame.from_dict(lines, orient="index", columns=["mean", "low", "high", "seeds", "diverged"])
    table.index = pd.MultiIndex.from_tuples(lines, names=by) if len(by) > 1 else pd.Index([*lines], name=by[0])
    return table


def class_frame(rows: pd.DataFrame, run, pengi) -> pd.DataFrame:
    """One line a class of each PALM row: its lambda and what came of it.

    dataset, fold, seed, shots, class_name, initial, learned, recall (share of its test clips that are right), z_norm,
    angle (degrees between f and f'), and zeroshot: the recall of the zero-shot row of the same fold, if `rows` has it.
    """
    known = {}
    for _, row in rows[rows["method"] == "zeroshot"].iterrows():
        known[row["dataset"], str(row["fold"])] = _recalls(load_tensors(row, run), len(row["class_names"]))
    frames = []
    for _, row in rows[rows["method"] == "palm"].iterrows():
        tensors, f = load_tensors(row, run), pengi.encode_text(row["class_names"]).cpu()
        z, weight = tensors["prompt.ctx"], torch.tensor(row["lambdas"])[:, None]
        cosine = F.cosine_similarity(f, (1 - weight) * f + weight * z).clamp(-1, 1)
        frame = {name: row[name] for name in ("dataset", "fold", "seed", "shots")} | {
            "class_name": row["class_names"], "initial": row["lambdas_initial"], "learned": row["lambdas"],
            "recall": _recalls(tensors, len(f)), "zeroshot": known.get((row["dataset"], str(row["fold"])), np.nan),
            "z_norm": z.norm(dim=1).numpy(), "angle": torch.rad2deg(cosine.acos()).numpy(),
        }  # fmt: skip
        frames.append(pd.DataFrame(frame))
    return pd.concat(frames, ignore_index=True)


def _recalls(tensors, classes):
    right = (tensors["logits"].argmax(1) == tensors["labels"]).double()
    return np.array([right[tensors["labels"] == label].mean().item() for label in range(classes)])


def right_clips(rows: pd.DataFrame, run) -> np.ndarray:
    """[clips]: on which share of its seeds a method is right about each test clip, the folds one after the other.

    rows: of one dataset, method and setting; what `paired_bootstrap` wants of each side. ValueError for a mixture.
    """
    if len(rows[["dataset", "method"]].drop_duplicates()) != 1 or rows[["fold", "seed"]].duplicated().any():
        raise ValueError("these rows are not of one dataset, method and setting: use select(rows, ...)")
    folds: dict = {}
    for _, row in rows.iterrows():
        kept = load_tensors(row, run)
        folds.setdefault(str(row["fold"]), []).append((kept["logits"].argmax(1) == kept["labels"]).double().numpy())
    return np.concatenate([np.mean(folds[fold], axis=0) for fold in sorted(folds)])


def lambda_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a learned lambda: dataset, fold, seed, class_name, initial, learned."""
    rows = rows[rows["method"] == "palm"]
    columns = {"class_names": "class_name", "lambdas_initial": "initial", "lambdas": "learned"}
    frame = rows[["dataset", "fold", "seed", *columns]].explode(list(columns)).rename(columns=columns)
    return frame.astype({"initial": float, "learned": float}).reset_index(drop=True)


def _order(column: pd.Series) -> pd.Series:
    """Methods as in the paper, AVERAGE last."""
    if column.name == "method":
        known = list(METHOD_NAMES)
        return column.map(lambda name: f"{known.index(name):02d}" if name in known else f"99{name}")
    return column.map(lambda name: f"~{name}" if name == AVERAGE else name)


def wide(table: pd.DataFrame, digits: int = 4) -> pd.DataFrame:
    """The paper's form: datasets down, methods across, "mean ± std (n)" where there is more than one seed."""

    def cell(line):
        spread = f" ± {line['std']:.{digits}f}" if line["seeds"] > 1 else ""
        return f"{line['mean']:.{digits}f}{spread} (n={line['seeds']})"

    cells = table.assign(cell=table.apply(cell, axis=1)).pivot(index="dataset", columns="method", values="cell")
    methods = sorted(cells.columns, key=lambda name: [*METHOD_NAMES].index(name) if name in METHOD_NAMES else 99)
    cells = cells.loc[sorted(cells.index, key=lambda name: (name == AVERAGE, name)), methods].fillna("–")
    return cells.rename(columns=METHOD_NAMES).rename_axis(columns=None)


def compare(rows: pd.DataFrame, metric: str = "accuracy", swapped_folds: bool = True) -> pd.DataFrame:
    """Ours beside the released logs, dataset by dataset: ours, paper, difference, seeds and folds of ours.

    A dataset that the paper has not, has no paper's number. The paper's AVERAGE is over its eleven datasets, so it is
    joined only when ours is over the same. swapped_folds=False leaves TUT2017's folds 2 to 4 out, on both sides.
    """
    columns = ["dataset", "method", "ours", "ours_std", "paper", "paper_std", "difference", "seeds", "folds"]
    return _join(*_sides(rows, swapped_folds), metric)[columns]


def _sides(rows, swapped_folds):
    sides = rows, published_rows()
    return sides if swapped_folds else tuple(map(without_swapped_folds, sides))


def _join(rows, logs, metric):
    ours, paper = summarise(rows, metric), summarise(logs, metric)
    if set(ours["dataset"]) - {AVERAGE} != set(paper["dataset"]) - {AVERAGE}:
        paper = paper[paper["dataset"] != AVERAGE]
    columns = {"mean_paper": "paper", "std_paper": "paper_std", "mean": "ours", "std": "ours_std"}
    joined = ours.merge(paper, on=["dataset", "method"], how="left", suffixes=("", "_paper")).rename(columns=columns)
    joined["difference"] = joined["ours"] - joined["paper"]
    return joined


# The paper's settings are a unit's defaults; of a protocol, its text has one and its code another, and both count.
PUBLISHED_SETTINGS = {name: getattr(Unit("palm", ""), name) for name in (*TRAINED, "crop", "options")}
REPRODUCED_WITHIN = 0.03  # the claim at stake is PALM's lead over the next method, 0.031 on the mean of eleven datasets
UNLEARNED_WITHIN = 0.01  # zero-shot has no seeds: only the random crops of long clips move its mean, and by less


def judge(rows: pd.DataFrame, swapped_folds: bool = True) -> pd.DataFrame:
    """The accuracies of `compare` and what their difference means: margin, seeds of both sides, verdict and reason.

    margin is what the seeds explain at 95 percent (`difference_margin`). A dataset's difference is "within noise" or
    "outside noise" ("no spread": no seeds to tell by), and that never makes or breaks a reproduction: one in twenty is
    outside by chance. A method is judged by its mean over the paper's eleven datasets alone. It is "reproduced" if the
    seeds explain the difference and difference ± margin stays within ± REPRODUCED_WITHIN, "not reproduced" if they do
    not explain it, "undecided" if the margin is too wide to say. Zero-shot has no seeds, and its margin is
    UNLEARNED_WITHIN. Rows of a model with a note of its own, or with other settings, folds or test clips than the
    paper's: "not comparable".
    """
    rows, logs = _sides(rows, swapped_folds)
    table = _join(rows, logs, "accuracy").rename(columns={"seeds_paper": "paper_seeds"})
    ours, theirs = (dict(iter(side.groupby(["dataset", "method"]))) for side in (rows, logs))
    hindrance = functools.cache(lambda *cell: _hindrance(ours[cell], theirs.get(cell, logs[:0])))
    lines = []
    for line in table.itertuples(index=False):
        whole = line.dataset == AVERAGE
        chosen = table["dataset"] != AVERAGE if whole else table["dataset"] == line.dataset
        cells = table[chosen & (table["method"] == line.method)]
        margin = difference_margin(*(cells[name] for name in ("ours_std", "seeds", "paper_std", "paper_seeds")))
        margin = UNLEARNED_WITHIN if whole and line.method in UNLEARNED else margin
        reasons = [hindrance(name, line.method) for name in cells["dataset"]]  # what hinders one hinders the mean
        reason = next(filter(None, reasons), "" if line.paper >= 0 else "the paper's mean is over other datasets")
        found = "not comparable" if reason else verdict(line.difference, margin, whole)
        lines.append(line._asdict() | {"margin": margin, "verdict": found, "reason": reason})
    numbers = ["ours", "paper", "difference", "margin", "seeds", "paper_seeds"]
    return pd.DataFrame(lines)[["dataset", "method", *numbers, "verdict", "reason"]].astype({"paper_seeds": "Int64"})


def verdict(difference: float, margin: float, whole: bool = True) -> str:
    """The rule of `judge` for a mean over the eleven datasets (whole), or for one dataset's difference."""
    if not whole:
        return "no spread" if np.isnan(margin) else "within noise" if abs(difference) <= margin else "outside noise"
    if abs(difference) > margin:
        return "not reproduced"
    return "reproduced" if abs(difference) + margin <= REPRODUCED_WITHIN else "undecided"


def verdict_table(rows: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """`judge` as text for a page; twice where TUT2017 is among the datasets, with its swapped folds and without."""
    table = judge(rows)
    if set(rows["dataset"]) & set(SWAPPED_FOLDS):
        table = pd.concat({"all folds": table, "TUT2017: fold 1 only": judge(rows, swapped_folds=False)})
    table = table.map(lambda value: format(value, f".{digits}f") if isinstance(value, float) else str(value))
    return table.replace({"nan": "–", "<NA>": "–"})


def _hindrance(ours: pd.DataFrame, logs: pd.DataFrame) -> str:
    """Why rows of one dataset and method cannot stand beside the logs' rows of the same; empty if they can."""
    dataset, method = ours[["dataset", "method"]].iloc[0]
    own = "model_note" if "model_note" in ours else "note"  # a sentence of the user's own hinders nothing
    if own in ours and (notes := [note for note in ours[own].fillna("").unique() if note]):
        return "; ".join(notes)
    if logs.empty:
        return f"the logs have no {method} on {dataset}"
    folds = ours["fold"].fillna(0).astype(int)  # one split: None in our rows, 0 in the logs
    if missing := sorted(set(logs["fold"]) ^ set(folds)):
        return f"{dataset}: only one side has fold {', '.join(map(str, missing))}"
    clips = folds.map(lambda fold: paper_datasets()[dataset].test_clips[max(fold, 1) - 1])
    if "n_test" in ours and (other := ours["n_test"] != clips).any():
        return f"{dataset}: {ours['n_test'][other].iloc[0]} test clips, the paper's are {clips[other].iloc[0]}"
    for name in PUBLISHED_SETTINGS if method not in UNLEARNED else set(PUBLISHED_SETTINGS) - set(TRAINED):
        if name in ours and (other := [value for value in ours[name] if value != PUBLISHED_SETTINGS[name]]):
            return f"{name}={other[0]}, the paper's is {PUBLISHED_SETTINGS[name]}"
    return ""


def to_markdown(table: pd.DataFrame) -> str:
    lines = [[table.index.name or "", *table.columns], ["---"] * (1 + len(table.columns))]
    lines += [[index, *values] for index, values in zip(table.index, table.to_numpy(), strict=True)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def to_latex(table: pd.DataFrame) -> str:
    text = table.astype(str).apply(lambda column: column.str.replace("±", r"$\pm$").str.replace("–", "--"))
    text.columns = [name.replace("†", r"$^\dagger$") for name in table.columns]
    text.index = [str(name).replace("_", r"\_") for name in table.index]
    return text.to_latex(column_format="l" + "c" * len(text.columns), escape=False)


FORMATS = {"markdown": to_markdown, "latex": to_latex, "csv": lambda table: table.to_csv()}


def write_tables(run, metric: str = "accuracy") -> list[Path]:
    """Write `tables/results.{md,tex,csv}` of a run (one set for each table of `split_tables`); the paths."""
    paths = []
    for n, (label, rows) in enumerate(split_tables(load_rows(run))):
        table = wide(summarise(rows, metric)).rename_axis(index=label or "dataset")
        for name, suffix in (("markdown", "md"), ("latex", "tex"), ("csv", "csv")):
            paths.append(run_folder(run) / "tables" / f"results{f'-{n + 1}' if n else ''}.{suffix}")
            atomic_write(paths[-1], FORMATS[name](table))
    return paths
