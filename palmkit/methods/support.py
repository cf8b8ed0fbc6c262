"""What the methods on frozen features share: the support set as numbers, training, folds, options.

These methods have a `fit` of their own. Published defaults need no validation data. A choice inside
the support set can be made from outside: every number is an option, and `leave_out_logits` gives
the logits of clips that were not fitted.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from palmkit.methods.base import Method, is_finite, normalize
from palmkit.training import as_tensors, check_finite, shuffled


@dataclass(frozen=True)
class Support:
    """A support set. features: unit, [n, dim], float64. labels: [n]. classes: how many.

    Classes may have unequally many clips, or none.
    """

    features: torch.Tensor
    labels: torch.Tensor
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def one_hot(self) -> torch.Tensor:
        """Y [n, c], float64."""
        return F.one_hot(self.labels, self.classes).to(self.features)

    @functools.cached_property
    def counts(self) -> torch.Tensor:
        """Clips of each class, [c], float64."""
        return self.one_hot.sum(0)

    @functools.cached_property
    def is_present(self) -> torch.Tensor:
        """Whether a class has clips, [c]."""
        return self.counts > 0

    @functools.cached_property
    def shots(self) -> float:
        """Mean number of clips of the classes that have clips."""
        return self.counts[self.is_present].mean().item()

    @functools.cached_property
    def sums(self) -> torch.Tensor:
        """Sum of the features of each class, [c, dim]; zeros for a class without clips."""
        return self.one_hot.T @ self.features

    @functools.cached_property
    def means(self) -> torch.Tensor:
        """Mean of the features of each class, [c, dim]; zeros for a class without clips."""
        return self.sums / self.counts.clamp(min=1)[:, None]


class SupportMethod(Method):
    """Base class of methods that are fitted to a support set by rules of their own.

    `fit` ignores epochs, batch_size, lr and momentum of a trial, which are PALM's. Features of
    several epochs, [epochs, n, dim], are averaged over epochs. Solutions are computed in float64 on
    the device of the features and kept in the model's type.
    prompt: with {} for the class name; None is the model's. scale: of the logits; None is the
    model's.
    """

    own_fit = True

    def __init__(self, model, class_names, seed=0, prompt=None, scale=None):
        super().__init__(model, class_names, seed, scale)
        self.prompt = prompt
        text = encode_classes(model, self.class_names, prompt)
        self.register_buffer("text", text)  # T [c, dim], unit

    def fit(self, features, labels, **settings) -> list[float]:
        """Features [n, dim] or [epochs, n, dim], labels [n]. Returns the losses of steps, if any.

        settings: of these, `seed` (of the order of clips) and `on_epoch` are used, by methods that
        train in steps.
        """
        return self.fit_support(self.describe(features, labels), **settings) or []

    def fit_support(self, support: Support, **settings) -> list[float] | None:
        """Learn from a support set."""
        raise NotImplementedError(f"{type(self).__name__} has no fit_support")

    def describe(self, features, labels) -> Support:
        """The support set of features [n, dim] or [epochs, n, dim] and labels [n]."""
        features = (
            features.double() if features.ndim == 2 else features.mean(0, dtype=torch.float64)
        )
        return Support(self.unit(features), labels, len(self.class_names))

    def unit(self, features) -> torch.Tensor:
        """Features with unit rows, in their own type."""
        return normalize(features)

    def audio(self, features) -> torch.Tensor:
        """Unit features in the type of the method's arithmetic, [b, dim]."""
        return self.unit(features.to(self.text.dtype))

    def keep(self, **tensors) -> None:
        """Set parameters. They may have another shape than before."""
        for name, tensor in tensors.items():
            kept = getattr(self, name)
            kept.data = tensor.detach().to(kept, copy=True)

    def blank(self) -> SupportMethod:
        """A method with the same options, fitted to nothing."""
        names = [*inspect.signature(type(self)).parameters][3:]  # after model, class_names, seed
        options = {name: getattr(self, name) for name in names}
        return type(self)(self.model, self.class_names, seed=self.seed, **options)

    def leave_out_logits(self, features, labels, **settings) -> torch.Tensor:
        """Logits [n, c] of each clip by a method that is fitted without the clip's fold.

        Fold b holds the b-th clip of every class that has so many (leave one shot out). This method
        is left as it is. Settings that depend on the number of shots are those of the clips that
        are fitted. Raises ValueError if a fold leaves nothing to fit.
        """
        features, labels = as_tensors(self, features, labels, stream=True)
        support = self.describe(features, labels)
        logits = self.text.new_zeros(len(support), support.classes)
        for fold in leave_out_folds(labels):
            kept = torch.ones_like(labels, dtype=torch.bool)
            kept[fold] = False
            if not kept.any():
                raise ValueError("one clip of each class: leaving a shot out needs two of a class")
            other = self.blank()
            other.fit_support(
                Support(support.features[kept], labels[kept], support.classes), **settings
            )
            with torch.no_grad():
                logits[fold] = other(support.features[fold])
        return logits


def encode_classes(model, class_names, prompt) -> torch.Tensor:
    """Unit text embeddings [c, dim] of a prompt with the class names; None is the model's prompt.

    Raises ValueError for a prompt without {}.
    """
    if prompt is not None and not (isinstance(prompt, str) and "{}" in prompt):
        raise ValueError(f"prompt={prompt!r}: use a text with {{}} for the class name, or None")
    template = model.prompt if prompt is None else prompt
    return model.encode_text([template.format(name) for name in class_names])


def leave_out_folds(labels: torch.Tensor) -> list[torch.Tensor]:
    """Fold b: the indices of the b-th clip of every class that has so many. labels [n]."""
    one_hot = F.one_hot(labels)
    place = (one_hot.cumsum(0) - 1).gather(1, labels[:, None])[:, 0]  # [n]: its number in its class
    return [(place == number).nonzero()[:, 0] for number in range(int(place.max()) + 1)]


def parameter(*shape, like: torch.Tensor, learned=True) -> nn.Parameter:
    """Zeros of a shape, in the type and on the device of `like`."""
    return nn.Parameter(like.new_zeros(shape), requires_grad=learned)


# Training.


def train(
    method,
    support: Support,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    penalty: Callable[[], torch.Tensor] | None = None,
    seed=0,
    on_epoch=None,
) -> list[float]:
    """Cross-entropy, and a penalty, by an optimizer whose rate falls to 0 as a cosine of the steps.

    A support set up to batch_size is one batch, and then nothing is random. The last step counts.
    Returns the loss of each step, before its update. Raises TrainingDiverged.
    """
    features, labels = support.features.to(method.text), support.labels
    count = len(labels)
    steps = -(-count // batch_size)  # of an epoch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(epochs * steps, 1))
    lr = optimizer.param_groups[0]["lr"]
    batches = [torch.arange(count)] * epochs
    if steps > 1:
        batches = shuffled(count, batch_size, epochs, seed)
    losses = []
    for step, index in enumerate(batches):
        index = index.to(labels.device)
        loss = F.cross_entropy(method(features[index]), labels[index])
        if penalty is not None:
            loss = loss + penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        if on_epoch and (step + 1) % steps == 0:
            on_epoch((step + 1) // steps, torch.stack(losses[-steps:]).mean().item())
    losses = torch.stack(losses).tolist() if losses else []
    check_finite(losses, lr)
    return losses


def minimize(
    loss: Callable[[], torch.Tensor], parameters: list[torch.Tensor], tolerance=1e-9, steps=2000
) -> float:
    """Minimise a smooth convex function of float64 tensors in place by L-BFGS; its last value.

    tolerance: of the largest derivative.
    """
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=steps,
        history_size=20,
        tolerance_grad=tolerance,
        tolerance_change=0.0,  # the loss stops to change long before the gradient is 0
        line_search_fn="strong_wolfe",
    )

    def step():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(step)
    with torch.no_grad():
        return loss().item()


# Checks of options.


def check_number(name: str, value, least=0.0, most=math.inf, above=False, optional=False) -> None:
    """Raise ValueError for what is no finite number from `least` to `most`.

    above: `least` itself is refused. optional: None is taken.
    """
    if value is None and optional:
        return
    if is_finite(value) and least <= value <= most and not (above and value == least):
        return
    allowed = f"a number {'over' if above else 'from'} {least:g}{'' if above else ' on'}"
    if most < math.inf:
        allowed = f"a number {'over' if above else 'from'} {least:g} to {most:g}"
    raise ValueError(f"{name}={value!r}: use {allowed}{', or None' if optional else ''}")


def check_whole(name: str, value, least=1, optional=False) -> None:
    """Raise ValueError for what is no whole number from `least` on."""
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        ending = ", or None" if optional else ""
        raise ValueError(f"{name}={value!r}: use a whole number, {least} or more{ending}")


def check_choice(name: str, value, choices: tuple[str, ...]) -> None:
    """Raise ValueError for what is not among the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}: use {', '.join(choices)}")
