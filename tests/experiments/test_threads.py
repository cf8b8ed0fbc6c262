"""Threads of worker processes: processes x threads are at most the cores, whatever is set."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from outside import few, make_home  # noqa: F401

from palmkit.cli import main
from palmkit.experiments import executor, threads


def pools():
    """(process, torch's threads, the threads of each BLAS and OpenMP library in this process)."""
    import numpy as np
    import threadpoolctl

    np.linalg.inv(np.eye(4))
    found = {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    return os.getpid(), torch.get_num_threads(), found


def pools_of_workers(jobs: int) -> list:
    done = executor.in_parallel(pools, [()] * 2, [executor.START] * 2, jobs)
    return [found for _, found in done]


@pytest.mark.slow
@pytest.mark.parametrize(("given", "number"), [("", 1), ("2", 2)])
def test_workers_obey(given, number, monkeypatch):
    """torch, BLAS and OpenMP, also where the command's own environment says more."""
    monkeypatch.setattr(threads.joblib, "cpu_count", lambda: 4)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "3")
    monkeypatch.setenv("PALMKIT_THREADS", given)
    for process, of_torch, of_libraries in pools_of_workers(2):
        assert process != os.getpid() and of_torch == number
        assert of_libraries, "no library was found, so nothing is shown"
        # A library starts no more than there are processors.
        allowed = {min(number, os.cpu_count()), number}
        assert set(of_libraries.values()) <= allowed, of_libraries


def test_short_work_has_the_threads_of_a_worker(monkeypatch):
    monkeypatch.setattr(threads.joblib, "cpu_count", lambda: 8)
    monkeypatch.setenv("PALMKIT_THREADS", "3")
    before = torch.get_num_threads()
    ((_, (process, number, _)),) = executor.in_parallel(pools, [()], [0.1], 2)
    assert (process, number) == (os.getpid(), 3) and torch.get_num_threads() == before


def test_no_more_threads_than_cores(monkeypatch):
    monkeypatch.setattr(threads.joblib, "cpu_count", lambda: 8)
    monkeypatch.delenv("PALMKIT_THREADS", raising=False)
    assert [threads.threads_each(jobs) for jobs in (1, 2, 8)] == [1, 1, 1]
    monkeypatch.setenv("PALMKIT_THREADS", "4")
    assert threads.threads_each(2) == 4
    with pytest.raises(ValueError, match="3 processes of 4 threads are more than the 8 cores"):
        threads.threads_each(3)


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5"])
def test_a_number_that_is_none(given, monkeypatch):
    monkeypatch.setenv("PALMKIT_THREADS", given)
    with pytest.raises(ValueError, match="PALMKIT_THREADS=.*: use a number of threads"):
        threads.threads_each(2)


SIGNALS = """
import os, signal, sys
from palmkit.experiments.executor import START, in_parallel

def blocked():
    return os.getpid(), signal.pthread_sigmask(signal.SIG_BLOCK, [])

both = {signal.SIGINT, signal.SIGHUP}
for _, (process, found) in in_parallel(blocked, [()] * 2, [START] * 2, 2):
    assert process != os.getpid() and both <= found, found
assert not both & blocked()[1]
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals of POSIX")
def test_what_a_terminal_sends_is_this_process_s_only():
    """The first pool of a process, whose workers would write tracebacks while they start."""
    done = subprocess.run([sys.executable, "-c", SIGNALS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["JOBS", "THREADS", "MEMORY", "STACK"])
def test_a_setting_is_checked_before_anything_is_computed(name, home, monkeypatch, capsys):
    monkeypatch.setenv(f"PALMKIT_{name}", "many")
    assert main(["run", *few(home, "--name", "one")]) == 1
    assert f"palmkit: PALMKIT_{name}=many: use a " in capsys.readouterr().err
    assert not (home / "runs" / "one").exists()
