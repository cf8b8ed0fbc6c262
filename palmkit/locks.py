"""What is made once: by one process at a time, aside, and renamed when it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from palmkit.storage import cache_root, write_error

log = logging.getLogger("palmkit")


@contextlib.contextmanager
def one_process(target: Path, what: str) -> Iterator[None]:
    """Hold the lock of a target while the block runs. A second process says so and waits.

    The lock is a file in the cache, not beside the target. A killed process holds no lock. Where
    there are no locks, or the cache cannot be written to, the block runs without one.
    """
    name = hashlib.sha256(os.fsencode(os.path.abspath(target))).hexdigest()[:32]
    lock = filelock.FileLock(cache_root() / "locks" / f"{name}.lock")
    held = _acquire(lock, what)
    try:
        yield
    finally:
        if held:
            lock.release()


def _acquire(lock: filelock.BaseFileLock, what: str) -> bool:
    try:
        os.makedirs(os.path.dirname(lock.lock_file), exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        log.info("%s is being made by another process: waiting", what)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        log.debug("%s: no lock (%s)", what, error)
        return False
    return True


def make_folder(target: Path, make: Callable[[Path], None]) -> None:
    """Call `make` with an empty folder beside the target, which becomes the target.

    To be called under the target's lock. What a killed process left is cleared first. The target
    must not exist. A failure leaves no folder. Raises OSError that says what to do.
    """
    # A short name: the target's own may be as long as a name can be.
    name = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    aside = target.with_name(f".unfinished-{name}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        make(aside)
        os.replace(aside, target)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, OSError) and "PALMKIT_CACHE" not in str(error):
            raise write_error(target, error) from error
        raise
