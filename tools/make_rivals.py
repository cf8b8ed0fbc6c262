"""Run all methods on frozen features at 1 to 16 shots, in both regimes.

    python tools/make_rivals.py --esc10 ../shared/datasets/ESC10

writes notebooks/data/rivals.csv, a line for each trial. COOP and COCOOP learn at the text encoder's
input and take a hundred times as long: they are left out, unless --methods names them. Trials are
kept as rows of the run `rivals`: what was stopped goes on, and `palmkit leaderboard rivals` shows
all of it.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import time
from pathlib import Path

import pandas as pd

from palmkit import load_model
from palmkit.experiments import make_grid, run_trials
from palmkit.experiments.selection import has_choices
from palmkit.experiments.trials import METHOD_NAMES
from palmkit.methods import get_method
from palmkit.storage import atomic_write, notebooks_folder
from palmkit_synthetic.tasks import DEFAULT_TASKS

SLOW = ("coop", "cocoop")
METHODS = [name for name in METHOD_NAMES if name not in (*SLOW, "palm-dagger")]
SHOTS = (1, 2, 4, 8, 16)
SEEDS = (0, 1, 2, 3, 4)
COLUMNS = (
    *("dataset", "fold", "seed", "method", "regime", "shots", "n_train", "n_test"),
    *("accuracy", "loss", "fit_seconds", "chosen", "diverged", "weights"),
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", nargs="+", default=list(DEFAULT_TASKS), metavar="NAME")
    parser.add_argument("--esc10", metavar="FOLDER", help="ESC-10, to report; it chooses nothing")
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--shots", type=int, nargs="+", default=list(SHOTS))
    parser.add_argument("--folds", default="first", choices=["first", "all"])
    parser.add_argument("--checkpoint", default="mini")
    parser.add_argument("--run", default="rivals", help="rows are kept in runs/RUN")
    parser.add_argument("--to", type=Path, default=notebooks_folder() / "data" / "rivals.csv")
    return parser.parse_args()


def list_trials(given: argparse.Namespace, datasets: list[str]) -> list:
    """The trials in both regimes. With one shot nothing can be chosen: one regime is enough."""
    choosing = [name for name in given.methods if has_choices(get_method(name))]
    trials = []
    for shots in given.shots:
        trials += make_grid(given.methods, datasets, given.folds, given.seeds, shots=shots)
        if shots > 1 and choosing:
            grid = dict(shots=shots, regime="support")
            trials += make_grid(choosing, datasets, given.folds, given.seeds, **grid)
    # Each once: zero-shot is the same at any number of shots.
    return [*{repr(trial): trial for trial in trials}.values()]


def rivals_table(rows: list[dict]) -> pd.DataFrame:
    """COLUMNS of rows, one line a trial."""
    lines = []
    for row in rows:
        line = {name: row.get(name) for name in COLUMNS}
        chosen = row.get("chosen") or {}
        line["chosen"] = " ".join(f"{name}={value}" for name, value in chosen.items())
        line["dataset"] = Path(row["dataset"]).name
        line["fit_seconds"] = row["seconds"]["fit"]
        line["diverged"] = bool(row.get("diverged"))
        line["weights"] = row["weights"][:10]
        lines.append(line)
    return pd.DataFrame(lines, columns=list(COLUMNS)).round({"accuracy": 6, "loss": 4})


def main() -> None:
    given = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    start = time.perf_counter()
    model = load_model(given.checkpoint, "cpu")
    command = shlex.join(["python", "tools/make_rivals.py", *sys.argv[1:]])
    head = f"# {model.note or given.checkpoint}. Written by: {command}\n"
    rows = []
    for dataset in [*given.datasets, *([given.esc10] if given.esc10 else [])]:
        rows += run_trials(list_trials(given, [dataset]), model, given.run)
        text = rivals_table(rows).to_csv(index=False, lineterminator="\n")
        atomic_write(given.to, head + text)
        print(f"{Path(dataset).name}: {len(rows)} rows so far", flush=True)
    print(f"{len(rows)} rows in {given.to}; {(time.perf_counter() - start) / 60:.0f} min")


if __name__ == "__main__":
    main()
