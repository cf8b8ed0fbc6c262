"""What a killed process leaves under a temporary name: the next command removes or completes it."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from palmkit import storage
from palmkit.leftovers import is_abandoned, remove_abandoned, writer_mark
from palmkit.store import TensorStore, finish_abandoned

KILLED_WRITE = """
import os, signal, sys
from pathlib import Path
from palmkit.storage import atomic_write
os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
atomic_write(Path(sys.argv[1]), "new")
"""
KILLED_STORE = """
import os, signal, sys
import numpy as np
from pathlib import Path
from palmkit.leftovers import writer_mark
from palmkit.store import TensorStore
store = TensorStore(Path(sys.argv[1]), "embeddings", {})
if sys.argv[2] == "0":  # killed before its first entry
    store.folder.mkdir(parents=True)
    (store.folder / f"1{writer_mark()}.part").touch()
for n in range(int(sys.argv[2])):
    store.put(str(n), {"a": np.arange(n + 5)})
if sys.argv[3]:  # an entry that is not finished
    (part,) = store.folder.glob("*.part")
    part.write_bytes(part.read_bytes() + part.read_bytes()[:70])
os.kill(os.getpid(), signal.SIGKILL)
"""


def run_killed(code: str, *arguments) -> None:
    """A process that kills itself."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    assert subprocess.run(command).returncode == -signal.SIGKILL


def test_a_killed_writer_s_file_is_removed_and_no_other(tmp_path):
    path = tmp_path / "rows" / "one.json"
    storage.atomic_write(path, "old")
    run_killed(KILLED_WRITE, path)
    (left,) = [one for one in path.parent.iterdir() if one != path]
    others = [
        path.with_name(f".two.json{writer_mark()}"),  # of this process
        path.with_name(f".two.json.{left.name[-18:-12]}00000001{left.name[-4:]}"),  # of a live one
        path.with_name(f".two.json.{'0' * 6}{left.name[-12:]}"),  # of another machine
        path.with_name(".hidden"),
        path.with_name(left.name.lstrip(".")),  # not hidden: not ours
    ]
    for other in others:
        other.write_text("kept")
    remove_abandoned(tmp_path)
    assert not left.exists() and path.read_text() == "old"
    assert all(other.read_text() == "kept" for other in others)


def test_a_mark_is_of_its_process():
    names = {f"name{writer_mark()}" for _ in range(100)}
    assert len(names) > 90 and not any(map(is_abandoned, names))
    assert all(f"{os.getpid():08x}" in name for name in names)


@pytest.mark.parametrize("count, cut", [(3, ""), (3, "cut"), (0, "")])
def test_a_killed_store_s_shard_gets_its_name(tmp_path, recwarn, count, cut):
    """Its whole entries are kept, and what was not finished is cut off."""
    run_killed(KILLED_STORE, tmp_path, count, cut)
    with TensorStore(tmp_path, "embeddings", {}) as store:
        folder = store.folder
        for n in range(count):
            assert np.array_equal(store.get(str(n))["a"], np.arange(n + 5))
    assert not [*folder.glob("*.part")]
    assert len([*folder.glob("*.shard")]) == (1 if count else 0)
    assert not recwarn.list


def test_a_cache_is_finished_without_opening_its_stores(tmp_path):
    run_killed(KILLED_STORE, tmp_path, 2, "cut")
    finish_abandoned(tmp_path)
    assert not [*tmp_path.rglob("*.part")] and len([*tmp_path.rglob("*.shard")]) == 1
    finish_abandoned(tmp_path / "no cache")
    finish_abandoned(None)


def test_the_shard_of_a_live_store_stays_its_own(tmp_path):
    store = TensorStore(tmp_path, "embeddings", {})
    store.put("one", {"a": np.zeros(3)})
    with TensorStore(tmp_path, "embeddings", {}) as other:
        assert other.get("one") is not None
    assert len([*store.folder.glob("*.part")]) == 1
    store.close()
    assert not [*store.folder.glob("*.part")]
