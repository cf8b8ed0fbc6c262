"""What setting a lambda to 0 changes, against a PALM whose lambda is 0."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from palmkit import PALM, fit, predict
from palmkit.results.lambdas import class_relations, predict_without, zeroed_lambdas
from palmkit.results.statistics import holm

NAMES = ["dog", "rain", "bell"]
LABELS = torch.arange(24) % 3
FEATURES = F.normalize(torch.randn(24, 64, generator=torch.Generator().manual_seed(5)), dim=-1)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def palm(tiny_pengi):
    method = PALM(tiny_pengi, NAMES, seed=0)
    fit(method, FEATURES, LABELS, epochs=3)
    return method


def zero_by_hand(palm, label):
    """Logits with a lambda that is 0 to the last digit."""
    before = palm.lambda_logits.data.clone()
    palm.lambda_logits.data[label] = -200
    logits = predict(palm, FEATURES)
    palm.lambda_logits.data.copy_(before)
    return logits


@pytest.mark.parametrize("label", range(3))
def test_prediction_is_that_of_a_lambda_of_zero(palm, label):
    found = predict_without(palm, FEATURES, np.arange(3) == label)
    torch.testing.assert_close(found, zero_by_hand(palm, label), rtol=1e-5, atol=1e-4)
    assert torch.equal(predict_without(palm, FEATURES, [False] * 3), predict(palm, FEATURES))


def test_changes_of_each_class(palm):
    table = zeroed_lambdas(palm, FEATURES, LABELS)
    before = predict(palm, FEATURES).argmax(1)
    assert table["class_name"].tolist() == NAMES and table["changed"].max() > 0
    for label, line in table.iterrows():
        after = zero_by_hand(palm, label).argmax(1)
        gains = (after == LABELS).double() - (before == LABELS).double()
        assert line["changed"] == pytest.approx((after != before).double().mean().item())
        assert line["accuracy"] == pytest.approx(gains.mean().item())
        assert line["recall"] == pytest.approx(gains[label == LABELS].mean().item())


def test_relations_are_within_datasets():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"dataset": np.repeat(["a", "b"], 20), "class_name": np.arange(40) // 2})
    frame["value"] = rng.standard_normal(40)
    frame["same"] = frame["value"] ** 3 + 100 * (frame["dataset"] == "a")
    frame["noise"] = rng.standard_normal(40)
    table = class_relations(frame, "value", {"same": "the same", "noise": "noise"})
    assert table.index.tolist() == ["the same", "noise"] and table["n"].tolist() == [20, 20]
    means = frame.groupby(["dataset", "class_name"]).mean()
    centered = pd.concat([means.loc[[name]] - means.loc[name].mean() for name in "ab"])
    for label, column in (("the same", "same"), ("noise", "noise")):
        expected = stats.spearmanr(centered["value"], centered[column])
        assert table.loc[label, "rho"] == pytest.approx(expected.statistic)
        assert table.loc[label, "p"] == pytest.approx(expected.pvalue)
    assert table["p_holm"].to_numpy() == pytest.approx(holm(table["p"]))
    assert table.loc["the same", "rho"] > 0.7
