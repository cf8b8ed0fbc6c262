"""The memory that computations may take: PALMKIT_MEMORY, what is free, and words for too little."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil
import torch

SETTING = "PALMKIT_MEMORY"
UNITS = {"MB": 10**6, "GB": 10**9}
SHARE = 0.5  # of the free memory, where PALMKIT_MEMORY is not set
# What PyTorch says on a CPU, and cuBLAS on a GPU; both raise a plain RuntimeError.
PHRASES = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
# Of a container, Linux's control groups of version 2 and 1: (limit, what is used), in bytes.
LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


class OutOfMemory(MemoryError):
    """The memory is too small for the smallest piece. The message says all."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, on a CPU or on a GPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(one in str(error) for one in PHRASES)


def stated_memory() -> int | None:
    """Bytes of PALMKIT_MEMORY ("4GB", "500 MB"), or None. Raises ValueError."""
    given = os.environ.get(SETTING, "").strip()
    if not given:
        return None
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)\s*(MB|GB)", given, re.IGNORECASE)
    size = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if not size:
        raise ValueError(f"{SETTING}={given}: use a size over 0 in MB or GB, such as 4GB")
    return size


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device now, with those that PyTorch keeps for later use."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    free = psutil.virtual_memory().available
    return min([free, *(limit - used for limit, used in _container_limits())])


def _container_limits() -> list[tuple[int, int]]:
    """(limit, used) in bytes, of the container that this process runs in; [] without one."""
    for files in LIMITS:
        try:
            limit, used = (Path(file).read_text().strip() for file in files)
        except OSError:
            continue
        return [(int(limit), int(used))] if limit.isdigit() and used.isdigit() else []
    return []


def memory_for_chunks(device: torch.device) -> int:
    """Bytes that the pieces of one trial may take: PALMKIT_MEMORY, or else half of what is free."""
    stated = stated_memory()
    return int(SHARE * max(free_memory(device), 0)) if stated is None else stated
