"""Other places where trials run than processes of this machine: a Dask or a Ray cluster.

The user starts the cluster: Dask's scheduler and workers, or Ray's nodes. Ray without an address is
started by palmkit. All need the same versions of palmkit, PyTorch and NumPy. Results are sent home:
only the command writes rows. A worker reads and fills its own cache, the one that its PALMKIT_CACHE
names. Workers with a common file system share a cache if that names one folder.

The cluster starts processes, carries messages and tells which workers are there. This module adds
what a cluster does not guarantee. A worker that cannot give the same rows gets no calls. A call
whose worker is lost is tried once more. No wait is unlimited.
docs/engines.md says why joblib's own backends for Dask and Ray are not used.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import secrets
import time
from collections import deque
from collections.abc import Iterator

from palmkit.experiments.clusters import Cluster, Lost, Unfit
from palmkit.experiments.config import check_engine
from palmkit.experiments.executor import Failure, use_engine
from palmkit.experiments.references import WorkerDiffers, own_versions
from palmkit.experiments.sources import Sources
from palmkit.extras import extra
from palmkit.storage import cache_root

log = logging.getLogger(__name__)

LOOK_S = 1.0  # seconds between two looks at who is there
ANSWER_S = 300.0  # seconds that a worker has for its first answer: it loads PyTorch
NO_WORKER_S = 300.0  # seconds without any worker after which a run stops


class NoWorkers(RuntimeError):
    """The cluster has no worker that can be used, and none came within NO_WORKER_S."""


class ClusterEngine:
    """Calls on a cluster, one at a time on each worker."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.there: set[str] = set()  # workers of the last look
        self.usable: dict[str, bool] = {}  # whether its cache is the command's
        self.refused: dict[str, str] = {}  # why, by the worker's name
        self.asked: dict[str, object] = {}
        self.shares_cache = self.reached = False
        self.mark = ("", "")
        self.looked, self.seen = float("-inf"), time.monotonic()
        self.warned = False  # that there is no worker

    @property
    def jobs(self) -> int:
        """Calls at a time."""
        return max(len(self.usable), 1)

    def connect(self) -> None:
        """Ask all workers that are there. Raises WorkerDiffers, which names one that cannot be
        used, and NoWorkers.
        """
        end = time.monotonic() + ANSWER_S
        with shared_mark() as self.mark:
            while True:
                self._look()
                if self.refused:
                    worker, reason = next(iter(self.refused.items()))
                    raise self._differs(worker, reason)
                if not self.there:
                    raise NoWorkers(f"{self.cluster.what} has no worker: {self.cluster.start_hint}")
                if self.usable and not self.asked:
                    break
                if time.monotonic() > end:
                    break
                time.sleep(0.05)
        self.shares_cache = all(self.usable.values())
        silent = ", ".join(map(self.cluster.name, self.asked))
        if not self.usable:
            raise NoWorkers(
                f"no worker of {self.cluster.what} answers within {ANSWER_S:g} s ({silent}): "
                f"{self.cluster.start_hint}"
            )
        if silent:
            log.warning("Workers that do not answer get no trials until they do: %s", silent)

    def _look(self) -> None:
        """See who is there, and ask those who are new."""
        self.looked = time.monotonic()
        there = self.cluster.present()
        self.reached = there is not None
        if there is None:  # who is there is not known
            return
        self.there = there
        for worker in there - {*self.usable, *self.refused, *self.asked}:
            self.asked[worker] = self.cluster.ask(worker, (own_versions(), *self.mark))
        self.asked = {worker: one for worker, one in self.asked.items() if worker in there}
        self.usable = {worker: one for worker, one in self.usable.items() if worker in there}
        for worker, asked in [*self.asked.items()]:
            if (answer := self.cluster.answer_to(asked)) is not None:
                del self.asked[worker]
                if answer.problem:
                    self.refused[worker] = answer.problem
                else:
                    self.usable[worker] = answer.shares_cache

    def _look_again(self) -> None:
        """Now and then while calls run. Raises NoWorkers."""
        if time.monotonic() < self.looked + LOOK_S:
            return
        before = {*self.refused}
        self._look()
        for worker in {*self.refused} - before:
            self._tell_refused(worker)
        if self.usable and self.reached:
            self.seen, self.warned = time.monotonic(), False
            return
        if not self.warned:
            self.warned = True
            log.warning(
                "%s has no worker that can be used. The run waits %g s for one: %s",
                self.cluster.what,
                NO_WORKER_S,
                self.cluster.start_hint,
            )
        if time.monotonic() > self.seen + NO_WORKER_S:
            raise NoWorkers(
                f"{self.cluster.what} has had no worker that can be used for {NO_WORKER_S:g} s. "
                f"Finished trials are kept: {self.cluster.start_hint}, and the same command goes "
                "on from there"
            )

    def _tell_refused(self, worker: str) -> None:
        name = self.cluster.name(worker)
        log.warning("The worker %s gets no trials: %s", name, self.refused[worker])

    def _refuse(self, worker: str, reason: str) -> None:
        """A worker that gave a call back. Raises WorkerDiffers if no other is left."""
        self.usable.pop(worker, None)
        self.refused[worker] = reason
        self._tell_refused(worker)
        if not self.usable and not self.asked:
            raise self._differs(worker, reason)

    def _differs(self, worker: str, reason: str) -> WorkerDiffers:
        return WorkerDiffers(f"the worker {self.cluster.name(worker)} cannot be used: {reason}")

    def run(self, function, calls: list[tuple], order: list[int], names: list[str], on_start):
        """As `in_parallel`: yield (n, function(*calls[n])), or (n, Failure).

        A call whose worker is lost is tried once more when all others are done, so alone.
        """
        lost = []
        for n, done in self._send(function, calls, order, on_start):
            if isinstance(done, Lost):
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
            yield n, done.failure if isinstance(done, Lost) else done

    def _send(self, function, calls: list[tuple], order: list[int], on_start) -> Iterator[tuple]:
        """Yield (n, result, Failure or Lost), as calls finish."""
        waiting, running = deque(order), {}  # handle: (n, its worker)
        sources = Sources.read()
        self.seen = time.monotonic()
        try:
            while waiting or running:
                self._look_again()
                busy = {worker for _, worker in running.values()}
                free = [worker for worker in self.usable if worker not in busy]
                for worker in free[: len(waiting)]:
                    n = waiting.popleft()
                    on_start(n)
                    try:
                        sent = pickle.dumps((function, calls[n]))
                    except Exception as error:  # whatever an object from outside raises
                        yield n, Failure.of(error)
                        continue
                    handle = self.cluster.submit(worker, (sources, own_versions(), sent))
                    running[handle] = n, worker
                yield from self._collect(waiting, running)
        finally:
            self.cluster.drop([*running])

    def _collect(self, waiting: deque, running: dict) -> Iterator[tuple]:
        """Yield what is done, and what is lost because its worker is gone."""
        if not running:
            time.sleep(LOOK_S / 10)
            return
        for handle, done in self.cluster.poll([*running], LOOK_S):
            n, worker = running.pop(handle)
            if isinstance(done, Unfit):
                waiting.appendleft(n)
                self._refuse(worker, done.reason)
                continue
            if isinstance(done, Lost):  # it is asked again, if it is still there
                self.usable.pop(worker, None)
                self.looked = float("-inf")
            yield n, done
        for handle, (n, worker) in [*running.items()]:
            if worker not in self.there:
                self.cluster.drop([handle])
                del running[handle]
                yield n, Lost()


@contextlib.contextmanager
def shared_mark() -> Iterator[tuple[str, str]]:
    """(name, content) of a file in the command's cache folder, while workers look for it."""
    mark = f"palmkit-{secrets.token_hex(8)}", secrets.token_hex(16)
    path = cache_root() / mark[0]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(mark[1])
    except OSError as error:  # a read-only cache is no reason to stop
        log.debug("no mark in the cache: %s", error)
    try:
        yield mark
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


# By name.


@contextlib.contextmanager
def engine(backend: str, address: str = "", device: str = "cpu") -> Iterator[None]:
    """Trials run on this backend in the block. address: of Dask's scheduler, tcp://HOST:PORT, or of
    a Ray cluster, HOST:PORT; without one, Ray is started on this machine. device: the model's type
    of device; of "cuda", a Ray worker gets one GPU.

    Raises ValueError without a usable address, OSError if no cluster answers, NoWorkers, and
    WorkerDiffers for a worker that cannot give the same rows, ModuleNotFoundError without the
    extra `dask` or `ray`.
    """
    check_engine(backend, address)
    if backend == "processes":
        yield
        return
    with extra(backend):
        if backend == "dask":
            from palmkit.experiments.dask_cluster import connect
        else:
            from palmkit.experiments.ray_cluster import connect
    with connect(address, device) as cluster:
        found = ClusterEngine(cluster)
        found.connect()
        log.info(
            "%s: %d workers, %s",
            cluster.what,
            found.jobs,
            "which share the cache here" if found.shares_cache else "with caches of their own",
        )
        with use_engine(found):
            yield
