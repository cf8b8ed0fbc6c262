"""Where things are published, what is there, and how it gets here: Hugging Face's Hub, Zenodo, an archive of GitHub.

HF_ENDPOINT names another Hub (a mirror), PALMKIT_ZENODO and PALMKIT_GITHUB other addresses of those.
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

import huggingface_hub
import pooch
import requests
from tqdm.auto import tqdm

from palmkit.datasets.archives import OUTSIDE
from palmkit.storage import progress_bar

LARGE = 50_000_000  # bytes; huggingface_hub begins a file anew that was cut off, so larger ones go by `_resume`
TRIES, WAIT = 5, 1.0  # without a new byte; seconds before the second one, doubled each time
TIMEOUT = (10, 60)  # seconds to connect, and without a byte
BLOCK = 1 << 16  # bytes; as much at most is lost where a connection breaks
MIRRORS = {"https://zenodo.org": "PALMKIT_ZENODO", "https://github.com": "PALMKIT_GITHUB"}


@dataclass(frozen=True)
class File:
    """A file as its source tells it. checksum: "md5:", "sha256:" or "git:" (git's sha1 of a blob); "" is none."""

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
        if kind == "git":  # the Hub keeps small text files so
            content = path.read_bytes()
            return value == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return not kind or value == (
            sha256 if kind == "sha256" else pooch.file_hash(str(path), alg=kind)
        )


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
    """The revision that a fetch of a manifest's row takes: the one it names, else what the Hub has now (a commit)."""
    source = row["source"]
    if not source.startswith("hf:"):
        return (
            row["revision"] or source.split("/records/")[1].split("/")[0]
        )  # Zenodo's records never change
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
        url = f"{_mirrored(source)}/archive/{revision}.zip"
        files = [
            File(
                f"{row['name']}.zip",
                int(row["bytes"]) if row["bytes"] else None,
                row["checksum"],
                url,
            )
        ]
    if outside := [file.path for file in files if OUTSIDE.search(file.path)]:
        raise ValueError(f"{source} names files that would leave the folder: {', '.join(outside)}")
    return Upstream(source, revision, files)


def _endpoint() -> str | None:
    return (
        os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    )  # as it is now, not as huggingface_hub was imported


def _mirrored(url: str) -> str:
    for host, variable in MIRRORS.items():
        url = url.replace(host, os.environ.get(variable, "").rstrip("/") or host)
    return url


def _list_hub(repo: str, revision: str) -> list[File]:
    api, files = huggingface_hub.HfApi(endpoint=_endpoint()), []
    for entry in api.list_repo_tree(repo, recursive=True, revision=revision, repo_type="dataset"):
        if isinstance(entry, huggingface_hub.RepoFile) and not re.search(r"(^|/)\.", entry.path):
            checksum = f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}"
            where = dict(repo_type="dataset", revision=revision, endpoint=_endpoint())
            files.append(
                File(
                    entry.path,
                    entry.size,
                    checksum,
                    huggingface_hub.hf_hub_url(repo, entry.path, **where),
                )
            )
    return files


def _ask_zenodo(source: str) -> File:
    """A record's file: Zenodo's API tells size and md5."""
    host, path = _mirrored(source).split("/records/")
    record, _, name = path.split("/")
    answer = requests.get(f"{host}/api/records/{record}", timeout=TIMEOUT)
    answer.raise_for_status()
    (told,) = [file for file in answer.json()["files"] if file["key"] == name]
    return File(name, told["size"], told["checksum"], told["links"]["self"])


def download(upstream: Upstream, folder: Path) -> None:
    """Bring all files of a source into a folder. What is there is kept, what was cut off goes on.

    Raises ValueError (a checksum) or what the clients raise; OSError where not all has come.
    """
    on_hub, scratch = upstream.source.startswith("hf:"), folder.with_name("large")
    large = [file for file in upstream.files if not on_hub or file.bytes >= LARGE]
    for file in large:
        if not file.is_in(folder):
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            part = scratch / f"{file.checksum.partition(':')[2] or 'archive'}.part"
            token = huggingface_hub.get_token() if on_hub else None
            resume = functools.partial(_resume, part=part, size=file.bytes, token=token)
            known = file.checksum if not file.checksum.startswith("git:") else None
            whole = pooch.retrieve(
                file.url, known or None, part.with_suffix(".whole").name, scratch, downloader=resume
            )
            os.replace(whole, folder / file.path)
    if on_hub and len(large) < len(upstream.files):
        huggingface_hub.snapshot_download(
            upstream.source.removeprefix("hf:"), repo_type="dataset", revision=upstream.revision, local_dir=folder,
            endpoint=_endpoint(), ignore_patterns=[".*", *(glob.escape(file.path) for file in large)],
            tqdm_class=_Quiet if os.environ.get("PALMKIT_PROGRESS") == "0" else None,
        )  # fmt: skip
    if missing := [
        file.path for file in upstream.files if not file.is_in(folder)
    ]:  # snapshot_download may forgive it
        raise OSError(
            f"{len(missing)} of {len(upstream.files)} files have not come, {missing[0]} for one"
        )


class _Quiet(tqdm):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options | {"disable": True})


def _resume(url: str, output: str, _pooch, part: Path, size: int | None, token: str | None) -> None:
    """A downloader for pooch that goes on where an earlier one, perhaps of another process, was cut off."""
    tries = 0
    while size is None or not part.is_file() or part.stat().st_size != size:
        done = part.stat().st_size if part.is_file() else 0
        if size is not None and done > size:
            part.unlink()
            continue
        try:
            _append(url, part, done, token)
            if size is None:
                break
        except requests.RequestException as error:
            tries = 1 if part.is_file() and part.stat().st_size > done else tries + 1
            status = getattr(error.response, "status_code", 500)
            if status == 416:  # there is nothing after the last byte: it was not the same file
                part.unlink(missing_ok=True)
            elif tries >= TRIES or (status < 500 and status not in (408, 429)):
                raise
            asked = getattr(error.response, "headers", {}).get("Retry-After", "")
            time.sleep(min(int(asked), 300) if asked.isdigit() else WAIT * 2 ** (tries - 1))
    os.replace(part, output)


def _append(url: str, part: Path, done: int, token: str | None) -> None:
    headers = {"Range": f"bytes={done}-"} if done else {}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}  # not to another host
    headers["Accept-Encoding"] = "identity"  # positions count bytes of the file
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        answer.raise_for_status()
        if answer.status_code != 206:  # from the start, whatever was asked for
            done = 0
        total = done + int(answer.headers.get("Content-Length", 0))
        with (
            open(part, "ab" if done else "wb") as file,
            progress_bar(total, part.stem[:12], "B", initial=done, unit_scale=True) as bar,
        ):
            for block in answer.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))
