"""The sweep's trials and its table."""

import numpy as np
import pandas as pd
import pytest
from notebook_cells import make_tiny_dataset

from palmkit.experiments import sweeps


@pytest.fixture
def dataset(tmp_path):
    return str(make_tiny_dataset(tmp_path / "tiny"))


def trial_row(trial, **more):
    """What a row of a trial has, as far as the table needs it."""
    names = ("dataset", "fold", "seed", "method", "shots", "lr", "epochs", "options")
    row = {name: getattr(trial, name) for name in names}
    row |= dict(n_train=4, n_test=2, accuracy=0.5, diverged="", weights="0123456789abcdef")
    return row | more


def test_each_method_has_all_its_starts_and_rates(dataset):
    trials = sweeps.sweep_trials([dataset], seeds=(0, 1), shots=(1, 2))
    counts = pd.Series([trial.method for trial in trials]).value_counts().to_dict()
    expected = {
        method: len(starts) * len(sweeps.RATES[method]) * 2 * 2
        for method, starts in sweeps.STARTS.items()
    }
    assert counts == expected | {"zeroshot": 1}
    assert len(set(map(str, trials))) == len(trials)
    published = [t for t in trials if t.method == "palm" and not t.options and t.lr == 0.05]
    assert len(published) == 4 and {t.epochs for t in published} == {50}


def test_the_table_of_rows(dataset):
    zero_shot, *learned = sweeps.sweep_trials([dataset], seeds=(0,), shots=(2,), methods=["palm"])
    row = trial_row(learned[-1], losses=[9.0] * 98 + [1.0, 2.0], lambdas=[0.2, 0.4])
    table = sweeps.sweep_table([trial_row(zero_shot), row])
    assert list(table) == list(sweeps.COLUMNS)
    first, last = table.iloc[0], table.iloc[1]
    assert first["start"] == "" and np.isnan(first["lr"]) and first["steps"] == 0
    assert (last["dataset"], last["start"], last["lr"]) == ("tiny", "audio", 0.5)
    # 50 epochs of two steps: the last epoch is the mean of the last two losses.
    assert last["loss_at_end"] == 1.5 and last["steps"] == 100
    assert last["mean_lambda"] == pytest.approx(0.3) and last["weights"] == "0123456789"


def test_written_and_read_again_it_is_the_same(dataset, tmp_path):
    trials = sweeps.sweep_trials([dataset], seeds=(0, 1), shots=(1,))
    table = sweeps.sweep_table([trial_row(trial) for trial in trials])
    sweeps.write_sweeps(table, tmp_path / "sweeps.csv", "of a test, with # and , in it")
    again = sweeps.read_sweeps(tmp_path / "sweeps.csv")
    pd.testing.assert_frame_equal(again, table, check_dtype=False)
    assert sweeps.count_missing_trials(again, trials) == 0


def test_missing_trials_are_counted(dataset):
    trials = sweeps.sweep_trials([dataset], seeds=(0,), shots=(1, 2))
    table = sweeps.sweep_table([trial_row(trial) for trial in trials])
    assert sweeps.count_missing_trials(table[:-3], trials) == 3
    assert sweeps.count_missing_trials(table, trials[:5]) == 0
    other = table.assign(lr=table["lr"] * 2)
    assert sweeps.count_missing_trials(other, trials) == len(trials) - 1  # but for zero-shot


def test_the_sweep_of_the_notebook_is_of_default_datasets():
    from palmkit_synthetic.tasks import DEFAULT_TASKS

    assert set(sweeps.DATASETS) < set(DEFAULT_TASKS) and set(sweeps.SEEDS) <= {0, 1, 2}
    assert all(0.05 in rates for rates in sweeps.RATES.values())
    assert all(starts[0] == sweeps.NOISE for starts in sweeps.STARTS.values())
