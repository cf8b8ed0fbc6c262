"""TaskRes: a residual that is added to the class texts."""

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

FEW_SHOTS = 4  # up to here the published training has half of the epochs


class TaskRes(SupportMethod):
    """Logits s cos(x, t_c + alpha r_c). Learned: r [c, dim], zeros at first.

    Source: Yu et al. 2023 (arXiv 2211.10277). Published: Adam 2e-3, batches of 256, 200 epochs, 100
    up to 4 shots, cosine schedule (without its epoch of warm-up here), last epoch.
    alpha: 1 as in the published code; 0.5 in the paper.
    train_epochs: None is 100 up to 4 shots, else 200. train_lr, train_batch: of the training.
    """

    name = "taskres"
    label = "TaskRes"
    color = "#637939"

    def __init__(
        self,
        model,
        class_names,
        seed=0,
        alpha=1.0,
        train_epochs=None,
        train_lr=2e-3,
        train_batch=256,
        prompt=None,
        scale=None,
    ):
        super().__init__(model, class_names, seed, prompt, scale)
        check_number("alpha", alpha)
        check_whole("train_epochs", train_epochs, least=0, optional=True)
        check_number("train_lr", train_lr, above=True)
        check_whole("train_batch", train_batch)
        self.alpha, self.train_epochs = alpha, train_epochs
        self.train_lr, self.train_batch = train_lr, train_batch
        self.r = parameter(*self.text.shape, like=self.text)

    def fit_support(self, support: Support, seed=0, on_epoch=None, **settings) -> list[float]:
        self.keep(r=torch.zeros_like(self.text))
        epochs = self.train_epochs
        if epochs is None:
            epochs = 100 if support.shots <= FEW_SHOTS else 200
        return train(
            self,
            support,
            torch.optim.Adam([self.r], lr=self.train_lr),
            epochs=epochs,
            batch_size=self.train_batch,
            seed=seed,
            on_epoch=on_epoch,
        )

    def forward(self, audio_features):
        return self.logits(audio_features, normalize(self.text + self.alpha * self.r))
