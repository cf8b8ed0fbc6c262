"""What thousands of clips, classes and draws share is looked at once, and kept once.

Nothing is timed: comparisons, copies and bytes are counted.
"""

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from soundfile import write as write_sound

from palmkit import draw_shots, embed
from palmkit.audio import REMEMBERED, file_digest
from palmkit.embeddings import Embeddings
from palmkit.storage import map_in_chunks


class Counted(str):
    """A class name that counts how often it is compared with another."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Counted.compared += 1
        return str.__eq__(self, other)


@pytest.mark.parametrize("classes", [10, 40])
def test_a_draw_does_not_compare_every_clip_with_every_class(classes):
    names = [Counted(f"class {n % classes}") for n in range(800)]
    train = pd.DataFrame({"path": range(800), "class_name": pd.Series(names, dtype=object)})
    Counted.compared = 0
    assert len(draw_shots(train, 2)) == 2 * classes
    assert Counted.compared <= 3 * len(train)


def test_a_draw_is_that_of_pandas():
    """The published code draws by `sample`, class after class, with one generator."""
    names = [f"class {n % 7}" for n in range(100)]
    train = pd.DataFrame({"path": range(100), "class_name": names}, index=range(2, 102))
    stream = np.random.RandomState(5)
    wanted = [
        train[train["class_name"] == name].sample(4, random_state=stream)
        for name in sorted(set(names))
    ]
    pd.testing.assert_frame_equal(draw_shots(train, 4, seed=5), pd.concat(wanted))


def test_a_warning_names_a_few_of_many_classes():
    names = [f"class {n:03d}" for n in range(300)]
    train = pd.DataFrame({"path": range(300), "class_name": names})
    with pytest.warns(UserWarning, match="300 classes have fewer than 16.* and 280 more") as caught:
        draw_shots(train, 16)
    assert "class 019" in str(caught[0].message) and "class 020" not in str(caught[0].message)


def test_chunks_keep_the_order_and_name_the_first_error():
    def refuse(item):
        if item in (70, 150):
            raise ValueError(str(item))
        return item

    with ThreadPoolExecutor(4) as pool:
        assert [*map_in_chunks(pool, lambda item: 2 * item, range(200))] == [*range(0, 400, 2)]
        with pytest.raises(ValueError, match="^70$"):
            list(map_in_chunks(pool, refuse, range(200)))


def test_a_pool_gets_a_task_for_many_clips(monkeypatch):
    tasks = []

    class Pool(ThreadPoolExecutor):
        def submit(self, *arguments):
            tasks.append(threading.get_ident())
            return super().submit(*arguments)

    with Pool(2) as pool:
        assert len([*map_in_chunks(pool, str, range(1000))]) == 1000
    assert len(tasks) <= 20


def test_every_clip_of_the_largest_datasets_is_remembered(tmp_path):
    """AudioSet has 2 million clips; each look at all of them would else read all of them."""
    assert REMEMBERED >= 2_100_000
    path = tmp_path / "clip.wav"
    path.write_bytes(b"clip")
    assert file_digest(path) == file_digest(path)


def test_selecting_for_many_draws_looks_at_all_paths_once():
    class Paths(list):
        looks = 0

        def __iter__(self):
            Paths.looks += 1
            return super().__iter__()

    paths = Paths(f"{n}.wav" for n in range(50))
    clips = Embeddings(torch.randn(50, 4), torch.zeros(50), paths, [0] * 50)
    frames = [pd.DataFrame({"path": [f"{n}.wav"], "label": [n]}) for n in range(20)]
    found = clips.select_each(frames)
    assert Paths.looks == 1
    assert all(torch.equal(one.features[0], clips.features[n]) for n, one in enumerate(found))
    assert [one.labels.item() for one in found] == [*range(20)]


class Wide:
    """A model whose embeddings are large, so that their copies can be counted in bytes."""

    name, sample_rate, clip_seconds, dim = "wide", 8000, 0.01, 30_000
    logit_scale, prompt, note = 1.0, "{}", ""
    device, dtype = torch.device("cpu"), torch.float32

    def encode_audio(self, waveforms):
        return torch.ones(len(waveforms), self.dim)

    def encode_text(self, prompts):
        return torch.ones(len(prompts), self.dim)

    def digest(self):
        return "wide"


def test_embeddings_of_the_cache_are_in_memory_once(tmp_path):
    model, count = Wide(), 40
    paths = [tmp_path / f"{n}.wav" for n in range(count)]
    for n, path in enumerate(paths):
        write_sound(path, np.sin((n + 1) * np.arange(80) / 9), 8000)
    embed(model, paths, cache=tmp_path / "cache")
    tracemalloc.start()
    try:
        found = embed(model, paths, cache=tmp_path / "cache", on_progress=refuse)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.4 * found.features.nbytes


def refuse(done, total):
    raise AssertionError("nothing is to be encoded")
