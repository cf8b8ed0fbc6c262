"""Fetch checkpoints and datasets from where they are published: `fetch("ESC50", "pengi")`.

data_manifest.csv says where that is. A download is put together in a scratch folder of the data
root, checked against the checksums that its source announces, given a checksum file (see
`palmkit.checksums`), and only then renamed to its name: it is there as a whole or not at all. A
second call resumes an interrupted one. Messages go to the logger `palmkit`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from palmkit.checksums import (
    CHECKSUM_FILE,
    ChecksumError,
    hash_files,
    list_files,
    name_some,
    read_checksums,
    sha256_of,
    verify_folder,
    write_checksums,
)
from palmkit.data import read_dataset
from palmkit.datasets.archives import list_members, unpack, unpack_esc10
from palmkit.datasets.hosts import Upstream, current_revision, download, look_up
from palmkit.datasets.manifest import BY_HAND, read_manifest
from palmkit.extras import extra
from palmkit.locks import one_process
from palmkit.storage import data_root
from palmkit.tables import DatasetError, find_folds

with extra("fetch"):
    from huggingface_hub.errors import LocalEntryNotFoundError

log = logging.getLogger(__name__)


class FetchError(DatasetError):
    """Something could not be fetched, or is not as expected; the message says what to do."""


def fetch(*names: str, update: bool = False, verify: bool = False) -> list[Path]:
    """Fetch checkpoints and datasets of data_manifest.csv by name; the path of each.

    They go to PALMKIT_DATA (default: `data`). The path is a folder, or PENGI's base.pth. What is
    there already is compared with its checksum file instead.

    update: take the source's newest revision; the old one is kept beside it under another name.
    verify: fetch nothing, but hash every file again and compare with the checksum file.

    HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and proxies are respected. Raises FetchError, which says
    what to do by hand.
    """
    rows = read_manifest()
    _check_names(names, rows)
    if verify:
        return [_verify(rows[name]) for name in names]
    return [_fetch(rows[name], update) for name in names]


def _check_names(names: tuple[str, ...], rows: dict[str, dict]) -> None:
    """Raise FetchError before anything is fetched if one of the names cannot be."""
    for row in (rows[name] for name in names if name in rows):
        if row["kind"] == BY_HAND:
            place = data_root() / row["name"]
            raise FetchError(f"{row['name']} cannot be fetched: get it from {_by_hand(row, place)}")
    known = [
        name
        for name, row in rows.items()
        if row["kind"] != BY_HAND and row["source"].startswith(("hf:", "https:"))
    ]
    if not names or set(names) - set(known):
        what = " and ".join(sorted(set(names) - set(known))) or "nothing"
        raise FetchError(
            f"{what} cannot be fetched: there are {', '.join(known)}; mini and mini-clap "
            "come with the kit, and generated datasets are made at first use"
        )


def _verify(row: dict) -> Path:
    place = data_root() / row["name"]
    if not _is_fetched(place):
        raise FetchError(
            f"{place} has no checksum file to compare with: `palmkit fetch {row['name']}` writes it"
        )
    if problem := verify_folder(place, rehash=True):
        raise FetchError(problem)
    return _result(row, place)


def _fetch(row: dict, update: bool) -> Path:
    place = data_root() / row["name"]
    if _is_fetched(place) and not update:
        return _reuse(row, place)  # writes nothing, so a read-only folder will do
    with _explain_failures(row, place):
        scratch = place.parent / ".fetch" / row["name"]
        scratch.mkdir(parents=True, exist_ok=True)
        lock = scratch.with_name(f"{row['name']}.lock")  # beside the data, which caches may share
        with one_process(place, row["name"], "fetching", lock):
            if _is_fetched(place) and not update:
                return _reuse(row, place)  # fetched by the process that this one waited for
            _bring(row, place, scratch)
            shutil.rmtree(scratch)
    return _result(row, place)


def _is_fetched(place: Path) -> bool:
    return (place / CHECKSUM_FILE).is_file()


def _result(row: dict, place: Path) -> Path:
    return place / row["source"].rsplit("/", 1)[1] if row["kind"] == "checkpoint" else place


def _reuse(row: dict, place: Path) -> Path:
    """What was fetched before, if it is unchanged. Logs it if the source has a newer revision."""
    _check_unchanged(place)
    revision = read_checksums(place)["revision"]
    with contextlib.suppress(Exception):  # without a network nobody answers, and nothing is lost
        if revision and (newest := current_revision(row)) != revision:
            log.warning(
                f"{row['name']}: {row['source']} has moved from {revision} to {newest}; what was "
                f"fetched is kept, and `palmkit fetch --update {row['name']}` takes the new one"
            )
    return _result(row, place)


def _check_unchanged(place: Path) -> None:
    if problem := verify_folder(place):
        raise FetchError(problem)


def _bring(row: dict, place: Path, scratch: Path) -> None:
    """Install a download, or a zip or folder that was downloaded by hand."""
    upstream, old = _ask(row, place), read_checksums(place)
    if old and upstream.revision == old["revision"]:
        log.info(f"{row['name']}: {row['source']} has nothing newer than {old['revision']}")
        _check_unchanged(place)
        return
    if place.exists() and not old:
        _adopt(row, upstream, place)
        return
    revision = upstream.revision if upstream else "by-hand"
    folder = _make(row, upstream, place, scratch / revision)
    if old:
        kept = place.rename(_free_name(place, old["revision"]))
        log.warning(
            f"{row['name']}: the former revision is now {kept}; delete it when you no longer need "
            "it"
        )
    folder.rename(place)


def _free_name(place: Path, revision: str) -> Path:
    """Where a former revision is kept: beside `place`, under a name that nothing has yet."""
    name = f"{place.name}-{re.sub(r'[^0-9A-Za-z.-]', '', revision)[:12] or 'by-hand'}"
    names = [name, *(f"{name}-{n}" for n in range(2, 1000))]
    return next(path for path in map(place.with_name, names) if not os.path.lexists(path))


@contextlib.contextmanager
def _explain_failures(row: dict, place: Path) -> Iterator[None]:
    """Failures as one FetchError: what happened, what to do, and what to do by hand."""
    try:
        yield
    except (DatasetError, ChecksumError, MemoryError):
        raise
    except Exception as error:  # what clients of the network raise is not a closed list
        problem = _problem(error, row, place)
        raise FetchError(f"{row['name']} could not be fetched: {problem}") from error


def _problem(error: Exception, row: dict, place: Path) -> str:
    number = getattr(error, "errno", None)
    again = "what has come is kept, and the same command resumes"
    if number in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(place.parent).free / 1e9
        return f"the disk of {place.parent} is full ({free:,.3f} GB free): free some; {again}"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{place.parent} cannot be written to: choose another place with PALMKIT_DATA"
    if number in (errno.EEXIST, errno.ENOTDIR):
        return (
            f"{error.filename or place.parent} is a file where a folder is needed: move it away, "
            "or choose another place with PALMKIT_DATA"
        )
    by_hand = f"or get {_by_hand(row, place)}, and the same command checks it"
    return f"{_reason(error)}; {again}; {by_hand}"


def _reason(error: Exception) -> str:
    hidden = isinstance(error, LocalEntryNotFoundError) and error.__cause__
    cause = error.__cause__ if hidden else error
    return (" ".join(str(cause).split()) or type(cause).__name__)[:300].rstrip(".")


def _by_hand(row: dict, place: Path) -> str:
    """Where to get something, and where to put it."""
    source = row["source"]
    if row["kind"] == BY_HAND:
        return f"{source} by hand and put it into {place}: {row['notes']}"
    if row["kind"] == "checkpoint":
        return f"{source} by hand and put it at {_result(row, place)}"
    if not source.startswith("hf:"):
        return f"{source}/archive/{row['revision']}.zip by hand and put it at {_zip(place)}"
    hub = source.replace("hf:", "https://huggingface.co/datasets/")
    into = f"put them into {place} (or a zip of them at {_zip(place)})"
    return f"all files of {hub} by hand and {into}"


def _zip(place: Path) -> Path:
    """Where an archive that was downloaded by hand is looked for."""
    return place.with_name(f"{place.name}.zip")


def _ask(row: dict, place: Path) -> Upstream | None:
    """What the source has.

    None if it does not answer and something that was downloaded by hand can be used.
    """
    try:
        return look_up(row)
    except Exception as error:
        if _is_fetched(place) or not (place.exists() or _zip(place).is_file()):
            raise
        log.warning(
            f"{row['name']}: {row['source']} did not answer ({_reason(error)}); what is there is "
            "taken as it is"
        )
        return None


def _make(row: dict, upstream: Upstream | None, place: Path, scratch: Path) -> Path:
    """A whole folder, checked and with its checksum file, ready to be renamed."""
    files, by_hand = scratch / "files", _zip(place)
    files.mkdir(parents=True, exist_ok=True)
    if by_hand.is_file():
        _check_zip(row, upstream, by_hand)
        folder = _unpack_all([by_hand], scratch / place.name, files, keep=True)
        hashed = hash_files(folder, f"hash {place.name}")
        _check_by_hand(row, upstream, folder, hashed)
    else:
        folder, hashed = files, _download(row, upstream, place, files)
        if zips := [files / file.path for file in upstream.zips]:
            folder = _unpack_all(zips, scratch / place.name, files, keep=False)
            hashed = hash_files(folder, f"hash {place.name}")
    revision = upstream.revision if upstream else ""
    write_checksums(folder, hashed, name=place.name, source=row["source"], revision=revision)
    return folder


def _check_zip(row: dict, upstream: Upstream | None, path: Path) -> None:
    """Raise FetchError if a zip that was downloaded by hand is not the source's."""
    if upstream and not all(file.fits(path, sha256_of(path)) for file in upstream.zips):
        raise FetchError(
            f"{path} is not the zip that {row['source']} has: get it again, or move it away"
        )


def _unpack_all(zips: list[Path], folder: Path, files: Path, keep: bool) -> Path:
    """Unpack zips into `folder`, and add what `files` holds beside them; the folder.

    keep: leave a damaged zip; otherwise it is deleted, so that it is fetched again.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted unpacking
    for path in zips:
        _unpack_one(path, folder, keep)
    for name, _ in list(list_files(files)):
        if files / name not in zips and not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (files / name).rename(folder / name)
    return folder


def _unpack_one(path: Path, folder: Path, keep: bool) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            if folder.name == "ESC10":
                unpack_esc10(archive, folder)
            else:
                size = sum(member.file_size for member in list_members(archive).values())
                _check_room(size, f"{folder.name}, unpacked,")
                unpack(archive, folder)
    except FetchError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, DatasetError) as error:
        if not keep:
            path.unlink()
        raise FetchError(f"{folder.name}: {path.name} cannot be unpacked: {error}") from error


def _download(row: dict, upstream: Upstream, place: Path, files: Path) -> dict:
    """Download all files of a source and compare them with what it announced; their hashes."""
    missing = [file for file in upstream.files if not file.is_in(files)]
    size = sum(file.bytes or 0 for file in missing)
    known = all(file.bytes for file in missing)
    amount = f"{size / 1e6:,.1f} MB" if known else "of unknown size"
    log.info(
        f"{place.name}: {len(missing)} of {len(upstream.files)} files, {amount}, from "
        f"{row['source']} into {place}"
    )
    packed = sum(file.bytes or 0 for file in upstream.zips)
    _check_room(size + packed, place.name)  # a zip, and at least as much unpacked
    download(upstream, files)
    hashed = hash_files(files, f"check {place.name}")
    if differing := _differences(upstream, files, hashed):
        for name in set().union(*differing.values()):
            (files / name).unlink(missing_ok=True)
        raise FetchError(
            f"{place.name}: what came is not what {row['source']} announced "
            f"({name_some(differing)}); it was deleted, and the same command fetches it again"
        )
    shutil.rmtree(files / ".cache", ignore_errors=True)  # huggingface_hub's notes on its downloads
    return hashed


def _check_room(needed: int, what: str) -> None:
    if needed > (free := shutil.disk_usage(data_root()).free):
        raise FetchError(
            f"{what} needs {needed / 1e9:,.3f} GB, and {data_root()} has {free / 1e9:,.3f} GB "
            "free: free some, or choose another place with PALMKIT_DATA; what has come is kept"
        )


def _adopt(row: dict, upstream: Upstream | None, place: Path) -> None:
    """Check a folder that somebody downloaded by hand, and give it a checksum file."""
    hashed = hash_files(place, f"check {place.name}")
    _check_by_hand(row, upstream, place, hashed)
    compared = upstream and not upstream.zips
    revision = upstream.revision if compared else ""
    write_checksums(place, hashed, name=place.name, source=row["source"], revision=revision)


def _check_by_hand(row: dict, upstream: Upstream | None, folder: Path, hashed: dict) -> None:
    """Compare with the source by file; if that is impossible, read all tables of a dataset."""
    if upstream and not upstream.zips:
        if differing := _differences(upstream, folder, hashed):
            raise FetchError(
                f"{row['name']} was downloaded by hand, and is not what {row['source']} has at "
                f"{upstream.revision} ({name_some(differing)}): correct that, or move it away and "
                "fetch again"
            )
    elif row["kind"] == "dataset":
        for fold in find_folds(folder):
            read_dataset(folder, fold)


def _differences(upstream: Upstream, folder: Path, hashed: dict) -> dict[str, set[str]]:
    """{"missing": paths, "changed": paths} against the source; {} if there is none."""
    missing = {file.path for file in upstream.files if file.path not in hashed}
    there = [file for file in upstream.files if file.path in hashed]
    changed = {
        file.path for file in there if not file.fits(folder / file.path, hashed[file.path][2])
    }
    return {"missing": missing, "changed": changed} if missing or changed else {}
