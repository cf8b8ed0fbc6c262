"""What was fetched, written down beside it, so that later loads notice what has changed since."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from palmkit.storage import atomic_write, progress_bar

LOCK = "palmkit.lock.json"


class LockError(ValueError):
    """A lock that cannot be read; the message says what to do."""


def read_lock(folder) -> dict | None:
    """The lock of a folder, None if it has none. Raises LockError if it is no lock."""
    path = Path(folder) / LOCK
    if not path.is_file():
        return None
    try:
        lock = json.loads(path.read_text())
        lock["files"] = {name: tuple(entry) for name, entry in lock["files"].items()}
        if {len(entry) for entry in lock["files"].values()} != {3}:
            raise ValueError("an entry is not [bytes, mtime in ns, sha256]")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LockError(
            f"{path} is no lock file ({error}): take it away, then `python -m palmkit fetch {Path(folder).name}` "
            "checks what is there and writes it anew"
        ) from error
    return lock


def write_lock(folder, files: dict[str, tuple[int, int, str]], **provenance) -> None:
    """Write the lock of a folder: where it is from, and of each file its bytes, time of change (ns) and sha256."""
    total = sum(entry[0] for entry in files.values())
    lock = provenance | {"file_count": len(files), "bytes": total, "files": files}
    atomic_write(Path(folder) / LOCK, json.dumps(lock, indent=None, separators=(",", ":")) + "\n")


def hash_files(folder, what: str = "sha256") -> dict[str, tuple[int, int, str]]:
    """{path: (bytes, mtime in ns, sha256)} of the files below a folder, hidden ones and the lock left out."""
    listed = dict(list_files(folder))
    hashed = {}
    with progress_bar(sum(size for size, _ in listed.values()), what, "B", unit_scale=True) as bar:
        for name, (size, mtime) in listed.items():
            hashed[name] = (size, mtime, sha256_of(Path(folder) / name))
            bar.update(size)
    return hashed


def list_files(folder, below: str = "") -> Iterator[tuple[str, tuple[int, int]]]:
    """(path, (bytes, mtime in ns)) of the files below a folder, in the order of their names."""
    with os.scandir(Path(folder) / below) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = f"{below}{entry.name}"
            if (
                entry.name.startswith(".") or name == LOCK
            ):  # what file managers leave behind is nobody's data
                continue
            if entry.is_dir():
                yield from list_files(folder, f"{name}/")
            else:
                stat = entry.stat(
                    follow_symlinks=entry.is_file()
                )  # a broken link has a size too, another one
                yield name, (stat.st_size, stat.st_mtime_ns)


def sha256_of(path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_folder(folder, rehash: bool = False) -> str | None:
    """What in a folder is not as its lock has it, and what to do; None if nothing, or if there is no lock.

    Names, sizes and times are compared, which takes microseconds a file. A file whose time alone has changed (it was
    copied) is hashed, and its new time written down. rehash: every file is hashed.
    """
    folder = Path(folder).absolute()  # "." has no name
    try:
        lock = read_lock(folder)
    except LockError as error:
        return str(error)
    if lock is None:
        return None
    locked, listed = lock["files"], dict(list_files(folder))
    changed = {name for name in locked.keys() & listed.keys() if locked[name][0] != listed[name][0]}
    alike = [name for name in locked if name in listed and name not in changed]
    doubtful = [name for name in alike if rehash or locked[name][1] != listed[name][1]]
    with progress_bar(
        sum(listed[name][0] for name in doubtful), folder.name, "B", unit_scale=True
    ) as bar:
        for name in doubtful:
            if sha256_of(folder / name) != locked[name][2]:
                changed.add(name)
            bar.update(listed[name][0])
    found = {
        "missing": locked.keys() - listed.keys(),
        "changed": changed,
        "not of it": listed.keys() - locked.keys(),
    }
    if any(found.values()):
        return (
            f"{folder} is not what was fetched: {name_some(found)}. Put that right, or move the folder away and fetch "
            f"it anew: `python -m palmkit fetch {folder.name}`; if it is meant so, take {LOCK} in it away"
        )
    if any(locked[name][1] != listed[name][1] for name in doubtful):
        fresh = {name: (*listed[name], locked[name][2]) for name in locked}
        told = {
            key: value for key, value in lock.items() if key not in ("file_count", "bytes", "files")
        }
        with contextlib.suppress(OSError):  # a read-only folder is as good, only slower
            write_lock(folder, fresh, **told)
    return None


def name_some(found: dict[str, set[str]], most: int = 3) -> str:
    """ "missing: a.wav, b.wav and 7 more; changed: train.csv"."""
    parts = []
    for what, names in found.items():
        if names:
            more = f" and {len(names) - most} more" if len(names) > most else ""
            parts.append(f"{what}: {', '.join(sorted(names)[:most])}{more}")
    return "; ".join(parts)
