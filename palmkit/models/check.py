"""Whether a model is what the protocol AudioTextModel says."""

from __future__ import annotations

import torch


def check_model(model) -> None:
    """Raise ValueError for a model whose members are not those of AudioTextModel."""
    numbers = ("sample_rate", "clip_seconds", "dim", "logit_scale")
    wanted = dict.fromkeys(numbers, "a number over 0")
    wanted |= {"prompt": "a text with {} for the class", "note": "a text, or ''"}
    wanted |= {"device": "a torch.device", "dtype": "torch.float32 or torch.float64"}
    whole = ("sample_rate", "dim")
    kinds = {name: int if name in whole else int | float for name in numbers}
    right = {name: isinstance(getattr(model, name), kinds[name]) for name in numbers}
    right = {name: right[name] and getattr(model, name) > 0 for name in numbers}
    right["prompt"] = isinstance(model.prompt, str) and "{}" in model.prompt
    right["note"] = isinstance(model.note, str)
    right["device"] = isinstance(model.device, torch.device)
    right["dtype"] = model.dtype in (torch.float32, torch.float64)
    if wrong := [name for name, is_right in right.items() if not is_right]:
        name = wrong[0]
        raise ValueError(
            f"{name} of the model {model.name!r} is {getattr(model, name)!r}: use {wanted[name]}"
        )
    digest = model.digest()
    if not isinstance(digest, str) or not digest or model.digest() != digest:
        raise ValueError(
            f"digest of the model {model.name!r} must return one and the same text for the same "
            "weights, config and preprocessing"
        )
    samples = round(model.sample_rate * model.clip_seconds)
    waveforms = torch.randn(2, samples, generator=torch.Generator().manual_seed(0)) / 10
    check_embeddings(model, "encode_audio", model.encode_audio(waveforms), len(waveforms))
    check_embeddings(model, "encode_text", model.encode_text([model.prompt.format("dog")]), 1)


UNIT_TOLERANCE = 1e-3


def check_embeddings(model, function: str, features, n: int):
    """What a model's function made of n inputs, as it is.

    Raises ValueError unless it is a tensor [n, dim] of finite vectors of unit length.
    """
    shape, problem = [n, model.dim], ""
    if not isinstance(features, torch.Tensor) or not features.is_floating_point():
        problem = getattr(features, "dtype", type(features).__name__)
    elif [*features.shape] != shape:
        problem = f"the shape {[*features.shape]}"
    elif not features.isfinite().all():
        problem = "NaN or infinite values"
    elif (features.norm(dim=1) - 1).abs().max() > UNIT_TOLERANCE:
        problem = "vectors that are not of unit length"
    if problem:
        raise ValueError(
            f"{function} of the model {model.name!r} returned {problem}: return a floating-point "
            f"tensor {shape} of finite vectors of unit length"
        )
    return features
