"""Options are chosen by clips left out of the support set, and by nothing else."""

import inspect

import pytest
import torch

from palmkit.experiments import rows
from palmkit.experiments.selection import check_choices, choose_options, combinations
from palmkit.experiments.trials import Trial
from palmkit.methods import METHODS

LABELS = torch.tensor([0, 0, 1, 1])
FEATURES = torch.eye(4)


class Learner:
    """Gives the left-out logits that OUTCOMES has for its options."""

    choices = {"width": (1, 2, 4), "depth": (0, 1)}
    outcomes: dict = {}
    seen: list = []

    name = "learner"

    def __init__(self, model, class_names, seed=0, width=1, depth=0):
        self.class_names = class_names
        self.key = (width, depth)

    def leave_out_logits(self, features, labels):
        self.seen.append(self.key)
        right, scale = self.outcomes.get(self.key, (2, 1.0))
        logits = torch.zeros(len(labels), 2)
        for n, label in enumerate(labels):
            logits[n, label if n < right else 1 - label] = scale
        return logits


@pytest.fixture(autouse=True)
def forget():
    Learner.outcomes, Learner.seen = {}, []


def choose(given=None, labels=LABELS):
    return choose_options(Learner, None, ["a", "b"], 0, given or {}, FEATURES, labels)


def test_the_most_left_out_clips_win():
    Learner.outcomes = {(2, 1): (4, 1.0), (4, 0): (3, 9.0)}
    assert choose() == {"width": 2, "depth": 1}
    assert len(Learner.seen) == 6


def test_a_tie_goes_to_the_lower_cross_entropy_then_to_the_first():
    Learner.outcomes = {(2, 0): (3, 9.0), (2, 1): (3, 1.0)}
    assert choose() == {"width": 2, "depth": 1}  # a wrong clip costs less at a smaller scale
    Learner.outcomes = {}
    assert choose() == {"width": 1, "depth": 0}


def test_a_given_option_is_not_chosen():
    Learner.outcomes = {(4, 1): (4, 1.0)}
    assert choose({"width": 2}) == {"depth": 0}
    assert set(Learner.seen) == {(2, 0), (2, 1)}


def test_one_clip_a_class_leaves_the_published_values():
    assert choose(labels=torch.tensor([0, 1])) == {} and Learner.seen == []


def test_logits_that_are_not_finite_never_win():
    Learner.outcomes = {(1, 0): (3, float("nan")), (4, 1): (3, 1.0)}
    assert choose() == {"width": 4, "depth": 1}


def test_the_first_combination_has_the_published_values():
    assert combinations(Learner, {})[0] == {"width": 1, "depth": 0}


CHOOSING = [name for name, cls in METHODS.items() if cls.choices]


@pytest.mark.parametrize("name", CHOOSING)
def test_the_first_value_of_every_choice_is_the_default(name):
    parameters = inspect.signature(METHODS[name]).parameters
    for option, values in METHODS[name].choices.items():
        assert values[0] == parameters[option].default and len(set(values)) == len(values)


def test_the_published_regime_keeps_the_keys_of_older_rows():
    plain = Trial("kernel-ridge", "x")
    assert rows.trial_key(plain, "d", "m") == rows.trial_key(
        Trial("kernel-ridge", "x", regime="published"), "d", "m"
    )
    chosen = Trial("kernel-ridge", "x", regime="support")
    assert rows.trial_key(plain, "d", "m") != rows.trial_key(chosen, "d", "m")


def test_a_method_without_choices_is_refused():
    with pytest.raises(ValueError, match="palm has no options to choose from"):
        Trial("palm", "x", regime="support")
    assert Trial("zeroshot", "x", regime="support").regime == "published"  # it learns nothing


@pytest.mark.parametrize("name", CHOOSING)
def test_the_choices_of_the_kit_are_right(name):
    for regime in ("support", "transfer:y"):
        check_choices(METHODS[name], regime)


@pytest.mark.parametrize(
    "choices, problem",
    [
        (["width"], "use a dict of options, each with a tuple of values"),
        ({"width": ()}, "use a dict of options, each with a tuple of values"),
        ({"width": 3}, "use a dict of options, each with a tuple of values"),
        ({"height": (1, 2)}, "its __init__ has no option height"),
    ],
)
def test_choices_that_cannot_be_made_are_refused(choices, problem, monkeypatch):
    monkeypatch.setattr(Learner, "choices", choices)
    with pytest.raises(ValueError, match=f"choices of learner: .*{problem}"):
        check_choices(Learner, "support")


def test_choices_without_left_out_logits_can_be_tuned_only(monkeypatch):
    monkeypatch.delattr(Learner, "leave_out_logits")
    check_choices(Learner, "transfer:y")
    with pytest.raises(ValueError, match="learner has choices, but no leave_out_logits"):
        check_choices(Learner, "support")


def test_left_out_logits_of_another_shape_are_refused(monkeypatch):
    monkeypatch.setattr(Learner, "leave_out_logits", lambda *_: torch.zeros(3))
    with pytest.raises(ValueError, match=r"leave_out_logits of Learner returned .* \[3\]"):
        choose()


def test_the_released_protocol_is_refused():
    with pytest.raises(ValueError, match="only in the frozen protocol"):
        Trial("kernel-ridge", "x", regime="support", protocol="released")
