"""The corpus folder and the default datasets on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from mini_pengi import corpus
from mini_pengi.front_end import log_mel

from palmkit.datasets.resolve import list_folds, load_dataset
from palmkit_synthetic import tasks
from palmkit_synthetic.concepts import HELD_OUT

ROWS = [("dog", 0), ("guitar", 1), ("dog", 1), ("one", 0), ("rain", 0)]


@pytest.fixture
def small(monkeypatch):
    """A corpus of five clips in three shards."""
    monkeypatch.setattr(
        corpus, "list_clips", lambda *_: pd.DataFrame(ROWS, columns=["concept", "index"])
    )
    monkeypatch.setattr(corpus, "SHARD", 2)


def test_corpus_has_every_training_concept_and_no_held_out_one():
    table = corpus.list_clips()
    assert 12_000 < len(table) < 14_000
    assert HELD_OUT.isdisjoint(table["concept"])
    assert not table.duplicated().any()
    assert table["concept"].value_counts().min() >= 40
    assert corpus.list_clips(seed=0).equals(table) and not corpus.list_clips(seed=1).equals(table)


@pytest.mark.slow
def test_corpus_is_what_its_clips_are(tmp_path, small):
    made = corpus.build_corpus(tmp_path, processes=1)
    assert [len(shard) for shard in made.shards.values()] == [2, 2, 1]
    assert [made.concepts[k] for k in made.concept_ids] == [concept for concept, _ in ROWS]
    log_mels = made.log_mels([0, 4])
    assert log_mels.shape == (2, 690, 64) and log_mels.dtype == np.float32
    again = log_mel(torch.from_numpy(made.waveform(4))[None])[0].numpy()
    np.testing.assert_allclose(log_mels[1], again, atol=0.07)  # float16 near 100 dB
    assert 0 < made.parameters(0)["level"] <= 1


@pytest.mark.slow
def test_build_goes_on_where_it_stopped(tmp_path, small):
    before = corpus.build_corpus(tmp_path, processes=1).log_mels(range(5))
    corpus.shard_path(tmp_path, 1).unlink()
    assert list(corpus.Corpus(tmp_path).clips.index) == [0, 1, 4]
    kept = corpus.shard_path(tmp_path, 0).stat().st_mtime_ns
    after = corpus.build_corpus(tmp_path, processes=1).log_mels(range(5))
    np.testing.assert_array_equal(before, after)
    assert corpus.shard_path(tmp_path, 0).stat().st_mtime_ns == kept


@pytest.mark.slow
def test_another_recipe_is_refused(tmp_path, small):
    corpus.build_corpus(tmp_path, processes=1)
    with pytest.raises(corpus.CorpusError, match="delete it or choose another"):
        corpus.build_corpus(tmp_path, hop=441, processes=1)
    with pytest.raises(corpus.CorpusError, match="build_corpus"):
        corpus.Corpus(tmp_path / "nothing")


@pytest.mark.slow
def test_a_task_loads_as_a_published_dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "CLIPS_PER_CLASS", 4)
    folder = tasks.build_task("VocalSounds", tmp_path, processes=1)
    assert list_folds(folder) == [1, 2]
    for fold in (1, 2):
        dataset = load_dataset(folder, fold)
        assert dataset.class_names == [
            "cough",
            "laughter",
            "sigh",
            "sneeze",
            "sniff",
            "throat clearing",
        ]
        assert (
            dataset.train["label"].value_counts().eq(2).all()
            and dataset.test["label"].value_counts().eq(2).all()
        )
        assert set(dataset.train["path"]).isdisjoint(dataset.test["path"])
    assert set(load_dataset(folder, 1).test["path"]) == set(load_dataset(folder, 2).train["path"])
    samples, rate = soundfile.read(dataset.test["path"][2])
    assert rate == tasks.RATE and 0.3 < len(samples) / rate < 5 and np.abs(samples).max() > 0.03


@pytest.mark.slow
def test_a_task_is_made_once_and_another_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "CLIPS_PER_CLASS", 2)
    folder = tasks.build_task("GermanEmotions", tmp_path, processes=1)
    monkeypatch.setattr(tasks, "write_class", None)  # would fail if called
    assert tasks.build_task("GermanEmotions", tmp_path, processes=1) == folder
    path = folder / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "older"}))
    with pytest.raises(tasks.TaskError, match="another version"):
        tasks.build_task("GermanEmotions", tmp_path)
    with pytest.raises(tasks.TaskError, match="there is no task Nothing"):
        tasks.build_task("Nothing", tmp_path)


def test_an_unfinished_task_is_made_again(tmp_path, monkeypatch):
    """Whatever an earlier version left there; a folder with other files is not touched."""
    monkeypatch.setattr(tasks, "CLIPS_PER_CLASS", 1)
    folder = tmp_path / "GermanEmotions"
    (folder / "audios").mkdir(parents=True)
    (folder / "audios" / "stale.flac").touch()
    tasks.build_task("GermanEmotions", tmp_path, processes=1)
    assert len([*(folder / "audios").iterdir()]) == 4
    (folder / "provenance.json").unlink()
    (folder / "notes.txt").touch()
    with pytest.raises(tasks.TaskError, match="holds 'notes.txt', which is no part of the task"):
        tasks.build_task("GermanEmotions", tmp_path, processes=1)


def test_a_task_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="choose another place with PALMKIT_CACHE"):
        tasks.build_task("GermanEmotions", tmp_path / "file", processes=1)


ASCII = """
from palmkit_synthetic import tasks
tasks.CLIPS_PER_CLASS = 1
print(ascii(tasks.build_task("GermanEmotions", processes=1)))
"""


@pytest.mark.slow
def test_a_task_is_made_in_a_locale_without_utf8(tmp_path):
    env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    env |= {"PALMKIT_CACHE": str(tmp_path / "é")}
    done = subprocess.run([sys.executable, "-c", ASCII], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len([*tmp_path.glob("é/mini-tasks/*/GermanEmotions/audios/*.flac")]) == 4


@pytest.mark.slow
def test_a_task_without_folds_is_one_split(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "CLIPS_PER_CLASS", 2)
    folder = tasks.build_task("SoundEvents", tmp_path, processes=1)
    assert list_folds(folder) == [None]
    dataset = load_dataset(folder)
    assert len(dataset.class_names) == len(dataset.train) == len(dataset.test) == 20
    assert set(dataset.train["path"]).isdisjoint(dataset.test["path"])


@pytest.mark.slow
def test_several_processes_make_the_same_clips(tmp_path):
    folders = [tasks.build_task("GermanEmotions", tmp_path / str(n), processes=n) for n in (1, 2)]
    clips = [sorted((folder / "audios").iterdir()) for folder in folders]
    assert [path.name for path in clips[0]] == [path.name for path in clips[1]] and len(
        clips[0]
    ) == 160
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*clips, strict=True))


def test_the_default_tasks_are_of_several_kinds():
    default = [tasks.TASKS[name] for name in tasks.DEFAULT_TASKS]
    assert len({task.kind for task in default}) >= 5
    assert max(len(task.classes) for task in default) >= 20
    assert "GermanEmotions" in tasks.DEFAULT_TASKS  # speech that is not English
    assert {task.folds for task in default} == {True, False}  # both published layouts
    assert 1500 <= tasks.CLIPS_PER_CLASS * sum(len(task.classes) for task in default) <= 2100
    assert set(tasks.TASKS["UnseenConcepts"].classes) == HELD_OUT


def test_workers_start_where_a_terminal_s_signals_do_not_reach_them(tmp_path, monkeypatch):
    masks = []

    def parallel(*_, **__):
        def start(calls):
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
            raise RuntimeError("started")

        return start

    monkeypatch.setattr(tasks, "Parallel", parallel)
    with pytest.raises(RuntimeError, match="started"):
        tasks.build_task("VocalSounds", tmp_path)
    assert {signal.SIGINT, signal.SIGHUP} <= masks[0]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
