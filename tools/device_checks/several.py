"""Two devices in one machine: the same numbers on each, and no pair of models across both."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from device_checks import FULL, Line, Setup, holds, precision, within
from device_checks.rows import frozen_trials, largest_error, run, write_tones
from palmkit import load_pengi
from palmkit.models import ModelPair

LIMIT = 1e-3  # as between a device and the CPU: the two may be different cards


def check(setup: Setup) -> Iterator[Line]:
    names = list_devices(setup)
    if len(names) < 2:
        yield Line("two devices", "not run: there is one")
        return
    data = setup.folder / "two"
    write_tones(data, train=4, test=2)
    models = [load_pengi(setup.source.checkpoint, name) for name in names]
    with precision(FULL):
        rows = [
            run(setup, f"rows on {names[n]}, device {n}", model, frozen_trials(data))
            for n, model in enumerate(models)
        ]
    places = [str(model.audio.mel.device) for model in models]
    yield holds("two devices in use", " and ".join(places), "as asked", places == names)
    what = f"rows of {names[1]} to {names[0]}"
    yield within(what, largest_error(rows[1], rows[0]), LIMIT)
    answer, expected = join(*models), places[0] == places[1]
    refused = "joined" if expected else "refused"
    yield holds("a pair of models across both", answer, refused, answer == refused)


def list_devices(setup: Setup) -> list[str]:
    """Two devices; on the CPU, which is one, the CPU twice, so that a test runs this."""
    if setup.device.type == "cuda":
        return [f"cuda:{n}" for n in range(min(2, torch.cuda.device_count()))]
    return ["cpu", "cpu"] if setup.small else ["cpu"]


def join(first, second) -> str:
    """What becomes of a pair of these models."""
    try:
        ModelPair(first, second)
    except ValueError:
        return "refused"
    return "joined"
