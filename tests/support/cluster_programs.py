"""Programs of a cluster on this machine: how they are started, waited for and ended."""

import contextlib
import os
import subprocess
import time

import psutil


def start(command: list[str], folder, log: str, variables: dict) -> subprocess.Popen:
    """A program in a folder. It writes to the file `log` there, and has no settings of the test."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PALMKIT_")}
    with (folder / log).open("w") as file:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment | variables,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def wait(condition, started: list[subprocess.Popen], seconds: float) -> None:
    """Until a condition holds. Fails if one of the programs ends, or after so many seconds."""
    latest = time.monotonic() + seconds
    while not condition():
        assert all(one.poll() is None for one in started) and time.monotonic() < latest
        time.sleep(0.1)


def end(started: list[subprocess.Popen]) -> None:
    """End these programs, and all that they started."""
    family = []
    for one in started:
        with contextlib.suppress(psutil.Error):
            family += [psutil.Process(one.pid), *psutil.Process(one.pid).children(recursive=True)]
    for one in reversed(started):
        one.terminate()
    _, left = psutil.wait_procs(family, timeout=15)
    for one in left:
        with contextlib.suppress(psutil.Error):
            one.kill()
    psutil.wait_procs(left, timeout=15)
