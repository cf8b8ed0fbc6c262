"""How long trials will take on this machine, measured."""

from __future__ import annotations

import time

import torch

from palmkit.experiments.executor import count_jobs, threads
from palmkit.experiments.variations import method_options
from palmkit.methods import METHODS
from palmkit.training import fit, predict


class Clock:
    """Seconds that units will take on this machine, from a few steps of each kind on random features."""

    def __init__(self, model):
        self.model, self.known = model, {}

    def unit(self, unit, class_names, n_train: int, n_test: int) -> float:
        """Seconds to fit and test a unit on one core (on the device, if it has one)."""
        kind = (unit.method, repr(unit.options), tuple(class_names), unit.batch_size)
        if kind not in self.known:
            self.known[kind] = self.measure(unit, class_names)
        prepare, step, test = self.known[kind]
        return prepare + step * unit.epochs * -(-n_train // unit.batch_size) + test * n_test

    def measure(self, unit, class_names) -> tuple[float, float, float]:
        """Seconds to build a method, of one step, and of one test clip."""
        with threads(1 if count_jobs(self.model) > 1 else torch.get_num_threads()):
            start = time.perf_counter()
            method = METHODS[unit.method](
                self.model, class_names, seed=0, **method_options(unit.options)
            )
            built = time.perf_counter()
            features = torch.randn(max(unit.batch_size, 16), self.model.dim)
            labels = torch.arange(len(features)) % len(class_names)
            steps = [range(unit.batch_size)]
            before, times = time.perf_counter(), 1
            fit(method, features, labels, batches=steps)
            if (
                time.perf_counter() - before < 1
            ):  # the first is slower, which matters where steps are short
                before, times = time.perf_counter(), 2
                fit(method, features, labels, batches=steps * times)
            fitted = time.perf_counter()
            predict(method, features)
            done = time.perf_counter()
        return built - start, (fitted - before) / times, (done - fitted) / len(features)

    def clip(self) -> float:
        """Seconds to embed one clip, decoding apart."""
        samples = round(self.model.sample_rate * self.model.clip_seconds)
        waveforms = torch.randn(4, samples) / 10
        self.model.encode_audio(waveforms)
        start = time.perf_counter()
        self.model.encode_audio(waveforms)
        return (time.perf_counter() - start) / len(waveforms)


def minutes(seconds: float) -> str:
    """A duration as one says it: "about 40 s", "about 7 min", "about 3.5 h"."""
    if seconds < 100:
        return f"about {max(round(seconds), 1)} s"
    return f"about {round(seconds / 60)} min" if seconds < 6000 else f"about {seconds / 3600:.1f} h"
