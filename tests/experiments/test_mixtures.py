"""Mixtures of two sounds have the ratio that they say, and are of new sounds."""

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from notebook_cells import make_tiny_dataset
from scipy import signal

from palmkit import ZeroShot, load_dataset
from palmkit.experiments.mixtures import (
    guess_mixtures,
    mix,
    write_joined,
    write_mixtures,
    write_recordings,
)
from palmkit_synthetic.clips import draw_clip
from palmkit_synthetic.domain import TASK
from palmkit_synthetic.tasks import CLIPS_PER_CLASS, RATE, TASKS, task_clip

TIME = np.arange(8000) / 8000
LOW, HIGH = 0.3 * np.sin(2 * np.pi * 100 * TIME), 0.02 * np.sin(2 * np.pi * 1000 * TIME)


@pytest.mark.parametrize("ratio", [-20, 0, 6])
def test_the_ratio_is_that_of_the_powers(ratio):
    spectrum = np.abs(np.fft.rfft(mix(LOW, HIGH, ratio))) ** 2
    assert 10 * np.log10(spectrum[100] / spectrum[1000]) == pytest.approx(ratio, abs=1e-6)


def test_length_and_level_are_known():
    short = mix(LOW, HIGH[:1000], 0)
    assert len(short) == len(LOW) and np.abs(short).max() == pytest.approx(0.9)
    assert np.allclose(short, mix(LOW, np.tile(HIGH[:1000], 8), 0))


def test_silence_has_no_ratio():
    with pytest.raises(ValueError, match="silent"):
        mix(LOW, 0 * HIGH, 0)


def test_written_mixtures_are_of_sounds_outside_of_the_dataset(tmp_path):
    table = write_mixtures(tmp_path, "SoundEvents", pairs=2, ratios_db=[-6, 6], seed=1)
    assert table["pair"].tolist() == [0, 0, 1, 1] and table["ratio_db"].tolist() == [-6, 6] * 2
    assert (table["first"] != table["second"]).all()
    assert set(table["first"]) | set(table["second"]) <= set(TASKS["SoundEvents"].classes)
    line = table.iloc[1]
    sounds = [
        signal.resample_poly(task_clip("SoundEvents", line[part], CLIPS_PER_CLASS + n), 1, 2)
        for n, part in enumerate(("first", "second"))
    ]
    waveform, rate = soundfile.read(line["path"])
    assert rate == RATE and np.allclose(waveform, mix(*sounds, 6), atol=1e-4)


@pytest.mark.slow
def test_recordings_say_whether_they_were_made_in_a_room(tmp_path):
    table = write_recordings(tmp_path, ["dog", "rain"], clips=6)
    assert table["class_name"].tolist() == ["dog"] * 6 + ["rain"] * 6
    assert table["room"].any() and not table["room"].all()
    for place, line in table.iloc[:2].iterrows():
        waveform, parameters = draw_clip("dog", CLIPS_PER_CLASS + place, domain=TASK, seconds=2.5)
        written, _ = soundfile.read(line["path"])
        assert np.allclose(written, waveform, atol=1e-4) and line["room"] == ("wet" in parameters)


def test_guesses_of_mixtures(tiny_pengi):
    """Features that are the text of a class have this class as their guess."""
    method = ZeroShot(tiny_pengi, ["bell", "dog", "rain"])
    pairs = {"first": ["dog", "bell", "bell"], "second": ["rain", "dog", "rain"]}
    mixtures = pd.DataFrame(pairs).assign(ratio_db=0)
    features = method.text[[1, 1, 1]]
    table = guess_mixtures({("zeroshot", 0): method, ("zeroshot", 1): method}, mixtures, features)
    assert table["seed"].tolist() == [0, 0, 0, 1, 1, 1]
    assert table["is_first"].tolist() == [True, False, False] * 2
    assert table["is_second"].tolist() == [False, True, False] * 2
    assert table["neither"].tolist() == [False, False, True] * 2
    expected = method(features).softmax(1).amax(1)
    assert table["confidence"][:3].to_numpy() == pytest.approx(expected.numpy(), rel=1e-5)
    assert torch.isfinite(expected).all()


def test_joined_clips_are_of_one_class_and_one_split(tmp_path):
    """A recording is the clips from its own on, and the first ones follow the last."""
    source = make_tiny_dataset(tmp_path / "short", ("dog", "cat & co"), folds=1, clips=3)
    data = load_dataset(str(source))
    joined = load_dataset(str(write_joined(tmp_path / "long", data, clips=4)))
    assert joined.class_names == data.class_names and joined.fold is None
    for split in ("train", "test"):
        short, long = getattr(data, split), getattr(joined, split)
        for name, paths in long.groupby("class_name")["path"]:
            clips = [soundfile.read(path)[0] for path in short[short["class_name"] == name]["path"]]
            starts = range(0, len(clips), 2)
            assert len(paths) == len(starts)
            for path, start in zip(paths, starts, strict=True):
                expected = np.concatenate([clips[(start + n) % len(clips)] for n in range(4)])
                waveform, rate = soundfile.read(path)
                assert rate == 8000 and np.allclose(waveform, expected, atol=1e-4)
