"""MALP: learned prompts that are added to both embeddings, audio and text."""

from __future__ import annotations

import torch
from torch import nn

from palmkit.methods.base import Method, normalize
from palmkit.methods.draws import INITIAL_STD, draw_normal
from palmkit.methods.support import check_choice, check_number, encode_classes

JOINS = ("concatenated", "unit", "added")


class MALP(Method):
    """Logits s cos(u, v_c) of two embeddings with prompts:

        u = x + lam P_audio,   v_c = t_c + lam P_text_c,   and one more prompt P joined to both

    Learned: P_audio [dim], P_text [c, dim], P [dim], by the trial's SGD; noise at first, as PALM's.
    Source: MALP (Interspeech 2026, paper 1173), which has no code. Published: lam = 0.2, SGD 0.05,
    batches of 16, 50 epochs: the defaults of a trial.
    join: how P is joined, which the paper leaves open.
        "concatenated": cos([u; P], [v_c; P]);
        "unit": the same with u and v_c of unit length. Then the logits are s (cos(u, v_c) + |P|^2)
            / (1 + |P|^2): P changes the temperature only;
        "added": cos(u + lam P, v_c + lam P).
    Also open: whether P_text is one for each class, as here. prompt: of the texts t_c; None is the
    model's.
    """

    name = "malp"
    label = "MALP"
    color = "#6baed6"

    def __init__(
        self, model, class_names, seed=0, lam=0.2, join="concatenated", prompt=None, scale=None
    ):
        super().__init__(model, class_names, seed, scale)
        check_number("lam", lam)
        check_choice("join", join, JOINS)
        self.lam, self.join = lam, join
        self.prompt = prompt
        text = encode_classes(model, self.class_names, prompt)
        self.register_buffer("text", text)  # [c, dim]
        generator = torch.Generator().manual_seed(seed)
        dim = text.shape[1]
        for name, shape in {"P_text": text.shape, "P_audio": (dim,), "P": (dim,)}.items():
            noise = INITIAL_STD * draw_normal(shape, generator)
            self.register_parameter(name, nn.Parameter(noise.to(text)))

    def forward(self, audio_features):
        u = normalize(audio_features.to(self.text.dtype)) + self.lam * self.P_audio  # [b, dim]
        v = self.text + self.lam * self.P_text  # [c, dim]
        if self.join == "added":
            u, v = u + self.lam * self.P, v + self.lam * self.P
        else:
            if self.join == "unit":
                u, v = normalize(u), normalize(v)
            u, v = (torch.cat([one, self.P.expand(len(one), -1)], 1) for one in (u, v))
        return self.logit_scale * normalize(u) @ normalize(v).T
