"""Tones in noise: as waveforms, as files, and as a dataset."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch

RATE = 22_050  # Hz, of the files of `write_tones`


def make_waves(n: int, seconds: float, rate: int, seed=0) -> torch.Tensor:
    """float32 [n, samples]: tones of other heights in noise."""
    rng, time = np.random.default_rng(seed), np.arange(int(seconds * rate)) / rate
    waves = [
        np.sin(2 * np.pi * 150 * 1.7**i * time) + 0.1 * rng.normal(size=len(time)) for i in range(n)
    ]
    return torch.tensor(np.stack(waves) * 0.3, dtype=torch.float32)


def write_tones(folder: Path, seconds: Sequence[int], stereo: Collection[int] = ()) -> pd.DataFrame:
    """Files of these lengths, in three classes that differ in loudness and pitch: path and label.

    stereo: numbers of the files that have two channels.
    """
    rng, rows = np.random.default_rng(0), []
    for n, length in enumerate(seconds):
        time = np.arange(length * RATE) / RATE
        tone = np.sin(2 * np.pi * 200 * 4 ** (n % 3) * time) * 0.3 * (1 + n % 3)
        sound = 0.5 * tone + 0.02 * rng.standard_normal(len(time))
        if n in stereo:
            sound = np.stack([sound, sound[::-1] / 2], 1)
        path = folder / f"{n}.wav"
        soundfile.write(path, sound, RATE)
        rows.append({"path": str(path), "label": n % 3})
    return pd.DataFrame(rows)


def write_tone_dataset(
    root: Path, names: Sequence[str], rate: int, seconds: Sequence[float]
) -> Path:
    """A dataset of tones in noise, a class for each name: four training and three test clips each.

    seconds: lengths of the four clips; the three have the first ones.
    """
    rng, rows = np.random.default_rng(0), {"train": [], "test": []}
    root.mkdir()
    for split, number in (("train", 4), ("test", 3)):
        for label, name in enumerate(names):
            for n in range(number):
                time = np.arange(seconds[n] * rate) / rate
                wave = np.sin(2 * np.pi * 200 * 5**label * time) * 0.3
                wave = (wave + 0.03 * rng.normal(size=len(time))).astype(np.float32)
                soundfile.write(root / f"{split}{label}{n}.wav", wave, rate, subtype="FLOAT")
                rows[split].append((f"{split}{label}{n}.wav", name))
    for split, table in rows.items():
        table = pd.DataFrame(table, columns=["path", "classname"])
        table.to_csv(root / f"{split}.csv", index=False)
    return root
