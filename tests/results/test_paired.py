"""Differences between two settings are of pairs, and say what they show."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from palmkit.results import paired
from palmkit.results.statistics import ANY_NUMBER, equivalence_test, seed_interval

FROZEN = {0: [0.80, 0.70], 1: [0.75, 0.65], 2: [0.85, 0.75]}  # seed: accuracy in folds 1 and 2
CHANGE = {0: -0.02, 1: -0.04, 2: -0.03}  # of both folds


def make_rows(change=CHANGE, method="palm", setting="released"):
    lines = []
    for seed, folds in FROZEN.items():
        for fold, accuracy in enumerate(folds, 1):
            line = {"dataset": "Rain", "method": method, "fold": fold, "seed": seed}
            lines.append(line | {"setting": "frozen", "accuracy": accuracy})
            lines.append(line | {"setting": setting, "accuracy": accuracy + change[seed]})
    return pd.DataFrame(lines)


class TestPairedDifferences:
    def test_each_trial_is_compared_with_itself(self):
        pairs = paired.paired_differences(make_rows(), "setting", "frozen")
        assert [*pairs] == [*paired.TRIAL, "setting", "difference"]
        assert len(pairs) == 6 and set(pairs["setting"]) == {"released"}
        assert pairs["difference"].to_numpy() == pytest.approx(pairs["seed"].map(CHANGE).to_numpy())

    def test_a_trial_without_its_other_half_is_left_out(self):
        pairs = paired.paired_differences(make_rows().iloc[1:], "setting", "frozen")
        assert len(pairs) == 5 and pairs.query("seed == 0")["fold"].tolist() == [2]

    def test_a_dataset_without_folds(self):
        rows = make_rows().query("fold == 1").assign(fold=None)
        pairs = paired.paired_differences(rows, "setting", "frozen")
        assert pairs["fold"].tolist() == [0, 0, 0] and len(pairs) == 3

    def test_twice_the_same_trial_is_an_error(self):
        rows = pd.concat([make_rows(), make_rows().tail(1)])
        with pytest.raises(ValueError, match="duplicate"):
            paired.paired_differences(rows, "setting", "frozen")

    def test_a_reference_that_is_not_there_is_an_error(self):
        with pytest.raises(KeyError):
            paired.paired_differences(make_rows(), "setting", "thawed")


class TestDescribePairs:
    def describe(self, rows, **more):
        pairs = paired.paired_differences(rows, "setting", "frozen")
        return paired.describe_pairs(pairs, ["method"], **more)

    def test_lines_may_be_of_datasets(self):
        """The fault: pandas warned that a level of the index was there twice."""
        pairs = paired.paired_differences(make_rows(), "setting", "frozen")
        table = paired.describe_pairs(pairs, ["dataset", "method"], margin=0.06)
        expected = self.describe(make_rows(), margin=0.06).loc["palm"]
        pd.testing.assert_series_equal(table.loc[("Rain", "palm")], expected, check_names=False)

    def test_the_interval_is_over_seeds_and_the_tests_agree_with_it(self):
        line = self.describe(make_rows(), margin=0.06).loc["palm"]
        changes = [*CHANGE.values()]
        assert line[["mean", "low", "high"]].tolist() == pytest.approx(seed_interval(changes))
        assert (line["shows"], line["seeds"], line["n"]) == ("lower", 3, 6)
        assert line["p_differ"] == pytest.approx(stats.ttest_1samp(changes, 0).pvalue)
        assert line["p_equal"] == pytest.approx(equivalence_test(changes, 0.06))

    def test_equality_is_shown_only_within_the_margin(self):
        rows = make_rows({0: -0.002, 1: 0.003, 2: 0.001})
        assert self.describe(rows, margin=0.05)["shows"].item() == "equal within 0.05"
        assert self.describe(rows, margin=0.004)["shows"].item() == "not shown"
        table = self.describe(rows)
        assert table["shows"].item() == "not shown" and "p_equal" not in table

    def test_p_is_corrected_for_the_lines(self):
        rows = pd.concat([make_rows(), make_rows({0: -0.1, 1: 0.1, 2: 0.05}, method="coop")])
        table = self.describe(rows, margin=0.05)
        alone = self.describe(make_rows(), margin=0.05).loc["palm"]
        for name in ("p_differ", "p_equal"):
            assert table.loc["palm", name] == pytest.approx(2 * alone[name])
            assert 0 < 2 * alone[name] < 1

    @pytest.mark.parametrize("seeds", [[0], [0, 1, 2]], ids=["one seed", "equal seeds"])
    def test_no_interval_and_no_p(self, seeds):
        rows = make_rows(dict.fromkeys(CHANGE, -0.02))
        table = self.describe(rows[rows["seed"].isin(seeds)], margin=0.05)
        assert table[["low", "high", "p_differ", "p_equal"]].isna().all(axis=None)
        assert table["shows"].item() == "not shown" and table["mean"].item() == pytest.approx(-0.02)

    def test_limits_are_cut_at_the_bounds(self):
        rows = make_rows({0: -0.9, 1: 0.9, 2: 0.9})
        assert self.describe(rows)[["low", "high"]].iloc[0].tolist() == [-1, 1]
        assert self.describe(rows, bounds=ANY_NUMBER)["high"].item() > 1

    def test_datasets_count_alike_however_many_folds_they_have(self):
        other = make_rows(dict.fromkeys(CHANGE, 0.5)).query("fold == 1").assign(dataset="Wind")
        table = self.describe(pd.concat([make_rows(), other]))
        assert table["mean"].item() == pytest.approx((np.mean([*CHANGE.values()]) + 0.5) / 2)

    def test_several_columns_make_lines(self):
        rows = pd.concat([make_rows(), make_rows(setting="only bn0").query("setting != 'frozen'")])
        pairs = paired.paired_differences(rows, "setting", "frozen")
        table = paired.describe_pairs(pairs, ["setting", "method"])
        assert [*table.index] == [("released", "palm"), ("only bn0", "palm")]
        assert table.index.names == ["setting", "method"] and table["n"].tolist() == [6, 6]


def test_the_first_fold_of_each_dataset():
    rows = pd.concat([make_rows(), make_rows().query("fold == 2").assign(dataset="Wind")])
    first = paired.first_folds(paired.paired_differences(rows, "setting", "frozen"))
    folds = first.groupby("dataset")["fold"].unique()
    assert [*folds["Rain"], *folds["Wind"]] == [1, 2] and len(first) == 6


def test_as_text():
    lines = {"mean": [-0.024, 0.0], "low": [-0.045, np.nan], "high": [-0.002, np.nan]}
    lines |= {"p_differ": [0.04, np.nan], "seeds": 3, "shows": ["lower", "not shown"], "n": 6}
    table = pd.DataFrame(lines, index=["coop", "palm"])
    shown = paired.format_pairs(table)
    assert shown.loc["coop"].tolist() == ["-0.02", "-0.04 to -0.00", "lower", "0.040", 3, 6]
    assert shown.loc["palm"].tolist() == ["+0.00", "–", "not shown", "–", 3, 6]
    assert [*paired.format_pairs(table.assign(p_equal=0.01))][3:5] == ["p_differ", "p_equal"]
