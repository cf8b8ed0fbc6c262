"""Checkpoints and datasets from where they are published: `fetch("ESC50", "pengi")`.

data_manifest.csv tells where that is. What is fetched is put together in a scratch folder of the data root, checked
against the checksums that its source tells, locked (see `lock`), and only then renamed to its name: it is there
as a whole or not at all. A second call goes on where the first one was interrupted.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import logging
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
from huggingface_hub.errors import LocalEntryNotFoundError

from palmkit.checksums import (
    LOCK,
    LockError,
    hash_files,
    list_files,
    name_some,
    read_lock,
    sha256_of,
    verify_folder,
    write_lock,
)
from palmkit.datasets.archives import list_members, unpack, unpack_esc10
from palmkit.datasets.hosts import Upstream, current_revision, download, look_up
from palmkit.datasets.resolve import list_folds, load_dataset
from palmkit.storage import PROJECT, data_root
from palmkit.tables import DatasetError

log = logging.getLogger(__name__)
MANIFEST = PROJECT / "data_manifest.csv"
BY_HAND = "by hand"  # kind of a row that tells where to get a dataset and how to load it; nothing is downloaded


class FetchError(DatasetError):
    """Something could not be fetched, or is not what it should be; the message says what to do next."""


def fetch(
    *names: str, update=False, verify=False, told: Callable[[str], None] = log.warning
) -> list[Path]:
    """Fetch checkpoints and datasets of data_manifest.csv by name; the path of each: a folder, or PENGI's base.pth.

    They go to PALMKIT_DATA (default: `data`); what is there already is checked against its lock instead.
    update: take the source's newest revision; the old one is kept beside it under another name.
    verify: fetch nothing, but hash every file again and compare with the lock.
    told: called with a sentence on sizes, on waiting, and on a source that has moved on.
    HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and proxies are respected. Raises FetchError, which says what to do by hand.
    """
    rows = read_manifest()
    for row in (rows[name] for name in names if name in rows):
        if row["kind"] == BY_HAND:
            place = data_root() / row["name"]
            raise FetchError(f"{row['name']} cannot be fetched: get it from {_by_hand(row, place)}")
    known = [
        n
        for n, row in rows.items()
        if row["kind"] != BY_HAND and row["source"].startswith(("hf:", "https:"))
    ]
    if not names or set(names) - set(known):
        what = " and ".join(sorted(set(names) - set(known))) or "nothing"
        more = "mini comes with the kit, and generated datasets are made at first use"
        raise FetchError(f"{what} cannot be fetched: there are {', '.join(known)}; {more}")
    return [_verify(rows[name]) if verify else _fetch(rows[name], update, told) for name in names]


def read_manifest() -> dict[str, dict[str, str]]:
    """data_manifest.csv by name; an empty cell is not known. Source "hf:" is a dataset repository on Hugging Face."""
    if not MANIFEST.is_file():
        raise FileNotFoundError(
            f"there is no {MANIFEST.name} beside the package, and it lists what can be fetched and from where: install "
            "palmkit from a checkout, `pip install -e .`"
        )
    with open(MANIFEST, encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def _verify(row: dict) -> Path:
    place = data_root() / row["name"]
    if not (place / LOCK).is_file():
        raise FetchError(
            f"{place} has no lock to compare with: `python -m palmkit fetch {row['name']}` writes it"
        )
    if problem := verify_folder(place, rehash=True):
        raise FetchError(problem)
    return _result(row, place)


def _fetch(row: dict, update: bool, told) -> Path:
    place = data_root() / row["name"]
    if (place / LOCK).is_file() and not update:
        return _still(row, place, told)  # nothing is written, so a read-only folder will do
    with _explained(row, place):
        scratch = place.parent / ".fetch" / row["name"]
        scratch.mkdir(parents=True, exist_ok=True)
        with _alone(scratch.with_name(f"{row['name']}.lock"), row["name"], told):
            if (place / LOCK).is_file() and not update:
                return _still(row, place, told)  # fetched by whom we waited for
            upstream, lock = _ask(row, place, told), read_lock(place)
            if lock and upstream.revision == lock["revision"]:
                told(f"{row['name']}: {row['source']} has nothing newer than {lock['revision']}")
                return _still(row, place, told)
            if place.exists() and not lock:
                _adopt(row, upstream, place)
            else:
                folder = _make(
                    row,
                    upstream,
                    place,
                    scratch / (upstream.revision if upstream else "by-hand"),
                    told,
                )
                if lock:
                    kept = place.rename(
                        place.with_name(f"{place.name}-{lock['revision'][:12] or 'by-hand'}")
                    )
                    told(
                        f"{row['name']}: the former revision is now {kept}; remove it when it is no longer needed"
                    )
                folder.rename(place)
            shutil.rmtree(scratch)
    return _result(row, place)


def _result(row: dict, place: Path) -> Path:
    return place / row["source"].rsplit("/", 1)[1] if row["kind"] == "checkpoint" else place


def _still(row: dict, place: Path, told) -> Path:
    """What was fetched before, if it is as it was; says so where its source has moved on."""
    if problem := verify_folder(place):
        raise FetchError(problem)
    revision = read_lock(place)["revision"]
    with contextlib.suppress(Exception):  # asking is a courtesy: without a network nobody answers
        if revision and (newest := current_revision(row)) != revision:
            told(
                f"{row['name']}: {row['source']} has moved from {revision} to {newest}; what was fetched is kept, and "
                f"`python -m palmkit fetch --update {row['name']}` takes the new one"
            )
    return _result(row, place)


@contextlib.contextmanager
def _alone(path: Path, name: str, told) -> Iterator[None]:
    """One process at a time; a second one says so and waits. The system lets go of the lock of one that is killed."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        told(f"{name}: another process is fetching it; waiting for that")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _explained(row: dict, place: Path) -> Iterator[None]:
    """Failures as one sentence: what happened, what to do, and what to do by hand."""
    try:
        yield
    except (DatasetError, LockError, MemoryError):
        raise
    except Exception as error:  # what clients of the network raise is not a closed list
        number, again = (
            getattr(error, "errno", None),
            "what has come is kept, and the same command goes on from there",
        )
        if number in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(place.parent).free / 1e9
            problem = (
                f"the disk of {place.parent} is full ({free:,.3f} GB free): free some; {again}"
            )
        elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
            problem = f"{place.parent} cannot be written to: choose another place with PALMKIT_DATA"
        else:
            problem = f"{_reason(error)}; {again}; or get {_by_hand(row, place)}, and the same command checks it"
        raise FetchError(f"{row['name']} could not be fetched: {problem}") from error


def _reason(error: Exception) -> str:
    cause = (
        error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
    )
    return (" ".join(str(cause).split()) or type(cause).__name__)[:300].rstrip(".")


def _by_hand(row: dict, place: Path) -> str:
    source = row["source"]
    if row["kind"] == BY_HAND:
        return f"{source} by hand and put it into {place}: {row['notes']}"
    if row["kind"] == "checkpoint":
        return f"{source} by hand and put it at {_result(row, place)}"
    if not source.startswith("hf:"):
        return f"{source}/archive/{row['revision']}.zip by hand and put it at {_zip(place)}"
    hub = source.replace("hf:", "https://huggingface.co/datasets/")
    return (
        f"all files of {hub} by hand and put them into {place} (or a zip of them at {_zip(place)})"
    )


def _zip(place: Path) -> Path:
    """Where an archive that was downloaded by hand is looked for."""
    return place.with_name(f"{place.name}.zip")


def _ask(row: dict, place: Path, told) -> Upstream | None:
    """What the source has. None if it does not answer, but something put there by hand waits to be looked at."""
    try:
        return look_up(row)
    except Exception as error:
        if (place / LOCK).is_file() or not (place.exists() or _zip(place).is_file()):
            raise
        told(
            f"{row['name']}: {row['source']} did not answer ({_reason(error)}); what is there is taken as it is"
        )
        return None


def _make(row: dict, upstream: Upstream | None, place: Path, scratch: Path, told) -> Path:
    """A folder with all of it, checked and locked, ready to be renamed."""
    files, unpacked, by_hand = scratch / "files", scratch / place.name, _zip(place).is_file()
    files.mkdir(parents=True, exist_ok=True)
    if by_hand:
        zips = [_zip(place)]
        if upstream and not all(file.fits(zips[0], sha256_of(zips[0])) for file in upstream.zips):
            raise FetchError(
                f"{zips[0]} is not the zip that {row['source']} has: get it anew, or take it away"
            )
    else:
        hashed = _download(row, upstream, place, files, told)
        zips = [files / file.path for file in upstream.zips]
    if zips:
        _unpack(zips, unpacked, keep=by_hand)
        for name, _ in list(
            list_files(files)
        ):  # what the repository has beside its zip, where the zip has it not
            if files / name not in zips and not (unpacked / name).exists():
                (unpacked / name).parent.mkdir(parents=True, exist_ok=True)
                (files / name).rename(unpacked / name)
        hashed = hash_files(unpacked, f"hash {place.name}")
        if by_hand:
            _check_by_hand(row, upstream, unpacked, hashed)
    folder = unpacked if zips else files
    write_lock(
        folder,
        hashed,
        name=place.name,
        source=row["source"],
        revision=upstream.revision if upstream else "",
    )
    return folder


def _download(row: dict, upstream: Upstream, place: Path, files: Path, told) -> dict:
    """All files of a source, checked against what it announced; their hashes."""
    to_come = [file for file in upstream.files if not file.is_in(files)]
    size = sum(file.bytes or 0 for file in to_come)
    said = (
        f"{size / 1e6:,.1f} MB"
        if all(file.bytes for file in to_come)
        else "a size that the source does not tell"
    )
    told(
        f"{place.name}: {len(to_come)} of {len(upstream.files)} files, {said}, from {row['source']} into {place}"
    )
    _leave_room(
        size + sum(file.bytes or 0 for file in upstream.zips), place.name
    )  # zips: packed, and as much unpacked
    download(upstream, files)
    hashed = hash_files(files, f"check {place.name}")
    if differing := _differences(upstream, files, hashed):
        for name in set().union(*differing.values()):
            (files / name).unlink(missing_ok=True)
        raise FetchError(
            f"{place.name}: what came is not what {row['source']} announced ({name_some(differing)}); it was thrown "
            "away, and the same command fetches it anew"
        )
    shutil.rmtree(
        files / ".cache", ignore_errors=True
    )  # huggingface_hub's notes of what it has fetched
    return hashed


def _leave_room(needed: int, what: str) -> None:
    if needed > (free := shutil.disk_usage(data_root()).free):
        raise FetchError(
            f"{what} needs {needed / 1e9:,.3f} GB, and {data_root()} has {free / 1e9:,.3f} GB free: free some, or "
            "choose another place with PALMKIT_DATA; what has come is kept"
        )


def _unpack(zips: list[Path], folder: Path, keep: bool) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of an unpacking that was cut off
    for path in zips:
        try:
            with zipfile.ZipFile(path) as archive:
                if folder.name == "ESC10":
                    unpack_esc10(archive, folder)
                else:
                    _leave_room(
                        sum(m.file_size for m in list_members(archive).values()),
                        f"{folder.name}, unpacked,",
                    )
                    unpack(archive, folder)
        except FetchError:
            raise
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, DatasetError) as error:
            if not keep:
                path.unlink()  # so that it is fetched anew
            raise FetchError(f"{folder.name}: {path.name} cannot be unpacked: {error}") from error


def _adopt(row: dict, upstream: Upstream | None, place: Path) -> None:
    """Check and lock a folder that somebody put there by hand."""
    hashed = hash_files(place, f"check {place.name}")
    _check_by_hand(row, upstream, place, hashed)
    compared = upstream and not upstream.zips
    write_lock(
        place,
        hashed,
        name=place.name,
        source=row["source"],
        revision=upstream.revision if compared else "",
    )


def _check_by_hand(row: dict, upstream: Upstream | None, folder: Path, hashed: dict) -> None:
    """Compare with the source file by file; where that cannot be done, see that all clips of all tables are there."""
    if upstream and not upstream.zips:
        if differing := _differences(upstream, folder, hashed):
            raise FetchError(
                f"{row['name']} was put there by hand, and is not what {row['source']} has at {upstream.revision} "
                f"({name_some(differing)}): put that right, or take it away and fetch again"
            )
    elif row["kind"] == "dataset":
        for fold in list_folds(folder):
            load_dataset(folder, fold)


def _differences(upstream: Upstream, folder: Path, hashed: dict) -> dict[str, set[str]]:
    missing = {file.path for file in upstream.files if file.path not in hashed}
    there = [file for file in upstream.files if file.path in hashed]
    changed = {
        file.path for file in there if not file.fits(folder / file.path, hashed[file.path][2])
    }
    return {"missing": missing, "changed": changed} if missing or changed else {}
