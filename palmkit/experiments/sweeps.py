"""The sweep of shots, start and learning rate of every method, as one table.

It is too long for a page: `tools/make_sweeps.py` runs it and writes the table, and notebook 9 reads
the table.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from palmkit.experiments.trials import Trial, make_grid
from palmkit.storage import atomic_write, notebooks_folder

DATASETS = ("VocalSounds", "GermanEmotions", "MusicStyles")
SEEDS = (0, 1, 2)
SHOTS = (1, 2, 4, 8, 16)
NOISE = "noise"  # the published start
STARTS = {
    "coop": (NOISE, "text"),
    "cocoop": (NOISE, "text"),
    "palm": (NOISE, "text", "audio"),
}
RATES = {  # COCOOP's steps cost the most
    "coop": (0.0005, 0.005, 0.05, 0.5),
    "cocoop": (0.005, 0.05, 0.5),
    "palm": (0.0005, 0.005, 0.05, 0.5),
}
SETTINGS = ("dataset", "fold", "seed", "method", "start", "shots", "lr", "epochs")
COLUMNS = (
    *SETTINGS,
    *("n_train", "n_test", "steps", "accuracy", "loss_at_end", "mean_lambda", "diverged"),
    "weights",
)
DIGEST = 10  # characters of the model's digest that are kept


def sweep_trials(
    datasets=DATASETS, seeds=SEEDS, shots=SHOTS, methods=tuple(STARTS), folds="first", epochs=50
) -> list[Trial]:
    """The trials of the sweep: zero-shot, and each method at each of its STARTS and RATES.

    folds: as in `make_grid`. "first" saves time.
    """
    grid = dict(datasets=datasets, folds=folds)
    trials = make_grid(["zeroshot"], **grid, seeds=seeds[:1])
    for method in methods:
        for start in STARTS[method]:
            options = {} if start == NOISE else {"init": start}
            for lr in RATES[method]:
                for number in shots:
                    settings = dict(shots=number, lr=lr, epochs=epochs, options=options)
                    trials += make_grid([method], **grid, seeds=seeds, **settings)
    return trials


def sweep_table(rows: list[dict]) -> pd.DataFrame:
    """COLUMNS of rows of `sweep_trials`, one line a trial.

    start: "" for zero-shot. loss_at_end: the mean of the last epoch's steps. mean_lambda: over
    classes, of PALM. A number that a trial does not have is NaN.
    """
    lines = []
    for row in rows:
        losses = row.get("losses") or []
        last = losses[-(len(losses) // max(row["epochs"], 1)) :] if losses else []
        learned = row["method"] in STARTS
        line = {name: row[name] for name in COLUMNS if name in row}
        line |= {
            "dataset": Path(row["dataset"]).name,
            "start": row["options"].get("init", NOISE) if learned else "",
            "lr": row["lr"] if learned else np.nan,
            "steps": len(losses),
            "loss_at_end": np.mean(last) if last else np.nan,
            "mean_lambda": np.mean(row["lambdas"]) if row.get("lambdas") else np.nan,
            "diverged": bool(row.get("diverged")),
            "weights": row["weights"][:DIGEST],
        }
        lines.append(line)
    return pd.DataFrame(lines, columns=list(COLUMNS))


def write_sweeps(table: pd.DataFrame, path: Path, head: str = "") -> None:
    """Write the table as CSV. head: a line on where it comes from."""
    rounded = table.round({"accuracy": 6, "loss_at_end": 4, "mean_lambda": 4})
    text = rounded.to_csv(index=False, lineterminator="\n")
    atomic_write(path, f"# {head}\n{text}")


def sweeps_path() -> Path:
    """Where notebook 9 has its table."""
    return notebooks_folder() / "data" / "sweeps.csv"


def read_sweeps(path: Path | None = None) -> pd.DataFrame:
    """The table that `write_sweeps` wrote; that of notebook 9 by default."""
    table = pd.read_csv(path or sweeps_path(), comment="#", dtype={"weights": str})
    return table.fillna({"start": ""})


def count_missing_trials(table: pd.DataFrame, trials: list[Trial] | None = None) -> int:
    """How many trials (by default, all of the sweep) a table does not have."""
    keys = ["dataset", "fold", "seed", "method", "start", "shots", "lr"]
    there = {_key(line) for line in table[keys].to_dict("records")}
    wanted = sweep_trials() if trials is None else trials
    lines = sweep_table([_as_row(trial) for trial in wanted])[keys].to_dict("records")
    return len({_key(line) for line in lines} - there)


def _key(line: dict) -> tuple:
    """The settings of a line as text. Whole numbers may come as floats, where a column has gaps."""
    numbers = int | float | np.number
    values = [float(v) if isinstance(v, numbers) else v for v in line.values()]
    return tuple("" if pd.isna(value) else str(value) for value in values)


def _as_row(trial: Trial) -> dict:
    names = ("dataset", "fold", "seed", "method", "shots", "lr", "epochs", "options")
    return {name: getattr(trial, name) for name in names} | {"weights": ""}
