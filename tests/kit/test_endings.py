"""SIGTERM and SIGHUP are interrupts of a command; an ignored one stays ignored."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from palmkit import cli
from palmkit.endings import (
    POOL_THREAD,
    Ended,
    quiet_pools,
    signals_as_interrupts,
    unseen_by_children,
)


@pytest.fixture(autouse=True)
def default_signals():
    """A shell may have started the tests with SIGHUP or SIGINT ignored."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in before:
        is_sigint = number == signal.SIGINT
        signal.signal(number, signal.default_int_handler if is_sigint else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command(number, monkeypatch, capsys):
    def work(_):
        try:
            os.kill(os.getpid(), number)
            raise AssertionError("it goes on")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a second one does not disturb the end

    monkeypatch.setattr("palmkit.experiments.status.read_status", work)
    assert cli.main(["status", "any"]) == 128 + number
    assert capsys.readouterr().err.splitlines()[-1].startswith("Interrupted. Finished trials")
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.slow
def test_an_interrupt_in_a_text_that_exec_runs_has_the_same_status(tmp_path):
    """CPython ends `python -m` by the signal then, though the interrupt was handled."""
    planted = """
import palmkit.experiments.status
def interrupted(_):
    exec("raise KeyboardInterrupt")
palmkit.experiments.status.read_status = interrupted
"""
    (tmp_path / "sitecustomize.py").write_text(planted)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "palmkit", "status", "any"],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.stderr.splitlines()[-1].startswith("Interrupted. Finished trials")
    assert done.returncode == 130


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    with signals_as_interrupts():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_its_status_is_the_shell_s():
    with pytest.raises(Ended) as caught, signals_as_interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.status == 143


def fail(error: Exception):
    raise error


@pytest.mark.parametrize(
    "name, error, shown",
    [
        (POOL_THREAD, KeyError(2), False),
        (POOL_THREAD, ValueError(2), True),
        ("another", KeyError(2), True),
    ],
)
def test_only_an_ended_pool_s_error_is_not_shown(monkeypatch, name, error, shown):
    seen = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    with quiet_pools():
        thread = threading.Thread(target=fail, args=(error,), name=name)
        thread.start()
        thread.join()
    assert bool(seen) == shown


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals of POSIX")
def test_a_child_never_gets_sigint():
    code = (
        "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "os.kill(os.getpid(), signal.SIGINT); print('goes on')"
    )
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True).returncode != 0
    with unseen_by_children():
        child = subprocess.run(run, capture_output=True, text=True)
    assert (child.returncode, child.stdout, child.stderr) == (0, "goes on\n", "")


def test_this_process_gets_it_when_the_block_ends():
    """One for the whole process may be taken by another thread, which does not block it."""
    with pytest.raises(KeyboardInterrupt), unseen_by_children():
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        went_on = True
    assert went_on
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
