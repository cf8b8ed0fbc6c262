"""Trials on a Dask cluster of two workers: the same rows, through lost workers and other faults."""

import json

import pytest
from outside import few, make_home, read_rows  # noqa: F401

from palmkit.cli import main
from palmkit.experiments import engines, references
from palmkit.plugins import load_plugins

# All of a row but times and places: seconds, written, command, tensors' file (its sha256 counts).
OTHER = {"seconds", "written", "command"}
METHODS = ["zeroshot", "palm", "gda"]
DIES = """
import os, pathlib, signal, torch
from palmkit import Method

ONCE = pathlib.Path({once!r})


class Dies(Method):
    name = "dies"

    def fit(self, features, labels, **settings):
        if "TEST_WORKER" in os.environ and self.seed == {seed} and not ONCE.exists():
            {touch}
            os.kill(os.getpid(), signal.SIGKILL)
        return [float(torch.get_num_threads())]

    def forward(self, features):
        return features[:, : len(self.class_names)]
"""


def run(home, name, *more):
    flags = few(home, "--import", home / "toy_model.py", "--checkpoint", "toy", "--name", name)
    return main(["run", *flags, *map(str, more)])


def on(address):
    return ["--backend", "dask", "--address", address]


def same(row):
    return json.dumps({name: value for name, value in row.items() if name not in OTHER})


def all_rows(home, name):
    paths = sorted((home / "runs" / name / "rows" / "tiny").glob("*.json"))
    return [json.loads(path.read_text()) for path in paths]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A cluster whose workers have one cache, and that cache."""
    pytest.importorskip("distributed")
    from dask_cluster import dask_cluster

    folder = tmp_path_factory.mktemp("dask")
    with dask_cluster(folder, [folder / "cache"] * 2) as address:
        yield address, folder / "cache"


@pytest.mark.slow
def test_a_shared_cache_gives_the_rows_of_processes(home, shared, monkeypatch):
    address, cache = shared
    monkeypatch.setenv("PALMKIT_CACHE", str(cache))
    grid = ["--method", *METHODS, "--seed", 0, 1]
    assert run(home, "here", *grid) == 0
    shards = [*cache.rglob("*.shard")]
    assert run(home, "there", *grid, *on(address)) == 0
    here, there = all_rows(home, "here"), all_rows(home, "there")
    assert len(here) == 5 and [*map(same, here)] == [*map(same, there)]
    assert [*cache.rglob("*.shard")] == shards  # the workers computed no embedding again
    log = (home / "runs/there/palmkit.log").read_text()
    assert "5 trials, 2 at a time" in log


@pytest.mark.slow
def test_caches_of_their_own_give_the_same_rows(home, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    from dask_cluster import dask_cluster

    grid = ["--method", *METHODS, "--seed", 0, 1, 2, 3]
    caches = [tmp_path / "first", tmp_path / "second"]
    assert run(home, "here", *grid) == 0
    with dask_cluster(tmp_path / "dask", caches) as address:
        assert run(home, "there", *grid, *on(address)) == 0
    here, there = all_rows(home, "here"), all_rows(home, "there")
    assert len(here) == 9 and [*map(same, here)] == [*map(same, there)]
    used = [cache for cache in caches if [*cache.rglob("*.shard")]]
    assert used  # who is faster takes more trials, perhaps all
    tensors = [*(home / "runs/there/rows").rglob("*.safetensors")]
    assert len(tensors) == 9  # they came home


def make_dying(home, name, seed, once):
    path = home / f"{name}.py"
    touch = "ONCE.touch()" if once else "pass"
    text = DIES.format(once=str(home / f"{name}.once"), seed=seed, touch=touch)
    path.write_text(text.replace('"dies"', f'"{name}"'))
    return path


@pytest.mark.slow
def test_a_trial_that_kills_its_worker_is_a_failed_trial(home, shared, capsys):
    path = make_dying(home, "killer", seed=2, once=False)
    grid = ["--import", path, "--method", "killer", "--seed", 0, 1, 2, 3]
    assert run(home, "one", *grid, *on(shared[0])) == 1
    rows = {row["seed"]: row for row in all_rows(home, "one")}
    assert [seed for seed, row in rows.items() if "failed" in row] == [2] and len(rows) == 4
    assert "worker process was killed, also where it ran alone" in rows[2]["failed"]
    assert {rows[seed]["losses"][0] for seed in (0, 1, 3)} == {1.0}  # threads in a worker
    said = capsys.readouterr().err
    assert "killer on tiny, fold None, seed 2" in said and "one at a time" in said


@pytest.mark.slow
def test_a_worker_that_is_lost_once_costs_nothing(home, shared, capsys):
    path = make_dying(home, "once", seed=1, once=True)
    grid = ["--import", path, "--method", "once", "--seed", 0, 1, 2]
    assert run(home, "one", *grid, *on(shared[0])) == 0
    assert "one at a time" in capsys.readouterr().err and (home / "once.once").exists()
    assert all("failed" not in row for row in all_rows(home, "one"))


@pytest.mark.slow
def test_a_method_that_raises_and_one_that_was_changed_are_failed_rows(home, shared, capsys):
    path = home / "raises.py"
    path.write_text(DIES.replace("if ", "if 1 / 0 and ").replace('"dies"', '"raises"').format(
        once="", seed=0, touch="pass"))  # fmt: skip
    grid = ["--import", path, "--method", "raises"]
    assert run(home, "one", *grid, *on(shared[0])) == 1
    (row,) = all_rows(home, "one")
    assert "raises.py failed: ZeroDivisionError" in row["failed"] and "line 12" in row["failed"]
    path.write_text(path.read_text().replace("1 / 0", "1 / 1"))
    assert run(home, "two", *grid, *on(shared[0])) in (0, 1)  # the other worker may take it
    failed = [row["failed"] for row in all_rows(home, "two") if "failed" in row]
    assert not failed or "restart the Dask workers" in failed[0]


@pytest.mark.slow
def test_a_worker_of_another_version_is_refused_by_name(home, shared, capsys, monkeypatch):
    monkeypatch.setattr(engines, "own_versions", lambda: (("torch", "1.0"),))
    assert run(home, "one", "--method", "gda", *on(shared[0])) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "the Dask worker tcp://127.0.0.1:" in said and "instead of 1.0" in said
    assert not [*(home / "runs/one").rglob("*.json")]


@pytest.mark.slow
def test_a_worker_with_two_threads_and_no_worker_are_refused(home, tmp_path, capsys):
    pytest.importorskip("distributed")
    from dask_cluster import dask_cluster

    with dask_cluster(tmp_path / "dask", [tmp_path / "cache"], threads=2) as address:
        assert run(home, "one", "--method", "gda", *on(address)) == 1
    assert "start it with --nthreads 1" in capsys.readouterr().err
    with dask_cluster(tmp_path / "empty", []) as address:
        assert run(home, "one", "--method", "gda", *on(address)) == 1
    assert "has no worker" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, reason",
    [
        (["--backend", "dask"], "needs --address"),
        (["--backend", "dask", "--address", "here"], "needs --address"),
        (["--address", "tcp://127.0.0.1:8786"], "add --backend dask"),
        (["--backend", "slurm"], "use processes or dask"),
    ],
)
def test_a_backend_without_its_address_is_refused_at_once(home, capsys, flags, reason):
    assert run(home, "one", "--method", "gda", *flags) == 1
    assert reason in capsys.readouterr().err and not (home / "runs").exists()


def test_a_file_that_a_worker_lacks_comes_with_the_trial(home, monkeypatch):
    path = home / "sent_method.py"
    path.write_text("VALUE = 3\n")
    load_plugins([path])
    sources = engines.Sources.read()
    monkeypatch.setenv("PALMKIT_IMPORT", "")
    monkeypatch.setattr(engines, "_imported", {})
    monkeypatch.delitem(engines.sys.modules, "palmkit.plugins.sent_method")
    path.unlink()
    sources.load()
    module = engines.sys.modules["palmkit.plugins.sent_method"]
    assert module.VALUE == 3 and str(home / "cache" / "imported") in module.__file__
    sources.load()
    changed = engines.Sources({str(path): b"VALUE = 4\n"})
    with pytest.raises(references.WorkerDiffers, match="restart the Dask workers"):
        changed.load()
