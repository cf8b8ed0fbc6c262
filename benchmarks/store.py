"""The embedding cache before and after: a file and a JSON for each clip, against packed shards.

`python benchmarks/store.py` writes and reads both in a temporary folder and prints a Markdown
table. The way of before is in this file, as palmkit 0.2 did it. Each row runs in a
process of its own, so that its memory is its own. The page cache is warm: files were just written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save

from palmkit.storage import atomic_write
from palmkit.store import TensorStore

SETTING = {"version": 0, "model": "0" * 64, "crop": "random", "crop_seed": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=100_000, help="in the store")
    parser.add_argument("--before", type=int, default=10_000, help="clips in the old layout")
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--measure", nargs=2, metavar=("LAYOUT", "ROOT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        layout, root = given.measure
        print(json.dumps(measure(layout, Path(root), given.clips, given.dim)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        rows = [
            run(f"{folder}/{layout}", layout, what, clips, given.dim)
            for layout, clips in (
                ("file a clip", given.before),
                ("store", given.before),
                ("store", given.clips),
            )
            for what in ("write", "read")
        ]
    print(markdown(rows))


def markdown(rows: list[dict]) -> str:
    lines = [[*rows[0]], ["---"] * len(rows[0])]
    for row in rows:
        lines.append([f"{v:,.1f}" if isinstance(v, float) else f"{v}" for v in row.values()])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run(root: str, layout: str, what: str, clips: int, dim: int) -> dict:
    """One row, measured in another process."""
    command = [sys.executable, __file__, "--clips", str(clips), "--dim", str(dim), "--measure"]
    command += [f"{layout}:{what}", f"{root}-{clips}"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {"layout": layout, "clips": clips, "what": what, **json.loads(out)}


def measure(task: str, root: Path, clips: int, dim: int) -> dict:
    layout, what = task.split(":")
    names = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(clips)]
    features = np.random.default_rng(0).standard_normal((1000, dim)).astype("float32")
    work = LAYOUTS[layout][what == "read"]
    wall, cpu = time.perf_counter(), time.process_time()
    found = work(root, names, features)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if found is not None:
        assert all(np.array_equal(found[n], features[n % 1000]) for n in range(clips))
    paths = list(root.rglob("*"))
    blocks = sum(path.stat().st_blocks for path in paths) * 512
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": wall,
        "CPU seconds": cpu,
        "inodes": len(paths),
        "MB on disk": blocks / 1e6,
        "MB of numbers": clips * dim * 4 / 1e6,
        "peak MiB": peak,
    }


def write_store(root: Path, names: list[str], features: np.ndarray) -> None:
    with TensorStore(root, "embeddings", SETTING) as store:
        for n, name in enumerate(names):
            store.put(name, {"feature": features[n % 1000], "offset": np.array(n)})


def read_store(root: Path, names: list[str], features: np.ndarray) -> np.ndarray:
    with TensorStore(root, "embeddings", SETTING) as store:
        return stack((store.get(name)["feature"] for name in names), len(names), features)


def stack(arrays: Iterable[np.ndarray], count: int, like: np.ndarray) -> np.ndarray:
    table = np.empty((count, like.shape[1]), like.dtype)
    for n, array in enumerate(arrays):
        table[n] = array
    return table


def write_files(root: Path, names: list[str], features: np.ndarray) -> None:
    for n, name in enumerate(names):
        feature, place = torch.from_numpy(features[n % 1000]), old_place(root, name)
        metadata = {"key": name, "offset": str(n), "sha256": content(feature, n)}
        sidecar = {**SETTING, "audio": name, "offset": n, "file": f"{n}.wav", "dim": len(feature)}
        atomic_write(place.with_suffix(".json"), json.dumps(sidecar, indent=1))
        atomic_write(place, save({"feature": feature}, metadata))


def read_files(root: Path, names: list[str], features: np.ndarray) -> np.ndarray:
    return stack((read_file(root, name).numpy() for name in names), len(names), features)


def read_file(root: Path, name: str) -> torch.Tensor:
    with safe_open(old_place(root, name), "pt") as file:
        metadata, feature = file.metadata(), file.get_tensor("feature")
    assert metadata["key"] == name and metadata["sha256"] == content(feature, metadata["offset"])
    return feature


def old_place(root: Path, name: str) -> Path:
    return root / name[:2] / f"{name}.safetensors"


def content(feature: torch.Tensor, offset) -> str:
    kind = f"{offset} {feature.dtype} {list(feature.shape)}".encode()
    return hashlib.sha256(kind + feature.numpy().tobytes()).hexdigest()


LAYOUTS = {"file a clip": (write_files, read_files), "store": (write_store, read_store)}

if __name__ == "__main__":
    main()
