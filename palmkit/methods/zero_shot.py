"""Zero-shot classification: the baseline that learns nothing."""

from __future__ import annotations

from palmkit.methods.base import Method


class ZeroShot(Method):
    """Logits logit_scale cos(audio, text(prompt with the class name)); nothing is learned.

    prompt: with {} for the class name; None is the model's.
    scale: of the logits; None is the model's.
    """

    name = "zeroshot"
    label = "Zero-shot"
    color = "#949494"
    learns = False
    in_paper = True

    def __init__(self, model, class_names, seed=0, prompt=None, scale=None):
        super().__init__(model, class_names, seed, scale)
        self.prompt = model.prompt if prompt is None else prompt
        prompts = [self.prompt.format(name) for name in self.class_names]
        self.register_buffer("text", model.encode_text(prompts))  # [c, dim]

    def forward(self, audio_features):
        return self.logits(audio_features, self.text)
