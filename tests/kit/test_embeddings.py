"""The embedding cache computes nothing twice, serves what is asked for, and loses nothing."""

import contextlib
import copy
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import torch.nn.functional as F
from noise import count_embeddings

import palmkit.embeddings
import palmkit.storage
from palmkit import AudioError, embed, load_dataset, read_clip
from palmkit.audio import digest
from palmkit.store import TensorStore

RATE = 44_100
CLIP_SAMPLES = 7 * RATE


class FakeModel:
    """A quick model for `embed`: an embedding is the first samples of its waveform."""

    sample_rate, clip_seconds = RATE, 7.0

    def __init__(self, weights="weights"):
        self.weights, self.batches = weights, []

    def digest(self):
        return self.weights

    def encode_audio(self, waveforms):
        self.batches.append(len(waveforms))
        return F.normalize(waveforms[:, :16], dim=-1)

    @property
    def encoded(self):
        """How many clips went through since this was last asked."""
        count = sum(self.batches)
        self.batches.clear()
        return count


def write(path, seed, seconds=0.01):
    data = np.random.default_rng(seed).uniform(-0.5, 0.5, int(seconds * RATE))
    soundfile.write(path, data.astype("float32"), RATE, subtype="FLOAT")
    return str(path)


@pytest.fixture
def model():
    return FakeModel()


@pytest.fixture
def clips(tmp_path):
    return [write(tmp_path / f"clip{n}.wav", n) for n in range(6)]


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def files(cache, suffix=""):
    return sorted(path for path in cache.rglob(f"*{suffix}") if path.is_file())


def quietly(*args, **kwargs):
    """embed, with every warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return embed(*args, **kwargs)


# What comes out.


def test_embeddings_of_a_dataset(tmp_path, clips, model):
    (tmp_path / "train.csv").write_text(
        "path,classname\n" + "".join(f"clip{n}.wav,{'ba'[n % 2]}\n" for n in range(5))
    )
    (tmp_path / "test.csv").write_text("path,classname\nclip4.wav,a\nclip5.wav,b\n")
    dataset = load_dataset(tmp_path)
    got = embed(model, dataset.train, cache=None)
    assert got.labels.tolist() == [1, 0, 1, 0, 1] and got.labels.dtype == torch.long
    assert got.paths == list(dataset.train["path"]) and got.offsets == [0] * 5
    expected = F.normalize(torch.stack([read_clip(path)[:16] for path in got.paths]), dim=-1)
    assert torch.equal(got.features, expected)


def test_list_of_paths_has_no_labels(clips, model, tmp_path):
    got = embed(model, [tmp_path / "clip1.wav", clips[0]], cache=None)
    assert got.labels.tolist() == [-1, -1] and got.paths == [clips[1], clips[0]]


@pytest.mark.parametrize(
    "nothing", [[], pd.DataFrame({"path": [], "label": []})], ids=["list", "table"]
)
def test_no_clips(nothing, model):
    with pytest.raises(ValueError, match="no clips"):
        embed(model, nothing, cache=None)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_that_makes_no_sense(batch_size, clips, model):
    with pytest.raises(ValueError, match="batch_size"):
        embed(model, clips, cache=None, batch_size=batch_size)


def test_order_follows_the_clips(clips, model, cache):
    """Whatever was in the cache before, in whatever order, and with a clip asked for twice."""
    alone = {path: embed(model, [path], cache=None).features[0] for path in clips}
    embed(model, clips[2:4][::-1], cache)
    for order in ([5, 0, 3, 1, 2, 4], [4, 4, 0, 2, 0]):
        got = embed(model, [clips[n] for n in order], cache, batch_size=2)
        for row, n in enumerate(order):
            assert torch.equal(got.features[row], alone[clips[n]])


@pytest.mark.slow
def test_batch_size_and_workers_change_nothing(clips, tiny_pengi):
    clips = clips[:3]
    one = embed(tiny_pengi, clips, None, batch_size=1, workers=1).features
    many = embed(tiny_pengi, clips, None, batch_size=16, workers=4).features
    some = embed(tiny_pengi, clips, None, batch_size=2, workers=2).features
    assert (one - many).abs().max() < 1e-5 and (one - some).abs().max() < 1e-5
    assert (one[0] - one[1]).abs().max() > 1e-3  # the clips differ by more than that


@pytest.mark.parametrize("batch_size", [1, 2, 4, 6, 100])
def test_batches_are_as_large_as_told(batch_size, clips, model):
    embed(model, clips, None, batch_size=batch_size)
    assert model.batches == [min(batch_size, 6 - start) for start in range(0, 6, batch_size)]


def test_features_can_be_trained_on(clips, model, tiny_pengi, cache):
    """Computed or read, they are plain tensors that autograd takes."""
    for some in (tiny_pengi, model):
        for _ in range(2):
            features = embed(some, clips[:2], cache).features
            weight = torch.ones(features.shape[1], requires_grad=True)
            (features @ weight).sum().backward()
            assert not features.requires_grad and weight.grad.isfinite().all()


# Hits.


def test_second_call_computes_nothing(clips, model, cache):
    first = quietly(model, clips, cache)
    assert model.encoded == 6
    second = quietly(model, clips, cache)
    assert model.encoded == 0
    assert torch.equal(first.features, second.features) and first.offsets == second.offsets


def test_second_call_computes_nothing_with_the_model(clips, tiny_pengi, cache, monkeypatch):
    first = quietly(tiny_pengi, clips[:2], cache)
    monkeypatch.setattr(tiny_pengi, "encode_audio", None)
    assert torch.equal(quietly(tiny_pengi, clips[:2], cache).features, first.features)


def test_only_what_is_missing_is_computed(clips, model, cache):
    whole = embed(model, clips, cache=None).features
    embed(model, clips[1:3], cache)
    model.batches.clear()
    assert torch.equal(embed(model, clips, cache).features, whole)
    assert model.encoded == 4


def test_same_sound_under_another_name_hits(clips, model, cache, tmp_path):
    embed(model, clips[:1], cache)
    shutil.copy(clips[0], tmp_path / "copy.wav")
    model.batches.clear()
    embed(model, [tmp_path / "copy.wav"], cache)
    assert model.encoded == 0


def test_default_cache_is_the_environment_s(clips, model, tmp_path, monkeypatch):
    monkeypatch.setenv("PALMKIT_CACHE", str(tmp_path / "elsewhere"))
    embed(model, clips[:2])
    assert count_embeddings(tmp_path / "elsewhere") == 2


def test_no_cache_writes_nothing(clips, model, tmp_path, monkeypatch):
    monkeypatch.setenv("PALMKIT_CACHE", str(tmp_path / "elsewhere"))
    before = files(tmp_path)
    embed(model, clips, cache=None)
    embed(model, clips, cache=None)
    assert files(tmp_path) == before and model.encoded == 12


# Misses: whatever changes the content.


@pytest.fixture
def filled(clips, model, cache):
    """A cache with the first clip in it."""
    embed(model, clips[:1], cache)
    assert model.encoded == 1
    return cache


def test_changed_sound_under_the_same_name(clips, model, filled):
    write(clips[0], 99)
    got = embed(model, clips[:1], filled)
    assert model.encoded == 1
    assert torch.equal(got.features, embed(model, clips[:1], None).features)


def test_changed_sound_with_size_and_time_of_before(clips, model, filled, tmp_path):
    """In one process, which caches digests: same name, size, inode and modification time."""
    for seed in range(90, 95):
        stat, other = os.stat(clips[0]), write(tmp_path / "other.wav", seed)
        with open(clips[0], "r+b") as file:
            file.write(Path(other).read_bytes())
        os.utime(clips[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
        after = os.stat(clips[0])
        same = ("st_size", "st_mtime_ns", "st_ino")
        assert [getattr(after, name) for name in same] == [getattr(stat, name) for name in same]
        got = embed(model, clips[:1], filled)
        assert model.encoded == 1
        assert torch.equal(got.features, F.normalize(read_clip(clips[0])[None, :16]))


@pytest.mark.parametrize(
    "change",
    [{"crop": "start"}, {"crop": "center"}, {"crop": 0}, {"crop_seed": 1}],
    ids=lambda change: "-".join(map(str, *change.items())),
)
def test_changed_crop(change, clips, model, filled):
    embed(model, clips[:1], filled, **change)
    assert model.encoded == 1
    embed(model, clips[:1], filled, **change)
    embed(model, clips[:1], filled)
    assert model.encoded == 0


def test_crop_seed_matters_only_where_something_is_drawn(clips, model, cache):
    embed(model, clips[:1], cache, crop="start", crop_seed=0)
    embed(model, clips[:1], cache, crop="start", crop_seed=1)
    assert model.encoded == 1


def test_changed_weights(clips, filled):
    other = FakeModel("other weights")
    embed(other, clips[:1], filled)
    assert other.encoded == 1


@pytest.mark.slow
def test_changed_weights_of_the_model(clips, tiny_pengi, cache):
    """The weights as they are now, not their file; the text encoder's do not matter."""
    clip, model = clips[:1], copy.deepcopy(tiny_pengi)
    embed(model, clip, cache)
    model.text.token_embedding.weight[0] += 1
    assert count_embeddings(cache) == 1
    embed(model, clip, cache)
    assert count_embeddings(cache) == 1
    model.audio.bn0.running_mean[40] += 1e-3
    got = embed(model, clip, cache)
    assert count_embeddings(cache) == 2
    assert torch.equal(got.features, embed(model, clip, None).features)


def test_changed_version(clips, model, filled, monkeypatch):
    monkeypatch.setattr(
        palmkit.embeddings, "EMBEDDING_VERSION", palmkit.embeddings.EMBEDDING_VERSION + 1
    )
    embed(model, clips[:1], filled)
    assert model.encoded == 1


@pytest.mark.parametrize(("name", "value"), [("sample_rate", 22_050), ("clip_seconds", 6.5)])
def test_changed_preprocessing(name, value, clips, filled):
    other = FakeModel()
    setattr(other, name, value)
    embed(other, clips[:1], filled)
    assert other.encoded == 1


def test_changed_precision(clips, model, filled):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium" if before == "high" else "high")
        embed(model, clips[:1], filled)
    finally:
        torch.set_float32_matmul_precision(before)
    assert model.encoded == 1
    embed(model, clips[:1], filled)
    assert model.encoded == 0


# Entries that are not whole. (What kinds of damage there are: test_store.py.)


def test_damaged_entry_is_told_and_computed_anew(clips, model, cache):
    expected = embed(model, clips, cache).features
    (shard,) = files(cache, ".shard")
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)
    model.batches.clear()
    with pytest.warns(UserWarning, match="computed anew") as told:
        got = embed(model, clips, cache)
    assert len(told) == 1 and str(shard) in str(told[0].message)
    assert torch.equal(got.features, expected) and model.encoded == 1
    assert torch.equal(quietly(model, clips, cache).features, expected)
    assert model.encoded == 0  # it is whole again


def test_what_made_the_entries_is_told_once(clips, model, cache):
    for few in (clips[:2], clips):
        embed(model, few, cache)
    (source,) = files(cache, ".json")
    made = json.loads(source.read_text())
    assert made["model"] == "weights" and made["version"] == palmkit.embeddings.EMBEDDING_VERSION
    assert (made["crop"], made["crop_seed"]) == ("random", 0)
    assert (made["sample_rate"], made["clip_seconds"]) == (RATE, 7.0)
    assert "float32" in made["precision"]
    assert str(cache.parent) not in source.read_text()  # nothing of where the user keeps things


def test_the_cache_of_before_is_left_alone(clips, model, cache):
    """Embeddings as version 2 kept them: a file each, and JSON beside it."""
    old = cache / "embeddings" / "ab"
    old.mkdir(parents=True)
    for name in ("abcd.safetensors", "abcd.json"):
        (old / name).write_text("as it was")
    quietly(model, clips, cache)
    assert [path.read_text() for path in files(old)] == ["as it was"] * 2


# The random crop.


@pytest.fixture
def long_clip(tmp_path):
    return write(tmp_path / "long.wav", 5, seconds=8)


@pytest.mark.slow
def test_random_crop_repeats_and_its_offset_reproduces_it(long_clip, tiny_pengi, cache):
    got = embed(tiny_pengi, [long_clip], cache=None)
    again = embed(tiny_pengi, [long_clip], cache=None)
    kept = [embed(tiny_pengi, [long_clip], cache) for _ in range(2)]
    assert 0 < got.offsets[0] < RATE + 1
    for other in (again, *kept):
        assert other.offsets == got.offsets and (other.features - got.features).abs().max() < 1e-6
    by_hand = tiny_pengi.encode_audio(read_clip(long_clip, crop=got.offsets[0])[None])
    assert (by_hand - got.features).abs().max() < 1e-6


def test_random_crop_depends_on_seed_and_sound_only(long_clip, model, tmp_path, clips):
    """Not on the other clips, their order, the name, or what was drawn before."""
    start = embed(model, [long_clip], None).offsets[0]
    renamed = shutil.copy(long_clip, tmp_path / "renamed.wav")
    assert embed(model, [*clips, renamed], None, batch_size=2).offsets == [0] * 6 + [start]
    assert embed(model, [long_clip], None, crop_seed=1).offsets[0] != start
    assert embed(model, [write(tmp_path / "other.wav", 6, 8)], None).offsets[0] != start


@pytest.mark.parametrize(
    ("crop", "start"), [("start", 0), ("center", (8 * RATE - CLIP_SAMPLES) // 2), (123, 123)]
)
def test_other_crops_record_their_offset(crop, start, long_clip, model, cache):
    for _ in range(2):
        got = embed(model, [long_clip], cache, crop=crop)
        assert got.offsets == [start]
        assert torch.equal(got.features, F.normalize(read_clip(long_clip, crop=start)[None, :16]))


# Failures on the way.


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_corrupt_clip_is_named_and_those_before_it_are_kept(batch_size, clips, model, cache):
    with open(clips[4], "wb") as file:
        file.write(b"not audio")
    with pytest.raises(AudioError, match="cannot be decoded") as caught:
        embed(model, clips, cache, batch_size=batch_size)
    assert str(caught.value).startswith(f"{clips[4]}: ")
    write(clips[4], 4)
    model.batches.clear()
    embed(model, clips[:4], cache)
    assert model.encoded == 0
    embed(model, clips, cache)
    assert model.encoded == 2


def test_missing_clip_is_named_before_anything_is_computed(clips, model, cache):
    os.unlink(clips[5])
    with pytest.raises(AudioError, match="No such file") as caught:
        embed(model, clips, cache)
    assert str(caught.value).startswith(f"{clips[5]}: ") and model.encoded == 0


@pytest.fixture
def full_disk(monkeypatch):
    """A function after which the store keeps `n` more entries, and then raises an error."""

    def fill(n, error):
        real, count = TensorStore.put, iter(range(10_000))

        def put(self, name, entry):
            if next(count) >= n:
                raise error
            real(self, name, entry)

        monkeypatch.setattr(TensorStore, "put", put)

    yield fill


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()]
)
def test_what_was_embedded_before_an_error_is_kept(
    error, clips, model, cache, full_disk, monkeypatch
):
    full_disk(3, error)
    with pytest.raises(type(error)):
        embed(model, clips, cache, batch_size=2)
    monkeypatch.undo()
    model.batches.clear()
    got = quietly(model, clips, cache)
    assert torch.equal(got.features, embed(FakeModel(), clips, None).features)
    assert model.encoded == 3


@contextlib.contextmanager
def ordinary_user():
    """The superuser may write anywhere, so permissions are tested as nobody."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="permissions are tested on POSIX systems")
def test_cache_folder_without_permission(clips, model):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copies = [shutil.copy(clip, folder) for clip in clips]
        folder.chmod(0o755)
        cache = folder / "cache"
        cache.mkdir(mode=0o555)
        with ordinary_user(), pytest.raises(PermissionError, match="writable"):
            embed(model, copies, cache)
        assert [*cache.iterdir()] == []


def test_cache_that_is_a_file(clips, model, tmp_path):
    with pytest.raises(OSError) as caught:
        embed(model, clips[:1], cache=clips[1])
    assert clips[1] in str(caught.value) and "PALMKIT_CACHE" in str(caught.value)


def test_a_full_cache_is_only_read(clips, model, cache):
    """Somebody else may share it read-only: nothing is written where nothing is missing."""
    expected = embed(model, clips, cache).features
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    assert torch.equal(quietly(model, clips, cache).features, expected)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


# A change of the waveform before it is encoded.


class Louder:
    def __init__(self, factor):
        self.key = ["louder", factor]
        self.factor, self.seeds = factor, []

    def __call__(self, waveform, seed):
        self.seeds.append(seed)
        return self.factor * waveform + 1


def test_a_transform_has_entries_of_its_own(clips, model, cache):
    plain = embed(model, clips, cache)
    for factor in (2, 3):
        louder = Louder(factor)
        got = embed(model, clips, cache, transform=louder)
        waveforms = torch.stack([factor * read_clip(path)[:16] + 1 for path in clips])
        assert torch.equal(got.features, F.normalize(waveforms, dim=-1))
        assert sorted(louder.seeds) == sorted(digest(Path(path).read_bytes()) for path in clips)
        model.batches.clear()
        assert torch.equal(embed(model, clips, cache, transform=louder).features, got.features)
        assert model.encoded == 0
    assert torch.equal(embed(model, clips, cache).features, plain.features) and model.encoded == 0


# Progress.


def test_progress_is_reported_by_batch(clips, model, cache):
    embed(model, clips[:1], cache)
    seen = []
    embed(model, clips, cache, batch_size=2, on_progress=lambda *done: seen.append(done))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    embed(model, clips, cache, on_progress=lambda *done: seen.append(done))
    assert len(seen) == 3


def test_what_progress_raises_ends_the_work(clips, model, cache):
    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        embed(model, clips, cache, batch_size=2, on_progress=stop)
    assert model.encoded == 2
    quietly(model, clips, cache)
    assert model.encoded == 4


# More than one at a time.


def test_threads_share_a_cache(clips, cache):
    expected, start, got = embed(FakeModel(), clips, None).features, threading.Barrier(4), []

    def run():
        start.wait()
        got.append(embed(FakeModel(), clips, cache, batch_size=1).features)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4 and all(torch.equal(features, expected) for features in got)
    assert count_embeddings(cache) >= 6
    late = FakeModel()
    assert torch.equal(quietly(late, clips, cache).features, expected) and late.encoded == 0


PROCESS = """
import sys, warnings
import torch
from palmkit import embed, load_pengi
warnings.simplefilter("error", UserWarning)
pengi = load_pengi(sys.argv[1], device="cpu")
print("ready", flush=True)
sys.stdin.readline()
got = embed(pengi, sys.argv[3:], sys.argv[2], batch_size=1)
print(got.features.numpy().tobytes().hex())
"""


@pytest.mark.slow  # two interpreters import torch
def test_processes_share_a_cache(clips, compact, tiny_pengi, cache):
    command = [sys.executable, "-c", PROCESS, str(compact.checkpoint), str(cache), *clips]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    processes = [subprocess.Popen(command, **pipe) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        out = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    got = [
        torch.frombuffer(bytearray.fromhex(text), dtype=torch.float32).reshape(6, -1)
        for text in out
    ]
    expected = embed(tiny_pengi, clips, cache=None).features
    assert (got[0] - expected).abs().max() < 1e-5 and (got[1] - expected).abs().max() < 1e-5
    assert count_embeddings(cache) >= 6
    assert (quietly(tiny_pengi, clips, cache).features - expected).abs().max() < 1e-5


@pytest.mark.slow
def test_an_embedding_does_not_hang_on_its_neighbours(tiny_pengi):
    """To the last bit on a CPU: a difference could move the second decimal of an accuracy."""
    waveforms = torch.randn(7, CLIP_SAMPLES, generator=torch.Generator().manual_seed(0)) / 10
    whole = tiny_pengi.encode_audio(waveforms)
    for start, end in ((0, 1), (2, 5), (3, 7), (6, 7)):
        assert torch.equal(tiny_pengi.encode_audio(waveforms[start:end]), whole[start:end])


def test_an_error_names_the_file_where_it_is(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "audios").symlink_to(tmp_path / "mine")
    path = str(tmp_path / "audios" / "a.wav")
    frame = pd.DataFrame({"path": [path]}, index=[2])
    frame.attrs["csv"] = "train.csv"
    told = palmkit.embeddings.with_csv_row(AudioError(f"{path}: it is cut short"), frame)
    assert told == f"{tmp_path.resolve()}/mine/a.wav: it is cut short (row 2 of train.csv)"
