"""GDA: Gaussian discriminant analysis of the support set beside zero-shot."""

from __future__ import annotations

import math

import torch

from palmkit.methods.support import Support, SupportMethod, check_number, parameter

ROUNDING = 1e-24  # mean squared distance of unit embeddings from their class means, in float64


class GDA(SupportMethod):
    """Logits s x T' + alpha (x W' + b), Gaussian classes with one covariance Sigma:

        P = dim * pinv((n - 1) Sigma + trace(Sigma) I)
        w_c = P mu_c
        b_c = log(1 / C) - mu_c' P mu_c / 2

    mu_c: mean of the class's unit embeddings, or of all class means for a class without clips.
    Sigma: covariance of the embeddings about their class means.
    Source: Wang et al. 2024 (arXiv 2402.04087), where alpha is searched from 1e-4 to 1e2 on
    validation data. There is no published default: alpha = 1 is this kit's, set without any data.
    With one shot, or one clip of each class several times, Sigma is 0, so P is 0, and the method is
    zero-shot.
    Kept: W [c, dim], b [c].
    """

    name = "gda"
    label = "GDA"
    color = "#e377c2"
    choices = {"alpha": (1.0, 0.001, 0.01, 0.1, 10.0, 100.0)}

    def __init__(self, model, class_names, seed=0, alpha=1.0, prompt=None, scale=None):
        super().__init__(model, class_names, seed, prompt, scale)
        check_number("alpha", alpha)
        self.alpha = alpha
        self.W = parameter(*self.text.shape, like=self.text, learned=False)
        self.b = parameter(len(self.text), like=self.text, learned=False)

    def fit_support(self, support: Support, **settings) -> None:
        n, dim = support.features.shape
        mu = support.means.clone()
        mu[~support.is_present] = mu[support.is_present].mean(0)
        centred = support.features - mu[support.labels]
        centred = centred * (centred.square().sum() > ROUNDING * n)
        scatter = centred.T @ centred  # (n - 1) Sigma
        trace = scatter.trace() / max(n - 1, 1)
        eye = torch.eye(dim, dtype=scatter.dtype, device=scatter.device)
        P = dim * torch.linalg.pinv(scatter + trace * eye, hermitian=True)
        W = mu @ P  # P is symmetric
        self.keep(W=W, b=-math.log(len(mu)) - (W * mu).sum(1) / 2)

    def forward(self, audio_features):
        x = self.audio(audio_features)
        return self.logit_scale * x @ self.text.T + self.alpha * (x @ self.W.T + self.b)
