"""Stand-ins for the eleven published datasets: their layout, names, classes and folds.

The sounds are others, or none.
"""

from __future__ import annotations

import csv
import shutil
import zlib
from pathlib import Path

import numpy as np
import soundfile
import torch

from palmkit.models.checkpoint import checkpoint_state
from palmkit.models.random import random_pengi
from palmkit.published import paper_datasets

ZIPPED = (
    "NS-Instruments",
    "VocalSound",
)  # published as one zip that holds a folder of the dataset's name
TUT2017_CLIPS = 4680
RATE = 22_050


def make_dataset(folder: Path, name: str, per_class: int | None = None, seconds: float = 0) -> Path:
    """One dataset below `folder`.

    per_class: clips of each class and fold to test on; None is as many as published.
    seconds: length of the sounds, a tone of the class and noise; 0 makes empty files.
    """
    facts = paper_datasets()[name]
    classes, root = facts.class_names, folder / name
    tested = facts.test_clips if per_class is None else (per_class * len(classes),) * facts.folds
    swapped = name == "TUT2017"
    if facts.folds == 1:
        total = tested[0] + len(classes) * (20 if per_class is None else per_class + 1)
    else:
        total = TUT2017_CLIPS if swapped and per_class is None else sum(tested)
    (root / "audios").mkdir(parents=True)
    clips = [
        (f"audios/{clip_name(name, n, n % len(classes))}", classes[n % len(classes)])
        for n in range(total)
    ]
    for n, (path, _) in enumerate(clips):
        write_sound(root / path, n, n % len(classes), seconds)
    start = 0
    for fold, size in enumerate(tested, 1):
        test = {(start + n) % total for n in range(size)}
        start += min(size, total - size) if swapped else size
        if swapped and per_class is not None and fold > 1:
            test = set(range(total)) - test
        for part, chosen in (("train", set(range(total)) - test), ("test", test)):
            place = f"{part}.csv" if facts.folds == 1 else f"csv_files/{part}_{fold}.csv"
            write_csv(root / place, [clips[n] for n in sorted(chosen)])
    return root


def clip_name(name: str, n: int, label: int) -> str:
    """A published file's name, where names say something; each clip is its own recording."""
    if name.startswith("ESC50"):
        return f"1-{100_000 + n}-A-{label}.wav"
    return f"{100_000 + n}-{label}-0-0.wav" if name == "UrbanSound8K" else f"clip_{n:05d}.wav"


def write_sound(path: Path, n: int, label: int, seconds: float) -> None:
    if not seconds:
        path.touch()
        return
    rng = np.random.default_rng(
        [n, zlib.crc32(path.parent.parent.name.encode())]
    )  # no two datasets share a sound
    time = np.arange(int(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * 110 * 2 ** (label / 8) * time)
    soundfile.write(path, 0.4 * tone + 0.1 * rng.standard_normal(len(time)), RATE, subtype="PCM_16")


def write_csv(path: Path, rows) -> None:
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("path", "classname"), *rows])


def make_repository(folder: Path, name: str, **options) -> Path:
    """As make_dataset, in the repository's form: two of the eleven are a zip."""
    root = make_dataset(folder, name, **options)
    if name in ZIPPED:
        shutil.make_archive(str(folder / f".{name}"), "zip", folder, name)
        shutil.rmtree(root)
        root.mkdir()
        (folder / f".{name}.zip").rename(root / f"{name}.zip")
    return root


def make_checkpoint(path: Path) -> Path:
    """A checkpoint of random weights in base.pth's layout and size, but for the decoder."""
    pengi = random_pengi("cpu")
    state = {
        f"module.{key}": tensor for key, tensor in checkpoint_state(pengi.audio, pengi.text).items()
    }
    state["module.caption_decoder.gpt.bias"] = torch.zeros(4)  # there, and not for us
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": state}, path)
    return path
