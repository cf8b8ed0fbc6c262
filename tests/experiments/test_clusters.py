"""Trials on a Dask and on a Ray cluster: the same rows, through lost workers and other faults.

Each cluster has two workers, on loopback, and is started and ended here.
"""

import re

import pytest
from engine_runs import PACKAGES, all_rows, make_method, run, same, start_cluster
from outside import make_home  # noqa: F401

from palmkit.experiments import engines

pytestmark = pytest.mark.slow
METHODS = ["zeroshot", "palm", "gda"]
NEVER_TWICE = "not ONCE.exists()"


@pytest.fixture(scope="module", params=PACKAGES)
def shared(request, tmp_path_factory):
    """The flags for a cluster whose workers have one cache, and that cache."""
    folder = tmp_path_factory.mktemp(request.param)
    with start_cluster(request.param, folder, [folder / "cache"] * 2) as address:
        yield ["--backend", request.param, "--address", address], folder / "cache"


def test_a_shared_cache_gives_the_rows_of_processes(home, shared, monkeypatch):
    flags, cache = shared
    grid = ["--method", *METHODS, "--seed", 0, 1]
    assert run(home, "here", *grid) == 0
    monkeypatch.setenv("PALMKIT_CACHE", str(cache))
    assert run(home, "there", *grid, *flags) == 0
    here, there = all_rows(home, "here"), all_rows(home, "there")
    assert len(here) == 5 and [*map(same, here)] == [*map(same, there)]
    log = (home / "runs/there/palmkit.log").read_text()
    assert "2 workers, which share the cache here" in log and "5 trials, 2 at a time" in log


def test_a_trial_that_kills_its_worker_is_a_failed_trial(home, shared, capsys):
    path = make_method(home, "killer", when="self.seed == 2")
    grid = ["--import", path, "--method", "killer", "--seed", 0, 1, 2, 3]
    assert run(home, "one", *grid, *shared[0]) == 1
    rows = {row["seed"]: row for row in all_rows(home, "one")}
    assert [seed for seed, row in rows.items() if "failed" in row] == [2] and len(rows) == 4
    assert "worker process was killed, also where it ran alone" in rows[2]["failed"]
    assert {rows[seed]["losses"][0] for seed in (0, 1, 3)} == {1.0}  # threads in a worker
    said = capsys.readouterr().err
    assert "killer on tiny, fold None, seed 2" in said and "one at a time" in said


def test_a_worker_that_is_lost_once_costs_nothing(home, shared, capsys):
    path = make_method(home, "once", when=f"self.seed == 1 and {NEVER_TWICE}")
    grid = ["--import", path, "--method", "once", "--seed", 0, 1, 2]
    assert run(home, "one", *grid, *shared[0]) == 0
    assert "one at a time" in capsys.readouterr().err and (home / "once.once").exists()
    rows = all_rows(home, "one")
    assert len(rows) == 3 and all("failed" not in row for row in rows)


def test_a_method_that_raises_is_a_failed_row_of_its_place(home, shared):
    path = make_method(home, "raises", when="self.seed == 1", act="1 / 0")
    grid = ["--import", path, "--method", "raises", "--seed", 0, 1]
    assert run(home, "one", *grid, *shared[0]) == 1
    good, bad = all_rows(home, "one")
    assert "failed" not in good
    assert "raises.py failed: ZeroDivisionError" in bad["failed"] and "line 14" in bad["failed"]


def test_a_method_that_was_changed_is_refused_by_workers_that_know_it(home, shared, capsys):
    path = make_method(home, "changes", when="False")
    grid = ["--import", path, "--method", "changes", "--seed", *range(8)]
    assert run(home, "one", *grid, *shared[0]) == 0  # both workers import it
    path.write_text(path.read_text() + "# another\n")
    if "ray" in shared[0]:  # every command has new processes
        assert run(home, "two", *grid, *shared[0]) == 0
        return
    assert run(home, "two", *grid, *shared[0]) == 1
    said = capsys.readouterr().err
    assert "restart the workers" in said and "cannot be used" in said and not all_rows(home, "two")


def test_a_worker_of_another_version_is_refused_by_name(home, shared, capsys, monkeypatch):
    monkeypatch.setattr(engines, "own_versions", lambda: (("torch", "1.0"),))
    assert run(home, "one", "--method", "gda", *shared[0]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    name = r"(tcp://127\.0\.0\.1:\d+|on [\d.]+ \(node \w+\))"
    assert re.search(f"the worker {name} cannot be used", said), said
    assert "instead of 1.0" in said and not all_rows(home, "one")
