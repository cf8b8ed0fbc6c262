"""Time and memory of the four methods at PENGI's size (random weights), and of mini-PENGI.

`python benchmarks/efficiency.py` writes notebooks/data/efficiency.csv, which notebook 12 reads.
About 15 minutes on two cores, a minute on a GPU. What a step costs does not depend on the weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from speed import ESC50

from palmkit import load_pengi
from palmkit.experiments.profiling import machine, measure
from palmkit.models.random import random_pengi

ROWS = Path(__file__).resolve().parent.parent / "notebooks" / "data" / "efficiency.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, default=ROWS)
    given = parser.parse_args()
    tables = []
    for name, pengi in {
        "PENGI's size": random_pengi(given.device),
        "mini-PENGI": load_pengi("mini", given.device),
    }.items():
        table = measure(pengi, ESC50, given.repeats)
        tables.append(table.assign(model=name, machine=machine(pengi.device)))
    rows = pd.concat(tables, ignore_index=True)
    for column in ("seconds", "fastest", "slowest", "mib"):
        rows[column] = rows[column].map("{:.4g}".format)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(given.out, index=False)
    print(f"{len(rows)} rows in {given.out}")


if __name__ == "__main__":
    main()
