"""The protocol behind the published numbers: the released trainer calls `model.train()` on PENGI in every epoch.

So its clips sound otherwise in each epoch, and bn0 drifts to the dataset. No gradient goes through the audio encoder
and no prompt reaches it, so what it says does not depend on the method: it is computed once for a draw and a seed, as a
stream of embeddings [epochs, n, dim], from which `fit` takes its features instead of a table. The text side has one
random part, the dropout of its projection.
"""

from __future__ import annotations

import concurrent.futures
import functools
import io
import itertools
import json
import os
import random
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from palmkit import audio
from palmkit.audio import file_digest
from palmkit.embeddings import DEFAULT, Embeddings, as_frame, provenance, read_ahead, with_csv_row
from palmkit.protocols.train_mode import PARTS, TrainModeAudio
from palmkit.storage import atomic_write, cache_root, progress_bar
from palmkit.training import shuffled

STREAM_VERSION = 1  # raise it with every change here that changes a stream
KEPT_BYTES = (
    2**30
)  # of log-mels that do not change from epoch to epoch; what exceeds it is computed anew


@dataclass
class EpochEmbeddings(Embeddings):
    """Embeddings of a draw while training: features [epochs, n, dim], offsets [epochs, n] (each crop's start).

    bn0: the statistics at the end; `drifted(pengi, stream.bn0)` hears the test clips as the published code does.
    """

    bn0: dict[str, torch.Tensor]


def embed_stream(
    model, clips, epochs=50, batch_size=16, seed=0, parts=PARTS, crop="random", crop_seed=0, cache=DEFAULT,
    autocast=False,
) -> EpochEmbeddings:  # fmt: skip
    """What the published trainer's audio encoder says of `clips` in each epoch, in batches as `fit` shuffles them.

    clips, cache, crop, crop_seed: as in `embed`. Without "crops" among `parts`, a clip has one crop, that of `embed`;
    without any of them, every epoch is `embed`'s table. autocast: half precision where PyTorch thinks it safe.
    The cache keeps waveforms, as floats at 44.1 kHz (a second takes 176 KB), and every epoch (4 n dim bytes): a stream
    that was interrupted goes on, a longer one begins where a shorter one ended.
    Raises AudioError (path, and row of which CSV) and OSError (disk).
    """
    frame, root = (
        as_frame(clips),
        None if cache is None else cache_root() if cache is DEFAULT else Path(cache),
    )
    if not len(frame) or batch_size < 1 or epochs < 0:
        raise ValueError(
            f"nothing to do for {len(frame)} clips, batch_size={batch_size}, epochs={epochs}"
        )
    ear = TrainModeAudio(model, parts, seed, autocast)
    try:
        sounds = _ClipBuffer(frame, ear, crop, crop_seed, root)
        key = stream_key(model, sounds.digests, ear, batch_size, crop, crop_seed)
        folder = None if root is None else root / "streams" / key[:2] / key
        order, steps, done = (
            shuffled(len(frame), batch_size, epochs, seed),
            -(-len(frame) // batch_size),
            [],
        )
        there = 0 if folder is None else len([*folder.glob("*.safetensors")])
        bar = progress_bar(max(epochs - there, 0) * len(frame), "stream", "clip")
        readers = min(8, os.cpu_count() or 1)
        with bar, concurrent.futures.ThreadPoolExecutor(readers) as pool:
            for epoch in range(epochs):
                batches = list(itertools.islice(order, steps))
                if (entry := _read_epoch(folder, key, epoch)) is None:
                    entry = sounds.epoch(pool, epoch, torch.cat(batches), batch_size)
                    _write_epoch(folder, key, epoch, entry)
                    bar.update(len(frame))
                ear.bn0 = entry
                done.append(entry)
    except audio.AudioError as error:
        raise audio.AudioError(with_csv_row(error, frame)) from error
    features, offsets = (
        torch.stack([entry[name] for entry in done]) if done else torch.empty(0, len(frame), *more)
        for name, more in (("features", [model.dim]), ("offsets", []))
    )
    labels = torch.tensor(
        list(frame["label"]) if "label" in frame else [-1] * len(frame), dtype=torch.long
    )
    return EpochEmbeddings(
        features, labels, [str(path) for path in frame["path"]], offsets.long().tolist(), ear.bn0
    )


def crop_seed_at_test(parts, seed: int, crop_seed: int):
    """What `embed` should draw crops of test clips from: with "crops" each seed draws for itself, as published."""
    return f"{crop_seed}:{seed}:test" if "crops" in parts else crop_seed


def stream_key(model, digests, ear, batch_size, crop, crop_seed) -> str:
    """sha256 of all that changes a stream's epochs; the number of epochs does not."""
    told = provenance(model, crop, crop_seed) | {
        "stream": STREAM_VERSION,
        "parts": [
            part
            for part in ear.parts
            if part != "text_dropout" and (part != "crops" or crop == "random")
        ],
        "dropout": model.config["projection_dropout"],
        "seed": ear.seed,
        "batch_size": batch_size,
        "autocast": ear.autocast,
        "clips": digests,
    }
    return audio.digest(json.dumps(told, sort_keys=True).encode())


class _ClipBuffer:
    """The clips of a draw: files are read once, and what does not change from epoch to epoch is computed once."""

    def __init__(self, frame, ear, crop, crop_seed, root):
        self.paths, self.ear, self.root = [str(path) for path in frame["path"]], ear, root
        self.crop, self.crop_seed = crop, crop_seed
        self.fresh = crop == "random" and "crops" in ear.parts
        self.digests = [file_digest(path) for path in self.paths]
        self.waveforms, self.kept, self.offsets = {}, {}, {}

    def epoch(self, pool, epoch, order, batch_size) -> dict[str, torch.Tensor]:
        """features [n, dim], offsets [n], and bn0 as it is afterwards."""
        entry = {
            "features": torch.empty(len(order), self.ear.model.dim),
            "offsets": torch.zeros(len(order)).long(),
        }
        read = functools.partial(self.read, epoch=epoch)
        for step, batch in enumerate(read_ahead(pool, read, order.tolist(), batch_size)):
            numbers, waveforms, offsets = zip(*batch, strict=True)
            entry["features"][list(numbers)] = self.ear(
                self.heard(numbers, waveforms), epoch, step
            ).cpu()
            entry["offsets"][list(numbers)] = torch.tensor(offsets)
        return entry | self.ear.bn0

    def read(self, n, epoch):
        """(n, its waveform in this epoch or None where what is kept does, the crop's start)."""
        if n in self.kept:
            return n, None, self.offsets[n]
        if n not in self.waveforms:
            self.waveforms[n] = read_waveform(self.paths[n], self.digests[n], self.root)
        name = f"{self.crop_seed}:{self.ear.seed}:{epoch}" if self.fresh else self.crop_seed
        rng = random.Random(f"{name}:{self.digests[n]}")
        self.offsets[n] = (
            cut := audio.crop_clip(self.waveforms[n], self.crop, rng, self.paths[n])
        )[1]
        return n, *cut

    def heard(self, numbers, waveforms):
        """What `TrainModeAudio.start` gives of these clips, from what is kept or anew."""
        found = {
            n: self.kept[n]
            for n, waveform in zip(numbers, waveforms, strict=True)
            if waveform is None
        }
        if new := [n for n in numbers if n not in found]:
            stacked, device = (
                torch.stack([w for w in waveforms if w is not None]),
                self.ear.model.device,
            )
            if device.type == "cuda":  # copied while the batch before is computed
                stacked = stacked.pin_memory()
            found |= dict(
                zip(new, self.ear.start(stacked.to(device, non_blocking=True)), strict=True)
            )
            for n in new:
                constant = not self.fresh or self.waveforms[n].numel() <= audio.CLIP_SAMPLES
                if constant and (len(self.kept) + 1) * found[n].nbytes <= KEPT_BYTES:
                    self.kept[n] = found[n].clone()
                    del self.waveforms[n]
        return torch.stack([found[n] for n in numbers])


def read_waveform(path, sha, root=None) -> torch.Tensor:
    """A file decoded and at 44.1 kHz, [samples of all channels]: memory-mapped from the cache, where it is put if it is
    not there. sha: `file_digest` of the file. root: the cache's folder; None keeps nothing."""
    key = audio.digest(
        json.dumps({"rate": audio.SAMPLE_RATE, "version": STREAM_VERSION, "audio": sha}).encode()
    )
    place = None if root is None else root / "waveforms" / key[:2] / f"{key}.npy"
    if place is not None and place.is_file():
        try:
            waveform = np.load(
                place, mmap_mode="c"
            )  # copy on write: a mapping that PyTorch may hold
            if audio.digest(waveform.data) != place.with_suffix(".sha256").read_text():
                raise ValueError("its content was changed")
            return torch.from_numpy(waveform)
        except (OSError, ValueError) as error:
            warnings.warn(
                f"cache entry {place} is not usable ({error}); decoded anew", stacklevel=2
            )
    data = audio.read_bytes(path)
    if audio.digest(data) != sha:
        raise audio.AudioError(f"{path}: the file was changed while it was read; start again")
    waveform = audio.decode(data, path)
    if place is not None:
        np.save(buffer := io.BytesIO(), waveform.numpy())
        atomic_write(place.with_suffix(".sha256"), audio.digest(waveform.numpy().data))
        atomic_write(place, buffer.getvalue())
        return torch.from_numpy(np.load(place, mmap_mode="c"))
    return waveform


def _content(entry) -> str:
    return audio.digest(
        b"".join(
            name.encode() + entry[name].contiguous().numpy().tobytes() for name in sorted(entry)
        )
    )


def _read_epoch(folder, key, epoch):
    """An epoch's tensors, or None where there is no whole entry of this stream."""
    if folder is None or not (path := folder / f"{epoch:04d}.safetensors").is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata, entry = (
                file.metadata() or {},
                {name: file.get_tensor(name) for name in file.keys()},
            )
        if (metadata.get("key"), metadata.get("sha256")) != (f"{key} {epoch}", _content(entry)):
            raise ValueError("its content belongs to another key or was changed")
        return entry
    except (SafetensorError, OSError, ValueError) as error:
        warnings.warn(f"cache entry {path} is not usable ({error}); computed anew", stacklevel=3)
        return None


def _write_epoch(folder, key, epoch, entry) -> None:
    if folder is not None:
        metadata = {"key": f"{key} {epoch}", "sha256": _content(entry)}
        atomic_write(folder / f"{epoch:04d}.safetensors", save(entry, metadata))
