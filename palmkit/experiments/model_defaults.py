"""Settings of SGD that belong to a model. The published ones were chosen for PENGI."""

from __future__ import annotations

import logging

from palmkit.experiments.config import Choices
from palmkit.experiments.trials import DEFAULTS, FIELDS, Trial, find_method
from palmkit.models.about import default_settings

log = logging.getLogger(__name__)


def with_model_defaults(choices: Choices, model) -> Choices:
    """The choices, with what the model states for settings that the user did not give.

    A message says what differs from the published settings. Raises ValueError for a value that no
    trial takes.
    """
    stated = {
        name: FIELDS[name].clean(f"{name}, a default of the model {model.name}", value)
        for name, value in default_settings(model).items()
        if name not in choices.given
    }
    changed = {name: value for name, value in stated.items() if value != choices.values[name]}
    for name, value in changed.items():
        log.info("%s=%s: the default of %s", name, value, model.name)
    return choices.replace(**changed)


def uses_sgd(trial: Trial) -> bool:
    """Whether a trial learns by SGD with the trial's own settings."""
    method = find_method(trial.method)
    return method.learns and not method.own_fit


def rate_source(trial: Trial, model) -> str:
    """Where the learning rate of a trial comes from: "model", "published" or "given".

    "" for a trial without SGD. "published": it is PENGI's, and the model states none.
    """
    if not uses_sgd(trial):
        return ""
    stated = default_settings(model).get("lr")
    if stated == trial.lr:
        return "model"
    return "published" if stated is None and trial.lr == DEFAULTS["lr"] else "given"


def warn_of_rates(trials: list[Trial], model) -> None:
    """Log once that trials use PENGI's learning rate on a model that states none."""
    methods = [trial.method for trial in trials if rate_source(trial, model) == "published"]
    if not methods:
        return
    log.warning(
        "%s states no learning rate. SGD uses PENGI's (%s): lr=%g, published for a logit scale of "
        "100; here it is %.3g. Choose a rate on data that you do not report (--lr), or state one "
        "in the model (defaults)",
        model.name,
        ", ".join(dict.fromkeys(methods)),
        DEFAULTS["lr"],
        model.logit_scale,
    )
