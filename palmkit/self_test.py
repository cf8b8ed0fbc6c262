"""Does this installation compute what it should? A few numbers beside those that are shipped.

`mini/selftest.json` has what mini-PENGI computed from one sound and a few words, and mini-CLAP from
the words: written by `tools/make_selftest.py`, in the environment of requirements.lock.
"""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from palmkit import audio
from palmkit.methods import METHODS
from palmkit.models import load_model
from palmkit.storage import PACKAGE
from palmkit.training import fit

EXPECTED = PACKAGE / "mini" / "selftest.json"
CLASSES = ["dog", "rain", "church bells"]
RATE = 48_000  # of the test sound; it is resampled
# Largest difference over the largest expected number. mini-PENGI computes in double precision, so
# only a GPU, or another resampler, comes near it.
LIMIT = 1e-4


@dataclass(frozen=True)
class Outcome:
    """One step: the largest relative difference from what is expected, or what went wrong.

    difference: None for a step that compares no numbers, or did not get so far.
    """

    step: str
    difference: float | None
    seconds: float
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem and (self.difference is None or self.difference <= LIMIT)


PARITY_TESTS = "tests/kit/test_parity.py"
PARITY = "compact and (unit_embedding or text_embeddings or zero_shot)"


def run_parity_tests() -> Outcome | None:
    """The tests against the published code's tensors, which a checkout has; None without them."""
    root, name = PACKAGE.parent, "parity with the published code's tensors"
    if not (root / "tests" / "fixtures").is_dir() or not importlib.util.find_spec("pytest"):
        return None
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [PARITY_TESTS, "-k", PARITY]
    start = time.perf_counter()
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        return Outcome(name, None, time.perf_counter() - start, f"pytest did not run: {error}")
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-300:]]
    problem = "" if done.returncode == 0 else f"{lines[-1]} (`make test` says more)"
    return Outcome(name, None, time.perf_counter() - start, problem)


def make_sound() -> bytes:
    """A WAV file of one second: three tones, two channels, 16 bits."""
    seconds = np.arange(RATE) / RATE
    tones = [np.sin(2 * np.pi * hertz * seconds) / 4 for hertz in (220, 1250, 5000)]
    file = io.BytesIO()
    samples = np.stack([tones[0] + tones[1], tones[2]], 1)
    soundfile.write(file, samples, RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


class Steps:
    """What is computed, one step after the other; each is a list of numbers."""

    def __init__(self, device="cpu"):
        self.device = device

    def decode(self) -> list[float]:
        """Every 997th sample of the test sound at the model's rate."""
        self.model = load_model("mini", self.device)
        rate = self.model.sample_rate
        self.waveform = audio.decode(make_sound(), "the test sound", rate)
        return self.waveform[::997].tolist()

    def embed_audio(self) -> list[float]:
        """The embedding of the test sound, [dim]."""
        samples = audio.count_samples(self.model.clip_seconds, self.model.sample_rate)
        clip, _ = audio.crop_clip(self.waveform, samples, "start")
        self.feature = self.model.encode_audio(clip[None])
        return self.feature[0].double().tolist()

    def embed_text(self) -> list[float]:
        """The embeddings of CLASSES, one after the other."""
        return self.model.encode_text(CLASSES).flatten().double().tolist()

    def embed_text_both_ways(self) -> list[float]:
        """The same by mini-CLAP, whose tokens see all others."""
        texts = load_model("mini-clap", self.device).encode_text(CLASSES)
        return texts.flatten().double().tolist()

    def train(self) -> list[float]:
        """The losses of three steps of PALM on the test sound as each of the classes."""
        method = METHODS["palm"](self.model, CLASSES, seed=0)
        features = self.feature.repeat(len(CLASSES), 1)
        labels = torch.arange(len(CLASSES), device=features.device)
        return fit(method, features, labels, epochs=3, batch_size=len(CLASSES), seed=0)


STEPS = {
    "decode and resample": Steps.decode,
    "embed sound": Steps.embed_audio,
    "embed text": Steps.embed_text,
    "embed text, mini-CLAP": Steps.embed_text_both_ways,
    "train PALM": Steps.train,
}


def compute(device="cpu") -> dict[str, list[float]]:
    """The numbers of every step. Raises what a step raises."""
    steps = Steps(device)
    return {name: step(steps) for name, step in STEPS.items()}


def run_self_test(device="cpu", expected: Path = EXPECTED) -> list[Outcome]:
    """Every step beside the shipped numbers. A step that raises ends it; nothing is raised."""
    outcomes: list[Outcome] = []
    try:
        content = json.loads(expected.read_bytes())
        numbers = {name: np.array(content[name], dtype=float) for name in STEPS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"{expected} cannot be read ({error}): install palmkit again"
        return [Outcome("read what is expected", None, 0.0, problem)]
    steps = Steps(device)
    for name, step in STEPS.items():
        start = time.perf_counter()
        try:
            found = np.array(step(steps))
        except Exception as error:  # it is for the report of an installation that does not work
            problem = f"{type(error).__name__}: {error}"
            return [*outcomes, Outcome(name, None, time.perf_counter() - start, problem)]
        wanted = numbers[name]
        seconds = time.perf_counter() - start
        if found.shape != wanted.shape:
            problem = f"{len(found)} numbers instead of {len(wanted)}"
            outcomes.append(Outcome(name, None, seconds, problem))
            continue
        difference = float(np.abs(found - wanted).max() / np.abs(wanted).max())
        outcomes.append(Outcome(name, difference, seconds))
    return outcomes
