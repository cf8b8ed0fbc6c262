"""The same small grid by every engine: rows, equal columns, seconds.

`python benchmarks/engines.py DATASET` runs `palmkit run` on a dataset folder in one process, by
processes of this machine, on a two-worker Dask cluster with a common cache, on one with caches of
their own, and on Ray (what is not installed is left out, in words). Every run starts with empty
caches. It prints a Markdown table and the log of the Dask run. Clusters are on loopback, started
and ended by the helpers of the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from palmkit.datasets.resolve import list_folds, load_dataset

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/support"))

WORKERS = 2
# These tell where and when a row was made, not what it says.
APART = {"seconds", "written", "command"}
ENGINES = ("one process", "processes", "dask, common cache", "dask, own caches", "ray")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--method", nargs="+", default=["zeroshot", "palm", "gda", "tip-adapter"])
    parser.add_argument("--seed", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--shots", default="4")
    parser.add_argument("--clips", type=int, help="of each of the first four classes and split")
    parser.add_argument("--engine", nargs="+", default=ENGINES, choices=ENGINES)
    arguments = parser.parse_args()
    grid = ["--method", *arguments.method, "--seed", *arguments.seed, "--shots", arguments.shots]
    print(f"$ palmkit run {shlex.join(['--dataset', arguments.dataset.name, *grid])}\n")
    head = ["engine", "rows", "equal columns", "other columns", "seconds"]
    head.append("embeddings in the command's cache")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    log, first, failed = "", None, False
    with tempfile.TemporaryDirectory(prefix="palmkit-engines-") as folder:
        dataset = arguments.dataset.resolve()
        if arguments.clips:
            dataset = take_part(dataset, Path(folder) / dataset.name, arguments.clips)
        grid = ["--dataset", str(dataset), *grid]
        for n, engine in enumerate(arguments.engine):
            if (reason := missing(engine)) is not None:
                print(f"| {engine} | not run: {reason} | | | | |")
                continue
            home = Path(folder) / str(n)
            try:
                seconds, said = run(engine, home, grid)
            except (AssertionError, subprocess.CalledProcessError) as error:
                print(f"| {engine} | failed: {_last_line(error)} | | | | |", flush=True)
                failed = True
                continue
            rows = read_rows(home)
            first = first or rows
            print(f"| {engine} | {compare(rows, first)} | {seconds:.0f} | {count(home)} |")
            sys.stdout.flush()
            log = said if engine == "dask, common cache" else log
    print(f"\nThe log of the Dask run:\n\n{log}" if log else "")
    return int(failed)


def _last_line(error: Exception) -> str:
    """What a command said last, or why its cluster did not start."""
    said = getattr(error, "stderr", None) or str(error) or "its cluster did not start"
    return said.strip().splitlines()[-1]


def take_part(source: Path, part: Path, clips: int, classes: int = 4) -> Path:
    """A dataset of the first clips of the first classes of another's first fold, by links."""
    part.mkdir()
    data = load_dataset(str(source), list_folds(str(source))[0])
    for split in ("train", "test"):
        table = getattr(data, split)
        table = table[table["class_name"].isin(data.class_names[:classes])]
        table = table.groupby("class_name").head(clips)
        paths = [data.relative(path) for path in table["path"]]
        columns = {"path": paths, "classname": table["class_name"]}
        pd.DataFrame(columns).to_csv(part / f"{split}.csv", index=False)
    for path in source.iterdir():
        if path.suffix != ".csv" and path.name != "csv_files":
            (part / path.name).symlink_to(path)
    return part


def missing(engine: str) -> str | None:
    package = {"dask": "distributed", "ray": "ray"}.get(engine.split(",")[0])
    if package is None or importlib.util.find_spec(package):
        return None
    return f"{package} is not installed"


def run(engine: str, home: Path, grid: list[str]) -> tuple[float, str]:
    """Seconds of the command, without those to start the cluster, and what it says."""
    home.mkdir()
    jobs = "1" if engine == "one process" else str(WORKERS)
    caches = [home / "cache"] * WORKERS
    if "own caches" in engine:
        caches = [home / f"cache of worker {n}" for n in range(WORKERS)]
    with cluster(engine, home, caches) as flags:
        command = [sys.executable, "-m", "palmkit", "run", "--name", "grid", *grid, *flags]
        # Here, not before: a cluster sets variables of its own, such as Ray's token.
        environment = os.environ | {
            "PALMKIT_RUNS": str(home / "runs"),
            "PALMKIT_CACHE": str(home / "cache"),
            "PALMKIT_JOBS": jobs,
            "PALMKIT_PROGRESS": "0",
        }
        start = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - start
    done.check_returncode()
    return seconds, done.stderr.replace(str(home), "HOME")


@contextlib.contextmanager
def cluster(engine: str, home: Path, caches: list[Path]):
    """The flags for an engine, with its cluster."""
    if engine.startswith("dask"):
        from dask_cluster import dask_cluster

        with dask_cluster(home / "dask", caches) as address:
            yield ["--backend", "dask", "--address", address]
    elif engine == "ray":
        from ray_cluster import ray_cluster

        with ray_cluster(home / "ray", caches) as address:
            yield ["--backend", "ray", "--address", address]
    else:
        yield []


def read_rows(home: Path) -> dict[str, dict]:
    paths = sorted((home / "runs/grid/rows").rglob("*.json"))
    return {path.name: json.loads(path.read_text()) for path in paths}


def compare(rows: dict[str, dict], first: dict[str, dict]) -> str:
    """Rows, columns that are equal in all rows to those of the first engine, and the others."""
    assert {*rows} == {*first}
    columns = {column for row in first.values() for column in row}
    columns |= {column for row in rows.values() for column in row}
    other = {
        column
        for name, row in rows.items()
        for column in columns
        if json.dumps(row.get(column)) != json.dumps(first[name].get(column))
    }
    unexpected = other - APART
    mark = f" NOT EQUAL: {', '.join(sorted(unexpected))}" if unexpected else ""
    shown = ", ".join(sorted(other & APART)) or "none"
    return f"{len(rows)} | {len(columns) - len(other)} of {len(columns)}{mark} | {shown}"


def count(home: Path) -> str:
    """Whether the command's own cache has embeddings."""
    return "yes" if [*(home / "cache").rglob("*.shard")] else "no"


if __name__ == "__main__":
    sys.exit(main())
