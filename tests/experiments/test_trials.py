"""Trials, rows and tables: written once, whole, never run twice, never mixed."""

import hashlib
import json
import math
import os
import subprocess
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from safetensors.torch import load_file

import palmkit
from palmkit import load_pengi
from palmkit.cli import main
from palmkit.experiments import executor, rows, timing, trials
from palmkit.experiments import run as running
from palmkit.published import published_rows
from palmkit.results import comparison
from palmkit.results import tables as results
from palmkit.results.versions import versioned_datasets

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


def count_written(run, grid, model) -> int:
    """Run a grid; how many of its trials were run: their rows are new, or written anew."""

    def stamps():
        return {path: path.stat().st_mtime_ns for path in run.glob("rows/*/*.json")}

    before = stamps()
    running.run_trials(grid, model, run)
    return len(stamps().items() - before.items())


def test_the_default_grid_is_the_paper_s(dataset):
    """Three learned methods with three seeds and zero-shot once, on each fold."""
    grid = trials.make_grid("all", [dataset])
    cells = [(trial.fold, trial.seed, trial.method) for trial in grid]
    learned = ["coop", "cocoop", "palm"]
    assert cells == [
        (fold, seed, method)
        for fold in (1, 2)
        for seed in (0, 1, 2)
        for method in (["zeroshot"] * (seed == 0) + learned)
    ]
    for trial in grid:
        few = {"shots": 0, "epochs": 0} if trial.method == "zeroshot" else {}
        expected = {
            **dict(dataset=str(dataset), shots=16, epochs=50, batch_size=16, lr=0.05, momentum=0.9),
            **dict(crop="random", crop_seed=0, protocol="frozen", stochastic=(), autocast=False),
            **dict(options={}, regime="published", method=trial.method),
            **dict(fold=trial.fold, seed=trial.seed),
            **few,
        }
        assert vars(trial) == expected


@pytest.mark.slow
def test_a_row_tells_everything(dataset, run, tiny_pengi):
    unit = trials.make_grid(["palm"], [dataset], folds=[2], seeds=[1], shots=2, epochs=2)
    (row,) = running.run_trials(unit, tiny_pengi, run)
    (path,) = run.glob("rows/tiny/*.json")
    assert json.loads(path.read_text()) == row
    fields = (
        *("accuracy", "f1", "precision", "recall", "loss", "seconds", "device", "versions"),
        *("weights", "clips", "clip_offsets", "lambdas", "lambdas_initial", "losses"),
        *("n_train", "n_test", "lr", "key"),
    )
    assert set(fields) <= set(row)
    assert row["n_train"] == len(row["clips"]) == 6 and row["n_test"] == 9
    assert len(row["losses"]) == 2 and len(row["lambdas"]) == 3
    tensors = load_file(path.with_suffix(".safetensors"))
    right = (tensors["logits"].argmax(1) == tensors["labels"]).double().mean().item()
    assert tensors["logits"].shape == (9, 3) and right == row["accuracy"]
    assert torch.allclose(torch.sigmoid(tensors["prompt.lambdas"]), torch.tensor(row["lambdas"]))


@pytest.mark.slow
def test_a_row_repeats_and_seeds_differ(dataset, tmp_path, tiny_pengi):
    grid = trials.make_grid(["coop"], [dataset], folds=[1], **GRID)
    one, two = (
        running.run_trials(grid, tiny_pengi, tmp_path / "runs" / name) for name in ("a", "b")
    )
    assert [row["losses"] for row in one] == [row["losses"] for row in two]
    assert one[0]["losses"] != one[1]["losses"]


@pytest.mark.slow
def test_an_interrupted_grid_goes_on(dataset, run, tiny_pengi, monkeypatch):
    grid = trials.make_grid("all", [dataset], **GRID)
    replace = os.replace

    def stop_at_the_fifth_row(source, target):
        if str(target).endswith(".json") and len(list(run.glob("rows/*/*.json"))) == 4:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop_at_the_fifth_row)
        with pytest.raises(KeyboardInterrupt):
            running.run_trials(grid, tiny_pengi, run)
    assert len(list(run.glob("rows/*/*.json"))) == 4
    assert count_written(run, grid, tiny_pengi) == len(grid) - 4
    assert len(list(run.glob("rows/*/*.json"))) == len(grid) == 14
    assert count_written(run, grid, tiny_pengi) == 0


@pytest.mark.slow
def test_other_settings_data_or_weights_run_anew(dataset, run, tiny_pengi, monkeypatch):
    def new(**settings):
        settings = {"shots": 2, "epochs": 2, **settings}
        grid = trials.make_grid(["palm"], [dataset], [1], [0], **settings)
        return count_written(run, grid, tiny_pengi)

    assert (new(), new()) == (1, 0)
    assert [
        new(epochs=3),
        new(lr=0.1),
        new(shots=1),
        new(crop="start"),
        new(options={"init": "text"}),
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
    (row,) = running.run_trials(grid, tiny_pengi, run)
    (path,) = run.glob("rows/*/*.json")
    path.write_text(path.read_text()[:100])
    with pytest.warns(UserWarning, match="is not used, it is damaged"):
        (again,) = running.run_trials(grid, tiny_pengi, run)
    assert again["losses"] == row["losses"] and json.loads(path.read_text()) == again


@pytest.mark.parametrize("accuracy", [None, "0.5"])
def test_a_row_that_no_table_takes_is_run_again(dataset, run, tiny_pengi, accuracy):
    grid = trials.make_grid(["palm"], [dataset], [1], [0], shots=2, epochs=1)
    running.run_trials(grid, tiny_pengi, run)
    (path,) = run.glob("rows/*/*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"accuracy": accuracy}))
    with pytest.warns(UserWarning, match="is not used, it is damaged: its accuracy is"):
        (again,) = running.run_trials(grid, tiny_pengi, run)
    assert isinstance(again["accuracy"], float)


def test_a_full_disk_loses_nothing(dataset, run, tiny_pengi, monkeypatch):
    import errno
    import os

    grid = trials.make_grid(["palm", "coop"], [dataset], [1], [0], shots=2, epochs=1)
    running.run_trials(grid[:1], tiny_pengi, run)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="Free some space.*will be used again"):
            running.run_trials(grid, tiny_pengi, run)
    assert len(list(run.glob("rows/*/*.json"))) == 1 and not list(run.glob("rows/*/.*"))
    assert len(running.run_trials(grid, tiny_pengi, run)) == 2


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            dict(methods=["palm", "magic"]),
            "no method 'magic'; there are zeroshot, coop, cocoop, palm",
        ),
        (dict(folds=[3]), r"tiny has the folds \[1, 2\]; there is no fold \[3\]"),
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
        ("A", "palm", 1, 0, 0.2), ("A", "palm", 2, 0, 0.4),
        ("A", "palm", 1, 1, 0.6), ("A", "palm", 2, 1, 0.8),
        ("B", "palm", 1, 0, 0.5), ("B", "palm", 1, 1, 0.9),
        ("A", "coop", 1, 0, 0.1), ("A", "coop", 2, 0, 0.3),
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


@pytest.mark.slow
def test_zero_shot_has_no_shots_and_stands_in_every_table(dataset, run, tiny_pengi):
    for shots in (1, 2):
        running.run_trials(
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


@pytest.mark.slow
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
    assert capsys.readouterr().out.startswith("dataset,method,shots,")


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
            "the chosen notebooks have no parameter learning_rte; there are checkpoint",
        ),
    ],
)
def test_command_line_errors_are_one_sentence(command, message, capsys):
    assert main(command) == 1
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown


def test_settings_are_refused_before_datasets_are_made(monkeypatch):
    monkeypatch.setattr(
        "palmkit.datasets.resolve.choose_folds", lambda *_: pytest.fail("a dataset was opened")
    )
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
    assert stop.value.code == 0 and "usage: palmkit" in capsys.readouterr().out


@pytest.mark.slow
def test_several_processes_write_the_same_rows(dataset, tmp_path, tiny_pengi, monkeypatch, caplog):
    """What a unit gives does not depend on how many run beside it, nor on which is done first."""
    caplog.set_level("INFO", "palmkit")
    grid = trials.make_grid("all", [dataset], **GRID)
    one = running.run_trials(grid, tiny_pengi, tmp_path / "runs" / "one")
    monkeypatch.setenv("PALMKIT_JOBS", "2")
    two = running.run_trials(grid, tiny_pengi, tmp_path / "runs" / "two")
    for a, b in zip(one, two, strict=True):
        assert (a["key"], a["method"], a["fold"], a["seed"]) == (
            b["key"],
            b["method"],
            b["fold"],
            b["seed"],
        )
        assert a["losses"] == b["losses"] and a["accuracy"] == b["accuracy"]
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("To do: 14 trials, 1 at a time: about")
    assert said[1].startswith("To do: 14 trials, 2 at a time: about")
    running.run_trials(grid, tiny_pengi, tmp_path / "runs" / "two")
    assert len(caplog.records) == 2  # nothing to do, nothing to say


def test_a_tokenizer_that_is_loaded_late_is_in_no_trial_s_time(dataset, tiny_pengi, monkeypatch):
    now, (trial,) = [0.0], trials.make_grid(["coop"], [dataset], [1], [0])
    first, tokenize = iter([100.0]), tiny_pengi.tokenize

    def loading(prompts):
        now[0] += next(first, 0.0)
        return tokenize(prompts)

    monkeypatch.setattr(tiny_pengi, "tokenize", loading)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert timing.Clock(tiny_pengi).measure(trial, ["bell", "dog"], 4) == (0.0, 0.0, 0.0)
    assert now == [100.0]


def test_estimates_grow_with_the_work(dataset, tiny_pengi):
    clock = timing.Clock(tiny_pengi)
    (short,), (long,) = (
        trials.make_grid(["coop"], [dataset], [1], [0], epochs=epochs) for epochs in (1, 100)
    )
    names = ["bell", "dog", "rain"]
    one, hundred = clock.trial(short, names, 48, 10), clock.trial(long, names, 48, 10)
    assert 0 < one < hundred and hundred > 20 * (hundred - one) / 99
    assert len(clock.known) == 1  # measured once a kind
    assert clock.clip() > 0


@pytest.mark.parametrize(
    "seconds, text", [(0.1, "1 s"), (40, "40 s"), (400, "7 min"), (9000, "2.5 h")]
)
def test_durations_as_one_says_them(seconds, text):
    assert timing.duration(seconds) == f"about {text}"


@pytest.mark.parametrize(
    "jobs, seconds",
    [(1, [1, 99, 5]), (2, [1, 5, 3]), pytest.param(2, [9, 60, 30], marks=pytest.mark.slow)],
)
def test_the_longest_is_begun_first(jobs, seconds):
    """Here, on the caller's threads or on one; or in other processes, where it pays."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        done = dict(executor.in_parallel(_where, [(n,) for n in range(3)], seconds, jobs))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert {n: number for n, (number, *_) in done.items()} == {0: 0, 1: 1, 2: 2}
    elsewhere = jobs > 1 and sum(seconds) > executor.START
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
    """A small model's trials share the cores; a large one's steps use all cores by themselves."""
    monkeypatch.setattr(executor.joblib, "cpu_count", lambda: 5)
    monkeypatch.setenv("PALMKIT_JOBS", "3")
    assert executor.count_jobs(tiny_pengi) == 3
    monkeypatch.setenv("PALMKIT_JOBS", "many")
    with pytest.raises(ValueError, match="PALMKIT_JOBS=many: use a number of processes"):
        executor.count_jobs(tiny_pengi)
    monkeypatch.delenv("PALMKIT_JOBS")
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for device, width, jobs in ((cpu, 64, 5), (cpu, 512, 1), (gpu, 64, 1)):
        model = SimpleNamespace(device=device, text_width=width, dim=64)
        assert executor.count_jobs(model) == jobs
    assert executor.count_jobs(tiny_pengi) == 5
    assert executor.count_jobs(SimpleNamespace(device=cpu, dim=1024)) == 1


def test_folds_of_a_grid(dataset):
    assert {unit.fold for unit in trials.make_grid("all", [dataset], "first")} == {1}
    with pytest.raises(ValueError, match=r"has the folds \[1, 2\]; there is no fold \[3\]"):
        trials.make_grid("all", [dataset], [3])


# Rows that cannot lie.


def run_palm(dataset, model, run, **settings):
    settings = {"shots": 2, "epochs": 2, **settings}
    (row,) = running.run_trials(
        trials.make_grid(["palm"], [dataset], [1], [0], **settings), model, run
    )
    return row


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["frozen", "released"])
def test_the_same_weights_with_other_text_heads_are_another_model(
    dataset, run, tiny_pengi, compact, protocol
):
    """Heads have no weights of their own: only the config tells them."""
    heads = tiny_pengi.config["text"]["num_attention_heads"]
    text = {"num_attention_heads": heads // 2}
    other = load_pengi(compact.checkpoint, "cpu", {"text": text})
    one, two = (
        run_palm(dataset, model, run, protocol=protocol, epochs=1) for model in (tiny_pengi, other)
    )
    assert one["key"] != two["key"] and one["losses"] != two["losses"]
    assert one["weights"] == tiny_pengi.digest() != two["weights"] == other.digest()
    assert len(list(run.glob("rows/*/*.json"))) == 2


def test_a_clip_replaced_by_another_of_equal_size_is_another_dataset(dataset, run, tiny_pengi):
    one = run_palm(dataset, tiny_pengi, run)
    clip = dataset / "audios" / "bell1.wav"
    size = clip.stat().st_size
    soundfile.write(clip, np.random.default_rng(9).standard_normal(11025) * 0.1, 44100)
    assert clip.stat().st_size == size
    two = run_palm(dataset, tiny_pengi, run)
    assert one["dataset_digest"] != two["dataset_digest"] and one["key"] != two["key"]


def swap_folds(dataset):
    """The same clips in folds drawn otherwise: two clips of a class change places."""
    for table in (dataset / "csv_files").glob("*.csv"):
        text = table.read_text()
        swapped = text.replace("bell0.wav", "other").replace("bell1.wav", "bell0.wav")
        table.write_text(swapped.replace("other", "bell1.wav"))


def test_folds_drawn_anew_from_the_same_clips_are_another_dataset(dataset, run, tiny_pengi):
    grid = trials.make_grid(["zeroshot"], [dataset])
    running.run_trials(grid[:1], tiny_pengi, run)
    swap_folds(dataset)
    running.run_trials(grid[1:], tiny_pengi, run)
    found = results.load_rows(run)
    assert sorted(found["fold"]) == [1, 2]
    assert versioned_datasets(found) == [dataset.name]


def test_the_order_of_a_table_is_no_version(dataset, run, tiny_pengi):
    grid = trials.make_grid(["zeroshot"], [dataset])
    running.run_trials(grid[:1], tiny_pengi, run)
    table = dataset / "csv_files" / "test_1.csv"
    head, *lines = table.read_text().splitlines()
    table.write_text("\n".join([head, *reversed(lines)]) + "\n")
    running.run_trials(grid[1:], tiny_pengi, run)
    assert versioned_datasets(results.load_rows(run)) == []


def test_a_row_whose_fold_is_unchanged_goes_on_with_the_dataset(dataset, run, tiny_pengi):
    """A fold is added. The rows of the others are kept, and are of its present version."""
    grid = trials.make_grid(["palm"], [dataset], folds=[1], seeds=[0], shots=2, epochs=1)
    (old,) = running.run_trials(grid, tiny_pengi, run)
    for split in ("train", "test"):
        table = dataset / "csv_files" / f"{split}_2.csv"
        (dataset / "csv_files" / f"{split}_3.csv").write_text(table.read_text())
    (kept,) = running.run_trials(grid, tiny_pengi, run)
    assert kept["dataset_digest"] != old["dataset_digest"]
    assert kept == old | {"dataset_digest": kept["dataset_digest"]}
    assert running.run_trials(grid, tiny_pengi, run) == [kept]
    running.run_trials(
        trials.make_grid(["palm"], [dataset], folds=[3], seeds=[0], shots=2, epochs=1),
        tiny_pengi,
        run,
    )
    assert versioned_datasets(results.load_rows(run)) == []


def test_a_row_says_where_it_comes_from(dataset, run, tiny_pengi, compact, monkeypatch):
    monkeypatch.setenv("PALMKIT_COMMAND", "palmkit run --quick")
    row = run_palm(dataset, tiny_pengi, run)
    assert row["palmkit"] == palmkit.__version__ and row["trial_version"] == rows.TRIAL_VERSION
    assert row["command"] == "palmkit run --quick" and row["commit"] == rows.git_commit()
    file = compact.checkpoint.read_bytes()
    assert row["checkpoint_sha256"] == hashlib.sha256(file).hexdigest()
    assert (
        row["method_digest"] == "" and row["versions"]["torch"] == torch.__version__.split("+")[0]
    )


def test_commit_of_a_checkout(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True)

    assert rows.git_commit(tmp_path) == ""
    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    rows.git_commit.cache_clear()
    commit = rows.git_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "file").write_text("2")
    rows.git_commit.cache_clear()
    assert rows.git_commit(tmp_path) == f"{commit} dirty"
    rows.git_commit.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_a_row_without_its_tensors_is_made_again(dataset, run, tiny_pengi, damage):
    row = run_palm(dataset, tiny_pengi, run)
    (tensors,) = run.glob("rows/*/*.safetensors")
    whole = tensors.read_bytes()
    if damage == "missing":
        tensors.unlink()
    else:
        tensors.write_bytes(whole[:-9] if damage == "cut" else whole[:-1] + b"?")
    problem = "missing" if damage == "missing" else "damaged"
    with pytest.warns(UserWarning, match=f"is run again: its tensors are {problem}"):
        again = run_palm(dataset, tiny_pengi, run)
    assert again["losses"] == row["losses"] and tensors.read_bytes() == whole


def test_rows_of_another_version_are_left_alone_and_said(dataset, run, tiny_pengi, caplog):
    caplog.set_level("INFO", "palmkit")
    run_palm(dataset, tiny_pengi, run)
    (path,) = run.glob("rows/*/*.json")
    old = json.loads(path.read_text())
    del old["trial_version"]
    other = path.with_name("palm-fold1-shots2-seed0-0123456789.json")
    other.write_text(json.dumps(old | {"key": "0123456789"}))
    caplog.clear()
    run_palm(dataset, tiny_pengi, run)
    assert "1 rows of another version of palmkit are not used" in caplog.text
    assert json.loads(other.read_text())["key"] == "0123456789"
    caplog.clear()
    other.unlink()
    run_palm(dataset, tiny_pengi, run)
    assert not caplog.records


def test_numbers_that_json_does_not_have(tmp_path):
    row = {"dataset": "Rain", "method": "palm", "fold": 1, "seed": 0, "key": "k"}
    row |= {"losses": [1.5, math.nan, math.inf, -math.inf], "accuracy": math.nan}
    path = tmp_path / "row.json"
    rows.write_row(path, row, {"logits": torch.ones(2)})

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    json.loads(path.read_text(), parse_constant=refuse)
    again = rows.read_finished(path, "k")
    assert str(again["losses"]) == str(row["losses"]) and math.isnan(again["accuracy"])


@pytest.mark.slow
def test_a_log_of_the_run(dataset, compact, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PALMKIT_RUNS", str(tmp_path / "runs"))
    grid = ["run", "--checkpoint", str(compact.checkpoint), "--dataset", str(dataset)]
    grid += ["--shots", "2"]
    assert main([*grid, "--epochs", "1", "--method", "zeroshot", "--name", "x", "--quiet"]) == 0
    log = (tmp_path / "runs" / "x" / "palmkit.log").read_text()
    assert "palmkit run --checkpoint" in log and "INFO To do: 2 trials" in log
    assert "accuracy" in log and capsys.readouterr().err == ""
    (row,) = (path for path in (tmp_path / "runs" / "x").glob("rows/tiny/*fold1*.json"))
    assert json.loads(row.read_text())["command"].startswith("palmkit run --checkpoint")


@pytest.mark.slow
def test_quick_and_the_whole_grid(dataset, compact, tmp_path, monkeypatch):
    """What a profile says, where nothing else is said."""
    monkeypatch.setenv("PALMKIT_RUNS", str(tmp_path / "runs"))
    few = ["--checkpoint", str(compact.checkpoint), "--dataset", str(dataset), "--shots", "1"]
    command = ["run", *few, "--epochs", "1", "--method", "palm"]
    for flags, cells in (
        (["--quick"], {(1, 0)}),
        ([], {(fold, seed) for fold in (1, 2) for seed in (0, 1, 2)}),
        (["--quick", "--seed", "4", "--fold", "2"], {(2, 4)}),  # what is said goes before
    ):
        name = f"n{len(cells)}{len(flags)}"
        assert main([*command, *flags, "--name", name]) == 0
        made = results.load_rows(tmp_path / "runs" / name)
        assert set(zip(made["fold"], made["seed"], strict=True)) == cells
