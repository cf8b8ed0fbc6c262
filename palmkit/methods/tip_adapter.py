"""Tip-Adapter and Treff-Adapter: a cache of the support set beside zero-shot."""

from __future__ import annotations

import torch

from palmkit.methods.support import (
    Support,
    SupportMethod,
    check_choice,
    check_number,
    check_whole,
    parameter,
    train,
)

TREFF_FORMS = ("keys", "map")


class TipAdapter(SupportMethod):
    """Zero-shot plus a vote of the support clips, weighted by how near they are:

        logits s x T' + alpha exp(-beta (1 - x S')) Y

    S [n, dim] the unit embeddings of the support set (keys), Y [n, c] their classes (values).
    Source: Zhang et al. 2022 (arXiv 2207.09519). alpha = 1.17, beta = 1 are the published starting
    values for ImageNet; the paper then searches both on the whole validation set, which this does
    not. Nothing is trained.
    """

    name = "tip-adapter"
    label = "Tip-Adapter"
    color = "#9467bd"
    by_clip = ("keys", "values")
    trains_keys = False
    choices = {"alpha": (1.17, 0.3, 3.0, 10.0, 30.0), "beta": (1.0, 3.0, 5.5, 10.0, 20.0)}

    def __init__(self, model, class_names, seed=0, alpha=1.17, beta=1.0, prompt=None, scale=None):
        super().__init__(model, class_names, seed, prompt, scale)
        check_number("alpha", alpha)
        check_number("beta", beta)
        self.alpha, self.beta = alpha, beta
        self.keys = parameter(
            0, self.text.shape[1], like=self.text, learned=self.trains_keys
        )  # S [n, dim]
        self.values = parameter(0, len(self.text), like=self.text, learned=False)  # Y [n, c]

    def fit_support(self, support: Support, **settings) -> list[float] | None:
        self.keep(keys=support.features, values=support.one_hot)

    def cosines(self, audio) -> torch.Tensor:
        """Unit features [b, dim] -> their products with the keys, [b, n]."""
        return audio @ self.keys.T

    def forward(self, audio_features):
        x = self.audio(audio_features)
        votes = torch.exp(-self.beta * (1 - self.cosines(x)))  # [b, n]
        return self.logit_scale * x @ self.text.T + self.alpha * votes @ self.values


class TipAdapterF(TipAdapter):
    """Tip-Adapter-F: Tip-Adapter with keys S that are learned; they start at the support set.

    Source: arXiv 2207.09519. Published: AdamW 1e-3 (eps 1e-4), 20 epochs, batches of 256, cosine
    schedule. The published code keeps the epoch that is best on TEST data. Here the last epoch
    counts.
    train_epochs, train_lr, train_batch: of the training.
    """

    name = "tip-adapter-f"
    label = "Tip-Adapter-F"
    color = "#5e3c99"
    trains_keys = True
    choices: dict[str, tuple] = {}  # a fit for each of them and each fold takes too long

    def __init__(
        self,
        model,
        class_names,
        seed=0,
        alpha=1.17,
        beta=1.0,
        train_epochs=20,
        train_lr=1e-3,
        train_batch=256,
        prompt=None,
        scale=None,
    ):
        super().__init__(model, class_names, seed, alpha, beta, prompt, scale)
        check_whole("train_epochs", train_epochs, least=0)
        check_number("train_lr", train_lr, above=True)
        check_whole("train_batch", train_batch)
        self.train_epochs, self.train_lr, self.train_batch = train_epochs, train_lr, train_batch

    def fit_support(self, support: Support, seed=0, on_epoch=None, **settings) -> list[float]:
        super().fit_support(support)
        learned = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return train(
            self,
            support,
            torch.optim.AdamW(learned, lr=self.train_lr, eps=1e-4),
            epochs=self.train_epochs,
            batch_size=self.train_batch,
            seed=seed,
            on_epoch=on_epoch,
        )


class Treff(TipAdapter):
    """Treff-Adapter without training: Tip-Adapter with alpha = 1, beta = 5.5.

    Source: Liang et al. 2023 (arXiv 2305.17719), for CLAP; no validation data.
    """

    name = "treff"
    label = "Treff-Adapter"
    color = "#b2abd2"
    choices = {"alpha": (1.0, 0.3, 3.0, 10.0, 30.0), "beta": (5.5, 1.0, 3.0, 10.0, 20.0)}

    def __init__(self, model, class_names, seed=0, alpha=1.0, beta=5.5, prompt=None, scale=None):
        super().__init__(model, class_names, seed, alpha, beta, prompt, scale)


class TreffF(TipAdapterF):
    """Treff-Adapter, trained. Source: arXiv 2305.17719.

    form: what is learned, of two published readings.
        "keys": the keys S, which start at the support set, as in Tip-Adapter-F;
        "map": a map W [dim, dim] of both sides, (x W)(S W)' in place of x S'; W starts as I.
    Published without validation data: AdamW 1e-4 (eps 1e-4), the support set as one batch, 15 to 20
    epochs (20 here), cosine schedule, last epoch.
    train_epochs, train_lr: of the training.
    """

    name = "treff-f"
    label = "Treff-Adapter-F"
    color = "#7b4173"

    def __init__(
        self,
        model,
        class_names,
        seed=0,
        form="keys",
        alpha=1.0,
        beta=5.5,
        train_epochs=20,
        train_lr=1e-4,
        prompt=None,
        scale=None,
    ):
        check_choice("form", form, TREFF_FORMS)
        super().__init__(
            *(model, class_names, seed, alpha, beta, train_epochs, train_lr),
            prompt=prompt,
            scale=scale,
        )
        self.form = form
        if form == "map":
            self.keys.requires_grad_(False)
            dim = self.text.shape[1]
            self.W = parameter(dim, dim, like=self.text)
            self.keep(W=torch.eye(dim))

    def fit_support(self, support: Support, **settings) -> list[float]:
        self.train_batch = len(support)
        if self.form == "map":
            self.keep(W=torch.eye(len(self.W)))
        return super().fit_support(support, **settings)

    def cosines(self, audio) -> torch.Tensor:
        if self.form == "keys":
            return audio @ self.keys.T
        return (audio @ self.W) @ (self.keys @ self.W).T
