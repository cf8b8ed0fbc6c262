"""Audio embeddings of clips, computed once and kept on disk.

One safetensors file a clip, its JSON sidecar beside it, named by a key of all that changes the content.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import json
import os
import random
import warnings
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from palmkit import audio
from palmkit.audio import file_digest
from palmkit.corruptions import corrupt_clip, corruption_key
from palmkit.storage import atomic_write, cache_root, progress_bar

EMBEDDING_VERSION = (
    2  # raise it with every change of audio.py or encoders.py that changes an embedding
)
DEFAULT = object()


@dataclass
class Embeddings:
    """features [n, dim] unit norm, labels [n] int64 (-1: unknown), paths, offsets (each crop's start in samples)."""

    features: torch.Tensor
    labels: torch.Tensor
    paths: list[str]
    offsets: list[int]

    def select(self, frame: pd.DataFrame) -> Embeddings:
        """Those of a frame's clips, in its order and with its labels."""
        places = {path: n for n, path in enumerate(self.paths)}
        rows = [places[str(path)] for path in frame["path"]]
        labels = torch.tensor(list(frame["label"]), dtype=torch.long)
        return Embeddings(
            self.features[rows],
            labels,
            [self.paths[n] for n in rows],
            [self.offsets[n] for n in rows],
        )


def embed(
    model,
    clips,
    cache=DEFAULT,
    crop="random",
    crop_seed=0,
    batch_size=16,
    workers=None,
    damage=None,
    on_batch=None,
) -> Embeddings:
    """Embed clips, reading from the cache what is there and computing only what is missing.

    clips: a DataFrame (path, label) of `load_dataset`, `draw_shots` or `once`, or a list of paths.
    cache: a folder; default PALMKIT_CACHE or ~/.cache/palmkit; None keeps nothing.
    crop: as in `read_clip`; a random start is drawn from a generator seeded by `crop_seed` and the file's content, so a
    run repeats. damage: (kind, strength) of `damage_clip`, done after the crop. Files are decoded in `workers` threads
    while the model encodes. on_batch: called with (clips done, clips to do) instead of a progress bar; what it raises
    ends the work there.
    Raises AudioError (path, and row of which CSV) and OSError (disk); what was embedded until then is kept.
    """
    frame = as_frame(clips)
    paths = [str(path) for path in frame["path"]]
    if not paths or batch_size < 1:
        raise ValueError(f"there are no clips to embed, or batch_size={batch_size} is none")
    folder = (
        None
        if cache is None
        else (cache_root() if cache is DEFAULT else Path(cache)) / "embeddings"
    )
    told = provenance(model, crop, crop_seed) | (
        {"damage": corruption_key(*damage)} if damage else {}
    )
    store = _Store(folder, told)
    workers = workers or min(8, os.cpu_count() or 1)
    found: dict[int, tuple[torch.Tensor, int]] = {}
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            digests = list(pool.map(file_digest, paths))
            found = {
                n: entry for n, entry in enumerate(map(store.read, digests)) if entry is not None
            }
            missing = [n for n in range(len(paths)) if n not in found]
            read = functools.partial(_read, crop=crop, crop_seed=crop_seed, damage=damage)
            with progress_bar(0 if on_batch else len(missing), "embed", "clip") as bar:
                for batch in read_ahead(pool, read, [(n, paths[n]) for n in missing], batch_size):
                    numbers, waveforms, offsets, shas = zip(*batch, strict=True)
                    features = model.encode_audio(torch.stack(waveforms)).cpu()
                    for n, feature, offset, sha in zip(
                        numbers, features, offsets, shas, strict=True
                    ):
                        store.write(sha, feature, offset, paths[n])
                        found[n] = (feature, offset)
                    bar.update(len(batch))
                    if on_batch:
                        on_batch(len(found) - len(paths) + len(missing), len(missing))
        except audio.AudioError as error:
            raise audio.AudioError(with_csv_row(error, frame)) from error
        finally:
            pool.shutdown(cancel_futures=True)
    features = torch.stack([found[n][0] for n in range(len(paths))])
    labels = torch.tensor(
        list(frame["label"]) if "label" in frame else [-1] * len(paths), dtype=torch.long
    )
    return Embeddings(features, labels, paths, [found[n][1] for n in range(len(paths))])


def as_frame(clips) -> pd.DataFrame:
    """Clips as `embed` takes them, as a DataFrame."""
    return (
        clips
        if isinstance(clips, pd.DataFrame)
        else pd.DataFrame({"path": [str(path) for path in clips]})
    )


def unique_clips(frames) -> pd.DataFrame:
    """The clips of several frames, each once, with the CSV and row that first names it."""
    told = [frame[["path"]].assign(row=frame.index, csv=frame.attrs.get("csv")) for frame in frames]
    return pd.concat(told, ignore_index=True).drop_duplicates("path", ignore_index=True)


def provenance(model, crop, crop_seed) -> dict:
    """All that changes an embedding, but for the audio file itself."""
    return {
        "version": EMBEDDING_VERSION,
        "weights": model.digest("audio"),
        "preprocessing": {
            "sample_rate": audio.SAMPLE_RATE,
            "samples": audio.CLIP_SAMPLES,
            **model.config["audio"],
        },
        "crop": crop,
        "crop_seed": crop_seed if crop == "random" else None,
        "precision": f"float32, matmul {torch.get_float32_matmul_precision()}",
    }


def _read(item, crop, crop_seed, damage=None):
    """Decode one clip: (number, waveform, crop's start, digest of the very bytes decoded)."""
    number, path = item
    data = audio.read_bytes(path)
    sha = audio.digest(data)
    waveform, offset = audio.crop_clip(
        audio.decode(data, path), crop, random.Random(f"{crop_seed}:{sha}"), path
    )
    return number, corrupt_clip(waveform, *damage, sha) if damage else waveform, offset, sha


def read_ahead(pool, function, items, batch_size):
    """Results of function(item) in order, in lists of batch_size, at most four batches read ahead.

    What was read before an item that raises is handed out before the error.
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
    """The message with the CSV row of the file it is about."""
    told = frame if "csv" in frame else frame.assign(row=frame.index, csv=frame.attrs.get("csv"))
    for clip in told.itertuples():
        if str(error).startswith(f"{clip.path}:") and clip.csv:
            return f"{error} (row {clip.row} of {clip.csv})"
    return str(error)


def _content(feature, offset) -> str:
    return audio.digest(
        f"{offset} {feature.dtype} {list(feature.shape)}".encode() + feature.numpy().tobytes()
    )


class _Store:
    """Embeddings of one model and setting: key of the audio's sha256 -> file."""

    def __init__(self, folder: Path | None, provenance: dict):
        self.folder, self.provenance = folder, provenance

    def place(self, sha: str) -> tuple[str, Path]:
        key = audio.digest(json.dumps({**self.provenance, "audio": sha}, sort_keys=True).encode())
        return key, self.folder / key[:2] / f"{key}.safetensors"

    def read(self, sha: str):
        """(feature [dim], offset), or None where there is no whole entry of this key."""
        if self.folder is None:
            return None
        key, path = self.place(sha)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                metadata, feature = file.metadata() or {}, file.get_tensor("feature")
            if metadata.get("key") != key or metadata.get("sha256") != _content(
                feature, metadata.get("offset")
            ):
                raise ValueError("its content belongs to another key or was changed")
            return feature, int(metadata["offset"])
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            warnings.warn(
                f"cache entry {path} is not usable ({error}); computed anew", stacklevel=3
            )
            return None

    def write(self, sha: str, feature: torch.Tensor, offset: int, path: str) -> None:
        if self.folder is None:
            return
        key, place = self.place(sha)
        metadata = {"key": key, "offset": str(offset), "sha256": _content(feature, offset)}
        sidecar = {
            **self.provenance,
            "audio": sha,
            "offset": offset,
            "file": Path(path).name,
            "dim": len(feature),
        }
        atomic_write(place.with_suffix(".json"), json.dumps(sidecar, indent=1))
        atomic_write(place, save({"feature": feature.contiguous()}, metadata))
