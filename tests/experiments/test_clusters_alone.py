"""Clusters of one test each: caches of their own, workers that leave and join, none at all.

Apart from test_clusters.py, because two Ray clusters on one machine disturb each other.
"""

import importlib.util
import threading
import time

import pytest
from engine_runs import PACKAGES, all_rows, make_method, run, same, start_cluster
from outside import make_home  # noqa: F401

from palmkit.experiments import engines

pytestmark = pytest.mark.slow
METHODS = ["zeroshot", "palm", "gda"]
NEVER_TWICE = "not ONCE.exists()"
LEAVE = "os.kill(os.getppid(), 9); os.kill(os.getpid(), 9)"  # the nanny first


@pytest.mark.parametrize("kind", PACKAGES)
def test_caches_of_their_own_give_the_same_rows(home, tmp_path, kind):
    grid = ["--method", *METHODS, "--seed", 0, 1, 2, 3]
    caches = [tmp_path / "first", tmp_path / "second"]
    with start_cluster(kind, tmp_path / "cluster", caches) as address:
        assert run(home, "there", *grid, "--backend", kind, "--address", address) == 0
    assert not [*(home / "cache").rglob("*.shard")]  # only those embed who need it
    assert run(home, "here", *grid) == 0
    here, there = all_rows(home, "here"), all_rows(home, "there")
    assert len(here) == 9 and [*map(same, here)] == [*map(same, there)]
    assert "with caches of their own" in (home / "runs/there/palmkit.log").read_text()
    assert all([*cache.rglob("*.shard")] for cache in caches)
    assert len([*(home / "runs/there/rows").rglob("*.safetensors")]) == 9  # they came home


def test_a_dask_worker_leaves_for_good_and_another_joins(home, tmp_path, capsys):
    path = make_method(home, "leaves", when=NEVER_TWICE, act=LEAVE)
    grid = ["--import", path, "--method", "leaves", "--seed", *range(4)]
    started = []

    def join(folder, address):
        while not (home / "leaves.once").exists():
            time.sleep(0.1)
        from dask_cluster import start_worker

        started.append(start_worker(folder, address, 1, tmp_path / "cache"))

    try:
        with start_cluster("dask", tmp_path / "dask", [tmp_path / "cache"]) as address:
            late = threading.Thread(target=join, args=(tmp_path / "dask", address))
            late.start()
            assert run(home, "one", *grid, "--backend", "dask", "--address", address) == 0
            late.join()
    finally:
        if started:
            from cluster_programs import end

            end(started)
    rows = all_rows(home, "one")
    assert len(rows) == 4 and all("failed" not in row for row in rows)
    assert "while these ran: leaves on tiny" in capsys.readouterr().err


@pytest.mark.parametrize("end", ["workers", "scheduler"])
def test_a_dask_run_without_workers_ends_and_goes_on_later(
    home, tmp_path, capsys, monkeypatch, end
):
    monkeypatch.setattr(engines, "NO_WORKER_S", 2.0)
    place = tmp_path / "dask" / "scheduler.pid"
    scheduler = f"os.kill(int(pathlib.Path({str(place)!r}).read_text()), 9)"
    act = LEAVE if end == "workers" else scheduler
    path = make_method(home, "ends", when=f"self.seed == 2 and {NEVER_TWICE}", act=act)
    grid = ["--import", path, "--method", "ends", "--seed", *range(4)]
    with start_cluster("dask", tmp_path / "dask", [tmp_path / "cache"]) as address:
        assert run(home, "one", *grid, "--backend", "dask", "--address", address) == 1
    *earlier, said = capsys.readouterr().err.splitlines()
    waits = [line for line in earlier if "The run waits 2 s for one: start workers" in line]
    assert len(waits) == 1, earlier
    assert "has had no worker that can be used for 2 s" in said and "start workers" in said
    before = {row["seed"]: row for row in all_rows(home, "one")}
    assert 1 <= len(before) < 4 and all("failed" not in row for row in before.values())
    assert run(home, "one", *grid) == 0  # here
    after = {row["seed"]: row for row in all_rows(home, "one")}
    assert len(after) == 4 and all(after[seed] == row for seed, row in before.items())


@pytest.mark.parametrize("kind", PACKAGES)
def test_no_worker_is_refused_at_once(home, tmp_path, capsys, kind):
    with start_cluster(kind, tmp_path / "empty", []) as address:
        assert run(home, "one", "--method", "gda", "--backend", kind, "--address", address) == 1
    assert "has no worker: start" in capsys.readouterr().err


def test_dask_workers_of_two_threads_are_refused(home, tmp_path, capsys):
    with start_cluster("dask", tmp_path / "dask", [tmp_path / "cache"], threads=2) as address:
        assert run(home, "one", "--method", "gda", "--backend", "dask", "--address", address) == 1
    assert "start it with --nthreads 1" in capsys.readouterr().err


def test_ray_is_started_and_ended_here_without_an_address(home, monkeypatch):
    if not importlib.util.find_spec("ray"):
        pytest.skip("the extra `ray` is not installed")
    import ray

    monkeypatch.setenv("PALMKIT_JOBS", "2")
    grid = ["--method", *METHODS]
    assert run(home, "there", *grid, "--backend", "ray") == 0
    assert not ray.is_initialized()
    assert "2 workers, which share" in (home / "runs/there/palmkit.log").read_text()
    monkeypatch.setenv("PALMKIT_CACHE", str(home / "other"))
    assert run(home, "here", *grid) == 0
    assert [*map(same, all_rows(home, "here"))] == [*map(same, all_rows(home, "there"))]
