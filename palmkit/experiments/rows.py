"""A trial's result as a row: its key, its file, its tensors."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from palmkit import audio
from palmkit.embeddings import EMBEDDING_VERSION
from palmkit.experiments.trials import Trial
from palmkit.experiments.variations import method_options
from palmkit.methods import METHODS
from palmkit.protocols.streams import STREAM_VERSION
from palmkit.storage import run_folder

TRIAL_VERSION = 1  # raise it when a unit's result changes for other reasons than its settings


def trial_key(unit: Trial, dataset: str, weights: str, config: dict | None = None) -> str:
    """sha256 of all that a unit's result depends on; rows carry it, and one with the same key is not run again.

    config: PENGI's, whose rates of dropout and stochastic depth matter to the released protocol.
    """
    told = {**asdict(unit), "dataset": dataset, "weights": weights}
    told["versions"] = [TRIAL_VERSION, EMBEDDING_VERSION]
    if not unit.autocast:  # rows of before there was a choice keep their keys
        del told["autocast"]
    if unit.protocol == "released":
        told |= {
            "stream": STREAM_VERSION,
            "config": {k: v for k, v in (config or {}).items() if k != "note"},
        }
    else:
        del told["parts"]
    return audio.digest(json.dumps(told, sort_keys=True).encode())


def row_path(run, unit: Trial, key: str) -> Path:
    where = run_folder(run) / "rows" / Path(unit.dataset).name
    fold = "split" if unit.fold is None else f"fold{unit.fold}"
    return where / f"{unit.method}-{fold}-shots{unit.shots}-seed{unit.seed}-{key[:10]}.json"


def read_row(path: Path, key: str | None = None) -> dict | None:
    """A finished row, or None if it is not there; a damaged or foreign one is reported and None."""
    if not path.is_file():
        return None
    try:
        row = json.loads(path.read_text())
        if key is None or row["key"] == key:
            return row
        reason = "it belongs to other settings"
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it is damaged: {error}"
    warnings.warn(f"row {path} is not used, {reason}", stacklevel=2)
    return None


def load_tensors(row, run) -> dict[str, torch.Tensor]:
    """What a row of `run` keeps beside it: test `logits` [n, classes], `labels` [n], and what was learned, `prompt.*`.

    row: a dict, or a line of a DataFrame of rows. Raises FileNotFoundError if the run has no such row.
    """
    fold = None if pd.isna(row["fold"]) else int(row["fold"])
    unit = Trial(row["method"], row["dataset"], fold, int(row["seed"]), int(row["shots"]))
    path = row_path(run, unit, row["key"])
    if read_row(path, row["key"]) is None:
        raise FileNotFoundError(
            f"run {Path(str(run)).name} has no row {path.name}: run_units first"
        )
    return load_file(path.with_suffix(".safetensors"))


def load_method(row, run, model):
    """The method of a row as it was after training, without training. A row with a width needs its axes: ValueError."""
    if "width" in row["options"]:
        raise ValueError(
            "a method on projected features cannot be had back: its support set's axes are not kept"
        )
    names, options = row["class_names"], method_options(row["options"])
    method = METHODS[row["method"]](model, names, seed=int(row["seed"]), **options)
    state = load_tensors(row, run)
    learned = {
        name.removeprefix("prompt."): state[name] for name in state if name.startswith("prompt.")
    }
    method.load_prompt_learner(learned)
    return method.requires_grad_(False)
