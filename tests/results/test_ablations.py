"""Variants against the default, and what the sweep shows, on numbers that can be worked out."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from palmkit.results import ablations

SEEDS = (0, 1, 2)
FOLDS = {"one": (1, 2), "two": (np.nan,)}  # a dataset with two folds, and one with a single split


def variant_rows(**shifts):
    """Rows of each variant: its shift, plus noise that pairs share."""
    rng = np.random.default_rng(0)
    cells = [(d, f, s) for d, folds in FOLDS.items() for f in folds for s in SEEDS]
    noise = dict(zip(map(str, cells), rng.uniform(0, 0.2, len(cells)), strict=True))
    lines = []
    for variant, shift in shifts.items():
        for cell in cells:
            own = shift(*cell) if callable(shift) else shift
            line = dict(zip(("dataset", "fold", "seed"), cell, strict=True))
            lines.append(line | {"variant": variant, "accuracy": 0.5 + noise[str(cell)] + own})
    return pd.DataFrame(lines)


def test_a_change_is_paired_and_datasets_count_the_same():
    def shift(dataset, fold, seed):
        return {1: 0.1, 2: 0.3}.get(fold, 0.05) + 0.01 * seed

    rows = variant_rows(default=0.0, other=shift)
    table = ablations.compare_variants(rows, "default", margin=0.01)
    # Dataset one changes by 0.2 (the mean of two folds), two by 0.05; the seeds by 0, 0.01, 0.02.
    expected = np.array([0.125, 0.135, 0.145])
    line = table.loc["other"]
    assert line["change"] == pytest.approx(0.135) and line["seeds"] == 3
    low, high = stats.t.interval(0.95, 2, expected.mean(), stats.sem(expected))
    assert (line["low"], line["high"]) == pytest.approx((low, high))
    assert line["verdict"] == "higher" and table.loc["default", "verdict"] == "default"
    one = rows[(rows["dataset"] == "one") & (rows["variant"] == "other")]["accuracy"].mean()
    two = rows[(rows["dataset"] == "two") & (rows["variant"] == "other")]["accuracy"].mean()
    assert line["accuracy"] == pytest.approx((one + two) / 2)


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [
        (lambda d, f, seed: -0.2 + 0.01 * seed, "lower"),
        (lambda d, f, seed: 0.001 * (seed - 1), "equal within 0.01"),
        (lambda d, f, seed: 0.05 * (seed - 1), "not shown"),
    ],
)
def test_the_verdict_on_a_change(shift, verdict):
    rows = variant_rows(default=0.0, other=shift)
    assert ablations.compare_variants(rows, "default", 0.01).loc["other", "verdict"] == verdict


def test_a_variant_that_lacks_a_trial():
    rows = variant_rows(default=0.0, other=0.1)
    with pytest.raises(ValueError, match="not every variant has .*other"):
        ablations.compare_variants(rows[:-1], "default", 0.01)


def sweep_rows(accuracy, methods=("coop", "palm"), datasets=("one", "two"), shots=(1, 4, 16)):
    """Rows of a sweep: zero-shot is 0.5 on "one" and 0.6 on "two"; learned ones by `accuracy`."""
    lines = []
    for n, dataset in enumerate(datasets):
        zero_shot = dict(method="zeroshot", start="", lr=np.nan, shots=0, seed=0)
        lines.append(dict(dataset=dataset, fold=1, accuracy=0.5 + 0.1 * n) | zero_shot)
        for method, lr, number, seed in itertools.product(methods, (0.005, 0.05), shots, SEEDS):
            cell = dict(dataset=dataset, method=method, lr=lr, shots=number, seed=seed)
            score = accuracy(**cell)
            lines.append(cell | dict(fold=1, start="noise", accuracy=score))
    return pd.DataFrame(lines)


def test_gains_are_over_zero_shot_of_the_same_clips():
    gains = ablations.add_gain(sweep_rows(lambda **cell: 0.8))
    assert "zeroshot" not in set(gains["method"]) and len(gains) == 2 * 2 * 2 * 3 * 3
    by_dataset = gains.groupby("dataset")["gain"].unique()
    assert by_dataset["one"] == pytest.approx([0.3]) and by_dataset["two"] == pytest.approx([0.2])


def test_gains_of_one_split():
    rows = sweep_rows(lambda **cell: 0.8).assign(fold=np.nan)
    assert ablations.add_gain(rows)["gain"].notna().all()


def test_curves_have_an_interval_over_seeds():
    rows = sweep_rows(lambda seed, shots, **cell: 0.5 + 0.01 * shots + 0.01 * seed)
    curves = ablations.gain_curves(ablations.add_gain(rows))
    line = curves.loc[("palm", "noise", 0.05, 4)]
    values = np.array([0.04, 0.05, 0.06]) - 0.05  # zero-shot's mean over datasets is 0.55
    assert line["mean"] == pytest.approx(values.mean())
    assert (line["low"], line["high"]) == pytest.approx(
        stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    )
    assert (line["seeds"], line["datasets"]) == (3, 2)


def test_fewest_shots_from_which_on_a_curve_is_above_zero():
    means = {
        ("coop", "noise", 0.05): {1: -0.1, 4: 0.1, 8: -0.1, 16: 0.2},  # falls back once
        ("coop", "text", 0.05): {1: 0.0, 4: 0.1, 8: 0.1, 16: 0.2},  # zero is not above zero
        ("palm", "noise", 0.05): {1: 0.1, 4: 0.1, 8: 0.1, 16: 0.2},
        ("palm", "text", 0.05): {1: 0.1, 4: 0.1, 8: 0.1, 16: -0.2},
    }
    values = {(*key, shots): mean for key, part in means.items() for shots, mean in part.items()}
    index = pd.MultiIndex.from_tuples(values, names=[*ablations.CURVE, "shots"])
    curves = pd.DataFrame({"mean": list(values.values())}, index).sample(frac=1, random_state=0)
    found = ablations.fewest_shots(curves)
    assert found.dtype == "Int64" and found.drop(("palm", "text", 0.05)).to_dict() == {
        ("coop", "noise", 0.05): 16,
        ("coop", "text", 0.05): 4,
        ("palm", "noise", 0.05): 1,
    }
    assert pd.isna(found["palm", "text", 0.05])


def test_rates_are_chosen_on_the_other_datasets():
    """COOP is best with 0.005 on one and with 0.05 on two: so each gets the other's, its worse."""

    def accuracy(dataset, method, lr, **cell):
        own_best = {"one": 0.005, "two": 0.05}[dataset]
        return 0.9 if method == "coop" and lr == own_best else 0.7

    gains = ablations.add_gain(sweep_rows(accuracy))
    chosen = ablations.rates_chosen_elsewhere(gains, shots=16, start="noise")
    coop = chosen[chosen["method"] == "coop"].drop_duplicates(["dataset", "lr"])
    assert dict(zip(coop["dataset"], coop["lr"], strict=True)) == {"one": 0.05, "two": 0.005}
    assert chosen["accuracy"].unique() == pytest.approx([0.7])
    assert len(chosen) == 2 * 2 * 3
    single = gains[gains["dataset"] == "one"]
    assert ablations.rates_chosen_elsewhere(single, 16, "noise").empty


def test_the_lead_is_paired():
    rows = sweep_rows(lambda method, seed, **cell: 0.7 + (method == "palm") * (0.05 + 0.01 * seed))
    lead = ablations.lead_over(rows[rows["shots"] == 16])
    values = np.array([0.05, 0.06, 0.07])
    line = lead.loc["coop"]
    assert line["lead"] == pytest.approx(0.06)
    assert (line["low"], line["high"]) == pytest.approx(
        stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    )
    assert (line["seeds"], line["datasets"]) == (3, 2)
    assert ablations.lead_over(rows[rows["method"] == "coop"]).empty


def test_the_sweep_has_an_axes_for_each_method_and_start():
    import matplotlib.pyplot as plt

    rows = sweep_rows(lambda shots, **cell: 0.55 + 0.01 * shots)
    fig, axes = plt.subplots(3, 3, layout="constrained")
    ablations.plot_sweep(ablations.gain_curves(ablations.add_gain(rows)), axes)
    coop, _, palm = axes[:, 0]
    for ax in (coop, palm):
        curves = [line for line in ax.lines if line.get_label().startswith("rate")]
        assert [line.get_label() for line in curves] == ["rate 0.005", "rate 0.05"]
        points = np.array(curves[0].get_xydata())
        assert points == pytest.approx(np.array([[1, 1.0], [4, 4.0], [16, 16.0]]))
    assert palm.get_title() == "PALM, from noise"
    assert not axes[0][2].get_visible() and axes[2][2].get_visible()
    assert len(fig.legends[0].get_texts()) == 2
    plt.close(fig)


@pytest.mark.parametrize(
    ("change", "text"), [(0.1234, "+12.3"), (-0.1, "-10.0"), (-0.0001, "+0.0"), (0.0, "+0.0")]
)
def test_points(change, text):
    assert ablations.as_points(change) == text
