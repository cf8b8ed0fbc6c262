"""Where things are published: what is there, and downloads.

Hugging Face's Hub, Zenodo, and archives of GitHub. HF_ENDPOINT names another Hub (a mirror),
PALMKIT_ZENODO and PALMKIT_GITHUB other addresses of those.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import itertools
import json
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
    import urllib3

# Bytes. huggingface_hub starts an interrupted file again from its beginning; larger ones resume.
LARGE = 50_000_000
TRIES = 5  # without progress: a try that brings the file less than a block further
WAIT = 1.0  # seconds before the second try, doubled each time
LONGEST_WAIT = 300  # seconds; a server that asks for more is not waited for
TIMEOUT = (10, 60)  # seconds to connect, and without a byte
BLOCK = 1 << 16  # bytes
SLOWEST = 1000  # bytes a second, over TIMEOUT[1] seconds; below that a server counts as stuck
MOST_UNKNOWN = 500_000_000  # bytes of a file whose size nobody announced
MOST_ANSWER = 10_000_000  # bytes of an answer that is no file
MOST_FILES = 500_000  # in one repository
MIRRORS = {"https://zenodo.org": "PALMKIT_ZENODO", "https://github.com": "PALMKIT_GITHUB"}
# What a server says becomes names of files here, so it is checked first.
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
DIGITS = {"md5": 32, "sha1": 40, "git": 40, "sha256": 64, "sha512": 128}  # of a checksum


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
    """Ask a source for its files, with sizes and checksums.

    Raises what its client raises, and ValueError for an answer that cannot be right.
    """
    source, revision = row["source"], current_revision(row)
    if not isinstance(revision, str) or not REVISION.fullmatch(revision):
        raise ValueError(f"{source} names a revision {revision!r:.100}, which is none")
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
    for file in files:
        _check_announced(file, source)
    return Upstream(source, revision, files)


def _check_announced(file: File, source: str) -> None:
    """Raise ValueError for a size or a checksum that is none. A checksum names a file here."""
    size = file.bytes
    if size is not None and (type(size) is not int or size < 0):
        raise ValueError(f"{source} announces {size!r:.100} bytes for {file.path}")
    kind, _, value = file.checksum.partition(":")
    if file.checksum and not re.fullmatch(f"[0-9a-f]{{{DIGITS.get(kind, 0)}}}", value):
        raise ValueError(f"{source} announces {file.checksum!r:.100} for {file.path}: no checksum")


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
    entries = api.list_repo_tree(repo, recursive=True, **where)
    for n, entry in enumerate(itertools.islice(entries, MOST_FILES + 1)):
        if n == MOST_FILES:
            raise ValueError(f"{repo} lists more than {MOST_FILES:,} files, as no dataset has")
        if isinstance(entry, huggingface_hub.RepoFile) and not re.search(r"(^|/)\.", entry.path):
            checksum = f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}"
            url = huggingface_hub.hf_hub_url(repo, entry.path, endpoint=_endpoint(), **where)
            files.append(File(entry.path, entry.size, checksum, url))
    return files


def _ask_zenodo(source: str) -> File:
    """A record's file, with size and md5 from Zenodo's API."""
    host, path = _mirrored(source).split("/records/")
    record, _, name = path.split("/")
    answer = _get_json(f"{host}/api/records/{record}")
    try:
        (entry,) = [file for file in answer["files"] if file["key"] == name]
        return File(name, entry["size"], str(entry["checksum"]), str(entry["links"]["self"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{host} does not say what {name} of record {record} is") from error


def _get_json(url: str):
    """A JSON answer, of at most MOST_ANSWER bytes."""
    with requests.get(url, stream=True, timeout=TIMEOUT) as answer:
        answer.raise_for_status()
        content = bytearray()
        for block in answer.iter_content(BLOCK):
            content += block
            if len(content) > MOST_ANSWER:
                raise ValueError(f"{url} answers with more than {MOST_ANSWER:,} bytes")
    return json.loads(bytes(content))


def download(upstream: Upstream, folder: Path) -> None:
    """Download all files of a source into a folder. Present files are kept, partial ones resumed.

    Raises ValueError for a wrong checksum, what the clients raise, and OSError for missing files.
    """
    on_hub = upstream.source.startswith("hf:")
    large = [file for file in upstream.files if not on_hub or (file.bytes or 0) >= LARGE]
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
            tqdm_class=functools.partial(_BoundedBar, most=_most_bytes(upstream.files, large)),
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


def _most_bytes(files: list[File], large: list[File]) -> int:
    """What the Hub may send for the small files: as much as it announced, three times over."""
    return MOST_ANSWER + 3 * sum(file.bytes or 0 for file in files if file not in large)


class _BoundedBar(tqdm):
    """huggingface_hub's bar of bytes. It ends a download that brings far more than announced."""

    def __init__(self, *arguments, most: int, **options):
        if os.environ.get("PALMKIT_PROGRESS") == "0":
            options["disable"] = True
        super().__init__(*arguments, **options)
        self.left = most if options.get("unit") == "B" else None

    def update(self, n=1):
        if self.left is not None:
            self.left -= max(n or 0, 0)
            if self.left < 0:
                raise OSError("the server sends far more bytes than it announced")
        return super().update(n)


class Incomplete(requests.RequestException):
    """An answer that is not what was asked for: another length, another range, or too slow."""


# What a try may raise and another try may mend.
BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError)


def _resume(url: str, output: str, _pooch, part: Path, size: int | None, token: str | None) -> None:
    """A downloader for pooch that resumes an interrupted one, perhaps of another process.

    Progress is what brings the file further than all tries before: a server that breaks off at the
    same place each time, sends nothing, or starts anew each time is given up after TRIES.
    """
    if size is not None and _size_of(part) > size:
        part.unlink()
    furthest, tries = _size_of(part), 0
    while size is None or _size_of(part) < size or not part.is_file():
        try:
            _append(url, part, size, token)
            break
        except BROKEN as error:
            reached = _size_of(part)
            tries = 1 if reached >= furthest + BLOCK else tries + 1
            furthest = max(furthest, reached)
            _wait_or_raise(error, part, tries)
    os.replace(part, output)


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _wait_or_raise(error: Exception, part: Path, tries: int) -> None:
    """Wait before another try, or raise the error if another try is of no use."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 500)
    if status == 416:  # there is nothing after the last byte: it was not the same file
        part.unlink(missing_ok=True)
    elif 300 <= status < 500 and status not in (408, 429):
        raise error
    if tries >= TRIES:
        raise error
    asked = _retry_after(response)
    if asked > LONGEST_WAIT:
        raise Incomplete(
            f"the server (status {status}) asks to come back in {asked:,} s"
        ) from error
    time.sleep(asked if asked >= 0 else WAIT * 2 ** (tries - 1))


def _retry_after(response) -> int:
    """The seconds that a server asks to wait; -1 if it does not say."""
    asked = getattr(response, "headers", {}).get("Retry-After", "").strip()
    return int(asked) if re.fullmatch(r"[0-9]{1,12}", asked) else -1


def _append(url: str, part: Path, size: int | None, token: str | None) -> None:
    """Append to a partial file what follows its bytes, up to `size`.

    Raises Incomplete if the server has another file or sends less.
    """
    start = _size_of(part)
    headers = {"Accept-Encoding": "identity"}  # positions count bytes of the file
    if start:
        headers["Range"] = f"bytes={start}-"
    if token:
        headers["Authorization"] = f"Bearer {token}"  # requests sends it to no other host
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        answer.raise_for_status()
        if answer.status_code == 206:
            _check_range(answer, part, start, size)
        else:  # the server sends the file from its beginning
            start = 0
        announced = _announced_length(answer)
        if size is not None and announced is not None and start + announced != size:
            raise Incomplete(f"the server sends {start + announced:,} bytes, not {size:,}")
        most = MOST_UNKNOWN if size is None else size
        bar = progress_bar(size or announced or 0, part.stem[:12], "B", initial=start,
                           unit_scale=True)  # fmt: skip
        with open(part, "ab" if start else "wb") as file, bar:
            for block in _blocks(answer):
                file.write(block[: most - start])
                start += len(block)
                bar.update(len(block))
                if start >= most:
                    break
    if size is None and start > most:
        part.unlink()
        raise ValueError(f"{url} sends more than {most:,} bytes, and does not say how many")
    if size is not None and start < size:
        raise Incomplete(f"the server sent {start:,} of {size:,} bytes")


def _check_range(answer: requests.Response, part: Path, start: int, size: int | None) -> None:
    """Raise Incomplete if an answer is another range than that from `start` on."""
    text = answer.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", text.strip())
    if found is None or int(found[1]) != start or found[2] not in ("*", str(size or found[2])):
        part.unlink(missing_ok=True)  # the next try asks for the whole file
        raise Incomplete(f"the server sends another range ({text!r:.60}) than from byte {start:,}")


def _announced_length(answer: requests.Response) -> int | None:
    text = answer.headers.get("Content-Length", "").strip()
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        return None  # the length of something else
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _blocks(answer: requests.Response):
    """The body as it comes, in blocks of at most BLOCK bytes. Raises Incomplete if it trickles."""
    since, came = time.monotonic(), 0
    while block := answer.raw.read1(BLOCK, decode_content=True):
        yield block
        came += len(block)
        seconds = time.monotonic() - since
        if seconds >= TIMEOUT[1]:
            if came < SLOWEST * seconds:
                raise Incomplete(f"the server sends {came / seconds:.0f} bytes a second")
            since, came = time.monotonic(), 0
