"""Several PALMs learned in one computation: those of other seeds or learning rates.

Their parameters are joined to tensors with an axis more, [s, ...] for s methods, and a step is one
batched product. Nothing is shared: each has its own clips, batches and gradient. So the result is
that of `fit` for each alone, but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F

from palmkit.chunks import is_stochastic
from palmkit.methods.base import normalize
from palmkit.methods.palm import PALM
from palmkit.training import TrainingDiverged, as_tensors, check_finite, shuffled


def can_stack(methods: Sequence) -> bool:
    """Whether `fit_stack` takes these methods: PALMs of the same model, classes and options."""
    if not all(type(method) is PALM for method in methods):
        return False
    first = methods[0]
    equal = [
        one.model is first.model
        and one.class_names == first.class_names
        and one.logit_scale == first.logit_scale
        and (one.fixed_lambda, one.shared_lambda) == (first.fixed_lambda, first.shared_lambda)
        for one in methods
    ]
    return all(equal) and not is_stochastic(first.model)


def fit_stack(
    methods: Sequence[PALM],
    features: Sequence,
    labels: Sequence,
    *,
    seeds: Sequence[int],
    lrs: Sequence[float],
    epochs=50,
    batch_size=16,
    momentum=0.9,
    batches: Iterable | None = None,
) -> list[list[float] | TrainingDiverged]:
    """Train the methods in place. Returns the losses of each, or what `fit` would raise for it.

    features: [n, dim] of each method; labels: [n] of each; n is the same for all. seeds and lrs: of
    each. batches: one sequence of index arrays for all of them, instead of their own shuffling.
    Raises ValueError for methods or clips that cannot be stacked.
    """
    if not can_stack(methods):
        raise ValueError("only PALMs of one model, its classes and options can be stacked")
    pairs = [as_tensors(*one, stream=True) for one in zip(methods, features, labels, strict=True)]
    if len({x.shape for x, _ in pairs}) > 1 or pairs[0][0].ndim != 2:
        raise ValueError("a stack needs features [n, dim], with the same n for all its methods")
    for method, pair in zip(methods, pairs, strict=True):
        method.init_from_support(*pair)
    x, y = (torch.stack(one) for one in zip(*pairs, strict=True))  # [s, n, dim], [s, n]
    if batches is None:
        orders = [shuffled(y.shape[1], batch_size, epochs, seed) for seed in seeds]
        batches = map(torch.stack, zip(*orders, strict=True))  # [s, b] each
    else:
        batches = (torch.as_tensor(one, dtype=torch.long).expand(len(y), -1) for one in batches)
    losses = _Stack(methods, lrs, momentum).fit(normalize(x), y, batches)  # [s, steps]
    return [_result(one, lr) for one, lr in zip(losses.tolist(), lrs, strict=True)]


def _result(losses: list[float], lr: float) -> list[float] | TrainingDiverged:
    try:
        check_finite(losses, lr)
    except TrainingDiverged as error:
        return error
    return losses


class _Stack:
    """The joined parameters of several PALMs, and SGD with momentum for them."""

    def __init__(self, methods: Sequence[PALM], lrs: Sequence[float], momentum: float):
        self.methods, self.momentum = methods, momentum
        self.names = [name for name, _ in methods[0].named_parameters()]
        joined = (torch.stack([getattr(one, n).detach() for one in methods]) for n in self.names)
        self.learned = {n: one.requires_grad_() for n, one in zip(self.names, joined, strict=True)}
        self.lrs = torch.tensor(lrs, dtype=methods[0].f.dtype, device=methods[0].f.device)
        self.moved: dict[str, torch.Tensor] = {}

    def fit(self, x, y, batches) -> torch.Tensor:
        """x [s, n, dim] of unit length, y [s, n], index batches [s, b] -> losses [s, steps]."""
        rows = torch.arange(len(y), device=y.device)[:, None]
        losses = []
        for index in batches:
            index = index.to(y.device)
            loss = self.losses(x[rows, index], y[rows, index])
            self.step(torch.autograd.grad(loss.sum(), [*self.learned.values()]))
            losses.append(loss.detach())
        for n, method in enumerate(self.methods):
            for name, one in self.learned.items():
                getattr(method, name).data.copy_(one[n].detach())
        return torch.stack(losses, 1) if losses else y.new_zeros(len(y), 0)

    def losses(self, x, y) -> torch.Tensor:
        """x [s, b, dim], y [s, b] -> the mean loss of each method, [s]. As PALM's `forward`."""
        first = self.methods[0]
        if first.fixed_lambda is None:
            weight = torch.sigmoid(self.learned["lambda_logits"])[..., None]  # [s, c or 1, 1]
        else:
            weight = first.lambdas[:, None]
        text = normalize((1 - weight) * first.f + weight * self.learned["z"])  # [s, c, dim]
        logits = first.logit_scale * x @ text.mT  # [s, b, c]
        each = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
        return each.view(y.shape).mean(1)

    @torch.no_grad()
    def step(self, gradients) -> None:
        """One step of SGD as in `torch.optim.SGD`, with a learning rate for each method."""
        for (name, one), gradient in zip(self.learned.items(), gradients, strict=True):
            if name in self.moved:
                self.moved[name].mul_(self.momentum).add_(gradient)
            else:
                self.moved[name] = gradient.clone()
            one -= self.lrs.view(-1, *[1] * (one.ndim - 1)) * self.moved[name]
