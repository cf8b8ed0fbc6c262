"""The embedding cache: it computes nothing twice, never serves what is not asked for, and loses nothing."""

import copy
import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import torch.nn.functional as F

import palmkit.embeddings
import palmkit.storage
from palmkit import AudioError, embed, load_dataset, read_clip
from palmkit.audio import CLIP_SAMPLES, digest

RATE = 44_100


class Ear:
    """What `embed` needs of Pengi, and quick: an embedding tells the first samples of its waveform."""

    def __init__(self, weights="weights"):
        self.config, self.weights, self.batches = {"audio": {"hop_size": 320}}, weights, []

    def digest(self, *encoders):
        assert encoders == ("audio",)
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
def ear():
    return Ear()


@pytest.fixture
def clips(tmp_path):
    return [write(tmp_path / f"clip{n}.wav", n) for n in range(6)]


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def files(cache, suffix=""):
    return sorted(path for path in cache.rglob(f"*{suffix}") if path.is_file())


def entries(cache):
    return files(cache, ".safetensors")


def entry(cache, path):
    """The cache's entry of a clip."""
    sha = digest(Path(path).read_bytes())
    (sidecar,) = [
        side for side in files(cache, ".json") if json.loads(side.read_text())["audio"] == sha
    ]
    return sidecar.with_suffix(".safetensors")


def quietly(*args, **kwargs):
    """embed, with every warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return embed(*args, **kwargs)


# What comes out.


def test_embeddings_of_a_dataset(tmp_path, clips, ear):
    (tmp_path / "train.csv").write_text(
        "path,classname\n" + "".join(f"clip{n}.wav,{'ba'[n % 2]}\n" for n in range(5))
    )
    (tmp_path / "test.csv").write_text("path,classname\nclip4.wav,a\nclip5.wav,b\n")
    dataset = load_dataset(tmp_path)
    got = embed(ear, dataset.train, cache=None)
    assert got.labels.tolist() == [1, 0, 1, 0, 1] and got.labels.dtype == torch.long
    assert got.paths == list(dataset.train["path"]) and got.offsets == [0] * 5
    expected = F.normalize(torch.stack([read_clip(path)[:16] for path in got.paths]), dim=-1)
    assert torch.equal(got.features, expected)


def test_list_of_paths_has_no_labels(clips, ear, tmp_path):
    got = embed(ear, [tmp_path / "clip1.wav", clips[0]], cache=None)
    assert got.labels.tolist() == [-1, -1] and got.paths == [clips[1], clips[0]]


@pytest.mark.parametrize(
    "nothing", [[], pd.DataFrame({"path": [], "label": []})], ids=["list", "table"]
)
def test_no_clips(nothing, ear):
    with pytest.raises(ValueError, match="no clips"):
        embed(ear, nothing, cache=None)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_that_makes_no_sense(batch_size, clips, ear):
    with pytest.raises(ValueError, match="batch_size"):
        embed(ear, clips, cache=None, batch_size=batch_size)


def test_order_follows_the_clips(clips, ear, cache):
    """Whatever was in the cache before, in whatever order, and with a clip asked for twice."""
    alone = {path: embed(ear, [path], cache=None).features[0] for path in clips}
    embed(ear, clips[2:4][::-1], cache)
    for order in ([5, 0, 3, 1, 2, 4], [4, 4, 0, 2, 0]):
        got = embed(ear, [clips[n] for n in order], cache, batch_size=2)
        for row, n in enumerate(order):
            assert torch.equal(got.features[row], alone[clips[n]])


def test_batch_size_and_workers_change_nothing(clips, tiny_pengi):
    clips = clips[:3]
    one = embed(tiny_pengi, clips, None, batch_size=1, workers=1).features
    many = embed(tiny_pengi, clips, None, batch_size=16, workers=4).features
    some = embed(tiny_pengi, clips, None, batch_size=2, workers=2).features
    assert (one - many).abs().max() < 1e-5 and (one - some).abs().max() < 1e-5
    assert (one[0] - one[1]).abs().max() > 1e-3  # the clips differ by more than that


@pytest.mark.parametrize("batch_size", [1, 2, 4, 6, 100])
def test_batches_are_as_large_as_told(batch_size, clips, ear):
    embed(ear, clips, None, batch_size=batch_size)
    assert ear.batches == [min(batch_size, 6 - start) for start in range(0, 6, batch_size)]


def test_features_can_be_trained_on(clips, ear, tiny_pengi, cache):
    """Computed or read, they are plain tensors that autograd takes."""
    for model in (tiny_pengi, ear):
        for _ in range(2):
            features = embed(model, clips[:2], cache).features
            weight = torch.ones(features.shape[1], requires_grad=True)
            (features @ weight).sum().backward()
            assert not features.requires_grad and weight.grad.isfinite().all()


# Hits.


def test_second_call_computes_nothing(clips, ear, cache):
    first = quietly(ear, clips, cache)
    assert ear.encoded == 6
    second = quietly(ear, clips, cache)
    assert ear.encoded == 0
    assert torch.equal(first.features, second.features) and first.offsets == second.offsets


def test_second_call_computes_nothing_with_the_model(clips, tiny_pengi, cache, monkeypatch):
    first = quietly(tiny_pengi, clips[:2], cache)
    monkeypatch.setattr(tiny_pengi, "encode_audio", None)
    assert torch.equal(quietly(tiny_pengi, clips[:2], cache).features, first.features)


def test_only_what_is_missing_is_computed(clips, ear, cache):
    whole = embed(ear, clips, cache=None).features
    embed(ear, clips[1:3], cache)
    ear.batches.clear()
    assert torch.equal(embed(ear, clips, cache).features, whole)
    assert ear.encoded == 4


def test_same_sound_under_another_name_hits(clips, ear, cache, tmp_path):
    embed(ear, clips[:1], cache)
    shutil.copy(clips[0], tmp_path / "copy.wav")
    ear.batches.clear()
    embed(ear, [tmp_path / "copy.wav"], cache)
    assert ear.encoded == 0


def test_default_cache_is_the_environment_s(clips, ear, tmp_path, monkeypatch):
    monkeypatch.setenv("PALMKIT_CACHE", str(tmp_path / "elsewhere"))
    embed(ear, clips[:2])
    assert len(entries(tmp_path / "elsewhere")) == 2


def test_no_cache_writes_nothing(clips, ear, tmp_path, monkeypatch):
    monkeypatch.setenv("PALMKIT_CACHE", str(tmp_path / "elsewhere"))
    before = files(tmp_path)
    embed(ear, clips, cache=None)
    embed(ear, clips, cache=None)
    assert files(tmp_path) == before and ear.encoded == 12


# Misses: whatever changes the content.


@pytest.fixture
def filled(clips, ear, cache):
    """A cache with the first clip in it."""
    embed(ear, clips[:1], cache)
    assert ear.encoded == 1
    return cache


def test_changed_sound_under_the_same_name(clips, ear, filled):
    write(clips[0], 99)
    got = embed(ear, clips[:1], filled)
    assert ear.encoded == 1
    assert torch.equal(got.features, embed(ear, clips[:1], None).features)


def test_changed_sound_with_size_and_time_of_before(clips, ear, filled, tmp_path):
    """In one process, where digests of files are remembered: same name, size, inode and modification time."""
    for seed in range(90, 95):
        stat, other = os.stat(clips[0]), write(tmp_path / "other.wav", seed)
        with open(clips[0], "r+b") as file:
            file.write(Path(other).read_bytes())
        os.utime(clips[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
        after = os.stat(clips[0])
        same = ("st_size", "st_mtime_ns", "st_ino")
        assert [getattr(after, name) for name in same] == [getattr(stat, name) for name in same]
        got = embed(ear, clips[:1], filled)
        assert ear.encoded == 1
        assert torch.equal(got.features, F.normalize(read_clip(clips[0])[None, :16]))


@pytest.mark.parametrize(
    "change",
    [{"crop": "start"}, {"crop": "center"}, {"crop": 0}, {"crop_seed": 1}],
    ids=lambda change: "-".join(map(str, *change.items())),
)
def test_changed_crop(change, clips, ear, filled):
    embed(ear, clips[:1], filled, **change)
    assert ear.encoded == 1
    embed(ear, clips[:1], filled, **change)
    embed(ear, clips[:1], filled)
    assert ear.encoded == 0


def test_crop_seed_matters_only_where_something_is_drawn(clips, ear, cache):
    embed(ear, clips[:1], cache, crop="start", crop_seed=0)
    embed(ear, clips[:1], cache, crop="start", crop_seed=1)
    assert ear.encoded == 1


def test_changed_weights(clips, filled):
    other = Ear("other weights")
    embed(other, clips[:1], filled)
    assert other.encoded == 1


def test_changed_weights_of_the_model(clips, tiny_pengi, cache):
    """The weights as they are now, whatever file they came from; the text encoder's do not matter."""
    clip, model = clips[:1], copy.deepcopy(tiny_pengi)
    embed(model, clip, cache)
    model.text.token_embedding.weight[0] += 1
    assert len(entries(cache)) == 1
    embed(model, clip, cache)
    assert len(entries(cache)) == 1
    model.audio.bn0.running_mean[40] += 1e-3
    got = embed(model, clip, cache)
    assert len(entries(cache)) == 2
    assert torch.equal(got.features, embed(model, clip, None).features)


def test_changed_settings_of_the_model(clips, ear, filled):
    ear.config["audio"]["hop_size"] = 321
    embed(ear, clips[:1], filled)
    assert ear.encoded == 1


def test_changed_version(clips, ear, filled, monkeypatch):
    monkeypatch.setattr(
        palmkit.embeddings, "EMBEDDING_VERSION", palmkit.embeddings.EMBEDDING_VERSION + 1
    )
    embed(ear, clips[:1], filled)
    assert ear.encoded == 1


@pytest.mark.parametrize("name", ["SAMPLE_RATE", "CLIP_SAMPLES"])
def test_changed_preprocessing(name, clips, ear, filled, monkeypatch):
    monkeypatch.setattr(palmkit.audio, name, getattr(palmkit.audio, name) - 100)
    embed(ear, clips[:1], filled)
    assert ear.encoded == 1


def test_changed_precision(clips, ear, filled):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium" if before == "high" else "high")
        embed(ear, clips[:1], filled)
    finally:
        torch.set_float32_matmul_precision(before)
    assert ear.encoded == 1
    embed(ear, clips[:1], filled)
    assert ear.encoded == 0


# Entries that are not whole.


def damage_by_truncation(path, other):
    path.write_bytes(path.read_bytes()[:-7])


def damage_to_nothing(path, other):
    path.write_bytes(b"")


def damage_to_garbage(path, other):
    path.write_bytes(b"\x08\0\0\0\0\0\0\0 garbage" * 20)


def damage_to_another_key(path, other):
    shutil.copy(other, path)


def damage_of_a_value(path, other):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1 << 4
    path.write_bytes(data)


def damage_to_a_folder(path, other):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        damage_by_truncation, damage_to_nothing, damage_to_garbage, damage_to_another_key, damage_of_a_value
    ],
)  # fmt: skip
def test_damaged_entry_is_told_and_computed_anew(damage, clips, ear, cache):
    expected = embed(ear, clips, cache).features
    damaged = entry(cache, clips[2])
    damage(damaged, entry(cache, clips[3]))
    ear.batches.clear()
    with pytest.warns(UserWarning, match="computed anew") as told:
        got = embed(ear, clips, cache)
    assert len(told) == 1 and str(damaged) in str(told[0].message)
    assert torch.equal(got.features, expected) and ear.encoded == 1
    assert (
        torch.equal(quietly(ear, clips, cache).features, expected) and ear.encoded == 0
    )  # and it is whole again


def test_any_flipped_bit_is_noticed(clips, ear, cache):
    """In every byte of an entry, of its header too: a warning and the right values, or no difference at all."""
    clip = write(
        clips[0], 0, seconds=8
    )  # longer than seven seconds, so that its crop has a start to be wrong about
    expected = embed(ear, [clip], cache)
    assert expected.offsets[0] > 0
    path = entry(cache, clip)
    whole, wrong = path.read_bytes(), []
    # Reading alone, or every byte would decode and crop eight seconds: an entry that is refused reads as None.
    store = palmkit.embeddings._Store(
        cache / "embeddings", palmkit.embeddings.provenance(ear, "random", 0)
    )
    sha = digest(Path(clip).read_bytes())
    assert store.read(sha)[1] == expected.offsets[0]
    for at in range(len(whole)):
        for bit in (0, at % 7 + 1):
            data = bytearray(whole)
            data[at] ^= 1 << bit
            path.write_bytes(data)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                found = store.read(sha)
            if found is None:
                if len(told) != 1:
                    wrong.append((at, bit, "no warning"))
            elif not torch.equal(found[0], expected.features[0]) or found[1] != expected.offsets[0]:
                wrong.append((at, bit, f"read as offset {found[1]}, {found[0].dtype}"))
    assert wrong == []


def test_entry_that_is_a_folder(clips, ear, cache):
    """It cannot be replaced by a file: the message says which path is in the way."""
    embed(ear, clips, cache)
    path = entry(cache, clips[0])
    damage_to_a_folder(path, None)
    with pytest.raises(OSError) as caught:
        embed(ear, clips, cache)
    assert str(path) in str(caught.value)


def test_sidecar_says_where_an_entry_comes_from(clips, ear, filled):
    (path,) = entries(filled)
    (sidecar,) = files(filled, ".json")
    assert sidecar == path.with_suffix(".json")
    told = json.loads(sidecar.read_text())
    assert told["audio"] == digest(Path(clips[0]).read_bytes()) and told["file"] == "clip0.wav"
    assert told["weights"] == "weights" and told["version"] == palmkit.embeddings.EMBEDDING_VERSION
    assert (
        told["crop"] == "random"
        and told["crop_seed"] == 0
        and told["offset"] == 0
        and told["dim"] == 16
    )
    assert told["preprocessing"]["sample_rate"] == RATE and told["preprocessing"]["hop_size"] == 320
    assert "float32" in told["precision"]
    assert str(filled.parent) not in sidecar.read_text()  # nothing of where the user keeps things


def test_lost_sidecar_is_no_harm(clips, ear, filled):
    for sidecar in files(filled, ".json"):
        sidecar.unlink()
    quietly(ear, clips[:1], filled)
    assert ear.encoded == 0


# The random crop.


@pytest.fixture
def long_clip(tmp_path):
    return write(tmp_path / "long.wav", 5, seconds=8)


def test_random_crop_repeats_and_its_offset_reproduces_it(long_clip, tiny_pengi, cache):
    got = embed(tiny_pengi, [long_clip], cache=None)
    again = embed(tiny_pengi, [long_clip], cache=None)
    kept = [embed(tiny_pengi, [long_clip], cache) for _ in range(2)]
    assert 0 < got.offsets[0] < RATE + 1
    for other in (again, *kept):
        assert other.offsets == got.offsets and (other.features - got.features).abs().max() < 1e-6
    by_hand = tiny_pengi.encode_audio(read_clip(long_clip, crop=got.offsets[0])[None])
    assert (by_hand - got.features).abs().max() < 1e-6


def test_random_crop_depends_on_seed_and_sound_only(long_clip, ear, tmp_path, clips):
    """Not on the other clips, their order, the name, or what was drawn before."""
    start = embed(ear, [long_clip], None).offsets[0]
    renamed = shutil.copy(long_clip, tmp_path / "renamed.wav")
    assert embed(ear, [*clips, renamed], None, batch_size=2).offsets == [0] * 6 + [start]
    assert embed(ear, [long_clip], None, crop_seed=1).offsets[0] != start
    assert embed(ear, [write(tmp_path / "other.wav", 6, 8)], None).offsets[0] != start


@pytest.mark.parametrize(
    ("crop", "start"), [("start", 0), ("center", (8 * RATE - CLIP_SAMPLES) // 2), (123, 123)]
)
def test_other_crops_record_their_offset(crop, start, long_clip, ear, cache):
    for _ in range(2):
        got = embed(ear, [long_clip], cache, crop=crop)
        assert got.offsets == [start]
        assert torch.equal(got.features, F.normalize(read_clip(long_clip, crop=start)[None, :16]))


# Failures on the way.


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_corrupt_clip_is_named_and_those_before_it_are_kept(batch_size, clips, ear, cache):
    with open(clips[4], "wb") as file:
        file.write(b"not audio")
    with pytest.raises(AudioError, match="cannot be decoded") as caught:
        embed(ear, clips, cache, batch_size=batch_size)
    assert str(caught.value).startswith(f"{clips[4]}: ")
    write(clips[4], 4)
    ear.batches.clear()
    embed(ear, clips[:4], cache)
    assert ear.encoded == 0
    embed(ear, clips, cache)
    assert ear.encoded == 2


def test_missing_clip_is_named_before_anything_is_computed(clips, ear, cache):
    os.unlink(clips[5])
    with pytest.raises(AudioError, match="No such file") as caught:
        embed(ear, clips, cache)
    assert str(caught.value).startswith(f"{clips[5]}: ") and ear.encoded == 0


def failing(monkeypatch, number, error):
    """Let writing the `number`th file into the cache and all after it raise, half-way through its bytes."""
    real, count = palmkit.storage.tempfile.NamedTemporaryFile, iter(range(10_000))

    def temporary(*args, **kwargs):
        file = real(*args, **kwargs)
        if next(count) >= number:
            whole = file.write

            def write(data):
                whole(data[: len(data) // 2])
                raise error

            file.write = write
        return file

    monkeypatch.setattr(palmkit.storage.tempfile, "NamedTemporaryFile", temporary)


def test_full_disk(clips, ear, cache, monkeypatch):
    """Six files are written, those of three clips; then the disk is full."""
    with monkeypatch.context() as patch:
        failing(patch, 6, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        with pytest.raises(OSError, match="No space left") as caught:
            embed(ear, clips, cache, batch_size=2)
    message = str(caught.value)
    assert caught.value.errno == errno.ENOSPC and str(cache) in message
    assert "free some space" in message.lower() and "PALMKIT_CACHE" in message
    assert len(entries(cache)) == 3 and len(files(cache)) == 6  # no half entry, no temporary file
    ear.batches.clear()
    assert torch.equal(quietly(ear, clips, cache).features, embed(Ear(), clips, None).features)
    assert ear.encoded == 3


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_cache_folder_that_cannot_be_written(code, clips, ear, cache, monkeypatch):
    def temporary(*args, **kwargs):
        raise OSError(code, os.strerror(code), "a/temporary/name")

    with monkeypatch.context() as patch:
        patch.setattr(palmkit.storage.tempfile, "NamedTemporaryFile", temporary)
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            embed(ear, clips, cache)
    assert str(cache) in str(caught.value) and "PALMKIT_CACHE" in str(caught.value)
    assert "writable" in str(caught.value) and "a/temporary/name" not in str(caught.value)


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere"
)
def test_cache_folder_without_permission(clips, ear, cache):
    cache.mkdir()
    cache.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match="writable"):
            embed(ear, clips, cache)
    finally:
        cache.chmod(0o700)


def test_cache_that_is_a_file(clips, ear, tmp_path):
    with pytest.raises(OSError) as caught:
        embed(ear, clips[:1], cache=clips[1])
    assert clips[1] in str(caught.value) and "PALMKIT_CACHE" in str(caught.value)


def test_full_cache_that_cannot_be_written_is_read(clips, ear, cache, monkeypatch):
    """A cache that someone else shares read-only: nothing is written where nothing is missing."""
    expected = embed(ear, clips, cache).features
    failing(monkeypatch, 0, OSError(errno.EROFS, os.strerror(errno.EROFS)))
    monkeypatch.setattr(palmkit.storage.Path, "mkdir", None)
    assert torch.equal(quietly(ear, clips, cache).features, expected)


@pytest.mark.parametrize("moment", ["write", "replace"])
def test_killed_while_writing(moment, clips, ear, cache, monkeypatch):
    """Stopped within the third entry: no half file under its name, and those before it stay."""
    with monkeypatch.context() as patch:
        if moment == "write":
            failing(patch, 5, KeyboardInterrupt())
        else:
            real, count = os.replace, iter(range(100))

            def replace(source, target):
                if next(count) == 5:
                    raise KeyboardInterrupt
                real(source, target)

            patch.setattr(palmkit.storage.os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            embed(ear, clips, cache)
    assert len(entries(cache)) == 2 and not [
        path for path in files(cache) if path.name.startswith(".")
    ]
    ear.batches.clear()
    assert torch.equal(quietly(ear, clips, cache).features, embed(Ear(), clips, None).features)
    assert ear.encoded == 4


def test_what_a_killed_process_left_is_no_harm(clips, ear, filled):
    """SIGKILL cannot be caught: a temporary file may stay, and is neither read nor in the way."""
    (path,) = entries(filled)
    left = path.with_name(f".{path.name}.k1ll3d")
    left.write_bytes(path.read_bytes()[:20])
    path.unlink()
    got = quietly(ear, clips[:1], filled)
    assert ear.encoded == 1 and torch.equal(got.features, embed(ear, clips[:1], None).features)


# More than one at a time.


def test_threads_share_a_cache(clips, cache):
    expected, start, got = embed(Ear(), clips, None).features, threading.Barrier(4), []

    def run():
        start.wait()
        got.append(embed(Ear(), clips, cache, batch_size=1).features)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4 and all(torch.equal(features, expected) for features in got)
    assert len(entries(cache)) == 6 and len(files(cache)) == 12
    late = Ear()
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
    assert len(entries(cache)) == 6 and len(files(cache)) == 12
    assert (quietly(tiny_pengi, clips, cache).features - expected).abs().max() < 1e-5


def test_an_embedding_does_not_hang_on_its_neighbours(tiny_pengi):
    """To the last bit on a CPU: prompt learning would carry a difference on into the second decimal of an accuracy."""
    waveforms = torch.randn(7, CLIP_SAMPLES, generator=torch.Generator().manual_seed(0)) / 10
    whole = tiny_pengi.encode_audio(waveforms)
    for start, end in ((0, 1), (2, 5), (3, 7), (6, 7)):
        assert torch.equal(tiny_pengi.encode_audio(waveforms[start:end]), whole[start:end])
