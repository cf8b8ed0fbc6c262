"""A rehearsal of the published grid without the published data: `make rehearsal` runs it.

All eleven datasets in their layout, names, classes and folds, with two seconds of generated sound a
clip; a checkpoint of PENGI's size with random weights; both behind a stand-in server. Then what a
researcher would type: fetch, check, plan, run, table. Prints the time and peak memory of each. The
accuracies mean nothing.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
import hub
from standin import make_checkpoint, make_repository

from palmkit.published import paper_datasets

NAMES = [*paper_datasets()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--per-class", type=int, default=1, help="test clips of a class and fold (default: 1)"
    )
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--shots", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        for name in NAMES:
            make_repository(home / "upstream", name, per_class=given.per_class, seconds=2)
        make_checkpoint(home / "upstream" / "pengi" / "base.pth")
        places = {f"PALMKIT_{name}": str(home / name.lower()) for name in ("DATA", "CACHE", "RUNS")}
        steps = commands(given.epochs, given.shots)
        with hub.serve(home / "upstream") as server:
            environment = os.environ | places | server.environment | {"PALMKIT_PROGRESS": "0"}
            lines = [step(arguments, environment) for arguments in steps]
        print(f"{'step':<20}{'seconds':>9}{'peak, GB':>10}")
        for line in lines:
            print("{:<20}{:>9.0f}{:>10.2f}".format(*line))
        rows = len(list((home / "runs").rglob("rows/*/*.json")))
        sizes = [
            f"{name} {size_of(home / name) / 1e6:,.0f} MB" for name in ("data", "cache", "runs")
        ]
        print(f"{rows} rows;", ", ".join(sizes))
        shutil.rmtree(home / "upstream")


def commands(epochs: int, shots: int) -> list[list[str]]:
    """What a researcher would type."""
    grid = f"run --profile paper --seed 0 --epochs {epochs} --shots {shots}".split()
    return [
        ["fetch", *NAMES, "pengi"],
        ["check", *NAMES, "--shots", str(shots)],
        [*grid, "--dry-run"],
        grid,
        ["table", "run", "--format", "csv"],
    ]


def step(arguments: list[str], environment) -> tuple[str, float, float]:
    """Run one command of palmkit's: its name, seconds, and the children's peak memory so far in GB.

    The peak only grows.
    """
    print("$ python -m palmkit", *arguments, flush=True)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "palmkit", *arguments], env=environment, check=True)
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e9
    return f"{arguments[0]}{' --dry-run' if '--dry-run' in arguments else ''}", seconds, peak


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
