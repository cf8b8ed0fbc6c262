"""Several commands on one run: of one version only, and a failure replaces no finished row."""

import json
import os
import time

import pytest
from outside import few, make_home, read_rows  # noqa: F401

from palmkit.cli import main
from palmkit.experiments import calls
from palmkit.experiments.beside import SILENT_S, check_beside
from palmkit.experiments.executor import Failure, attempt
from palmkit.experiments.references import WorkerDiffers, own_versions
from palmkit.experiments.status import Progress


def write_state(folder, **changes) -> None:
    """The state of another command, on another machine."""
    (folder / "status").mkdir(parents=True, exist_ok=True)
    state = {
        "host": "elsewhere",
        "pid": 7,
        "phase": "running trials",
        "written": time.time(),
        "versions": dict(own_versions()),
    }
    (folder / "status" / "elsewhere-7.state.json").write_text(json.dumps(state | changes))


def look(folder) -> None:
    with Progress(folder, {}, own_versions()) as progress:
        check_beside(progress)


def test_a_command_of_another_version_is_refused_by_name(tmp_path):
    folder = tmp_path / "one"
    write_state(folder, versions=dict(own_versions()) | {"torch": "0.0.1"})
    with pytest.raises(WorkerDiffers, match=r"torch \S+ instead of 0.0.1.* process 7 on elsewhere"):
        look(folder)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"phase": "ended", "versions": {"torch": "0"}},
        {"written": time.time() - SILENT_S - 60, "versions": {"torch": "0"}},
        {"versions": None},
    ],
)
def test_others_are_no_hindrance(tmp_path, state):
    write_state(tmp_path / "one", **state)
    look(tmp_path / "one")


def test_a_worker_that_differs_ends_the_run_without_failed_rows(home, monkeypatch, capsys):
    def refuse(*arguments, **options):
        raise WorkerDiffers("the worker on node7 has torch 0.0.1 instead of 2")

    monkeypatch.setattr(calls, "run_trial", refuse)
    flags = few(home, "--import", home / "toy_model.py", "--checkpoint", "toy", "--name", "one")
    assert main(["run", *flags, "--method", "zeroshot", "palm"]) == 1
    assert "palmkit: the worker on node7 has torch 0.0.1" in capsys.readouterr().err
    assert not [*(home / "runs" / "one" / "rows").glob("*/*.json")]


def test_a_refusal_is_told_from_a_failure():
    def refuse():
        raise WorkerDiffers("other")

    assert attempt(refuse) == Failure("other", attempt(refuse).details, ends_run=True)
    assert not attempt(lambda: 1 / 0).ends_run


@pytest.mark.slow
def test_a_failure_does_not_replace_the_row_of_another_command(home, monkeypatch):
    """Another command finishes the trial while it fails in this one."""
    flags = few(home, "--import", home / "toy_model.py", "--checkpoint", "toy", "--name", "one")
    original = calls.run_trial

    def fail_beside(*arguments, **options):
        monkeypatch.setattr(calls, "run_trial", original)
        assert main(["run", *flags, "--method", "palm"]) == 0
        raise KeyError("it fails here")

    monkeypatch.setattr(calls, "run_trial", fail_beside)
    assert main(["run", *flags, "--method", "palm"]) == 0
    (row,) = read_rows(home, "one").values()
    assert "failed" not in row and os.path.isdir(home / "runs" / "one")
