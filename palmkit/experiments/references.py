"""What a worker is sent instead of a model, a dataset and embeddings: how to load them.

A worker loads each of them once, and keeps it for later trials. Everything loaded is compared with
the digest that the command found, so a worker with other weights, clips or versions is refused.
Embeddings are read from the worker's cache folder. What that cache does not have is computed there.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

import palmkit
from palmkit.data import Dataset, draw_shots
from palmkit.datasets.resolve import SKIP_BAD, load_dataset
from palmkit.experiments.executor import Refused
from palmkit.experiments.rows import TRIAL_VERSION
from palmkit.experiments.variations import modify_draw, modify_task
from palmkit.models.registry import load_model
from palmkit.storage import path_exists

PACKAGES = ("torch", "numpy")  # another version may give other digits
MODELS_KEPT, DATASETS_KEPT = 1, 16  # by a worker


class WorkerDiffers(Refused):
    """A worker cannot give the rows that the command would: it has other versions or content."""


def own_versions() -> tuple[tuple[str, str], ...]:
    """(name, version) of what changes a result's digits, in this process."""
    found = [("palmkit", palmkit.__version__), ("rows of palmkit", str(TRIAL_VERSION))]
    return (*found, *((name, version(name)) for name in PACKAGES))


def check_versions(expected: tuple[tuple[str, str], ...]) -> None:
    """Raise WorkerDiffers, which names this machine, if this process has other versions."""
    own = dict(own_versions())
    differ = [
        f"{name} {own.get(name, 'missing')} instead of {wanted}"
        for name, wanted in expected
        if own.get(name) != wanted
    ]
    if differ:
        raise WorkerDiffers(
            f"the worker on {platform.node()} has {', '.join(differ)}: "
            "install the same versions on all machines"
        )


@dataclass(frozen=True)
class ModelReference:
    """A model: the name or path for `load_model`, its device, and its digest."""

    checkpoint: str
    device: str
    note: str
    digest: str
    precision: str  # of float32 products, as PyTorch names it

    @classmethod
    def of(cls, model, checkpoint) -> ModelReference:
        """checkpoint: what the model was loaded by."""
        about = (str(model.device), model.note, model.digest())
        return cls(_absolute(checkpoint), *about, torch.get_float32_matmul_precision())

    def load(self):
        """The model. This process keeps it. Raises WorkerDiffers for other weights."""
        torch.set_float32_matmul_precision(self.precision)
        return _load_model(self)


@functools.lru_cache(MODELS_KEPT)
def _load_model(reference: ModelReference):
    model = load_model(reference.checkpoint, reference.device)
    _compare(f"the model {reference.checkpoint}", model.digest(), reference.digest)
    model.note = reference.note  # with what the user added
    return model


@dataclass(frozen=True)
class DatasetReference:
    """A fold of a dataset, changed by the options of a task (JSON), and the fold's digest."""

    dataset: str
    fold: int | None
    options: str
    skip_bad: str
    digest: str

    @classmethod
    def of(cls, dataset: str, fold: int | None, options: str, digest: str) -> DatasetReference:
        """dataset: a folder or a name, as a trial has it."""
        return cls(_absolute(dataset), fold, options, os.environ.get(SKIP_BAD, ""), digest)

    def load(self) -> Dataset:
        """The fold. This process keeps it. Raises WorkerDiffers for other clips."""
        return _load_fold(self)

    def draw(self, shots: int, seed: int) -> pd.DataFrame:
        """The training clips of a draw."""
        return modify_draw(draw_shots(self.load().train, shots, seed), **json.loads(self.options))


@functools.lru_cache(DATASETS_KEPT)
def _load_fold(reference: DatasetReference) -> Dataset:
    with skipping_bad(reference.skip_bad):
        dataset = load_dataset(reference.dataset, reference.fold)
    dataset = modify_task(dataset, **json.loads(reference.options))
    _compare(f"the dataset {reference.dataset}", dataset.digest(), reference.digest)
    return dataset


@contextlib.contextmanager
def skipping_bad(value: str) -> Iterator[None]:
    """PALMKIT_SKIP_BAD with this value, as the command has it."""
    before = os.environ.get(SKIP_BAD, "")
    os.environ[SKIP_BAD] = value
    try:
        yield
    finally:
        os.environ[SKIP_BAD] = before


def _compare(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise WorkerDiffers(
            f"{what} of the worker on {platform.node()} has other content than the command's "
            f"(digest {found[:12]} instead of {expected[:12]}): copy it there again"
        )


def _absolute(name) -> str:
    """A path for a worker in another folder; a name as it is."""
    path = Path(str(name)).expanduser()
    return str(path.absolute()) if path_exists(path) else str(name)
