"""A grid that is disturbed, and then run to its end by the same command: nothing is lost or left.

Rows and table must be those of a run that nothing disturbed. No process, no temporary file, no
shared memory and no held lock may be left, see `grid_runs`.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import time

import psutil
import pytest
from faults import attempt, count_tries
from grid_runs import (
    DATASETS,
    SEEDS,
    SUPPORT,
    TRIALS,
    Grid,
    Try,
    assert_equal,
    mounted,
    wait_for,
)

SLOW = {"processes": 0.05}  # seconds by which each trial is longer, so that a fault can meet it


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    grid = Grid.make(tmp_path_factory.mktemp("grid"))
    yield grid
    grid.close()


def check_resumed(one: Try, rng: random.Random) -> None:
    """The rows that are there stay as they are, and the same command makes the others."""
    one.check_processes()
    before = {path: path.stat().st_mtime_ns for path in one.run_folder.glob("rows/*/*.json")}
    kept = one.read_rows()
    assert_equal(kept, {name: one.grid.rows[name] for name in kept})
    one.finish(jobs=rng.choice([1, 2]))
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    one.check()


# A driver that is killed.


def kill_at_start(one: Try, rng) -> None:
    driver = one.start(SLOW, fresh=True)
    time.sleep(rng.uniform(0.2, 7))
    kill(one, driver)


def kill_while_embedding(one: Try, rng) -> None:
    driver = one.start(SLOW)
    wait_for(lambda: one.phase() == "embedding clips" or driver.ended(), 60)
    time.sleep(rng.uniform(0, 1))
    kill(one, driver)


def kill_while_training(one: Try, rng) -> None:
    driver = one.start(SLOW)
    rows = rng.randrange(TRIALS)
    wait_for(lambda: one.count_rows() >= rows or driver.ended(), 60)
    time.sleep(rng.uniform(0, 0.2))
    kill(one, driver)


def kill_while_writing(one: Try, rng) -> None:
    """Between writing a temporary file and renaming it: a row, its tensors, a status, a page."""
    fault = {"kill_at_write": rng.randrange(1, 5 * TRIALS)}
    driver = one.start(SLOW | fault, jobs=rng.choice([1, 2]))
    assert driver.wait() in (0, -signal.SIGKILL)


def kill(one: Try, driver) -> None:
    one.family()  # so that their shared memory is known
    driver.send(signal.SIGKILL)
    driver.wait()


# Signals that ask for an end.


def interrupt(number: int):
    """A fault: the signal, to the driver, or to it and all its workers as a terminal does."""

    def fault(one: Try, rng) -> None:
        fresh = rng.random() < 0.3
        driver = one.start(SLOW, fresh=fresh, jobs=rng.choice([1, 2, 2]))
        wait_for(lambda: driver.cpu_seconds() > 0.5 or driver.ended(), 60)
        time.sleep(rng.uniform(0, 8 if fresh else 5))
        one.family()
        driver.send(number, group=rng.random() < 0.5)
        status, said = driver.wait(), driver.said()
        assert "Traceback" not in said, said[-3000:]
        if "| AVERAGE |" not in said:  # else it had done all, and was about to end
            assert status == 128 + number, (status, said[-2000:])
            assert "Interrupted" in said.splitlines()[-1], said[-2000:]
        one.check_processes()
        one.check_files()

    return fault


# Workers that are killed.


def workers(driver) -> list[psutil.Process]:
    """The worker processes of a driver. Its resource tracker is none."""
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(driver.pid).children()
        return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]
    return []


def kill_worker(one: Try, rng) -> None:
    driver = one.start(SLOW)
    wait_for(lambda: workers(driver) or driver.ended(), 60)
    rows = rng.randrange(TRIALS - 2)
    wait_for(lambda: one.count_rows() >= rows or driver.ended(), 60)
    time.sleep(rng.uniform(0, 0.3))
    one.family()
    for worker in rng.sample(found := workers(driver), min(1, len(found))):
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    assert driver.wait() == 0, driver.said()[-2000:]
    assert "Traceback" not in driver.said(), driver.said()[-2000:]
    assert_equal(one.read_rows(), one.grid.rows)


def kill_worker_twice(one: Try, rng) -> None:
    """The trial of one dataset is killed in its worker, and where it runs alone."""
    trial = (rng.choice(["palm", "coop", "solved-palm"]), rng.choice(SEEDS), rng.choice(DATASETS))
    fault = [*trial, 2, str(one.folder / "counter")]
    driver = one.start(SLOW | {"kill_at_trial": fault})
    status, said = driver.wait(), driver.said()
    assert status == 1 and "Traceback" not in said, said[-2000:]
    method, seed, dataset = trial
    name = f"{method} on {dataset}, fold None, seed {seed}"
    assert f"1 of {TRIALS} trials failed" in said.splitlines()[-1], said[-2000:]
    assert name in said.splitlines()[-1] and "worker process was killed" in said
    rows = one.read_rows()
    (failed,) = [file for file, row in rows.items() if "failed" in row]
    assert f"{dataset}/{method}-split-shots2-seed{seed}-" in failed
    del rows[failed]
    assert_equal(rows, {file: row for file, row in one.grid.rows.items() if file != failed})
    one.finish("--retry-failed")


def lose_dask_worker(one: Try, rng) -> None:
    """A worker of a cluster is killed; in half of the tries with its nanny, so for good."""
    from dask_cluster import dask_cluster

    slow = {"PLANTED": json.dumps({"processes": 0.3}), "PYTHONPATH": str(SUPPORT)}
    folder = one.folder / "dask"
    with variables(slow), dask_cluster(folder, [one.cache] * 2) as address:
        driver = one.start(more=["--backend", "dask", "--address", address])
        wait_for(lambda: one.phase() == "running trials" or driver.ended(), 60)
        rows = rng.randrange(TRIALS - 2)
        wait_for(lambda: one.count_rows() >= rows or driver.ended(), 120)
        time.sleep(rng.uniform(0, 0.6))
        nanny = rng.choice(list_nannies(folder))
        family = nanny.children(recursive=True)
        for process in [nanny, *family] if rng.random() < 0.5 else family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert driver.wait() == 0, driver.said()[-2000:]
    assert_equal(one.read_rows(), one.grid.rows)


def list_nannies(folder) -> list[psutil.Process]:
    """The processes that each watch over a worker of the cluster in this folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if any(one.startswith(str(folder / "space")) for one in command):
            found.append(process)
    return found


@contextlib.contextmanager
def variables(more: dict):
    """Environment variables for processes that are started in the block."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in more.items():
            before = os.environ.get(name) if name == "PYTHONPATH" else None
            patch.setenv(name, os.pathsep.join(filter(None, [value, before])))
        yield


# Disks that are full, or cannot be written.


def assert_told(status: int, said: str, *words: str) -> None:
    """The command ended well, or with one line that says what to do."""
    assert status in (0, 1) and "Traceback" not in said, said[-3000:]
    assert "Logging error" not in said, said[-3000:]
    if status:
        last = said.splitlines()[-1]
        assert last.startswith("palmkit: ") and "cannot write" in last, last
        assert all(word in last for word in words), last


def full_run_folder(one: Try, rng) -> None:
    with mounted(one.run_folder.parent, f"{rng.randrange(16, 600, 4)}k") as change:
        status, said = one.run(SLOW, jobs=rng.choice([1, 2]))
        assert_told(status, said, "Free some space")
        one.check_files()
        change("size=64m")
        check_resumed(one, rng)


def full_cache(one: Try, rng) -> None:
    with mounted(one.cache, f"{rng.randrange(4, 80, 4)}k") as change:
        status, said = one.run(SLOW, jobs=rng.choice([1, 2]))
        assert_told(status, said, "Free some space")
        one.check_files()
        change("size=64m")
        check_resumed(one, rng)


def full_tmp(one: Try, rng) -> None:
    with mounted(one.tmp, "64k"):
        ballast = one.tmp / "ballast"
        with contextlib.suppress(OSError):
            ballast.write_bytes(bytes(2**16))
        with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
            while file.write(bytes(512)):
                pass
        status, said = one.run(SLOW)
        assert_told(status, said, "Free some space")
        ballast.unlink()
        check_resumed(one, rng)


def limited_files(one: Try, rng) -> None:
    """RLIMIT_FSIZE, for which no privilege is needed: a file that grows too large is refused."""
    status, said = one.run(SLOW | {"limit_file_size": rng.randrange(500, 60_000)})
    assert_told(status, said, "Free some space")
    one.check_files()
    check_resumed(one, rng)


def read_only_rows(one: Try, rng) -> None:
    with mounted(one.run_folder / "rows", "64m") as change:
        driver = one.start(SLOW)
        rows = rng.randrange(TRIALS)
        wait_for(lambda: one.count_rows() >= rows or driver.ended(), 60)
        while not driver.ended():
            with contextlib.suppress(Exception):  # busy while a file is being written
                change("ro")
                break
        assert_told(driver.wait(), driver.said(), "Make the folder writable")
        change("rw")
        one.check_files()
        check_resumed(one, rng)


def rename_fails(one: Try, rng) -> None:
    """As on a network file system: an error, also where the server did rename the file."""
    error = [rng.randrange(1, 5 * TRIALS), rng.choice(["EIO", "ESTALE"]), rng.random() < 0.5]
    status, said = one.run(SLOW | {"fail_at_replace": error}, jobs=rng.choice([1, 2]))
    assert_told(status, said)
    one.check_files()


# Several drivers of one run.


def drivers_at_once(count: int):
    def fault(one: Try, rng) -> None:
        drivers = []
        for _ in range(count):
            drivers.append(one.start(SLOW, jobs=rng.choice([1, 1, 2])))
            time.sleep(rng.choice([0, 0, rng.uniform(0, 2)]))
        time.sleep(rng.uniform(0, 5))
        victim = rng.choice(drivers)
        kill(one, victim)
        for driver in drivers:
            status, said = driver.wait(), driver.said()
            assert status == 0 or driver is victim, said[-2000:]
            assert "Traceback" not in said and "damaged" not in said, said[-2000:]
        assert_equal(one.read_rows(), one.grid.rows)

    return fault


def driver_that_fails(one: Try, rng) -> None:
    """A trial fails in one command and not in the other: its row stays that of the success."""
    trial = [rng.choice(["palm", "coop"]), rng.choice(SEEDS), rng.choice(DATASETS)]
    bad = one.start(SLOW | {"kill_at_trial": [*trial, 2, str(one.folder / "counter")]})
    good = one.start(SLOW, jobs=1)
    assert good.wait() == 0, good.said()[-2000:]
    assert bad.wait() in (0, 1) and "Traceback" not in bad.said(), bad.said()[-2000:]
    assert_equal(one.read_rows(), one.grid.rows)


# Nodes that differ.


def worker_of_version(one: Try, rng) -> None:
    name = rng.choice(["palmkit", "torch", "numpy"])
    refused(one, {"worker_version": [name, "0.0.1"]}, f"{name} 0.0.1 instead of")


def worker_with_weights(one: Try, rng) -> None:
    refused(one, {"worker_weights": rng.randrange(1000)}, "the model mini of the worker on")


def worker_with_clips(one: Try, rng) -> None:
    """A clip of a node is another: here it changes when the driver has read it.

    Rows of the other dataset may be there already, for its clips are the same.
    """
    one.datasets = shutil.copytree(one.datasets, one.folder / "data")
    dataset = rng.choice(DATASETS)
    clips = sorted((one.datasets / dataset / "audios").iterdir())
    clip, other = rng.sample(clips, 2)
    content = clip.read_bytes()
    refused(one, {"touch_at_trial": [str(clip), str(other)]}, "has other content than", dataset)
    clip.write_bytes(content)


def refused(one: Try, planted: dict, words: str, dataset: str = "") -> None:
    """The command ends with a line that names the worker. It has written no row (of a dataset)."""
    status, said = one.run(SLOW | planted)
    last = said.splitlines()[-1]
    assert status == 1 and "Traceback" not in said, said[-2000:]
    assert last.startswith("palmkit: ") and words in last and os.uname().nodename in last, last
    rows = [row for row in one.read_rows().values() if dataset in ("", row["dataset"])]
    assert not rows, rows


def driver_of_version(one: Try, rng) -> None:
    """A second command on the run, of a node with another version: it is refused by name."""
    first = one.start(SLOW)
    wait_for(lambda: one.phase() or first.ended(), 60)
    time.sleep(rng.uniform(0, 2))
    name = rng.choice(["palmkit", "torch"])
    second = one.start(SLOW | {"version": [name, "0.0.1"]})
    status, said = second.wait(), second.said()
    assert first.wait() == 0, first.said()[-2000:]
    last = said.splitlines()[-1]
    assert status == 1 and f"{name} 0.0.1" in last, said[-2000:]
    assert_equal(one.read_rows(), one.grid.rows)
    versions = {row["palmkit"] for row in one.read_rows().values()}
    assert "0.0.1" not in versions


# Files.


def damaged_files(one: Try, rng) -> None:
    """Some files of a finished run, and of its cache, are cut short, emptied or overwritten."""
    shutil.rmtree(one.run_folder, ignore_errors=True)
    shutil.copytree(one.grid.folder / "whole" / "run" / "grid", one.run_folder)
    files = [path for path in one.run_folder.rglob("*") if path.is_file()]
    files += [path for path in one.cache.rglob("*") if path.is_file()]
    for path in rng.sample(sorted(files), rng.randrange(1, 6)):
        content = path.read_bytes()
        cut = rng.randrange(len(content) or 1)
        path.write_bytes(
            rng.choice([content[:cut], b"", content[:cut] + bytes(len(content) - cut)])
        )
    one.finish(jobs=rng.choice([1, 2]))


def clock_jumps(one: Try, rng) -> None:
    status, said = one.run(SLOW | {"jump_clock": rng.randrange(1000)}, jobs=rng.choice([1, 2]))
    assert status == 0 and "Traceback" not in said, said[-2000:]
    assert_equal(one.read_rows(), one.grid.rows)


# name: (fault, tries in `make test`, in `make endurance`, whether the cache has the embeddings)
KINDS = {
    "kill -9 of the driver at the start": (kill_at_start, 0, 10, False),
    "kill -9 of the driver while embedding": (kill_while_embedding, 0, 10, False),
    "kill -9 of the driver while training": (kill_while_training, 1, 20, True),
    "kill -9 of the driver while writing": (kill_while_writing, 0, 15, True),
    "SIGTERM": (interrupt(signal.SIGTERM), 0, 10, True),
    "SIGINT": (interrupt(signal.SIGINT), 0, 10, True),
    "SIGHUP": (interrupt(signal.SIGHUP), 0, 10, True),
    "kill -9 of a worker": (kill_worker, 0, 15, True),
    "kill -9 of a trial's worker, twice": (kill_worker_twice, 0, 5, True),
    "worker of a Dask cluster, killed": (lose_dask_worker, 0, 8, True),
    "full disk: the run's folder": (full_run_folder, 1, 8, True),
    "full disk: the cache": (full_cache, 0, 8, False),
    "full disk: TMPDIR": (full_tmp, 0, 4, True),
    "files limited in size": (limited_files, 0, 5, False),
    "folder of rows that turns read-only": (read_only_rows, 0, 5, True),
    "rename that fails": (rename_fails, 0, 8, False),
    "two drivers, one killed": (drivers_at_once(2), 1, 12, False),
    "three drivers, one killed": (drivers_at_once(3), 0, 8, False),
    "two drivers, a trial fails in one": (driver_that_fails, 0, 5, True),
    "worker of another version": (worker_of_version, 0, 6, True),
    "worker with other weights": (worker_with_weights, 0, 3, True),
    "worker with other clips": (worker_with_clips, 0, 3, True),
    "driver of another version beside one that runs": (driver_of_version, 0, 5, True),
    "damaged files": (damaged_files, 1, 15, True),
    "clock that jumps": (clock_jumps, 0, 5, False),
}
NEEDS_MOUNT = {"full_run_folder", "full_cache", "full_tmp", "read_only_rows"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_disturbed_grid(grid, tmp_path, kind):
    fault, few, many, warm = KINDS[kind]
    if not count_tries(few, many):
        pytest.skip("make endurance")
    if fault is lose_dask_worker:
        pytest.importorskip("distributed")
    if fault.__name__ in NEEDS_MOUNT:
        try:
            with mounted(tmp_path / "probe", "64k"):
                pass
        except PermissionError as error:
            pytest.skip(f"{error}; `files limited in size` is tried instead")
    for number in range(count_tries(few, many)):
        with attempt(f"grid: {kind}"), Try(grid, tmp_path / str(number), warm) as one:
            rng = random.Random(f"{kind} {number}")
            fault(one, rng)
            check_resumed(one, rng)
        shutil.rmtree(tmp_path / str(number))
