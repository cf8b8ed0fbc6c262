"""What the audio encoder makes of augmented corpus clips, and what the augmentation did to each.

The audio encoder is trained by now, and stays as it is. So each clip is embedded a few times, under
other augmentations, and the text encoder learns from these latents alone. An epoch is a matter of
seconds then.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from joblib import Parallel, delayed

from mini_pengi.corpus import Corpus
from mini_pengi.descriptions import conditions_table
from mini_pengi.pretrain import (
    NAMED_ABOVE_DB,
    add_power,
    draw_frames,
    drop_parts,
    mean_level,
)
from palmkit import load_pengi
from palmkit.models.checkpoint import read_config
from palmkit.models.encoders import AudioEncoder

VIEWS = 4
BATCH = 64
MIXED = 0.25  # share of clips with a second sound over them


@dataclass
class Views:
    """latents [n, width] float32; clips: a row each with `concept`, `second` and conditions."""

    latents: torch.Tensor
    clips: pd.DataFrame


def augment(x, rng) -> tuple[torch.Tensor, pd.DataFrame]:
    """Augment log-mels [n, frames, 64] in dB, and what was done: hiss_db, edge_band, gain_db.

    Equaliser, gain, hiss, a codec's missing top bands, gaps in time and frequency.
    """
    n, frames, bands = x.shape

    def some(chance):
        return torch.from_numpy(rng.random((n, 1, 1)) < chance)

    def uniform(low, high):
        return torch.from_numpy(rng.uniform(low, high, (n, 1, 1))).float()

    points = torch.from_numpy(rng.normal(0, 6, (n, 1, 6))).float()
    curve = F.interpolate(points, bands, mode="linear", align_corners=True)
    gain = torch.from_numpy(rng.normal(5, 7, (n, 1, 1))).float()
    x = x + curve * some(0.8) + gain
    grain = torch.from_numpy(rng.standard_exponential((n, frames, bands), np.float32))
    tilt = uniform(-5, 20) * torch.linspace(1, -1, bands)
    hiss = uniform(-75, -15) + tilt + 6 * torch.log10(grain + 1e-4)
    has_hiss = some(0.5)
    clear = np.array([mean_level(clip) for clip in x])
    hiss_db = clear - np.array([mean_level(clip) for clip in hiss])
    x = torch.where(has_hiss, add_power(x, hiss), x).clamp(-100, 60)
    edge = drop_parts(x, rng, lowest_band=24, gaps=0.3)
    done = {
        "hiss_db": np.where(has_hiss.flatten().numpy(), hiss_db, 99.0),
        "edge_band": edge,
        "gain_db": gain.flatten().numpy(),
    }
    return x, pd.DataFrame(done)


def embed_batch(audio, corpus: Corpus, rows, rng) -> tuple[torch.Tensor, pd.DataFrame]:
    """Latents [n, width] of the clips `rows` under one augmentation, and what was done to each.

    `second` is the concept of a sound that was added so loudly that a caption names it, or "".
    """
    concepts = corpus.clips["concept"]
    x = draw_frames(corpus.log_mels(rows), rng)
    others = rng.choice(corpus.clips.index, len(rows))
    y = draw_frames(corpus.log_mels(others), rng)
    below = rng.uniform(-2, 18, len(rows))  # dB
    second = np.full(len(rows), "", object)
    for n in np.flatnonzero(rng.random(len(rows)) < MIXED):
        if concepts[others[n]] == concepts[rows[n]]:
            continue
        x[n] = add_power(x[n], y[n] + mean_level(x[n]) - mean_level(y[n]) - below[n])
        if below[n] < NAMED_ABOVE_DB:
            second[n] = concepts[others[n]]
    x, done = augment(x, rng)
    with torch.inference_mode():
        latents = audio.pooled(audio.image(x))
    return latents, done.assign(concept=concepts[rows].to_numpy(), second=second)


def load_audio(checkpoint: Path) -> AudioEncoder:
    """The audio encoder of a checkpoint, in single precision."""
    config = read_config(checkpoint) | {"precision": "float32"}
    return load_pengi(checkpoint, "cpu", config).audio


def embed_corpus(checkpoint: Path, corpus_folder: Path, view: int, seed: int):
    """One view of every clip: latents [clips, width] float16, and the table of `Views`."""
    torch.set_num_threads(1)
    audio, corpus = load_audio(checkpoint), Corpus(corpus_folder)
    latents, tables = [], []
    for start in range(0, len(corpus.clips), BATCH):
        rng = np.random.default_rng([seed, view, start])
        found, table = embed_batch(audio, corpus, corpus.clips.index[start : start + BATCH], rng)
        latents.append(found.half())
        tables.append(table)
    done = pd.concat(tables, ignore_index=True)
    conditions = conditions_table(corpus.all_parameters(), done)
    return torch.cat(latents), conditions.assign(concept=done["concept"], second=done["second"])


def make_views(checkpoint: Path, corpus: Corpus, path: Path, seed: int, processes: int = 2):
    """The views of a corpus by the audio encoder of `checkpoint`, kept in `path`."""
    if not path.is_file():
        jobs = (delayed(embed_corpus)(checkpoint, corpus.root, k, seed) for k in range(VIEWS))
        latents, tables = zip(*Parallel(processes)(jobs), strict=True)
        clips = pd.concat(tables, ignore_index=True)
        new = path.with_suffix(".new")
        torch.save({"latents": torch.cat(latents), "clips": json.dumps(clips.to_dict("list"))}, new)
        new.replace(path)
    saved = torch.load(path, weights_only=True)
    clips = pd.DataFrame(json.loads(saved["clips"]))
    return Views(saved["latents"].float(), clips)
