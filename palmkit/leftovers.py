"""Files under a temporary name, and whether the process that writes them still lives.

A temporary name ends with a mark of its writer: its machine and its number. A process that is
killed cannot remove its file, so the next command does, on the same machine.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import secrets
from pathlib import Path

MARK = re.compile(r"\.([0-9a-f]{6})([0-9a-f]{8})([0-9a-f]{4})$")
NAMESPACE = Path("/proc/self/ns/pid")  # numbers of processes are unique in one


@functools.cache
def _machine() -> str:
    """Six hexadecimal digits for the machine, or the container, that numbers its processes."""
    space = os.readlink(NAMESPACE) if NAMESPACE.is_symlink() else ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:6]


def writer_mark() -> str:
    """The end of a temporary name of this process; another one at each call."""
    return f".{_machine()}{os.getpid():08x}{secrets.token_hex(2)}"


def is_abandoned(name: str) -> bool:
    """Whether a name ends with the mark of a process of this machine that has ended."""
    found = MARK.search(name)
    if found is None or found[1] != _machine():
        return False
    try:
        os.kill(int(found[2], 16), 0)  # only asks
    except ProcessLookupError:
        return True
    except OSError:  # of another user
        return False
    return False


def remove_abandoned(folder: Path) -> None:
    """Delete the unfinished files in a folder, and below, that killed processes left there."""
    for root, _, names in os.walk(folder):
        for name in names:
            if name.startswith(".") and is_abandoned(name):
                with contextlib.suppress(OSError):  # read-only, or another command was first
                    os.unlink(os.path.join(root, name))
