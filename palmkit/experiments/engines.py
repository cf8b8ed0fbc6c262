"""Other places where trials run than processes of this machine: a Dask cluster, through joblib.

The workers are started by the user, with the same versions of palmkit and PyTorch, and one thread
each. Results are sent home: only the command writes rows. A worker reads and fills its own cache,
the one that its PALMKIT_CACHE names. Workers with a common file system share a cache if that names
one folder; without one, each embeds what its own cache lacks.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
import re
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import joblib

from palmkit.experiments.executor import KILLED, Failure, attempt, threads, use_engine
from palmkit.experiments.references import WorkerDiffers, check_versions, own_versions
from palmkit.extras import extra
from palmkit.plugins import listed_files, load_plugins
from palmkit.storage import atomic_write, cache_root

log = logging.getLogger(__name__)

BACKENDS = ("processes", "dask")
ADDRESS = re.compile(r"(tcp|tls|ucx|ws|wss)://\S+:\d+")
CONNECT_S = 20  # seconds to wait for the scheduler


class Lost:
    """The result of a call that was sent again, because its worker was lost while it ran."""


@contextlib.contextmanager
def engine(backend: str, address: str = "") -> Iterator[None]:
    """Trials run on this backend in the block. address: of Dask's scheduler, tcp://HOST:PORT.

    Raises ValueError without a usable address, OSError if no scheduler answers, WorkerDiffers for
    a worker that cannot give the same rows, ModuleNotFoundError without the extra `dask`.
    """
    check_engine(backend, address)
    if backend == "processes":
        yield
        return
    with extra("dask"):
        import distributed
    try:
        client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise OSError(f"no Dask scheduler answers at {address}: start one, or mend it") from error
    with client, use_engine(DaskEngine(client, _check_workers(client, address))):
        yield


def check_engine(backend: str, address: str) -> None:
    """Raise ValueError for a backend without its address, or an address without its backend."""
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}: use {' or '.join(BACKENDS)}")
    if backend == "processes" and address:
        raise ValueError(f"--address {address} is of a Dask scheduler: add --backend dask")
    if backend == "dask" and not ADDRESS.fullmatch(address):
        raise ValueError("--backend dask needs --address tcp://HOST:PORT, that of the scheduler")


def _check_workers(client, address: str) -> int:
    """The number of workers. Raises WorkerDiffers, which names a worker that cannot be used."""
    found = client.run(_probe, own_versions(), on_error="return")
    if not found:
        raise WorkerDiffers(f"the Dask cluster at {address} has no worker: start some")
    threads_of = client.nthreads()
    for worker, problem in found.items():
        if isinstance(problem, Exception):
            # Without palmkit, a worker cannot even read the question.
            problem = f"it cannot load palmkit ({type(problem).__name__}: {problem})"
        if threads_of.get(worker, 1) != 1:
            problem = "it runs several trials in one process: start it with --nthreads 1"
        if problem:
            raise WorkerDiffers(f"the Dask worker {worker} cannot be used: {problem}")
    return len(found)


def _probe(versions: tuple) -> str:
    """In a worker: why it cannot be used, or ""."""
    try:
        check_versions(versions)
    except WorkerDiffers as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class DaskEngine:
    """A connected cluster. jobs: trials at a time, one for each worker."""

    client: object
    jobs: int

    def run(self, function, calls: list[tuple], order: list[int], names: list[str], on_start):
        """As `in_parallel`: yield (n, function(*calls[n])), or (n, Failure).

        A call whose worker is lost is tried once more when all others are done, so alone.
        """
        lost = []
        for n, done in self._send(function, calls, order, on_start):
            if done is Lost:
                lost.append(n)
            else:
                yield n, done
        if lost:
            log.warning(
                "A worker was lost, perhaps for want of memory, while these ran: %s. "
                "They are tried again, one at a time",
                "; ".join(names[n] for n in lost),
            )
        for n in lost:
            ((_, done),) = self._send(function, calls, [n], on_start)
            yield n, KILLED if done is Lost else done

    def _send(self, function, calls: list[tuple], order: list[int], on_start):
        plugins = Sources.read()
        run = uuid.uuid4().hex

        def tasks():
            for n in order:
                on_start(n)
                try:
                    sent = pickle.dumps((function, calls[n]))
                except Exception as error:  # whatever an object from outside raises
                    sent = pickle.dumps((_give, (Failure.of(error),)))
                yield joblib.delayed(_call)(plugins, f"palmkit-{run}-{n}", n, sent)

        with joblib.parallel_config(backend="dask", client=self.client):
            parallel = joblib.Parallel(
                self.jobs,
                return_as="generator_unordered",
                pre_dispatch=self.jobs,
                batch_size=1,
            )
        return parallel(tasks())


def _give(value):
    return value


def _call(plugins: Sources, name: str, n: int, sent: bytes):
    """The call in a worker. Nothing is raised but a full disk: a task that fails otherwise is lost
    by joblib's Dask backend (1.5), which then waits for ever.

    name: of this task. Dask starts a task again whose worker died. The event tells that it was
    started before; a third start would be a danger to all workers.
    """
    from distributed import Event

    event = Event(name)
    if event.is_set():
        event.clear()
        return n, Lost
    event.set()
    try:
        with threads(1):
            return n, attempt(_unpickle_and_call, plugins, sent)
    finally:
        event.clear()


def _unpickle_and_call(plugins: Sources, sent: bytes):
    plugins.load()
    function, arguments = pickle.loads(sent)
    return function(*arguments)


@dataclass(frozen=True)
class Sources:
    """The files of --import, {path: content}: a worker may have none of them."""

    files: dict[str, bytes]

    @classmethod
    def read(cls) -> Sources:
        return cls({str(path): path.read_bytes() for path in listed_files()})

    def load(self) -> None:
        """Import the files, from a copy in the cache where they are not as the command has them.

        Raises WorkerDiffers if this worker has imported an older content: its classes are in use.
        """
        paths = []
        for path, content in self.files.items():
            digest = hashlib.sha256(content).hexdigest()
            if (known := _imported.setdefault(Path(path).stem, digest)) != digest:
                raise WorkerDiffers(
                    f"{path} was changed after a worker imported it ({known[:12]}, now "
                    f"{digest[:12]}): restart the Dask workers"
                )
            paths.append(_place(Path(path), content, digest))
        load_plugins(paths)


_imported: dict[str, str] = {}  # the names of files that this process imported, their sha256


def _place(path: Path, content: bytes, digest: str) -> Path:
    """Where a worker has this file."""
    loaded = sys.modules.get(f"palmkit.plugins.{path.stem}")
    if loaded is not None:
        return Path(str(loaded.__file__))
    if os.access(path, os.R_OK) and path.read_bytes() == content:
        return path
    copy = cache_root() / "imported" / digest[:32] / path.name
    if not copy.is_file():
        atomic_write(copy, content)
    return copy
