"""Statistics against scipy, against sums done by hand, and against the error rate they promise."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from palmkit.results import statistics
from palmkit.results.plots import plot_critical_difference

RNG = np.random.default_rng(7)
SCORES = pd.DataFrame(
    {
        "palm": [0.90, 0.80, 0.70, 0.60, 0.50, 0.95],
        "coop": [0.85, 0.82, 0.60, 0.60, 0.35, 0.65],
        "zeroshot": [0.50, 0.40, 0.30, 0.15, 0.10, 0.05],
    },
    index=list("ABCDEF"),
)


class TestSeedInterval:
    @pytest.mark.parametrize("n, level", [(2, 0.95), (3, 0.95), (3, 0.9), (30, 0.99)])
    def test_is_students(self, n, level):
        values = RNG.normal(0.7, 0.1, n)
        expected = stats.t.interval(level, n - 1, values.mean(), stats.sem(values))
        assert statistics.seed_interval(values, level) == pytest.approx(
            (values.mean(), *expected), rel=1e-12
        )

    def test_three_seeds_by_hand(self):
        """4.303 is the table's t of two degrees of freedom; the standard error is 0.1 / sqrt(3)."""
        mean, low, high = statistics.seed_interval([0.6, 0.7, 0.8])
        assert (mean, high - mean, mean - low) == pytest.approx(
            (0.7, 4.303 * 0.057735, 4.303 * 0.057735), abs=1e-4
        )

    def test_one_seed_has_no_interval_and_none_is_an_error(self):
        assert (
            statistics.seed_interval([0.5])[0] == 0.5
            and np.isnan(statistics.seed_interval([0.5])[1:]).all()
        )
        with pytest.raises(ValueError, match=r"one value at least, not \[0\]"):
            statistics.seed_interval([])
        with pytest.raises(ValueError, match=r"must be \[n\]"):
            statistics.seed_interval([[0.1, 0.2]])

    def test_limits_are_cut_where_the_measure_ends(self):
        """Student's interval of three good seeds runs to 1.05."""
        values = [0.99, 0.93, 0.96]
        whole, cut = (
            statistics.seed_interval(values),
            statistics.seed_interval(values, bounds=statistics.SHARE),
        )
        assert whole[2] > 1.03 and cut == (whole[0], whole[1], 1.0)
        low = statistics.seed_interval([0.01, 0.07, 0.04], bounds=statistics.SHARE)
        assert low[1:] == pytest.approx((0, 0.04 + stats.t.ppf(0.975, 2) * 0.03 / np.sqrt(3)))
        assert statistics.seed_interval([-0.9, 0.8, -0.9], bounds=statistics.DIFFERENCE)[1] == -1

    def test_cutting_keeps_the_coverage(self):
        rng, inside = np.random.default_rng(0), np.zeros(2)
        for _ in range(300):
            values = rng.binomial(100, 0.97, 3) / 100
            for n, bounds in enumerate((statistics.ANY_NUMBER, statistics.SHARE)):
                _, low, high = statistics.seed_interval(values, bounds=bounds)
                inside[n] += low <= 0.97 <= high
        assert inside[0] == inside[1]

    @pytest.mark.parametrize("values", [[0.7, 0.7], [0.1 + 0.2, 0.3, 0.3], [1.0] * 3])
    def test_equal_seeds_are_no_certainty(self, values):
        mean, *limits = statistics.seed_interval(values, bounds=statistics.SHARE)
        assert mean == pytest.approx(values[0]) and np.isnan(limits).all()

    def test_arrays_of_limits(self):
        low, high = statistics.interval_limits(
            np.array([0.5, 0.9, 0.9]),
            np.array([0.1, 0.1, 0.0]),
            np.array([3, 3, 3]),
            bounds=statistics.SHARE,
        )
        half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
        assert low == pytest.approx([0.5 - half, 0.9 - half, np.nan], nan_ok=True)
        assert high == pytest.approx([0.5 + half, 1, np.nan], nan_ok=True)


def draw_right(rng, seeds, clips, seed_std, clip_std):
    """[seeds, clips] right or wrong: log odds of 1, plus a part of each seed and of each clip."""
    log_odds = 1 + rng.normal(0, seed_std, (seeds, 1)) + rng.normal(0, clip_std, (1, clips))
    return (log_odds + rng.logistic(0, 1, (seeds, clips)) > 0).astype(float)


class TestSeedClipInterval:
    def test_mean_squares_are_those_of_a_two_way_analysis(self):
        """Sums done in full, cell by cell, and the variance's textbook form."""
        scores = RNG.normal(0, 1, (4, 6)) + RNG.normal(0, 2, (4, 1)) + RNG.normal(0, 1, (1, 6))
        mean, rows, columns = scores.mean(), scores.mean(1), scores.mean(0)
        of_seeds = sum(6 * (row - mean) ** 2 for row in rows) / 3
        of_clips = sum(4 * (column - mean) ** 2 for column in columns) / 5
        rest = 0.0
        for i in range(4):
            for j in range(6):
                rest += (scores[i, j] - rows[i] - columns[j] + mean) ** 2 / 15
        variance = (of_seeds + of_clips - rest) / 24
        degrees = (24 * variance) ** 2 / (of_seeds**2 / 3 + of_clips**2 / 5 + rest**2 / 15)
        error, found = statistics.two_way_error(scores)
        assert (error, found) == pytest.approx((np.sqrt(variance), max(degrees, 3)))
        half = stats.t.ppf(0.975, found) * error
        interval = statistics.seed_clip_interval(scores, bounds=statistics.ANY_NUMBER)
        assert interval == pytest.approx((mean, mean - half, mean + half))

    def test_without_clip_noise_it_is_the_seeds_interval(self):
        """All clips alike: the seeds' means alone decide."""
        values = np.array([0.2, 0.5, 0.9])
        scores = np.repeat(values[:, None], 50, axis=1)
        assert statistics.seed_clip_interval(scores) == pytest.approx(
            statistics.seed_interval(values, bounds=statistics.SHARE)
        )

    def test_without_seed_noise_it_is_the_clips_interval(self):
        right = (np.arange(40) < 30).astype(float)
        found = statistics.seed_clip_interval(np.stack([right] * 3))
        expected = stats.t.interval(0.95, 39, 0.75, stats.sem(right))
        assert found == pytest.approx((0.75, *expected))

    def test_nothing_to_estimate_from(self):
        for scores in ([[1, 0, 1]], [[1], [0]], [[1, 1], [1, 1]]):
            mean, *limits = statistics.seed_clip_interval(scores)
            assert mean == np.mean(scores) and np.isnan(limits).all()
        with pytest.raises(ValueError, match=r"scores must be \[seeds, clips\], not \[2\]"):
            statistics.seed_clip_interval([0, 1])

    def test_limits_stay_within_the_bounds(self):
        scores = np.ones((3, 20))
        scores[0, 0] = 0
        assert statistics.seed_clip_interval(scores)[2] == 1

    @pytest.mark.parametrize("spread", [(0.0, 2.0), (0.6, 1.0)], ids=str)
    def test_it_contains_the_truth_95_times_in_100(self, spread):
        """Three seeds, 120 clips, where clips differ most and where seeds do.

        The seeds' own interval has the truth 86 times in 100 in the first case, one over clips
        alone 58 times in the second.
        """
        rng = np.random.default_rng(1)
        truth = np.mean([draw_right(rng, 50, 1000, *spread).mean() for _ in range(20)])
        inside = []
        for _ in range(300):
            _, low, high = statistics.seed_clip_interval(draw_right(rng, 3, 120, *spread))
            inside.append(low <= truth <= high)
        assert np.mean(inside) > 0.9


class TestDifferenceMargin:
    @pytest.mark.parametrize("n_a, n_b", [(3, 3), (3, 10), (2, 5)])
    def test_of_one_dataset_is_welchs(self, n_a, n_b):
        a, b = RNG.normal(0, 1, n_a), RNG.normal(0, 3, n_b)
        interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
        margin = statistics.difference_margin(a.std(ddof=1), n_a, b.std(ddof=1), n_b)
        assert margin == pytest.approx((interval.high - interval.low) / 2, rel=1e-9)

    def test_of_a_lone_seed_is_a_prediction_interval(self):
        b = np.array([0.2, 0.5, 0.6, 0.9])
        expected = stats.t.ppf(0.975, 3) * b.std(ddof=1) * np.sqrt(1 + 1 / 4)
        assert statistics.difference_margin(np.nan, 1, b.std(ddof=1), 4) == pytest.approx(expected)
        assert statistics.difference_margin(b.std(ddof=1), 4, np.nan, 1) == pytest.approx(expected)

    def test_of_a_mean_over_equal_datasets_by_hand(self):
        """Four datasets, std 0.1, three seeds a side: 8 variances of 0.01/3, 16 degrees."""
        expected = stats.t.ppf(0.975, 16) * np.sqrt(8 * 0.01 / 3) / 4
        assert statistics.difference_margin([0.1] * 4, 3, [0.1] * 4, [3] * 4) == pytest.approx(
            expected
        )

    def test_without_any_spread(self):
        assert np.isnan(statistics.difference_margin(np.nan, 1, np.nan, 1))
        assert np.isnan(statistics.difference_margin([0.1, np.nan], [3, 1], [0.1, np.nan], [3, 1]))
        assert np.isnan(statistics.difference_margin(0.1, 3, np.nan, np.nan))  # nothing published
        assert np.isnan(statistics.difference_margin(0.0, 3, 0.0, 3))  # equal seeds: no certainty
        assert statistics.difference_margin([0.0, 0.1], 3, [0.0, 0.1], 3) > 0

    @pytest.mark.parametrize("seeds", [1, 3, 10])
    def test_two_runs_of_one_procedure_lie_within_it_95_times_in_100(self, seeds):
        rng, std = np.random.default_rng(0), np.array([0.04, 0.1, 0.003, 0.02, 0.03])[:, None]
        inside = 0
        for _ in range(1500):
            a, b = rng.normal(0, std, (5, seeds)), rng.normal(0, std, (5, 3))
            spread = a.std(1, ddof=1) if seeds > 1 else np.full(5, np.nan)
            inside += abs(a.mean() - b.mean()) <= statistics.difference_margin(
                spread, seeds, b.std(1, ddof=1), 3
            )
        assert 0.93 < inside / 1500 < 0.975


class TestPairedBootstrap:
    def test_interval_is_that_of_drawing_clips(self):
        """The multinomial is the plain bootstrap: draw indices, take the mean."""
        a, b = RNG.random(300) < 0.8, RNG.random(300) < 0.7
        gain = a.astype(float) - b
        plain = np.random.default_rng(3).choice(gain, (20_000, 300)).mean(1)
        found = statistics.paired_bootstrap(a, b, draws=20_000)
        assert found["difference"] == pytest.approx(gain.mean())
        assert [found["low"], found["high"]] == pytest.approx(
            np.quantile(plain, [0.025, 0.975]), abs=0.005
        )

    def test_scipys_percentile_interval(self):
        a, b = RNG.random(200) < 0.9, RNG.random(200) < 0.75
        theirs = stats.bootstrap(
            (a.astype(float) - b,), np.mean, method="percentile", rng=np.random.default_rng(0)
        )
        found = statistics.paired_bootstrap(a, b)
        assert [found["low"], found["high"]] == pytest.approx(theirs.confidence_interval, abs=0.01)

    def test_pairs_are_kept(self):
        """The same scores: clear if both err on the same clips, not clear on other clips."""
        a = np.arange(200) < 150
        b = np.arange(200) < 140
        assert statistics.paired_bootstrap(a, b)["p"] < 0.005
        assert statistics.paired_bootstrap(a, b[::-1])["p"] > 0.1

    def test_swapped_sides_mirror_and_equals_tie(self):
        a, b = RNG.random(100) < 0.8, RNG.random(100) < 0.6
        one, other = statistics.paired_bootstrap(a, b), statistics.paired_bootstrap(b, a)
        assert [one["low"], one["high"]] == pytest.approx([-other["high"], -other["low"]], abs=0.02)
        same = statistics.paired_bootstrap(a, a)
        assert (same["difference"], same["p"]) == (0, 1)
        assert np.isnan([same["low"], same["high"]]).all()

    def test_p_is_exact_where_the_interval_is_too_narrow(self):
        """20 clips, 5 lost and none won: the draws said p 0.006."""
        found = statistics.paired_bootstrap(np.arange(20) < 10, np.arange(20) < 15)
        assert found["difference"] == -0.25 and found["high"] < 0
        assert found["p"] == pytest.approx(2 * 0.5**5)

    def test_the_seed_decides(self):
        a, b = RNG.random(50), RNG.random(50)
        assert statistics.paired_bootstrap(a, b, seed=1) == statistics.paired_bootstrap(
            a, b, seed=1
        )
        assert statistics.paired_bootstrap(a, b, seed=1) != statistics.paired_bootstrap(
            a, b, seed=2
        )

    @pytest.mark.parametrize("a, b", [([], []), ([[1]], [[0]])])
    def test_wrong_shapes(self, a, b):
        with pytest.raises(ValueError, match="one clip at least"):
            statistics.paired_bootstrap(a, b)


class TestSignTest:
    def test_by_hand(self):
        """Two tails of 2^-n for each pattern at least as extreme."""
        assert statistics.sign_test(0, 5) == statistics.sign_test(5, 0) == pytest.approx(2 / 32)
        assert statistics.sign_test(1, 9) == pytest.approx(2 * (1 + 10) / 1024)
        assert statistics.sign_test(3, 3) == statistics.sign_test(0, 0) == 1
        assert statistics.sign_test(np.int64(2), np.int64(0)) == 0.5

    @pytest.mark.parametrize("clips", [5, 8, 20, 100])
    def test_it_errs_one_time_in_twenty_at_most(self, clips):
        """Summed over all outcomes, not drawn."""
        won = np.arange(clips + 1)
        wrong = np.array([statistics.sign_test(n, clips - n) < 0.05 for n in won])
        assert stats.binom.pmf(won, clips, 0.5)[wrong].sum() <= 0.05

    def test_clips_of_two_methods(self):
        a = np.array([1, 1, 0, 0, 1, 0, 0], bool)
        b = np.array([1, 0, 1, 1, 1, 1, 0], bool)
        found = statistics.compare_clips(a, b)
        assert found == {
            "won": 1, "lost": 3, "difference": pytest.approx(a.mean() - b.mean()),
            "p": pytest.approx(2 * (1 + 4) / 16), "clips": 7,
        }  # fmt: skip

    def test_shares_of_seeds_and_other_clips_are_refused(self):
        with pytest.raises(ValueError, match="compare one seed at a time"):
            statistics.compare_clips([0.5, 1], [1, 1])
        with pytest.raises(ValueError, match=r"not \[2\], \[3\]"):
            statistics.compare_clips([0, 1], [1, 1, 0])


class TestEquivalence:
    def test_it_is_the_larger_of_two_one_sided_ps(self):
        difference = np.array([0.01, -0.02, 0.015, 0.0])
        error = difference.std(ddof=1) / 2
        higher = stats.t.sf((difference.mean() + 0.05) / error, 3)
        lower = stats.t.cdf((difference.mean() - 0.05) / error, 3)
        assert statistics.equivalence_test(difference, 0.05) == pytest.approx(max(higher, lower))
        assert statistics.equivalence_test(-difference, 0.05) == pytest.approx(max(higher, lower))

    def test_it_is_small_where_the_90_percent_interval_lies_inside(self):
        for _ in range(50):
            difference = RNG.normal(0.01, 0.03, 5)
            _, low, high = statistics.seed_interval(difference, 0.90)
            inside = low > -0.04 and high < 0.04
            assert (statistics.equivalence_test(difference, 0.04) < 0.05) == inside

    @pytest.mark.slow
    def test_a_difference_of_the_margin_passes_one_time_in_twenty(self):
        rng = np.random.default_rng(0)
        p = [statistics.equivalence_test(rng.normal(0.05, 0.02, 3), 0.05) for _ in range(500)]
        assert 0.02 < np.mean(np.array(p) < 0.05) < 0.08

    def test_without_spread_it_says_nothing(self):
        for values in ([0.0], [0.0, 0.0, 0.0]):
            assert np.isnan(statistics.equivalence_test(values, 0.05))
        with pytest.raises(ValueError, match="the margin must be positive"):
            statistics.equivalence_test([0.1, 0.2], 0)

    @pytest.mark.parametrize(
        "low, high, said",
        [
            (0.01, 0.2, "higher"),
            (-0.2, -0.01, "lower"),
            (-0.02, 0.01, "equal within 0.03"),
            (-0.02, 0.04, "not shown"),
            (-0.5, 0.01, "not shown"),
            (np.nan, np.nan, "not shown"),
        ],
    )
    def test_what_an_interval_shows(self, low, high, said):
        assert statistics.describe_difference(low, high, 0.03) == said


class TestHolm:
    def test_by_hand(self):
        """0.01 x 3; 0.02 x 2; 0.04 is below the one before it, and so takes its value."""
        assert statistics.holm([0.021, 0.01, 0.04]) == pytest.approx([0.042, 0.03, 0.042])
        assert statistics.holm([0.5, 0.6]) == pytest.approx([1, 1])

    def test_what_has_no_p_counts_as_a_comparison(self):
        adjusted = statistics.holm([0.01, np.nan, 0.02])
        assert adjusted == pytest.approx([0.03, np.nan, 0.04], nan_ok=True)

    def test_it_errs_once_in_a_family_one_time_in_twenty(self):
        p = np.random.default_rng(0).random((1000, 6))
        assert np.mean([statistics.holm(family).min() < 0.05 for family in p]) < 0.07

    def test_properties(self):
        p = RNG.random(20) ** 3
        adjusted = statistics.holm(p)
        assert (adjusted >= p).all() and (
            adjusted <= np.minimum(1, 20 * p)
        ).all()  # between none and Bonferroni's
        assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
        assert statistics.holm([0.03]) == pytest.approx([0.03])


class TestEffectSizes:
    def test_rank_biserial_by_hand(self):
        """|d| ranks 1 2 3 4, the second is against: (1 - 2 + 3 + 4) / 10. A zero is left out."""
        assert statistics.rank_biserial([0.1, -0.2, 0.3, 0.4, 0]) == pytest.approx(0.6)
        assert statistics.rank_biserial([0.1, 0.1, -0.1]) == pytest.approx(1 / 3)  # shared ranks
        assert statistics.rank_biserial([1, 2]) == 1 and statistics.rank_biserial([-1, -2]) == -1
        assert np.isnan(statistics.rank_biserial([0, 0]))

    def test_rank_biserial_is_scipys_statistic_rescaled(self):
        difference = RNG.normal(0.3, 1, 11)
        smaller = stats.wilcoxon(difference).statistic  # the smaller rank sum of the two
        assert abs(statistics.rank_biserial(difference)) == pytest.approx(
            1 - 2 * smaller / (11 * 12 / 2)
        )

    def test_cohens_dz(self):
        """It is the paired t over the root of n."""
        a, b = RNG.random(11), RNG.random(11)
        assert statistics.cohens_dz(a - b) == pytest.approx(
            stats.ttest_rel(a, b).statistic / np.sqrt(11)
        )


class TestComparePaired:
    def test_against_scipy(self):
        table = statistics.compare_paired(SCORES)
        assert list(table.index) == ["coop", "zeroshot"]
        coop = table.loc["coop"]
        assert tuple(coop[["wins", "ties", "losses", "n"]]) == (4, 1, 1, 6)
        assert coop["difference"] == pytest.approx((SCORES["palm"] - SCORES["coop"]).mean())
        # +5, -2, +10, +15, +30 points: only the smallest is against, so 2 x 2 of 2^5 sign patterns
        # are as extreme.
        assert (
            coop["p"]
            == pytest.approx(4 / 32)
            == stats.wilcoxon([0.05, -0.02, 0.1, 0.15, 0.3]).pvalue
        )
        assert coop["rank_biserial"] == pytest.approx(13 / 15)
        assert table.loc["zeroshot", "p"] == pytest.approx(2 / 64)
        assert list(table["p_holm"]) == pytest.approx(statistics.holm(table["p"]))

    def test_a_tie_is_a_tie_whatever_the_order_of_the_sum(self):
        scores = SCORES.assign(coop=SCORES["coop"])
        scores.loc["D", ["palm", "coop"]] = [(0.1 + 0.2 + 0.3) / 3, (0.3 + 0.2 + 0.1) / 3]
        assert scores.loc["D", "palm"] != scores.loc["D", "coop"]
        assert statistics.compare_paired(scores).loc["coop", "ties"] == 1
        assert statistics.mean_ranks(scores)["palm"] == pytest.approx((1 + 2 + 1 + 1.5 + 1 + 1) / 6)
        assert statistics.rank_biserial(scores["palm"] - scores["coop"]) == pytest.approx(13 / 15)

    def test_nothing_to_test(self):
        with pytest.raises(ValueError, match="palm and coop tie on every dataset"):
            statistics.compare_paired(SCORES.assign(coop=SCORES["palm"]))
        with pytest.raises(ValueError, match="every method on every dataset"):
            statistics.compare_paired(SCORES.mask(SCORES == 0.85))


def test_friedman_by_hand_and_by_scipy():
    """Without ties 12 / (N k (k + 1)) x sum of squared rank sums - 3 N (k + 1).

    The rank sums of five datasets are 6, 9, 15.
    """
    scores = SCORES.drop(index="D")
    statistic, p = statistics.friedman(scores)
    assert statistics.mean_ranks(scores).tolist() == pytest.approx([6 / 5, 9 / 5, 3])
    assert statistic == pytest.approx(12 / (5 * 3 * 4) * (6**2 + 9**2 + 15**2) - 3 * 5 * 4)
    assert p == pytest.approx(stats.chi2.sf(statistic, 2))
    assert statistics.friedman(SCORES)[0] == pytest.approx(
        stats.friedmanchisquare(*SCORES.to_numpy().T).statistic
    )


@pytest.mark.parametrize(
    "methods, q", [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)]
)
def test_critical_difference_is_demsars(methods, q):
    """Table 5 of Demsar (2006): critical values of the two-tailed Nemenyi test at 0.05."""
    expected = q * np.sqrt(methods * (methods + 1) / (6 * 14))
    assert statistics.critical_difference(methods, 14) == pytest.approx(expected, rel=5e-4)
    assert statistics.critical_difference(methods, 14, level=0.9) < expected


class TestCriticalDifferencePlot:
    @pytest.fixture(autouse=True)
    def close(self):
        yield
        plt.close("all")

    def bars(self, scores):
        ax = plot_critical_difference(scores)
        ranks = statistics.mean_ranks(scores)
        name = {round(float(rank), 9): method for method, rank in ranks.items()}
        bars = [line.get_xdata() for line in ax.lines if line.get_linewidth() == 3]
        return [tuple(name[round(float(x), 9)] for x in bar) for bar in bars], ax

    def test_bars_join_what_does_not_differ(self):
        """20 datasets in the same order: ranks 1, 2, 3, 4 and a critical difference of 1.05."""
        scores = pd.DataFrame(
            [[0.9, 0.8, 0.7, 0.6]] * 20, columns=["palm", "cocoop", "coop", "zeroshot"]
        )
        bars, ax = self.bars(scores)
        assert statistics.critical_difference(4, 20) == pytest.approx(1.05, abs=0.01)
        assert bars == [("palm", "cocoop"), ("cocoop", "coop"), ("coop", "zeroshot")]
        assert "20 datasets" in ax.get_xlabel()

    def test_one_bar_over_all_and_none(self):
        few = pd.DataFrame([[0.9, 0.8, 0.7]] * 2, columns=["palm", "coop", "zeroshot"])
        assert self.bars(few)[0] == [("palm", "zeroshot")]  # not one for each pair inside it
        assert self.bars(pd.concat([few] * 30))[0] == []

    def test_takes_an_axes_and_returns_it(self):
        _, ax = plt.subplots()
        assert plot_critical_difference(SCORES, ax) is ax
