"""Linear probes that start at the class texts: ZS-LP, and CLAP-probe, which is held near them."""

from __future__ import annotations

import torch

from palmkit.methods.base import normalize
from palmkit.methods.support import (
    Support,
    SupportMethod,
    check_number,
    check_whole,
    parameter,
    train,
)


class ZeroShotProbe(SupportMethod):
    """ZS-LP: logits s x . w_c / |w_c|; W [c, dim] starts at the texts; cross-entropy.

    Source: Silva-Rodriguez et al. 2024 (arXiv 2312.12730). Published without validation data: SGD
    0.1, momentum 0.9, 300 epochs, cosine schedule, last epoch.
    text_norm: length of the texts that W starts at. The logits do not depend on it, but a step of
    SGD turns w by lr / |w|^2. Published: texts as the encoder gives them, of length 10 about; 1 is
    the formula on unit texts, whose steps are 100 times as large.
    train_epochs, train_lr, train_batch: of the training; a support set up to train_batch clips
    is one batch (256: this kit's).
    """

    name = "zs-lp"
    label = "ZS-LP"
    color = "#bcbd22"

    def __init__(
        self,
        model,
        class_names,
        seed=0,
        text_norm=10.0,
        train_epochs=300,
        train_lr=0.1,
        train_batch=256,
        prompt=None,
        scale=None,
    ):
        super().__init__(model, class_names, seed, prompt, scale)
        check_number("text_norm", text_norm, above=True)
        check_whole("train_epochs", train_epochs, least=0)
        check_number("train_lr", train_lr, above=True)
        check_whole("train_batch", train_batch)
        self.text_norm, self.train_epochs = text_norm, train_epochs
        self.train_lr, self.train_batch = train_lr, train_batch
        self.W = parameter(*self.text.shape, like=self.text)
        self.keep(W=self.start())

    def start(self) -> torch.Tensor:
        """What W starts at, [c, dim]."""
        return self.text_norm * self.text

    def fit_support(self, support: Support, seed=0, on_epoch=None, **settings) -> list[float]:
        self.keep(W=self.start())
        optimizer = torch.optim.SGD([self.W], lr=self.train_lr, momentum=0.9)
        return train(
            self,
            support,
            optimizer,
            epochs=self.train_epochs,
            batch_size=self.train_batch,
            penalty=self.penalty(support),
            seed=seed,
            on_epoch=on_epoch,
        )

    def penalty(self, support: Support):
        """A function that returns what is added to the cross-entropy, or None."""
        return None

    def forward(self, audio_features):
        return self.logits(audio_features, normalize(self.W))


class CLAPProbe(ZeroShotProbe):
    """CLAP-probe (class-adaptive linear probe): ZS-LP with the penalty

        strength * mean over c of alpha_c |w_c - t_c|^2

    alpha_c: mean probability that zero-shot gives the true class over the clips of class c, fixed;
    1 for a class without clips. t_c has length `text_norm`: in the published code about 10; with
    text_norm=1 the penalty is 100 times weaker.
    Source and training as ZS-LP's (arXiv 2312.12730). strength: 1 as published.
    """

    name = "clap-probe"
    label = "CLAP-probe"
    color = "#808000"

    def __init__(
        self,
        model,
        class_names,
        seed=0,
        strength=1.0,
        text_norm=10.0,
        train_epochs=300,
        train_lr=0.1,
        train_batch=256,
        prompt=None,
        scale=None,
    ):
        check_number("strength", strength)
        super().__init__(
            *(model, class_names, seed, text_norm, train_epochs, train_lr, train_batch),
            *(prompt, scale),
        )
        self.strength = strength

    def alphas(self, support: Support) -> torch.Tensor:
        """alpha of each class, [c], float64."""
        logits = self.logit_scale * support.features @ self.text.double().T
        right = (logits.softmax(1) * support.one_hot).sum(0)
        return torch.where(support.is_present, right / support.counts.clamp(min=1), 1.0)

    def penalty(self, support: Support):
        alpha, start = self.alphas(support).to(self.text), self.start()

        def value():
            return self.strength * (alpha * ((self.W - start) ** 2).sum(1)).mean()

        return value
