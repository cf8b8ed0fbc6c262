"""Run all methods on mini-PENGI and mini-CLAP, for notebook 16.

    python tools/make_two_models.py --seed1 data/mini/seed1/mini.safetensors

writes notebooks/data/two_models.csv, a line for each trial, see `palmkit.results.two_models`:
- every method on frozen features with the paper's settings,
- PALM at RATES, with its accuracy on clips that are left out of the support set,
- SCALED methods with the other model's logit scale.
--seed1: mini-PENGI of another training seed (`make mini SEED=1`), which is not shipped. Trials are
kept as compact rows of the run `two-models`, held-out accuracies beside them: what was stopped goes
on. COOP and COCOOP come last.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from palmkit import PALM, draw_shots, embed, fit, load_dataset, load_model, predict
from palmkit.experiments import make_grid, run_trials
from palmkit.experiments.trials import METHOD_NAMES, TRANSDUCTIVE_NAMES, Trial
from palmkit.methods import TUNED
from palmkit.methods.support import leave_out_folds
from palmkit.results import load_rows, two_models
from palmkit.storage import atomic_write, notebooks_folder, run_folder
from palmkit.training import TrainingDiverged
from palmkit_synthetic.tasks import DEFAULT_TASKS

SLOW = ("coop", "cocoop")
# ASPL is no method on embeddings; methods that see the whole test batch belong in another table;
# one method takes two models at once.
LEFT_OUT = (*TRANSDUCTIVE_NAMES, "product-kernel-ridge", *(cls.name for cls in TUNED))
METHODS = [*(name for name in METHOD_NAMES if name not in (*SLOW, *LEFT_OUT)), *SLOW]
RATES = (0.0005, 0.0015, 0.005, 0.015, 0.05, 0.15, 0.5, 1.5, 5.0)
SCALED = ("palm", "zs-lp", "coop")
SEEDS = (0, 1, 2, 3, 4)
FOLDS = 4  # of the support set, of 16 clips a class: 12 to learn from, 4 left out


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed1", metavar="FILE", help="mini-PENGI of training seed 1")
    parser.add_argument("--datasets", nargs="+", default=list(DEFAULT_TASKS), metavar="NAME")
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--rates", type=float, nargs="*", default=list(RATES))
    parser.add_argument("--run", default="two-models", help="rows are kept in runs/RUN")
    parser.add_argument("--to", type=Path, default=notebooks_folder() / "data" / "two_models.csv")
    return parser.parse_args()


def list_trials(given: argparse.Namespace, scale: float, slow: bool) -> list[Trial]:
    """The trials of one model. scale: of the other model. slow: those of SLOW, or all others."""
    methods = [name for name in given.methods if (name in SLOW) == slow]
    scaled = [name for name in SCALED if name in methods]
    trials = []
    if methods:
        trials += make_grid(methods, given.datasets, "first", given.seeds)
    if scaled:
        options = {"options": {"scale": scale}}
        trials += make_grid(scaled, given.datasets, "first", given.seeds, **options)
    if "palm" in methods:
        for rate in given.rates:
            trials += make_grid("palm", given.datasets, "first", given.seeds, lr=rate)
    return [*{repr(trial): trial for trial in trials}.values()]


def measure_held_out(model, trials: list[Trial], path: Path) -> dict[str, float]:
    """Held-out accuracies of the trials of PALM, by `trial_key`; kept in the file."""
    known = json.loads(path.read_text()) if path.is_file() else {}
    digest = model.digest()[: two_models.DIGEST]
    found = {}
    for trial in trials:
        if trial.method != "palm" or trial.options:
            continue
        key = trial_key(digest, trial.dataset, trial.seed, trial.lr)
        if key not in known:
            known[key] = held_out_accuracy(model, trial)
            atomic_write(path, json.dumps(known))
        found[key] = known[key]
    return found


def trial_key(digest: str, dataset: str, seed: int, lr: float) -> str:
    return f"{digest} {Path(dataset).name} {seed} {lr:g}"


def held_out_accuracy(model, trial: Trial) -> float:
    """Accuracy of PALM on clips that are left out of the support set. No test clip is used."""
    data = load_dataset(trial.dataset, trial.fold)
    support = embed(model, draw_shots(data.train, trial.shots, trial.seed))
    return score_left_out(model, data.class_names, support, trial.seed, lr=trial.lr)


def score_left_out(model, class_names, support, seed: int, **settings) -> float:
    """The same for a support set that is embedded. settings: of `fit`.

    The clips of each class are dealt to FOLDS folds in the order of the draw. A training that
    diverges has none right.
    """
    shots = leave_out_folds(support.labels)
    right = 0
    for fold in range(FOLDS):
        out = torch.zeros_like(support.labels, dtype=torch.bool)
        out[torch.cat(shots[fold::FOLDS])] = True
        method = PALM(model, class_names, seed=seed)
        try:
            fit(method, support.features[~out], support.labels[~out], seed=seed, **settings)
        except TrainingDiverged:
            continue
        guess = predict(method, support.features[out]).argmax(1).cpu()
        right += int((guess == support.labels[out]).sum())
    return right / len(support.labels)


def make_table(run, models: dict, held_out: dict[str, float]) -> pd.DataFrame:
    """`two_models.COLUMNS` of the rows of a run. models: by the name that the table shows."""
    names = {model.digest(): name for name, model in models.items()}
    rows = load_rows(run, details=True)
    rows = rows[rows["weights"].isin(names)]
    lines = [describe_row(row, names, held_out) for row in rows.to_dict("records")]
    table = pd.DataFrame(lines, columns=two_models.COLUMNS)
    place = table["model"].map({name: n for n, name in enumerate(models)})
    order = ["place", "method", "scale", "lr", "dataset", "seed"]
    table = table.assign(place=place).sort_values(order, ignore_index=True)
    return table.drop(columns="place").round({"accuracy": 6, "held_out": 6})


def describe_row(row: dict, names: dict[str, str], held_out: dict[str, float]) -> dict:
    """A row of a run as a line of the table. names: of the models by digest."""
    digest = row["weights"][: two_models.DIGEST]
    scale = row["options"].get("scale", np.nan)
    line = {name: row[name] for name in ("dataset", "fold", "seed", "method", "lr", "accuracy")}
    line |= {"model": names[row["weights"]], "weights": digest, "scale": scale}
    line |= {"held_out": np.nan, "lambdas": ""}
    if row["method"] != "palm":
        return line
    if isinstance(row.get("lambdas"), list):
        line["lambdas"] = " ".join(f"{value:.4f}" for value in row["lambdas"])
    if np.isnan(scale):
        key = trial_key(digest, row["dataset"], row["seed"], row["lr"])
        line["held_out"] = held_out.get(key, np.nan)
    return line


def main() -> None:
    given = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    start = time.perf_counter()
    files = {"mini-PENGI": "mini", "mini-CLAP": "mini-clap"}
    if given.seed1:
        files[two_models.SEED1] = given.seed1
    models = {name: load_model(file, "cpu") for name, file in files.items()}
    shown = [Path(word).name if word == given.seed1 else word for word in sys.argv[1:]]
    command = shlex.join(["python", "tools/make_two_models.py", *shown])
    head = "# mini-PENGI and mini-CLAP, the models that come with the kit; not PENGI's numbers"
    scales = {name: model.logit_scale for name, model in models.items()}
    held_out = {}
    for slow in (False, True):
        for name, model in models.items():
            other = "mini-PENGI" if name == "mini-CLAP" else "mini-CLAP"
            trials = list_trials(given, scales[other], slow)
            run_trials(trials, model, given.run, compact=True)
            path = run_folder(given.run) / "held_out.json"
            held_out |= measure_held_out(model, trials, path)
            minutes = (time.perf_counter() - start) / 60
            print(f"{name}: {len(trials)} trials, {minutes:.0f} min", flush=True)
            table = make_table(given.run, models, held_out)
            table = table[table["seed"].isin(given.seeds)]  # the run may have more
            text = table.to_csv(index=False, lineterminator="\n")
            atomic_write(given.to, f"{head}. Written by: {command}\n{text}")
    print(f"{len(table)} rows in {given.to}")


if __name__ == "__main__":
    main()
