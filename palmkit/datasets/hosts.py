"""Where things are published: what is there, and downloads.

Hugging Face's Hub, Zenodo, and archives of GitHub. HF_ENDPOINT names another Hub (a mirror),
PALMKIT_ZENODO and PALMKIT_GITHUB other addresses of those.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from palmkit.datasets.archives import OUTSIDE
from palmkit.extras import extra
from palmkit.storage import progress_bar

with extra("fetch"):
    import huggingface_hub
    import pooch
    import requests

# Bytes. huggingface_hub starts an interrupted file again from its beginning; larger ones resume.
LARGE = 50_000_000
TRIES = 5  # without a new byte
WAIT = 1.0  # seconds before the second try, doubled each time
LONGEST_WAIT = 300  # seconds, whatever a server asks for
TIMEOUT = (10, 60)  # seconds to connect, and without a byte
BLOCK = 1 << 16  # bytes; at most so many are lost where a connection breaks
MIRRORS = {"https://zenodo.org": "PALMKIT_ZENODO", "https://github.com": "PALMKIT_GITHUB"}


@dataclass(frozen=True)
class File:
    """A file as its source announces it.

    checksum: "md5:", "sha256:" or "git:" (git's sha1 of a blob) and a value; "" if there is none.
    """

    path: str
    bytes: int | None
    checksum: str
    url: str

    def is_in(self, folder: Path) -> bool:
        path = folder / self.path
        return path.is_file() and self.bytes in (None, path.stat().st_size)

    def fits(self, path: Path, sha256: str) -> bool:
        """Whether a local file with that sha256 is this one."""
        kind, _, value = self.checksum.partition(":")
        if not kind:
            return True
        if kind == "git":  # the Hub's checksum of small text files
            content = path.read_bytes()
            return value == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return value == (sha256 if kind == "sha256" else pooch.file_hash(str(path), alg=kind))


@dataclass(frozen=True)
class Upstream:
    """What a source has, at a revision."""

    source: str
    revision: str
    files: list[File]

    @property
    def zips(self) -> list[File]:
        """Archives of the dataset itself, to be unpacked."""
        return [file for file in self.files if file.path.endswith(".zip") and "/" not in file.path]


def current_revision(row: dict[str, str]) -> str:
    """The revision that a manifest's row means: its own, else the Hub's newest commit."""
    source = row["source"]
    if not source.startswith("hf:"):
        # Zenodo's records never change.
        return row["revision"] or source.split("/records/")[1].split("/")[0]
    api = huggingface_hub.HfApi(endpoint=_endpoint())
    return api.dataset_info(source.removeprefix("hf:"), revision=row["revision"] or None).sha


def look_up(row: dict[str, str]) -> Upstream:
    """Ask a source for its files, with sizes and checksums. Raises what its client raises."""
    source, revision = row["source"], current_revision(row)
    if source.startswith("hf:"):
        files = _list_hub(source.removeprefix("hf:"), revision)
    elif "/records/" in source:
        files = [_ask_zenodo(source)]
    else:
        size = int(row["bytes"]) if row["bytes"] else None
        url = f"{_mirrored(source)}/archive/{revision}.zip"
        files = [File(f"{row['name']}.zip", size, row["checksum"], url)]
    if outside := [file.path for file in files if OUTSIDE.search(file.path)]:
        raise ValueError(f"{source} names files that would leave the folder: {', '.join(outside)}")
    return Upstream(source, revision, files)


def _endpoint() -> str | None:
    """HF_ENDPOINT as it is now; huggingface_hub knows what it was at import."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _mirrored(url: str) -> str:
    for host, variable in MIRRORS.items():
        url = url.replace(host, os.environ.get(variable, "").rstrip("/") or host)
    return url


def _list_hub(repo: str, revision: str) -> list[File]:
    """The files of a dataset repository, hidden ones left out."""
    where = {"repo_type": "dataset", "revision": revision}
    api, files = huggingface_hub.HfApi(endpoint=_endpoint()), []
    for entry in api.list_repo_tree(repo, recursive=True, **where):
        if isinstance(entry, huggingface_hub.RepoFile) and not re.search(r"(^|/)\.", entry.path):
            checksum = f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}"
            url = huggingface_hub.hf_hub_url(repo, entry.path, endpoint=_endpoint(), **where)
            files.append(File(entry.path, entry.size, checksum, url))
    return files


def _ask_zenodo(source: str) -> File:
    """A record's file, with size and md5 from Zenodo's API."""
    host, path = _mirrored(source).split("/records/")
    record, _, name = path.split("/")
    answer = requests.get(f"{host}/api/records/{record}", timeout=TIMEOUT)
    answer.raise_for_status()
    (entry,) = [file for file in answer.json()["files"] if file["key"] == name]
    return File(name, entry["size"], entry["checksum"], entry["links"]["self"])


def download(upstream: Upstream, folder: Path) -> None:
    """Download all files of a source into a folder. Present files are kept, partial ones resumed.

    Raises ValueError for a wrong checksum, what the clients raise, and OSError for missing files.
    """
    on_hub = upstream.source.startswith("hf:")
    large = [file for file in upstream.files if not on_hub or file.bytes >= LARGE]
    for file in large:
        if not file.is_in(folder):
            _download_large(file, folder, huggingface_hub.get_token() if on_hub else None)
    if on_hub and len(large) < len(upstream.files):
        huggingface_hub.snapshot_download(
            upstream.source.removeprefix("hf:"),
            repo_type="dataset",
            revision=upstream.revision,
            local_dir=folder,
            endpoint=_endpoint(),
            ignore_patterns=[".*", *(glob.escape(file.path) for file in large)],
            tqdm_class=_NoBar if os.environ.get("PALMKIT_PROGRESS") == "0" else None,
        )
    # snapshot_download may return although files are missing.
    if missing := [file.path for file in upstream.files if not file.is_in(folder)]:
        count = f"{len(missing)} of {len(upstream.files)} files"
        raise OSError(f"{count} have not come, {missing[0]} for one")


def _download_large(file: File, folder: Path, token: str | None) -> None:
    """Download one file, in a folder `large` beside `folder` until it is whole."""
    scratch = folder.with_name("large")
    (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
    part = scratch / f"{file.checksum.partition(':')[2] or 'archive'}.part"
    resume = functools.partial(_resume, part=part, size=file.bytes, token=token)
    known = file.checksum if not file.checksum.startswith("git:") else None
    name = part.with_suffix(".whole").name
    whole = pooch.retrieve(file.url, known or None, name, scratch, downloader=resume)
    os.replace(whole, folder / file.path)


class _NoBar(tqdm):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options | {"disable": True})


def _resume(url: str, output: str, _pooch, part: Path, size: int | None, token: str | None) -> None:
    """A downloader for pooch that resumes an interrupted one, perhaps of another process."""
    tries = 0
    while size is None or not part.is_file() or part.stat().st_size != size:
        before = _size_of(part)
        if size is not None and before > size:
            part.unlink()
            continue
        try:
            _append(url, part, before, token)
            if size is None:
                break
        except requests.RequestException as error:
            tries = 1 if _size_of(part) > before else tries + 1
            _wait_or_raise(error, part, tries)
    os.replace(part, output)


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _wait_or_raise(error: requests.RequestException, part: Path, tries: int) -> None:
    """Wait before another try, or raise the error if another try is of no use."""
    status = getattr(error.response, "status_code", 500)
    if status == 416:  # there is nothing after the last byte: it was not the same file
        part.unlink(missing_ok=True)
    elif tries >= TRIES or (status < 500 and status not in (408, 429)):
        raise error
    asked = getattr(error.response, "headers", {}).get("Retry-After", "")
    wait = min(int(asked), LONGEST_WAIT) if asked.isdigit() else WAIT * 2 ** (tries - 1)
    time.sleep(wait)


def _append(url: str, part: Path, start: int, token: str | None) -> None:
    """Append to a partial file what follows its first `start` bytes."""
    headers = {"Accept-Encoding": "identity"}  # positions count bytes of the file
    if start:
        headers["Range"] = f"bytes={start}-"
    if token:
        headers["Authorization"] = f"Bearer {token}"  # requests sends it to no other host
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        answer.raise_for_status()
        if answer.status_code != 206:  # the server sends the file from its beginning
            start = 0
        total = start + int(answer.headers.get("Content-Length", 0))
        bar = progress_bar(total, part.stem[:12], "B", initial=start, unit_scale=True)
        with open(part, "ab" if start else "wb") as file, bar:
            for block in answer.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))
