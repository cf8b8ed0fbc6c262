"""COOP and COCOOP: context vectors learned at the text encoder's input."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from palmkit.methods.base import INITIAL_STD, LOGIT_SCALE, Method, normalize

CONTEXT_LENGTH = 16


class CoOp(Method):
    """Learned context vectors at the text encoder's input, shared by all classes: <sot> V_1 .. V_16 class . <eot>."""

    published = {"ctx": "context"}

    def __init__(self, model, class_names, context_length=CONTEXT_LENGTH, seed=0):
        super().__init__(model, class_names)
        ids, mask = model.tokenize([f"{'X ' * context_length}{name}." for name in self.class_names])
        ids = ids.to(model.device)
        embedding = model.text.token_embedding
        lengths = mask.sum(1) - 1 - context_length  # each class's own tokens, with <eot>
        self.register_buffer("start", embedding(ids[:1, :1]).clone())  # [1, 1, width]
        own = ids[:, 1 + context_length : 1 + context_length + int(lengths.max())]
        self.register_buffer("names", embedding(own).clone())  # [c, s, width]
        self.register_buffer("eot", (lengths - 1).to(model.device))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            context = INITIAL_STD * torch.randn(context_length, model.text.width)
            self.context = nn.Parameter(context.to(model.device))
            self.build(model)

    def build(self, model):
        """What a subclass adds; drawn from the same seeded generator, after the context."""

    def text(self, context):
        """Context vectors [b, 16, width] -> unit text embeddings [b, c, dim]. The prefix runs once for all classes."""
        start = self.start.expand(len(context), -1, -1)
        prefix = self.model.text.prefix(torch.cat([start, context], 1))
        return normalize(
            self.model.text.follow(self.names.expand(len(context), -1, -1, -1), self.eot, prefix)
        )

    def forward(self, audio_features):
        return LOGIT_SCALE * normalize(audio_features) @ self.text(self.context[None])[0].T


class CoCoOp(CoOp):
    """CoOp whose context moves with the clip: V_m + metanet(audio), so each clip has its own text embeddings."""

    published = {"ctx": "context"} | {
        name: name
        for name in (f"meta_net.linear{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias"))
    }
    max_tokens = (
        8192  # tokens that go through the text encoder at once; bounds memory, changes nothing else
    )

    def build(self, model):
        if model.dim < 16:
            raise ValueError(
                f"COCOOP's meta-net has a sixteenth of the features' width, which is {model.dim}: too few"
            )
        self.meta_net = nn.Sequential()
        self.meta_net.add_module("linear1", nn.Linear(model.dim, model.dim // 16))
        self.meta_net.add_module("relu", nn.ReLU())
        self.meta_net.add_module("linear2", nn.Linear(model.dim // 16, model.text.width))
        self.meta_net.to(model.device)

    def clip_logits(self, audio, context):
        return LOGIT_SCALE * torch.einsum("bd,bcd->bc", audio, self.text(context))

    def forward(self, audio_features):
        audio = normalize(audio_features)
        context = self.context + self.meta_net(audio)[:, None]  # [b, 16, width]
        tokens = self.names.shape[0] * self.names.shape[1] + 1 + len(self.context)
        chunks = list(
            zip(
                *(x.split(max(1, self.max_tokens // tokens)) for x in (audio, context)), strict=True
            )
        )
        if len(chunks) == 1:
            return self.clip_logits(audio, context)
        # While training, a chunk's activations are computed anew in the backward pass, or memory would not be bounded.
        return torch.cat(
            [checkpoint(self.clip_logits, *chunk, use_reentrant=False) for chunk in chunks]
        )
