"""Workers are sent references: small, equal in effect, and refused where they would differ."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
from outside import few, make_home, read_rows  # noqa: F401

from palmkit import load_model
from palmkit.experiments import calls as sent
from palmkit.experiments import executor, references
from palmkit.experiments.run import run_trials
from palmkit.experiments.trials import make_grid
from palmkit.plugins import load_plugins

SAME = ("accuracy", "f1", "loss", "losses", "tensors", "key", "clips", "weights", "note")
METHODS = ["zeroshot", "palm", "gda"]


def make_calls(home, monkeypatch, checkpoint="toy", cache="default", methods=METHODS, **settings):
    """What in_parallel is called with for a small grid, and the rows of this process."""
    load_plugins([home / "toy_model.py"])
    model, seen = load_model("toy"), []
    monkeypatch.setattr(
        sent,
        "in_parallel",
        lambda function, calls, *rest: (
            seen.append((function, calls)) or executor.in_parallel(function, calls, *rest)
        ),
    )
    grid = make_grid(datasets=[str(home / "tiny")], methods=methods, shots=2, epochs=2, **settings)
    rows = run_trials(grid, model, home / "runs/one", cache=cache, checkpoint=checkpoint)
    return seen[-1], rows


def comparable(row):
    return json.dumps([row.get(name) for name in SAME])


def test_a_worker_is_sent_kilobytes_and_gives_the_same_row(home, monkeypatch):
    (function, calls), rows = make_calls(home, monkeypatch)
    for call, row in zip(calls, rows, strict=True):
        sent = pickle.dumps(call)
        assert len(sent) < 4000
        assert b"torch" not in sent.replace(b"('torch", b"").replace(b"torch\x94", b"")
        again, tensors = function(*pickle.loads(sent))
        for name in ("accuracy", "f1", "loss", "losses", "clips", "n_test", "note"):
            assert json.dumps(again.get(name)) == json.dumps(row.get(name))
        assert "logits" in tensors


def test_without_a_name_or_a_cache_all_is_sent(home, monkeypatch):
    (function, calls), rows = make_calls(home, monkeypatch, checkpoint=None)
    assert all(len(pickle.dumps(call)) > 4000 for call in calls)
    row, _ = function(*pickle.loads(pickle.dumps(calls[1])))
    assert row["loss"] == rows[1]["loss"]


def referred(calls, **changes):
    """The reference of a call, with parts changed."""
    return replace(calls[1][0].reference, **changes)


def test_other_weights_are_refused_by_name(home, monkeypatch):
    (_, calls), _ = make_calls(home, monkeypatch)
    reference = calls[1][0].reference
    with pytest.raises(
        references.WorkerDiffers, match="the model toy of the worker on .*digest toy 1"
    ):
        referred(calls, model=replace(reference.model, digest="another")).load()


def test_other_clips_are_refused_by_name(home, monkeypatch):
    (_, calls), _ = make_calls(home, monkeypatch)
    references._load_fold.cache_clear()
    table = home / "tiny" / "test.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    with pytest.raises(references.WorkerDiffers, match="the dataset .*tiny of the worker on"):
        calls[1][0].reference.load()


def test_other_versions_are_refused_by_name(home, monkeypatch):
    (_, calls), _ = make_calls(home, monkeypatch)
    versions = tuple((name, "0.0.1") for name, _ in calls[1][0].reference.versions)
    with pytest.raises(references.WorkerDiffers, match="torch .* instead of 0.0.1"):
        referred(calls, versions=versions).load()


def test_skip_bad_and_a_relative_folder_reach_the_worker(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("PALMKIT_SKIP_BAD", "1")
    (home / "tiny" / "belltrain0.wav").write_bytes(b"no audio")
    load_plugins([home / "toy_model.py"])
    seen = []
    monkeypatch.setattr(sent, "in_parallel", lambda f, calls, *rest: seen.extend(calls) or [])
    grid = make_grid(datasets=["tiny"], methods=["palm"], shots=2, epochs=2)
    with pytest.raises(FileNotFoundError):  # no trial is run
        run_trials(grid, load_model("toy"), home / "runs/one", checkpoint="toy")
    monkeypatch.setenv("PALMKIT_SKIP_BAD", "")
    monkeypatch.chdir("/")
    references._load_fold.cache_clear()
    job = seen[0][0].reference.load()
    assert len(job.dataset.left_out) == 1 and os.environ["PALMKIT_SKIP_BAD"] == ""


@pytest.mark.slow
def test_two_workers_give_the_rows_of_one_process(home, monkeypatch):
    """START of the executor keeps short work in one process, so it is set to 0."""
    grid = few(home, "--import", home / "toy_model.py", "--checkpoint", "toy", "--method", *METHODS)
    code = "import sys; from palmkit.experiments import executor; executor.START = 0; "
    code += "from palmkit.cli import main; sys.exit(main(sys.argv[1:]))"
    for name, jobs in (("two", "2"), ("one", "1")):
        command = [sys.executable, "-c", code, "run", *grid, "--name", name, "--note", "a note"]
        done = subprocess.run(command, env=os.environ | {"PALMKIT_JOBS": jobs}, text=True,
                              capture_output=True, timeout=300)  # fmt: skip
        assert done.returncode == 0, done.stderr
    one, two = read_rows(home, "one"), read_rows(home, "two")
    assert {name: comparable(row) for name, row in one.items()} == {
        name: comparable(row) for name, row in two.items()
    }
    assert len(one) == 3 and "a note" in two["palm"]["note"]
