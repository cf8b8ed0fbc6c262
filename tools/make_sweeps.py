"""Run the sweep of shots, start and learning rate of every method, for notebook 9.

    python tools/make_sweeps.py

writes notebooks/data/sweeps.csv: ten minutes on two free cores. Trials are kept as rows of the
run `sweeps`, so a sweep that was stopped goes on, and the file is written after each dataset and
seed. Fewer datasets, seeds, shots or methods make a smaller file; notebook 9 says what is missing.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import time
from pathlib import Path

from palmkit import load_model
from palmkit.experiments import run_trials
from palmkit.experiments.sweeps import (
    DATASETS,
    SEEDS,
    SHOTS,
    STARTS,
    count_missing_trials,
    sweep_table,
    sweep_trials,
    sweeps_path,
    write_sweeps,
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--shots", type=int, nargs="+", default=list(SHOTS))
    parser.add_argument("--methods", nargs="+", default=list(STARTS), choices=list(STARTS))
    parser.add_argument("--folds", default="first", choices=["first", "all"])
    parser.add_argument("--checkpoint", default="mini")
    parser.add_argument("--run", default="sweeps", help="rows are kept in runs/RUN")
    parser.add_argument("--to", type=Path, default=sweeps_path(), metavar="CSV")
    return parser.parse_args()


def main() -> None:
    given = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    start = time.perf_counter()
    model = load_model(given.checkpoint, "cpu")
    command = shlex.join(["python", "tools/make_sweeps.py", *sys.argv[1:]])
    head = f"{model.note or given.checkpoint}. Written by: {command}"
    rows = []
    for dataset in given.datasets:
        for seed in given.seeds:
            chosen = dict(shots=given.shots, methods=given.methods, folds=given.folds)
            trials = sweep_trials([dataset], [seed], **chosen)
            if seed != given.seeds[0]:  # zero-shot has no seeds
                trials = [trial for trial in trials if trial.method != "zeroshot"]
            rows += run_trials(trials, model, given.run)
            write_sweeps(sweep_table(rows), given.to, head)
            print(f"{dataset}, seed {seed}: {len(rows)} rows so far", flush=True)
    missing = count_missing_trials(sweep_table(rows))
    minutes = (time.perf_counter() - start) / 60
    print(f"{len(rows)} rows in {given.to}; the whole sweep has {missing} more; {minutes:.0f} min")


if __name__ == "__main__":
    main()
