"""Rows of a small grid on the device: twice the same, and the same as on the CPU."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pandas as pd
import soundfile
import torch

from device_checks import FULL, Line, Setup, holds, precision, within
from palmkit import load_pengi
from palmkit.experiments.rows import load_tensors
from palmkit.experiments.run import run_trials
from palmkit.experiments.trials import make_grid

CLASSES = ("dog", "rain", "church bells")
FROZEN = dict(shots=3, epochs=2, batch_size=4)
RELEASED = FROZEN | dict(protocol="released")
LEARNED = ("palm", "coop", "cocoop")
UNSTABLE = ("seconds", "written")  # fields of a row that are another in every run
# Logits and losses, relative to the largest: float32 after six steps; a model in double precision.
SINGLE, DOUBLE = 1e-3, 1e-6


def check(setup: Setup) -> Iterator[Line]:
    data = setup.folder / "tones"
    write_tones(data, train=4, test=3)
    with precision(FULL):
        rows = yield from equality_lines(setup, data)
        here = run(setup, "rows on the CPU", setup.here, frozen_trials(data))
        what = "rows of the frozen protocol, float32, device to CPU"
        yield within(what, largest_error(rows, here), SINGLE)
        places = {"the device": setup.device, "the CPU": "cpu"}
        pair = [
            run(
                setup, f"rows of mini-PENGI on {name}", load_pengi("mini", one), frozen_trials(data)
            )
            for name, one in places.items()
        ]
        what = "rows of mini-PENGI, float64, device to CPU"
        yield within(what, largest_error(*pair), DOUBLE)
        scores = [[row["accuracy"] for row, _ in rows] for rows in pair]
        value = f"{sum(map(float.__eq__, *scores))} of {len(scores[0])} equal"
        yield holds("accuracy of these rows", value, "all equal", scores[0] == scores[1])


def equality_lines(setup: Setup, data):
    """Each grid twice, with folders and caches of their own. Returns the frozen rows."""
    frozen = []
    for label, trials in grids(data).items():
        one, other = (run(setup, f"{label} {n}", setup.there, trials) for n in (1, 2))
        pairs = zip(one, other, strict=True)
        different = [a["method"] for (a, _), (b, _) in pairs if not same(a, b)]
        value = f"{len(one) - len(different)} of {len(one)} rows equal"
        if different:
            value += f" (not {', '.join(different)}: {largest_error(one, other):.1e})"
        yield holds(f"{label}, run twice", value, "equal to the last digit", not different)
        frozen = frozen or one
    return frozen


def grids(data) -> dict[str, list]:
    half = RELEASED | dict(autocast=True)
    return {
        "rows of the frozen protocol": frozen_trials(data),
        "rows of the released protocol": make_grid(LEARNED, [data], seeds=[0], **RELEASED),
        "rows of the released protocol, autocast": make_grid(LEARNED, [data], seeds=[0], **half),
    }


def frozen_trials(data) -> list:
    return make_grid("all", [data], seeds=[0, 1], **FROZEN)


def run(setup: Setup, name: str, model, trials) -> list[tuple[dict, dict]]:
    """The rows and their tensors, computed anew."""
    setup.tell(name)
    folder = setup.folder / "runs" / re.sub(r"\W+", "-", name)
    rows = run_trials(trials, model, folder, cache=folder / "cache")
    return [(row, load_tensors(row, folder)) for row in rows]


def same(one: dict, other: dict) -> bool:
    """Whether two rows are equal. `tensors` among their fields is a checksum of all tensors."""
    one, other = ({k: v for k, v in row.items() if k not in UNSTABLE} for row in (one, other))
    return one == other


def largest_error(rows, others) -> float:
    """Of losses, logits and all that was learned, relative to the largest value of each."""
    errors = [0.0]
    for (row, tensors), (other, expected) in zip(rows, others, strict=True):
        tensors = tensors | {"losses": torch.tensor(row["losses"])}
        expected = expected | {"losses": torch.tensor(other["losses"])}
        for name, value in expected.items():
            if value.is_floating_point() and value.numel():
                difference = (tensors[name].double() - value.double()).abs().max()
                errors.append(float(difference / value.double().abs().max()))
    return max(errors)


def write_tones(folder, train: int, test: int) -> dict[str, pd.DataFrame]:
    """A dataset of three classes of tones, half a second each: {split: path, label}."""
    folder.mkdir(parents=True)
    generator, frames = torch.Generator().manual_seed(0), {}
    time = torch.arange(22_050) / 44_100
    for split, number in (("train", train), ("test", test)):
        lines = []
        for label, name in enumerate(CLASSES):
            for n in range(number):
                pitch = 300 * 3**label * (1 + 0.1 * torch.rand((), generator=generator))
                noise = 0.02 * torch.randn(len(time), generator=generator)
                file = folder / f"{split}-{label}-{n}.wav"
                wave = 0.3 * torch.sin(2 * torch.pi * pitch * time) + noise
                soundfile.write(file, wave.numpy(), 44_100)
                lines.append({"path": file.name, "classname": name, "label": label})
        frame = pd.DataFrame(lines)
        frame[["path", "classname"]].to_csv(folder / f"{split}.csv", index=False)
        frames[split] = frame.assign(path=[str(folder / path) for path in frame["path"]])
    return frames
