"""Signals that ask a command to end: it does so as after Ctrl-C; nothing is left half-written."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import threading
from collections.abc import Iterator

log = logging.getLogger(__name__)

POOL_THREAD = "ExecutorManagerThread"  # of loky, which joblib's processes are
ENDING = ("SIGTERM", "SIGHUP")  # by name: not all systems have both


class Ended(KeyboardInterrupt):
    """A signal has asked this process to end. status: what a shell says of such an end."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@contextlib.contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Ended in the block; a second one has no effect.

    A signal that is ignored, as by `nohup`, or that has a handler, is left as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, frame) -> None:
        for one in numbers:
            signal.signal(one, lambda *_: None)
        raise Ended(number)

    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def unseen_by_children() -> Iterator[None]:
    """Processes that start in the block never get SIGINT and SIGHUP.

    A terminal sends these to all processes of a command. This process gets them when the block
    ends, and ends its children itself. A child would write Python's traceback, or leave what it
    keeps account of. A blocked signal is inherited (POSIX); on other systems nothing is done.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def starting_workers() -> Iterator[None]:
    """Worker processes of loky that start in the block never get SIGINT and SIGHUP."""
    with unseen_by_children():
        # A lock starts Python's process that counts semaphores, which loky would start between the
        # workers. Until Python 3.12 its start unblocks SIGINT, so the block ends behind it.
        multiprocessing.get_context("spawn").Lock()
    with unseen_by_children():
        yield


@contextlib.contextmanager
def quiet_pools() -> Iterator[None]:
    """A pool of processes that is ended early shows no traceback in the block.

    loky (joblib 1.5) may then look for a call that was just cancelled. The run ends all the same,
    with its own message. Other threads' errors are shown.
    """
    original = threading.excepthook

    def hook(error) -> None:
        if getattr(error.thread, "name", "") == POOL_THREAD and error.exc_type is KeyError:
            log.debug("a pool of processes was ended early: %r", error.exc_value)
        else:
            original(error)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = original
