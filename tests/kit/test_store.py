"""The store of arrays: whole or not at all, nothing lost, damage noticed; and where folders are."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from palmkit import storage
from palmkit.storage import atomic_write, cache_folder
from palmkit.store import ABANDONED, MERGE_COUNT, TensorStore

SETTING = {"model": "abc", "crop": "center"}
ROOT = Path(__file__).resolve().parents[2]


def entry(n: int, size=40) -> dict[str, np.ndarray]:
    feature = np.random.default_rng(n).standard_normal(size).astype("float32")
    return {"feature": feature, "offset": np.array(n)}


def fill(root, numbers, setting=SETTING, size=40) -> Path:
    """A store with these entries, closed: its folder."""
    with TensorStore(root, "embeddings", setting) as store:
        for n in numbers:
            store.put(f"clip {n}", entry(n, size))
    return store.folder


def read(root, numbers, setting=SETTING) -> dict:
    """What a new store gives."""
    with TensorStore(root, "embeddings", setting) as store:
        return {n: store.get(f"clip {n}") for n in numbers}


def is_same(got, n, size=40) -> bool:
    expected = entry(n, size)
    return set(got) == set(expected) and all(
        got[name].dtype == array.dtype and np.array_equal(got[name], array)
        for name, array in expected.items()
    )


def files(folder, pattern="*") -> list[Path]:
    return sorted(path for path in folder.rglob(pattern) if path.is_file())


@pytest.fixture
def quiet():
    """A warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


# What comes back.


@pytest.mark.parametrize("size", [1, 40, 2**17], ids=["tiny", "packed", "large"])
def test_an_entry_comes_back(size, tmp_path, quiet):
    """To the bit, with dtypes and shapes; while the store is open and afterwards."""
    arrays = {
        "half": np.arange(size, dtype="float16"),
        "matrix": np.random.default_rng(0).standard_normal((2, size)),
        "count": np.array(7),
        "nothing": np.empty((0, 3), "float32"),
        "flags": np.array([True, False, True]),
    }
    with TensorStore(tmp_path, "kind", SETTING) as store:
        assert store.get("name") is None and "name" not in store
        store.put("name", arrays)
        both = [store.get("name")]
    with TensorStore(tmp_path, "kind", SETTING) as store:
        both.append(store.get("name"))
        assert "name" in store and "other" not in store
    for got in both:
        assert list(got) == list(arrays)
        for name, array in arrays.items():
            assert got[name].dtype == array.dtype and got[name].shape == array.shape
            assert np.array_equal(got[name], array)
            assert got[name].flags.writeable and got[name].flags.aligned


def test_small_entries_share_a_file_and_large_ones_are_mapped(tmp_path, quiet):
    folder = fill(tmp_path, range(500))
    assert len(files(folder)) == 2  # a shard, and what made it
    fill(tmp_path, [1000, 1001], size=2**17)
    assert len(files(folder)) == 4
    got = read(tmp_path, [1000])[1000]
    if sys.platform == "linux":
        assert str(files(folder, "*.entry")[0].parent) in Path("/proc/self/maps").read_text()
    got["feature"][:] = 0  # copy on write: the file stays as it is
    assert is_same(read(tmp_path, [1000])[1000], 1000, 2**17)


def test_a_non_contiguous_array_comes_back(tmp_path):
    array = np.arange(12.0).reshape(3, 4).T[::2]
    with TensorStore(tmp_path, "kind", SETTING) as store:
        store.put("name", {"x": array})
        assert np.array_equal(store.get("name")["x"], array)


def test_what_made_the_entries_is_told_once(tmp_path):
    folder = fill(tmp_path, range(3))
    fill(tmp_path, range(3, 6))
    assert json.loads((folder / "provenance.json").read_text()) == SETTING
    assert len(files(tmp_path, "*.json")) == 1
    (folder / "provenance.json").unlink()
    assert is_same(read(tmp_path, [2])[2], 2)  # it is for people; reading does without


def test_settings_and_kinds_are_apart(tmp_path):
    fill(tmp_path, [1])
    assert read(tmp_path, [1], SETTING | {"crop": "start"}) == {1: None}
    with TensorStore(tmp_path, "streams", SETTING) as store:
        assert store.get("clip 1") is None


def test_no_folder_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with TensorStore(None, "embeddings", SETTING) as store:
        store.put("clip 1", entry(1))
        assert store.get("clip 1") is None and "clip 1" not in store
    assert not files(tmp_path)


def test_reading_writes_nothing(tmp_path):
    """So a cache that somebody else shares read-only can be read."""
    fill(tmp_path, range(3))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    read(tmp_path, range(3))
    read(tmp_path / "nowhere", range(3))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


# Whole or not at all.


@pytest.mark.slow
def test_killed_at_any_byte(tmp_path, quiet):
    """A shard that was being written, cut anywhere: its whole entries are there, silently."""
    with TensorStore(tmp_path, "embeddings", SETTING) as store:
        for n in range(3):
            store.put(f"clip {n}", entry(n))
        (part,) = files(store.folder, "*.part")
        data = part.read_bytes()
    (shard,) = files(store.folder, "*.shard")
    shard.unlink()
    length = len(data) // 3
    for size in range(len(data)):
        part.write_bytes(data[:size])
        got = read(tmp_path, range(3))
        assert [n for n in got if got[n]] == list(range(size // length)), size
    fill(tmp_path, [2])
    got = read(tmp_path, range(3))
    assert all(is_same(got[n], n) for n in range(3))


KILLED = """
import sys
from palmkit.store import TensorStore
from test_store import SETTING, entry
store = TensorStore(sys.argv[1], "embeddings", SETTING)
for n in range(10**9):
    store.put(f"clip {n}", entry(n))
    if n == 50:
        print("ready", flush=True)
"""


def start(code, *arguments):
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, **pipes)


def test_a_killed_process_loses_nothing_that_it_put(tmp_path, quiet):
    process = start(KILLED, tmp_path)
    try:
        assert process.stdout.readline() == "ready\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    got = read(tmp_path, range(51))
    assert all(is_same(got[n], n) for n in range(51))


LIMITED = """
import resource, sys
from palmkit.store import TensorStore
from test_store import SETTING, entry
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with TensorStore(sys.argv[1], "embeddings", SETTING) as store:
        for n in range(100):
            store.put(f"clip {n}", entry(n))
except OSError as error:
    print(n, error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of a process are POSIX's")
def test_a_full_disk(tmp_path, quiet):
    """A file cannot grow: the error says what to do, and entries put before are whole."""
    out, _ = start(LIMITED, tmp_path).communicate()
    count, message = out.split(" ", 1)
    assert 1 <= int(count) < 10 and str(tmp_path) in message
    assert "Free some space" in message and "PALMKIT_CACHE" in message
    got = read(tmp_path, range(int(count) + 1))
    assert [n for n in got if got[n] is None] == [int(count)]
    assert not files(tmp_path, "*.part")


# Damage.


@pytest.mark.slow
def test_any_flipped_bit_is_noticed(tmp_path):
    """In every byte of a shard: the right arrays, or a warning and none. Other entries stay."""
    folder = fill(tmp_path, range(3))
    (shard,) = files(folder, "*.shard")
    whole, wrong = shard.read_bytes(), []
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= 1 << (at % 8)
        shard.write_bytes(data)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            store = TensorStore(tmp_path, "embeddings", SETTING)
            got = {n: store.get(f"clip {n}") for n in range(3)}  # not closed: that would repair
        lost = [n for n in got if got[n] is None]
        if lost and not told or len(lost) > 1:
            wrong.append((at, lost, "is lost without a warning"))
        if not all(is_same(got[n], n) for n in got if n not in lost):
            wrong.append((at, lost, "is read as something else"))
    assert not wrong


def test_any_flipped_bit_of_a_large_entry_is_noticed(tmp_path):
    folder = fill(tmp_path, [1], size=2**17)
    (path,) = files(folder, "*.entry")
    whole = path.read_bytes()
    for at in [*range(200), *range(200, len(whole), 50_021), len(whole) - 1]:
        data = bytearray(whole)
        data[at] ^= 1 << (at % 8)
        path.write_bytes(data)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            got = read(tmp_path, [1])[1]
        assert got is None and len(told) == 1 or is_same(got, 1, 2**17), at


def cut(path):
    path.write_bytes(path.read_bytes()[:-70])


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    path.write_bytes(b"PK\x03\x04 not ours" * 99)


def overwrite_start(path):
    data = path.read_bytes()
    path.write_bytes(bytes(100) + data[100:])


@pytest.mark.parametrize(
    ("damage", "lost"),
    [(cut, {2}), (foreign, {0, 1, 2}), (overwrite_start, {0})],
)
def test_a_damaged_shard_is_warned_of_once_and_repaired(damage, lost, tmp_path):
    folder = fill(tmp_path, range(3))
    (shard,) = files(folder, "*.shard")
    damage(shard)
    with pytest.warns(UserWarning, match="is damaged; .* computed anew") as told:
        store = TensorStore(tmp_path, "embeddings", SETTING)
    with store:
        got = {n: store.get(f"clip {n}") for n in range(3)}
        for n in lost:
            store.put(f"clip {n}", entry(n))
    assert len(told) == 1 and str(shard) in str(told[0].message)
    assert {n for n in got if got[n] is None} == lost
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = read(tmp_path, range(3))
    assert all(is_same(got[n], n) for n in range(3))
    assert files(folder, "*.damaged") == [shard.with_suffix(".damaged")]  # put aside, not deleted


@pytest.mark.parametrize("damage", [cut, empty, foreign])
def test_a_damaged_large_entry_is_replaced(damage, tmp_path):
    folder = fill(tmp_path, [1], size=2**17)
    (path,) = files(folder, "*.entry")
    damage(path)
    with pytest.warns(UserWarning, match="is not usable .*computed anew"):
        assert read(tmp_path, [1]) == {1: None}
    fill(tmp_path, [1], size=2**17)
    assert is_same(read(tmp_path, [1])[1], 1, 2**17)


def test_a_changed_entry_is_replaced_by_a_newer_one(tmp_path):
    """The shard is not rewritten for it; what is put again is found first."""
    folder = fill(tmp_path, range(3))
    (shard,) = files(folder, "*.shard")
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)
    with pytest.warns(UserWarning, match="clip 0 in .*its content .* changed"):
        assert read(tmp_path, [0]) == {0: None}
    fill(tmp_path, [0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_same(read(tmp_path, [0])[0], 0)


def test_entries_of_another_setting_are_not_served(tmp_path, quiet):
    """A shard, and a large entry under another's name, copied to where they do not belong."""
    other = SETTING | {"crop": "start"}
    one, two = fill(tmp_path, [1]), fill(tmp_path, [2], other)
    shutil.copy(files(one, "*.shard")[0], two / files(one, "*.shard")[0].name)
    assert read(tmp_path, [1], other) == {1: None}
    fill(tmp_path, [3, 4], size=2**17)
    three, four = files(one, "*.entry")
    shutil.copy(three, four)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        got = read(tmp_path, [3, 4])
    assert sum(found is None for found in got.values()) == 1 and len(told) == 1


# Many shards, and more than one writer.


def test_many_small_shards_are_merged(tmp_path, quiet):
    count = MERGE_COUNT
    for n in range(count + 1):
        folder = fill(tmp_path, [n])
    assert len(files(folder, "*.shard")) == 1 and len(files(folder)) == 2
    got = read(tmp_path, range(count + 1))
    assert all(is_same(got[n], n) for n in range(count + 1))


def test_large_shards_and_those_being_written_are_left_alone(tmp_path, monkeypatch, quiet):
    folder = fill(tmp_path, range(200))
    monkeypatch.setattr("palmkit.store.MERGE_BYTES", 10_000)
    (large,) = files(folder, "*.shard")
    writer = TensorStore(tmp_path, "embeddings", SETTING)
    writer.put("clip 999", entry(999))
    for n in range(200, 200 + MERGE_COUNT):
        fill(tmp_path, [n])
    assert large.is_file() and len(files(folder, "*.part")) == 1
    assert len(files(folder, "*.shard")) == 2
    writer.put("clip 1000", entry(1000))
    writer.close()
    numbers = [*range(200 + MERGE_COUNT), 999, 1000]
    got = read(tmp_path, numbers)
    assert all(is_same(got[n], n) for n in numbers)


def test_a_part_whose_writer_is_long_gone_is_merged(tmp_path, quiet):
    store = TensorStore(tmp_path, "embeddings", SETTING)
    store.put("clip 999", entry(999))
    (part,) = files(store.folder, "*.part")
    old = time.time() - 2 * ABANDONED
    os.utime(part, (old, old))
    for n in range(MERGE_COUNT + 1):
        fill(tmp_path, [n])
    assert not part.is_file() and is_same(read(tmp_path, [999])[999], 999)


def test_a_merge_while_another_reads(tmp_path, quiet):
    """A store that was opened before gives all it had; one that opens meanwhile misses nothing."""
    for n in range(MERGE_COUNT):
        fill(tmp_path, [n])
    early = TensorStore(tmp_path, "embeddings", SETTING)
    fill(tmp_path, [MERGE_COUNT])
    assert len(files(early.folder, "*.shard")) == 1
    assert all(is_same(early.get(f"clip {n}"), n) for n in range(MERGE_COUNT))


def test_a_merge_that_fails_loses_nothing(tmp_path, monkeypatch, quiet):
    for n in range(MERGE_COUNT):
        folder = fill(tmp_path, [n])
    real, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if len(calls) == 2:  # the first completes the new shard, the second the merged one
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    fill(tmp_path, [MERGE_COUNT])
    monkeypatch.undo()
    got = read(tmp_path, range(MERGE_COUNT + 1))
    assert len(calls) == 2 and all(is_same(got[n], n) for n in got)
    assert folder.is_dir()


def test_threads_share_a_store(tmp_path, quiet):
    with TensorStore(tmp_path, "embeddings", SETTING) as store:

        def work(first):
            for n in range(first, 200, 4):
                store.put(f"clip {n}", entry(n))
                assert is_same(store.get(f"clip {n}"), n)

        threads = [threading.Thread(target=work, args=[first]) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    got = read(tmp_path, range(200))
    assert all(is_same(got[n], n) for n in range(200))


WRITER = """
import sys, warnings
from palmkit.store import TensorStore
from test_store import SETTING, entry
warnings.simplefilter("error")
first = int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for n in range(first, first + 120):
    with TensorStore(sys.argv[1], "embeddings", SETTING) as store:  # a shard each: they merge, too
        store.put(f"clip {n}", entry(n))
"""


@pytest.mark.slow
def test_processes_that_write_and_merge_lose_nothing(tmp_path, quiet):
    """Their numbers overlap, so that they write the same entries as well."""
    processes = [start(WRITER, tmp_path, first) for first in (0, 60)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0]
    got = read(tmp_path, range(180))
    assert [n for n in got if got[n] is None or not is_same(got[n], n)] == []


# Files and folders.


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_respect_the_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        atomic_write(tmp_path / "new" / "report.html", "text")
        folder = fill(tmp_path, [1])
    finally:
        os.umask(before)
    for path in [tmp_path / "new" / "report.html", *files(folder)]:
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask, path


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "file").write_text("before")
    with pytest.raises(OSError, match="cannot write .*Make the folder writable") as caught:
        atomic_write(tmp_path / "file" / "below", "text")
    assert "PALMKIT_CACHE or PALMKIT_RUNS" in str(caught.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="cannot write"):
        atomic_write(tmp_path / "folder", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_the_cache_argument(monkeypatch, tmp_path):
    monkeypatch.setenv("PALMKIT_CACHE", str(tmp_path))
    assert cache_folder() == cache_folder("default") == tmp_path
    assert cache_folder(None) is None
    assert cache_folder("some/folder") == Path("some/folder")
    monkeypatch.delenv("PALMKIT_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "palmkit"


FOLDERS = """
from palmkit import storage
folders = storage.run_folder("new"), storage.data_root()
for path in (*folders, storage.manifest_path(), storage.notebooks_folder()):
    print(path.absolute())
"""


def list_folders(folder, package_root, **environment) -> list[str]:
    """Where a process in `folder` looks for a run, data, the manifest and the notebooks."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PALMKIT_RUNS", "PALMKIT_DATA")}
    command = [sys.executable, "-c", FOLDERS]
    env = {**kept, "PYTHONPATH": str(package_root), **environment}
    out = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)
    return out.stdout.split()


def in_checkout(root):
    root = Path(root)
    names = ("runs/new", "data", "data_manifest.csv", "notebooks")
    return [str(root / name) for name in names]


@pytest.fixture
def installed(tmp_path):
    """A package that is in no checkout."""
    shutil.copytree(
        ROOT / "palmkit", tmp_path / "site" / "palmkit", ignore=shutil.ignore_patterns("mini")
    )
    return tmp_path / "site"


@pytest.mark.parametrize("folder", [".", "notebooks", "notebooks/appendix", "tests/kit"])
def test_folders_in_the_checkout(folder, installed):
    """The same from a notebook's folder, the root and below; for an installed package as well."""
    assert list_folders(ROOT / folder, ROOT) == in_checkout(ROOT)
    assert list_folders(ROOT / folder, installed) == in_checkout(ROOT)


def test_folders_elsewhere(tmp_path, installed):
    """The package's own checkout; an installed package has none, and takes the current folder."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    assert list_folders(folder, ROOT) == in_checkout(ROOT)
    share = installed / "palmkit" / "share"
    shipped = [str(share / "data_manifest.csv"), str(share / "notebooks")]
    assert list_folders(folder, installed) == [
        str(folder / "runs" / "new"), str(folder / "data"), *shipped
    ]  # fmt: skip


def test_folders_of_the_environment_come_first(tmp_path):
    given = {"PALMKIT_RUNS": str(tmp_path / "r"), "PALMKIT_DATA": str(tmp_path / "d")}
    found = list_folders(ROOT, ROOT, **given)
    assert found[:2] == [str(tmp_path / "r" / "new"), str(tmp_path / "d")]


def test_a_run_that_is_a_path(tmp_path):
    assert storage.run_folder(tmp_path / "run") == tmp_path / "run"
    assert storage.run_folder("some/run") == Path("some/run")
