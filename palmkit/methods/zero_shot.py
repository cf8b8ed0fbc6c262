"""Zero-shot classification: the baseline that learns nothing."""

from __future__ import annotations

from palmkit.methods.base import LOGIT_SCALE, Method, normalize

ZERO_SHOT_PROMPT = (
    "The is a recording of  {}."  # sic: the published zero-shot numbers belong to this wording
)


class ZeroShot(Method):
    """Logits 100 cos(audio, text("The is a recording of  {class}.")); nothing is learned."""

    def __init__(self, model, class_names, prompt=ZERO_SHOT_PROMPT, seed=0):
        super().__init__(model, class_names)
        self.register_buffer(
            "text", model.encode_text([prompt.format(name) for name in self.class_names])
        )  # [c, dim]

    def forward(self, audio_features):
        return LOGIT_SCALE * normalize(audio_features) @ self.text.T
