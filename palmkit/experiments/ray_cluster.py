"""The workers of a Ray cluster, by Ray's public interface: an actor for each core or GPU."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import joblib
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from palmkit.experiments.clusters import Answer, Cluster, Lost, answer, lost_by, run_task
from palmkit.experiments.threads import stated_jobs

# Bytes of the object store of a cluster on this machine: calls are references of a kilobyte.
STORE = 200_000_000


@contextlib.contextmanager
def connect(address: str, device: str) -> Iterator[RayCluster]:
    """The cluster at this address; without one, a cluster of this machine, ended at the end.

    Raises OSError if none answers, or if it has another version of Ray or Python.
    """
    if ray.is_initialized():
        raise OSError("Ray is in use by this process already: call ray.shutdown() first")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    local = {
        "num_cpus": stated_jobs() or joblib.cpu_count(),
        "include_dashboard": False,
        "object_store_memory": STORE,
    }
    try:
        ray.init(**(dict(address=address) if address else dict(address="local", **local)), **quiet)
    except Exception as error:  # Ray raises plain ones too, on a busy machine for example
        what = f"no Ray cluster answers at {address}" if address else "Ray cannot be started here"
        raise OSError(f"{what}: {_first_line(error)}") from error
    try:
        yield RayCluster(address, "GPU" if device == "cuda" else "CPU")
    finally:
        ray.shutdown()


@ray.remote(max_restarts=0, max_task_retries=0)
class Worker:
    """A process that stays: it loads the model once."""

    def answer(self, *question) -> Answer:
        return answer(*question)

    def run_task(self, *task):
        return run_task(*task)


class RayCluster(Cluster):
    """A worker is a place (a node's core or GPU) and the count of the actors that were there."""

    def __init__(self, address: str, unit: str):
        self.unit = unit
        self.what = f"the Ray cluster at {address}" if address else "the Ray cluster here"
        self.start_hint = f"start nodes with a free {unit} (ray start --address=HOST:PORT)"
        self.actors: dict[str, object] = {}
        self.workers: dict[object, str] = {}  # of calls, by their handles
        self.count = 0

    def present(self) -> set[str] | None:
        try:
            nodes = [node for node in ray.nodes() if node["Alive"]]
        except ray.exceptions.RayError:
            return None
        places = {
            f"{node['NodeManagerAddress']} {node['NodeID']} {n}": node["NodeID"]
            for node in nodes
            for n in range(int(node["Resources"].get(self.unit, 0)))
        }
        held = {}
        for worker in [*self.actors]:
            place = worker.rpartition(" ")[0]
            if place in places:
                held[place] = worker
            else:
                self._forget(worker)
        for place, node in places.items():
            if place not in held:
                self.count += 1
                self.actors[f"{place} {self.count}"] = self._start(node)
        return {*self.actors}

    def _start(self, node: str):
        """An actor that Ray starts on the node as soon as there is room."""
        gpus = 1 if self.unit == "GPU" else 0
        strategy = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        return Worker.options(num_cpus=1, num_gpus=gpus, scheduling_strategy=strategy).remote()

    def _forget(self, worker: str) -> None:
        if (actor := self.actors.pop(worker, None)) is not None:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(actor)

    def name(self, worker: str) -> str:
        address, node, *_ = worker.split()
        return f"on {address} (node {node[:8]})"

    def ask(self, worker: str, question: tuple):
        return self.actors[worker].answer.remote(*question)

    def answer_to(self, asked) -> Answer | None:
        done, _ = ray.wait([asked], timeout=0)
        if not done:
            return None
        try:
            return ray.get(asked)
        except Exception as error:  # without palmkit, it cannot even read the question
            return Answer(f"it cannot load palmkit ({type(error).__name__}: {_first_line(error)})")

    def submit(self, worker: str, task: tuple):
        handle = self.actors[worker].run_task.remote(*task)
        self.workers[handle] = worker
        return handle

    def poll(self, handles: list, seconds: float) -> list[tuple]:
        done, waiting = ray.wait(handles, num_returns=1, timeout=seconds)
        more, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0) if waiting else ([], [])
        return [(one, self._result(one)) for one in (*done, *more)]

    def _result(self, handle):
        worker = self.workers.pop(handle)
        try:
            return ray.get(handle)
        except ray.exceptions.RayTaskError as error:
            return lost_by(error.cause if isinstance(error.cause, OSError) else error)
        except ray.exceptions.RayError as error:
            self._forget(worker)  # the next look starts another
            return Lost(f"{type(error).__name__}: {_first_line(error)}")

    def drop(self, handles: list) -> None:
        """An actor cannot be interrupted in a call: it is ended."""
        for handle in handles:
            if (worker := self.workers.pop(handle, None)) is not None:
                self._forget(worker)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
