"""The model that is checked, and what several checks need of it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from palmkit.encoder_check.sounds import make_sounds
from palmkit.models.base import PromptableText, find_missing

# Unit vectors in float32 that were computed in another order differ by about 1e-6; a neighbour or
# padding that counts moves them by 1e-4 and more.
SAME = 1e-5
# GPUs compute convolutions with 10 bits by default (TF32), and choose a kernel by the batch's size.
SAME_ON_GPU = 2e-3
# Prompts and class names of different lengths, each from another field.
TEXTS = (
    "dog",
    "rain",
    "church bells",
    "a siren",
    "crackling fire in an old stone house",
    "footsteps",
    "a crowd of people that cheers and claps after a long concert",
    "vacuum cleaner",
)
ONLY_TEXT = ("logit_scale", "prompt", "dtype", "encode_text")  # an audio encoder has none of them


class Subject:
    """A model under check. load: gives it once more, or None.

    Inputs are handed out as copies, so that a model that changes its input spoils no other check.
    """

    def __init__(self, model, load=None):
        self.model, self.load = model, load
        self.answers: dict[str, torch.Tensor] = {}  # of `answer`
        self.clips = None  # embeddings of files, once a check has made them

    @property
    def has_text(self) -> bool:
        """False for an audio encoder: no member that only a text encoder needs."""
        return any(hasattr(self.model, name) for name in ONLY_TEXT)

    @property
    def has_tokens(self) -> bool:
        return not find_missing(self.model, PromptableText)

    @property
    def samples(self) -> int:
        """Of a clip, as `embed` hands it out."""
        return round(self.model.sample_rate * self.model.clip_seconds)

    @property
    def same(self) -> float:
        """Largest distance of embeddings that should be the same, in other batches."""
        return SAME if self.model.device.type == "cpu" else SAME_ON_GPU

    @functools.cached_property
    def names(self) -> list[str]:
        """Of the sounds."""
        return list(make_sounds(self.model.sample_rate, self.samples))

    @functools.cached_property
    def sounds(self) -> torch.Tensor:
        """Very different sounds, [8, samples]."""
        return torch.stack(list(make_sounds(self.model.sample_rate, self.samples).values()))

    def answer(self, kind: str):
        """What the model itself returns for `sounds` (kind "audio"), or for TEXTS ("text")."""
        if kind not in self.answers:
            inputs = self.sounds.clone() if kind == "audio" else list(TEXTS)
            self.answers[kind] = getattr(self.model, f"encode_{kind}")(inputs)
        return self.answers[kind]

    @functools.cached_property
    def audio(self) -> torch.Tensor:
        """The sounds' embeddings in one batch, [8, dim], as `embed_audio` gives them."""
        return as_unit(self.answer("audio"))

    @functools.cached_property
    def texts(self) -> torch.Tensor:
        """The embeddings of TEXTS in one batch, [8, dim]."""
        return as_unit(self.answer("text"))

    def embed_audio(self, waveforms) -> torch.Tensor:
        """[n, samples] -> unit float64 [n, dim] on the CPU."""
        return as_unit(self.model.encode_audio(waveforms.clone()))

    def embed_text(self, prompts) -> torch.Tensor:
        return as_unit(self.model.encode_text(list(prompts)))


def as_unit(features: torch.Tensor) -> torch.Tensor:
    """Embeddings [.., dim] in float64 on the CPU, normalised: length is a check of its own."""
    return F.normalize(features.detach().double().cpu(), dim=-1)


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Largest distance of two lists of unit embeddings; infinite if a number is missing."""
    value = (first - second).norm(dim=-1).max().item()
    return value if np.isfinite(value) else float("inf")


def mean_cosine(unit: torch.Tensor) -> float:
    """Mean cosine of all pairs of [n, dim]."""
    cosines = unit @ unit.T
    n = len(unit)
    return ((cosines.sum() - cosines.diagonal().sum()) / (n * (n - 1))).item()


# Weights


def attributes(owner) -> dict:
    """{name: value} of an object's own attributes; {} if it keeps none in a __dict__."""
    return dict(getattr(owner, "__dict__", {}))


def find_tensors(model, derived: bool = True) -> dict[str, torch.Tensor]:
    """{place: tensor} of all weights and buffers that a model's attributes lead to.

    derived: also buffers that no state_dict has, as they follow from the config.
    """
    found: dict[str, torch.Tensor] = {}
    seen: list = []  # objects, compared by identity

    def visit(name: str, value, depth: int) -> None:
        if isinstance(value, torch.Tensor):
            found.setdefault(name, value)
            return
        if any(value is one for one in seen):
            return
        if isinstance(value, nn.Module):
            seen.append(value)
            tensors = value.state_dict(keep_vars=True)
            tensors |= dict(value.named_buffers()) if derived else {}
            found.update({f"{name}.{key}".strip("."): one for key, one in tensors.items()})
        elif isinstance(value, dict | list | tuple):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, one in items:
                visit(f"{name}.{key}", one, depth)
            return
        if hasattr(value, "__dict__") and not isinstance(value, type) and depth < 2:
            seen.append(value)
            for key, one in attributes(value).items():
                if not key.startswith("__") and key not in ("_modules", "_parameters", "_buffers"):
                    visit(f"{name}.{key}".strip("."), one, depth + 1)

    visit("", model, 0)
    return found


def find_modules(model) -> dict[str, nn.Module]:
    """{attribute: module} of the networks that a model has, one level deep; or itself."""
    if isinstance(model, nn.Module):
        return {"model": model}
    owners = {"": model} | {
        f"{key}.": value
        for key, value in attributes(model).items()
        if hasattr(value, "__dict__") and not isinstance(value, nn.Module | type)
    }
    return {
        f"{start}{key}": value
        for start, owner in owners.items()
        for key, value in attributes(owner).items()
        if isinstance(value, nn.Module)
    }


def hash_tensors(model) -> str:
    """sha256 of the weights as they are, without asking the model's own digest."""
    sha = hashlib.sha256()
    for name, tensor in sorted(find_tensors(model).items()):
        sha.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
        data = tensor.detach().cpu().contiguous().flatten()
        sha.update(data.view(torch.uint8).numpy().tobytes() if data.numel() else b"")
    return sha.hexdigest()


# Settings of the process


def read_settings() -> dict:
    """Settings of the whole process that a model has no business to change."""
    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's grad mode": torch.is_grad_enabled(),
        "torch's inference mode": torch.is_inference_mode_enabled(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "torch's matmul precision": torch.get_float32_matmul_precision(),
        "numpy's error handling": np.geterr(),
        "the current folder": os.getcwd(),
    }


def read_generators() -> dict:
    """The states of the global random generators, each as something that can be compared."""
    kind, keys, place, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (kind, keys.tobytes(), place, *rest),
        "random": random.getstate(),
    }


def seed_all(seed: int) -> None:
    """Seed the global random generators."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextlib.contextmanager
def preserved():
    """Afterwards the process's settings and generators are as they were."""
    settings = read_settings()
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        torch.set_default_dtype(settings["torch's default dtype"])
        torch.set_grad_enabled(settings["torch's grad mode"])
        torch.set_num_threads(settings["torch's number of threads"])
        torch.use_deterministic_algorithms(settings["torch's deterministic mode"])
        torch.set_float32_matmul_precision(settings["torch's matmul precision"])
        np.seterr(**settings["numpy's error handling"])
        os.chdir(settings["the current folder"])
