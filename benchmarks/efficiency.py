"""Time and memory of the four methods at PENGI's size (random weights), and of mini-PENGI.

    python benchmarks/efficiency.py

writes notebooks/data/efficiency.csv, which notebook 12 reads: on the CPU with one thread, two and
all cores, and on a GPU where there is one. About 10 minutes on two cores, a minute on a GPU. What a
step costs does not depend on the weights. It needs a quiet machine: with other work on it this
refuses, unless --any-load is given. Each row has the load at its start.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pandas as pd
import torch
from speed import ESC50
from straightforward import Learner

from palmkit import load_pengi
from palmkit.experiments.profiling import machine, measure
from palmkit.models.random import random_pengi

ROWS = Path(__file__).resolve().parent.parent / "notebooks" / "data" / "efficiency.csv"
FULL, MINI = "PENGI's size", "mini-PENGI"
QUIET = 0.5  # load average of the last minute; the imports above make 0.2 of it
ROUNDED = ("seconds", "fastest", "slowest", "mib")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--devices", nargs="+", default=devices(), choices=["cpu", "cuda"])
    parser.add_argument("--models", nargs="+", default=[FULL, MINI], choices=[FULL, MINI])
    parser.add_argument("--any-load", action="store_true", help="measure on a busy machine too")
    parser.add_argument("--out", type=Path, default=ROWS)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    if load > QUIET and not given.any_load:
        parser.error(f"the machine is busy (load {load:.2f}): wait, or give --any-load")
    tables = []
    for device in given.devices:
        for name in given.models:
            table = measure_model(name, device, given.repeats).assign(load=round(load, 2))
            tables.append(table)
            write(pd.concat(tables, ignore_index=True), given.out)  # an error later loses nothing


def write(rows: pd.DataFrame, path: Path) -> None:
    for column in ROUNDED:
        rows[column] = rows[column].map("{:.4g}".format)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(path, index=False)
    print(f"{len(rows)} rows in {path}")


def devices() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def measure_model(name: str, device: str, repeats: int) -> pd.DataFrame:
    """The rows of a model on a device."""
    pengi = random_pengi(device) if name == FULL else load_pengi("mini", device)
    table = measure(pengi, ESC50, repeats, published=Learner)
    return table.assign(model=name, machine=machine(pengi.device))


if __name__ == "__main__":
    main()
