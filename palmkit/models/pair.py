"""Two models as one: `load_model("mini+clap:FOLDER")`. And audio encoders without texts.

With the embeddings x1, x2 of a clip by both models, t1, t2 of a text, and logit scales s1, s2:

    x = [x1, x2] / sqrt(2)    t = [t1, t2] / sqrt(2)    s = (s1 + s2) / 2

So x and t are unit vectors, and x . t is the mean of both cosines. If the second has no texts:

    t = [t1, 0]    s = s1 sqrt(2)

Then s x . t = s1 x1 . t1: zero-shot is that of the first.
Every method on embeddings takes a pair as it takes a model: this is concatenation of features.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import nn

from palmkit.audio import clip_settings
from palmkit.channels import CHANNELS, model_channels
from palmkit.models.about import FACTS, describe
from palmkit.models.base import AudioTextModel, choose_device, find_missing
from palmkit.padding import PADDINGS, model_padding

PLUS = "+"  # between the names of two models
HALF = "audio:"  # before the name of a model whose texts are left out
KINDS = ("clap:", "msclap:")  # before files and folders of other models than PENGI
EXAMPLE = "mini+clap:FOLDER"


@runtime_checkable
class AudioModel(Protocol):
    """A model without texts: the second of a pair. The members mean what those of AudioTextModel
    do. It may have `audio_digest`, `padding`, `channels` and `about`, too."""

    name: str
    sample_rate: int
    clip_seconds: float
    dim: int
    device: torch.device
    note: str

    def encode_audio(self, waveforms) -> torch.Tensor:
        """Waveforms [n, samples] -> unit embeddings [n, dim], float32, without gradient."""

    def digest(self) -> str:
        """A hash of all that changes an embedding."""


def has_texts(model) -> bool:
    return hasattr(model, "encode_text")


class ModelPair:
    """Two models as an AudioTextModel. Each embeds clips as it does alone: at its own rate, length,
    padding and channels, from its own crop, and under its own key of the cache.

    first: an AudioTextModel. second: another one, or an AudioModel, on the same device.
    sample_rate, clip_seconds, padding and channels are the first's. It has no PromptableText, and
    states no defaults of SGD.
    Raises ValueError for models that cannot be a pair.
    """

    def __init__(self, first, second):
        check_pair(first, second)
        self.first, self.second = first, second
        self.encoders = (first, second)
        self.texts = tuple(one for one in self.encoders if has_texts(one))
        self.name = f"{first.name} + {second.name}"
        self.dims = (first.dim, second.dim)
        self.dim = sum(self.dims)
        self.sample_rate, self.clip_seconds = first.sample_rate, first.clip_seconds
        self.padding, self.channels = model_padding(first), model_channels(first)
        self.device = first.device
        types = [one.dtype for one in self.texts]
        self.dtype = torch.float64 if torch.float64 in types else first.dtype
        scales = [one.logit_scale for one in self.texts]
        self.logit_scale = sum(scales) / 2 if len(scales) == 2 else scales[0] * math.sqrt(2)
        notes = dict.fromkeys(one.note for one in self.encoders if one.note)
        self.note = "; ".join([f"two models, {self.name}", *notes])

    @property
    def about(self) -> dict[str, str]:
        """Licence, revision and training data of both, as `palmkit.models.about` has them."""
        facts = [describe(one) for one in self.encoders]
        return {name: f"{facts[0][name]} + {facts[1][name]}" for name in FACTS}

    @property
    def prompt(self) -> str:
        """The first's prompt; its `format` words a class for each model in its own way."""
        return PairPrompt(self.first.prompt, getattr(self.second, "prompt", self.first.prompt))

    def encode_audio(self, waveforms) -> torch.Tensor:
        """Waveforms [n, samples] -> unit embeddings [n, dim], if both models take the same ones.

        `palmkit.embed` works for every pair. Raises ValueError for models of another rate, length,
        padding or use of channels.
        """
        if clip_settings(self.first) != clip_settings(self.second):
            raise ValueError(
                f"the two models of {self.name} take clips of another rate, length, padding or use "
                "of channels: use palmkit.embed, which reads each file for both"
            )
        return self.join([one.encode_audio(waveforms) for one in self.encoders])

    def join(self, parts) -> torch.Tensor:
        """Unit embeddings [..., dim1] and [..., dim2] of the same clips -> [..., dim]."""
        return torch.cat([part.to(parts[0]) for part in parts], -1) / math.sqrt(2)

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        """Prompts -> unit embeddings [n, dim] of type `dtype`. Those of `prompt.format` reach each
        model in its own wording; any other text is the same for both."""
        parts = [self.first.encode_text([str(one) for one in prompts]).to(self.dtype)]
        if len(self.texts) == 2:
            other = [getattr(one, "other", one) for one in prompts]
            return self.join([*parts, self.second.encode_text(other)])
        return F.pad(parts[0], (0, self.second.dim))

    def digest(self) -> str:
        """sha256 over both digests, in their order, and whether the second has texts."""
        return self._digest([one.digest() for one in self.encoders])

    def audio_digest(self) -> str:
        return self._digest([getattr(one, "audio_digest", one.digest)() for one in self.encoders])

    def _digest(self, digests: list[str]) -> str:
        content = json.dumps(["pair 1", *digests, len(self.texts)])
        return hashlib.sha256(content.encode()).hexdigest()


class PairPrompt(str):
    """The first model's prompt, or a text of it, with the second model's wording as `other`."""

    def __new__(cls, first: str, other: str):
        self = super().__new__(cls, first)
        self.other = str(other)
        return self

    def __getnewargs__(self):  # for pickle
        return str(self), self.other

    def format(self, *names) -> PairPrompt:
        return PairPrompt(super().format(*names), self.other.format(*names))


def check_pair(first, second) -> None:
    """Raise ValueError, saying what to do, if two models cannot be a pair."""
    if isinstance(first, ModelPair) or isinstance(second, ModelPair):
        raise ValueError(
            f"{first.name} + {second.name}: a pair has two models, and neither is a pair itself"
        )
    if missing := find_missing(first, AudioTextModel):
        advice = "" if has_texts(first) else ": name a model with texts first"
        raise ValueError(
            f"the first model of a pair, {first.name}, lacks {', '.join(missing)}{advice}"
        )
    protocol = AudioTextModel if has_texts(second) else AudioModel
    if missing := find_missing(second, protocol):
        raise ValueError(f"the second model of a pair, {second.name}, lacks {', '.join(missing)}")
    # "cuda" and "cuda:0" are the same device, which a tensor tells.
    devices = [torch.empty(0, device=one.device).device for one in (first, second)]
    if devices[0] != devices[1]:
        raise ValueError(
            f"{first.name} is on {devices[0]} and {second.name} on {devices[1]}: "
            "load both on the same device"
        )


def check_two(name: str, model) -> None:
    """Raise ValueError if a model is not a pair. name: of the method that needs one."""
    if not isinstance(model, ModelPair):
        raise ValueError(
            f"{name} needs two models, and {model.name} is one: use --checkpoint A{PLUS}B, say "
            f"{EXAMPLE}, or in Python ModelPair(first, second)"
        )


# How clips are embedded.


def each_encoder(model, crop="random", transform=None) -> list[tuple]:
    """[(encoder, crop, transform)] that embed clips for a model: itself, or both of a pair.

    crop, transform: as in `palmkit.embed`. A crop that is a start in samples is one of the first
    model's rate, and the second gets the same moment. A transform is asked for its like at another
    rate by `transform.at(sample_rate)`. Raises ValueError if it has no `at`.
    """
    if not isinstance(model, ModelPair):
        return [(model, crop, transform)]
    return [(one, *_at_rate(one.sample_rate, model, crop, transform)) for one in model.encoders]


def _at_rate(rate: int, pair: ModelPair, crop, transform) -> tuple:
    if rate == pair.sample_rate:
        return crop, transform
    if isinstance(crop, int) and not isinstance(crop, bool):
        crop = round(crop * rate / pair.sample_rate)
    if transform is not None:
        if not hasattr(transform, "at"):
            raise ValueError(
                f"the two models of {pair.name} have other sample rates: the transform needs a "
                "method at(sample_rate), which returns it for another rate"
            )
        transform = transform.at(rate)
    return crop, transform


# Audio encoders without texts.


class AudioOnly:
    """A function from waveforms to vectors as an AudioModel: the second of a pair.

    function: waveforms [n, samples] on the device -> [n, dim]; it need not normalise. An nn.Module
        is set to eval and moved to the device.
    sample_rate: in Hz. clip_seconds: the length of all waveforms. padding: of shorter files, one of
        `palmkit.padding.PADDINGS`. channels: of stereo files, one of `palmkit.channels.CHANNELS`.
    digest: a text that names weights and preprocessing; give another one when they change, as
        cached embeddings are found by it. None is that of an nn.Module's weights; the rest of the
        module must then be the same as before.
    Raises ValueError for what cannot be one. The result of a clip must not depend on the others.
    """

    def __init__(
        self,
        function,
        name: str,
        sample_rate: int,
        clip_seconds: float,
        dim: int,
        digest: str | None = None,
        device="auto",
        padding="repeat",
        channels="mix",
        note="",
    ):
        self.name, self.note = str(name), str(note)
        if not callable(function):
            raise ValueError(f"{name}: {function!r} is no function of waveforms [n, samples]")
        if padding not in PADDINGS:
            raise ValueError(f"{name}: padding={padding!r}: use {', '.join(PADDINGS)}")
        if channels not in CHANNELS:
            raise ValueError(f"{name}: channels={channels!r}: use {', '.join(CHANNELS)}")
        is_module = isinstance(function, nn.Module)
        if not (digest is None and is_module) and not (isinstance(digest, str) and digest.strip()):
            raise ValueError(
                f"{name}: digest={digest!r}: give a text that names weights and preprocessing, by "
                "which cached embeddings are found"
            )
        self.device = choose_device(device)
        if is_module:
            function = function.to(self.device).eval().requires_grad_(False)
        self.function, self.given = function, digest
        self.padding, self.channels = padding, channels
        self.sample_rate, self.clip_seconds, self.dim = sample_rate, clip_seconds, dim

    def encode_audio(self, waveforms) -> torch.Tensor:
        """Waveforms [n, samples] -> unit embeddings [n, dim], float32, without gradient.

        Raises ValueError for a result of another shape, and for a vector of zeros.
        """
        waveforms = torch.as_tensor(waveforms, dtype=torch.float32).to(self.device)
        with torch.no_grad():
            found = torch.as_tensor(self.function(waveforms))
        shape = [len(waveforms), self.dim]
        if [*found.shape] != shape:
            raise ValueError(f"{self.name} returned the shape {[*found.shape]}: return {shape}")
        if (found == 0).all(1).any():
            raise ValueError(f"{self.name} returned a vector of zeros, which has no direction")
        return F.normalize(found.float(), dim=-1)

    def digest(self) -> str:
        """sha256 of the text that was given, or of the module's weights, and of the settings."""
        settings = [self.sample_rate, self.clip_seconds, self.dim, self.padding, self.channels]
        sha = hashlib.sha256(json.dumps(["audio only 1", self.given, *settings]).encode())
        if self.given is None:
            for name, tensor in sorted(self.function.state_dict().items()):
                sha.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
                sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()


class AudioHalf:
    """The audio encoder of a model, without its texts. Cached embeddings of the model are its."""

    def __init__(self, model):
        self.model, self.about = model, describe(model)
        self.padding, self.channels = model_padding(model), model_channels(model)
        self.name, self.note = f"{model.name} (audio)", model.note
        self.sample_rate, self.clip_seconds = model.sample_rate, model.clip_seconds
        self.dim, self.device = model.dim, model.device

    def encode_audio(self, waveforms) -> torch.Tensor:
        """As the model's."""
        return self.model.encode_audio(waveforms)

    def digest(self) -> str:
        """The model's `audio_digest`, or its digest if it has no such."""
        return getattr(self.model, "audio_digest", self.model.digest)()


# Names of `load_model`.

ALONE = "without texts it can only be the second of a pair, say mini+{}"


def split_pair(name: str, names) -> tuple[str, str] | None:
    """The two names in "A+B"; None for a name without a plus, and for a name or file as it is.

    names: of models. They and the files decide between several pluses. Raises ValueError for what
    names no two models.
    """
    if name.startswith(HALF) and PLUS not in name:
        raise ValueError(f"{name}: {ALONE.format(name)}")
    if PLUS not in name or _is_known(name, names):
        return None
    places = [n for n, letter in enumerate(name) if letter == PLUS]
    splits = [(name[:n].strip(), name[n + 1 :].strip()) for n in places]
    known = [one for one in splits if all(_is_known(part, names) for part in one)]
    found = known if len(known) == 1 else splits
    if len(found) == 1 and all(found[0]):
        return found[0]
    raise ValueError(
        f"there is no model and no file {name!r}, and it does not name two models: "
        f"use A{PLUS}B, say {EXAMPLE}"
    )


def _is_known(name: str, names) -> bool:
    """Whether it is the name of a model, a file or a folder."""
    name = name.removeprefix(HALF)
    path = name.partition(":")[2] if name.startswith(KINDS) else name.strip()
    return name in names or bool(path) and Path(path).expanduser().exists()


def load_pair(first: str, second: str, load) -> ModelPair:
    """The pair of two names. load: called with (a name, AudioTextModel or AudioModel), it returns
    the model of that protocol. Raises ValueError if the first is an encoder without texts.
    """
    if first.startswith(HALF):
        raise ValueError(f"{first}: {ALONE.format(first)}")
    other = load(second.removeprefix(HALF), AudioModel)
    return ModelPair(
        load(first, AudioTextModel), AudioHalf(other) if second.startswith(HALF) else other
    )


def find_problem(name: str, model, protocol) -> str:
    """What a model lacks, as a sentence; "" if nothing.

    protocol: AudioTextModel, or AudioModel where texts are not needed.
    """
    missing = find_missing(model, AudioTextModel if has_texts(model) else protocol)
    if not missing:
        return ""
    is_audio = not has_texts(model) and not find_missing(model, AudioModel)
    advice = f"; {ALONE.format(name)}" if is_audio else ""
    return f"the model {name!r} lacks {', '.join(missing)} of AudioTextModel{advice}"
