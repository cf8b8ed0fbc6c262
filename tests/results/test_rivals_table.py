"""The table of methods: means, regimes, wrong names, and the file that notebook 14 reads."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from notebook_cells import make_tiny_dataset

from palmkit.experiments.run import run_trials
from palmkit.experiments.trials import make_grid
from palmkit.results import rivals

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

PALM = {"lr": 0.05, "epochs": 50}


def line(dataset="A", seed=0, method="palm", accuracy=0.5, shots=1, **more):
    base = dict(regime="published", names="right", fold=1, chosen=np.nan, ece=0.1, **PALM)
    return (
        base
        | dict(dataset=dataset, seed=seed, method=method, accuracy=accuracy, shots=shots)
        | more
    )


def made(lines):
    return rivals.label_entrants(pd.DataFrame(lines))


def test_a_dataset_counts_once_however_many_folds_it_has():
    table = made([line(fold=1, accuracy=0.2), line(fold=2, accuracy=0.4), line("B", accuracy=0.9)])
    assert rivals.seed_scores(table).loc[("palm", 1), 0] == pytest.approx((0.3 + 0.9) / 2)


def test_means_over_other_datasets_are_not_compared():
    table = made([line("A"), line("B"), line("A", method="gda")])
    with pytest.raises(ValueError, match="gda lacks a dataset at 1 shots, seed 0"):
        rivals.seed_scores(table)


def test_rows_of_one_and_of_two_encoders_are_not_mixed(monkeypatch):
    rows = pd.DataFrame({"encoders": ["one", "two"]})
    monkeypatch.setattr(rivals, "load_rows", lambda run: rows)
    with pytest.raises(ValueError, match="run both has rows of one encoder and of two"):
        rivals.rivals_table("both")


def test_zero_shot_counts_for_every_seed_and_number_of_shots():
    learned = [line(seed=seed, shots=shots) for seed in (0, 1) for shots in (1, 2)]
    table = made([*learned, line(method="zeroshot", shots=0, accuracy=0.3)])
    scores = rivals.seed_scores(table)
    assert (scores.loc["zeroshot"] == 0.3).all(axis=None)
    assert scores.loc["zeroshot"].shape == (2, 2)


def test_palm_with_another_training_is_an_entrant_of_its_own():
    table = made([line(), line(lr=0.01, epochs=100, accuracy=0.7)])
    assert {*table["entrant"]} == {"palm", "palm" + rivals.SLOWER}
    assert rivals.entrant_label("palm" + rivals.SLOWER) == "PALM (.01, 100 epochs)"
    assert rivals.mean_table(table).index[0] == "palm" + rivals.SLOWER


def test_transductive_methods_are_of_a_kind_of_their_own():
    table = made([line(), line(method="transclip", regime="published")])
    assert dict(zip(table["method"], table["kind"], strict=True)) == {
        "palm": "published",
        "transclip": "transductive",
    }


def test_the_best_comes_first_and_a_low_calibration_error_is_good():
    table = made([line(), line(method="gda", accuracy=0.9, ece=0.3)])
    assert [*rivals.mean_table(table).index] == ["gda", "palm"]
    assert [*rivals.mean_table(table, "ece").index] == ["palm", "gda"]


def test_a_mean_over_shots_needs_all_of_them():
    table = made([line(), line(shots=2), line(method="gda", accuracy=0.9)])
    means = rivals.mean_table(table)
    assert np.isnan(means.loc["gda", "all"]) and means.loc["palm", "all"] == 0.5


def test_regimes_are_compared_on_the_datasets_that_have_all():
    lines = []
    for seed in (0, 1):
        for dataset in ("A", "B"):
            lines.append(line(dataset, seed, "gda", 0.5 + 0.1 * seed, shots=2))
            lines.append(line(dataset, seed, "gda", 0.6 + 0.2 * seed, shots=2, regime="support"))
        lines.append(line("B", seed, "gda", 0.4, shots=2, regime="transfer:A"))
        lines.append(line("A", seed, "palm", 0.9, shots=2))
        lines.append(line("B", seed, "palm", 0.7, shots=2))
    changes = rivals.regime_changes(made(lines))
    (index,) = changes.index
    assert index == ("gda", 2)
    assert changes.loc[index, "published"] == pytest.approx(0.55)
    assert changes.loc[index, "support"] == pytest.approx(0.15)
    assert changes.loc[index, "transfer"] == pytest.approx(-0.15)
    assert changes.loc[index, "support_low"] < 0.15 < changes.loc[index, "support_high"]
    both = rivals.regime_changes(made(lines), beside=("palm",))
    assert both.loc[("palm", 2), "published"] == pytest.approx(0.7)
    assert np.isnan(both.loc[("palm", 2), "support"])


def test_the_cost_of_wrong_names_is_paired_by_shots():
    lines = [line(accuracy=0.8, shots=4), line(accuracy=0.9, shots=16)]
    lines += [line(accuracy=0.7, shots=4, names="wrong"), line(method="zeroshot", shots=0)]
    lost = rivals.name_costs(made(lines))
    assert [*lost.index] == ["palm"] and [*lost.columns] == [4]
    assert lost.loc["palm", 4] == pytest.approx(0.1)


@pytest.mark.slow
def test_the_table_of_a_run_is_read_back(tmp_path, tiny_pengi):
    data = make_tiny_dataset(tmp_path / "data", clips=4)
    other = make_tiny_dataset(tmp_path / "other", clips=4, seed=1)
    run = tmp_path / "run"
    trials = make_grid(["zeroshot", "gda"], [data], [1], [0], shots=2)
    for regime in ("support", f"transfer:{other}"):
        trials += make_grid(["gda"], [data], [1], [0], shots=2, regime=regime)
    names = {"names": {"dog": "rain", "rain": "dog"}}
    trials += make_grid(["gda"], [data], [1], [0], shots=2, options=names)
    rows = run_trials(trials, tiny_pengi, run, compact=True)
    table = rivals.rivals_table(run)
    assert [*table.columns] == [*rivals.COLUMNS] and len(table) == len(rows) == 5
    assert table["ece"].between(0, 1).all() and {*table["names"]} == {"right", "wrong"}
    path = tmp_path / "rivals.csv"
    path.write_text("# a note\n" + table.to_csv(index=False))
    again = rivals.read_rivals(path)
    assert {*again["kind"]} == {*rivals.REGIMES} and {*again["tuned_on"]} == {"", "other"}
    assert again.loc[again["kind"] == "transfer", "chosen"].str.startswith("alpha=").all()


def test_figures_show_every_entrant_once():
    lines = []
    for name in ("palm", "gda", "treff"):
        for seed, shots in ((0, 1), (1, 1), (0, 2), (1, 2)):
            lines.append(line("A", seed, name, 0.1 * shots + 0.01 * seed, shots))
    table = made(lines)
    fig, axes = plt.subplots(1, 2)
    groups = {"one": ["gda"], "two": ["treff"]}
    rivals.plot_curves(rivals.shot_curves(table), groups, ["palm"], axes)
    shown = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in axes]
    assert [len(texts) for texts in shown] == [2, 2] and shown[0][0] == shown[1][0] == "PALM"
    costs = pd.DataFrame({"seconds": [0.1, 0.1, 1.0], "accuracy": [0.5, 0.5, 0.6]},
                         ["palm", "gda", "treff"])  # fmt: skip
    rivals.plot_costs(costs, axes[0])
    heights = [text.get_position()[1] for text in axes[0].texts]
    assert len(set(heights)) == 3  # no name covers another
    plt.close(fig)
