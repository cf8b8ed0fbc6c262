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
def one_process(
    target: Path, what: str, doing: str = "making", place: Path | None = None
) -> Iterator[None]:
    """Hold the lock of a target while the block runs. A second process logs that, and waits.

    what, doing: for that message. place: the lock's file; default: one in the cache, by the
    target's path. A killed process holds no lock. Where there are no locks, or the file cannot be
    written, the block runs without one.
    """
    if place is None:
        name = hashlib.sha256(os.fsencode(os.path.abspath(target))).hexdigest()[:32]
        place = cache_root() / "locks" / f"{name}.lock"
    lock = filelock.FileLock(place)
    held = _acquire(lock, f"{what}: another process is {doing} it")
    try:
        yield
    finally:
        if held:
            lock.release()


def _acquire(lock: filelock.BaseFileLock, message: str) -> bool:
    """Take a lock; False where that is not possible. message: logged if another process has it."""
    try:
        os.makedirs(os.path.dirname(lock.lock_file), exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        log.warning("%s; waiting for that", message)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        log.debug("no lock %s (%s)", lock.lock_file, error)
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
