"""Class means of the support set, alone and mixed with the class texts. Nothing is iterated."""

from __future__ import annotations

from palmkit.methods.base import normalize
from palmkit.methods.support import Support, SupportMethod, check_number, parameter


class Prototypes(SupportMethod):
    """Nearest class mean: logits s cos(x, mu_c), mu_c the mean of the class's unit embeddings.

    Source: Snell et al. 2017 (arXiv 1703.05175), with cosine in place of distance.
    Kept: mu [c, dim]; zeros, so logit 0, for a class without clips.
    """

    name = "prototypes"
    label = "Prototypes"
    color = "#8c564b"

    def __init__(self, model, class_names, seed=0, scale=None):
        super().__init__(model, class_names, seed, scale=scale)
        self.mu = parameter(*self.text.shape, like=self.text, learned=False)

    def fit_support(self, support: Support, **settings) -> None:
        self.keep(mu=support.means)

    def forward(self, audio_features):
        return self.logit_scale * self.audio(audio_features) @ normalize(self.mu).T


class MixedPrototypes(SupportMethod):
    """What both mixtures of text and class mean share: the weight lam_c of the class mean.

    lam: None: lam_c = K_c / (K_c + prior_shots), K_c the number of clips of class c, so that a
    class without clips is its text. Or one number from 0 to 1 for all classes.
    prior_shots: how many clips the text counts as. 4 is this kit's, set without any data.
    """

    choices = {"prior_shots": (4, 0.25, 0.5, 1, 2, 8, 16)}

    def __init__(
        self, model, class_names, seed=0, lam=None, prior_shots=4, prompt=None, scale=None
    ):
        super().__init__(model, class_names, seed, prompt, scale)
        check_number("lam", lam, most=1, optional=True)
        check_number("prior_shots", prior_shots, above=True)
        self.lam, self.prior_shots = lam, prior_shots

    def weights(self, support: Support):
        """lam of each class, [c, 1]."""
        counts = support.counts[:, None]
        if self.lam is None:
            return counts / (counts + self.prior_shots)
        return self.lam * (counts > 0).to(counts)


class TextPrototypes(MixedPrototypes):
    """Mixture of text and class mean: logits s cos(x, w_c),

        w_c = (1 - lam_c) t_c + lam_c mu_c / |mu_c|,   lam_c = K_c / (K_c + 4)

    with unit texts t_c and the mean mu_c of the class's unit embeddings. A common baseline without
    a paper of its own; PALM with z at the class mean (option init="audio") has this form too.
    Kept: w [c, dim]; it starts at the texts.
    """

    name = "text-prototypes"
    label = "Text + prototypes"
    color = "#c49c94"

    def __init__(
        self, model, class_names, seed=0, lam=None, prior_shots=4, prompt=None, scale=None
    ):
        super().__init__(model, class_names, seed, lam, prior_shots, prompt, scale)
        self.w = parameter(*self.text.shape, like=self.text, learned=False)
        self.keep(w=self.text)

    def fit_support(self, support: Support, **settings) -> None:
        lam = self.weights(support)
        self.keep(w=(1 - lam) * self.text.double() + lam * normalize(support.means))

    def forward(self, audio_features):
        return self.logits(audio_features, normalize(self.w))


class CentredMix(MixedPrototypes):
    """The mixture with both modalities centred, and distance in place of cosine, in two lines:

        M_c = (1 - lam_c) t~_c + lam_c mu~_c,          lam_c = K_c / (K_c + 4)
        logits s ((x - m) . M_c - |M_c|^2 / 2)

    t~_c = t_c - mean of the texts; mu~_c = mu_c - m; mu_c the mean of the class's unit embeddings;
    m the mean of the class means. Centring takes out the gap between audio and text. The logits are
    those of Gaussian classes around m + M_c with one spherical covariance.
    Not of a paper: this kit's simplest rival. Kept: M [c, dim], m [dim].
    """

    name = "centred-mix"
    label = "Centred mix"
    color = "#5d3a1a"

    def __init__(
        self, model, class_names, seed=0, lam=None, prior_shots=4, prompt=None, scale=None
    ):
        super().__init__(model, class_names, seed, lam, prior_shots, prompt, scale)
        self.M = parameter(*self.text.shape, like=self.text, learned=False)
        self.m = parameter(self.text.shape[1], like=self.text, learned=False)
        self.keep(M=self.text - self.text.mean(0))

    def fit_support(self, support: Support, **settings) -> None:
        m = support.means[support.is_present].mean(0)
        text = self.text.double() - self.text.double().mean(0)
        lam = self.weights(support)
        self.keep(M=(1 - lam) * text + lam * (support.means - m), m=m)

    def forward(self, audio_features):
        x = self.audio(audio_features) - self.m
        return self.logit_scale * (x @ self.M.T - (self.M**2).sum(1) / 2)
