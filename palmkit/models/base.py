"""The protocols of an audio-text model. Methods and embeddings are written against them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch


@runtime_checkable
class AudioTextModel(Protocol):
    """A frozen model with a joint space of audio and text. Zero-shot and PALM need only this.

    A model may also have `audio_digest()`, a hash without the text encoder: cached audio embeddings
    then stay valid when only the text encoder changes. It may have:
        padding: one of `palmkit.padding.PADDINGS`, what becomes of shorter clips ("repeat");
        channels: one of `palmkit.channels.CHANNELS`, what becomes of stereo files ("mix");
        defaults: settings of SGD that were chosen for it, and
        about: its licence, revision and training data; both as in `palmkit.models.about`.
    """

    name: str
    sample_rate: int  # of the waveforms that encode_audio takes, in Hz
    clip_seconds: float  # length of a clip; longer files are cropped, shorter ones repeated
    dim: int  # width of the joint space
    logit_scale: float  # logits are logit_scale * cosine
    prompt: str  # the zero-shot prompt, with {} for the class name
    device: torch.device
    dtype: torch.dtype  # of the methods' arithmetic: float32 or float64
    note: str  # a sentence that every output should carry, "" for none

    def encode_audio(self, waveforms) -> torch.Tensor:
        """Waveforms [n, samples] -> unit embeddings [n, dim], float32, without gradient."""

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        """Prompts -> unit embeddings [n, dim] of type `dtype`, without gradient."""

    def digest(self) -> str:
        """A hash of all that changes an embedding: weights, config and preprocessing."""


@runtime_checkable
class PromptableText(Protocol):
    """A model whose text encoder takes token embeddings. COOP and COCOOP learn in front of it.

    `special_tokens` says how many tokens `tokenize` puts in front of a text and behind it. A model
    without it has one each, <start> and <end>.
    """

    text_width: int  # width of a token embedding

    def tokenize(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask, int64 [n, tokens]; mask 0 is padding."""

    def embed_tokens(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [...] -> token embeddings [..., text_width]."""

    def encode_embeddings(self, prefix, suffix, lengths) -> torch.Tensor:
        """Token embeddings -> text embeddings [b, c, dim], not normalised, differentiable.

        prefix [b, p, text_width]: shared by all classes. suffix [c, s, text_width]: the classes'
        own tokens, padded. lengths [c]: how many of them are not padding; the last of those is
        <end>. A causal model runs the prefix once for all classes; a model that is not causal
        concatenates prefix and suffix.
        """


@runtime_checkable
class StochasticText(Protocol):
    """A model whose text projection can be in train mode (the published code's dropout).

    PALM then projects the class names' latents again in every step. The latents are constant.
    """

    text_is_stochastic: bool  # whether project_text is random now

    def text_latents(self, prompts: list[str]) -> torch.Tensor:
        """Prompts -> input of the text projection, [n, any width]; the same in any mode."""

    def project_text(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [n, any width] -> unit embeddings [n, dim], without gradient."""


def find_missing(model, protocol) -> list[str]:
    """The members of a protocol that a model does not have.

    `isinstance` does not do: from Python 3.12 on it does not see what `__getattr__` gives.
    """
    methods = [name for name, value in vars(protocol).items() if callable(value)]
    members = [*protocol.__annotations__, *methods]
    return [name for name in members if name[0] != "_" and not hasattr(model, name)]


def count_special_tokens(model) -> tuple[int, int]:
    """How many tokens `tokenize` puts in front of a text and behind it."""
    return getattr(model, "special_tokens", (1, 1))


def choose_device(device="auto") -> torch.device:
    """ "auto" is CUDA if there is one, else the CPU. Raises ValueError if CUDA is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = torch.device(device)
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r}: there is no CUDA device here: use cpu or auto")
    return found
