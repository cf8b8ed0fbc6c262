"""The training corpus: clips by concept and number, turned into log-mels at once and kept in shards.

A corpus folder has `settings.json` (what it was made by), `plan.csv` (concept and number of every row) and `shards/`:
256 rows each, log-mels in dB as float16 [256, frames, 64] and the parameters of every clip as JSON. A shard is there
whole or not at all, so an interrupted build goes on where it stopped. Rows are shuffled: a part of the shards is a
smaller corpus.

Clips have 5 s. PENGI hears 7 s, which for a clip of 5 s are 5 and the first 2 again: nothing that `tile_frames` could
not do to a log-mel, so only 5 s are stored.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from palmkit.storage import atomic_write, progress_bar
from palmkit_synthetic.clips import HOP, SECONDS, draw_clip, log_mel, make_clip, recipe
from palmkit_synthetic.concepts import CLIPS, TRAINING
from palmkit_synthetic.domain import TRAIN
from palmkit_synthetic.dsp import SAMPLE_RATE

SHARD = 256  # rows


class CorpusError(ValueError):
    """A corpus folder that does not fit what is asked of it; the message says what to do."""


def plan(seed: int = 0, scale: float = 1.0, concepts=TRAINING) -> pd.DataFrame:
    """Which clips a corpus has, shuffled: columns concept and index. scale: share of a concept's full CLIPS."""
    rows = [
        (key, index)
        for key, concept in concepts.items()
        for index in range(max(round(CLIPS[concept.kind] * scale), 1))
    ]
    order = np.random.default_rng(seed).permutation(len(rows))
    return pd.DataFrame([rows[k] for k in order], columns=["concept", "index"])


def build_corpus(
    root, seed: int = 0, scale: float = 1.0, hop: int = HOP, processes: int = 2
) -> Corpus:
    """Make what is missing of a corpus folder and open it. About 13,000 clips at scale 1 (1.2 GB at hop 320)."""
    root = Path(root)
    settings = {
        "seed": seed,
        "scale": scale,
        "hop": hop,
        "seconds": SECONDS,
        "recipe": recipe(TRAIN),
    }
    path = root / "settings.json"
    if path.is_file() and json.loads(path.read_text()) != settings:
        raise CorpusError(
            f"{root} was made by other settings or another recipe: delete it or choose another folder"
        )
    table = plan(seed, scale)
    atomic_write(root / "plan.csv", table.to_csv(index=False))
    atomic_write(path, json.dumps(settings, indent=1))
    missing = [k for k in range(-(-len(table) // SHARD)) if not shard_path(root, k).is_file()]
    with progress_bar(len(missing) * SHARD, "corpus", "clip") as bar:
        jobs = (delayed(write_shard)(root, shard) for shard in missing)
        for done in Parallel(processes, return_as="generator_unordered")(jobs):
            bar.update(done)
    return Corpus(root)


def shard_path(root: Path, shard: int) -> Path:
    return root / "shards" / f"{shard:03d}.npy"


def write_shard(root: Path, shard: int) -> int:
    """Make 256 rows of the plan (fewer in the last shard); says how many."""
    settings = json.loads((root / "settings.json").read_text())
    rows = pd.read_csv(root / "plan.csv", keep_default_na=False)[
        shard * SHARD : (shard + 1) * SHARD
    ]
    log_mels, parameters = [], []
    for concept, index in zip(rows["concept"], rows["index"], strict=True):
        waveform, drawn = draw_clip(concept, index, settings["seed"], seconds=settings["seconds"])
        tiled = torch.from_numpy(np.resize(waveform, round(settings["seconds"] * SAMPLE_RATE)))
        log_mels.append(log_mel(tiled[None], settings["hop"])[0].numpy().astype(np.float16))
        parameters.append(rounded(drawn))
    buffer = io.BytesIO()
    np.save(buffer, np.stack(log_mels))
    atomic_write(shard_path(root, shard).with_suffix(".json"), json.dumps(parameters))
    atomic_write(
        shard_path(root, shard), buffer.getvalue()
    )  # last: its presence says that the shard is whole
    return len(rows)


def rounded(parameters: dict) -> dict:
    """Parameters as they are kept: five decimals."""
    return {
        name: value if isinstance(value, str) else round(float(value), 5)
        for name, value in parameters.items()
    }


class Corpus:
    """A corpus folder, memory-mapped. Rows are numbered as in `plan`; only those of finished shards are there."""

    def __init__(self, root):
        self.root = Path(root)
        if not (self.root / "settings.json").is_file():
            raise CorpusError(f"{root} holds no corpus: build_corpus({str(root)!r}) makes one")
        self.settings = json.loads((self.root / "settings.json").read_text())
        whole = pd.read_csv(self.root / "plan.csv", keep_default_na=False)
        found = [k for k in range(-(-len(whole) // SHARD)) if shard_path(self.root, k).is_file()]
        self.shards = {k: np.load(shard_path(self.root, k), mmap_mode="r") for k in found}
        self.plan = whole[(whole.index // SHARD).isin(found)]  # indexed by row
        present = set(self.plan["concept"])
        self.concepts = [key for key in TRAINING if key in present]  # `concept_ids` counts them

    @property
    def concept_ids(self) -> np.ndarray:
        """[rows of the plan] int: which of `concepts`."""
        return self.plan["concept"].map({key: k for k, key in enumerate(self.concepts)}).to_numpy()

    def log_mels(self, rows) -> np.ndarray:
        """[n, frames, 64] float32 in dB of the given rows (labels of `plan`'s index)."""
        return np.stack([self.shards[row // SHARD][row % SHARD] for row in rows]).astype(np.float32)

    def parameters(self, row: int) -> dict:
        """What was drawn for a clip: its source's parameters, its room, noise and level."""
        return json.loads(shard_path(self.root, row // SHARD).with_suffix(".json").read_text())[
            row % SHARD
        ]

    def waveform(self, row: int) -> np.ndarray:
        """The clip itself, made again, to be played."""
        concept, index = self.plan.loc[row, ["concept", "index"]]
        return make_clip(
            concept, int(index), self.settings["seed"], seconds=self.settings["seconds"]
        )
