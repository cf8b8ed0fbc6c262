"""Time and memory of the table and the report of a large run.

    python benchmarks/tables.py [ROWS]

Writes ROWS rows (10,000) as a run leaves them, 50 KB each, into a temporary folder. Then it loads
them, prints the table and writes the report, each in a process of its own, and prints what it took.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDS, CLASSES, SHOTS, EPOCHS = 5, 50, 16, 50
METHODS = ("zeroshot", "coop", "cocoop", "palm")
DATASETS = 10
STEPS = {  # what to import, and what to time
    "load": ("from palmkit.results.tables import load_rows", "load_rows({run!r})"),
    "table": (
        "from palmkit.cli import main; import palmkit.results.tables",
        "main(['table', {run!r}])",
    ),
    "report": ("from palmkit.results.report import write_report", "write_report({run!r})"),
}
MEASURE = """
import resource, time
clocks = time.perf_counter, time.process_time
begin = [clock() for clock in clocks]
{imports}
middle = [clock() for clock in clocks]
{code}
end = [clock() for clock in clocks]
wall, cpu = (after - before for before, after in zip(middle, end))
imports = middle[1] - begin[1]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(f"MEASURED {{wall:.1f}} s ({{cpu:.1f}} s of CPU; imports {{imports:.1f}}), {{peak:.2f}} GiB")
"""


def make_row(rng: random.Random, method: str, dataset: str, fold: int, seed: int) -> dict:
    """A row with the fields and sizes of a run on 50 classes with 16 shots."""
    learns = method != "zeroshot"
    clips, steps = CLASSES * SHOTS * learns, EPOCHS * CLASSES * SHOTS // 16 // 2 * learns
    accuracy = rng.uniform(0.4, 0.9)
    row = {
        "method": method, "dataset": dataset, "fold": fold, "seed": seed, "shots": SHOTS * learns,
        "protocol": "frozen", "stochastic": "none", "epochs": EPOCHS * learns, "batch_size": 16,
        "lr": 0.05, "momentum": 0.9, "crop": "random", "crop_seed": 0, "autocast": False,
        "options": {}, "rates": {"dropout": 0.1, "drop_path": 0.05}, "note": "", "model_note": "",
        "class_names": [f"class number {n}" for n in range(CLASSES)], "trainable": 51250,
        "lambdas_initial": [rng.random() for _ in range(CLASSES)],
        "clips": [f"audios/{rng.randrange(10**6)}-{n}.wav" for n in range(clips)],
        "clip_offsets": [rng.randrange(10**5) for _ in range(clips)],
        "accuracy": accuracy, "f1": accuracy - 0.01, "precision": accuracy, "recall": accuracy,
        "loss": rng.random(), "diverged": "", "n_train": clips, "n_test": 400,
        "losses": [rng.uniform(0, 5) for _ in range(steps)], "test_offsets": 0,
        "seconds": {"prepare": 0.01, "fit": 2.0, "test": 0.02}, "device": "cpu",
        "versions": {"torch": "2.14.1", "numpy": "2.3.1", "python": "3.11.9"},
        "written": "2026-01-01T00:00:00+00:00", "dataset_digest": f"{DATASETS:064d}",
        "palmkit_version": "1.0", "commit": "0" * 40, "command": "palmkit run",
        "checkpoint_sha256": "1" * 64, "weights": "2" * 64,
        "key": f"{rng.randrange(16**40):064x}",
    }  # fmt: skip
    if method == "palm":
        row["lambdas"] = [rng.random() for _ in range(CLASSES)]
    return row


def write_rows(run: Path, count: int) -> int:
    """Write about `count` rows, with as many seeds of the learning methods as that takes."""
    rng, written = random.Random(0), 0
    seeds = max(1, (count - DATASETS * FOLDS) // (DATASETS * FOLDS * (len(METHODS) - 1)))
    for number in range(DATASETS):
        folder = run / "rows" / f"Dataset{number}"
        folder.mkdir(parents=True)
        for method in METHODS:
            for fold in range(1, FOLDS + 1):
                for seed in range(seeds if method != "zeroshot" else 1):
                    row = make_row(rng, method, folder.name, fold, seed)
                    name = f"{method}-fold{fold}-shots{SHOTS}-seed{seed}-{row['key'][:10]}.json"
                    (folder / name).write_text(json.dumps(row, indent=1))
                    written += 1
    return written


def measure(run: Path) -> None:
    for step, (imports, code) in STEPS.items():
        source = MEASURE.format(imports=imports, code=code.format(run=str(run)))
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
        found = [line for line in done.stdout.splitlines() if line.startswith("MEASURED")]
        print(f"{step}: {found[0].removeprefix('MEASURED ') if found else done.stderr}")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        written = write_rows(Path(folder) / "run", count)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.json"))
        print(f"{written} rows, {size / 2**20:.0f} MiB")
        measure(Path(folder) / "run")


if __name__ == "__main__":
    main()
