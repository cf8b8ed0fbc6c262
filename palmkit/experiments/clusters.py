"""What an engine asks of a cluster, whichever it is, and what runs in its workers."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from dataclasses import dataclass

from palmkit.experiments.executor import KILLED, NO_DISK, Failure, attempt, threads
from palmkit.experiments.references import WorkerDiffers, check_versions
from palmkit.experiments.sources import Sources
from palmkit.storage import cache_root


@dataclass(frozen=True)
class Answer:
    """What a worker says of itself. problem: why it cannot be used, or "".

    shares_cache: whether its cache folder is the command's.
    """

    problem: str = ""
    shares_cache: bool = False


@dataclass(frozen=True)
class Lost:
    """The result of a call whose worker was lost. reason: what the cluster says, or ""."""

    reason: str = ""

    @property
    def failure(self) -> Failure:
        """The failure of a call that was lost twice."""
        more = f" (the cluster says: {self.reason})" if self.reason else ""
        return Failure(KILLED.message + more)


@dataclass(frozen=True)
class Unfit:
    """The result of a call on a worker that cannot give the command's rows."""

    reason: str


class Cluster(ABC):
    """Workers of one cluster, each by a string. A worker that is started anew has another one.

    what: the cluster, for messages. start_hint: what to do where workers are missing.
    """

    what: str
    start_hint: str

    def name(self, worker: str) -> str:
        """The worker's name for messages."""
        return worker

    @abstractmethod
    def present(self) -> set[str] | None:
        """The workers that are there. None if the cluster does not answer."""

    @abstractmethod
    def ask(self, worker: str, question: tuple):
        """Begin to ask a worker by `answer(*question)`."""

    @abstractmethod
    def answer_to(self, asked) -> Answer | None:
        """The answer to what was asked; None if there is none yet."""

    @abstractmethod
    def submit(self, worker: str, task: tuple):
        """Give the worker the call `run_task(*task)`. Returns a handle."""

    @abstractmethod
    def poll(self, handles: list, seconds: float) -> list[tuple]:
        """(handle, result or Lost) of those that are done. Waits until one is, at most so long."""

    @abstractmethod
    def drop(self, handles: list) -> None:
        """Forget these calls, and cancel them where that is possible."""


def lost_by(error: BaseException) -> Lost:
    """The result of a call that ended by an error of the cluster. Raises that of a full disk."""
    if isinstance(error, OSError) and error.errno in NO_DISK:
        raise error
    message = " ".join(str(error).split())
    return Lost(f"{type(error).__name__}: {message[:300]}")


# In a worker.


def answer(versions: tuple, name: str, content: str) -> Answer:
    """Why this process cannot be used, and whether it has the command's cache.

    name, content: of a file in that cache.
    """
    try:
        check_versions(versions)
    except WorkerDiffers as error:
        return Answer(str(error))
    try:
        return Answer("", (cache_root() / name).read_text() == content)
    except OSError:
        return Answer("", False)


def run_task(sources: Sources, versions: tuple, sent: bytes):
    """The result of a call, Failure or Unfit. Nothing is raised but a full disk.

    sent: pickled function and arguments. What cannot be read here is a failure of the call.
    """
    with threads(1):
        return attempt(_unpickle_and_call, sources, versions, sent)


def _unpickle_and_call(sources: Sources, versions: tuple, sent: bytes):
    try:
        check_versions(versions)
        sources.load()
        function, arguments = pickle.loads(sent)
        return function(*arguments)
    except WorkerDiffers as error:
        return Unfit(str(error))
