"""What an engine does with a cluster that is made up here; tests/experiments/test_clusters.py has
real ones.
"""

import operator
import os
import re

import pytest
from engine_runs import run
from outside import make_home  # noqa: F401

from palmkit.experiments import clusters, engines, references, sources
from palmkit.experiments.clusters import Answer, Lost, Unfit
from palmkit.experiments.engines import ClusterEngine, NoWorkers
from palmkit.experiments.executor import Failure, in_parallel, use_engine
from palmkit.experiments.references import WorkerDiffers
from palmkit.plugins import load_plugins


class Made(clusters.Cluster):
    """A cluster in this process. script(look, cluster) changes it at each look.

    answers: of workers, where they are not good ones; None for one that stays silent. dies: at
    which arguments of a call the worker is lost, how often. unfit: workers that give calls back.
    """

    what, start_hint = "the cluster", "start some"

    def __init__(self, *workers, script=lambda look, cluster: None, answers=(), dies=(), unfit=()):
        self.workers, self.script, self.looks = {*workers}, script, 0
        self.answers, self.dies, self.unfit = dict(answers), dict(dies), unfit
        self.held, self.ran, self.dropped = {}, [], []

    def present(self):
        self.looks += 1
        self.script(self.looks, self)
        return None if self.workers is None else {*self.workers}

    def ask(self, worker, question):
        clusters.answer(*question)
        return worker

    def answer_to(self, asked):
        return self.answers.get(asked, Answer("", True))

    def submit(self, worker, task):
        handle = len(self.ran)
        assert worker not in [one for one, _ in self.held.values()]  # one call at a time
        self.held[handle] = worker, task
        self.ran.append(worker)
        return handle

    def poll(self, handles, seconds):
        found = []
        for handle in handles:
            worker, task = self.held[handle]
            if worker in (self.workers or ()):
                del self.held[handle]
                found.append((handle, self.result(worker, task)))
        return found

    def result(self, worker, task):
        if worker in self.unfit:
            return Unfit("it is unfit")
        done = clusters.run_task(*task)
        if self.dies.get(done, 0):
            self.dies[done] -= 1
            return Lost("gone")
        return done

    def drop(self, handles):
        self.dropped += handles
        for handle in handles:
            self.held.pop(handle, None)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setenv("PALMKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engines, "LOOK_S", 0.0)
    monkeypatch.setattr(engines, "ANSWER_S", 0.2)
    monkeypatch.setattr(engines, "NO_WORKER_S", 0.2)


def negatives(cluster, calls=(1, 2, 3, 4), function=operator.neg):
    """The results of a function on the cluster, by call; the longest call is the last."""
    engine = ClusterEngine(cluster)
    engine.connect()
    started = []
    with use_engine(engine):
        about = ([(one,) for one in calls], [*calls], engine.jobs, None, started.append)
        results = dict(in_parallel(function, *about))
    assert {*started} >= {*results}
    return {calls[n]: done for n, done in results.items()}


ALL = {1: -1, 2: -2, 3: -3, 4: -4}


def test_all_workers_get_calls_and_all_results_come():
    cluster = Made("a", "b")
    assert negatives(cluster) == ALL and {*cluster.ran} == {"a", "b"}
    assert not cluster.held and not [*os.scandir(os.environ["PALMKIT_CACHE"])]  # nor the mark


def test_a_lost_call_is_tried_again_once_and_last(caplog):
    cluster = Made("a", "b", dies={-4: 1})
    assert negatives(cluster) == ALL and len(cluster.ran) == 5
    assert "while these ran: call 3. They are tried again, one at a time" in caplog.text


def test_a_call_that_is_lost_twice_fails_and_no_other():
    cluster = Made("a", "b", dies={-4: 9})
    results = negatives(cluster)
    assert "also where it ran alone" in results[4].message and "gone" in results[4].message
    assert {n: results[n] for n in (1, 2, 3)} == {n: -n for n in (1, 2, 3)}
    assert len(cluster.ran) == 5


def test_calls_of_a_worker_that_leaves_are_lost_and_another_takes_them():
    def leave(look, cluster):
        if "b" in cluster.ran:
            cluster.workers.discard("b")

    class Slow(Made):
        def poll(self, handles, seconds):  # b never ends a call
            return super().poll([one for one in handles if self.held[one][0] == "a"], seconds)

    cluster = Slow("a", "b", script=leave)
    assert negatives(cluster) == ALL and cluster.ran.count("b") == 1 and len(cluster.dropped) == 1


def test_a_worker_that_joins_gets_calls():
    cluster = Made("a", script=lambda look, cluster: look > 2 and cluster.workers.add("b"))
    assert negatives(cluster) == ALL and "b" in cluster.ran


def test_a_bad_worker_that_joins_gets_no_call_and_is_named(caplog):
    def join(look, cluster):
        if look > 1:
            cluster.workers.add("b")

    cluster = Made("a", script=join, answers={"b": Answer("it has torch 1.0")})
    assert negatives(cluster) == ALL and {*cluster.ran} == {"a"}
    assert "The worker b gets no trials: it has torch 1.0" in caplog.text


def test_a_bad_worker_at_the_start_is_refused_by_name():
    cluster = Made("a", "b", answers={"b": Answer("it has torch 1.0")})
    with pytest.raises(WorkerDiffers, match="the worker b cannot be used: it has torch 1.0"):
        negatives(cluster)
    assert not cluster.ran


def test_a_silent_worker_gets_no_call_and_does_not_stop_the_others(caplog):
    cluster = Made("a", "b", answers={"b": None})
    assert negatives(cluster) == ALL and {*cluster.ran} == {"a"}
    assert "get no trials until they do: b" in caplog.text


def test_only_silent_workers_and_none_end_with_what_to_do():
    with pytest.raises(NoWorkers, match="no worker of the cluster answers within 0.2 s .b.: start"):
        negatives(Made("b", answers={"b": None}))
    with pytest.raises(NoWorkers, match="the cluster has no worker: start some"):
        negatives(Made())


def test_a_call_that_a_worker_gives_back_goes_to_another(caplog):
    cluster = Made("a", "b", unfit=["b"])
    assert negatives(cluster) == ALL and cluster.ran.count("b") == 1
    assert "The worker b gets no trials: it is unfit" in caplog.text


def test_if_all_give_it_back_the_run_stops():
    with pytest.raises(WorkerDiffers, match="cannot be used: it is unfit"):
        negatives(Made("a", unfit=["a"]))


def differs(number):
    raise WorkerDiffers("other weights")


def test_a_worker_with_other_content_is_unfit():
    with pytest.raises(WorkerDiffers, match="the worker a cannot be used: other weights"):
        negatives(Made("a"), function=differs)


@pytest.mark.parametrize("left", [set(), None])  # None: the cluster itself does not answer
def test_without_any_worker_the_run_ends_after_a_while(left):
    def leave(look, cluster):
        if len(cluster.ran) > 1:
            cluster.workers = left

    cluster = Made("a", script=leave)
    engine = ClusterEngine(cluster)
    engine.connect()
    done = []
    with use_engine(engine), pytest.raises(NoWorkers, match="for 0.2 s. Finished trials are kept"):
        done.extend(in_parallel(operator.neg, [(1,), (2,), (3,)], [1, 2, 3], 1))
    # What was done before came, and nothing is left on the cluster.
    assert not cluster.held


def test_workers_that_come_back_in_time_go_on(monkeypatch):
    monkeypatch.setattr(engines, "NO_WORKER_S", 20.0)

    def flicker(look, cluster):
        cluster.workers = {"a"} if look < 3 or look > 6 else set()

    assert negatives(Made("a", script=flicker)) == ALL


def test_what_cannot_be_sent_fails_alone():
    results = negatives(Made("a"), calls=(1, 2), function=lambda one: one)
    for one in results.values():  # Python 3.13 says "Can't get local object"
        assert isinstance(one, Failure) and re.search("pickle|local object", one.message)


def test_a_full_disk_of_a_worker_ends_all():
    with pytest.raises(OSError, match="full"):
        negatives(Made("a"), function=fill)


def fill(number):
    raise OSError(28, "full")


def test_a_stopped_run_leaves_nothing_on_the_cluster():
    class Slow(Made):
        def poll(self, handles, seconds):
            return super().poll(handles[:1], seconds)

    cluster = Slow("a", "b")
    engine = ClusterEngine(cluster)
    engine.connect()
    with use_engine(engine):
        results = in_parallel(operator.neg, [(1,), (2,), (3,)], [1, 2, 3], 2)
        next(results)
        results.close()
    assert cluster.dropped and not cluster.held


def test_whether_the_cache_is_shared_is_found_by_a_file(tmp_path, monkeypatch):
    with engines.shared_mark() as mark:
        question = (references.own_versions(), *mark)
        assert clusters.answer(*question) == Answer("", True)
        monkeypatch.setenv("PALMKIT_CACHE", str(tmp_path / "other"))
        assert clusters.answer(*question) == Answer("", False)
    assert not [*(tmp_path / "cache").iterdir()]
    problem = clusters.answer((("torch", "1.0"),), *mark).problem
    assert "instead of 1.0: install the same versions" in problem


@pytest.mark.parametrize("shares", [True, False])
def test_one_worker_with_another_cache_is_enough_for_caches_of_their_own(shares):
    engine = ClusterEngine(Made("a", "b", answers={"b": Answer("", shares)}))
    engine.connect()
    assert engine.shares_cache == shares and engine.jobs == 2


@pytest.mark.parametrize(
    "flags, reason",
    [
        (["--backend", "dask"], "needs --address"),
        (["--backend", "dask", "--address", "here"], "needs --address"),
        (["--address", "tcp://127.0.0.1:8786"], "add --backend dask or ray"),
        (["--backend", "slurm"], "use processes, dask or ray"),
    ],
)
def test_a_backend_without_its_address_is_refused_at_once(home, capsys, flags, reason):
    assert run(home, "one", "--method", "gda", *flags) == 1
    assert reason in capsys.readouterr().err and not (home / "runs").exists()


def test_a_file_that_a_worker_lacks_comes_with_the_trial(home, monkeypatch):
    path = home / "sent_method.py"
    path.write_text("VALUE = 3\n")
    load_plugins([path])
    found = sources.Sources.read()
    monkeypatch.setenv("PALMKIT_IMPORT", "")
    monkeypatch.setattr(sources, "_imported", {})
    monkeypatch.delitem(sources.sys.modules, "palmkit.plugins.sent_method")
    path.unlink()
    found.load()
    module = sources.sys.modules["palmkit.plugins.sent_method"]
    assert module.VALUE == 3 and str(home / "cache" / "imported") in module.__file__
    found.load()
    changed = sources.Sources({str(path): b"VALUE = 4\n"})
    with pytest.raises(references.WorkerDiffers, match="restart the workers"):
        changed.load()
