"""How units are spread over a machine's cores, and how long they will take: measured, not guessed."""

from __future__ import annotations

import contextlib
import os
import time
import warnings

import joblib
import torch

from palmkit.audio import CLIP_SAMPLES
from palmkit.methods import METHODS
from palmkit.runs.variations import method_options
from palmkit.training import fit, predict

START = 10  # seconds of work that starting processes is worth
# A process that has grown is replaced by a new one, and no work is lost: nothing that a user should read of.
warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor")

SMALL = 128  # width of a text encoder whose steps are too short to be shared by several cores


def count_jobs(pengi) -> int:
    """Units to run at a time: PALMKIT_JOBS; else one a core for a small model on a CPU, one for all others."""
    if given := os.environ.get("PALMKIT_JOBS"):
        if not given.isdigit() or given == "0":
            raise ValueError(f"PALMKIT_JOBS={given}: use a number of processes, 1 or more")
        return int(given)
    return joblib.cpu_count() if pengi.device.type == "cpu" and pengi.text.width <= SMALL else 1


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


class Clock:
    """Seconds that units will take on this machine, from a few steps of each kind on random features."""

    def __init__(self, pengi):
        self.pengi, self.known = pengi, {}

    def unit(self, unit, class_names, n_train: int, n_test: int) -> float:
        """Seconds to fit and test a unit on one core (on the device, if it has one)."""
        kind = (unit.method, repr(unit.options), tuple(class_names), unit.batch_size)
        if kind not in self.known:
            self.known[kind] = self.measure(unit, class_names)
        prepare, step, test = self.known[kind]
        return prepare + step * unit.epochs * -(-n_train // unit.batch_size) + test * n_test

    def measure(self, unit, class_names) -> tuple[float, float, float]:
        """Seconds to build a method, of one step, and of one test clip."""
        with threads(1 if count_jobs(self.pengi) > 1 else torch.get_num_threads()):
            start = time.perf_counter()
            method = METHODS[unit.method](self.pengi, class_names, seed=0, **method_options(unit.options))
            built = time.perf_counter()
            features = torch.randn(max(unit.batch_size, 16), self.pengi.dim)
            labels = torch.arange(len(features)) % len(class_names)
            steps = [range(unit.batch_size)]
            before, times = time.perf_counter(), 1
            fit(method, features, labels, batches=steps)
            if time.perf_counter() - before < 1:  # the first is slower, which matters where steps are short
                before, times = time.perf_counter(), 2
                fit(method, features, labels, batches=steps * times)
            fitted = time.perf_counter()
            predict(method, features)
            done = time.perf_counter()
        return built - start, (fitted - before) / times, (done - fitted) / len(features)

    def clip(self) -> float:
        """Seconds to embed one clip, decoding apart."""
        waveforms = torch.randn(4, CLIP_SAMPLES) / 10
        self.pengi.encode_audio(waveforms)
        start = time.perf_counter()
        self.pengi.encode_audio(waveforms)
        return (time.perf_counter() - start) / len(waveforms)


def minutes(seconds: float) -> str:
    """A duration as one says it: "about 40 s", "about 7 min", "about 3.5 h"."""
    if seconds < 100:
        return f"about {max(round(seconds), 1)} s"
    return f"about {round(seconds / 60)} min" if seconds < 6000 else f"about {seconds / 3600:.1f} h"
