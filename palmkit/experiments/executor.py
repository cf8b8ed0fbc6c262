"""How units are spread over a machine's cores, and how long they will take: measured, not guessed."""

from __future__ import annotations

import contextlib
import os
import warnings

import joblib
import torch

START = 10  # seconds of work that starting processes is worth
# A process that has grown is replaced by a new one, and no work is lost: nothing that a user should read of.
warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor")

SMALL = 128  # width of a text encoder whose steps are too short to be shared by several cores


def count_jobs(model) -> int:
    """Units to run at a time: PALMKIT_JOBS; else one a core for a small model on a CPU, one for all others."""
    if given := os.environ.get("PALMKIT_JOBS"):
        if not given.isdigit() or given == "0":
            raise ValueError(f"PALMKIT_JOBS={given}: use a number of processes, 1 or more")
        return int(given)
    return joblib.cpu_count() if model.device.type == "cpu" and model.text.width <= SMALL else 1


def in_parallel(function, calls: list[tuple], seconds: list[float], jobs: int):
    """(n, function(*calls[n])) as they get done, the longest begun first; in `jobs` processes of one thread each.

    Work that is done before processes would have started is done here, on one thread too: results are the same bits.
    """
    order = sorted(range(len(calls)), key=lambda n: -seconds[n])
    if jobs > 1 and len(calls) > 1 and sum(seconds) > START:
        numbered = (joblib.delayed(_numbered)(function, n, calls[n]) for n in order)
        yield from joblib.Parallel(jobs, return_as="generator_unordered")(numbered)
        return
    for n in order:
        with threads(1 if jobs > 1 else torch.get_num_threads()):
            done = function(*calls[n])
        yield n, done


@contextlib.contextmanager
def threads(number: int):
    """torch with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _numbered(function, n, call):
    return n, function(*call)
