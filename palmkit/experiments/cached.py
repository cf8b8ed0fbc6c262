"""What the cache already has, so that estimates count only what there is to do."""

from __future__ import annotations

import contextlib

from palmkit.audio import AudioError, content_key
from palmkit.embeddings import provenance
from palmkit.models.pair import each_encoder
from palmkit.storage import cache_folder
from palmkit.store import TensorStore


def count_missing(model, paths, cache="default", crop="random", crop_seed=0, transform=None) -> int:
    """How many of these clips `embed` would encode; its arguments. No embedding is read.

    Of a pair of models, the count of the model that has more to encode.
    """
    calls = each_encoder(model, crop, transform)
    return max(_count(*call, set(map(str, paths)), cache, crop_seed) for call in calls)


def _count(model, crop, transform, paths: set[str], cache, crop_seed) -> int:
    """`count_missing` with one encoder."""
    setting = provenance(model, crop, crop_seed)
    if transform is not None:
        setting["transform"] = transform.key
    folder = cache_folder(cache)
    found = 0
    with TensorStore(folder, "embeddings", setting) as store:
        for path in paths if folder is not None else ():
            with contextlib.suppress(AudioError):  # of a file that cannot be read: when it is
                found += content_key(path, model.sample_rate) in store
    return len(paths) - found
