"""The store of tensors on disk: embeddings, streams and waveforms, each computed once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import struct
import threading
import time
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from palmkit.leftovers import is_abandoned, remove_abandoned, writer_mark
from palmkit.storage import atomic_write, write_error

STORE = "tensors-1"  # the folder; raise the number when the format changes
LARGE = 2**18  # bytes; a larger entry has a file of its own and is memory-mapped
MERGE_COUNT = 32  # shards; with more, the small ones are merged
MERGE_BYTES = 2**26  # a shard of this size or more is not merged
ABANDONED = 7 * 24 * 3600  # seconds; a .part file of this age is assumed to have no writer

MAGIC = b"PKT1"
# Magic, CRC of the rest of the header, length of the body, key, checksum of key and body.
HEADER = struct.Struct("<4sIQ32s16s")
ALIGN = HEADER.size  # 64: an entry starts at a multiple of it


class Place(NamedTuple):
    """Where an entry's body is, and the checksum that it should have."""

    file: object
    start: int
    length: int
    checksum: bytes


class TensorStore:
    """Entries {name: array} of one setting on disk. An entry is complete or absent.

    root: the cache's folder; None keeps nothing. kind: a sub-folder, "embeddings" for example.
    provenance: all that changes the content of every entry, as JSON-able values. It determines the
    folder and is written there once. What differs between entries must be in the entry's name, such
    as the digest of an audio file.

    A shard holds entries up to 256 KB, one after the other. Each has a header with its key and
    checksum; the index is made from the headers at opening. Larger entries have a file each.
    A store writes a `.part` file of its own and renames it to `.shard` when it closes; no file is
    changed after that. So writers need no lock, on any file system, and what was put before a crash
    stays. (SQLite would need locks, which network file systems do not do reliably.)
    A damaged entry gives a warning and counts as missing; putting it again repairs it.
    """

    def __init__(self, root: Path | None, kind: str, provenance: dict):
        self.provenance = provenance
        self.setting = _sha256(json.dumps(provenance, sort_keys=True).encode()).hex()
        self.folder = None if root is None else Path(root) / STORE / kind / self.setting[:32]
        self._lock = threading.RLock()
        self._index: dict[bytes, list[Place]] = {}
        self._shards, self._damaged, self._part = [], set(), None
        if self.folder is not None and self.folder.is_dir():
            for _ in range(9):
                if self._open():
                    break
                self._forget()  # a shard was merged or renamed meanwhile: look again

    def __enter__(self) -> TensorStore:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __contains__(self, name: str) -> bool:
        key = self._key(name)
        return key in self._index or (self.folder is not None and self._own_file(key).is_file())

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        """The entry; None without a complete one. Large ones are memory-mapped, copy on write."""
        if self.folder is None:
            return None
        key, problem = self._key(name), None
        with self._lock:
            for place in reversed(self._index.get(key, ())):  # the newest first
                try:
                    return self._read(key, place)
                except (OSError, ValueError) as error:
                    problem = f"{place.file.name} is not usable ({error})"
        try:
            return _read_own_file(key, self._own_file(key))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            problem = f"{self._own_file(key)} is not usable ({error})"
        if problem:
            warnings.warn(f"cache entry {name} in {problem}; computed anew", stacklevel=3)
        return None

    def put(self, name: str, entry: dict[str, np.ndarray]) -> None:
        """Keep an entry. Raises OSError that says what to do; entries put before are kept."""
        if self.folder is None:
            return
        key = self._key(name)
        record = _encode(key, entry)
        with self._lock:
            source = self.folder / "provenance.json"
            if not source.is_file():
                atomic_write(source, json.dumps(self.provenance, indent=1))
            if len(record) > LARGE:
                atomic_write(self._own_file(key), record)
            else:
                self._append(key, record)

    def close(self) -> None:
        """Rename the shard that was written to its final name; merge small shards if many."""
        with self._lock:
            wrote = self._complete()
            damaged = self._damaged
            self._forget()
            if damaged or wrote and len([*self.folder.glob("*.shard")]) > MERGE_COUNT:
                with contextlib.suppress(OSError):  # read-only or full: all is still there
                    self._merge(damaged)

    def _key(self, name: str) -> bytes:
        return _sha256(f"{self.setting} {name}".encode())

    def _own_file(self, key: bytes) -> Path:
        return self.folder / "large" / f"{key.hex()}.entry"

    def _open(self) -> bool:
        """Open all shards and read their headers. False if one is no longer there."""
        remove_abandoned(self.folder)
        _complete_abandoned(self.folder)
        for path in _list_shards(self.folder):
            try:
                file = open(path, "rb", buffering=2**16)  # noqa: SIM115
            except FileNotFoundError:
                return False
            except OSError as error:
                warnings.warn(f"{path} cannot be read ({error}); computed anew", stacklevel=4)
                continue
            self._shards.append(file)
            places, damaged = _read_headers(file)
            for key, place in places:
                self._index.setdefault(key, []).append(place)
            if damaged and path.suffix == ".shard":  # the end of a .part file may be missing
                self._damaged.add(path)
                warnings.warn(
                    f"{path} is damaged; what is lost in it is computed anew", stacklevel=4
                )
        return True

    def _forget(self) -> None:
        for file in self._shards:
            file.close()
        self._shards, self._index, self._damaged = [], {}, set()

    def _read(self, key: bytes, place: Place) -> dict[str, np.ndarray]:
        place.file.seek(place.start)
        body = bytearray(place.length)  # writable, as PyTorch wants it
        if place.file.readinto(body) != place.length:
            raise ValueError("it is cut short")
        return _decode(key, body, place.checksum)

    def _append(self, key: bytes, record: bytes) -> None:
        """Append an entry to this store's own shard, completely or not at all."""
        try:
            if self._part is None:
                name = f"{time.time_ns():020d}{writer_mark()}.part"
                path = self.folder / name
                self._part = open(path, "x+b", buffering=0)  # noqa: SIM115
            start = self._part.seek(0, os.SEEK_END)
            try:
                rest = memoryview(record)
                while rest:
                    rest = rest[self._part.write(rest) :]
            except BaseException:
                self._part.truncate(start)
                raise
        except OSError as error:
            raise write_error(self.folder, error) from error
        _, length, checksum = _parse_header(record[: HEADER.size])
        place = Place(self._part, start + HEADER.size, length, checksum)
        self._index.setdefault(key, []).append(place)

    def _complete(self) -> bool:
        """Rename the shard that was written. Returns whether there was one."""
        if self._part is None:
            return False
        path, size = Path(self._part.name), self._part.seek(0, os.SEEK_END)
        self._part.close()
        self._part = None
        with contextlib.suppress(OSError):  # under its first name it is read as well
            os.replace(path, path.with_suffix(".shard")) if size else path.unlink()
        return size > 0

    def _merge(self, damaged: set[Path]) -> None:
        """Copy whole entries of small, damaged and abandoned shards into one; remove these."""
        sources = [path for path in _list_shards(self.folder) if _can_be_merged(path, damaged)]
        known: set[bytes] = set()
        try:
            for path in reversed(sources):
                with open(path, "rb", buffering=2**16) as file:
                    for key, place in _read_headers(file)[0]:
                        with contextlib.suppress(ValueError):  # a changed entry is left behind
                            if key not in known:
                                self._append(key, _encode(key, self._read(key, place)))
                                known.add(key)
            self._complete()
        except BaseException:
            if self._part is not None:
                self._part.close()
                Path(self._part.name).unlink(missing_ok=True)
                self._part = None
            raise
        finally:
            self._index = {}
        for path in sources:
            with contextlib.suppress(FileNotFoundError):  # another process did the same
                # A damaged file may belong to another program: it is renamed, not deleted.
                os.replace(path, path.with_suffix(".damaged")) if path in damaged else path.unlink()


def _list_shards(folder: Path) -> list[Path]:
    """From the oldest to the newest."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".shard", ".part"))


def finish_abandoned(root: Path | None) -> None:
    """Complete, in all folders of a cache, what killed processes were writing, or remove it."""
    for folder in [] if root is None else (Path(root) / STORE).glob("*/*"):
        remove_abandoned(folder)
        _complete_abandoned(folder)


def _complete_abandoned(folder: Path) -> None:
    """Give shards of killed processes their final name, without an entry that was not finished."""
    for path in folder.glob("*.part"):
        if not is_abandoned(path.stem):
            continue
        with contextlib.suppress(OSError):  # read-only, or another process was first
            with open(path, "r+b") as file:
                places, damaged = _read_headers(file)
                if damaged:
                    ends = [place.start + place.length for _, place in places]
                    whole = max(ends, default=0)
                    file.truncate(whole + -whole % ALIGN)
            os.replace(path, path.with_suffix(".shard")) if places else path.unlink()


def _can_be_merged(path: Path, damaged: set[Path]) -> bool:
    stat = path.stat()
    if path.suffix == ".part":
        return time.time() - stat.st_mtime > ABANDONED
    return path in damaged or stat.st_size < MERGE_BYTES


def _sha256(data) -> bytes:
    return hashlib.sha256(data).digest()


def _checksum(key: bytes, body) -> bytes:
    digest = hashlib.sha256(key)
    digest.update(body)
    return digest.digest()[:16]


def _padding(length: int) -> bytes:
    return bytes(-length % ALIGN)


def _encode(key: bytes, entry: dict[str, np.ndarray]) -> bytes:
    """Header and padded body. Body: length of a JSON text, the text (dtypes, shapes), arrays."""
    arrays = {name: np.ascontiguousarray(array) for name, array in entry.items()}
    shapes = {name: [array.dtype.str, np.shape(entry[name])] for name, array in arrays.items()}
    text = json.dumps(shapes).encode()
    text += b" " * (-(len(text) + 4) % 8)  # arrays start at multiples of 8 bytes
    parts = [len(text).to_bytes(4, "little"), text]
    for array in arrays.values():
        parts += [array.tobytes(), bytes(-array.nbytes % 8)]
    body = b"".join(parts)
    rest = HEADER.pack(b"", 0, len(body), key, _checksum(key, body))[8:]
    return MAGIC + zlib.crc32(rest).to_bytes(4, "little") + rest + body + _padding(len(body))


def _parse_header(data: bytes):
    """(key, the body's length, its checksum), or None where this is no header."""
    if len(data) < HEADER.size:
        return None
    magic, crc, length, key, checksum = HEADER.unpack(data)
    return (key, length, checksum) if magic == MAGIC and crc == zlib.crc32(data[8:]) else None


def _decode(key: bytes, body, checksum: bytes) -> dict[str, np.ndarray]:
    """The arrays of a body, which share its memory. Raises ValueError if it was changed."""
    if _checksum(key, body) != checksum:
        raise ValueError("its content belongs to another key or was changed")
    at = 4 + int.from_bytes(bytes(body[:4]), "little")
    entry = {}
    for name, (dtype, shape) in json.loads(bytes(body[4:at])).items():
        array = np.frombuffer(body, dtype, math.prod(shape), at).reshape(shape)
        entry[name] = array
        at += array.nbytes + -array.nbytes % 8
    return entry


def _read_headers(file) -> tuple[list[tuple[bytes, Place]], bool]:
    """(key, place) of each entry of a shard, and whether anything else is in the file."""
    places, damaged, at = [], False, 0
    size = os.fstat(file.fileno()).st_size
    while at < size:
        file.seek(at)
        header = _parse_header(file.read(HEADER.size))
        end = at + HEADER.size + (header[1] + -header[1] % ALIGN if header else 0)
        if header is None or end > size:
            damaged = True
            at += ALIGN  # entries behind the damage can still be found
            continue
        key, length, checksum = header
        places.append((key, Place(file, at + HEADER.size, length, checksum)))
        at = end
    return places, damaged


def _read_own_file(key: bytes, path: Path) -> dict[str, np.ndarray]:
    """A large entry, mapped. Raises FileNotFoundError, OSError, or ValueError for damage."""
    if not path.is_file():
        raise FileNotFoundError(path)
    data = np.memmap(path, np.uint8, "c")  # ValueError if it is empty
    header = _parse_header(data[: HEADER.size].tobytes())
    if header is None or header[0] != key or HEADER.size + header[1] > len(data):
        raise ValueError("it is cut short or no entry of this key")
    return _decode(key, data[HEADER.size : HEADER.size + header[1]].data, header[2])
