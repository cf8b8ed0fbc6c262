"""Each rule on a case that has it, on one that has not, and on either side of its thresholds."""

import numpy as np
import pytest
import torch

from palmkit import PALM, fit
from palmkit.results import diagnose

NAMES = ["bell", "dog", "rain"]
LABELS = torch.arange(3).repeat_interleave(20)


def row(lambdas=(0.3, 0.4, 0.5), losses=(2.0, 1.0, 0.5, 0.2), epochs=2, method="palm"):
    return dict(
        method=method, class_names=NAMES, lambdas=list(lambdas), losses=list(losses), epochs=epochs
    )


def logits(right):
    """Logits: right[c] of class c's 20 clips are right, the others say the next class."""
    guess = LABELS.clone()
    for label, number in enumerate(right):
        guess[LABELS.eq(label)] = torch.where(torch.arange(20) < number, label, (label + 1) % 3)
    return torch.nn.functional.one_hot(guess, 3).float()


@pytest.mark.parametrize("lambdas, found", [
    ([0.04] * 9 + [0.5], True), ([0.04] * 8 + [0.5] * 2, False), ([0.96] * 10, True),
    ([0.04, 0.96] * 5, True),
    ([0.051] * 10, False), ([0.94] * 10, False), ([0.3] * 10, False),
])  # fmt: skip
def test_lambdas_at_the_extremes(lambdas, found):
    text = diagnose.lambdas_at_extremes(row(lambdas))
    assert (text is not None) == found
    if found and lambdas[0] == 0.04 and lambdas[-1] == 0.5:
        assert text == "lambda at the extremes everywhere: of 10, 9 below 0.05 and 0 above 0.95"


@pytest.mark.parametrize("before, after, found", [
    ((10, 10, 10), (20, 2, 10), "dog -0.40, bell +0.50"),
    ((10, 10, 10), (20, 10, 10), None),  # one improves, none degrades
    ((20, 20, 10), (5, 20, 10), None),  # one degrades, none improves
    ((10, 10, 10), (11, 9, 10), None),  # too little
    ((10, 10, 10), (13, 7, 10), None),  # over a tenth, but not clear with 20 clips after Holm
])  # fmt: skip
def test_some_degrade_while_others_improve(before, after, found):
    text = diagnose.classes_that_degrade(logits(after), logits(before), LABELS, NAMES)
    assert text == (found and f"some classes degrade while others improve: {found}")


def test_changed_classes():
    some = LABELS < 2  # none of class rain
    table = diagnose.changed_classes(
        logits((20, 5, 0))[some], logits((10, 5, 0))[some], LABELS[some], NAMES
    )
    assert table.index.tolist() == ["bell", "dog"] and table["clips"].tolist() == [20, 20]
    assert table["change"].tolist() == [0.5, 0]
    assert table.loc["bell", "p_holm"] < 0.01 and table.loc["dog", "p_holm"] == 1


@pytest.mark.parametrize("losses, found", [
    ((1, 3, 3, 3), "rose from 1.0 to 3.0 and ended at 3.0; guessing evenly costs 1.1"),
    ((1, 3, 3, 1, 1, 1), None),  # thrown off, but it came back
    ((3, 3, 3, 3), None),  # bad, but steady
    ((1, float("nan"), 1, 1), "not finite from step 1 on"),
    ((1, 2, float("inf"), 1), "not finite from step 2 on"),
    ((), None),
])  # fmt: skip
def test_unstable_training(losses, found):
    text = diagnose.unstable_training(row(losses=losses, epochs=len(losses)))
    assert text is None if found is None else found in text


def test_an_epoch_is_its_mean():
    """One bad batch of four is no bad epoch."""
    assert diagnose.unstable_training(row(losses=[2, 9, 1, 1, 1, 1, 2, 1], epochs=2)) is None
    assert diagnose.unstable_training(row(losses=[2, 9, 9, 9, 1, 1, 2, 1], epochs=2)) is not None


def test_all_rules_of_a_row():
    good, bad = (
        dict(logits=logits((10, 10, 10)), labels=LABELS),
        dict(logits=logits((20, 2, 10)), labels=LABELS),
    )
    assert diagnose.diagnose(row(), good, good) == []
    text = diagnose.diagnose(row([0.01] * 3, [1, 9, 9, 9]), bad, good)
    assert [sentence.split(":")[0] for sentence in text] == [
        "training is unstable",
        "lambda at the extremes everywhere",
        "some classes degrade while others improve",
    ]
    assert len(diagnose.diagnose(row([0.01] * 3, [1, 9, 9, 9], method="coop"))) == 1
    with pytest.raises(ValueError, match="other clips"):
        diagnose.diagnose(row(), good, {**good, "labels": LABELS.flip(0)})


def test_trained_methods_show_it(tiny_pengi, one_thread):
    """The rules on real training: at a rate that is far too high, and at the published one."""
    centres = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    features = torch.nn.functional.normalize(
        centres[LABELS] + 2 * torch.randn(60, 64, generator=torch.Generator().manual_seed(1)),
        dim=-1,
    )
    text = {}
    for lr in (0.05, 50):
        palm = PALM(tiny_pengi, NAMES)
        losses = fit(palm, features, LABELS, lr=lr, epochs=20)
        assert np.isfinite(losses).all()
        text[lr] = diagnose.unstable_training(row(palm.lambdas.tolist(), losses, 20))
    assert text[0.05] is None and "rose from" in text[50]
