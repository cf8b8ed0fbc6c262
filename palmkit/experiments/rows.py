"""A trial's result as a row: its key, its file, its tensors."""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import subprocess
import sys
import warnings
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

import palmkit
from palmkit import audio
from palmkit.embeddings import EMBEDDING_VERSION
from palmkit.experiments.row_fields import check_row
from palmkit.experiments.trials import TRANSFER, Trial, find_method
from palmkit.experiments.variations import method_options
from palmkit.models.pair import ModelPair
from palmkit.protocols import STREAM_VERSION
from palmkit.storage import PACKAGE, atomic_write, run_folder

# Raise it when the same settings give another result than before.
# 2: the key covers the model's config and preprocessing, and the content of the dataset.
TRIAL_VERSION = 2
PACKAGES = (
    "torch",
    "torchaudio",
    "timm",
    "open_clip_torch",
    "numpy",
    "pandas",
    "scikit-learn",
    "soundfile",
)
LIBRARIES = ("transformers", "tokenizers")  # what CLAP models are made of
COMMAND = "PALMKIT_COMMAND"  # the environment variable with the command line; kernels inherit it
NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def trial_key(trial: Trial, dataset: str, model: str, method: str = "", tuned_on="") -> str:
    """sha256 of all that a trial's result depends on. A row with this key is not run again.

    dataset, model: their digests, of content, weights, config and preprocessing. method: the digest
    of the source file of a method from outside of the kit. tuned_on: the digest of the dataset that
    options are tuned on.
    """
    content = {**asdict(trial), "dataset": dataset, "model": model, "method_digest": method}
    if trial.regime == "published":
        del content["regime"]  # rows that are older than regimes keep their key
    if trial.tuned_on:
        content["regime"] = f"{TRANSFER}{tuned_on}"
    content["versions"] = {"trial": TRIAL_VERSION, "embedding": EMBEDDING_VERSION}
    if trial.protocol == "released":
        content["versions"]["stream"] = STREAM_VERSION
    return audio.digest(json.dumps(content, sort_keys=True).encode())


def row_path(run, trial: Trial, key: str) -> Path:
    return _row_path(run, trial.dataset, trial.method, trial.fold, trial.shots, trial.seed, key)


def _row_path(run, dataset, method, fold, shots, seed, key) -> Path:
    split = "split" if fold is None else f"fold{fold}"
    name = f"{method}-{split}-shots{shots}-seed{seed}-{key[:10]}.json"
    return run_folder(run) / "rows" / Path(dataset).name / name


def write_row(path: Path, row: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Write a trial's tensors, and then its row. So a row that exists is complete."""
    data = save(tensors)
    atomic_write(path.with_suffix(".safetensors"), data)
    update_row(path, {**row, "tensors": audio.digest(data)})


def update_row(path: Path, row: dict) -> dict:
    """Write a finished trial's row again and leave its tensors as they are; the row."""
    atomic_write(path, json.dumps(_encode(row), indent=1, allow_nan=False))
    return row


def parse_row(text: str | bytes) -> dict:
    """Parse the text of a row. Raises ValueError if it is not JSON, or no text can be made of it.

    NaN as a bare word is no JSON: see `_encode`.
    """
    try:
        row = json.loads(text, object_hook=_decode, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    escaped = b"\\ud" if isinstance(text, bytes) else "\\ud"
    if escaped in text.lower():  # half of a character, which no page and no terminal can show
        json.dumps(row, ensure_ascii=False).encode()
    return row


def _refuse(word: str):
    raise ValueError(f"{word} is no number of JSON")


def read_row(path: Path, key: str | None = None) -> dict | None:
    """A row, or None if it is not there.

    For a damaged row, or one of other settings, this logs why and returns None.
    """
    if not path.is_file():
        return None
    try:
        row = parse_row(path.read_bytes())
        check_row(row)
        if key is None or row["key"] == key:
            return row
        reason = "it belongs to other settings"
    except (ValueError, KeyError, OSError) as error:
        reason = f"it is damaged: {error}"
    warnings.warn(f"row {path} is not used, {reason}", stacklevel=2)
    return None


def read_finished(path: Path, key: str) -> dict | None:
    """A row whose tensors are complete, or of a trial that failed; else None. Then the trial is run
    again, and a warning says why.
    """
    row = read_row(path, key)
    if row is None or "failed" in row:
        return row
    tensors = path.with_suffix(".safetensors")
    if not tensors.is_file():
        problem = "are missing"
    elif audio.digest(tensors.read_bytes()) != row.get("tensors"):
        problem = "are damaged"
    else:
        return row
    warnings.warn(f"row {path.name} is run again: its tensors {problem}", stacklevel=2)
    return None


def row_version(row) -> int:
    """The version of the kit's results that a row has.

    Rows from before versions were recorded have version 1.
    """
    return row.get("trial_version", 1)


def count_old_rows(run, known: set[Path]) -> int:
    """The number of rows of a run, besides the known ones, that another version of the kit wrote.

    These rows are not changed.
    """
    others = set((run_folder(run) / "rows").glob("*/*.json")) - known
    return sum(row_version(read_row(path) or {}) != TRIAL_VERSION for path in others)


def _encode(value):
    """JSON has no NaN and no infinity: {"float": "nan"} stands for them."""
    if isinstance(value, dict):
        return {name: _encode(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def _decode(found: dict):
    if len(found) == 1 and found.get("float") in NON_FINITE:
        return NON_FINITE[found["float"]]
    return found


# Where a row comes from.


def provenance() -> dict:
    """What a row says about the program that made it: version, commit, command, packages."""
    return {
        "trial_version": TRIAL_VERSION,
        "palmkit": palmkit.__version__,
        "commit": git_commit(),
        "command": os.environ.get(COMMAND, ""),
        "versions": package_versions(),
    }


def model_columns(model) -> dict:
    """What a row says of two models beside their name and the digest of the whole: `encoders`
    ("one" or "two"), and the digests of both.
    """
    if not isinstance(model, ModelPair):
        return {"encoders": "one"}
    digests = [encoder.digest() for encoder in model.encoders]
    return {"encoders": "two", "first": digests[0], "second": digests[1]}


def package_versions() -> dict[str, str]:
    """Versions of PACKAGES, and of those in LIBRARIES that this process has imported."""
    return _find_versions(*PACKAGES, *(name for name in LIBRARIES if name in sys.modules))


@functools.cache
def _find_versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # installed by other means, conda say
            found[package] = "unknown"
    return found | {"python": platform.python_version()}


@functools.cache
def git_commit(folder: Path = PACKAGE.parent) -> str:
    """The commit of the checkout, with "dirty" if tracked files were changed; "" outside of one."""
    if not (folder / ".git").exists():
        return ""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):  # git is missing or refuses the folder
        return ""
    return f"{commit} dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


# What a row keeps beside it.


def make_compact(row: dict, tensors: dict) -> tuple[dict, dict]:
    """A trial's row and tensors without what was learned, its test logits as float16.

    The largest logit of each clip becomes 0, and all others are below it: the softmax changes by
    the rounding only, and the predicted class not at all.
    """
    logits = tensors["logits"]
    guess = logits.argmax(1, keepdim=True)
    finfo = torch.finfo(torch.float16)
    below = (logits - logits.gather(1, guess)).clamp(finfo.min, -finfo.smallest_normal)
    kept = {"logits": below.scatter(1, guess, 0.0).half(), "labels": tensors["labels"]}
    return row | {"compact": True}, kept


def load_tensors(row, run) -> dict[str, torch.Tensor]:
    """Tensors of a row of `run`: test `logits` [n, classes], `labels` [n], and what was learned,
    `prompt.*`. A compact row has the logits up to a constant for each clip, and nothing learned.

    row: a dict, or a line of a DataFrame of rows. Raises FileNotFoundError if the run has no such
    row, or if the row has no tensors.
    """
    path = find_row(row, run)
    tensors = path.with_suffix(".safetensors")
    if not tensors.is_file():
        raise FileNotFoundError(
            f"row {path.name} of run {Path(str(run)).name} has no tensors: "
            "run_trials makes them again"
        )
    return _load_tensors(tensors, row)


def find_row(row, run) -> Path:
    """The file of a row of `run`. Raises FileNotFoundError if the run has no such row."""
    name = Path(str(run)).name
    # In a DataFrame, a field that a row lacks is NaN, and whole numbers may be floats.
    values = [row.get(field) for field in ("shots", "seed", "key")]
    if any(pd.isna(value) for value in values):
        raise FileNotFoundError(
            f"a row of run {name} ({row['method']} on {row['dataset']}) lacks shots, seed or key, "
            "so its file cannot be found"
        )
    shots, seed, key = int(values[0]), int(values[1]), str(values[2])
    fold = None if pd.isna(row["fold"]) else int(row["fold"])
    path = _row_path(run, row["dataset"], row["method"], fold, shots, seed, key)
    if read_row(path, key) is None:
        raise FileNotFoundError(f"run {name} has no row {path.name}: run_trials first")
    return path


def load_method(row, run, model):
    """The method of a row as it was after training, without training it.

    Embed clips for it with its `audio_model()`: ASPL learns inside the audio encoder.
    Raises ValueError for a row with pca_dim, because its axes are not kept.
    """
    return restore_method(row, load_tensors(row, run), model)


def restore_method(row, tensors: dict[str, torch.Tensor], model):
    """The method of a row with its tensors, see `load_method`."""
    if "pca_dim" in row["options"]:
        raise ValueError(
            "a method on projected features cannot be loaded: its support set's axes are not kept"
        )
    if row.get("compact") is True:
        raise ValueError(
            "what was learned is not kept, because the trial ran with --compact; run it without"
        )
    options = method_options(row["options"]) | chosen_options(row)
    method = find_method(row["method"])(model, row["class_names"], seed=int(row["seed"]), **options)
    learned = {
        name.removeprefix("prompt."): tensor
        for name, tensor in tensors.items()
        if name.startswith("prompt.")
    }
    method.load_prompt_learner(learned)
    return method.requires_grad_(False)


def chosen_options(row) -> dict:
    """Options that were chosen in a support set, or tuned on another dataset; {} for most rows."""
    chosen = row.get("chosen")  # in a DataFrame, a field that a row lacks is NaN
    return chosen if isinstance(chosen, dict) else {}


def read_tensors(path: Path, row) -> dict[str, torch.Tensor]:
    """The tensors of a row, from their file, wherever it is. Raises FileNotFoundError, ValueError.

    The file must have the checksum that the row names: nothing else tells whose it is.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the row has no tensors {path}: copy them too, or run it again")
    if not isinstance(row.get("tensors"), str):
        raise ValueError(f"the row of {path} does not name their checksum: run the trial again")
    return _load_tensors(path, row)


def _load_tensors(path: Path, row) -> dict[str, torch.Tensor]:
    data, written = path.read_bytes(), row.get("tensors")
    # Early rows have no checksum, which is NaN in a DataFrame.
    if isinstance(written, str) and audio.digest(data) != written:
        raise ValueError(f"{path} is damaged, or of another row: its checksum is not the row's")
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): run_trials makes it again") from error
    logits = tensors.get("logits")
    if logits is not None and logits.dtype == torch.float16:
        tensors["logits"] = logits.float()
    return tensors
