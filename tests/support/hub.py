"""A stand-in for Hugging Face's Hub, Zenodo and GitHub on the loopback interface.

    # Each folder is the repository MahiA/<name>; pengi/base.pth is Zenodo's.
    with hub.serve(folder) as server:
        command = [sys.executable, "-m", "palmkit", "fetch", "ESC50"]
        subprocess.run(command, env=os.environ | server.environment)

It answers what a fetch asks for, by plain HTTP with ranges and without Xet.
`server.commit(repo, folder)` publishes another revision. `server.fault("resolve/.*wav", status=429,
times=2)` makes it fail. `server.requests` are the requests so far.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

TEXT = (".csv", ".md", ".json", ".txt", "")  # kept in git itself; all else is LFS, and has a sha256
PAGE = 1000  # entries of a listing


@dataclass
class Entry:
    path: str
    file: Path

    @cached_property
    def size(self) -> int:
        return self.file.stat().st_size

    @cached_property
    def sha256(self) -> str:
        with open(self.file, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def md5(self) -> str:
        with open(self.file, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()

    @property
    def in_git(self) -> bool:
        return self.file.suffix in TEXT

    @cached_property
    def blob(self) -> str:
        """Git's name of a small file's content, and of the pointer that stands for a large one."""
        content = (
            self.file.read_bytes()
            if self.in_git
            else f"oid sha256:{self.sha256}\nsize {self.size}\n".encode()
        )
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def listed(self) -> dict:
        lfs = (
            {}
            if self.in_git
            else {"lfs": {"oid": self.sha256, "size": self.size, "pointerSize": 130}}
        )
        return {"type": "file", "path": self.path, "size": self.size, "oid": self.blob, **lfs}


@dataclass
class Fault:
    """What goes wrong with requests whose path matches `pattern`.

    times: so often; None is always. skip: after so many good ones.
    """

    pattern: str
    times: int | None = None
    skip: int = 0
    status: int | None = None  # answer this
    headers: tuple = ()
    cut: int | None = None  # close the connection after so many bytes of the body
    delay: float = 0  # seconds before each block
    drop: bool = False  # close the connection without an answer
    corrupt: bool = False  # the first byte of what is sent is another one
    answer: Callable | None = None  # called with the handler and the file's bytes instead


class Hub:
    """Repositories and a Zenodo record.

    `url` is HF_ENDPOINT, PALMKIT_ZENODO and PALMKIT_GITHUB (`environment`).
    """

    def __init__(self):
        self.repos: dict[
            str, dict[str, dict[str, Entry]]
        ] = {}  # of each repo its revisions, the newest one last
        self.zenodo: dict[str, Entry] = {}
        self.archives: dict[str, Entry] = {}  # of GitHub, by the path of their URL
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.tokens: set[tuple[str, str | None]] = set()  # path, Authorization
        self.lock = threading.Lock()
        self.server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self})
        )
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        names = ("HF_ENDPOINT", "PALMKIT_ZENODO", "PALMKIT_GITHUB")
        # What a proxy or the user's own settings would do to a server of this machine.
        self.environment = dict.fromkeys(names, self.url) | {
            "NO_PROXY": "127.0.0.1",
            "HF_HUB_OFFLINE": "0",
        }

    def commit(self, repo: str, folder) -> str:
        """Publish a folder as the newest revision of a repository; its commit.

        The commit depends on names and contents.
        """
        files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        entries = {
            entry.path: entry
            for entry in (Entry(f.relative_to(folder).as_posix(), f) for f in files)
        }
        listing = "".join(f"{entry.path} {entry.blob}\n" for entry in entries.values())
        revision = hashlib.sha1(f"{repo}\n{listing}".encode()).hexdigest()
        self.repos.setdefault(repo, {}).pop(revision, None)
        self.repos[repo][revision] = entries
        return revision

    def fault(self, pattern: str, times: int | None = None, **what) -> Fault:
        self.faults.append(Fault(pattern, times, **what))
        return self.faults[-1]

    def fault_of(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                here = method == "GET" or fault.status or fault.drop  # the others need a body
                if here and re.search(fault.pattern, path) and fault.times != 0:
                    if fault.skip:
                        fault.skip -= 1
                        return None
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None

    def asked(self, pattern: str, method: str = "GET") -> list[tuple[str, str, str | None]]:
        return [
            asked for asked in self.requests if asked[0] == method and re.search(pattern, asked[1])
        ]


class Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # 40 ms an answer

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def log_message(self, *_):
        pass

    def answer(self):
        address = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(address.path)
        with self.hub.lock:
            self.hub.requests.append((self.command, path, self.headers.get("Range")))
            self.hub.tokens.add((path, self.headers.get("Authorization")))
        fault = self.hub.fault_of(self.command, path) or Fault("")
        if fault.drop:
            self.close_connection = True
            return None
        if fault.status:
            return self.send(
                fault.status, b"the stand-in is set to fail", dict(fault.headers), fault
            )
        query = dict(urllib.parse.parse_qsl(address.query))
        if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self.send_info(found[1], found[2])
        if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)/?", path):
            return self.send_tree(found[1], found[2], int(query.get("cursor", 0)))
        if found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.send_resolved(found[1], found[2], found[3], fault)
        if re.fullmatch(r"/api/records/8387083", path) and self.hub.zenodo:
            url = f"{self.hub.url}/api/records/8387083/files/"
            files = [
                {
                    "key": key,
                    "size": e.size,
                    "checksum": f"md5:{e.md5}",
                    "links": {"self": f"{url}{key}/content"},
                }
                for key, e in self.hub.zenodo.items()
            ]
            return self.send(200, json.dumps({"id": 8387083, "files": files}).encode())
        if found := re.fullmatch(r"/api/records/8387083/files/(.+)/content", path):
            return self.send_file(self.hub.zenodo.get(found[1]), {}, fault)
        return self.send_file(self.hub.archives.get(path), {}, fault)

    def revision(self, repo: str, revision: str | None):
        """(commit, its entries), or None after the Hub's answer for what is not there."""
        if repo not in self.hub.repos:
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        commits = self.hub.repos[repo]
        commit = [*commits][-1] if revision in (None, "main") else revision
        if commit not in commits:
            return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        return commit, commits[commit]

    def send_info(self, repo, revision):
        if found := self.revision(repo, revision):
            siblings = [{"rfilename": path} for path in found[1]]
            self.send(200, json.dumps({"id": repo, "sha": found[0], "siblings": siblings}).encode())

    def send_tree(self, repo, revision, start):
        if found := self.revision(repo, revision):
            entries = [entry.listed() for entry in [*found[1].values()][start : start + PAGE]]
            more = {}
            if start + PAGE < len(found[1]):
                url = f"{self.hub.url}/api/datasets/{repo}/tree/{revision}"
                more["Link"] = f'<{url}?recursive=true&cursor={start + PAGE}>; rel="next"'
            self.send(200, json.dumps(entries).encode(), more)

    def send_resolved(self, repo, revision, path, fault):
        if found := self.revision(repo, revision):
            headers = {"X-Repo-Commit": found[0]}
            if (entry := found[1].get(path)) is None:
                return self.send(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
            headers["ETag"] = f'"{entry.blob if entry.in_git else entry.sha256}"'
            if not entry.in_git:
                headers |= {"X-Linked-Size": str(entry.size), "X-Linked-Etag": headers["ETag"]}
            self.send_file(entry, headers, fault)

    def send_file(self, entry: Entry | None, headers: dict, fault: Fault):
        if entry is None:
            return self.send(404, b"not here")
        if fault.answer and self.command == "GET":
            return fault.answer(self, entry.file.read_bytes())
        start, headers = 0, {"Accept-Ranges": "bytes"} | headers
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(found[1])
            if start >= entry.size:
                return self.send(416, b"", {"Content-Range": f"bytes */{entry.size}"})
            headers["Content-Range"] = f"bytes {start}-{entry.size - 1}/{entry.size}"
        self.send_response(206 if start else 200)
        for name, value in {**headers, "Content-Length": entry.size - start}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        with open(entry.file, "rb") as file, contextlib.suppress(ConnectionError):
            file.seek(start)
            self.send_blocks(iter(lambda: file.read(1 << 16), b""), fault)

    def send_blocks(self, blocks: Iterator[bytes], fault: Fault):
        left = fault.cut
        for n, block in enumerate(blocks):
            time.sleep(fault.delay)
            if fault.corrupt and n == 0:
                block = bytes([block[0] ^ 1]) + block[1:]
            self.wfile.write(block if left is None else block[:left])
            if left is not None and (left := left - len(block)) <= 0:
                self.close_connection = True
                return

    def send(
        self, status: int, body: bytes, headers: dict | None = None, fault: Fault | None = None
    ) -> None:
        time.sleep(fault.delay if fault else 0)
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": len(body),
            **(headers or {}),
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextlib.contextmanager
def serve(folder=None, owner: str = "MahiA") -> Iterator[Hub]:
    """Serve every folder below `folder` as the dataset repository owner/<its name>.

    pengi/base.pth is served as Zenodo does.
    """
    hub = Hub()
    for path in sorted(Path(folder).iterdir()) if folder else ():
        if path.name == "pengi":
            hub.zenodo = {file.name: Entry(file.name, file) for file in path.iterdir()}
        elif path.is_dir() and not path.name.startswith("."):
            hub.commit(f"{owner}/{path.name}", path)
    threading.Thread(
        target=hub.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
