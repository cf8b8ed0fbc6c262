"""Regime "transfer": options are tuned on one dataset, and others report with them."""

import dataclasses
import logging
import shutil
import time

import pandas as pd
import pytest
import torch
from notebook_cells import make_tiny_dataset
from safetensors.torch import load_file

from palmkit.experiments import load_method, load_tensors, rows, tuned_options, tuning
from palmkit.experiments.estimate import estimate_cost
from palmkit.experiments.run import run_trials
from palmkit.experiments.selection import combinations, tune_options
from palmkit.experiments.timing import Clock
from palmkit.experiments.trials import Trial, make_grid
from palmkit.experiments.tuning import TuningTask
from palmkit.methods import METHODS
from palmkit.results.leaderboard import leaderboards
from palmkit.results.loading import load_rows

TUNED, OTHER = "tuned", "other"


@pytest.fixture
def data(tmp_path):
    """Two datasets with different recordings."""
    paths = []
    for seed, (name, classes) in enumerate(
        {TUNED: ("dog", "rain"), OTHER: ("bell", "wind")}.items()
    ):
        made = make_tiny_dataset(tmp_path / name, classes, clips=4, seed=seed)
        paths.append(str(made))
    return paths


def transfer_trials(tuned, other, **more):
    return make_grid(["gda"], [other], [1], [0], shots=2, regime=f"transfer:{tuned}", **more)


@pytest.mark.slow
def test_options_are_those_with_the_best_score_on_the_other_dataset(data, tiny_pengi, tmp_path):
    tuned, other = data
    (row,) = run_trials(transfer_trials(tuned, other), tiny_pengi, tmp_path / "run")
    tasks = tuning.load_tuning_tasks(tiny_pengi, tuned, 2, "default")
    assert [task.seed for task in tasks] == [0, 1, 2, 0, 1, 2]  # of two folds
    scores = {}
    for options in combinations(METHODS["gda"], {}):
        right = []
        for task in tasks:
            method = METHODS["gda"](tiny_pengi, task.class_names, seed=task.seed, **options)
            method.fit(task.support.features, task.support.labels)
            guess = method(task.test.features).argmax(1)
            right.append((guess == task.test.labels).double().mean())
        scores[options["alpha"]] = float(sum(right) / len(right))
    assert scores[row["chosen"]["alpha"]] == max(scores.values())
    assert len(set(scores.values())) > 1  # or nothing is shown
    assert row["regime"] == f"transfer:{dataset_name(tuned)}"


def dataset_name(path):
    return path.rsplit("/", 1)[1]


def test_ties_go_to_the_lower_loss_then_to_the_published_values(tiny_pengi):
    """Prior_shots changes no class here: the features are the texts."""
    names = ["dog", "rain"]
    features = tiny_pengi.encode_text([tiny_pengi.prompt.format(name) for name in names])
    clips = type("Clips", (), {"features": features, "labels": torch.tensor([0, 1])})
    task = TuningTask(names, 0, clips, clips)
    method = METHODS["text-prototypes"]
    assert tune_options(method, tiny_pengi, [task], {}) == {"prior_shots": 4}


def test_a_given_option_is_not_tuned(data, tiny_pengi, tmp_path):
    trials = transfer_trials(*data, options={"alpha": 0.5})
    (row,) = run_trials(trials, tiny_pengi, tmp_path / "run")
    assert row["chosen"] == {} and row["options"] == {"alpha": 0.5}


@pytest.mark.slow
def test_labels_of_the_reported_test_clips_do_not_choose(data, tiny_pengi, tmp_path):
    """The same options, whatever the labels of the reported dataset's test clips are."""
    tuned, other = data
    chosen = []
    for wrong in (False, True):
        copy = tmp_path / str(wrong) / "other"
        shutil.copytree(other, copy)
        table = copy / "csv_files" / "test_1.csv"
        frame = pd.read_csv(table)
        if wrong:
            frame["classname"] = frame["classname"].to_numpy()[::-1]
        frame.to_csv(table, index=False)
        trials = transfer_trials(tuned, str(copy))
        (row,) = run_trials(trials, tiny_pengi, tmp_path / f"run-{wrong}")
        chosen.append(row)
    assert chosen[0]["chosen"] == chosen[1]["chosen"]
    assert chosen[0]["loss"] != chosen[1]["loss"]


def test_the_dataset_that_is_tuned_on_is_left_out(data, caplog):
    tuned, other = data
    with caplog.at_level(logging.INFO):
        trials = make_grid(["gda"], [tuned, other], [1], [0], regime=f"transfer:{tuned}")
    assert [trial.dataset for trial in trials] == [other]
    assert "left out, because options are tuned on them" in caplog.text
    with pytest.raises(ValueError, match="name a dataset that options are not tuned on"):
        make_grid(["gda"], [tuned], [1], [0], regime=f"transfer:{tuned}")
    with pytest.raises(ValueError, match="has recordings of the dataset that options are tuned on"):
        Trial("gda", tuned, 1, regime=f"transfer:{tuned}")


@pytest.mark.parametrize("other", ["ESC50-Actions", "x/ESC10", "ESC50"])
def test_a_known_subset_is_refused_by_name(other):
    with pytest.raises(ValueError, match="leave it out"):
        Trial("gda", other, 1, regime="transfer:folder/ESC50")
    Trial("gda", "TUT2017", 1, regime="transfer:folder/ESC50")


def test_a_subset_of_another_name_is_refused_by_content(data, tiny_pengi, tmp_path):
    tuned, _ = data
    copy = tmp_path / "renamed"
    shutil.copytree(tuned, copy)
    with pytest.raises(ValueError, match="renamed has 16 clips of .*tuned.*: leave it out"):
        run_trials(transfer_trials(tuned, str(copy)), tiny_pengi, tmp_path / "run")


@pytest.mark.parametrize("regime", ["transfer", "transfer:", "transfer:DATASET", "transfered"])
def test_a_regime_without_a_dataset_is_refused(regime):
    with pytest.raises(ValueError, match="name the dataset to tune on, say transfer:ESC50"):
        Trial("gda", "x", regime=regime)


def test_what_cannot_be_tuned_is_refused():
    with pytest.raises(ValueError, match="palm has no options to choose from"):
        Trial("palm", "x", regime="transfer:y")
    with pytest.raises(ValueError, match="pca_dim: options that are tuned on other features"):
        Trial("gda", "x", regime="transfer:y", options={"pca_dim": 4})
    assert Trial("zeroshot", "x", regime="transfer:y").regime == "published"  # it learns nothing


def test_the_key_has_the_content_of_the_dataset_that_is_tuned_on():
    one, two = (Trial("gda", "x", regime=f"transfer:{name}") for name in ("here/y", "there/y"))
    assert rows.trial_key(one, "d", "m", tuned_on="a") == rows.trial_key(
        two, "d", "m", tuned_on="a"
    )
    assert rows.trial_key(one, "d", "m", tuned_on="a") != rows.trial_key(
        one, "d", "m", tuned_on="b"
    )


def test_a_bad_file_of_the_tuned_dataset_fails_its_trials_only(data, tiny_pengi, tmp_path):
    from palmkit.experiments.failures import TrialsFailed

    tuned, other = data
    next((tmp_path / TUNED).rglob("*.wav")).write_bytes(b"no sound")
    trials = [*transfer_trials(tuned, other), Trial("gda", other, 1, 0, shots=2)]
    with pytest.raises(TrialsFailed) as failed:
        run_trials(trials, tiny_pengi, tmp_path / "run")
    assert failed.value.done == 1 and "AudioError" in failed.value.failed[0]["failed"]


@pytest.mark.slow
def test_boards_keep_regimes_apart(data, tiny_pengi, tmp_path):
    tuned, other = data
    trials = transfer_trials(tuned, other)
    trials += [dataclasses.replace(trial, regime=name) for trial in trials for name in REGIMES]
    run_trials(trials, tiny_pengi, tmp_path / "run")
    boards = leaderboards(load_rows(tmp_path / "run"))
    labels = sorted(board.label for board in boards)
    assert labels == [
        "regime=published",
        "regime=support",
        f"regime=transfer:{dataset_name(tuned)}",
    ]


REGIMES = ("published", "support")


def test_a_saved_method_has_its_chosen_options(data, tiny_pengi, tmp_path):
    """Tip-Adapter's alpha and beta are used at test time, so they must be those of the row."""
    _, other = data
    trials = make_grid(["tip-adapter"], [other], [1], [0], shots=2, regime="support")
    (row,) = run_trials(trials, tiny_pengi, tmp_path / "run")
    assert row["chosen"] != combinations(METHODS["tip-adapter"], {})[0]
    method = load_method(row, tmp_path / "run", tiny_pengi)
    assert {name: getattr(method, name) for name in row["chosen"]} == row["chosen"]
    frame = load_rows(tmp_path / "run", details=True)
    again = load_method(frame.iloc[0], tmp_path / "run", tiny_pengi)
    assert again.alpha == method.alpha


# Compact rows.


def test_a_compact_row_keeps_the_predictions_in_half_the_bytes(data, tiny_pengi, tmp_path):
    _, other = data
    trials = make_grid(["kernel-ridge", "palm"], [other], [1], [0, 1], shots=2, epochs=2)
    full = run_trials(trials, tiny_pengi, tmp_path / "full")
    compact = run_trials(trials, tiny_pengi, tmp_path / "compact", compact=True)
    assert all(row["compact"] for row in compact) and not any("compact" in row for row in full)
    for row, same in zip(compact, full, strict=True):
        assert row["accuracy"] == same["accuracy"] and row["loss"] == same["loss"]
        tensors = load_tensors(row, tmp_path / "compact")
        whole = load_tensors(same, tmp_path / "full")
        assert set(tensors) == {"logits", "labels"}
        assert tensors["logits"].dtype == torch.float32
        assert torch.equal(tensors["logits"].argmax(1), whole["logits"].argmax(1))
        one, two = (torch.softmax(each["logits"], 1) for each in (tensors, whole))
        assert torch.allclose(one, two, atol=1e-3)
        path = rows.find_row(row, tmp_path / "compact").with_suffix(".safetensors")
        assert load_file(path)["logits"].dtype == torch.float16
    with pytest.raises(ValueError, match="ran with --compact; run it without"):
        load_method(compact[0], tmp_path / "compact", tiny_pengi)


def test_a_compact_row_is_run_again_where_all_is_wanted(data, tiny_pengi, tmp_path):
    _, other = data
    trials = make_grid(["palm"], [other], [1], [0], shots=2, epochs=2)
    run_trials(trials, tiny_pengi, tmp_path / "run", compact=True)
    (row,) = run_trials(trials, tiny_pengi, tmp_path / "run")
    assert "compact" not in row and load_method(row, tmp_path / "run", tiny_pengi)
    (same,) = run_trials(trials, tiny_pengi, tmp_path / "run", compact=True)
    assert same == row  # a whole row serves where a compact one is enough


def test_compact_logits_keep_ties_and_extremes():
    logits = torch.tensor([[1.0, 1.0, 0.0], [1e6, -1e6, 0.0], [-5.0, -5.0 + 1e-6, -5.0]])
    row, tensors = rows.make_compact({}, {"logits": logits, "labels": torch.zeros(3)})
    assert row == {"compact": True} and tensors["logits"].isfinite().all()
    assert tensors["logits"].argmax(1).tolist() == logits.argmax(1).tolist()


# What tuning costs, and what shares it.


@pytest.fixture
def known_clock(monkeypatch):
    """A fit takes 1 s, and a clip 0.1 s to embed; nothing is measured."""
    monkeypatch.setattr(Clock, "measure", lambda *_: (0.0, 1.0, 0.0))
    monkeypatch.setattr(Clock, "clip", lambda _: 0.1)
    monkeypatch.setenv("PALMKIT_JOBS", "1")


@pytest.mark.slow
def test_the_estimate_has_the_tuning(data, tiny_pengi, tmp_path, known_clock, monkeypatch):
    """The dataset that is tuned on is left out, as in the run, and its fits are counted."""
    monkeypatch.setenv("PALMKIT_CACHE", str(tmp_path / "cache"))
    tuned, other = data
    grid = dict(datasets=[tuned, other], methods=["gda"], folds=[1], seeds=[0], shots=2)
    told = estimate_cost(tiny_pengi, tmp_path / "run", **grid, regime=f"transfer:{tuned}")
    table = told.table.set_index("dataset")
    assert [*table.index] == [other, f"tune on {TUNED}"]
    assert table["train_s"].to_list() == [1.0, 6 * 2 * 3 * 1.0]  # values of alpha, folds, seeds
    assert table["clips"].to_list() == [12, 16]  # 8 at test and 4 drawn; all of two folds
    run_trials(transfer_trials(tuned, other), tiny_pengi, tmp_path / "run")
    again = estimate_cost(tiny_pengi, tmp_path / "run", **grid, regime=f"transfer:{tuned}")
    assert again.table["dataset"].to_list() == [other] and again.table["train_s"].sum() == 0


def test_the_estimate_has_the_choice_inside_the_support_set(tiny_pengi, monkeypatch):
    def slow(self, features, labels, **settings):
        time.sleep(0.05)
        return torch.zeros(len(labels), 2)

    monkeypatch.setattr(METHODS["gda"], "leave_out_logits", slow)
    clock, about = Clock(tiny_pengi), (["dog", "rain"], 4, 4)
    published = clock.trial(Trial("gda", "x", shots=2), *about)
    support = Trial("gda", "x", shots=2, regime="support")
    assert clock.trial(support, *about) - published > 6 * 0.05 * 0.9  # for each alpha
    assert clock.trial(support, ["dog", "rain"], 2, 4) < 0.3  # one shot leaves nothing to choose


def test_trials_with_other_training_do_not_share_options(data, tiny_pengi, tmp_path, monkeypatch):
    """A method from outside may be tuned by SGD, so its learning rate counts."""
    seen = []
    monkeypatch.setattr(
        tuned_options, "tune", lambda trial, model, tasks: seen.append(trial.lr) or {}
    )
    trials = [one for lr in (0.01, 0.1) for one in transfer_trials(*data, lr=lr)]
    run_trials(trials, tiny_pengi, tmp_path / "run")
    assert sorted(seen) == [0.01, 0.1]
