"""PALM: prompts learned at the text encoder's output."""

from __future__ import annotations

import torch
from torch import nn

from palmkit.methods.base import Method, normalize
from palmkit.methods.draws import INITIAL_STD, draw_normal
from palmkit.models.base import StochasticText, find_missing

PALM_INITS = ("published", "text", "audio")


class PALM(Method):
    """f'_i = (1 - lambda_i) f_i + lambda_i z_i at the text encoder's output; f_i embeds the bare
    class name.

    Learned: z [c, dim] and lambda = sigmoid(l), l [c].

    Not in the paper, for ablations:
    init: where z starts ("published": noise; "text": f; "audio": the direction of the class's mean
        audio embedding in the support set);
    fixed_lambda: a constant lambda, which is not learned;
    shared_lambda: one lambda for all classes;
    scale: of the logits; None is the model's.
    Noise and l are drawn in the same way in all variants, so a seed gives the same numbers.
    """

    name = "palm"
    label = "PALM"
    color = "#029e73"
    in_paper = True
    published = {"ctx": "z", "lambdas": "lambda_logits"}

    def __init__(
        self,
        model,
        class_names,
        seed=0,
        init="published",
        fixed_lambda=None,
        shared_lambda=False,
        scale=None,
    ):
        super().__init__(model, class_names, seed, scale)
        if init not in PALM_INITS:
            raise ValueError(f"init={init!r}: use {', '.join(PALM_INITS)}")
        is_number = isinstance(fixed_lambda, int | float) and not isinstance(fixed_lambda, bool)
        if fixed_lambda is not None and not (is_number and 0 <= fixed_lambda <= 1):
            raise ValueError(f"fixed_lambda={fixed_lambda!r}: use a number from 0 to 1, or None")
        if not isinstance(shared_lambda, bool):
            raise ValueError(f"shared_lambda={shared_lambda!r}: use True or False")
        self.init, self.fixed_lambda, self.shared_lambda = init, fixed_lambda, shared_lambda
        self.encode_class_names()
        generator = torch.Generator().manual_seed(seed)
        self.z = nn.Parameter((INITIAL_STD * draw_normal(self.f.shape, generator)).to(self.f))
        lambda_logits = torch.rand(len(self.f), generator=generator).to(self.f)
        if init == "text":
            self.z.data.copy_(self.f)
        if fixed_lambda is None:
            self.lambda_logits = nn.Parameter(lambda_logits[:1] if shared_lambda else lambda_logits)

    def encode_class_names(self) -> None:
        """Set f [c, dim] and, if the text projection can be random, its input `latents`."""
        latents = None
        if not find_missing(self.model, StochasticText):
            latents = self.model.text_latents(self.class_names)  # encoded once, never again
            f = self.model.project_text(latents)
        else:
            f = self.model.encode_text(self.class_names)
        self.register_buffer("latents", latents)
        self.register_buffer("f", f)

    @torch.no_grad()
    def init_from_support(self, features, labels) -> None:
        if self.init != "audio":
            return
        for label in labels.unique():  # a class without clips keeps its noise
            self.z[label] = normalize(normalize(features[labels == label]).mean(0))
        self.init = "published"  # a second fit continues from what was learned

    @property
    def lambdas(self) -> torch.Tensor:
        """lambda of each class, [c], in [0, 1]."""
        if self.fixed_lambda is not None:
            return torch.full((len(self.f),), float(self.fixed_lambda)).to(self.f)
        return torch.sigmoid(self.lambda_logits).expand(len(self.f))

    def text_features(self) -> torch.Tensor:
        """f of each class, [c, dim]; random in every step if the text projection is random."""
        if self.latents is not None and self.model.text_is_stochastic:
            return self.model.project_text(self.latents)
        return self.f

    def forward(self, audio_features):
        weight = self.lambdas[:, None]  # [c, 1]
        text = (1 - weight) * self.text_features() + weight * self.z  # [c, dim]
        return self.logits(audio_features, normalize(text))


class PALMDagger(PALM):
    """PALM without its context z (an ablation of the paper): f' = f, and nothing is learned."""

    name = "palm-dagger"
    label = "PALM†"
    color = "#cc78bc"
    learns = False

    def __init__(self, model, class_names, seed=0, scale=None):
        Method.__init__(self, model, class_names, seed, scale)
        self.encode_class_names()

    @property
    def lambdas(self) -> torch.Tensor:
        """Zeros, [c]."""
        return torch.zeros(len(self.f)).to(self.f)

    def forward(self, audio_features):
        return self.logits(audio_features, self.text_features())
