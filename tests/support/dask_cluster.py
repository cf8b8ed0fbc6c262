"""A Dask cluster on loopback, in processes of its own."""

import contextlib
import json
import subprocess
import sys

from cluster_programs import end, start, wait

SECONDS = 300  # until a scheduler or a worker is there


@contextlib.contextmanager
def dask_cluster(folder, caches, threads=1):
    """A scheduler, and a worker for each cache folder. Gives the scheduler's address.

    Workers are in another folder than the test, and each has a nanny that starts it anew. At the
    end no process of them is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place, started = folder / "scheduler.json", []
    try:
        local = ["--host", "127.0.0.1", "--scheduler-file", str(place)]
        started.append(_start(folder, {}, "dask_scheduler", *local, "--port", "0"))
        (folder / "scheduler.pid").write_text(str(started[0].pid))
        wait(lambda: place.is_file() and place.read_text().endswith("}"), started, SECONDS)
        address = json.loads(place.read_text())["address"]
        for n, cache in enumerate(caches):
            started.append(start_worker(folder, address, n, cache, threads))
        wait(lambda: _count_workers(address) == len(caches), started, SECONDS)
        yield address
    finally:
        end(started)


def start_worker(folder, address, n, cache, threads=1) -> subprocess.Popen:
    """A further worker of the scheduler at this address, to be ended by `end`."""
    more = [address, "--host", "127.0.0.1", "--nthreads", str(threads), "--name", f"worker{n}"]
    more += ["--local-directory", str(folder / f"space{n}")]
    variables = {"PALMKIT_CACHE": str(cache), "TEST_WORKER": str(n)}
    return _start(folder, variables, "dask_worker", *more)


def _start(folder, variables: dict, program: str, *arguments: str) -> subprocess.Popen:
    """A program of Dask, in a folder of its own. It writes to a file there."""
    command = [sys.executable, "-m", f"distributed.cli.{program}", *arguments, "--no-dashboard"]
    return start(command, folder, f"{program}{variables.get('TEST_WORKER', '')}.log", variables)


def _count_workers(address: str) -> int:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        return len(client.nthreads())
