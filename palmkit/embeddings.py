"""Audio embeddings of clips, computed once and kept on disk."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import os
import random
from collections import deque
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from palmkit import audio
from palmkit.channels import channels_key
from palmkit.models.pair import each_encoder
from palmkit.padding import padding_key
from palmkit.storage import cache_folder, map_in_chunks, progress_bar
from palmkit.store import TensorStore

LOUD = 10  # a peak; samples should lie in -1 to 1
# Raise it when audio.py or a model changes such that embeddings change but no digest does.
EMBEDDING_VERSION = 3


@dataclass
class Embeddings:
    """features [n, dim] of unit norm, labels [n] int64 (-1: unknown), paths, offsets.

    offsets: each crop's start, in samples of the model's rate.
    """

    features: torch.Tensor
    labels: torch.Tensor
    paths: list[str]
    offsets: list[int]

    def select(self, frame: pd.DataFrame) -> Embeddings:
        """The embeddings of a frame's clips, in its order and with its labels."""
        return self.select_each([frame])[0]

    def select_each(self, frames) -> list[Embeddings]:
        """`select` for several frames: all paths are looked at once."""
        places = {path: n for n, path in enumerate(self.paths)}
        selected = []
        for frame in frames:
            rows = [places[str(path)] for path in frame["path"]]
            labels = torch.tensor(list(frame["label"]), dtype=torch.long)
            paths, offsets = [self.paths[n] for n in rows], [self.offsets[n] for n in rows]
            selected.append(Embeddings(self.features[rows], labels, paths, offsets))
        return selected


class Clip(NamedTuple):
    """A decoded clip: its place in the list, [samples], and the crop's start."""

    number: int
    waveform: torch.Tensor
    offset: int


def embed(
    model,
    clips,
    cache="default",
    crop="random",
    crop_seed=0,
    batch_size=16,
    workers=None,
    transform=None,
    on_progress=None,
    label="embed",
) -> Embeddings:
    """Embed clips. Embeddings in the cache are read; only the others are computed.

    A `ModelPair` embeds with each of its models and joins the features; offsets are the first's.
    clips: a DataFrame (path, label) of `load_dataset` or `draw_shots`, or a list of paths.
    cache: a folder; "default" is PALMKIT_CACHE or ~/.cache/palmkit; None disables caching.
    crop: as in `read_clip`; a random start is drawn from a generator seeded by `crop_seed` and the
    file's content, so it is the same in every run.
    workers: threads that decode while the model encodes.
    transform: called with (waveform [samples], seed), it returns the waveform to embed. Its
    `.key`, a JSON-able value, must cover everything that changes its result. See
    `palmkit.corruptions.Corruption`.
    on_progress: called with (clips done, clips to do) instead of a progress bar. An exception that
    it raises ends the work. label: of the progress bar.
    Raises AudioError (path, and row of which CSV), also for an embedding that is not finite, and
    OSError (disk). Clips embedded before the error are kept.
    """
    frame = as_frame(clips)
    if not len(frame) or batch_size < 1:
        raise ValueError(
            f"no clips to embed: {len(frame)} clips, batch_size={batch_size}; use 1 or more"
        )
    calls = each_encoder(model, crop, transform)
    settings = (cache, crop_seed, batch_size, workers, on_progress)
    found = [_embed(*call, frame, *settings, label) for call in calls]
    if len(found) == 1:
        return found[0]
    return replace(found[0], features=model.join([one.features for one in found]))


def _embed(
    model, crop, transform, frame, cache, crop_seed, batch_size, workers, on_progress, label
) -> Embeddings:
    """`embed` with one encoder."""
    paths = [str(path) for path in frame["path"]]
    setting = provenance(model, crop, crop_seed)
    if transform is not None:
        setting["transform"] = transform.key

    def read(number: int) -> Clip:
        return _read_clip(model, number, paths[number], keys[number], crop, crop_seed, transform)

    workers, found = workers or min(8, os.cpu_count() or 1), _Entries(len(paths))
    with (
        TensorStore(cache_folder(cache), "embeddings", setting) as store,
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
    ):
        try:
            name = functools.partial(audio.content_key, sample_rate=model.sample_rate)
            keys = [*map_in_chunks(pool, name, paths)]
            for number, key in enumerate(keys):
                if _is_finite(entry := store.get(key)):
                    found.put(number, entry)
            missing = found.missing()
            batches = read_ahead(pool, read, missing, batch_size)
            entries = _encode_batches(model, batches, paths, len(missing), on_progress, label)
            for number, entry in entries:
                if note := keys[number].partition(" ")[2]:
                    entry["note"] = np.array(note)  # an unusual decoder or resampler
                store.put(keys[number], entry)
                found.put(number, entry)
        except audio.AudioError as error:
            raise audio.AudioError(with_csv_row(error, frame)) from error
        finally:
            pool.shutdown(cancel_futures=True)
    return Embeddings(torch.from_numpy(found.features), list_labels(frame), paths, found.offsets)


class _Entries:
    """Entries of the store in one table, so that each is in memory once: features [n, dim]."""

    def __init__(self, count: int):
        self.features, self.offsets = None, [None] * count

    def put(self, number: int, entry: dict) -> None:
        feature = entry["feature"]
        if self.features is None:
            self.features = np.empty((len(self.offsets), *feature.shape), feature.dtype)
        self.features[number], self.offsets[number] = feature, int(entry["offset"])

    def missing(self) -> list[int]:
        return [number for number, offset in enumerate(self.offsets) if offset is None]


def _read_clip(model, number: int, path: str, key: str, crop, crop_seed, transform) -> Clip:
    """Decode and crop a file. key: its name in the store, which begins with its sha256."""
    samples = audio.count_samples(model.clip_seconds, model.sample_rate)
    with audio.open_file(path) as file:
        sha = audio.stream_digest(file)
        if not key.startswith(sha):
            raise audio.AudioError(f"{path}: was changed while it was read; start again")
        rng = random.Random(f"{crop_seed}:{sha}")
        rate, policy = model.sample_rate, audio.clip_policy(model)
        waveform, offset = audio.read_crop(file, path, rate, samples, crop, rng, **policy)
    if transform is not None:
        waveform = transform(waveform, sha)
    return Clip(number, waveform, offset)


def _encode_batches(model, batches, paths, total, on_progress, label):
    """Encode lists of `Clip`s. Yields (the clip's number, its entry of the store)."""
    done = 0
    with progress_bar(0 if on_progress else total, label, "clip") as bar:
        for batch in batches:
            waveforms = torch.stack([clip.waveform for clip in batch])
            features = model.encode_audio(waveforms).float().cpu()
            for clip, feature in zip(batch, features, strict=True):
                check_embedding(feature, clip.waveform, paths[clip.number])
                yield clip.number, {"feature": feature.numpy(), "offset": np.array(clip.offset)}
            done += len(batch)
            bar.update(len(batch))
            if on_progress:
                on_progress(done, total)


def _is_finite(entry: dict | None) -> bool:
    return entry is not None and bool(np.isfinite(entry["feature"]).all())


def check_embedding(feature: torch.Tensor, waveform: torch.Tensor, path) -> None:
    """Raise AudioError for an embedding with NaN or infinity: no number would come of it."""
    if feature.isfinite().all():
        return
    peak = float(waveform.abs().max())
    reason = "are the model's weights whole?"
    if not peak <= LOUD:
        reason = f"its peak is {peak:.3g} and should be 1 at most: scale it, or remove its row"
    raise audio.AudioError(f"{path}: its embedding is not finite; {reason}")


def as_frame(clips) -> pd.DataFrame:
    """The clips that `embed` was given, as a DataFrame."""
    if isinstance(clips, pd.DataFrame):
        return clips
    return pd.DataFrame({"path": [str(path) for path in clips]})


def list_labels(frame: pd.DataFrame) -> torch.Tensor:
    """[n] int64; -1 where the frame has no labels."""
    labels = frame["label"] if "label" in frame else [-1] * len(frame)
    return torch.tensor(list(labels), dtype=torch.long)


def unique_clips(frames) -> pd.DataFrame:
    """The clips of several frames, each once, with the CSV and the row where it occurs first."""
    rows = [frame[["path"]].assign(row=frame.index, csv=frame.attrs.get("csv")) for frame in frames]
    return pd.concat(rows, ignore_index=True).drop_duplicates("path", ignore_index=True)


def provenance(model, crop, crop_seed) -> dict:
    """All that changes an embedding, except the audio file itself."""
    # With `audio_digest`, as Pengi has, models that differ only in text share cached embeddings.
    digest = getattr(model, "audio_digest", model.digest)
    return {
        "version": EMBEDDING_VERSION,
        "model": digest(),
        "sample_rate": model.sample_rate,
        "clip_seconds": model.clip_seconds,
        "crop": crop,
        "crop_seed": crop_seed if crop == "random" else None,
        "precision": f"float32, matmul {torch.get_float32_matmul_precision()}",
        **padding_key(model),
        **channels_key(model),
    }


def read_ahead(pool, function, items, batch_size):
    """Results of function(item) in order, in lists of batch_size, at most four batches read ahead.

    Results from before a failed item are yielded before its error is raised.
    """
    items = iter(items)
    ahead = deque(pool.submit(function, item) for item in itertools.islice(items, 4 * batch_size))
    while ahead:
        batch, error = [], None
        while ahead and len(batch) < batch_size and error is None:
            future = ahead.popleft()
            error = future.exception()
            batch += [] if error else [future.result()]
        ahead.extend(pool.submit(function, item) for item in itertools.islice(items, len(batch)))
        if batch:
            yield batch
        if error:
            raise error


def with_csv_row(error, frame) -> str:
    """The error's message, with the CSV row of the file that it names.

    The file is named where it really is: in an imported dataset, `audios` is a link.
    """
    if "csv" not in frame:
        frame = frame.assign(row=frame.index, csv=frame.attrs.get("csv"))
    for clip in frame.itertuples():
        path, colon, reason = str(error).partition(f"{clip.path}:")
        if not path and colon and clip.csv:
            return f"{os.path.realpath(clip.path)}:{reason} (row {clip.row} of {clip.csv})"
    return str(error)
