"""Transductive methods: the logits of a test clip depend on all test clips that are given with it.

They are not comparable with methods that classify each clip alone. `palmkit.training.predict` gives
them all clips at once, and tables and leaderboards keep them apart.
"""

from __future__ import annotations

import torch

from palmkit.methods.support import (
    Support,
    SupportMethod,
    check_number,
    check_whole,
    parameter,
)

SMALLEST_VARIANCE = 1e-9  # of a dimension of unit embeddings: one that never varies has none
ROWS = 1024  # of the similarities that are in memory at a time


class TransductiveMethod(SupportMethod):
    """Base class: `classify` gets the unit embeddings of all test clips, [n, dim], in float64.

    The order of the clips only orders the logits. Their labels are never seen.
    """

    transductive = True

    def classify(self, x) -> torch.Tensor:
        """Unit embeddings of all test clips [n, dim] -> logits [n, classes]."""
        raise NotImplementedError(f"{type(self).__name__} has no classify")

    def forward(self, audio_features):
        if len(audio_features) < 2:
            raise ValueError(
                f"{self.name} is transductive: it classifies all test clips together, and one clip "
                "alone is no test set; give two or more"
            )
        return self.classify(self.unit(audio_features.double())).to(self.text.dtype)

    def leave_out_logits(self, features, labels, **settings):
        raise ValueError(
            f"{self.name} is transductive: its logits depend on the other test clips, so clips "
            "that are left out of the support set do not stand for test clips"
        )


class TransCLIP(TransductiveMethod):
    """TransCLIP with labelled shots: a Gaussian mixture of test and support clips, held to the
    text's pseudo-labels and smoothed over neighbours. Blocks are updated in turn, in closed form:

        z_i = softmax_c(lam log y_ic + log p_ic / temper + sum_j w_ij z_jc)    i a test clip
        mu_c = sum_i a_i z_ic x_i / sum_i a_i z_ic
        Sigma_d = sum_i a_i sum_c z_ic (x_id - mu_cd)^2 / sum_i a_i            diagonal, shared
        logits log z

    x: unit embeddings of the n test clips and of the m clips of the support set. z of a support
    clip is its one-hot class, and stays. y_i = softmax(s x_i T'), the pseudo-labels of zero-shot.
    log p_ic = -1/2 sum_d (x_id - mu_cd)^2 / Sigma_d. a_i: 1 / n for a test clip, gamma / m for a
    support clip.
    w_ij = max(0, x_i . x_j) / (2 k), once if j is one of the k clips nearest to i, and once if i is
    one of those nearest to j.
    Start: z = y, mu the class means of the support set (of the test clips by y, for a class without
    clips), Sigma = 1 / dim. `steps` rounds of z (`inner` times), mu and Sigma; z is the last.

    The objective of these updates, with log p that includes -1/2 sum_d log Sigma_d:
        - sum_i n a_i z_i . log p_i / temper - 1/2 sum_ij w_ij z_i . z_j
        + sum_i z_i . (log z_i - lam log y_i)
    mu and Sigma minimise it, and z does where neighbours = 0; so it never rises then. With
    neighbours all z change at once, and it may rise.

    Source: Zanella, Gerin, Ben Ayed 2024 (arXiv 2406.01837), for CLIP and images. Written from
    memory and not checked against paper or code: k = 3, lam = 0.5 with shots (1 without),
    Sigma = 1 / dim at the start, 10 rounds of 5, and, of the code alone, temper = 50 and the
    division of w by 2 k. The paper searches gamma on validation clips; gamma = None is this kit's:
    m / n, so that every clip counts the same. The weights a_i of the paper's first term change
    mu and Sigma only, as they do here.
    Nothing is trained. Kept: keys [m, dim], values [m, c], the support set.
    """

    name = "transclip"
    label = "TransCLIP"
    color = "#c51b7d"
    by_clip = ("keys", "values")

    def __init__(
        self,
        model,
        class_names,
        seed=0,
        lam=0.5,
        gamma=None,
        neighbours=3,
        temper=50.0,
        steps=10,
        inner=5,
        prompt=None,
        scale=None,
    ):
        super().__init__(model, class_names, seed, prompt, scale)
        check_number("lam", lam)
        check_number("gamma", gamma, above=True, optional=True)
        check_whole("neighbours", neighbours, least=0)
        check_number("temper", temper, above=True)
        check_whole("steps", steps)
        check_whole("inner", inner)
        self.lam, self.gamma, self.neighbours, self.temper = lam, gamma, neighbours, temper
        self.steps, self.inner = steps, inner
        self.keys = parameter(0, self.text.shape[1], like=self.text, learned=False)
        self.values = parameter(0, len(self.text), like=self.text, learned=False)

    def fit_support(self, support: Support, **settings) -> None:
        self.keep(keys=support.features, values=support.one_hot)

    def classify(self, x):
        n, dim = x.shape
        keys, values = self.keys.double(), self.values.double()
        y = (self.logit_scale * x @ self.text.double().T).log_softmax(1)  # log y [n, c]
        everything = torch.cat([x, keys])  # [n + m, dim]
        graph = nearest(everything, self.neighbours)
        a = self.weigh_clips(n, len(keys)).to(x)  # [n + m]
        z = y.exp()
        counts = values.sum(0)[:, None]  # [c, 1]
        means = (values.T @ keys) / counts.clamp(min=1)
        mu = torch.where(counts > 0, means, (z.T @ x) / z.sum(0)[:, None])
        variance = torch.full_like(x[0], 1 / dim)
        for step in range(self.steps):
            if step:
                mu, variance = fit_gaussians(everything, torch.cat([z, values]), a)
            fixed = self.lam * y + log_density(x, mu, variance) / self.temper
            for _ in range(self.inner):
                logits = fixed + gather(graph, torch.cat([z, values]))[:n]
                z = logits.softmax(1)
        return logits.log_softmax(1)

    def weigh_clips(self, n: int, m: int) -> torch.Tensor:
        """a of n test clips and of m support clips, [n + m]."""
        gamma = m / n if self.gamma is None else self.gamma
        return torch.cat([torch.full((n,), 1 / n), torch.full((m,), gamma / max(m, 1))]).double()


def fit_gaussians(x, z, a) -> tuple[torch.Tensor, torch.Tensor]:
    """Means [c, dim] and shared variances [dim] of x [n, dim] with shares z [n, c], weights a [n].

    A class without any share has its mean at 0.
    """
    shares = a[:, None] * z  # [n, c]
    sums = shares.T @ x
    weights = shares.sum(0)[:, None]  # [c, 1]
    mu = sums / weights.clamp(min=torch.finfo(x.dtype).tiny)
    # sum_i a_i sum_c z_ic (x_i - mu_c)^2 with mu_c the weighted mean and sum_c z_ic = 1
    squares = a @ x.square() - (weights * mu.square()).sum(0)
    return mu, (squares / a.sum()).clamp(min=SMALLEST_VARIANCE)


def log_density(x, mu, variance) -> torch.Tensor:
    """log p [n, c] of x [n, dim] up to a constant: Gaussians of means mu [c, dim]."""
    precision = 1 / variance
    cross = (x * precision) @ mu.T
    return cross - (x.square() @ precision)[:, None] / 2 - (mu.square() @ precision) / 2


def nearest(x, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k nearest of every row of x [n, dim] by cosine, itself excluded.

    Their places [n, k], and their cosines, but not below 0, over 2 k [n, k]. Rows of x are unit.
    """
    n = len(x)
    k = min(k, n - 1)
    places, weights = x.new_zeros(n, k, dtype=torch.long), x.new_zeros(n, k)
    for start in range(0, n if k else 0, ROWS):
        rows = torch.arange(start, min(start + ROWS, n), device=x.device)
        cosines = x[rows] @ x.T
        cosines[rows - start, rows] = -torch.inf
        values, places[rows] = cosines.topk(k, dim=1)
        weights[rows] = values.clamp(min=0) / (2 * k)
    return places, weights


def gather(graph, z) -> torch.Tensor:
    """sum_j w_ij z_j [n, c]: neighbours of every clip, and clips that it is a neighbour of."""
    places, weights = graph
    total = torch.zeros_like(z)
    for place, weight in zip(places.T, weights.T, strict=True):
        total += weight[:, None] * z[place]
        total.index_add_(0, place, weight[:, None] * z)
    return total


class TextMixture(TransductiveMethod):
    """Text-anchored Gaussian mixture by EM: one spherical Gaussian a class, of variance 1 / s.

        E: z_ic = softmax_c(s (x_i . mu_c - |mu_c|^2 / 2))           i a test clip
        M: mu_c = (kappa a_c + sum of the class's support clips + sum_i z_ic x_i)
                  / (kappa + K_c + sum_i z_ic)
        a_c = m + t_c - mean of the texts,   m: mean of all clips, of the support set and the test

    logits s (x . mu_c - |mu_c|^2 / 2), after `steps` rounds that start from the support set alone
    (z = 0). A round never lowers the posterior of mu: the likelihood of test clips (classes equally
    likely) and of support clips, and a prior worth kappa = prior_shots clips at the anchor a_c.
    It is the centred mix of texts and class means with test clips of soft labels added.
    Classes are taken as equally frequent in the test clips, and m too depends on it.

    Not of a paper: this kit's simplest transductive method. Mixtures anchored at texts are
    published (arXiv 2606.17160, not read); this is not a reimplementation of those.
    Nothing is trained. Kept: sums [c, dim] and counts [c] of the support set.
    """

    name = "text-mixture"
    label = "Text mixture"
    color = "#1b7837"

    def __init__(
        self, model, class_names, seed=0, prior_shots=4, steps=20, prompt=None, scale=None
    ):
        super().__init__(model, class_names, seed, prompt, scale)
        check_number("prior_shots", prior_shots, above=True)
        check_whole("steps", steps)
        self.prior_shots, self.steps = prior_shots, steps
        self.sums = parameter(*self.text.shape, like=self.text, learned=False)
        self.counts = parameter(len(self.text), like=self.text, learned=False)

    def fit_support(self, support: Support, **settings) -> None:
        self.keep(sums=support.sums, counts=support.counts)

    def classify(self, x):
        text, sums, counts = self.text.double(), self.sums.double(), self.counts.double()
        m = (sums.sum(0) + x.sum(0)) / (counts.sum() + len(x))
        sums = sums + self.prior_shots * (m + text - text.mean(0))  # [c, dim]
        counts = counts + self.prior_shots  # [c]
        mu = sums / counts[:, None]
        for _ in range(self.steps):
            z = self.near(x, mu).softmax(1)
            mu = (sums + z.T @ x) / (counts + z.sum(0))[:, None]
        return self.near(x, mu)

    def near(self, x, mu) -> torch.Tensor:
        """Logits [n, c]: log densities around mu [c, dim], up to a constant for each clip."""
        return self.logit_scale * (x @ mu.T - mu.square().sum(1) / 2)
