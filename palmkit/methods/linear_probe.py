"""The linear probe: logistic regression on audio embeddings, without any text."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from palmkit.methods.support import Support, SupportMethod, check_number, minimize, parameter


class LinearProbe(SupportMethod):
    """Logits x W' + b of unit audio embeddings x, by logistic regression:

        minimise over W, b:  sum_i cross_entropy(x_i W' + b, y_i) + |W|^2 / (2 C)

    Source: Radford et al. 2021 (arXiv 2103.00020), which searches C on validation data.
    Default here, without such data: C = 31.6. It is the C = 0.316 of CLIP's own
    example, on features of length 10, carried over to unit features (10^2 * 0.316).
    Learned: W [c, dim], b [c]. A class without clips gets logits below those of all others.
    C: inverse strength of the penalty. scale: length of the features; None is 1, because these
    logits have no scale.
    """

    name = "linear-probe"
    label = "Linear probe"
    color = "#17becf"
    choice_settings = {"tolerance": 1e-7}  # a choice of C needs fewer digits, and many fits
    choices = {"C": (31.6, 3.16, 316.0, 3160.0)}

    def __init__(self, model, class_names, seed=0, C=31.6, scale=None):
        super().__init__(model, class_names, seed, scale=scale)
        check_number("C", C, above=True)
        self.C = C
        self.logit_scale = 1.0 if scale is None else float(scale)
        self.W = parameter(*self.text.shape, like=self.text)
        self.b = parameter(len(self.text), like=self.text)

    def fit_support(self, support: Support, tolerance=1e-9, **settings) -> list[float]:
        there = support.is_present.nonzero()[:, 0]
        y = support.one_hot[:, there].argmax(1)
        # W lies in the span of the centred clips, so it is found there: the same minimum in fewer
        # numbers and steps. b has no penalty, so it takes up the mean.
        mean = self.logit_scale * support.features.mean(0)
        centred = self.logit_scale * support.features - mean
        axes = torch.linalg.qr(centred.T).Q  # [dim, min(n, dim)]
        x = centred @ axes
        W = x.new_zeros(len(there), x.shape[1], requires_grad=True)
        b = x.new_zeros(len(there), requires_grad=True)

        def loss():
            data = F.cross_entropy(x @ W.T + b, y, reduction="sum")
            return (data + (W**2).sum() / (2 * self.C)) / len(x)

        value = minimize(loss, [W, b], tolerance)
        W = W.detach() @ axes.T
        b = b.detach() - W @ mean
        lowest = (b - self.logit_scale * W.norm(dim=1)).min()  # of any logit
        all_W = torch.zeros_like(self.W, dtype=x.dtype)
        all_b = (lowest - 1).repeat(support.classes)
        all_W[there], all_b[there] = W, b
        self.keep(W=all_W, b=all_b)
        return [value]

    def forward(self, audio_features):
        return self.logit_scale * self.audio(audio_features) @ self.W.T + self.b
