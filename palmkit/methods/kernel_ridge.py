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
from palmkit.models.pair import check_two
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


HALVES = ("first", "second")
KERNELS = ("product", *HALVES)
PRIORS = (*HALVES, "both")


class ProductKernelRidge(KernelRidge):
    """Kernel ridge on the features x1, x2 of two models, with the product of their kernels:

        f(x) = prior(x) + k(x, S) A,   A as in KernelRidge, of the residuals R = Y - prior(S)
        k(x, y) = exp(-beta (1 - x1 . y1) - beta2 (1 - x2 . y2))

    prior: "first" (the first model's cosines x1 . t1), "second" (x2 . t2), or "both" (their mean).
    kernel: "product", or "first" or "second" for the kernel of that model alone: then the other
        beta has no effect. Prior and kernel "first" are KernelRidge with the first model.
    beta, beta2: of the first and of the second model. None is half of the published beta of one
        kernel each, so that two equal models give the kernel of one; the whole of it, if the kernel
        is that of one model.
    scale: None is the logit scale of the model whose texts are the prior, or the mean of both.
    With prior "both" and these betas it is KernelRidge on the pair's features, if both models have
    texts: a pair's cosine is the mean of both, so its kernel is the product.
    It needs a `ModelPair`, of whose features and texts it takes the two halves apart.
    Source: MUKA (arXiv 2602.14127; no code), where the prior is PENGI's, and a table has kernels
    and priors of one model. Its beta, beta2 and lam were searched on ESC-50 and are not published.
    Kept: as KernelRidge, with two betas.
    """

    name = "product-kernel-ridge"
    label = "Product kernel ridge (MUKA)"
    color = "#843c39"
    needs_pair = True
    choices = {
        **dict.fromkeys(("beta", "beta2"), (None, 0.0, 0.5, 1.5, 3.0, 5.5)),
        "lam": KernelRidge.choices["lam"],
    }

    def __init__(
        self,
        model,
        class_names,
        seed=0,
        beta=None,
        beta2=None,
        lam=None,
        form="proker",
        kernel="product",
        prior="first",
        prompt=None,
        scale=None,
    ):
        check_two(self.name, model)
        check_number("beta2", beta2, optional=True)
        check_choice("kernel", kernel, KERNELS)
        check_choice("prior", prior, PRIORS)
        if prior != "first" and len(model.texts) < 2:
            raise ValueError(f"prior={prior!r}: {model.second.name} has no texts; use 'first'")
        super().__init__(model, class_names, seed, beta, lam, form, prompt, scale)
        if scale is None and prior != "both":
            self.logit_scale = float(getattr(model, prior).logit_scale)
        self.beta2, self.kernel_of, self.prior_of = beta2, kernel, prior
        self.beta_used = parameter(2, like=self.text, learned=False)

    def settings(self, shots: float):
        """(beta, beta2) and lam for a number of shots; the beta of an unused kernel is 0."""
        beta, lam = published_settings(shots)
        share = 0.5 if self.kernel_of == "product" else 1.0
        betas = [share * beta if one is None else float(one) for one in (self.beta, self.beta2)]
        used = [self.kernel_of in ("product", half) for half in HALVES]
        betas = [one * is_used for one, is_used in zip(betas, used, strict=True)]
        return betas, lam if self.lam is None else float(self.lam)

    def halves(self, features):
        """[n, dim] -> [n, dim1] and [n, dim2]."""
        return features.split(self.model.dims, -1)

    def unit(self, features) -> torch.Tensor:
        """Features [n, dim] with unit rows in each half."""
        return torch.cat([normalize(half) for half in self.halves(features)], -1)

    def kernel(self, x, y, beta) -> torch.Tensor:
        pairs = zip(beta, self.halves(x), self.halves(y), strict=True)
        return torch.exp(sum(-one * (1 - a @ b.T) for one, a, b in pairs))

    def prior(self, x) -> torch.Tensor:
        texts = self.halves(self.unit(self.text.to(x)))
        cosines = [half @ text.T for half, text in zip(self.halves(x), texts, strict=True)]
        return sum(cosines) / 2 if self.prior_of == "both" else cosines[HALVES.index(self.prior_of)]

    def blank(self) -> ProductKernelRidge:
        names = ("beta", "beta2", "lam", "form", "prompt", "scale")
        options = {name: getattr(self, name) for name in names}
        options |= {"kernel": self.kernel_of, "prior": self.prior_of}
        return type(self)(self.model, self.class_names, seed=self.seed, **options)
