"""LP++: a linear probe with a learned weight of each class text."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from palmkit.methods.support import Support, SupportMethod, check_whole, parameter


class LPPlusPlus(SupportMethod):
    """Logits x . w_c + b_c + alpha_c (x . t_c), by gradient descent with steps from the data:

        W starts at the class sums of S, b at 0, all alpha at 250 mean_c mean_{i in c} s_i . t_c
        step of W and b: 4 n / lambda_max(S' S);  step of alpha: n / (4 max_c sum_i (s_i . t_c)^2)

    s_i: the n support features, rows of S [n, dim]. t_c: the text of class c. lambda_max: the
    largest eigenvalue.
    An epoch is a step of W and b, and then a step of alpha. The whole support set is one batch, and
    the last epoch counts.
    Source: Huang et al. 2024 (arXiv 2404.02285), in its form without validation data. The notes
    that this kit is written from do not say the step of alpha; this one is below the bound of its
    curvature.
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
        S = self.logit_scale * support.features  # s_i, [n, dim]
        similar = S @ self.text.double().T  # s_i . t_c, [n, c]
        step, step_alpha = step_sizes(S, similar)
        W = self.logit_scale * support.sums
        b = S.new_zeros(support.classes)
        alpha = first_alpha(similar, support)
        losses = []
        for epoch in range(self.train_epochs):
            logits = S @ W.T + b + alpha * similar
            losses.append(F.cross_entropy(logits, support.labels).item())
            slope = gradient(logits, support)
            W = W - step * slope.T @ S
            b = b - step * slope.sum(0)
            slope = gradient(S @ W.T + b + alpha * similar, support)
            alpha = alpha - step_alpha * (slope * similar).sum(0)
            if on_epoch:
                self.keep(W=W, b=b, alpha=alpha)  # on_epoch may classify with this method
                on_epoch(epoch + 1, losses[-1])
        self.keep(W=W, b=b, alpha=alpha)
        return losses

    def forward(self, audio_features):
        x = self.logit_scale * self.audio(audio_features)
        return x @ self.W.T + self.b + self.alpha * (x @ self.text.T)


def first_alpha(similar: torch.Tensor, support: Support) -> torch.Tensor:
    """What alpha starts at, [c]: 250 mean_c mean_{i in c} s_i . t_c, over classes with clips.

    similar: s_i . t_c, [n, c].
    """
    class_sums = (support.one_hot * similar).sum(0)
    class_means = class_sums[support.is_present] / support.counts[support.is_present]
    return 250 * class_means.mean() * similar.new_ones(support.classes)


def step_sizes(S: torch.Tensor, similar: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The step of W and b, and that of alpha. S [n, dim]; similar: s_i . t_c, [n, c]."""
    largest = torch.linalg.matrix_norm(S, ord=2) ** 2  # lambda_max(S' S)
    curvature = (similar**2).sum(0).max()
    return 4 * len(S) / largest, len(S) / (4 * curvature)


def gradient(logits: torch.Tensor, support: Support) -> torch.Tensor:
    """The gradient of the mean cross-entropy by the logits [n, c], [n, c]."""
    return (logits.softmax(1) - support.one_hot) / len(support)
