"""Choose options of a method: inside the support set, or on a dataset that is not reported."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F

from palmkit.training import fit, predict


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

    settings = getattr(method, "choice_settings", {})

    def left_out(options: dict) -> tuple[float, float]:
        learner = method(model, class_names, seed=seed, **given, **options)
        with torch.no_grad():
            logits = learner.leave_out_logits(features, labels, **settings)
        return _accuracy_and_loss(logits, labels)

    return _best(combinations(method, given), left_out)


def tune_options(method: type, model, tasks, given: dict, **settings) -> dict:
    """The options with the highest mean accuracy on the test clips of several tasks.

    The tasks are of a dataset that is tuned on: its test clips choose, so its score is no result.
    Ties as in `choose_options`. tasks: of `palmkit.experiments.tuning.TuningTask`. settings: of
    `palmkit.fit`.
    """

    def tested(options: dict) -> tuple[float, float]:
        results = []
        for task in tasks:
            learner = method(model, task.class_names, seed=task.seed, **given, **options)
            fit(learner, task.support.features, task.support.labels, **settings, seed=task.seed)
            logits = predict(learner, task.test.features)
            results.append(_accuracy_and_loss(logits, task.test.labels))
        right, loss = torch.tensor(results, dtype=torch.float64).mean(0).tolist()
        return right, loss

    return _best(combinations(method, given), tested)


def _accuracy_and_loss(logits, labels) -> tuple[float, float]:
    labels = labels.to(logits.device)
    right = (logits.argmax(1) == labels).double().mean().item()
    return right, F.cross_entropy(logits.double(), labels).item()


def _best(options: list[dict], measure: Callable[[dict], tuple[float, float]]) -> dict:
    """The first options of the highest accuracy, and among these of the lowest loss."""
    best, chosen = None, {}
    for one in options:
        right, loss = measure(one)
        rank = (right, -loss if loss == loss else -float("inf"))
        if best is None or rank > best:
            best, chosen = rank, one
    return chosen
