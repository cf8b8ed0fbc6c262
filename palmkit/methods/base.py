"""Zero-shot and the three prompt learners, each as the paper writes it.

A method maps audio embeddings [b, dim] to logits [b, classes]; it knows no file, encoder call or device. To add one:
subclass `Method`, write `forward`, add a line to `METHODS`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

LOGIT_SCALE = 100.0  # fixed in the published code; PENGI's own temperature is not used
INITIAL_STD = 0.02


def normalize(x: torch.Tensor) -> torch.Tensor:
    return F.normalize(x, dim=-1)


class Method(nn.Module):
    """Base of all methods. `published` maps the published code's parameter names to ours."""

    published: dict[str, str] = {}

    def __init__(self, model, class_names):
        super().__init__()
        if isinstance(class_names, str):
            raise TypeError(f"class_names must be a list of names, not the string {class_names!r}")
        self.class_names = [str(name) for name in class_names]
        if len(self.class_names) < 2:
            raise ValueError(f"a classifier needs two classes or more, not {self.class_names}")
        if len(set(self.class_names)) < len(self.class_names) or not all(
            str(name).strip() for name in self.class_names
        ):
            raise ValueError(f"class names must be distinct and not empty: {self.class_names}")
        # Frozen encoders are used, not owned: they are no part of parameters() or state_dict().
        object.__setattr__(self, "model", model)

    def begin(self, features, labels):
        """Called by `fit` before the first step with the support set [n, dim], [n], for methods that start from it."""

    def prompt_learner_state(self) -> dict[str, torch.Tensor]:
        """What was learned, in the published code's names and shapes (on the CPU)."""
        own = dict(self.named_parameters())
        return {theirs: own[ours].detach().cpu().clone() for theirs, ours in self.published.items()}

    @torch.no_grad()
    def load_prompt_learner(self, state: dict) -> None:
        """Take what was learned from a published or own state; the buffers `sos`, `classes_pad` are accepted."""
        extra = {"sos", "classes_pad"} if "ctx" in self.published else set()
        missing, unknown = (
            set(self.published) - set(state),
            set(state) - set(self.published) - extra,
        )
        if missing or unknown:
            raise ValueError(
                f"not a state of {type(self).__name__}: missing {sorted(missing)}, unknown {sorted(unknown)}"
            )
        own = dict(self.named_parameters())
        wrong = [
            f"{theirs} is {list(state[theirs].shape)}, expected {list(own[ours].shape)}"
            for theirs, ours in self.published.items()
            if state[theirs].shape != own[ours].shape
        ]
        wrong += [
            f"{name} is for {len(state[name])} classes, not {len(self.class_names)}"
            for name in extra & set(state)
            if len(state[name]) != len(self.class_names)
        ]
        if wrong:
            raise ValueError(f"a state of another {type(self).__name__}: " + "; ".join(wrong))
        for theirs, ours in self.published.items():
            own[ours].copy_(state[theirs])
