"""The protocol behind the published numbers: the released trainer calls `model.train()` on PENGI in every epoch.

So its clips sound otherwise in each epoch, and bn0 drifts to the dataset. No gradient goes through the audio encoder
and no prompt reaches it, so what it says does not depend on the method: it is computed once for a draw and a seed, as a
stream of embeddings [epochs, n, dim], from which `fit` takes its features instead of a table. The text side has one
random part, the dropout of its projection.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
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
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from timm.layers import DropPath

from palmkit import audio
from palmkit.embeddings import DEFAULT, Embeddings, as_frame, file_digest, located, provenance, read_ahead
from palmkit.pengi import PENGI_CONFIG, Pengi
from palmkit.storage import atomic_write, cache_root, progress_bar
from palmkit.training import shuffled

STREAM_VERSION = 1  # raise it with every change here that changes a stream
PARTS = (
    "crops",  # clips over 7 s are cropped anew in every epoch, and at test by each seed for itself
    "bn0",  # batch statistics while training, and running ones that drift and are kept for test
    "specaugment",  # stripes of the log-mel set to 0, after bn0
    "drop_path",  # stochastic depth in the Swin trunk
    "audio_dropout",  # of the audio projection
    "text_dropout",  # of the text projection
)
STRIPES = 2  # of each kind, a clip
FRAMES, BANDS = 64, 8  # a stripe is narrower than this; of PENGI's frames, which come every 320 samples
KEPT_BYTES = 2**30  # of log-mels that do not change from epoch to epoch; what exceeds it is computed anew


def check_parts(parts) -> tuple[str, ...]:
    """Names of random parts, in order: "all", or some of PARTS. Raises ValueError for another name."""
    parts = PARTS if parts == "all" else [parts] if isinstance(parts, str) else parts
    if unknown := [part for part in parts if part not in PARTS]:
        raise ValueError(f"there is no random part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in parts)


@contextlib.contextmanager
def seeded(device, *purpose):
    """torch's generators seeded by what they are for, say (seed, "drop_path", epoch, step); afterwards as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(audio.digest(repr(purpose).encode())[:15], 16))
        yield


@contextlib.contextmanager
def text_dropout(pengi, seed):
    """The published training's dropout in the text projection, for the `fit` within; afterwards it is off again."""
    with seeded(pengi.device, seed, "text_dropout"):
        try:
            pengi.text.projection.train()
            yield
        finally:
            pengi.text.projection.eval()


def spec_augment(x, frames=FRAMES):
    """x [n, mel, frames, 1] after bn0 -> the same with stripes set to 0, each clip for itself.

    Two stripes of 0..63 frames and two of 0..7 bands, starts uniform where they fit: PENGI's SpecAugment, which its
    trainer applies although the flag for it is off. frames: the width that stripes in time stay below.
    """
    x = x.clone()
    for axis, limit in ((2, frames), (1, BANDS)):
        total = x.shape[axis]
        if total < limit:
            raise ValueError(f"stripes of {limit - 1} do not fit into {total} frames or bands")
        width = torch.randint(limit, (len(x), STRIPES, 1))
        start = (torch.rand(len(x), STRIPES, 1, dtype=torch.float64) * (total - width)).long()
        place = torch.arange(total)
        hit = ((place >= start) & (place < start + width)).any(1).to(x.device)  # [n, total]
        x.masked_fill_(hit[:, None, :, None] if axis == 2 else hit[:, :, None, None], 0)
    return x


def drifted(pengi, bn0=None) -> Pengi:
    """The same PENGI, its weights shared and not copied, with these statistics of bn0 (as `Stream.bn0`)."""
    audio_encoder = copy.deepcopy(pengi.audio, {id(p): p for p in pengi.audio.parameters()})
    audio_encoder.bn0.load_state_dict(bn0 or {}, strict=False)
    other = Pengi(audio_encoder, pengi.text, pengi.config, pengi.device)
    other.note = pengi.note
    return other


class TrainModeAudio:
    """PENGI's audio encoder with random parts on, each seeded by (seed, its name, epoch, step). `pengi` is not touched.

    Called with what `start` gives and with epoch and step, it answers with unit embeddings [n, dim]; `bn0` are the
    statistics as they have drifted so far.
    """

    def __init__(self, pengi, parts=PARTS, seed=0, autocast=False):
        self.parts, self.seed, self.autocast = check_parts(parts), seed, autocast
        self.pengi = drifted(pengi)
        self.encoder = self.pengi.audio
        self.encoder.bn0.train("bn0" in self.parts)
        self.encoder.projection.train("audio_dropout" in self.parts)
        for module in self.encoder.trunk.modules():
            if isinstance(module, DropPath):
                module.train("drop_path" in self.parts)
        # Nothing but dropout changes: then what goes into the projection is as constant as its clip.
        self.still = not {"bn0", "specaugment", "drop_path"} & set(self.parts)
        # Stripes are as long in seconds as PENGI's where frames come less often, as in mini-PENGI.
        self.frames = round(FRAMES * PENGI_CONFIG["audio"]["hop_size"] / self.encoder.hop_size)

    @property
    def bn0(self) -> dict[str, torch.Tensor]:
        return {name: buffer.cpu().clone() for name, buffer in self.encoder.bn0.named_buffers()}

    @bn0.setter
    def bn0(self, state) -> None:
        self.encoder.bn0.load_state_dict({name: state[name] for name in self.bn0}, strict=False)

    @torch.no_grad()
    def start(self, waveforms):
        """Waveforms [n, samples] -> what never changes for them: log-mels, or latents if nothing but dropout is on."""
        log_mel = self.pengi.in_fours(self.encoder.log_mel, waveforms)
        return self.latent(log_mel, 0, 0) if self.still else log_mel

    def latent(self, log_mel, epoch, step):
        stripes = functools.partial(spec_augment, frames=self.frames) if "specaugment" in self.parts else None
        with seeded(self.pengi.device, self.seed, "specaugment", epoch, step):
            image = self.encoder.image(log_mel, stripes)  # the whole batch: its statistics are bn0's
        with seeded(self.pengi.device, self.seed, "drop_path", epoch, step):
            return self.pengi.in_fours(self.encoder.latent, image)

    @torch.no_grad()
    def __call__(self, x, epoch: int, step: int):
        with torch.autocast(self.pengi.device.type, enabled=self.autocast):
            latent = x if self.still else self.latent(x, epoch, step)
            with seeded(self.pengi.device, self.seed, "audio_dropout", epoch, step):
                embedding = self.pengi.in_fours(self.encoder.projection, latent)
        return F.normalize(embedding.float(), dim=-1)


@dataclass
class Stream(Embeddings):
    """Embeddings of a draw while training: features [epochs, n, dim], offsets [epochs, n] (each crop's start).

    bn0: the statistics at the end; `drifted(pengi, stream.bn0)` hears the test clips as the published code does.
    """

    bn0: dict[str, torch.Tensor]


def embed_stream(
    pengi, clips, epochs=50, batch_size=16, seed=0, parts=PARTS, crop="random", crop_seed=0, cache=DEFAULT,
    autocast=False,
) -> Stream:  # fmt: skip
    """What the published trainer's audio encoder says of `clips` in each epoch, in batches as `fit` shuffles them.

    clips, cache, crop, crop_seed: as in `embed`. Without "crops" among `parts`, a clip has one crop, that of `embed`;
    without any of them, every epoch is `embed`'s table. autocast: half precision where PyTorch thinks it safe.
    The cache keeps waveforms, as floats at 44.1 kHz (a second takes 176 KB), and every epoch (4 n dim bytes): a stream
    that was interrupted goes on, a longer one begins where a shorter one ended.
    Raises AudioError (path, and row of which CSV) and OSError (disk).
    """
    frame, root = as_frame(clips), None if cache is None else cache_root() if cache is DEFAULT else Path(cache)
    if not len(frame) or batch_size < 1 or epochs < 0:
        raise ValueError(f"nothing to do for {len(frame)} clips, batch_size={batch_size}, epochs={epochs}")
    ear = TrainModeAudio(pengi, parts, seed, autocast)
    try:
        sounds = _Sounds(frame, ear, crop, crop_seed, root)
        key = stream_key(pengi, sounds.digests, ear, batch_size, crop, crop_seed)
        folder = None if root is None else root / "streams" / key[:2] / key
        order, steps, done = shuffled(len(frame), batch_size, epochs, seed), -(-len(frame) // batch_size), []
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
        raise audio.AudioError(located(error, frame)) from error
    features, offsets = (
        torch.stack([entry[name] for entry in done]) if done else torch.empty(0, len(frame), *more)
        for name, more in (("features", [pengi.dim]), ("offsets", []))
    )
    labels = torch.tensor(list(frame["label"]) if "label" in frame else [-1] * len(frame), dtype=torch.long)
    return Stream(features, labels, [str(path) for path in frame["path"]], offsets.long().tolist(), ear.bn0)


def crop_seed_at_test(parts, seed: int, crop_seed: int):
    """What `embed` should draw crops of test clips from: with "crops" each seed draws for itself, as published."""
    return f"{crop_seed}:{seed}:test" if "crops" in parts else crop_seed


def stream_key(pengi, digests, ear, batch_size, crop, crop_seed) -> str:
    """sha256 of all that changes a stream's epochs; the number of epochs does not."""
    told = provenance(pengi, crop, crop_seed) | {
        "stream": STREAM_VERSION,
        "parts": [part for part in ear.parts if part != "text_dropout" and (part != "crops" or crop == "random")],
        "dropout": pengi.config["projection_dropout"],
        "seed": ear.seed,
        "batch_size": batch_size,
        "autocast": ear.autocast,
        "clips": digests,
    }
    return audio.digest(json.dumps(told, sort_keys=True).encode())


class _Sounds:
    """The clips of a draw: files are read once, and what does not change from epoch to epoch is computed once."""

    def __init__(self, frame, ear, crop, crop_seed, root):
        self.paths, self.ear, self.root = [str(path) for path in frame["path"]], ear, root
        self.crop, self.crop_seed = crop, crop_seed
        self.fresh = crop == "random" and "crops" in ear.parts
        self.digests = [file_digest(path) for path in self.paths]
        self.waveforms, self.kept, self.offsets = {}, {}, {}

    def epoch(self, pool, epoch, order, batch_size) -> dict[str, torch.Tensor]:
        """features [n, dim], offsets [n], and bn0 as it is afterwards."""
        entry = {"features": torch.empty(len(order), self.ear.pengi.dim), "offsets": torch.zeros(len(order)).long()}
        read = functools.partial(self.read, epoch=epoch)
        for step, batch in enumerate(read_ahead(pool, read, order.tolist(), batch_size)):
            numbers, waveforms, offsets = zip(*batch, strict=True)
            entry["features"][list(numbers)] = self.ear(self.heard(numbers, waveforms), epoch, step).cpu()
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
        self.offsets[n] = (cut := audio.crop_clip(self.waveforms[n], self.crop, rng, self.paths[n]))[1]
        return n, *cut

    def heard(self, numbers, waveforms):
        """What `TrainModeAudio.start` gives of these clips, from what is kept or anew."""
        found = {n: self.kept[n] for n, waveform in zip(numbers, waveforms, strict=True) if waveform is None}
        if new := [n for n in numbers if n not in found]:
            stacked, device = torch.stack([w for w in waveforms if w is not None]), self.ear.pengi.device
            if device.type == "cuda":  # copied while the batch before is computed
                stacked = stacked.pin_memory()
            found |= dict(zip(new, self.ear.start(stacked.to(device, non_blocking=True)), strict=True))
            for n in new:
                constant = not self.fresh or self.waveforms[n].numel() <= audio.CLIP_SAMPLES
                if constant and (len(self.kept) + 1) * found[n].nbytes <= KEPT_BYTES:
                    self.kept[n] = found[n].clone()
                    del self.waveforms[n]
        return torch.stack([found[n] for n in numbers])


def read_waveform(path, sha, root=None) -> torch.Tensor:
    """A file decoded and at 44.1 kHz, [samples of all channels]: memory-mapped from the cache, where it is put if it is
    not there. sha: `file_digest` of the file. root: the cache's folder; None keeps nothing."""
    key = audio.digest(json.dumps({"rate": audio.SAMPLE_RATE, "version": STREAM_VERSION, "audio": sha}).encode())
    place = None if root is None else root / "waveforms" / key[:2] / f"{key}.npy"
    if place is not None and place.is_file():
        try:
            waveform = np.load(place, mmap_mode="c")  # copy on write: a mapping that PyTorch may hold
            if audio.digest(waveform.data) != place.with_suffix(".sha256").read_text():
                raise ValueError("its content was changed")
            return torch.from_numpy(waveform)
        except (OSError, ValueError) as error:
            warnings.warn(f"cache entry {place} is not usable ({error}); decoded anew", stacklevel=2)
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
    return audio.digest(b"".join(name.encode() + entry[name].contiguous().numpy().tobytes() for name in sorted(entry)))


def _read_epoch(folder, key, epoch):
    """An epoch's tensors, or None where there is no whole entry of this stream."""
    if folder is None or not (path := folder / f"{epoch:04d}.safetensors").is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata, entry = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
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
