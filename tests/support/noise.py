"""Clips of noise, and helpers of tests that embed them in train mode."""

import numpy as np
import soundfile
import torch

from palmkit.protocols.streams import embed_stream
from palmkit.protocols.train_mode import TrainModeAudio
from palmkit.store import MAGIC


def write_clips(folder, count=6, seconds=0.25):
    """Paths of WAV files of noise, one louder than the other, at 44.1 kHz."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    paths = [str(folder / f"clip{n}.wav") for n in range(count)]
    for n, path in enumerate(paths):
        noise = rng.standard_normal(int(seconds * 44_100)) * 0.1 * (n + 1) / count
        soundfile.write(path, noise, 44_100)
    return paths


def embed_epochs(model, clips, epochs=2, **settings):
    return embed_stream(model, clips, epochs, **{"batch_size": 4, "cache": None, **settings})


def assert_same(one, other):
    assert torch.equal(one.features, other.features) and one.offsets == other.offsets
    assert all(torch.equal(one.bn0[name], other.bn0[name]) for name in one.bn0)


def count_steps(monkeypatch):
    """A list that gets one entry a batch that the audio encoder gets."""
    steps, real = [], TrainModeAudio.__call__
    monkeypatch.setattr(
        TrainModeAudio, "__call__", lambda self, *a: steps.append(a[1:]) or real(self, *a)
    )
    return steps


def count_embeddings(cache) -> int:
    """Entries in all shards of a cache, by the magic of their headers."""
    return sum(path.read_bytes().count(MAGIC) for path in cache.rglob("embeddings/*/*.shard"))
