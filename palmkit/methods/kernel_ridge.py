"""Kernel ridge regression with zero-shot as its prior (ProKeR), and of two models (MUKA)."""

from __future__ import annotations

import math

import numpy as np
import torch

from palmkit.methods.base import normalize
from palmkit.methods.support import (
    Support,
    SupportMethod,
    check_choice,
    check_number,
    leave_out_folds,
    parameter,
)
from palmkit.training import as_tensors

FORMS = ("proker", "ridge")
# {shots: (beta, lam)}, published for ImageNet and transferred to other data sets (ProKeR).
PUBLISHED = {1: (3.0, 0.05), 2: (2.6, 0.05), 4: (1.5, 0.05), 8: (1.66, 0.07), 16: (1.7, 0.1)}


def published_settings(shots: float) -> tuple[float, float]:
    """beta and lam for a number of shots: linear in log2(shots) between the published ones, and
    those of 1 and of 16 shots below and above."""
    known = np.log2([*PUBLISHED])
    betas, lams = zip(*PUBLISHED.values(), strict=True)
    place = math.log2(shots)
    return float(np.interp(place, known, betas)), float(np.interp(place, known, lams))


class KernelRidge(SupportMethod):
    """Logits s f(x), where kernel ridge regression learns what zero-shot gets wrong:

        f(x) = x T' + k(x, S) A,   A [n, c] of the residuals R = Y - S T'
        k(x, y) = exp(-beta (1 - x . y))

    form: which A is meant. K = k(S, S).
        "proker": A = (K / lam + I)^-1 R = lam (K + lam I)^-1 R, as published. Both are the same
            numbers; the correction shrinks with lam.
        "ridge": A = (K + lam I)^-1 R, kernel ridge regression without the factor lam.
    x . t are plain cosines, which s does not multiply inside of f: s scales the logits as a whole.
    Source: Bendou et al. 2025 (ProKeR, arXiv 2501.11175).
    beta, lam: None is the published value for the shots (the mean over classes that have clips);
        see `published_settings`. They come from ImageNet, so no data of the task choose them.
    Kept: keys S [n, dim], dual A [n, c], and the beta that was used.
    """

    name = "kernel-ridge"
    label = "Kernel ridge (ProKeR)"
    color = "#d62728"
    by_clip = ("keys", "dual")
    choices = {"beta": (None, 0.5, 1.0, 3.0, 5.5, 10.0), "lam": (None, 0.01, 0.03, 0.3, 1.0)}

    def __init__(
        self,
        model,
        class_names,
        seed=0,
        beta=None,
        lam=None,
        form="proker",
        prompt=None,
        scale=None,
    ):
        super().__init__(model, class_names, seed, prompt, scale)
        check_number("beta", beta, optional=True)
        check_number("lam", lam, above=True, optional=True)
        check_choice("form", form, FORMS)
        self.beta, self.lam, self.form = beta, lam, form
        self.keys = parameter(0, model.dim, like=self.text, learned=False)
        self.dual = parameter(0, len(self.text), like=self.text, learned=False)
        self.beta_used = parameter(like=self.text, learned=False)

    def settings(self, shots: float) -> tuple[float, float]:
        """beta and lam for a number of shots: the options, or the published values."""
        beta, lam = published_settings(shots)
        beta = beta if self.beta is None else self.beta
        return float(beta), float(lam if self.lam is None else self.lam)

    def kernel(self, x, y, beta) -> torch.Tensor:
        """k of unit features [a, dim] and [b, dim], [a, b]."""
        return torch.exp(-beta * (1 - x @ y.T))

    def prior(self, x) -> torch.Tensor:
        """Unit features [b, dim] -> cosines with the texts, [b, c]."""
        return x @ self.text.to(x).T

    def solve(self, support: Support):
        """(beta, lam, (K + lam I)^-1 [n, n], R [n, c]), in float64."""
        beta, lam = self.settings(support.shots)
        x = support.features
        K = self.kernel(x, x, beta)
        inverse = torch.linalg.inv(K + lam * torch.eye(len(x)).to(K))
        return beta, lam, inverse, support.one_hot - self.prior(x)

    def fit_support(self, support: Support, **settings) -> None:
        beta, lam, inverse, R = self.solve(support)
        A = self.factor(lam) * inverse @ R
        self.keep(keys=support.features, dual=A, beta_used=torch.tensor(beta, dtype=A.dtype))

    def factor(self, lam: float) -> float:
        """What form "proker" multiplies kernel ridge regression by."""
        return lam if self.form == "proker" else 1.0

    def forward(self, audio_features):
        x = self.audio(audio_features)
        return self.logit_scale * (
            self.prior(x) + self.kernel(x, self.keys, self.beta_used) @ self.dual
        )

    @torch.no_grad()
    def leave_out_logits(self, features, labels, **settings) -> torch.Tensor:
        """As in the base class, exactly, without fitting again. With G = (K + lam I)^-1 and fold b,

            k(S_b, S_rest) (K_rest + lam I)^-1 R_rest = R_b - (G_bb)^-1 (G R)_b

        beta and lam are those of the whole support set in all folds. A fold that leaves nothing to
        fit gets the prior.
        """
        features, labels = as_tensors(self, features, labels, stream=True)
        support = self.describe(features, labels)
        _, lam, G, R = self.solve(support)
        GR, held = G @ R, torch.zeros_like(R)
        for fold in leave_out_folds(labels):
            held[fold] = R[fold] - torch.linalg.solve(G[fold][:, fold], GR[fold])
        f = self.prior(support.features) + self.factor(lam) * held
        return (self.logit_scale * f).to(self.text)


class TwoModels:
    """Two audio-text models as one, for features that stand side by side: [n, dim1 + dim2].

    Texts, prompt and scale are those of the first model. There is no encode_audio: embed with each
    model, and join the features with `join_features`.
    """

    def __init__(self, first, second):
        self.first, self.second = first, second
        self.dim = first.dim + second.dim

    def __getattr__(self, name: str):
        if name in ("first", "second"):  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.first, name)

    def encode_audio(self, waveforms):
        raise NotImplementedError("embed with each model, and join the features")

    def digest(self) -> str:
        return f"{self.first.digest()} {self.second.digest()}"


def join_features(first, second) -> torch.Tensor:
    """Features [n, dim1] and [n, dim2] of the same clips -> [n, dim1 + dim2], unit in each half."""
    return torch.cat([normalize(first), normalize(second)], 1)


class ProductKernelRidge(KernelRidge):
    """Kernel ridge with the prior of one model and the product of two models' kernels:

        k(x, y) = exp(-beta (1 - x1 . y1) - beta2 (1 - x2 . y2))

    Source: MUKA (arXiv 2602.14127; no code). Its beta, beta2 and lam were searched on ESC-50 and
    are not published. beta, beta2: None is half of the published beta of one kernel each, so that
    two equal models give the kernel of one.
    Restricted: it is no method of trials, which have one model. Use it from Python:

        model = TwoModels(first, second)
        method = ProductKernelRidge(model, class_names)
        fit(method, join_features(x1, x2), labels)
    """

    name = "product-kernel-ridge"
    label = "Product kernel ridge (MUKA)"
    color = "#843c39"

    def __init__(
        self,
        model,
        class_names,
        seed=0,
        beta=None,
        beta2=None,
        lam=None,
        form="proker",
        prompt=None,
        scale=None,
    ):
        if not isinstance(model, TwoModels):
            raise TypeError("a product kernel needs two models: use TwoModels(first, second)")
        check_number("beta2", beta2, optional=True)
        super().__init__(model, class_names, seed, beta, lam, form, prompt, scale)
        self.beta2 = beta2
        self.beta_used = parameter(2, like=self.text, learned=False)

    def settings(self, shots: float):
        beta, lam = published_settings(shots)
        betas = [beta / 2 if one is None else float(one) for one in (self.beta, self.beta2)]
        return betas, lam if self.lam is None else float(self.lam)

    def halves(self, features):
        return features.split([self.model.first.dim, self.model.second.dim], -1)

    def unit(self, features) -> torch.Tensor:
        return join_features(*self.halves(features))

    def kernel(self, x, y, beta) -> torch.Tensor:
        pairs = zip(beta, self.halves(x), self.halves(y), strict=True)
        return torch.exp(sum(-one * (1 - a @ b.T) for one, a, b in pairs))

    def prior(self, x) -> torch.Tensor:
        return self.halves(x)[0] @ self.text.to(x).T
