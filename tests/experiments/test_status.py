"""`palmkit status`: what is done, what runs, what failed, and how long it still takes."""

import json
import os
import platform
import subprocess
import sys
import time

import psutil
import pytest
from outside import few, make_home  # noqa: F401

from palmkit.cli import main
from palmkit.experiments.status import Progress, format_status, read_status

WAITS = """
import pathlib
import time
from palmkit import Method

HERE = pathlib.Path({here!r})


class Waits(Method):
    name = "waits"

    def fit(self, features, labels, **settings):
        if self.seed == 1:
            raise KeyError("no key")
        end = time.monotonic() + 60
        while self.seed == 2 and not (HERE / "go").exists() and time.monotonic() < end:
            time.sleep(0.05)
        return []

    def forward(self, features):
        return features[:, : len(self.class_names)]
"""
SEEDS = ["--seed", "0", "1", "2", "3"]


def flags(home, *more):
    """A run of four trials: the second fails, the third waits for the file `go`."""
    path = home / "waits.py"
    path.write_text(WAITS.format(here=str(home)))
    return few(home, "--import", path, home / "toy_model.py", "--checkpoint", "toy",
               "--method", "waits", "--name", "one", *SEEDS, *more)  # fmt: skip


def counts(status):
    return status.total, status.done, len(status.running), status.failed, status.waiting


def write_state(run, **changes):
    """The state of a command that works on the run, with some values changed."""
    (path,) = (run / "status").glob("*.state.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def wait_for(condition, driver, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None and time.monotonic() < end, driver.communicate()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_run_in_another_process_is_followed(home, capsys):
    command = [sys.executable, "-m", "palmkit", "run", *flags(home)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        folder = home / "runs" / "one"
        wait_for(lambda: folder.is_dir() and counts(read_status("one")) == (4, 1, 1, 1, 1), driver)
        assert main(["status", "one"]) == 0
        said = capsys.readouterr().out
        assert said.startswith("Run one: done 1, running 1, failed 1, waiting 1; trials in all: 4")
        assert "running: waits on tiny, fold None, seed 2, for" in said
        assert "failed: 1 trials:" in said and "no key" in said
        assert f"process {driver.pid} on {platform.node()}: running trials" in said
        # The trial waits for this test, perhaps for longer than was estimated.
        assert "time left: about" in said or "time left: not known yet" in said
    finally:
        (home / "go").touch()
        driver.communicate(timeout=60)
    assert counts(read_status("one")) == (4, 3, 0, 1, 0)
    assert f"process {driver.pid} on {platform.node()}: ended" in format_status(read_status("one"))


@pytest.mark.slow
def test_a_killed_run_keeps_its_plan_and_goes_on(home, capsys):
    command = [sys.executable, "-m", "palmkit", "run", *flags(home)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folder = home / "runs" / "one"
    wait_for(lambda: folder.is_dir() and counts(read_status("one")) == (4, 1, 1, 1, 1), driver)
    driver.kill()
    driver.communicate()
    status = read_status("one")
    assert counts(status) == (4, 1, 0, 1, 2) and status.left is None
    assert f"process {driver.pid} on {platform.node()}: was killed" in format_status(status)
    (home / "go").touch()
    assert main(["run", *flags(home)]) == 1  # one trial failed
    status = read_status("one")
    assert counts(status) == (4, 3, 0, 1, 0)
    assert [one.pid for one in status.commands] == [os.getpid()]  # that of the killed is forgotten
    capsys.readouterr()
    assert main(["status", "one", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["done"] == 3 and said["failed"] == 1 and said["seconds_left"] is None


@pytest.mark.slow
def test_rows_of_an_earlier_command_are_counted(home, capsys):
    (home / "go").touch()
    main(["run", *flags(home)])
    main(["run", *flags(home, "--shots", "1")])
    status = read_status("one")
    assert counts(status) == (4, 3, 0, 1, 0) and status.others == 4
    assert "beside these: 4 rows of earlier commands\n" in format_status(status)


def test_what_is_no_run_is_refused(home, capsys):
    assert main(["status", "none"]) == 1
    assert "there is no run" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_without_a_plan_has_its_rows_counted(home, capsys):
    (home / "go").touch()
    main(["run", *flags(home)])
    for path in (home / "runs" / "one" / "status").iterdir():
        path.unlink()
    status = read_status("one")
    assert counts(status) == (None, 3, 0, 1, None)
    assert "this run has no plan" in format_status(status)


@pytest.mark.slow
def test_a_damaged_row_and_a_row_of_other_settings_are_not_done(home):
    (home / "go").touch()
    main(["run", *flags(home)])
    first, second, *_ = sorted((home / "runs" / "one" / "rows" / "tiny").glob("*seed[03]*.json"))
    first.write_text(first.read_text()[:-20])
    second.write_text(second.read_text().replace('"key": "', '"key": "0'))
    assert counts(read_status("one")) == (4, 1, 0, 1, 2)


def make_progress(tmp_path, seconds=(10.0, 20.0, 30.0)):
    """A command with three trials, begun now."""
    run = tmp_path / "run"
    rows = {run / "rows" / "set" / f"{n}.json": f"key{n}" for n in range(len(seconds))}
    progress = Progress(run, rows).__enter__()
    progress.plan({f"set/{n}.json": s for n, s in enumerate(seconds)}, 2, embedding=7.0)
    return run, progress


def test_time_left_comes_from_the_estimate_and_then_from_the_speed(tmp_path):
    run, progress = make_progress(tmp_path)
    now = progress.state["started"]
    assert read_status(run, lambda: now).left == pytest.approx(7 + 60 / 2)
    assert read_status(run, lambda: now + 5).left == pytest.approx(2 + 60 / 2)
    progress.begin(["set/0.json", "set/1.json", "set/2.json"])
    began = progress.state["began"]
    assert read_status(run, lambda: began + 4).left == pytest.approx(60 / 2 - 4)
    progress.start("set/0.json", "a trial")
    progress.finish("set/0.json")  # 10 s of work of 60 s
    write_state(run, finished=began + 40)  # four times as slow as estimated
    assert read_status(run, lambda: began + 40).left == pytest.approx(50 * 4)
    assert read_status(run, lambda: began + 60).left == pytest.approx(50 * 4 - 20)


def test_the_longest_running_trial_is_waited_for(tmp_path):
    run, progress = make_progress(tmp_path, seconds=(1.0, 1000.0))
    progress.begin(["set/0.json", "set/1.json"])
    progress.start("set/1.json", "a long trial")
    since = progress.state["running"]["set/1.json"]["since"]
    assert read_status(run, lambda: since + 100).left == pytest.approx(900)


def test_the_time_left_is_not_known_where_all_that_runs_takes_longer_than_estimated(tmp_path):
    run, progress = make_progress(tmp_path, seconds=(1.0, 2.0, 3.0))
    progress.begin(["set/0.json", "set/1.json", "set/2.json"])
    progress.start("set/0.json", "a trial")
    since = progress.state["running"]["set/0.json"]["since"]
    assert read_status(run, lambda: since + 2).left == pytest.approx(1, abs=0.5)
    late = read_status(run, lambda: since + 20)
    assert late.left is None and "time left: not known yet" in format_status(late)
    progress.finish("set/0.json")
    write_state(run, finished=since + 1)
    progress.start("set/1.json", "another")
    write_state(run, finished=since + 1)
    assert read_status(run, lambda: since + 60).left is None


def test_a_command_that_was_refused_has_no_plan_and_no_rows(tmp_path):
    (tmp_path / "run").mkdir()
    assert "refused or stopped. Run it again" in format_status(read_status(tmp_path / "run"))


def test_trials_that_failed_before_they_began_take_no_time(tmp_path):
    run, progress = make_progress(tmp_path)
    progress.begin(["set/0.json"])
    began = progress.state["began"]
    assert read_status(run, lambda: began).left == pytest.approx(10 / 2)


def test_a_number_that_another_process_has_now_is_no_sign_of_life(tmp_path):
    run, progress = make_progress(tmp_path)
    assert read_status(run).commands[0].alive
    write_state(run, created=psutil.Process().create_time() - 100)
    assert not read_status(run).commands[0].alive
    write_state(run, host="another", created=0)
    assert read_status(run).commands[0].alive  # nobody here can tell


def test_commands_that_work_on_one_run_are_added_up(tmp_path):
    run, progress = make_progress(tmp_path)
    progress.start("set/0.json", "a trial")
    write_state(run, host="another")
    for path in (run / "status").iterdir():
        path.rename(path.with_name(path.name.replace(platform.node(), "another")))
    more = Progress(run, {run / "rows" / "set" / f"{n}.json": f"key{n}" for n in (2, 3)})
    with more:
        more.start("set/3.json", "another trial")
        assert counts(read_status(run)) == (4, 0, 2, 0, 2)
        assert len(read_status(run).commands) == 2


def test_a_status_that_cannot_be_written_ends_nothing(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "status").write_text("a file in the place of the folder")
    with Progress(run, {run / "rows" / "set" / "0.json": "key"}) as progress:
        progress.start("set/0.json", "a trial")
        progress.finish("set/0.json")
    assert (run / "status").is_file()


def test_a_deleted_folder_is_not_made_again(tmp_path):
    run, progress = make_progress(tmp_path)
    for path in (run / "status").iterdir():
        path.unlink()
    (run / "status").rmdir()
    progress.begin(["set/0.json"])
    assert not (run / "status").exists()


def test_an_error_is_told(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt), Progress(run, {run / "rows/set/0.json": "key"}):
        raise KeyboardInterrupt
    assert "stopped by an error or by the user" in format_status(read_status(run))
