"""One worker process for each GPU of this machine.

A process keeps the GPU that it takes until it ends: it holds the lock of a file, which the system
gives back however the process ends. On a cluster, a worker has the GPU that its own
CUDA_VISIBLE_DEVICES names.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

import torch
from filelock import FileLock, Timeout

VISIBLE = "CUDA_VISIBLE_DEVICES"


def list_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count()
    given = [one.strip() for one in os.environ.get(VISIBLE, "").split(",") if one.strip()]
    return given[:count] if given else [str(n) for n in range(count)]


def gpus_for(device: torch.device) -> list[str]:
    """The GPUs over which trials of a model on this device are spread; [] if that is one place.

    "cuda" is any GPU, "cuda:1" is that one.
    """
    gpus = list_gpus() if device.type == "cuda" and device.index is None else []
    return gpus if len(gpus) > 1 else []


class Gpus:
    """The GPUs that the worker processes of this process share out. folder: of the locks."""

    def __init__(self, names: list[str], folder: Path | None):
        self.names, self.folder = names, folder
        self.held: FileLock | None = None

    def take(self) -> str | None:
        """The GPU of this process; None where there is none to choose, or all are taken.

        CUDA must not have been used by this process.
        """
        if self.held is None:
            for n, name in enumerate(self.names):
                lock = FileLock(self.folder / f"{n}.lock")
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue
                self.held, os.environ[VISIBLE] = lock, name
                break
        return None if self.held is None else os.environ[VISIBLE]


@functools.cache
def shared_gpus() -> Gpus:
    """Those of this process, for its workers."""
    names = list_gpus()
    if len(names) < 2:
        return Gpus([], None)
    folder = tempfile.mkdtemp(prefix="palmkit-gpus-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Gpus(names, Path(folder))


_own = Gpus([], None)  # of a worker process


def share_out(gpus: Gpus) -> None:
    """In a worker, before anything else: the GPUs of which it may take one."""
    global _own
    _own = gpus


def take_gpu(device: str) -> None:
    """In a worker, before a model is loaded on this device: take a GPU, if it is on any."""
    if device == "cuda":
        _own.take()
