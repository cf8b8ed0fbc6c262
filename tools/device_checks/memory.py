"""A trial that asks for more memory than there is: its row says so in words, the others go on."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import torch

from device_checks import Line, Setup, holds
from device_checks.rows import FROZEN, write_tones
from palmkit.experiments.failures import TrialsFailed
from palmkit.experiments.run import run_trials
from palmkit.experiments.trials import make_grid
from palmkit.plugins import VARIABLE, load_plugins

# 2^50 float32 are 4 PiB: no device has them, and nothing is taken from others that use it.
HUNGRY = '''"""A method that asks for 4 PiB in each step."""

import torch

from palmkit import PALM


class Hungry(PALM):
    name, label = "hungry", "Hungry"

    def forward(self, features):
        return super().forward(features) + torch.empty(2**50, device=features.device)[0]
'''
WORDS = ("memory is too small", "PALMKIT_JOBS", "allocate")


def check(setup: Setup) -> Iterator[Line]:
    setup.tell("out of memory")
    data, run = setup.folder / "few", setup.folder / "runs" / "memory"
    write_tones(data, train=4, test=1)
    file = setup.folder / "hungry.py"
    file.write_text(HUNGRY)
    run_trials(make_grid("palm", [data], seeds=[0], **FROZEN), setup.there, run / "first", None)
    held, before = allocated(setup.device), os.environ.get(VARIABLE, "")
    load_plugins([file])
    try:
        trials = make_grid(["hungry", "palm"], [data], seeds=[0], **FROZEN)
        reason, done = fail(trials, setup.there, run)
    finally:
        os.environ[VARIABLE] = before
    told = all(word in reason for word in WORDS)
    value = shorten(reason.replace(str(setup.folder), "").replace("|", "/"))
    yield holds("a trial out of memory", value, "its row says so in words", told)
    yield holds("the other trial", f"{done} of 1 done", "done", done == 1)
    kept = allocated(setup.device) - held
    yield holds("device memory kept afterwards", f"{kept:,} bytes", "0 bytes", kept == 0)


def fail(trials, model, run) -> tuple[str, int]:
    """The reason of the one failure, and how many trials were done; "" if nothing failed."""
    try:
        return "", len(run_trials(trials, model, run, cache=None))
    except TrialsFailed as error:
        reasons = [row["failed"] for row in error.failed]
        return "; ".join(reasons), len(trials) - len(reasons)


def allocated(device: torch.device) -> int:
    """Bytes of the device that tensors hold; 0 on a CPU, which has no such count."""
    gc.collect()
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def shorten(text: str, length: int = 300) -> str:
    return text if len(text) <= length else f"{text[:length]} ..."
