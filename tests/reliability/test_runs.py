"""Runs that are disturbed: what failed is told, all else is done, nothing is lost or left over."""

import json
import os
import random
import shutil
import subprocess
import sys
import time

import psutil
import pytest
import soundfile
from faults import attempt, count_tries
from outside import few, make_home  # noqa: F401

from palmkit.cli import main

FAILS = """
import torch
from palmkit import Method


class Fails(Method):
    name = "fails"

    def fit(self, features, labels, **settings):
        if self.seed == 1:
            raise {error}
        return []

    def forward(self, features):
        return features[:, : len(self.class_names)]
"""


def read_all(home, name="one") -> dict:
    """{method, dataset, seed: row} of a run."""
    paths = sorted((home / "runs" / name / "rows").glob("*/*.json"))
    rows = [json.loads(path.read_text()) for path in paths]
    return {(row["method"], row["dataset"], row["seed"]): row for row in rows}


def make_method(home, error: str, name="fails"):
    path = home / f"{name}.py"
    path.write_text(FAILS.format(error=error))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", ["KeyError('no key')", "MemoryError()", "RuntimeError('two\\nlines')", "OSError(5)"]
)
def test_a_trial_that_raises_is_a_row_and_the_others_go_on(home, capsys, error):
    path = make_method(home, error)
    flags = few(home, "--import", path, "--method", "zeroshot", "fails", "--name", "one")
    flags += ["--seed", "0", "1", "2"]
    assert main(["run", *flags]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("palmkit: 1 of 4 trials failed")
    assert "fails on tiny, fold None, seed 1" in said.err and "--retry-failed" in said.err
    assert "Zero-shot" in said.out  # the table of the others
    rows = read_all(home)
    assert len(rows) == 4
    failed = rows["fails", "tiny", 1]
    assert error.partition("(")[0] in failed["failed"] and "\n" not in failed["failed"]
    assert f"{path.name} failed" in failed["failed"] and "line 11" in failed["failed"]
    assert "accuracy" not in failed and failed["palmkit"] and failed["seed"] == 1
    assert all("failed" not in row for key, row in rows.items() if key[2] != 1)
    page = (home / "runs" / "one" / "index.html").read_text()
    assert "Failed trials" in page and "fails on tiny, fold None, seed 1" in page


@pytest.mark.slow
def test_failed_trials_run_again_when_asked(home, capsys):
    path = make_method(home, "KeyError('no key')")
    path.write_text(path.read_text().replace("self.seed == 1", "True"))
    flags = few(home, "--import", path, "--method", "fails", "--name", "one")
    assert main(["run", *flags]) == 1
    (row,) = (home / "runs" / "one" / "rows" / "tiny").glob("*.json")
    before = row.stat().st_mtime_ns
    assert main(["run", *flags]) == 1  # told again, not run again
    assert row.stat().st_mtime_ns == before
    assert main(["table", "one"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "1 of 1 trials failed" in error and "--retry-failed" in error
    assert main(["run", *flags, "--retry-failed"]) == 1
    assert row.stat().st_mtime_ns > before


@pytest.mark.slow
def test_a_retry_that_succeeds_takes_the_place_of_the_failure(home, capsys, monkeypatch):
    monkeypatch.setenv("MENDED", "")
    error = "KeyError() if not __import__('os').environ['MENDED'] else StopIteration()"
    path = make_method(home, error)
    path.write_text(path.read_text().replace("if self.seed == 1:", "if not MENDED():"))
    path.write_text(f"import os\nMENDED = lambda: os.environ['MENDED']\n{path.read_text()}")
    flags = few(home, "--import", path, "--method", "fails", "--name", "one")
    assert main(["run", *flags]) == 1
    monkeypatch.setenv("MENDED", "yes")
    assert main(["run", *flags, "--retry-failed"]) == 0
    (row,) = read_all(home).values()
    assert "failed" not in row and 0 <= row["accuracy"] <= 1


@pytest.mark.slow
def test_failed_rows_enter_no_mean(home, capsys):
    from palmkit.results import load_rows, result_tables

    path = make_method(home, "KeyError('no key')")
    flags = few(home, "--import", path, "--method", "fails", "--name", "one")
    assert main(["run", *flags, "--seed", "0", "1"]) == 1
    with pytest.warns(UserWarning, match="1 of 2 trials failed and count in no table"):
        rows = load_rows("one")
    (table,) = result_tables(rows)
    assert list(rows["seed"]) == [0] and list(table.summary["seeds"]) == [1]


def copy_dataset(home, name: str):
    return shutil.copytree(home / "tiny", home / name)


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
def test_a_corrupt_clip_of_one_dataset_leaves_the_other(home, capsys, first):
    bad = copy_dataset(home, "broken")
    (bad / "belltest0.wav").write_bytes(b"RIFF, but no sound")
    folders = [str(bad), str(home / "tiny")][:: 1 if first else -1]
    flags = ["--dataset", *folders, "--shots", "2", "--epochs", "1", "--seed", "0"]
    checkpoint = ["--import", str(home / "toy_model.py"), "--checkpoint", "toy"]
    assert main(["run", *flags, *checkpoint, "--method", "zeroshot", "--name", "one"]) == 1
    rows = read_all(home)
    assert "belltest0.wav" in rows["zeroshot", "broken", 0]["failed"]
    assert 0 <= rows["zeroshot", "tiny", 0]["accuracy"] <= 1
    assert "1 of 2 trials failed" in capsys.readouterr().err
    soundfile.write(bad / "belltest0.wav", [0.1, 0.2] * 8000, 16_000)
    capsys.readouterr()
    assert main(["run", *flags, *checkpoint, "--method", "zeroshot", "--name", "one"]) == 0
    # Nothing tells of the failure any more, though the mended clip gave its trial another key.
    assert "failed" not in capsys.readouterr().err
    assert not any("failed" in row for row in read_all(home).values())
    assert len([*(home / "runs" / "one" / "rows").glob("*/*.json")]) == 2


@pytest.mark.slow
def test_failures_of_other_settings_stay(home, capsys):
    bad = copy_dataset(home, "broken")
    (bad / "belltest0.wav").write_bytes(b"RIFF, but no sound")
    flags = ["--dataset", str(bad), "--shots", "2", "--epochs", "1", "--seed", "0"]
    flags += ["--import", str(home / "toy_model.py"), "--checkpoint", "toy", "--method", "palm"]
    for rate in ("0.1", "0.2"):
        assert main(["run", *flags, "--name", "one", "--lr", rate]) == 1
    soundfile.write(bad / "belltest0.wav", [0.1, 0.2] * 8000, 16_000)
    capsys.readouterr()
    assert main(["run", *flags, "--name", "one", "--lr", "0.1"]) == 0
    paths = (home / "runs" / "one" / "rows" / "broken").glob("*.json")
    rows = [json.loads(path.read_text()) for path in paths]
    assert {(row["lr"], "failed" in row) for row in rows} == {(0.1, False), (0.2, True)}
    assert "1 of 2 trials failed" in capsys.readouterr().err


def test_a_run_s_folder_deleted_under_it_is_one_error(home, capsys):
    path = make_method(home, "KeyError()")
    text = path.read_text().replace("if self.seed == 1:", "import shutil; shutil.rmtree(RUN)\n"
                                    "        if False:")  # fmt: skip
    path.write_text(f"RUN = {str(home / 'runs' / 'one')!r}\n{text}")
    flags = few(home, "--import", path, "--method", "fails", "--name", "one")
    assert main(["run", *flags]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{home / 'runs' / 'one'} was deleted" in error and "The same command" in error


# Processes that are killed.

# The first trials of a clock take long, so that the run uses processes; the others do not.
SLEEPS = """
import os
import signal
import time

import torch
from palmkit import Method


class Sleeps(Method):
    name = "sleeps"

    def __init__(self, model, class_names, seed=0):
        super().__init__(model, class_names, seed)
        self.weight = torch.nn.Parameter(torch.zeros(len(class_names)))

    def fit(self, features, labels, **settings):
        time.sleep(0.15)
        if self.seed == KILLER and os.getppid() == DRIVER():
            os.kill(os.getpid(), signal.SIGKILL)
        torch.manual_seed(self.seed)
        with torch.no_grad():
            self.weight += torch.randn(len(self.weight))
        return [float(self.weight.sum())]

    def forward(self, features):
        return features[:, : len(self.class_names)] * self.weight
"""
SEEDS = range(6)


def make_sleeper(home, killer: int = -1):
    """A method whose trials take a while; that of the seed `killer` kills its worker process."""
    path = home / "sleeps.py"
    driver = f"DRIVER = lambda: int(open({str(home / 'driver')!r}).read())"
    path.write_text(f"KILLER = {killer}\n{driver}\n{SLEEPS}")
    return path


def command(home, path, name: str) -> list[str]:
    """`palmkit run` of six trials."""
    grid = ["--dataset", home / "tiny", "--shots", 2, "--epochs", 200, "--seed", *SEEDS]
    checkpoint = ["--import", path, home / "toy_model.py", "--checkpoint", "toy"]
    return ["run", *map(str, [*grid, *checkpoint, "--method", "sleeps", "--name", name])]


def start(home, path, name: str) -> subprocess.Popen:
    """The command in a process of its own, with two workers."""
    driver = subprocess.Popen(
        [sys.executable, "-m", "palmkit", *command(home, path, name)],
        env=os.environ | {"PALMKIT_JOBS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    (home / "driver").write_text(str(driver.pid))
    return driver


def results(home, name: str) -> dict:
    """What must be equal of the rows of a run."""
    fields = ("accuracy", "loss", "losses", "tensors", "key", "failed")
    return {key: [row.get(f) for f in fields] for key, row in read_all(home, name).items()}


def count_rows(home, name: str) -> int:
    return len([*(home / "runs" / name / "rows").glob("*/*.json")])


def wait_for(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def start_and_wait(home, path, name: str, rows: int) -> subprocess.Popen:
    """A run that has written so many rows, or has ended."""
    driver = start(home, path, name)
    wait_for(lambda: count_rows(home, name) >= rows or driver.poll() is not None, 60)
    return driver


def shared_memory(pid: int) -> list[str]:
    """What is in shared memory of a process and its workers."""
    if not os.path.isdir("/dev/shm"):
        return []
    return [name for name in os.listdir("/dev/shm") if f"-{pid}-" in name or f"_{pid}_" in name]


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_nothing(home):
    path = make_sleeper(home)
    for number in range(count_tries(1, 10)):
        with attempt("kill -9 of the driver"):
            rng, name = random.Random(number), f"killed{number}"
            driver = start_and_wait(home, path, name, rows=rng.randrange(1, 5))
            time.sleep(rng.random() / 2)
            family = psutil.Process(driver.pid).children(recursive=True)
            driver.kill()
            driver.communicate()
            assert wait_for(lambda: not any(map(psutil.Process.is_running, family)), 15)  # noqa: B023
            assert wait_for(lambda: not shared_memory(driver.pid), 5)  # noqa: B023
            kept = results(home, name)
            assert 0 < len(kept) <= len(SEEDS)
            check_resumed(home, path, name, kept)


def check_resumed(home, path, name: str, kept: dict) -> None:
    """The same command makes the other rows, and all are those of a run that was not disturbed."""
    for run in (name, "whole"):
        assert main(command(home, path, run)) == 0  # in this process
    assert results(home, name) == results(home, "whole")
    assert kept.items() <= results(home, name).items()


@pytest.mark.slow
def test_a_trial_that_kills_its_worker_is_a_failed_trial(home):
    """The trials beside it are done, and it is tried once alone."""
    driver = start(home, make_sleeper(home, killer=2), "one")
    _, said = driver.communicate(timeout=120)
    assert driver.returncode == 1, said[-2000:]
    rows = read_all(home)
    assert len(rows) == len(SEEDS)
    assert [seed for (*_, seed), row in rows.items() if "failed" in row] == [2]
    assert "worker process was killed" in rows["sleeps", "tiny", 2]["failed"]
    assert "sleeps on tiny, fold None, seed 2" in said and "tried again, one at a time" in said
    assert "palmkit: 1 of 6 trials failed" in said.splitlines()[-1]
    assert "Traceback" not in said and not shared_memory(driver.pid)


@pytest.mark.slow
@pytest.mark.skipif(count_tries(0, 1) == 0, reason="make endurance")
def test_a_worker_that_is_killed_costs_nothing(home):
    path = make_sleeper(home)
    for number in range(count_tries(1, 10)):
        with attempt("kill -9 of a worker"):
            rng, name = random.Random(number), f"worker{number}"
            driver = start_and_wait(home, path, name, rows=rng.randrange(0, 4))
            wait_for(lambda: len(workers(driver)) == 2 or driver.poll() is not None, 60)  # noqa: B023
            time.sleep(rng.random() / 2)
            for worker in rng.sample(workers(driver), 1):
                worker.kill()
            output = driver.communicate(timeout=120)
            assert driver.returncode == 0, output[1][-2000:]
            check_resumed(home, path, name, results(home, name))
            assert not shared_memory(driver.pid)


def workers(driver: subprocess.Popen) -> list[psutil.Process]:
    """The worker processes of a run. Its resource tracker is none."""
    try:
        children = psutil.Process(driver.pid).children()
        return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]
    except psutil.Error:
        return []
