"""SS-Text: class texts moved by the sum of the class's clips, in closed form."""

from __future__ import annotations

from palmkit.methods.base import normalize
from palmkit.methods.support import Support, SupportMethod, check_number, parameter


class SSText(SupportMethod):
    """Logits s cos(x, w_c),  w_c = t_c + s lam sum_{i in c} x_i.

    It minimises - s lam sum_i x_i . w_{y_i} + sum_c |w_c - t_c|^2 / 2: the part of the
    cross-entropy that pulls a class to its clips, held near the texts.
    Source: Silva-Rodriguez et al. 2025 (arXiv 2506.17500); closed form, no validation data. The
    published lam was not at hand; the default is this kit's, set without any data.
    Kept: w [c, dim]; it starts at the texts, and stays there for a class without clips.
    lam: None is 1 / n, the mean over the n clips of the support set.
    """

    name = "ss-text"
    label = "SS-Text"
    color = "#e7969c"
    choices = {"lam": (None, 0.0001, 0.001, 0.01)}

    def __init__(self, model, class_names, seed=0, lam=None, prompt=None, scale=None):
        super().__init__(model, class_names, seed, prompt, scale)
        check_number("lam", lam, optional=True)
        self.lam = lam
        self.w = parameter(*self.text.shape, like=self.text, learned=False)
        self.keep(w=self.text)

    def fit_support(self, support: Support, **settings) -> None:
        lam = 1 / len(support) if self.lam is None else self.lam
        self.keep(w=self.text.double() + self.logit_scale * lam * support.sums)

    def forward(self, audio_features):
        return self.logits(audio_features, normalize(self.w))
