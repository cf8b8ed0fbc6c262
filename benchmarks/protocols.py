"""Frozen against released, and one random part at a time, on one dataset: a CSV with a line a unit.

It made `notebooks/data/esc10_protocols.csv`, which notebook 8 reads; the command is in the file's
first line. Rows are also kept as those of the run `protocols`, so it can be stopped and goes on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

import pandas as pd

from palmkit import load_pengi
from palmkit.experiments.run import run_trials
from palmkit.experiments.trials import PAPER_METHODS, make_grid
from palmkit.models.checkpoint import PENGI_CONFIG, read_config
from palmkit.models.pengi import MINI
from palmkit.protocols.train_mode import STOCHASTIC
from palmkit.storage import atomic_write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", help="a folder, or a name in PALMKIT_DATA")
    parser.add_argument("--checkpoint", default="mini")
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--switched", type=int, default=2, help="so many folds have one part at a time, too"
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--to", type=Path, required=True, metavar="CSV")
    given = parser.parse_args()

    start, few = time.perf_counter(), given.folds[: given.switched]
    pengi, grid = load_pengi(given.checkpoint, "cpu"), dict(seeds=given.seeds, epochs=given.epochs)
    lines = run("frozen", pengi, make_grid(PAPER_METHODS, [given.dataset], given.folds, **grid))
    grid["protocol"] = "released"
    lines += run("released", pengi, make_grid(PAPER_METHODS, [given.dataset], given.folds, **grid))
    for part in STOCHASTIC:
        units = make_grid(["coop", "palm"], [given.dataset], few, **grid, stochastic=[part])
        lines += run(f"only {part}", pengi, units)
    units = make_grid(
        ["coop", "palm"],
        [given.dataset],
        few,
        **grid,
        stochastic=[part for part in STOCHASTIC if part != "bn0"],
    )
    lines += run("all but bn0", pengi, units)
    if (
        given.checkpoint == "mini"
    ):  # pre-trained with less dropout than PENGI: what would PENGI's rates do?
        config = read_config(MINI)
        config |= {"projection_dropout": PENGI_CONFIG["projection_dropout"]}
        config["audio"] |= {"drop_path_rate": PENGI_CONFIG["audio"]["drop_path_rate"]}
        strong = load_pengi("mini", "cpu", config)
        lines += run(
            "released, PENGI's rates",
            strong,
            make_grid(["coop", "palm"], [given.dataset], few, **grid),
        )
    command = f"python benchmarks/protocols.py {shlex.join(sys.argv[1:])}"
    head = f"# {pengi.note or given.checkpoint}. Written by: {command}\n"
    atomic_write(given.to, head + pd.DataFrame(lines).to_csv(index=False, lineterminator="\n"))
    print(f"{len(lines)} lines, {time.perf_counter() - start:.0f} s")


def run(setting: str, pengi, units) -> list[dict]:
    """The rows of these units, of which the file keeps this much."""
    rows = run_trials(units, pengi, "protocols" if "rates" not in setting else "protocols-rates")
    names = ("dataset", "method", "fold", "seed", "shots", "epochs", "n_test")
    return [
        {"setting": setting, "weights": row["weights"][:10]}
        | {name: row[name] for name in names}
        | {
            "accuracy": round(row["accuracy"], 4),
            "mean_lambda": round(pd.Series(row.get("lambdas", [])).mean(), 4),
        }
        for row in rows
    ]


if __name__ == "__main__":
    main()
