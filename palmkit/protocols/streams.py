"""Embeddings of every epoch in train mode: the protocol behind the published numbers.

The released trainer calls `model.train()` on PENGI in every epoch. So a clip's embedding changes
from epoch to epoch, and bn0 drifts to the dataset. No gradient goes through the audio encoder and
no prompt reaches it, so these embeddings do not depend on the method. They are computed once for a
draw and a seed, [epochs, n, dim], and `fit` takes its features from them instead of from a table.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import os
import random
from dataclasses import dataclass

import torch

from palmkit import audio
from palmkit.audio import content_key, file_digest
from palmkit.embeddings import (
    Embeddings,
    as_frame,
    check_embedding,
    list_labels,
    provenance,
    with_csv_row,
)
from palmkit.protocols import STREAM_VERSION
from palmkit.protocols.train_mode import STOCHASTIC, TrainModeAudio
from palmkit.storage import cache_folder, progress_bar
from palmkit.store import TensorStore
from palmkit.thread_pools import read_ahead
from palmkit.training import shuffled

# Bytes of log-mels (or latents) that are kept; the others are computed again in each epoch.
BUFFER_BYTES = 2**30


@dataclass
class EpochEmbeddings(Embeddings):
    """Embeddings of a draw in train mode: features [epochs, n, dim], offsets [epochs][n].

    bn0: the statistics after the last epoch. `embed(with_bn_statistics(model, stream.bn0), clips)`
    embeds test clips as the published code does.
    """

    bn0: dict[str, torch.Tensor]


def embed_stream(
    model,
    clips,
    epochs=50,
    batch_size=16,
    seed=0,
    stochastic=STOCHASTIC,
    crop="random",
    crop_seed=0,
    cache="default",
    autocast=False,
) -> EpochEmbeddings:
    """Embed `clips` in each epoch as the published trainer does, in the batches of `fit`.

    clips, cache, crop, crop_seed: as in `embed`. stochastic: what is random, some of `STOCHASTIC`.
    Without "crops" a clip has one crop, that of `embed`; with nothing random, every epoch is
    `embed`'s table.
    autocast: half precision where PyTorch considers it safe.
    The cache keeps decoded waveforms (4 bytes per sample) and every epoch (4 n dim bytes). An
    interrupted stream continues, and a longer one continues from a shorter one.
    Raises AudioError (path, and row of which CSV), also for an embedding that is not finite, and
    OSError (disk).
    """
    frame, root = as_frame(clips), cache_folder(cache)
    if not len(frame) or batch_size < 1 or epochs < 0:
        raise ValueError(
            f"nothing to do for {len(frame)} clips, batch_size={batch_size}, epochs={epochs}"
        )
    encoder = TrainModeAudio(model, stochastic, seed, autocast)
    try:
        with TensorStore(root, "waveforms", waveform_provenance(model)) as waveforms:
            buffer = _ClipBuffer(frame, encoder, crop, crop_seed, waveforms)
            setting = stream_provenance(model, buffer.keys, encoder, batch_size, crop, crop_seed)
            with TensorStore(root, "streams", setting) as store:
                # If nothing changes between epochs, all of them are the first one.
                different = min(epochs, 1) if buffer.is_constant else epochs
                entries = _compute_epochs(buffer, store, different, batch_size)
                entries += entries[-1:] * (epochs - different)
    except audio.AudioError as error:
        raise audio.AudioError(with_csv_row(error, frame)) from error
    features, offsets = torch.empty(0, len(frame), model.dim), torch.empty(0, len(frame)).long()
    if entries:
        features = torch.stack([entry["features"] for entry in entries])
        offsets = torch.stack([entry["offsets"] for entry in entries])
    return EpochEmbeddings(
        features, list_labels(frame), buffer.paths, offsets.tolist(), encoder.bn0
    )


def audible_parts(stochastic, crop) -> list[str]:
    """What of `stochastic` changes an audio embedding between epochs."""
    never = {"text_dropout"} if crop == "random" else {"text_dropout", "crops"}
    return [part for part in stochastic if part not in never]


def crop_seed_at_test(stochastic, seed: int, crop_seed: int):
    """`crop_seed` of `embed` for test clips: with "crops" each seed draws its own, as published."""
    return f"{crop_seed}:{seed}:test" if "crops" in stochastic else crop_seed


def stream_provenance(model, keys, encoder, batch_size, crop, crop_seed) -> dict:
    """All that changes the epochs of a stream. The number of epochs is not among it.

    keys: `content_key` of each clip, in order.
    """
    return provenance(model, crop, crop_seed) | {
        "stream": STREAM_VERSION,
        "stochastic": audible_parts(encoder.stochastic, crop),
        "dropout": model.config["projection_dropout"],
        "seed": encoder.seed,
        "batch_size": batch_size,
        "autocast": encoder.autocast,
        "clips": keys,
    }


def waveform_provenance(model) -> dict:
    """All that changes a decoded waveform, except the audio file itself."""
    return {"version": STREAM_VERSION, "sample_rate": model.sample_rate}


def _compute_epochs(buffer: _ClipBuffer, store, epochs: int, batch_size: int) -> list[dict]:
    """The entries of all epochs: from the store while it has them, then computed and kept."""
    n, encoder, entries = len(buffer.paths), buffer.encoder, []
    order = shuffled(n, batch_size, epochs, encoder.seed)
    missing = sum(f"epoch {epoch}" not in store for epoch in range(epochs))
    readers = min(8, os.cpu_count() or 1)
    with (
        progress_bar(missing * n, "stream", "clip") as bar,
        concurrent.futures.ThreadPoolExecutor(readers) as pool,
    ):
        for epoch in range(epochs):
            batches = list(itertools.islice(order, -(-n // batch_size)))
            found = store.get(f"epoch {epoch}")
            if found is None:
                entry = buffer.embed_epoch(pool, epoch, torch.cat(batches), batch_size)
                store.put(f"epoch {epoch}", {name: part.numpy() for name, part in entry.items()})
                bar.update(n)
            else:
                entry = {name: torch.from_numpy(array) for name, array in found.items()}
            encoder.bn0 = entry
            entries.append(entry)
    return entries


class _ClipBuffer:
    """The clips of a draw. What does not change between epochs is read and computed once."""

    def __init__(self, frame, encoder: TrainModeAudio, crop, crop_seed, store: TensorStore):
        self.paths = [str(path) for path in frame["path"]]
        self.digests = [file_digest(path) for path in self.paths]
        rate = encoder.model.sample_rate
        self.keys = [content_key(path, rate) for path in self.paths]
        self.encoder, self.crop, self.crop_seed, self.store = encoder, crop, crop_seed, store
        self.model = encoder.model
        self.samples = audio.count_samples(self.model.clip_seconds, self.model.sample_rate)
        self.draws_crops = crop == "random" and "crops" in encoder.stochastic
        self.is_constant = not audible_parts(encoder.stochastic, crop)
        self.waveforms: dict[int, torch.Tensor] = {}  # by the clip's number, as all of these
        self.precomputed: dict[int, torch.Tensor] = {}
        self.offsets: dict[int, int] = {}

    def embed_epoch(self, pool, epoch, order, batch_size) -> dict[str, torch.Tensor]:
        """features [n, dim], offsets [n], and the statistics of bn0 as they are afterwards."""
        features = torch.empty(len(order), self.model.dim)
        offsets = torch.zeros(len(order), dtype=torch.long)
        read = functools.partial(self.read, epoch=epoch)
        for step, batch in enumerate(read_ahead(pool, read, order.tolist(), batch_size)):
            numbers = [number for number, _ in batch]
            inputs = self.prepare(dict(batch))
            embedded = self.encoder(inputs, epoch, step).cpu()
            for number, feature in zip(numbers, embedded, strict=True):
                waveform = self.waveforms.get(number, torch.zeros(1))
                check_embedding(feature, waveform, self.paths[number])
            features[numbers] = embedded
            offsets[numbers] = torch.tensor([self.offsets[number] for number in numbers])
        return {"features": features, "offsets": offsets, **self.encoder.bn0}

    def read(self, number: int, epoch: int) -> tuple[int, torch.Tensor | None]:
        """(number, the clip's crop in this epoch), or (number, None) where it is precomputed."""
        if number in self.precomputed:
            return number, None
        path, sha = self.paths[number], self.digests[number]
        if number not in self.waveforms:
            rate, key = self.model.sample_rate, self.keys[number]
            self.waveforms[number] = read_waveform(path, key, rate, self.store)
        name = self.crop_seed
        if self.draws_crops:
            name = f"{self.crop_seed}:{self.encoder.seed}:{epoch}"
        cropped, self.offsets[number] = audio.crop_clip(
            self.waveforms[number], self.samples, self.crop, random.Random(f"{name}:{sha}"), path
        )
        return number, cropped

    def prepare(self, batch: dict[int, torch.Tensor | None]) -> torch.Tensor:
        """The encoder's inputs for these clips, as `TrainModeAudio.precompute` gives them."""
        new = {number: waveform for number, waveform in batch.items() if waveform is not None}
        inputs = {n: self.precomputed[n] for n in batch if n not in new}
        if new:
            stacked, device = torch.stack([*new.values()]), self.model.device
            if device.type == "cuda":  # copied while the batch before is computed
                stacked = stacked.pin_memory()
            computed = self.encoder.precompute(stacked.to(device, non_blocking=True))
            inputs |= dict(zip(new, computed, strict=True))
            for number, waveform in new.items():
                check_embedding(inputs[number], waveform, self.paths[number])
        for number in new:
            self.keep(number, inputs[number])
        return torch.stack([inputs[number] for number in batch])

    def keep(self, number: int, value: torch.Tensor) -> None:
        """Keep an input instead of its waveform, if it is the same in every epoch and fits."""
        constant = not self.draws_crops or self.waveforms[number].numel() <= self.samples
        if constant and (len(self.precomputed) + 1) * value.nbytes <= BUFFER_BYTES:
            self.precomputed[number] = value.clone()
            del self.waveforms[number]


def read_waveform(path, key: str, sample_rate: int, store: TensorStore) -> torch.Tensor:
    """A file decoded, [samples of all channels], from the store; it is put there if it is missing.

    key: `content_key` of the file. A long one is memory-mapped.
    """
    entry = store.get(key)
    if entry is None:
        data = audio.read_bytes(path)
        if not key.startswith(audio.digest(data)):
            raise audio.AudioError(f"{path}: the file was changed while it was read; start again")
        waveform = audio.decode(data, path, sample_rate)
        store.put(key, {"waveform": waveform.numpy()})
        entry = store.get(key) or {"waveform": waveform.numpy()}  # mapped, if there is a cache
    return torch.from_numpy(entry["waveform"])
