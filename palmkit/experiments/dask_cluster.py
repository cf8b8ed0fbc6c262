"""The workers of a Dask cluster, by the public interface of `distributed.Client`."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import distributed

from palmkit.experiments.clusters import Answer, Cluster, Lost, answer, lost_by, run_task

CONNECT_S = 20  # seconds to wait for the scheduler
RESULT_S = 300  # seconds to fetch a result that a worker has
# What a client raises whose scheduler, or whose worker, is not to be reached.
UNREACHABLE = (OSError, TimeoutError, RuntimeError, CancelledError)


@contextlib.contextmanager
def connect(address: str, device: str) -> Iterator[DaskCluster]:
    """The cluster of the scheduler at tcp://HOST:PORT. A worker's GPU is that of its own
    CUDA_VISIBLE_DEVICES. Raises OSError if no scheduler answers.
    """
    try:
        client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise OSError(f"no Dask scheduler answers at {address}: start one, or mend it") from error
    try:
        yield DaskCluster(client, address)
    finally:
        with contextlib.suppress(*UNREACHABLE):
            client.close(timeout=CONNECT_S)


class Asked(threading.Thread):
    """A question to one worker. In a thread: a worker that hangs must not stop the command."""

    def __init__(self, client, address: str, question: tuple):
        super().__init__(name=f"ask {address}", daemon=True)
        self.client, self.address, self.question = client, address, question
        self.answer: Answer | None = None
        self.start()

    def run(self) -> None:
        with contextlib.suppress(*UNREACHABLE):  # then it is gone, or stays silent
            found = self.client.run(
                answer, *self.question, workers=[self.address], on_error="return"
            )
            self.answer = _as_answer(found[self.address])


def _as_answer(found) -> Answer | None:
    if isinstance(found, OSError):  # it is gone
        return None
    if isinstance(found, Exception):  # without palmkit, it cannot even read the question
        return Answer(f"it cannot load palmkit ({type(found).__name__}: {found})")
    return found


class DaskCluster(Cluster):
    """A worker is its address and the folder that it made when it started.

    Each call is given to one worker, so Dask never starts a call again elsewhere whose worker died.
    """

    start_hint = "start workers (dask worker ADDRESS --nthreads 1)"

    def __init__(self, client, address: str):
        self.client, self.what = client, f"the Dask cluster at {address}"
        self.threads: dict[str, int] = {}

    def name(self, worker: str) -> str:
        return worker.split()[0]

    def present(self) -> set[str] | None:
        try:
            # `scheduler_info` may give an older answer, of a look that names no workers.
            found = self.client.sync(self.client.scheduler.identity, n_workers=-1)
        except UNREACHABLE:
            return None
        self.threads = {
            f"{address} {about['local_directory']}": about["nthreads"]
            for address, about in found["workers"].items()
        }
        return {*self.threads}

    def ask(self, worker: str, question: tuple) -> Asked | Answer:
        if self.threads[worker] != 1:
            return Answer("it runs several trials in one process: start it with --nthreads 1")
        return Asked(self.client, self.name(worker), question)

    def answer_to(self, asked) -> Answer | None:
        return asked if isinstance(asked, Answer) else asked.answer

    def submit(self, worker: str, task: tuple):
        return self.client.submit(
            run_task,
            *task,
            key=f"palmkit-{secrets.token_hex(16)}",
            workers=[self.name(worker)],
            allow_other_workers=False,
            pure=False,
        )

    def poll(self, handles: list, seconds: float) -> list[tuple]:
        # `wait` looks for the client that is the current one.
        with contextlib.suppress(*UNREACHABLE), self.client.as_current():
            distributed.wait(handles, timeout=seconds, return_when="FIRST_COMPLETED")
        return [(one, _result(one)) for one in handles if one.status != "pending"]

    def drop(self, handles: list) -> None:
        if handles:
            with contextlib.suppress(*UNREACHABLE):
                self.client.cancel(handles)


def _result(future):
    """What a call that is done gave, or Lost."""
    try:
        return future.result(timeout=RESULT_S)
    except distributed.KilledWorker:
        return Lost()
    except (Exception, CancelledError) as error:  # of the cluster: a call itself raises nothing
        return lost_by(error)
