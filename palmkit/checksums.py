"""Checksums of fetched files, kept beside them, so that a later load notices a change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from palmkit.storage import atomic_write, progress_bar

CHECKSUM_FILE = "palmkit.lock.json"


class ChecksumError(ValueError):
    """A checksum file that cannot be read; the message says what to do."""


def read_checksums(folder) -> dict | None:
    """The checksum file of a folder, None if it has none.

    A dict of name, source, revision, file_count, bytes and files: {path: (bytes, mtime in ns,
    sha256)}. Raises ChecksumError if the file is damaged.
    """
    path = Path(folder) / CHECKSUM_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        content["files"] = {name: tuple(entry) for name, entry in content["files"].items()}
        if {tuple(map(type, entry)) for entry in content["files"].values()} - {(int, int, str)}:
            raise ValueError("an entry is not [bytes, mtime in ns, sha256]")
        for name in ("name", "source", "revision"):
            if not isinstance(content.setdefault(name, ""), str):
                raise ValueError(f"its {name} is {content[name]!r:.100}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ChecksumError(
            f"{path} is no checksum file ({error}): delete it, then "
            f"`palmkit fetch {Path(folder).name}` checks what is there and writes it again"
        ) from error
    return content


def write_checksums(folder, files: dict[str, tuple[int, int, str]], **provenance) -> None:
    """Write the checksum file of a folder.

    files: {path: (bytes, mtime in ns, sha256)}. provenance: name, source and revision.
    """
    total = sum(entry[0] for entry in files.values())
    content = provenance | {"file_count": len(files), "bytes": total, "files": files}
    text = json.dumps(content, indent=None, separators=(",", ":"))
    atomic_write(Path(folder) / CHECKSUM_FILE, text + "\n")


def hash_files(folder, label: str = "sha256") -> dict[str, tuple[int, int, str]]:
    """{path: (bytes, mtime in ns, sha256)} of the files below a folder, as `list_files` has them.

    label: of the progress bar.
    """
    listed = dict(list_files(folder))
    total = sum(size for size, _ in listed.values())
    hashed = {}
    with progress_bar(total, label, "B", unit_scale=True) as bar:
        for name, (size, mtime) in listed.items():
            hashed[name] = (size, mtime, sha256_of(Path(folder) / name))
            bar.update(size)
    return hashed


def list_files(folder, below: str = "") -> Iterator[tuple[str, tuple[int, int]]]:
    """(path, (bytes, mtime in ns)) of the files below a folder, sorted by name.

    Hidden files, which file managers leave behind, and the checksum file are left out.
    """
    with os.scandir(Path(folder) / below) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = f"{below}{entry.name}"
            if entry.name.startswith(".") or name == CHECKSUM_FILE:
                continue
            if entry.is_dir():
                yield from list_files(folder, f"{name}/")
            else:
                # Of a broken link, the link's own size: it differs from the file's.
                stat = entry.stat(follow_symlinks=entry.is_file())
                yield name, (stat.st_size, stat.st_mtime_ns)


def sha256_of(path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_folder(folder, rehash: bool = False) -> str | None:
    """What differs from a folder's checksum file, and what to do; None if nothing differs.

    Also None for a folder without a checksum file. Names, sizes and times are compared, which
    takes microseconds a file. A file that differs in time only (it was copied) is hashed, and its
    new time is written down. rehash: hash every file.
    """
    folder = Path(folder).absolute()  # "." has no name
    try:
        content = read_checksums(folder)
    except ChecksumError as error:
        return str(error)
    if content is None:
        return None
    expected, listed = content["files"], dict(list_files(folder))
    common = expected.keys() & listed.keys()
    changed = {name for name in common if expected[name][0] != listed[name][0]}
    doubtful = [
        name
        for name in expected
        if name in common - changed and (rehash or expected[name][1] != listed[name][1])
    ]
    changed |= _changed_content(folder, expected, listed, doubtful)
    differences = {
        "missing": expected.keys() - listed.keys(),
        "changed": changed,
        "not part of it": listed.keys() - expected.keys(),
    }
    if any(differences.values()):
        return (
            f"{folder} is not what was fetched: {name_some(differences)}. Undo that, or move the "
            f"folder away and fetch it again: `palmkit fetch {folder.name}`; if the change is "
            f"intended, delete {CHECKSUM_FILE} in it"
        )
    if any(expected[name][1] != listed[name][1] for name in doubtful):
        _update_times(folder, content, listed)
    return None


def _changed_content(folder: Path, expected: dict, listed: dict, names: list[str]) -> set[str]:
    """The `names` whose sha256 is not the expected one."""
    changed = set()
    total = sum(listed[name][0] for name in names)
    with progress_bar(total, folder.name, "B", unit_scale=True) as bar:
        for name in names:
            if sha256_of(folder / name) != expected[name][2]:
                changed.add(name)
            bar.update(listed[name][0])
    return changed


def _update_times(folder: Path, content: dict, listed: dict) -> None:
    """Write down the files' present times, so that they are not hashed again."""
    files = {name: (*listed[name], entry[2]) for name, entry in content["files"].items()}
    derived = ("file_count", "bytes", "files")
    provenance = {key: value for key, value in content.items() if key not in derived}
    with contextlib.suppress(OSError):  # in a read-only folder the files are hashed again each time
        write_checksums(folder, files, **provenance)


def name_some(names: dict[str, set[str]], most: int = 3) -> str:
    """Name the first of several sets: "missing: a.wav, b.wav and 7 more; changed: train.csv"."""
    texts = []
    for kind, found in names.items():
        if found:
            more = f" and {len(found) - most} more" if len(found) > most else ""
            texts.append(f"{kind}: {', '.join(sorted(found)[:most])}{more}")
    return "; ".join(texts)
