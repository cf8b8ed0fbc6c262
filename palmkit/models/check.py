"""Whether a model is what the protocol AudioTextModel, or AudioModel, says."""

from __future__ import annotations

import math

import torch

from palmkit.channels import CHANNELS
from palmkit.models.pair import has_texts
from palmkit.padding import PADDINGS

NUMBERS = ("sample_rate", "clip_seconds", "dim", "logit_scale")
WANTED = dict.fromkeys(NUMBERS, "a number over 0") | {
    "prompt": "a text with {} for the class",
    "note": "a text, or ''",
    "device": "a torch.device",
    "dtype": "torch.float32 or torch.float64",
}
OPTIONAL = {  # what a model may have beside these
    "padding": f"one of {', '.join(PADDINGS)}",
    "channels": f"one of {', '.join(CHANNELS)}",
    "defaults": "a dict with settings of SGD, {'lr': ...}",
    "about": "a dict of texts, {'licence': ...}",
}
OF_TEXTS = ("logit_scale", "prompt", "dtype")  # what AudioModel does not have


def check_model(model) -> None:
    """Raise ValueError for a model whose members are not those of AudioTextModel, or of AudioModel
    if it has no texts."""
    texts = has_texts(model)
    for name in WANTED:
        if (texts or name not in OF_TEXTS) and not is_right(name, getattr(model, name)):
            raise ValueError(
                f"{name} of the model {model.name!r} is {getattr(model, name)!r}: "
                f"use {WANTED[name]}"
            )
    for name, wanted in OPTIONAL.items():
        if hasattr(model, name) and not is_right_option(name, getattr(model, name)):
            raise ValueError(
                f"{name} of the model {model.name!r} is {getattr(model, name)!r}: use {wanted}, "
                "or leave it out"
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
    if texts:
        check_embeddings(model, "encode_text", model.encode_text([model.prompt.format("dog")]), 1)


def is_right(name: str, value) -> bool:
    """Whether a member of WANTED has a value of the right kind and range."""
    if name in NUMBERS:
        kind = int if name in ("sample_rate", "dim") else int | float
        return isinstance(value, kind) and 0 < value < math.inf
    if name == "dtype":
        return value in (torch.float32, torch.float64)
    if name == "device":
        return isinstance(value, torch.device)
    return isinstance(value, str) and (name != "prompt" or takes_a_class(value))


def is_right_option(name: str, value) -> bool:
    """Whether a member of OPTIONAL has a value of the right kind."""
    if name in ("defaults", "about"):
        return value is None or isinstance(value, dict)
    return value in (PADDINGS if name == "padding" else CHANNELS)


def takes_a_class(prompt: str) -> bool:
    """Whether a class name can be put into a prompt."""
    try:
        return "dog" in prompt.format("dog") and "{}" in prompt
    except (LookupError, ValueError):  # other fields than one {}, or a brace alone
        return False


UNIT_TOLERANCE = 1e-3


def check_embeddings(model, function: str, features, n: int):
    """What a model's function made of n inputs, as it is.

    Raises ValueError unless it is a tensor [n, dim] of finite vectors of unit length.
    """
    shape = [n, model.dim]
    problem = find_fault(features, shape)
    if not problem and (features.norm(dim=1) - 1).abs().max() > UNIT_TOLERANCE:
        problem = "vectors that are not of unit length"
    if problem:
        raise ValueError(
            f"{function} of the model {model.name!r} returned {problem}: return a floating-point "
            f"tensor {shape} of finite vectors of unit length"
        )
    return features


def find_fault(features, shape: list[int]) -> str:
    """What is returned in place of a finite floating-point tensor of this shape; "" for one."""
    if not isinstance(features, torch.Tensor) or not features.is_floating_point():
        return str(getattr(features, "dtype", type(features).__name__))
    if [*features.shape] != shape:
        return f"the shape {[*features.shape]}"
    return "" if features.isfinite().all() else "NaN or infinite values"
