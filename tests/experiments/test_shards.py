"""Clips embedded by worker processes: the same cache, to the last bit, as by one process."""

import pickle

import numpy as np
import pytest
import torch
from engine_runs import all_rows, run, same
from outside import make_home  # noqa: F401

from palmkit import load_dataset, load_model
from palmkit.embeddings import embed
from palmkit.experiments import embedding, executor, shards, timing
from palmkit.experiments.cached import list_missing
from palmkit.experiments.clip_sources import EmbedSettings
from palmkit.experiments.executor import use_engine
from palmkit.experiments.references import ModelReference, WorkerDiffers, own_versions
from palmkit.plugins import load_plugins
from palmkit.storage import cache_root


class Here:
    """An engine in this process. apart: the cache of its workers, if that is another one."""

    def __init__(self, monkeypatch, apart=None):
        self.monkeypatch, self.apart = monkeypatch, apart
        self.jobs, self.shares_cache, self.ran = 2, apart is None, []

    def run(self, function, calls, order, names, on_start):
        for n in order:
            on_start(n)
            self.ran.append(function.__name__)
            work, arguments = pickle.loads(pickle.dumps((function, calls[n])))
            with self.monkeypatch.context() as there:
                if self.apart:
                    there.setenv("PALMKIT_CACHE", str(self.apart))
                yield n, executor.attempt(work, *arguments)


def clips_of(home):
    data = load_dataset(home / "tiny")
    return [str(path) for path in [*data.train["path"], *data.test["path"]]]


@pytest.mark.parametrize("clips, jobs, size", [(10, 2, 16), (1000, 2, 125), (100_000, 4, 1024)])
def test_shards_are_neither_tiny_nor_endless(clips, jobs, size):
    assert shards.shard_size(clips, jobs) == size


def test_what_is_missing_is_listed_once_in_order(home):
    load_plugins([home / "toy_model.py"])
    model, paths = load_model("toy"), clips_of(home)
    embed(model, paths[2:4])
    assert list_missing(model, [*paths, paths[0]]) == [*paths[:2], *paths[4:]]
    assert list_missing(model, paths, None) == paths
    (home / "tiny" / "bad.wav").write_text("no sound")
    bad = str(home / "tiny" / "bad.wav")
    assert list_missing(model, [bad]) == [bad]


@pytest.mark.slow
def test_a_shared_cache_is_filled_by_the_workers(home, monkeypatch):
    grid = ["--method", "zeroshot", "gda", "--seed", 0, 1]
    monkeypatch.setattr(shards, "SMALLEST", 4)
    engine = Here(monkeypatch)
    before = embedding.embed
    encoded = []
    monkeypatch.setattr(
        embedding, "embed", lambda model, clips, **more: encoded.append(
            len(list_missing(model, clips["path"], more["cache"], more["crop"], more["crop_seed"]))
        ) or before(model, clips, **more),
    )  # fmt: skip
    with use_engine(engine):
        assert run(home, "there", *grid) == 0
    assert engine.ran.count("embed_shard") == 3  # 10 clips, 4 at a time
    assert not any(encoded)  # nothing was left to the command
    monkeypatch.setenv("PALMKIT_CACHE", str(home / "other"))
    assert run(home, "here", *grid) == 0
    here, there = all_rows(home, "here"), all_rows(home, "there")
    assert len(here) == 3 and [*map(same, here)] == [*map(same, there)]


@pytest.mark.slow
def test_with_caches_of_their_own_the_command_embeds_nothing(home, monkeypatch):
    grid = ["--method", "zeroshot", "gda", "--seed", 0, 1]
    with use_engine(Here(monkeypatch, apart=home / "theirs")):
        assert run(home, "there", *grid) == 0
    assert not [*(home / "cache").rglob("*.shard")] and [*(home / "theirs").rglob("*.shard")]
    assert run(home, "here", *grid) == 0
    assert [*map(same, all_rows(home, "here"))] == [*map(same, all_rows(home, "there"))]


def test_a_bad_clip_is_named_as_without_shards(home, monkeypatch):
    grid = ["--method", "gda", "--seed", 0]
    (home / "tiny" / "belltest0.wav").write_text("no sound")
    assert run(home, "here", *grid) == 1
    with use_engine(Here(monkeypatch)):
        assert run(home, "there", *grid) == 1
    (here,), (there,) = all_rows(home, "here"), all_rows(home, "there")
    assert here["failed"] == there["failed"] and "belltest0.wav" in here["failed"]


def test_another_version_embeds_nothing(home, monkeypatch):
    with pytest.raises(WorkerDiffers, match="instead of 1.0"):
        shards.embed_shard(None, (("torch", "1.0"),), "default", None, [])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mini", "mini-clap"])
def test_an_embedded_model_gives_the_same_bits_in_shards_and_by_any_threads(name, tmp_path, tones):
    model = load_model(name)
    reference, settings = ModelReference.of(model, name), EmbedSettings("random", 0)
    cache, found = tmp_path / "shards", []
    for threads in (1, 2):
        with executor.threads(threads):
            found.append(embed(model, tones, cache=None, **settings.arguments(model)))
    for chunk in (tones[:3], tones[3:10], tones[10:]):
        shards.embed_shard(reference, own_versions(), str(cache), settings, chunk)
    assert not list_missing(model, tones, cache, "random", 0)
    found.append(embed(model, tones, cache=cache, **settings.arguments(model)))
    assert all(torch.equal(found[0].features, one.features) for one in found)
    assert all(found[0].offsets == one.offsets for one in found)


@pytest.fixture
def tones(tmp_path):
    """21 files of noise and tones, of several lengths."""
    import soundfile

    rng, paths = np.random.default_rng(0), []
    for n in range(21):
        seconds = np.linspace(0, 1 + n % 5, 44_100 * (1 + n % 5))
        tone = 0.2 * np.sin(2 * np.pi * 110 * (n + 1) * seconds)
        paths.append(str(tmp_path / f"{n}.wav"))
        soundfile.write(paths[-1], tone + 0.05 * rng.standard_normal(len(tone)), 44_100)
    return paths


@pytest.mark.slow
def test_local_processes_embed_in_shards_where_it_takes_long(home, monkeypatch):
    monkeypatch.setenv("PALMKIT_JOBS", "2")
    monkeypatch.setattr(shards, "SMALLEST", 4)
    grid = ["--method", "zeroshot", "gda", "--seed", 0, 1]
    seen = []
    before = shards.in_parallel

    def slow(function, calls, seconds, *more):
        seen.append(len(calls))
        return before(function, calls, [99.0] * len(calls), *more)

    monkeypatch.setattr(shards, "in_parallel", slow)
    monkeypatch.setattr(shards, "START", -1.0)
    assert run(home, "there", *grid) == 0
    assert seen == [3] and [*cache_root().rglob("*.shard")]  # one worker may take all of them
    monkeypatch.setenv("PALMKIT_CACHE", str(home / "other"))
    monkeypatch.setenv("PALMKIT_JOBS", "1")
    assert run(home, "here", *grid) == 0 and seen == [3]
    assert [*map(same, all_rows(home, "here"))] == [*map(same, all_rows(home, "there"))]


@pytest.mark.slow
def test_a_model_is_not_timed_where_nothing_is_embedded(home, monkeypatch):
    grid = ["--method", "gda", "--seed", 0, 1]
    monkeypatch.setattr(timing, "clip_times", {})
    assert run(home, "one", *grid) == 0 and len(timing.clip_times) == 1
    monkeypatch.setattr(timing, "clip_times", {})
    assert run(home, "two", *grid) == 0 and timing.clip_times == {}
    assert run(home, "three", *grid, "--dry-run") == 0 and timing.clip_times == {}
