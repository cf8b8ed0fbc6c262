"""The training corpus: clips by concept and number, as log-mels in shards.

A corpus folder has `settings.json` (what it was made by), `clips.csv` (concept and number of every
row) and `shards/`: 256 rows each, log-mels in dB as float16 [256, frames, 64] and the parameters of
every clip as JSON. A shard is there whole or not at all, so an interrupted build goes on where it
stopped. Rows are shuffled: a part of the shards is a smaller corpus.

Clips have 5 s. PENGI's clip of 7 s is then the 5 s and their first 2 again. Repeating frames of the
log-mel does the same, so only 5 s are stored.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from mini_pengi import front_end
from mini_pengi.front_end import HOP, log_mel
from palmkit.storage import atomic_write, progress_bar
from palmkit_synthetic.clips import SECONDS, draw_clip, make_clip
from palmkit_synthetic.concepts import CLIPS, TRAINING
from palmkit_synthetic.domain import TRAIN
from palmkit_synthetic.dsp import SAMPLE_RATE
from palmkit_synthetic.recipe import recipe

SHARD = 256  # rows


class CorpusError(ValueError):
    """A corpus folder that does not fit what is asked of it; the message says what to do."""


def corpus_recipe() -> str:
    """A digest of all that decides what the corpus holds: its clips, and their log-mel."""
    return recipe(TRAIN, [Path(front_end.__file__)])


def list_clips(seed: int = 0, scale: float = 1.0, concepts=TRAINING) -> pd.DataFrame:
    """Which clips a corpus has, shuffled: columns concept and index.

    scale: share of a concept's full CLIPS.
    """
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
    """Make what is missing of a corpus folder and open it.

    About 13,000 clips at scale 1 (1.2 GB at hop 320).
    """
    root = Path(root)
    settings = {
        "seed": seed,
        "scale": scale,
        "hop": hop,
        "seconds": SECONDS,
        "recipe": corpus_recipe(),
    }
    path = root / "settings.json"
    if path.is_file() and json.loads(path.read_text()) != settings:
        raise CorpusError(
            f"{root} was made by other settings or another recipe: delete it or choose another "
            "folder"
        )
    table = list_clips(seed, scale)
    atomic_write(root / "clips.csv", table.to_csv(index=False))
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
    """Make 256 rows (fewer in the last shard); their number."""
    settings = json.loads((root / "settings.json").read_text())
    whole = pd.read_csv(root / "clips.csv", keep_default_na=False)
    rows = whole[shard * SHARD : (shard + 1) * SHARD]
    log_mels, parameters = [], []
    for concept, index in zip(rows["concept"], rows["index"], strict=True):
        waveform, drawn = draw_clip(concept, index, settings["seed"], seconds=settings["seconds"])
        tiled = torch.from_numpy(np.resize(waveform, round(settings["seconds"] * SAMPLE_RATE)))
        log_mels.append(log_mel(tiled[None], settings["hop"])[0].numpy().astype(np.float16))
        parameters.append(rounded(drawn))
    buffer = io.BytesIO()
    np.save(buffer, np.stack(log_mels))
    atomic_write(shard_path(root, shard).with_suffix(".json"), json.dumps(parameters))
    # Last: its presence says that the shard is whole.
    atomic_write(shard_path(root, shard), buffer.getvalue())
    return len(rows)


def rounded(parameters: dict) -> dict:
    """Parameters as they are kept: five decimals."""
    return {
        name: value if isinstance(value, str) else round(float(value), 5)
        for name, value in parameters.items()
    }


class Corpus:
    """A corpus folder, memory-mapped.

    clips: the rows of finished shards (concept, index), numbered as in `clips.csv`. concepts: those
    that they are of.
    """

    def __init__(self, root):
        self.root = Path(root)
        if not (self.root / "settings.json").is_file():
            raise CorpusError(f"{root} holds no corpus: build_corpus({str(root)!r}) makes one")
        self.settings = json.loads((self.root / "settings.json").read_text())
        whole = pd.read_csv(self.root / "clips.csv", keep_default_na=False)
        found = [k for k in range(-(-len(whole) // SHARD)) if shard_path(self.root, k).is_file()]
        self.shards = {k: np.load(shard_path(self.root, k), mmap_mode="r") for k in found}
        self.clips = whole[(whole.index // SHARD).isin(found)]  # indexed by row
        present = set(self.clips["concept"])
        self.concepts = [key for key in TRAINING if key in present]  # `concept_ids` counts them

    @property
    def concept_ids(self) -> np.ndarray:
        """[clips] int: which of `concepts`."""
        return self.clips["concept"].map({key: k for k, key in enumerate(self.concepts)}).to_numpy()

    def log_mels(self, rows) -> np.ndarray:
        """[n, frames, 64] float32 in dB of the given rows (labels of `clips`' index)."""
        return np.stack([self.shards[row // SHARD][row % SHARD] for row in rows]).astype(np.float32)

    def parameters(self, row: int) -> dict:
        """What was drawn for a clip: its source's parameters, its room, noise and level."""
        path = shard_path(self.root, row // SHARD).with_suffix(".json")
        return json.loads(path.read_text())[row % SHARD]

    def all_parameters(self) -> list[dict]:
        """The same of all rows, in the order of `clips`."""
        paths = [shard_path(self.root, shard).with_suffix(".json") for shard in sorted(self.shards)]
        return [clip for path in paths for clip in json.loads(path.read_text())]

    def waveform(self, row: int) -> np.ndarray:
        """The clip itself, made again, to be played."""
        concept, index = self.clips.loc[row, ["concept", "index"]]
        seed, seconds = self.settings["seed"], self.settings["seconds"]
        return make_clip(concept, int(index), seed, seconds=seconds)
