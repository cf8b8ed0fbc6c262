"""LP++: a linear probe with a learned weight of each class text."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from palmkit.methods.support import Support, SupportMethod, check_whole, parameter


class LPPlusPlus(SupportMethod):
    """Logits x W' + b + alpha_c (x . t_c), by gradient descent with steps from the data:

        W starts at the class sums of S, b at 0, all alpha at 250 mean_c mean_{i in c} s_i . t_c
        step of W and b: 4 n / lambda_max(S' S);  step of alpha: n / (4 max_c sum_i (s_i . t_c)^2)

    Source: Huang et al. 2024 (arXiv 2404.02285), in its form without validation data: the whole
    support set as one batch, 300 epochs, the last one counts. An epoch is a step of W and b, and
    then a step of alpha. The notes that this kit is written from do not say the step of alpha; this
    one is below the bound of its curvature.
    Learned: W [c, dim], b [c], alpha [c]. Nothing is random.
    scale: length of the features; None is 1, because these logits have no scale.
    train_epochs: 300 as published.
    """

    name = "lp-plus-plus"
    label = "LP++"
    color = "#ad494a"

    def __init__(self, model, class_names, seed=0, train_epochs=300, prompt=None, scale=None):
        super().__init__(model, class_names, seed, prompt, scale)
        check_whole("train_epochs", train_epochs, least=0)
        self.train_epochs = train_epochs
        self.logit_scale = 1.0 if scale is None else float(scale)
        self.W = parameter(*self.text.shape, like=self.text)
        self.b = parameter(len(self.text), like=self.text)
        self.alpha = parameter(len(self.text), like=self.text)

    def fit_support(self, support: Support, on_epoch=None, **settings) -> list[float]:
        n, S, Y = len(support), self.logit_scale * support.features, support.one_hot
        similar = S @ self.text.double().T  # s_i . t_c, [n, c]
        W, b = self.logit_scale * support.sums, S.new_zeros(support.classes)
        of_own = (Y * similar).sum(0)[support.is_present] / support.counts[support.is_present]
        alpha = 250 * of_own.mean() * torch.ones_like(b)
        step = 4 * n / torch.linalg.matrix_norm(S, ord=2) ** 2  # lambda_max(S' S), a singular value
        step_alpha = n / (4 * (similar**2).sum(0).max())
        losses = []

        def gradient():
            """Of the mean cross-entropy by the logits, [n, c]."""
            logits = S @ W.T + b + alpha * similar
            losses.append(F.cross_entropy(logits, support.labels).item())
            return (logits.softmax(1) - Y) / n

        for epoch in range(self.train_epochs):
            g = gradient()
            W, b = W - step * g.T @ S, b - step * g.sum(0)
            alpha = alpha - step_alpha * (gradient() * similar).sum(0)
            if on_epoch:
                self.keep(W=W, b=b, alpha=alpha)  # who is called may classify with them
                on_epoch(epoch + 1, losses[-2])
        self.keep(W=W, b=b, alpha=alpha)
        return losses[::2]

    def forward(self, audio_features):
        x = self.logit_scale * self.audio(audio_features)
        return x @ self.W.T + self.b + self.alpha * (x @ self.text.T)
