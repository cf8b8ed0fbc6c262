"""Checks of a whole run on six invented sounds, and of the time that a run takes."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path

import pandas as pd
import soundfile
import torch

from palmkit.embeddings import embed
from palmkit.encoder_check.report import ok, remark, wrong
from palmkit.encoder_check.sounds import make_sounds
from palmkit.encoder_check.subject import SAME, TEXTS, Subject, as_unit, distance, find_tensors
from palmkit.methods import METHODS
from palmkit.models.about import default_settings
from palmkit.models.base import StochasticText, find_missing
from palmkit.training import TrainingDiverged, evaluate, fit

CLASSES = 6
CLIPS = 2  # of each class
STEPS = 20
RATE = 0.05  # of a model that states none in `defaults`: the published one, chosen for PENGI
LOWER = (1, 0.1, 0.01)  # factors of the learning rate that are tried
MANY = 1000  # clips, for a forecast


def write_clips(folder: Path, sample_rate: int, samples: int) -> pd.DataFrame:
    """WAV files of six sounds, each in several variants: path, label."""
    rows = []
    for seed in range(CLIPS):
        sounds = list(make_sounds(sample_rate, samples, seed + 1).values())[:CLASSES]
        for label, sound in enumerate(sounds):
            path = folder / f"{label}-{seed}.wav"
            soundfile.write(path, sound.numpy(), sample_rate)
            rows.append({"path": str(path), "label": label})
    return pd.DataFrame(rows)


def embed_clips(subject: Subject):
    """Embeddings of invented sounds by `palmkit.embed`, from files, nothing cached."""
    model = subject.model
    if subject.clips is None:
        with tempfile.TemporaryDirectory() as folder:
            clips = write_clips(Path(folder), model.sample_rate, subject.samples)
            subject.clips = embed(model, clips, cache=None, on_progress=lambda done, total: None)
    return subject.clips


def check_method(subject: Subject, name: str):
    """A method on six sounds: its loss falls, and all numbers are finite."""
    found = embed_clips(subject)
    names = subject.names[:CLASSES]
    method = METHODS[name](subject.model, names, seed=0)
    start = evaluate(method, found.features, found.labels)["loss"]
    sizes = f"{len(found.labels)} invented clips of {CLASSES} classes"
    if not math.isfinite(start):
        return wrong(
            f"The loss on {sizes} is {start}.",
            f"{method.label} has no result.",
            "Is logit_scale right? It is a factor of cosines, 100 and less in known models.",
        )
    if isinstance(method, METHODS["palm"]) and (moved := projection_error(subject)) > SAME:
        return wrong(
            f"project_text of text_latents differs from encode_text by {moved:.2g}.",
            "PALM starts from other texts than zero-shot, and learns in front of them.",
            "Let encode_text be project_text(text_latents(prompts)), or leave both out.",
        )
    if not method.learns:
        return ok(
            f"Loss {start:.3g} on {sizes} (chance: {math.log(CLASSES):.3g}; it says nothing of "
            "real sounds)."
        )
    return judge_training(start, train_until_it_learns(subject, name, start), sizes, method.label)


def train_until_it_learns(subject: Subject, name: str, start: float) -> dict[float, float]:
    """{learning rate: loss after STEPS steps}, from the highest rate on, until one is under the
    loss at the start. NaN where the training diverged.
    """
    found = embed_clips(subject)
    rate = default_settings(subject.model).get("lr", RATE)
    ends: dict[float, float] = {}
    for factor in LOWER:
        lr = rate * factor
        method = METHODS[name](subject.model, subject.names[:CLASSES], seed=0)
        try:
            fit(method, found.features, found.labels, epochs=STEPS, batch_size=12, lr=lr)
            ends[lr] = evaluate(method, found.features, found.labels)["loss"]
        except TrainingDiverged:
            ends[lr] = float("nan")
        if ends[lr] < start:
            break
    return ends


def judge_training(start: float, ends: dict[float, float], sizes: str, label: str):
    """ends: of `train_until_it_learns`. sizes, label: of clips and method, for the words."""
    tried = [f"{end:.4g} with lr={lr:g}" for lr, end in ends.items()]
    first, end = next(iter(ends)), [*ends.values()][-1]
    if not end < start:
        return wrong(
            f"The loss on {sizes} does not fall in {STEPS} steps: from {start:.4g} to "
            f"{', '.join(tried)}.",
            f"{label} learns nothing with this model.",
            "See the other checks; else compare logit_scale with the one of its training.",
        )
    if len(ends) > 1:
        return remark(
            f"The loss on {sizes} falls from {start:.4g} to {tried[-1]}, but it ends at "
            f"{tried[0]}.",
            f"lr={first:g} is what a run takes: the model's `defaults`, else PENGI's.",
            "Choose --lr on data that you do not report, and state it in the model: "
            'defaults = {"lr": ..}.',
        )
    return ok(f"The loss on {sizes} falls from {start:.4g} to {end:.4g} in {STEPS} steps.")


def projection_error(subject: Subject) -> float:
    """Distance of a StochasticText model's projected latents from encode_text; 0 for others."""
    model = subject.model
    if find_missing(model, StochasticText):
        return 0.0
    projected = as_unit(model.project_text(model.text_latents(list(TEXTS))))
    return distance(projected, subject.texts)


def check_speed(subject: Subject):
    """Seconds for a clip and a text, and a forecast."""
    clip = fastest(lambda: subject.model.encode_audio(subject.sounds.clone())) / len(subject.sounds)
    words = f"{format_seconds(clip)} for a clip of {subject.model.clip_seconds:g} s"
    if subject.has_text:
        text = fastest(lambda: subject.model.encode_text(list(TEXTS))) / len(TEXTS)
        words += f", {format_seconds(text)} for a text"
    weights = sum(one.numel() * one.element_size() for one in find_tensors(subject.model).values())
    device = subject.model.device
    return ok(
        f"{words}, in batches of {len(TEXTS)} on {device} ({torch.get_num_threads()} threads). "
        f"{MANY} clips take {format_seconds(MANY * clip)}, once; then they are in the cache. "
        f"Weights: {weights / 1e6:.3g} MB."
    )


def fastest(call) -> float:
    """Seconds of the faster of two calls; those on a GPU are waited for."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        call().cpu()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def format_seconds(seconds: float) -> str:
    """0.0123 -> "12 ms"; 75 -> "1.2 min"."""
    for limit, unit, scale in ((1, "ms", 1000), (90, "s", 1), (5400, "min", 1 / 60)):
        if seconds < limit:
            value = seconds * scale
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"
    return f"{seconds / 3600:.1f} h"
