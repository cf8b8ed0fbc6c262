"""Variance components and intraclass correlations against published and hand-made numbers."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from palmkit.results.variance import (
    intraclass_correlation,
    share_explained,
    shuffled_shares,
    variance_components,
)

# Shrout and Fleiss, "Intraclass Correlations: Uses in Assessing Rater Reliability" (1979), table 2.
JUDGES = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def make_frame(class_std=1.0, seed_std=0.0, classes=6, seeds=4, folds=2, dataset="A", number=0):
    """A balanced design: value = class + class and seed + noise of variance 1."""
    rng = np.random.default_rng(number)
    lines = []
    for name in range(classes):
        effect = class_std * rng.standard_normal()
        for seed in range(seeds):
            start = seed_std * rng.standard_normal()
            for fold in range(folds):
                value = effect + start + rng.standard_normal()
                lines.append((dataset, name, seed, fold, value))
    return pd.DataFrame(lines, columns=["dataset", "class_name", "seed", "fold", "value"])


class TestIntraclassCorrelation:
    def test_is_that_of_the_paper(self):
        """The paper gives 0.17, and the interval -0.13 to 0.72."""
        found = intraclass_correlation(JUDGES)
        assert [round(found[name], 2) for name in ("icc", "low", "high")] == [0.17, -0.13, 0.72]
        assert found["p"] == pytest.approx(stats.f_oneway(*JUDGES).pvalue)

    def test_groups_take_their_means_away(self):
        table = np.random.default_rng(1).standard_normal((12, 3))
        groups = np.repeat(["a", "b", "c"], 4)
        shifted = table + np.repeat([0, 10, -5], 4)[:, None]
        found = intraclass_correlation(shifted, groups)
        assert found == pytest.approx(intraclass_correlation(table, groups))
        assert intraclass_correlation(shifted)["icc"] > 0.9 > found["icc"]

    def test_the_interval_holds_the_truth_as_often_as_it_says(self):
        rng = np.random.default_rng(2)
        inside = 0
        for _ in range(300):
            table = rng.standard_normal((8, 1)) + rng.standard_normal((8, 3))
            found = intraclass_correlation(table)
            inside += found["low"] <= 0.5 <= found["high"]
        assert 273 <= inside <= 297

    @pytest.mark.parametrize("table, groups", [([[1], [2]], None), ([[1, 2], [3, 4]], [0, 1])])
    def test_too_few_numbers_are_an_error(self, table, groups):
        with pytest.raises(ValueError, match="no intraclass correlation"):
            intraclass_correlation(table, groups)


class TestVarianceComponents:
    def test_of_balanced_data_are_those_of_an_analysis_of_variance(self):
        frame = make_frame(class_std=2, seed_std=1)
        table = frame.pivot(index=["class_name", "seed"], columns="fold", values="value")
        cells = table.mean(axis=1).unstack()
        residual = table.var(axis=1).mean()
        between_seeds = 2 * cells.var(axis=1).mean()
        between_classes = 8 * cells.mean(axis=1).var()
        expected = [(between_classes - between_seeds) / 8, (between_seeds - residual) / 2, residual]
        assert min(expected) > 0
        factors = {"class": ["class_name"], "start": ["class_name", "seed"]}
        found = variance_components(frame, "value", factors)
        assert list(found.index) == ["class", "start", "residual"]
        assert found.to_numpy() == pytest.approx(expected, rel=1e-3)

    def test_do_not_depend_on_unit_and_origin(self):
        frame = make_frame(class_std=1)
        changed = frame.assign(value=7 + 0.01 * frame["value"])
        factors = {"class": ["class_name"]}
        found = variance_components(frame, "value", factors)
        again = variance_components(changed, "value", factors)
        assert again.to_numpy() == pytest.approx(1e-4 * found.to_numpy(), rel=1e-3)

    def test_a_factor_without_effect_gets_little(self):
        parts = [make_frame(0, dataset=name, number=n, classes=20) for n, name in enumerate("AB")]
        factors = {"dataset": ["dataset"], "class": ["dataset", "class_name"]}
        found = variance_components(pd.concat(parts), "value", factors)
        assert found["class"] < 0.1 and found["residual"] == pytest.approx(1, abs=0.15)


class TestShares:
    def test_by_hand(self):
        frame = pd.DataFrame({"a": [0, 0, 1, 1], "value": [1.0, 3.0, 5.0, 7.0]})
        assert share_explained(frame, ["a"], "value") == pytest.approx(16 / 20)

    def test_shuffled_ones_have_the_mean_of_chance(self):
        """n values in k groups: (k - 1) / (n - 1) on average; 5 / 47 here."""
        frame = make_frame(class_std=3)
        shares = shuffled_shares(frame, ["class_name"], "value", ["dataset"])
        assert shares.shape == (1000,) and shares.mean() == pytest.approx(5 / 47, abs=0.01)
        assert shares.max() < share_explained(frame, ["class_name"], "value")

    def test_shuffling_within_the_groups_themselves_changes_nothing(self):
        frame = make_frame()
        shares = shuffled_shares(frame, ["class_name"], "value", ["class_name"], draws=5)
        assert shares == pytest.approx(share_explained(frame, ["class_name"], "value"))

    def test_leave_the_frame_as_it_is(self):
        frame = make_frame()
        before = frame.copy()
        shuffled_shares(frame, ["class_name"], "value", ["dataset"], draws=2)
        pd.testing.assert_frame_equal(frame, before)
