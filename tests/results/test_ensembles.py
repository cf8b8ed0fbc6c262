"""Ensembles are computed from kept logits."""

import pandas as pd
import pytest
import torch
from notebook_cells import make_tiny_dataset

from palmkit.experiments import load_tensors
from palmkit.experiments.run import run_trials
from palmkit.experiments.trials import make_grid
from palmkit.results.ensembles import ensemble_rows
from palmkit.results.loading import load_rows

METHODS = ["kernel-ridge", "gda"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_pengi):
    folder = tmp_path_factory.mktemp("ensembles")
    data = make_tiny_dataset(folder / "data", ("dog", "rain", "bell"), clips=4)
    trials = make_grid(METHODS, [data], "all", [0, 1], shots=2)
    run_trials(trials, tiny_pengi, folder / "run", compact=True)
    return folder / "run"


def test_the_mean_of_the_probabilities_is_scored(run):
    rows = load_rows(run)
    table = ensemble_rows(rows, run, METHODS)
    assert len(table) == 4 and set(table["method"]) == {"kernel-ridge + gda"}
    for _, line in table.iterrows():
        same = (rows["fold"] == line["fold"]) & (rows["seed"] == line["seed"])
        total = 0
        for _, row in rows[same].iterrows():
            tensors = load_tensors(row, run)
            total = total + torch.softmax(tensors["logits"].double(), 1)
        right = (total.argmax(1) == tensors["labels"]).double().mean()
        truth = (total / 2)[torch.arange(len(total)), tensors["labels"]]
        assert line["accuracy"] == pytest.approx(float(right))
        assert line["loss"] == pytest.approx(float(-truth.log().mean()))


def test_a_probability_of_zero_has_a_finite_loss(run, monkeypatch):
    logits = {"logits": torch.tensor([[0.0, -6e4, -6e4]] * 2), "labels": torch.tensor([1, 0])}
    monkeypatch.setattr("palmkit.results.ensembles.load_tensors", lambda row, run: logits)
    table = ensemble_rows(load_rows(run), run, METHODS)
    assert (table["accuracy"] == 0.5).all() and table["loss"].max() < 1e4


def test_a_method_that_learns_nothing_is_in_every_cell(tmp_path, tiny_pengi):
    data = make_tiny_dataset(tmp_path / "data", clips=4)
    trials = make_grid(["zeroshot", "gda"], [data], "all", [0, 1], shots=2)
    rows = run_trials(trials, tiny_pengi, tmp_path / "run", compact=True)
    table = ensemble_rows(load_rows(tmp_path / "run"), tmp_path / "run", ["zeroshot", "gda"])
    assert len(table) == 4 and len(rows) == 6
    assert {*zip(table["fold"], table["seed"], strict=True)} == {(1, 0), (1, 1), (2, 0), (2, 1)}


def test_what_makes_no_ensemble_is_refused(run):
    rows = load_rows(run)
    with pytest.raises(ValueError, match="needs two methods or more"):
        ensemble_rows(rows, run, ["gda", "gda"])
    with pytest.raises(ValueError, match="no dataset, fold and seed has rows of all of"):
        ensemble_rows(rows, run, ["gda", "palm"])
    with pytest.raises(ValueError, match="has 2 rows of dataset=data, .*: choose one setting"):
        ensemble_rows(pd.concat([rows, rows[rows["method"] == "gda"]]), run, METHODS)


def test_a_diverged_method_has_no_score(run, monkeypatch):
    """As in its row: NaN is no guess of the first class."""
    logits = {"logits": torch.full((2, 3), float("nan")), "labels": torch.tensor([0, 0])}
    monkeypatch.setattr("palmkit.results.ensembles.load_tensors", lambda row, run: logits)
    table = ensemble_rows(load_rows(run), run, METHODS)
    assert table[["accuracy", "f1", "precision", "recall", "loss"]].isna().all(axis=None)


def test_a_method_that_is_named_twice_counts_once(run):
    rows = load_rows(run)
    once, twice = (ensemble_rows(rows, run, names) for names in (METHODS, [*METHODS, "gda"]))
    pd.testing.assert_frame_equal(once, twice)


@pytest.mark.parametrize(
    "name, value",
    [("protocol", "released"), ("crop", "start"), ("weights", "0" * 64), ("fold_digest", "0" * 64)],
)
def test_rows_of_different_settings_are_refused(run, name, value):
    rows = load_rows(run, details=True)
    rows.loc[rows["method"] == "gda", name] = value
    with pytest.raises(ValueError, match=f"the rows of dataset=data, .* differ in {name}"):
        ensemble_rows(rows, run, METHODS)


def test_rows_of_different_tasks_are_refused(run):
    rows = load_rows(run)
    is_gda = rows["method"] == "gda"
    rows.loc[is_gda, "options"] = [{"corruption": ["noise", 10]}] * is_gda.sum()
    with pytest.raises(ValueError, match="differ in task: choose one"):
        ensemble_rows(rows, run, METHODS)
