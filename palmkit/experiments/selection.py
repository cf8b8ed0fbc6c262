"""Choose options of a method inside the support set: no test clip and no other data is used."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F


def has_choices(method: type) -> bool:
    """Whether a method names options that can be chosen inside the support set."""
    return bool(getattr(method, "choices", None)) and hasattr(method, "leave_out_logits")


def combinations(method: type, given: dict) -> list[dict]:
    """Every combination of the values in `method.choices`, without options that are given.

    The first one has the published values.
    """
    free = {name: values for name, values in method.choices.items() if name not in given}
    return [dict(zip(free, values, strict=True)) for values in itertools.product(*free.values())]


def choose_options(method: type, model, class_names, seed, given: dict, features, labels) -> dict:
    """The options with the highest accuracy on clips that were left out of the fit.

    Leave one shot out: fold b holds the b-th clip of every class, so no class becomes rarer than
    another. A tie goes to the lower cross-entropy, then to the earlier combination. With one clip a
    class nothing can be left out: the result is {}, the published values.

    method: a class with `choices` {option: values} and `leave_out_logits`. given: options that are
    not chosen. features [n, dim], labels [n] of the support set.
    """
    if labels.bincount().max() < 2:
        return {}
    best, chosen = None, {}
    for options in combinations(method, given):
        learner = method(model, class_names, seed=seed, **given, **options)
        with torch.no_grad():
            logits = learner.leave_out_logits(features, labels)
        right = (logits.argmax(1) == labels.to(logits.device)).double().mean().item()
        loss = F.cross_entropy(logits.double(), labels.to(logits.device)).item()
        rank = (right, -loss if loss == loss else -float("inf"))
        if best is None or rank > best:
            best, chosen = rank, options
    return chosen
