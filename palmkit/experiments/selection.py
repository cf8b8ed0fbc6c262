"""Choose options of a method: inside the support set, or on a dataset that is not reported."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F

from palmkit.training import check_logits, fit, predict


def check_choices(method: type, regime: str) -> None:
    """Raise ValueError, saying why, if a method has no options that a regime can choose."""
    choices, name = method.choices, method.name
    if not choices:
        raise ValueError(
            f"regime={regime}: {name} has no options to choose from; use regime=published"
        )
    lists = isinstance(choices, dict) and all(
        isinstance(values, tuple | list) and values for values in choices.values()
    )
    if not lists:
        raise ValueError(
            f"choices of {name}: {choices!r}; use a dict of options, each with a tuple of values"
        )
    options = inspect.signature(method).parameters
    free = any(one.kind is one.VAR_KEYWORD for one in options.values())
    if unknown := [] if free else sorted(set(choices) - set(options)):
        raise ValueError(f"choices of {name}: its __init__ has no option {', '.join(unknown)}")
    if regime == "support" and not hasattr(method, "leave_out_logits"):
        raise ValueError(
            f"regime=support: {name} has choices, but no leave_out_logits(features, labels), which "
            "gives the logits [clips, classes] of each clip without its fold"
        )


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
        check_logits(learner, logits, len(labels), "leave_out_logits")
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
