"""How trials are spread over a machine's cores."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pickle
import traceback
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import joblib
import torch

from palmkit.audio import AudioError
from palmkit.endings import starting_workers
from palmkit.experiments.devices import Gpus, gpus_for, share_out, shared_gpus
from palmkit.experiments.memory import advice
from palmkit.experiments.threads import stated_jobs, threads_each
from palmkit.experiments.watchdog import end_with
from palmkit.memory import OutOfMemory
from palmkit.models.pair import each_encoder
from palmkit.plugins import explain, listed_files, load_plugins
from palmkit.tables import DatasetError

log = logging.getLogger(__name__)

START = 10  # seconds of work that starting processes is worth
# joblib replaces a process that has grown. No work is lost, so users need no warning.
warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor")

NO_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
LONGEST_MESSAGE = 500  # characters of an error's message that are kept
SMALL = 128  # width of a text encoder whose steps are too short to be shared by several cores


# What has `run`, as `in_parallel`, and `jobs`; None: processes of this machine.
_engine: ContextVar[Engine | None] = ContextVar("engine", default=None)


class Engine(Protocol):
    """Another place than this machine where calls run, see `engines`.

    jobs: calls at a time. shares_cache: whether all workers have this process's cache folder.
    """

    jobs: int
    shares_cache: bool

    def run(self, function, calls: list[tuple], order: list[int], names: list[str], on_start):
        """As `in_parallel`. order: the numbers of the calls, the longest first."""


@contextlib.contextmanager
def use_engine(engine: Engine) -> Iterator[None]:
    """Calls of `in_parallel` run on the engine in the block."""
    token = _engine.set(engine)
    try:
        yield
    finally:
        _engine.reset(token)


def uses_engine() -> bool:
    """Whether calls run on an engine."""
    return _engine.get() is not None


def shares_cache() -> bool:
    """Whether worker processes have this process's cache folder."""
    engine = _engine.get()
    return engine is None or engine.shares_cache


def count_jobs(model) -> int:
    """Trials to run at the same time: PALMKIT_JOBS; else one per core for a small model on a CPU,
    one per GPU for a model on "cuda", and one for all others. On an engine, its number of workers.
    """
    if engine := _engine.get():
        return engine.jobs
    if stated := stated_jobs():
        return stated
    if gpus := gpus_for(model.device):
        return len(gpus)
    widths = [getattr(one, "text_width", one.dim) for one, _, _ in each_encoder(model)]
    return joblib.cpu_count() if model.device.type == "cpu" and max(widths) <= SMALL else 1


class Refused(RuntimeError):
    """A process may not work on this run. It ends the run: its trials have not failed."""


@dataclass(frozen=True)
class Failure:
    """A call that raised, or whose process was killed.

    message: type, message and place in one line. details: the traceback, if there is one.
    ends_run: whether no other call would do better.
    """

    message: str
    details: str = ""
    ends_run: bool = False

    @classmethod
    def of(cls, error: Exception) -> Failure:
        details = "".join(traceback.format_exception(error))
        if isinstance(error, Refused):
            return cls(str(error), details, ends_run=True)
        return cls(_describe(error), details)


KILLED = Failure(
    "its worker process was killed, also where it ran alone: the memory may be too small for it"
)


def in_parallel(
    function,
    calls: list[tuple],
    seconds: list[float],
    jobs: int,
    names=None,
    on_start=lambda n: None,
):
    """Yield (n, function(*calls[n])) as calls finish, in `jobs` processes of one thread each (or
    PALMKIT_THREADS). The longest call starts first.

    A call that raises yields (n, Failure), and the others go on. So do they if a process is
    killed: each call that may have been running in it is tried once more, alone. A full or
    read-only disk ends everything: no other call could do better. names: of the calls, for
    messages. on_start: called with n when a call starts, or is given to a process.
    Work that takes less time than starting processes runs in this process, on as many threads, so
    results have the same bits.
    """
    order = sorted(range(len(calls)), key=lambda n: -seconds[n])
    names = names or [f"call {n}" for n in range(len(calls))]
    if engine := _engine.get():
        if calls:
            yield from engine.run(function, calls, order, names, on_start)
        return
    if jobs > 1 and len(calls) > 1 and sum(seconds) > START:
        yield from _in_processes(function, calls, order, jobs, names, on_start)
        return
    for n in order:
        on_start(n)
        with threads(threads_each(jobs) if jobs > 1 else torch.get_num_threads()):
            done = attempt(function, *calls[n])
        yield n, done


def attempt(function, *arguments):
    """function(*arguments), or a Failure if it raises. A full or read-only disk is raised."""
    try:
        return function(*arguments)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_DISK:
            raise
        return Failure.of(error)


def _describe(error: Exception) -> str:
    """Type, message and place of an error in one line. Code from outside names its own place."""
    if reason := explain(error):
        return advice(error) + reason
    message = " ".join(str(error).split()) or "without a message"
    # These messages say all; where it was found out helps nobody.
    is_data = isinstance(error, (AudioError, DatasetError, OutOfMemory))
    frames = [] if is_data else traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{advice(error)}{type(error).__name__}: {message[:LONGEST_MESSAGE]}{place}"


def _in_processes(
    function, calls: list[tuple], order: list[int], jobs: int, names: list[str], on_start
):
    """As `in_parallel`, with worker processes."""
    waiting, running = deque(order), set()
    while waiting:
        try:
            for n, done in _parallel(function, calls, waiting, running, jobs, on_start):
                running.discard(n)
                yield n, done
        except (BrokenProcessPool, pickle.PicklingError):
            log.warning(
                "A worker process was killed, perhaps for want of memory, while these ran: %s. "
                "They are tried again, one at a time",
                "; ".join(names[n] for n in sorted(running)) or "none",
            )
        for n in sorted(running):
            running.discard(n)
            on_start(n)
            yield n, _alone(function, calls, n)


def _alone(function, calls: list[tuple], n: int):
    """The result of one call in a process that runs nothing else."""
    try:
        ((_, done),) = _parallel(function, calls, deque([n]), set(), 2, lambda n: None)
    except BrokenProcessPool:
        return KILLED
    except pickle.PicklingError as error:
        return Failure.of(error)
    return done


def _parallel(function, calls: list[tuple], waiting: deque, running: set, jobs: int, on_start):
    """Yield (n, result) of waiting calls. A call is taken from `waiting` when it starts, and then
    is in `running` until the caller discards it.
    """
    plugins, number = Plugins(listed_files()), threads_each(jobs)

    def tasks():
        while waiting:
            n = waiting.popleft()
            running.add(n)
            on_start(n)
            yield joblib.delayed(_call)(plugins, number, n, function, calls[n])

    # No more calls are given away than processes can start, so `running` is what it says. Arrays
    # are not put into shared memory, where a killed process would leave them.
    # BLAS and OpenMP of a process read their number of threads when they start.
    with joblib.parallel_config(backend="loky", inner_max_num_threads=number):
        parallel = joblib.Parallel(
            jobs,
            return_as="generator_unordered",
            pre_dispatch=jobs,
            batch_size=1,
            max_nbytes=None,
            initializer=_begin,
            initargs=(os.getpid(), shared_gpus()),
        )
    with starting_workers():  # they start with the first calls
        return parallel(tasks())


def _begin(parent: int, gpus: Gpus) -> None:
    """The start of a worker process."""
    end_with(parent)
    share_out(gpus)


@contextlib.contextmanager
def threads(number: int):
    """torch with this number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Plugins:
    """The first argument of a call in a worker: unpickling it imports the files.

    The arguments after it may be objects of classes in these files. A worker that started earlier
    has no other way to know the files.
    """

    def __init__(self, files: list[Path]):
        self.files = files

    def __reduce__(self):
        return load_plugins, (self.files,)


def _call(_plugins, number: int, n: int, function, arguments: tuple):
    """The call in a worker, on a number of threads."""
    with threads(number):
        return n, attempt(function, *arguments)
