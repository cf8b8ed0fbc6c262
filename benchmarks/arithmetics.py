"""The same trials under several arithmetics: what of a result is the processor's?

`python benchmarks/arithmetics.py --to notebooks/data/arithmetics.csv` writes the file and
prints a summary, as in `docs/arithmetic.md`. Every arithmetic is exact to rounding: other
instructions, another number of threads, or the clips of each batch in reverse order. Each runs in
a process of its own, with an embedding cache of its own. What is done is kept in `--folder`, so a
run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

from palmkit import draw_shots, embed, fit, list_folds, load_dataset, load_pengi, predict
from palmkit.experiments.trials import PAPER_METHODS
from palmkit.methods import METHODS, get_method
from palmkit.models.checkpoint import read_config
from palmkit.models.pengi import MINI
from palmkit.storage import atomic_write, run_folder
from palmkit.training import score
from palmkit_synthetic.tasks import DEFAULT_TASKS

OLDEST = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
}
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
REVERSED = "batches reversed"
# Name: environment variables. Those with "avx2" are for processors that have more than that.
ARITHMETICS = {
    "native": {},
    REVERSED: {},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "ATen default": {"ATEN_CPU_CAPABILITY": "default"},
    "ATen avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN sse4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "oneDNN avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "MKL sse4.2": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "MKL avx2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "all avx2": AVX2,
    "all oldest": OLDEST,
}
PRECISIONS = ("float32", "float64")
METRICS = ("accuracy", "f1", "loss", "train_loss", "mean_lambda")
CPU_FLAGS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile")


def main() -> None:
    given = parse_arguments()
    if given.worker:
        return work(json.loads(given.worker))
    names = given.arithmetics or available()
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for precision in given.precisions:
        for name in names:
            rows += run_arithmetic(name, precision, given)
    table = to_table(rows)
    if given.to:
        write_table(table, given.to, given.shots, given.epochs)
    print(summary_text(table))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", nargs="+", default=list(DEFAULT_TASKS), metavar="NAME")
    parser.add_argument("--methods", nargs="+", default=list(PAPER_METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument(
        "--arithmetics", nargs="+", choices=list(ARITHMETICS), help="default: what is available"
    )
    parser.add_argument("--to", type=Path, metavar="CSV", help="also write the table there")
    parser.add_argument(
        "--folder", type=Path, default=run_folder("arithmetics"), help="keeps what is done"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def available() -> list[str]:
    """Names of the arithmetics that this processor has, "native" first."""
    more_than_avx2 = {"avx512f"} <= set(cpu_flags())
    return [name for name in ARITHMETICS if more_than_avx2 or "avx2" not in name]


def cpu_flags() -> list[str]:
    """The processor's instruction sets that matter here; none known outside of Linux on x86."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    words = next((line.split() for line in lines if line.startswith("flags")), [])
    return [flag for flag in CPU_FLAGS if flag in words]


def run_arithmetic(name: str, precision: str, given: argparse.Namespace) -> list[dict]:
    """Rows of all datasets under one arithmetic; a process computes those that are missing."""
    settings = {key: getattr(given, key) for key in ("methods", "seeds", "shots", "epochs")}
    settings |= {"arithmetic": name, "precision": precision}
    files = {dataset: row_file(given.folder, settings, dataset) for dataset in given.datasets}
    missing = {dataset: str(file) for dataset, file in files.items() if not file.is_file()}
    if missing:
        start = time.perf_counter()
        job = json.dumps({"settings": settings, "files": missing})
        with tempfile.TemporaryDirectory() as cache:
            environment = worker_environment(ARITHMETICS[name]) | {"ARITHMETICS_CACHE": cache}
            command = [sys.executable, __file__, "--worker", job]
            subprocess.run(command, env=environment, check=True)
        print(f"{name}, {precision}: {time.perf_counter() - start:.0f} s", flush=True)
    return [row for file in files.values() for row in json.loads(file.read_text())]


def row_file(folder: Path, settings: dict, dataset: str) -> Path:
    """Where the rows of a dataset under these settings are kept."""
    key = hashlib.sha256(json.dumps([settings, dataset], sort_keys=True).encode()).hexdigest()
    return folder / f"{dataset}-{settings['precision']}-{key[:12]}.json".replace(os.sep, "_")


def worker_environment(variables: dict) -> dict:
    """This process's environment with these variables, and no other choice of arithmetic."""
    kept = {key: value for key, value in os.environ.items() if key not in OLDEST}
    common = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PALMKIT_PROGRESS": "0"}
    return kept | common | variables


def work(job: dict) -> None:
    """Run one arithmetic's trials in this process; write the rows of each dataset to its file."""
    settings = job["settings"]
    config = read_config(MINI)
    if settings["precision"] != config.get("precision", "float32"):
        config = config | {"precision": settings["precision"]}
    model = load_pengi("mini", "cpu", config)
    for dataset, file in job["files"].items():
        rows = run_dataset(model, dataset, settings, os.environ["ARITHMETICS_CACHE"])
        atomic_write(Path(file), json.dumps(rows))


def run_dataset(model, name: str, settings: dict, cache) -> list[dict]:
    """A row of each method and seed on the dataset's first fold, with its test logits."""
    dataset = load_dataset(name, list_folds(name)[0])
    test = embed(model, dataset.test, cache)
    rows = []
    for seed in settings["seeds"]:
        support = embed(model, draw_shots(dataset.train, settings["shots"], seed), cache)
        for method_name in settings["methods"]:
            method = get_method(method_name)(model, dataset.class_names, seed=seed)
            if not method.learns and seed != settings["seeds"][0]:
                continue
            batches = list(
                index_batches(
                    len(support.labels),
                    settings["epochs"],
                    seed,
                    settings["arithmetic"] == REVERSED,
                )
            )
            losses = fit(
                method,
                support.features,
                support.labels,
                epochs=settings["epochs"],
                batches=batches,
            )
            logits = predict(method, test.features)
            row = {
                "precision": settings["precision"],
                "arithmetic": settings["arithmetic"],
                "dataset": dataset.name,
                "method": method_name,
                "seed": seed,
                "n_test": len(test.labels),
                **{key: score(logits, test.labels)[key] for key in ("accuracy", "f1", "loss")},
                "logits": logits.tolist(),
                "processor": " ".join(cpu_flags()),
                "torch": torch.__version__,
            }
            if losses:
                last = losses[-(len(batches) // settings["epochs"]) :]
                row["train_loss"] = sum(last) / len(last)
            if method.learns and hasattr(method, "lambdas"):
                row["mean_lambda"] = method.lambdas.mean().item()
            rows.append(row)
    return rows


def index_batches(n: int, epochs: int, seed: int, reverse=False, batch_size=16):
    """The batches of `fit`. reverse: each one's clips in reverse order; its mean loss is equal."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(n, generator=generator).split(batch_size):
            yield batch.flip(0) if reverse else batch


def to_table(rows: list[dict]) -> pd.DataFrame:
    """Tidy rows, compared with the first arithmetic of the same precision.

    changed: test clips whose decision is another. logit_difference: the largest one of a logit.
    """
    table, lines = pd.DataFrame(rows), []
    for _, group in table.groupby(["precision", "dataset", "method", "seed"], sort=False):
        reference = torch.tensor(group["logits"].iloc[0], dtype=torch.float64)
        for row in group.to_dict("records"):
            logits = torch.tensor(row.pop("logits"), dtype=torch.float64)
            row["changed"] = int((logits.argmax(1) != reference.argmax(1)).sum())
            row["logit_difference"] = (logits - reference).abs().max().item()
            lines.append(row)
    order = [name for name in lines[0] if name not in ("processor", "torch")]
    for name in ("train_loss", "mean_lambda"):
        order += [name] if name not in order and name in table else []
    return pd.DataFrame(lines)[[*order, "processor", "torch"]]


def write_table(table: pd.DataFrame, path: Path, shots: int, epochs: int) -> None:
    """The CSV, with twelve digits of the metrics, which show what double precision leaves."""
    text = table.to_csv(index=False, lineterminator="\n", float_format="%.12g")
    head = f"# mini-PENGI, first fold, {shots} shots, {epochs} epochs, by benchmarks/arithmetics.py"
    atomic_write(path, f"{head}\n{text}")


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Spreads by precision, method and metric; a spread is maximum minus minimum over arithmetics.

    trial: the largest spread of a trial. sd: over arithmetics, pooled over trials. seed_sd: over
    seeds, pooled over datasets, under the first arithmetic. seeds: the largest spread of a
    dataset's mean over seeds. datasets: the spread of the mean over seeds and datasets.
    """
    keys = ["precision", "method"]
    long = table.melt(
        [*keys, "arithmetic", "dataset", "seed"], [m for m in METRICS if m in table], "metric"
    ).dropna(subset="value")
    keys, lines = [*keys, "metric"], []
    for key, group in long.groupby(keys, sort=False):
        trials = group.pivot(index=["dataset", "seed"], columns="arithmetic", values="value")
        seeds = trials.groupby("dataset").mean()
        first = trials[group["arithmetic"].iloc[0]]
        line = {
            "trial": spread(trials).max(),
            "sd": trials.var(axis=1).mean() ** 0.5,
            "seed_sd": first.groupby("dataset").var().mean() ** 0.5,
            "seeds": spread(seeds).max(),
            "datasets": spread(seeds.mean().to_frame().T).max(),
        }
        lines.append(dict(zip(keys, key, strict=True)) | line)
    return pd.DataFrame(lines).set_index(keys)


def spread(frame: pd.DataFrame) -> pd.Series:
    """Maximum minus minimum of each line."""
    return frame.max(axis=1) - frame.min(axis=1)


def summary_text(table: pd.DataFrame) -> str:
    """The summary, and the decisions that change, as text."""
    counts = table.groupby(["precision", "method"], sort=False).agg(
        changed=("changed", "max"),
        of=("n_test", "max"),
        logit_difference=("logit_difference", "max"),
    )
    number = "{:.3g}".format
    return "\n\n".join(
        [
            f"{table['arithmetic'].nunique()} arithmetics, {table['dataset'].nunique()} datasets",
            summarise(table).to_string(float_format=number),
            "Most decisions that change in a trial, and the largest change of a logit:",
            counts.to_string(float_format=number),
        ]
    )


if __name__ == "__main__":
    main()
