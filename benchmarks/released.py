"""What an epoch of the released protocol costs, at PENGI's full size with random weights.

`python benchmarks/released.py` prints a Markdown table. Two ways to the same training take turns in
this process. The kit computes audio embeddings without gradient from cached waveforms, once for all
methods of a seed. The published way decodes every file anew and runs the backward pass through the
audio encoder, whose gradients nobody uses. The text side is the kit's in both, so what it saves is
not counted here (see speed.py).
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from pathlib import Path

import psutil
import soundfile
import torch
import torch.nn.functional as F
from speed import ESC50, number, spread

from palmkit import METHODS, fit, read_clip
from palmkit.experiments.profiling import Stopwatch, machine
from palmkit.models.random import random_pengi
from palmkit.protocols.streams import embed_stream
from palmkit.protocols.train_mode import (
    TrainModeAudio,
    spec_augment,
    text_dropout,
    with_bn_statistics,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--classes", type=int, default=10, help="the first so many names of ESC-50")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    pengi, load, start = random_pengi("cpu"), psutil.getloadavg()[0], time.perf_counter()
    labels = torch.arange(given.clips) % given.classes
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        paths = write_clips(Path(folder), given.clips)
        embed_stream(pengi, paths, 1, given.batch, cache=folder)  # decodes; is not timed
        epoch = Listening(pengi, paths, given.batch, folder)
        methods = {
            name.upper(): METHODS[name](pengi, ESC50[: given.classes])
            for name in ("palm", "coop", "cocoop")
        }
        stopwatch = Stopwatch(pengi.device, given.repeats)
        for what, chosen in [(name, [name]) for name in methods] + [
            ("all three of a seed", list(methods))
        ]:
            learners = [methods[name] for name in chosen]
            ours = functools.partial(train_all, pengi, learners, epoch, labels, given.batch)
            published = Published(pengi, learners, paths, labels, given.batch)
            lines.append((what, stopwatch(palmkit=ours, plain=published)))
    print(f"{machine(pengi.device)}, load {load:.1f} before; {time.perf_counter() - start:.0f} s.")
    print(
        f"PENGI's size, random weights, float32, {given.clips} clips of 5 s, batch {given.batch}, ",
        end="",
    )
    print(f"{given.classes} classes, {given.repeats} repeats; seconds an epoch.\n")
    print("| | as published | palmkit | ratio |\n|---|---|---|---|")
    for name, measured in lines:
        ratio = number(measured["plain"]["seconds"] / measured["palmkit"]["seconds"])
        print(f"| {name} | {spread(measured['plain'])} | {spread(measured['palmkit'])} | {ratio} |")
    print("\nMedian (fastest to slowest). The stream is computed once for all three.")


def write_clips(folder: Path, count: int) -> list[str]:
    """Five seconds of noise each, 16-bit mono at 44.1 kHz."""
    paths = [str(folder / f"{n}.wav") for n in range(count)]
    for path in paths:
        soundfile.write(path, (0.1 * torch.randn(5 * 44_100)).numpy(), 44_100, subtype="PCM_16")
    return paths


class Listening:
    """An epoch of the stream, each time another seed's, so that none is found in the cache."""

    def __init__(self, pengi, paths, batch, cache):
        self.call, self.seed = (
            lambda seed: embed_stream(pengi, paths, 1, batch, seed, cache=cache).features,
            0,
        )

    def __call__(self):
        self.seed += 1
        return self.call(self.seed)


def train_all(pengi, learners, epoch, labels, batch):
    """One stream, and an epoch of each learner on it."""
    features = epoch()
    for method in learners:
        with text_dropout(pengi, 0):
            fit(method, features, labels, epochs=1, batch_size=batch)


class Published:
    """The same epoch with files decoded anew, and gradients of the audio encoder's weights."""

    def __init__(self, pengi, learners, paths, labels, batch):
        self.learners, self.paths, self.labels, self.batch = learners, paths, labels, batch
        self.model = with_bn_statistics(pengi)
        self.encoder = TrainModeAudio(self.model).encoder

    def __call__(self):
        self.encoder.requires_grad_(True)
        for method in self.learners:
            self.train(method, torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9))
        self.encoder.requires_grad_(False)

    def train(self, method, optimizer):
        with text_dropout(self.model, 0):
            for index in torch.randperm(len(self.paths)).split(self.batch):
                waveforms = torch.stack([read_clip(self.paths[n]) for n in index])
                with torch.no_grad():  # the published STFT has no gradient either
                    log_mel = self.encoder.log_mel(waveforms)
                image = self.encoder.image(log_mel, spec_augment)
                features = self.encoder.projection(self.encoder.pooled(image))
                loss = F.cross_entropy(method(features), self.labels[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()


if __name__ == "__main__":
    main()
