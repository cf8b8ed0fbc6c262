"""What the cache already has, so that estimates count only what there is to do."""

from __future__ import annotations

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
    return max(len(_missing(*call, set(map(str, paths)), cache, crop_seed)) for call in calls)


def list_missing(
    model, paths, cache="default", crop="random", crop_seed=0, transform=None
) -> list[str]:
    """The clips, each once and in their order, that `embed` would encode with any of the models."""
    paths = dict.fromkeys(map(str, paths))
    calls = each_encoder(model, crop, transform)
    missing = {path for call in calls for path in _missing(*call, paths, cache, crop_seed)}
    return [path for path in paths if path in missing]


def _missing(model, crop, transform, paths, cache, crop_seed) -> list[str]:
    """The clips that the cache does not have of one encoder."""
    setting = provenance(model, crop, crop_seed)
    if transform is not None:
        setting["transform"] = transform.key
    folder = cache_folder(cache)
    if folder is None:
        return [*paths]
    missing = []
    with TensorStore(folder, "embeddings", setting) as store:
        for path in paths:
            try:
                found = content_key(path, model.sample_rate) in store
            except AudioError:  # of a file that cannot be read: when it is
                found = False
            if not found:
                missing.append(path)
    return missing
