"""How long trials will take on this machine, measured."""

from __future__ import annotations

import json
import time

import torch

from palmkit.experiments.executor import count_jobs, threads
from palmkit.experiments.selection import combinations
from palmkit.experiments.trials import Trial, find_method
from palmkit.experiments.variations import method_options
from palmkit.models.base import PromptableText, find_missing
from palmkit.models.pair import each_encoder
from palmkit.training import fit, predict

clip_times: dict[tuple[str, str], float] = {}  # seconds of a clip, by model and device


class Clock:
    """Seconds that trials will take on this machine, from a few steps of each kind on random
    features.
    """

    def __init__(self, model):
        self.model = model
        self.known: dict[tuple, tuple[float, float, float]] = {}
        self.chosen: dict[tuple, float] = {}  # seconds to choose options, of each kind
        self.broken: dict[tuple, Exception] = {}  # kinds that cannot be run, and why

    def trial(self, trial: Trial, class_names, n_train: int, n_test: int) -> float:
        """Seconds to fit and test a trial on one core (on the device, if it has one).

        Raises what the method raises.
        """
        options = json.dumps(trial.options, sort_keys=True)
        own_fit = find_method(trial.method).own_fit
        batch = max(n_train, 1) if own_fit else trial.batch_size
        kind = (trial.method, options, tuple(class_names), batch)
        if kind in self.broken:
            raise self.broken[kind]
        if kind not in self.known:
            try:
                self.known[kind] = self.measure(trial, class_names, batch)
            except Exception as error:  # whatever a method raises
                self.broken[kind] = error
                raise
        prepare, step, test = self.known[kind]
        steps = 1 if own_fit else trial.epochs * -(-n_train // trial.batch_size)
        choosing = self.choice(trial, class_names, n_train) if trial.regime == "support" else 0.0
        return choosing + prepare + step * steps + test * n_test

    def choice(self, trial: Trial, class_names, n_train: int) -> float:
        """Seconds to choose a trial's options inside its support set: those of leaving out each
        shot once, for each combination of options.
        """
        cls, options = find_method(trial.method), method_options(trial.options)
        labels = torch.arange(n_train) % len(class_names)
        if labels.bincount().max() < 2:
            return 0.0
        kind = (trial.method, json.dumps(options, sort_keys=True), tuple(class_names), n_train)
        if kind not in self.chosen:
            with threads(self.cores):
                method = cls(self.model, class_names, seed=0, **options)
                features = torch.randn(n_train, self.model.dim)
                start = time.perf_counter()
                with torch.no_grad():
                    method.leave_out_logits(features, labels, **cls.choice_settings)
                once = time.perf_counter() - start
            self.chosen[kind] = once * len(combinations(cls, options))
        return self.chosen[kind]

    @property
    def cores(self) -> int:
        """Threads of a trial."""
        return 1 if count_jobs(self.model) > 1 else torch.get_num_threads()

    def measure(self, trial: Trial, class_names, batch: int) -> tuple[float, float, float]:
        """Seconds to build a method, of one step, and of one test clip.

        batch: clips of a step. For a method with a fit of its own, the whole fit is one step.
        """
        if not find_missing(self.model, PromptableText):
            self.model.tokenize(class_names[:1])  # loaded now, the tokenizer is in no trial's time
        with threads(self.cores):
            start = time.perf_counter()
            options = method_options(trial.options)
            method = find_method(trial.method)(self.model, class_names, seed=0, **options)
            built = time.perf_counter()
            width = getattr(method, "input_dim", self.model.dim)  # `fit` names a missing super()
            inputs = torch.randn(max(batch, 16), width)
            labels = torch.arange(len(inputs)) % len(class_names)
            step = self._step(method, inputs, labels, batch)
            features = torch.randn(len(inputs), self.model.dim)
            fitted = time.perf_counter()
            predict(method, features)
            test = (time.perf_counter() - fitted) / len(features)
            if method.tunes_audio:  # test clips are encoded anew in each trial
                test += self.clip()
        return built - start, step, test

    def _step(self, method, features, labels, batch_size: int) -> float:
        """Seconds of a step. The first step is slower, so it is not counted if steps are short."""
        steps = [range(batch_size)]
        before = time.perf_counter()
        fit(method, features, labels, batches=steps)
        first = time.perf_counter() - before
        if first >= 1 or method.own_fit:
            return first
        before = time.perf_counter()
        fit(method, features, labels, batches=steps * 2)
        return (time.perf_counter() - before) / 2

    def clip(self) -> float:
        """Seconds to embed one clip, without decoding; by both models of a pair."""
        return sum(_clip_seconds(encoder) for encoder, _, _ in each_encoder(self.model))

    def embedding(self, clips: int) -> float:
        """Seconds to embed clips. Without clips a slow model is not measured for nothing."""
        return clips * self.clip() if clips else 0.0


def _clip_seconds(encoder) -> float:
    """Seconds to encode one clip. A model is measured once in a process."""
    kind = (encoder.digest(), str(encoder.device))
    if kind not in clip_times:
        samples = round(encoder.sample_rate * encoder.clip_seconds)
        waveforms = torch.randn(4, samples) / 10
        encoder.encode_audio(waveforms)
        start = time.perf_counter()
        encoder.encode_audio(waveforms)
        clip_times[kind] = (time.perf_counter() - start) / len(waveforms)
    return clip_times[kind]


def duration(seconds: float) -> str:
    """A duration for reading: "about 40 s", "about 7 min", "about 3.5 h"."""
    if seconds < 100:
        return f"about {max(round(seconds), 1)} s"
    return f"about {round(seconds / 60)} min" if seconds < 6000 else f"about {seconds / 3600:.1f} h"
