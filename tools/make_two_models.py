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

from palmkit import load_model
from palmkit.experiments import make_grid, run_trials
from palmkit.experiments.trials import METHOD_NAMES, TRANSDUCTIVE_NAMES, Trial
from palmkit.methods import TUNED
from palmkit.results import two_models
from palmkit.storage import atomic_write, notebooks_folder, run_folder
from palmkit_synthetic.tasks import DEFAULT_TASKS

SLOW = ("coop", "cocoop")
# ASPL is no method on embeddings; methods that see the whole test batch belong in another table;
# one method takes two models at once.
LEFT_OUT = (*TRANSDUCTIVE_NAMES, "product-kernel-ridge", *(cls.name for cls in TUNED))
METHODS = [*(name for name in METHOD_NAMES if name not in (*SLOW, *LEFT_OUT)), *SLOW]
RATES = (0.0005, 0.0015, 0.005, 0.015, 0.05, 0.15, 0.5, 1.5, 5.0)
SCALED = ("palm", "zs-lp", "coop")
SEEDS = (0, 1, 2, 3, 4)


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
    """Held-out accuracies of the trials of PALM, by `two_models.trial_key`; kept in the file."""
    known = json.loads(path.read_text()) if path.is_file() else {}
    digest, found = model.digest()[: two_models.DIGEST], {}
    for trial in trials:
        if trial.method != "palm" or trial.options:
            continue
        key = two_models.trial_key(digest, trial.dataset, trial.seed, trial.lr)
        if key not in known:
            known[key] = two_models.held_out_accuracy(model, trial)
            atomic_write(path, json.dumps(known))
        found[key] = known[key]
    return found


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
            table = two_models.make_table(given.run, models, held_out)
            table = table[table["seed"].isin(given.seeds)]  # the run may have more
            text = table.to_csv(index=False, lineterminator="\n")
            atomic_write(given.to, f"{head}. Written by: {command}\n{text}")
    print(f"{len(table)} rows in {given.to}")


if __name__ == "__main__":
    main()
