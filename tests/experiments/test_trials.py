"""Units, rows and tables: written once, whole, never run twice, never mixed."""

import json
import os

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from palmkit.cli import main
from palmkit.experiments import executor as workers
from palmkit.experiments import run as units
from palmkit.experiments import timing, trials
from palmkit.published import published_rows
from palmkit.results import comparison
from palmkit.results import tables as results
from palmkit_synthetic.tasks import DEFAULT_TASKS

GRID = dict(seeds=[0, 1], shots=2, epochs=2)


@pytest.fixture
def dataset(tmp_path):
    """Three classes, two folds, three clips a class and fold, a quarter second each."""
    root, rng, rows = tmp_path / "tiny", np.random.default_rng(0), []
    (root / "audios").mkdir(parents=True)
    for label, name in enumerate(["bell", "dog", "rain"]):
        for n in range(6):
            soundfile.write(
                root / "audios" / f"{name}{n}.wav",
                rng.standard_normal(11025) * 0.1 * (label + 1),
                44100,
            )
            rows.append((f"audios/{name}{n}.wav", name, n % 2 + 1))
    table = pd.DataFrame(rows, columns=["path", "classname", "fold"])
    (root / "csv_files").mkdir()
    for fold in (1, 2):
        for part, keep in (("train", table.fold != fold), ("test", table.fold == fold)):
            table[keep][["path", "classname"]].to_csv(
                root / "csv_files" / f"{part}_{fold}.csv", index=False
            )
    return root


@pytest.fixture
def run(tmp_path):
    return tmp_path / "runs" / "one"


def count_runs(monkeypatch):
    calls, real = [], units.run_trial
    monkeypatch.setattr(
        units, "run_trial", lambda unit, *a, **k: calls.append(unit) or real(unit, *a, **k)
    )
    return calls


def test_plan_is_the_papers_grid(dataset):
    grid = trials.make_grid("all", [dataset])
    assert len(grid) == 2 * (
        3 * 3 + 1
    )  # two folds; three learned methods with three seeds; zero-shot once
    zero_shot, first = grid[:2]
    assert (zero_shot.method, zero_shot.shots, zero_shot.epochs) == ("zeroshot", 0, 0)
    assert (first.shots, first.epochs, first.batch_size, first.lr, first.momentum) == (
        16,
        50,
        16,
        0.05,
        0.9,
    )
    assert (first.crop, first.protocol) == ("random", "frozen")


def test_a_row_tells_everything(dataset, run, tiny_pengi):
    unit = trials.make_grid(["palm"], [dataset], folds=[2], seeds=[1], shots=2, epochs=2)
    (row,) = units.run_trials(unit, tiny_pengi, run)
    (path,) = run.glob("rows/tiny/*.json")
    assert json.loads(path.read_text()) == row
    for name in ("accuracy", "f1", "precision", "recall", "loss", "seconds", "device", "versions", "weights", "clips",
                 "clip_offsets", "lambdas", "lambdas_initial", "losses", "n_train", "n_test", "lr", "key"):  # fmt: skip
        assert name in row
    assert row["n_train"] == len(row["clips"]) == 6 and row["n_test"] == 9
    assert len(row["losses"]) == 2 and len(row["lambdas"]) == 3
    tensors = load_file(path.with_suffix(".safetensors"))
    right = (tensors["logits"].argmax(1) == tensors["labels"]).double().mean().item()
    assert tensors["logits"].shape == (9, 3) and right == row["accuracy"]
    assert torch.allclose(torch.sigmoid(tensors["prompt.lambdas"]), torch.tensor(row["lambdas"]))


def test_a_row_repeats_and_seeds_differ(dataset, tmp_path, tiny_pengi):
    grid = trials.make_grid(["coop"], [dataset], folds=[1], **GRID)
    one, two = (units.run_trials(grid, tiny_pengi, tmp_path / "runs" / name) for name in ("a", "b"))
    assert [row["losses"] for row in one] == [row["losses"] for row in two]
    assert one[0]["losses"] != one[1]["losses"]


def test_an_interrupted_grid_goes_on(dataset, run, tiny_pengi, monkeypatch):
    grid = trials.make_grid("all", [dataset], **GRID)
    calls = count_runs(monkeypatch)
    real = units.atomic_write

    def die_at_the_fifth(path, data):
        if len(calls) == 5:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(units, "atomic_write", die_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        units.run_trials(grid, tiny_pengi, run)
    assert len(list(run.glob("rows/*/*.json"))) == 4
    monkeypatch.setattr(units, "atomic_write", real)
    calls.clear()
    assert len(units.run_trials(grid, tiny_pengi, run)) == len(grid) == 14
    assert len(calls) == len(grid) - 4
    calls.clear()
    units.run_trials(grid, tiny_pengi, run)
    assert not calls


def test_other_settings_data_or_weights_run_anew(dataset, run, tiny_pengi, monkeypatch):
    calls = count_runs(monkeypatch)

    def new(model=tiny_pengi, **settings):
        calls.clear()
        units.run_trials(
            trials.make_grid(
                ["palm"], [dataset], [1], [0], **{"shots": 2, "epochs": 2, **settings}
            ),
            model,
            run,
        )
        return len(calls)

    assert (new(), new()) == (1, 0)
    assert [
        new(epochs=3),
        new(lr=0.1),
        new(shots=1),
        new(crop="start"),
        new(options={"context": False}),
    ] == [1] * 5
    clip = dataset / "audios" / "bell1.wav"
    soundfile.write(clip, np.zeros(12000), 44100)
    assert new() == 1
    monkeypatch.setattr("palmkit.experiments.rows.TRIAL_VERSION", 99)
    assert (new(), new()) == (1, 0)
    monkeypatch.setattr(type(tiny_pengi), "digest", lambda self, *encoders: "other weights")
    assert new() == 1


def test_a_damaged_row_is_reported_and_run_again(dataset, run, tiny_pengi):
    grid = trials.make_grid(["palm"], [dataset], [1], [0], shots=2, epochs=1)
    (row,) = units.run_trials(grid, tiny_pengi, run)
    (path,) = run.glob("rows/*/*.json")
    path.write_text(path.read_text()[:100])
    with pytest.warns(UserWarning, match="is not used, it is damaged"):
        (again,) = units.run_trials(grid, tiny_pengi, run)
    assert again["losses"] == row["losses"] and json.loads(path.read_text()) == again


def test_a_full_disk_loses_nothing(dataset, run, tiny_pengi, monkeypatch):
    import errno
    import os

    grid = trials.make_grid(["palm", "coop"], [dataset], [1], [0], shots=2, epochs=1)
    units.run_trials(grid[:1], tiny_pengi, run)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="Free some space.*will be used again"):
            units.run_trials(grid, tiny_pengi, run)
    assert len(list(run.glob("rows/*/*.json"))) == 1 and not list(run.glob("rows/*/.*"))
    assert len(units.run_trials(grid, tiny_pengi, run)) == 2


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            dict(methods=["palm", "magic"]),
            "no method 'magic'; there are zeroshot, coop, cocoop, palm",
        ),
        (dict(folds=[3]), r"tiny has folds \[1, 2\]; there is no fold \[3\]"),
        (dict(datasets=["nowhere"]), "there is no dataset folder nowhere"),
        (dict(seeds=[]), "nothing to run"),
        (dict(protocol="thawed"), "no protocol 'thawed'"),
    ],
)
def test_a_plan_that_cannot_run_says_so(dataset, settings, message):
    with pytest.raises(ValueError, match=message):
        trials.make_grid(**{"methods": "all", "datasets": [dataset], **settings})


def rows_of(cells, **more):
    """Rows from (dataset, method, fold, seed, accuracy)."""
    frame = pd.DataFrame(cells, columns=["dataset", "method", "fold", "seed", "accuracy"])
    return frame.assign(**{"shots": 16, **more})


def test_table_is_folds_then_seeds_then_datasets():
    rows = rows_of([
        ("A", "palm", 1, 0, 0.2), ("A", "palm", 2, 0, 0.4), ("A", "palm", 1, 1, 0.6), ("A", "palm", 2, 1, 0.8),
        ("B", "palm", 1, 0, 0.5), ("B", "palm", 1, 1, 0.9), ("A", "coop", 1, 0, 0.1), ("A", "coop", 2, 0, 0.3),
    ])  # fmt: skip
    table = results.summarise(rows).set_index(["dataset", "method"])
    assert table.loc[("A", "palm"), "mean"] == pytest.approx(0.5)
    assert table.loc[("A", "palm"), "std"] == pytest.approx(np.std([0.3, 0.7], ddof=1))
    assert tuple(table.loc[("A", "palm"), ["seeds", "folds"]]) == (2, 2)
    average = table.loc[(results.AVERAGE, "palm")]  # per seed over datasets, then over seeds
    assert average["mean"] == pytest.approx(0.6) and average["std"] == pytest.approx(
        np.std([0.4, 0.8], ddof=1)
    )
    assert (results.AVERAGE, "coop") not in table.index  # coop has no B


def test_incomplete_seeds_are_left_out_and_said():
    rows = rows_of([("A", "palm", 1, 0, 0.2), ("A", "palm", 2, 0, 0.4), ("A", "palm", 1, 1, 1.0)])
    with pytest.warns(UserWarning, match="A, palm, seed 1: 1 of 2 folds; left out"):
        table = results.summarise(rows)
    assert table["mean"].tolist() == [pytest.approx(0.3)] and table["seeds"].tolist() == [1]


def test_settings_are_never_averaged():
    rows = pd.concat(
        [rows_of([("A", "palm", 1, 0, 0.2)]), rows_of([("A", "palm", 1, 0, 0.9)], shots=4)]
    )
    with pytest.raises(
        ValueError, match="different settings and are not averaged: shots=16; shots=4"
    ):
        results.summarise(rows)
    assert results.summarise(results.select(rows, shots=4))["mean"].tolist() == [0.9]


def test_zero_shot_has_no_shots_and_stands_in_every_table(dataset, run, tiny_pengi):
    for shots in (1, 2):
        units.run_trials(
            trials.make_grid(["zeroshot", "palm"], [dataset], seeds=[0], shots=shots, epochs=1),
            tiny_pengi,
            run,
        )
    rows = results.load_rows(run)
    assert len(rows) == 2 + 2 * 2  # two folds; zero-shot was not run again for the other shots
    groups = dict(results.split_settings(rows))
    assert sorted(groups) == ["shots=1", "shots=2"]
    assert all(
        set(results.summarise(group)["method"]) == {"zeroshot", "palm"} for group in groups.values()
    )
    assert len(results.write_tables(run)) == 6


def test_the_logs_give_the_published_averages():
    table = results.summarise(published_rows()).set_index(["dataset", "method"])["mean"].round(4)
    average = {method: table[(results.AVERAGE, method)] for method in trials.PAPER_METHODS}
    assert average == {"zeroshot": 0.3969, "coop": 0.7114, "cocoop": 0.7347, "palm": 0.7658}


def test_compare_joins_by_dataset_and_never_another_average():
    rows = rows_of([("ESC50", "palm", 1, 0, 0.9), ("Mine", "palm", 1, 0, 0.5)])
    beside = comparison.compare(rows).set_index("dataset")
    assert beside.loc["ESC50", "paper"] == pytest.approx(0.9593, abs=5e-5)
    assert beside.loc["ESC50", "difference"] == pytest.approx(0.9 - beside.loc["ESC50", "paper"])
    assert np.isnan(beside.loc["Mine", "paper"]) and np.isnan(beside.loc[results.AVERAGE, "paper"])


def test_formats():
    rows = rows_of(
        [("A_b", "palm", 1, seed, 0.25 * seed) for seed in (1, 2)]
        + [("A_b", "zeroshot", 1, 0, 0.5)]
    )
    table = results.to_wide(results.summarise(rows), digits=2)
    assert results.to_markdown(table).splitlines()[0] == "| dataset | Zero-shot | PALM |"
    assert "| A_b | 0.50 (n=1) | 0.38 ± 0.18 (n=2) |" in results.to_markdown(table)
    assert r"A\_b & 0.50 (n=1) & 0.38 $\pm$ 0.18 (n=2) \\" in results.to_latex(table)


def test_command_line(dataset, tiny_pengi, compact, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PALMKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PALMKIT_DATA", str(tmp_path))
    grid = [
        "--checkpoint",
        str(compact.checkpoint),
        "--dataset",
        "tiny",
        "--shots",
        "2",
        "--epochs",
        "1",
        "--seed",
        "0",
    ]
    assert (
        main(
            [
                "run",
                *grid,
                "--method",
                "zeroshot",
                "palm",
                "--note",
                "random weights",
                "--name",
                "c",
            ]
        )
        == 0
    )
    shown = capsys.readouterr()
    assert "| tiny |" in shown.out and "Note: random weights" in shown.err
    assert len(list((tmp_path / "runs" / "c" / "rows" / "tiny").glob("*.json"))) == 4
    assert main(["table", "c", "--format", "csv", "--metric", "f1"]) == 0
    assert capsys.readouterr().out.startswith("dataset,Zero-shot,PALM")


@pytest.mark.parametrize(
    "command, message",
    [
        (["run", "--method", "magic"], "there is no method 'magic'"),
        (["run", "--fold", "one"], "--fold takes numbers, first or all, not one"),
        (["run", "--dataset", "nowhere"], "there is no dataset folder nowhere"),
        (["run", "--checkpoint", "nowhere.pth"], "there is no checkpoint nowhere.pth"),
        (["table", "nothing"], "there are no rows in"),
        (
            ["notebooks", "-p", "learning_rte", "1"],
            "no notebook has a parameter learning_rte; there are checkpoint",
        ),
    ],
)
def test_command_line_errors_are_one_sentence(command, message, capsys):
    assert main(command) == 1
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown


def test_settings_are_refused_before_datasets_are_made(monkeypatch):
    monkeypatch.setattr(trials, "choose_folds", lambda *_: pytest.fail("a dataset was opened"))
    for settings, message in (
        (dict(autocast=True), "autocast is for"),
        (dict(protocol="thawed"), "no protocol"),
    ):
        with pytest.raises(ValueError, match=message):
            trials.make_grid("all", ["SoundEvents"], **settings)
    with pytest.raises(ValueError, match="no method 'plam'"):
        trials.make_grid(["zeroshot", "plam"], ["SoundEvents"])


@pytest.mark.parametrize("command", [[], ["run"], ["notebooks"], ["table"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0 and "usage: python -m palmkit" in capsys.readouterr().out


@pytest.mark.slow
def test_several_processes_write_the_same_rows(dataset, tmp_path, tiny_pengi, monkeypatch):
    """What a unit gives does not depend on how many run beside it, nor on which is done first."""
    grid, told = trials.make_grid("all", [dataset], **GRID), []
    one = units.run_trials(grid, tiny_pengi, tmp_path / "runs" / "one", told=told.append)
    monkeypatch.setenv("PALMKIT_JOBS", "2")
    two = units.run_trials(grid, tiny_pengi, tmp_path / "runs" / "two", told=told.append)
    for a, b in zip(one, two, strict=True):
        assert (a["key"], a["method"], a["fold"], a["seed"]) == (
            b["key"],
            b["method"],
            b["fold"],
            b["seed"],
        )
        assert a["losses"] == b["losses"] and a["accuracy"] == b["accuracy"]
    assert told[0].startswith("14 units, 1 at a time: about") and told[1].startswith(
        "14 units, 2 at a time: about"
    )
    units.run_trials(grid, tiny_pengi, tmp_path / "runs" / "two", told=told.append)
    assert len(told) == 2  # nothing to do, nothing to say


def test_estimates_grow_with_the_work(dataset, tiny_pengi):
    clock = timing.Clock(tiny_pengi)
    (short,), (long,) = (
        trials.make_grid(["coop"], [dataset], [1], [0], epochs=epochs) for epochs in (1, 100)
    )
    names = ["bell", "dog", "rain"]
    one, hundred = clock.unit(short, names, 48, 10), clock.unit(long, names, 48, 10)
    assert 0 < one < hundred and hundred > 20 * (hundred - one) / 99
    assert len(clock.known) == 1  # measured once a kind
    assert clock.clip() > 0


@pytest.mark.parametrize(
    "seconds, text", [(0.1, "1 s"), (40, "40 s"), (400, "7 min"), (9000, "2.5 h")]
)
def test_durations_as_one_says_them(seconds, text):
    assert timing.minutes(seconds) == f"about {text}"


@pytest.mark.parametrize(
    "jobs, seconds",
    [(1, [1, 99, 5]), (2, [1, 5, 3]), pytest.param(2, [9, 60, 30], marks=pytest.mark.slow)],
)
def test_the_longest_is_begun_first(jobs, seconds):
    """Here, on the caller's threads or on one; or in other processes, where it pays."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        done = dict(workers.in_parallel(_where, [(n,) for n in range(3)], seconds, jobs))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert {n: number for n, (number, *_) in done.items()} == {0: 0, 1: 1, 2: 2}
    elsewhere = jobs > 1 and sum(seconds) > workers.START
    assert {here == os.getpid() for _, here, _ in done.values()} == {not elsewhere}
    if elsewhere:
        assert {threads for *_, threads in done.values()} == {1}
    else:
        assert list(done) == [1, 2, 0] and {threads for *_, threads in done.values()} == {
            1 if jobs > 1 else 3
        }


def _where(number):
    return number, os.getpid(), torch.get_num_threads()


def test_jobs(tiny_pengi, monkeypatch):
    monkeypatch.setenv("PALMKIT_JOBS", "3")
    assert workers.count_jobs(tiny_pengi) == 3
    monkeypatch.setenv("PALMKIT_JOBS", "many")
    with pytest.raises(ValueError, match="PALMKIT_JOBS=many: use a number of processes"):
        workers.count_jobs(tiny_pengi)
    monkeypatch.delenv("PALMKIT_JOBS")
    assert workers.count_jobs(tiny_pengi) >= 1  # small: one a core
    monkeypatch.setattr(workers, "SMALL", 1)
    assert workers.count_jobs(tiny_pengi) == 1  # a large model's steps use all cores by themselves


def test_first_fold_and_quick(dataset, monkeypatch):
    assert {unit.fold for unit in trials.make_grid("all", [dataset], "first")} == {1}
    with pytest.raises(ValueError, match=r"has folds \[1, 2\]; there is no fold \[3\]"):
        trials.make_grid("all", [dataset], [3])
    given = {}
    monkeypatch.setattr("palmkit.cli._run_units", lambda name, choices: given.update(choices))
    monkeypatch.setattr("palmkit.cli._table", lambda *_: None)
    assert main(["run", "--quick", "--dataset", "default", str(dataset)]) == 0
    assert (given["folds"], given["seeds"], given["methods"]) == ("first", [0], "all")
    assert given["datasets"] == [*DEFAULT_TASKS, str(dataset)]
    assert main(["run"]) == 0
    assert (given["folds"], given["seeds"], given["datasets"]) == (
        "all",
        [0, 1, 2],
        [*DEFAULT_TASKS],
    )
    assert (
        main(["run", "--quick", "--seed", "4", "--fold", "2"]) == 0
    )  # what is said goes before what is quick
    assert (given["folds"], given["seeds"]) == ([2], [4])
