"""The same trials on several models: order of methods, variance, rates; and the shipped file."""

import itertools
import sys

import make_two_models
import numpy as np
import pandas as pd
import pytest
import torch
from notebook_cells import make_tiny_dataset

from palmkit import load_model
from palmkit.embeddings import Embeddings
from palmkit.results import two_models
from palmkit.results.anova import crossed_components
from palmkit.results.variance import variance_components
from palmkit.storage import notebooks_folder
from palmkit_synthetic.tasks import DEFAULT_TASKS

FILE = notebooks_folder() / "data" / "two_models.csv"
SIZES = {"model": 3, "method": 12, "dataset": 6, "draw": 5}
# Standard deviations, in points, of the parts that `simulate` adds up.
PARTS = {
    ("model",): 2,
    ("method",): 5,
    ("dataset",): 10,
    ("dataset", "draw"): 3,
    ("model", "method"): 3,
    ("method", "dataset"): 4,
    ("model", "method", "dataset", "draw"): 2,
}


def simulate(seed, parts=PARTS):
    """Cells as `score_cells` gives them: sums of independent parts."""
    rng, axes = np.random.default_rng(seed), [*SIZES]
    total = np.zeros([*SIZES.values()])
    for names, std in parts.items():
        shape = [SIZES[name] if name in names else 1 for name in axes]
        total = total + rng.normal(0, std / 100, shape)
    index = pd.MultiIndex.from_product(
        [range(SIZES[name]) for name in ("model", "dataset", "draw")],
        names=["model", "dataset", "seed"],
    )
    values = total.transpose(0, 2, 3, 1).reshape(len(index), -1)
    return pd.DataFrame(values, index, [f"method{n}" for n in range(SIZES["method"])])


# Variance


@pytest.mark.slow
def test_components_are_unbiased():
    """Means over 200 simulated tables are what was put in, within four standard errors."""
    found = pd.concat([crossed_components(simulate(n))["variance"] for n in range(200)], axis=1)
    error = found.std(axis=1) / 200**0.5
    expected = {"model": 4, "method": 25, "dataset": 100, "draw": 9, "model x method": 9,
                "method x dataset": 16, "model x method x draw": 4}  # fmt: skip
    expected = pd.Series(expected).reindex(found.index, fill_value=0)
    assert ((found.mean(axis=1) - expected).abs() <= 4 * error + 1e-9).all()


def test_components_without_negative_ones_are_those_of_reml():
    """`variance_components` maximises a likelihood: the same where no estimate is negative."""
    more = [("model", "dataset"), ("model", "dataset", "draw"), ("method", "dataset", "draw")]
    parts = PARTS | dict.fromkeys([*more, ("model", "method", "dataset")], 3)
    for seed in range(50):
        cells = simulate(seed, parts)
        cells = cells[[*cells][:5]].query("dataset < 3 and seed < 3")
        got = crossed_components(cells)["variance"]
        if (got > 0.1).all():
            break
    assert (got > 0.1).all()
    frame = cells.rename_axis(columns="method").stack().rename("y").reset_index()
    columns = {"draw": ["dataset", "seed"], "model x method x draw": None}
    factors = {}
    for name in got.index[:-1]:
        factors[name] = [c for one in name.split(" x ") for c in columns.get(one, [one])]
    expected = variance_components(frame.assign(y=100 * frame["y"]), "y", factors)
    assert got.to_numpy() == pytest.approx(expected.to_numpy(), rel=2e-2, abs=0.02)


def test_shares_and_freedom():
    table = crossed_components(simulate(0))
    assert table["share"].sum() == pytest.approx(1) and (table["share"] >= 0).all()
    assert table["freedom"].sum() == np.prod([*SIZES.values()]) - 1
    assert table.loc["draw", "freedom"] == 6 * 4 and table.loc["model", "freedom"] == 2


# Order


def kendall_by_hand(a, b):
    signs = [
        (np.sign(a[i] - a[j]), np.sign(b[i] - b[j]))
        for i, j in itertools.combinations(range(len(a)), 2)
    ]
    both = sum(x * y for x, y in signs)
    return both / np.sqrt(sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs))


def test_tau_is_kendalls():
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(0, 6, 9) / 10, rng.integers(0, 6, 9) / 10
        assert two_models.kendall(a, b) == pytest.approx(kendall_by_hand(a, b))
    assert two_models.kendall([0.1, 0.3], [0.1, 0.1 + 0.2]) == 1.0
    sums, tie = [0.3, 0.1 + 0.2, 0.5], [0.1, 0.1, 0.2]  # sums of the same numbers are a tie
    assert two_models.kendall(sums, tie) == two_models.kendall(tie, sums) == 1.0


def test_agreement_of_a_model_with_itself_and_with_another():
    cells = simulate(0)
    same = two_models.rank_agreement(cells.loc[0], cells.loc[0])
    assert (same["tau"], same["within"]) == (1.0, 1.0) and np.isnan(same["low"])
    turned = two_models.rank_agreement(cells.loc[0], -cells.loc[0])
    assert (turned["tau"], turned["within"]) == (-1.0, -1.0)
    got = two_models.rank_agreement(cells.loc[0], cells.loc[1])
    parts = [cells.loc[n].groupby("dataset").mean() for n in (0, 1)]
    assert got["tau"] == pytest.approx(kendall_by_hand(*(x.mean().to_numpy() for x in parts)))
    taus = [kendall_by_hand(*(x.loc[d].to_numpy() for x in parts)) for d in range(6)]
    assert got["within"] == pytest.approx(np.mean(taus))
    half = 2.5706 * np.std(taus, ddof=1) / 6**0.5  # Student's, five degrees of freedom
    assert [got["low"], got["high"]] == pytest.approx(
        [np.mean(taus) - half, np.mean(taus) + half], abs=1e-4
    )


def test_pairs_of_draws_leave_equal_seeds_out():
    table = two_models.tau_table(simulate(0))
    assert table.loc[(0, 0), "pairs"] == 10 and table.loc[(0, 1), "pairs"] == 20
    assert ((table["least"] <= table["tau"]) & (table["tau"] <= table["most"])).all()


# The table of trials


def line(**values):
    default = dict(model="a", dataset="x", fold=1, seed=0, method="palm", lr=0.05, scale=np.nan)
    return default | dict(accuracy=0.5, held_out=0.5, lambdas="", weights="w") | values


def test_cells_are_of_the_paper_settings_and_repeat_what_learns_nothing():
    rows = [line(seed=n, accuracy=0.1 * n) for n in range(3)]
    rows += [line(lr=0.5, accuracy=0.9), line(scale=20.0, accuracy=0.9)]
    rows += [line(method="zeroshot", accuracy=0.4)]
    cells = two_models.score_cells(pd.DataFrame(rows))
    assert cells["palm"].tolist() == pytest.approx([0, 0.1, 0.2])
    assert cells["zeroshot"].tolist() == [0.4] * 3 and [*cells] == ["zeroshot", "palm"]
    with pytest.raises(ValueError, match="no trial of .*coop"):
        two_models.score_cells(pd.DataFrame([*rows, line(method="coop", seed=1)]))


def test_the_rate_is_chosen_without_test_accuracy():
    rows = [line(lr=0.005, held_out=0.6, accuracy=0.1), line(lr=0.05, held_out=0.5, accuracy=0.9),
            line(lr=0.5, held_out=0.6, accuracy=0.2), line(lr=0.15, held_out=0.6, accuracy=0.3),
            line(lr=1.5, held_out=np.nan, accuracy=1.0), line(scale=9.0, held_out=0.9)]  # fmt: skip
    chosen = two_models.choose_rates(pd.DataFrame(rows))
    assert chosen["lr"].tolist() == [0.15]  # of the best three the nearest to 0.05


def test_curves_and_the_largest_rate_that_still_does():
    given = [("b", 0.1, 0.7), ("b", 1, 0.69), ("b", 9, 0.6), ("a", 0.1, 0.5), ("a", 1, 0.6)]
    rows = [line(model=m, lr=r, accuracy=a, lambdas="0.2 0.4") for m, r, a in given]
    curves = two_models.rate_curves(pd.DataFrame([*rows, line(model="a", scale=3.0, lr=1)]))
    assert curves.loc[("b", 1), "accuracy"] == pytest.approx(0.69)
    assert curves["lambda"].to_numpy() == pytest.approx(0.3) and len(curves) == 5
    assert two_models.widest_rate(curves, 0.02).to_dict() == {"b": 1, "a": 1}
    assert two_models.widest_rate(curves, 0.2).to_dict() == {"b": 9, "a": 1}


def test_lambdas_by_class_and_their_correlation():
    rows = [line(model=m, dataset=d, seed=s, lambdas=text)
            for m in "ab" for s in (0, 1, 2)
            for d, text in (("x", "0.1 0.2 0.3"), ("y", "0.9 0.8"))]  # fmt: skip
    rows += [line(model=m, dataset="x", method="zeroshot") for m in "ab"]
    wide = two_models.lambda_table(pd.DataFrame(rows))
    assert wide.loc[("y", 2, 1), "b"] == 0.8 and len(wide) == 15
    found = two_models.lambda_correlations(pd.DataFrame(rows))
    assert [*found.index] == ["a / a", "a / b", "b / b"]
    assert found.to_numpy() == pytest.approx(1)


def make_support(clips=8, classes=3, noise=0.1):
    generator = torch.Generator().manual_seed(0)
    means = torch.nn.functional.normalize(torch.randn(classes, 256, generator=generator), dim=-1)
    labels = torch.arange(clips * classes)[torch.randperm(clips * classes, generator=generator)]
    labels = labels % classes
    features = means[labels] + noise * torch.randn(len(labels), 256, generator=generator)
    return labels, torch.nn.functional.normalize(features, dim=-1)


def test_clips_that_are_left_out_are_not_learned_from(monkeypatch):
    model = load_model("mini", "cpu")
    labels, features = make_support()
    support = Embeddings(features, labels, [""] * len(labels), [0] * len(labels))
    seen = []
    fit = make_two_models.fit
    monkeypatch.setattr(
        make_two_models, "fit", lambda m, x, y, **k: (seen.append((x, y)), fit(m, x, y, **k))
    )
    names = ["dog", "rain", "siren"]
    score = make_two_models.score_left_out(model, names, support, 0, lr=0.05, epochs=20)
    assert score > 0.9 and len(seen) == make_two_models.FOLDS
    left = [
        {n for n in range(len(features)) if not (x == features[n]).all(1).any()} for x, _ in seen
    ]
    assert sorted(n for one in left for n in one) == [*range(len(features))]
    for one in left:
        assert sorted(labels[[*one]].tolist()) == [0, 0, 1, 1, 2, 2]


@pytest.mark.slow
def test_the_tool_on_a_tiny_dataset_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PALMKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PALMKIT_CACHE", str(tmp_path / "cache"))
    folder = make_tiny_dataset(tmp_path / "tiny", clips=20)
    arguments = ["--datasets", str(folder), "--seeds", "0", "1", "--rates", "0.05", "0.5"]
    arguments += ["--methods", "zeroshot", "palm", "coop", "--to", str(tmp_path / "out.csv")]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["make_two_models.py", *arguments])
        make_two_models.main()
        text = (tmp_path / "out.csv").read_text()
        monkeypatch.setattr(make_two_models, "held_out_accuracy", None)  # nothing is computed again
    assert (
        text == (tmp_path / "out.csv").read_text() and str(tmp_path) not in text.partition("\n")[2]
    )
    table = two_models.read_table(tmp_path / "out.csv")
    counts = table.groupby("model").size().to_dict()
    # zeroshot, coop and palm by seed, both with the other's scale, and one more rate
    assert counts == {"mini-PENGI": 1 + 4 + 4 + 2, "mini-CLAP": 1 + 4 + 4 + 2}
    assert table["held_out"].notna().sum() == 8
    scales = {name: set(part["scale"].dropna()) for name, part in table.groupby("model")}
    mini, clap = (load_model(name, "cpu").logit_scale for name in ("mini", "mini-clap"))
    assert scales == {"mini-PENGI": {clap}, "mini-CLAP": {mini}}
    is_palm = table["method"] == "palm"
    assert (table.loc[is_palm, "lambdas"].str.split().map(len) == 2).all()


def test_wordings_are_means_over_folds_of_each_model():
    def figure(**values):
        row = {"kind": "wording", "dataset": "x", "method": "a {}", "fold": 1, "accuracy": 0.2}
        return row | values

    one = [figure(), figure(fold=2, accuracy=0.4), figure(kind="method", accuracy=1.0)]
    one += [figure(dataset="other", accuracy=0.9), figure(method="b {}", accuracy=0.7)]
    figures = {"m": pd.DataFrame(one), "n": pd.DataFrame([figure(accuracy=0.5)])}
    got = two_models.wording_accuracies(figures, ["x"])
    assert got.loc["a {}"].to_dict() == pytest.approx({("m", "x"): 0.3, ("n", "x"): 0.5})
    assert got.loc["b {}", ("m", "x")] == 0.7 and np.isnan(got.loc["b {}", ("n", "x")])


# The shipped file


def test_the_shipped_file_is_whole():
    table = two_models.read_table(FILE)
    assert list(table) == list(two_models.COLUMNS)
    models = [*dict.fromkeys(table["model"])]
    assert models == ["mini-PENGI", "mini-CLAP", two_models.SEED1]
    cells = two_models.score_cells(table)
    assert [*cells.index.unique("dataset")] == sorted(DEFAULT_TASKS)
    assert set(cells) == set(make_two_models.METHODS)
    assert cells.shape[0] == 3 * len(DEFAULT_TASKS) * len(make_two_models.SEEDS)
    rates = table[(table["method"] == "palm") & table["scale"].isna()]
    counts = rates.groupby(["model", "lr"]).size()
    trials = len(DEFAULT_TASKS) * len(make_two_models.SEEDS)
    assert set(counts) == {trials} and len(counts) == 3 * len(make_two_models.RATES)
    assert rates["held_out"].between(0, 1).all()
    digests = {
        load_model(name, "cpu").digest()[: two_models.DIGEST] for name in ("mini", "mini-clap")
    }
    assert digests == set(table.loc[table["model"] != two_models.SEED1, "weights"])
