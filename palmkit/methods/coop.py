"""COOP and COCOOP: context vectors learned at the text encoder's input."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from palmkit.chunks import ChunkedPrompts, encode_prompts, tokens_in_memory
from palmkit.methods.base import Method, normalize
from palmkit.methods.draws import INITIAL_STD, draw_linear, draw_normal
from palmkit.methods.prompts import embed_prompt, tokenize_suffixes
from palmkit.models.base import PromptableText, count_special_tokens, find_missing

CONTEXT_LENGTH = 16
LONGEST_CONTEXT = 1000  # no text encoder takes so many tokens
COOP_INITS = ("published", "text")


class CoOp(ChunkedPrompts, Method):
    """Context vectors at the text encoder's input, shared by all classes:
    <start> V_1 .. V_16 class . <end>. Not every model has a <start>.

    Learned: V [context_length, text_width].

    Not in the paper, for ablations:
    init: where V starts ("published": noise; "text": the tokens of the model's prompt that stand
        before the class name, and as many vectors as these; COOP then starts as zero-shot).
    scale: of the logits; None is the model's.
    """

    name = "coop"
    label = "COOP"
    color = "#0173b2"
    in_paper = True
    published = {"ctx": "context"}
    buffers_in_file = ("sos", "classes_pad")  # of the published state; they follow from the names

    def __init__(
        self,
        model,
        class_names,
        seed=0,
        context_length=CONTEXT_LENGTH,
        init="published",
        scale=None,
    ):
        super().__init__(model, class_names, seed, scale)
        if find_missing(model, PromptableText):
            raise ValueError(
                f"{self.label} needs token-level text (tokenize, embed_tokens, encode_embeddings), "
                f"which {model.name} does not have"
            )
        is_whole = isinstance(context_length, int) and not isinstance(context_length, bool)
        if not is_whole or not 0 <= context_length <= LONGEST_CONTEXT:
            raise ValueError(
                f"context_length={context_length!r}: use a whole number, 0 or more, and "
                f"{LONGEST_CONTEXT} at most"
            )
        if init not in COOP_INITS:
            raise ValueError(f"init={init!r}: use {', '.join(COOP_INITS)}")
        words = embed_prompt(model) if init == "text" else None
        if words is not None:
            if context_length != CONTEXT_LENGTH:
                raise ValueError(
                    "init='text' has a vector for each token of the prompt: leave "
                    "context_length out"
                )
            context_length = len(words)
        self.init, self.context_length = init, context_length
        ids, lengths = tokenize_suffixes(model, self.class_names, context_length)
        front, _ = count_special_tokens(model)
        start, suffix = ids[:1, :front], ids[:, front + context_length :]
        self.register_buffer("start", model.embed_tokens(start).clone())  # [1, front, width]
        self.register_buffer("names", model.embed_tokens(suffix).clone())  # [c, s, width]
        self.register_buffer("lengths", lengths)  # [c]
        self.draw_parameters(context_length, torch.Generator().manual_seed(seed))
        if words is not None:
            self.context.data.copy_(words)
        self.max_tokens = tokens_in_memory(self)

    def draw_parameters(self, context_length: int, generator: torch.Generator) -> None:
        context = INITIAL_STD * draw_normal((context_length, self.model.text_width), generator)
        self.context = nn.Parameter(context.to(self.model.device, self.model.dtype))

    def text_features(self, context) -> torch.Tensor:
        """Context vectors [b, context_length, width] -> unit text embeddings [b, c, dim]."""
        prefix = torch.cat([self.start.expand(len(context), -1, -1), context], 1)
        return normalize(encode_prompts(self, prefix, self.names, self.lengths))

    def forward(self, audio_features):
        return self.logits(audio_features, self.text_features(self.context[None])[0])

    def load_prompt_learner(self, state: dict) -> None:
        """As in the base class; a published state also has buffers for its number of classes."""
        extra = set(self.buffers_in_file) & set(state)
        wrong = [
            f"{name} is for {len(state[name])} classes, not {len(self.class_names)}"
            for name in sorted(extra)
            if len(state[name]) != len(self.class_names)
        ]
        if wrong:
            raise ValueError(f"a state of another {type(self).__name__}: {'; '.join(wrong)}")
        super().load_prompt_learner({k: v for k, v in state.items() if k not in extra})


class CoCoOp(CoOp):
    """COOP whose context moves with the clip: V_m + metanet(audio), so each clip has its own text
    embeddings.

    Learned: V, and the meta-net, two linear layers with a ReLU between.
    """

    name = "cocoop"
    label = "COCOOP"
    color = "#de8f05"
    in_paper = True
    clips_share_prompts = False

    def draw_parameters(self, context_length: int, generator: torch.Generator) -> None:
        super().draw_parameters(context_length, generator)
        dim, width = self.model.dim, self.model.text_width
        if dim < 16:
            raise ValueError(f"COCOOP's meta-net has dim // 16 hidden units: dim={dim} is too few")
        self.meta_net = nn.Sequential(
            OrderedDict(
                linear1=draw_linear(dim, dim // 16, generator),
                relu=nn.ReLU(),
                linear2=draw_linear(dim // 16, width, generator),
            )
        ).to(self.model.device, self.model.dtype)

    def clip_logits(self, audio, context) -> torch.Tensor:
        """Unit audio embeddings [b, dim] and their contexts [b, length, width] -> logits [b, c]."""
        text = self.text_features(context)  # [b, c, dim]
        return self.logit_scale * torch.einsum("bd,bcd->bc", audio, text)

    def forward(self, audio_features):
        audio = normalize(audio_features.to(self.context.dtype))
        context = self.context + self.meta_net(audio)[:, None]  # [b, context_length, width]
        clips = self.clips_at_once(len(audio))
        if clips == len(audio):
            return self.clip_logits(audio, context)
        chunks = zip(audio.split(clips), context.split(clips), strict=True)
        # A chunk's activations are computed again in the backward pass, which bounds memory.
        return torch.cat(
            [checkpoint(self.clip_logits, *chunk, use_reentrant=False) for chunk in chunks]
        )
