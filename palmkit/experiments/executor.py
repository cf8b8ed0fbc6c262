"""How trials are spread over a machine's cores."""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path

import joblib
import torch

from palmkit.plugins import PluginError, explain, listed_files, load_plugins

START = 10  # seconds of work that starting processes is worth
# joblib replaces a process that has grown. No work is lost, so users need no warning.
warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor")

SMALL = 128  # width of a text encoder whose steps are too short to be shared by several cores


def count_jobs(model) -> int:
    """Trials to run at the same time: PALMKIT_JOBS; else one per core for a small model on a CPU,
    and one for all others.
    """
    if given := os.environ.get("PALMKIT_JOBS"):
        if not given.isdigit() or given == "0":
            raise ValueError(f"PALMKIT_JOBS={given}: use a number of processes, 1 or more")
        return int(given)
    width = getattr(model, "text_width", model.dim)
    return joblib.cpu_count() if model.device.type == "cpu" and width <= SMALL else 1


def in_parallel(function, calls: list[tuple], seconds: list[float], jobs: int):
    """Yield (n, function(*calls[n])) as calls finish, in `jobs` processes of one thread each. The
    longest call starts first.

    Work that takes less time than starting processes runs in this process, also on one thread, so
    results have the same bits.
    """
    order = sorted(range(len(calls)), key=lambda n: -seconds[n])
    if jobs > 1 and len(calls) > 1 and sum(seconds) > START:
        plugins = Plugins(listed_files())
        tasks = (joblib.delayed(_call)(plugins, n, function, calls[n]) for n in order)
        yield from joblib.Parallel(jobs, return_as="generator_unordered")(tasks)
        return
    for n in order:
        with threads(1 if jobs > 1 else torch.get_num_threads()):
            done = function(*calls[n])
        yield n, done


@contextlib.contextmanager
def threads(number: int):
    """torch with this number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Plugins:
    """The first argument of a call in a worker: unpickling it imports the files.

    The arguments after it may be objects of classes in these files. A worker that started earlier
    has no other way to know the files.
    """

    def __init__(self, files: list[Path]):
        self.files = files

    def __reduce__(self):
        return load_plugins, (self.files,)


def _call(_plugins, n: int, function, arguments: tuple):
    """The call in a worker. A traceback does not reach the parent, so an error of code from outside
    is put into words here.
    """
    try:
        return n, function(*arguments)
    except Exception as error:
        if reason := explain(error):
            raise PluginError(reason) from error
        raise
