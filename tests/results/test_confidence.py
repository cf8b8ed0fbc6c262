"""Confidence by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from palmkit.results import confidence


def test_a_clip_s_confidence_by_hand():
    logits = (
        torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.1, 0.1, 0.7, 0.1]]).log() + 7
    )  # a constant changes nothing
    frame = confidence.confidence_frame(logits, [0, 1])
    assert frame["guess"].tolist() == [0, 2] and frame["right"].tolist() == [True, False]
    assert frame["confidence"].tolist() == pytest.approx([0.5, 0.7], abs=1e-6)
    assert frame["margin"].tolist() == pytest.approx([0.25, 0.6], abs=1e-6)
    assert frame["entropy"][0] == pytest.approx(1.75, abs=1e-6)


def test_certainty_and_even_guessing():
    frame = confidence.confidence_frame(torch.tensor([[1000.0, 0, 0, 0], [1.0, 1, 1, 1]]), [0, 0])
    assert frame["entropy"].tolist() == pytest.approx([0, 2]) and frame[
        "margin"
    ].tolist() == pytest.approx([1, 0])


def test_calibration_error_by_hand():
    """Four clips at 0.95, three right, and a wrong one at 0.55: 0.8 x 0.2 + 0.2 x 0.55."""
    p = torch.tensor([[0.95, 0.05]] * 4 + [[0.55, 0.45]])
    frame = confidence.confidence_frame(p.log(), [0, 0, 0, 1, 1])
    table = confidence.reliability(frame)
    assert table.index.tolist() == [5, 9] and table["clips"].tolist() == [1, 4]
    assert table["accuracy"].tolist() == [0, 0.75] and table[
        "confidence"
    ].tolist() == pytest.approx([0.55, 0.95])
    assert confidence.calibration_error(frame) == pytest.approx(0.8 * 0.2 + 0.2 * 0.55)
    assert confidence.reliability(
        confidence.confidence_frame(torch.tensor([[900.0, 0]]), [0])
    ).index.tolist() == [9]


def test_a_method_that_says_what_it_knows_is_calibrated():
    """Labels drawn from the very probabilities."""
    rng = np.random.default_rng(0)
    logits = torch.tensor(2 * rng.standard_normal((20_000, 3)))
    p = confidence.probabilities(logits)
    labels = [rng.choice(3, p=row) for row in p]
    assert confidence.calibration_error(confidence.confidence_frame(logits, labels)) < 0.015
    assert (
        confidence.calibration_error(confidence.confidence_frame(4 * logits, labels)) > 0.1
    )  # too sure


def test_telling_unknown_clips():
    assert confidence.unknown_auroc([0.9, 0.8], [0.1, 0.2, 0.3]) == 1
    assert confidence.unknown_auroc([0.1], [0.9, 0.8]) == 0
    assert confidence.unknown_auroc([0.5, 0.9], [0.5, 0.1]) == pytest.approx(0.875)


def test_a_table_of_methods_is_of_means_over_datasets():
    logits = torch.tensor([[0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.6, 0.4]]).log()
    first = confidence.confidence_frame(logits, [0, 1, 0, 0]).assign(dataset="A", method="m")
    second = confidence.confidence_frame(logits[:1], [0]).assign(dataset="B", method="m")
    table = confidence.calibration_table(pd.concat([first, second]))
    assert table.index.tolist() == ["m"]
    line = table.loc["m"]
    assert line["accuracy"] == pytest.approx((0.75 + 1) / 2)
    assert line["confidence"] == pytest.approx((0.775 + 0.95) / 2)
    assert line["sure_and_wrong"] == pytest.approx(0.25 / 2)
    errors = [confidence.calibration_error(part) for part in (first, second)]
    assert line["ece"] == pytest.approx(np.mean(errors))
    assert line["auroc"] == pytest.approx(1 / 6)  # 0.95 wrong; right: 0.95 and twice 0.6
