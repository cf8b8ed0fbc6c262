"""Rows of a run without running anything."""

import json
from pathlib import Path

ROW = {
    "shots": 16, "epochs": 50, "batch_size": 16, "lr": 0.05, "momentum": 0.9, "crop": "random",
    "crop_seed": 0, "options": {}, "protocol": "frozen", "stochastic": "none", "autocast": False,
    "note": "", "class_names": ["a", "b", "c", "d"], "n_test": 40, "weights": "f" * 64,
    "device": "cpu", "versions": {"torch": "1.2.3"}, "seconds": {"fit": 1800.0},
    "losses": [2.0, 1.0, 0.5, 0.25], "clips": ["audios/a].wav", 'audios/"\n ]".wav'],
    "clip_offsets": [0, 7], "test_offsets": 0, "written": "2026-01-02T03:04:05+00:00",
    "dataset_digest": "abcdef0123456789",
}  # fmt: skip


def make_row(dataset="Rain", method="palm", fold=1, seed=0, accuracy=0.5, **more) -> dict:
    row = ROW | {"dataset": dataset, "method": method, "fold": fold, "seed": seed}
    key = f"{dataset}-{method}-{fold}-{seed}-{sorted(more.items())}"
    return row | {"accuracy": accuracy, "f1": accuracy, "key": key} | more


def write_row(run, row: dict, indent=1) -> Path:
    """Write a row as a run does; its path."""
    folder = Path(run) / "rows" / row["dataset"]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{row['method']}-fold{row['fold']}-{len([*folder.iterdir()])}.json"
    path.write_text(json.dumps(row, indent=indent))
    return path
