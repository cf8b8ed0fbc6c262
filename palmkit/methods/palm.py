"""PALM: prompts learned at the text encoder's output."""

from __future__ import annotations

import torch
from torch import nn

from palmkit.methods.base import INITIAL_STD, LOGIT_SCALE, Method, normalize

PALM_INITS = ("published", "text", "audio")


class PALM(Method):
    """f'_i = (1 - lambda_i) f_i + lambda_i z_i at the text encoder's output; f_i embeds the bare class name.

    Learned: z [c, dim] and lambda = sigmoid(l), l [c]. `context=False` removes z (the paper's ablation, PALM-dagger).

    Not in the paper, for ablations: init, where z starts ("published": noise; "text": f; "audio": the direction of the
    class's mean audio embedding in the support set that `fit` gets); fixed_lambda, a number that lambda stays at;
    shared_lambda, one for all classes. Noise and l are drawn alike in all of them, so that a seed means the same.
    """

    published = {"ctx": "z", "lambdas": "lambda_logits"}

    def __init__(
        self,
        model,
        class_names,
        context=True,
        seed=0,
        init="published",
        fixed_lambda=None,
        shared_lambda=False,
    ):
        super().__init__(model, class_names)
        if init not in PALM_INITS or not 0 <= (fixed_lambda or 0) <= 1:
            raise ValueError(
                f"init={init!r} must be one of {PALM_INITS}, fixed_lambda={fixed_lambda} in 0..1"
            )
        self.init, self.fixed_lambda = init, fixed_lambda
        latents = model.text_latents(self.class_names)
        f = model.project_text(latents)
        self.register_buffer("latents", latents)  # [c, clip_dim]; encoded once, never again
        self.register_buffer("f", f)  # [c, dim]
        if not context:
            self.published, self.z = {}, None
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.z = nn.Parameter((INITIAL_STD * torch.randn(f.shape)).to(f))
            lambda_logits = torch.rand(len(f)).to(f)
        if init == "text":
            self.z.data.copy_(f)
        if fixed_lambda is None:
            self.lambda_logits = nn.Parameter(lambda_logits[:1] if shared_lambda else lambda_logits)
        else:
            self.published = {"ctx": "z"}

    @torch.no_grad()
    def begin(self, features, labels):
        if self.z is None or self.init != "audio":
            return
        for label in labels.unique():  # a class without clips keeps its noise
            self.z[label] = normalize(normalize(features[labels == label]).mean(0))
        self.init = "begun"  # whoever goes on training goes on from what was learned

    @property
    def lambdas(self) -> torch.Tensor:
        """lambda of each class, [c], in [0, 1]."""
        if self.z is None or self.fixed_lambda is not None:
            return torch.full((len(self.f),), float(self.fixed_lambda or 0)).to(self.f)
        return torch.sigmoid(self.lambda_logits).expand(len(self.f))

    def forward(self, audio_features):
        # The published training has dropout in the text projection; what goes into that never changes.
        text = f = (
            self.model.project_text(self.latents) if self.model.text.projection.training else self.f
        )
        if self.z is not None:
            weight = self.lambdas[:, None]
            text = normalize((1 - weight) * f + weight * self.z)
        return LOGIT_SCALE * normalize(audio_features) @ text.T
