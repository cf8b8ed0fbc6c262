"""Embeddings of every epoch: they repeat, go on where they stopped, and are computed once."""

import json
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from noise import assert_same, count_steps, embed_epochs

from palmkit import AudioError, audio, embed
from palmkit.audio import file_digest
from palmkit.protocols import streams
from palmkit.protocols.train_mode import STOCHASTIC, TrainModeAudio
from palmkit.store import TensorStore

pytestmark = pytest.mark.usefixtures("one_thread")

RECORDED_STARTS = [[39764, 38744], [36285, 21572], [39142, 5039]]
RECORDED_FEATURES = [
    -0.146154, -0.071255, 0.007105, 0.029922, -0.035186, 0.089144, 0.092580, -0.002364,
    0.068796, -0.043847, 0.005527, -0.179926, -0.062155, -0.099400, 0.045150, 0.041005,
    -0.155654, -0.027068, 0.088388, -0.028765, -0.028464, -0.070973, -0.208023, 0.094723,
    -0.056343, -0.115061, -0.040157, 0.073933, -0.102988, 0.000110, 0.064325, 0.001010,
    -0.235112, -0.009197, 0.048759, -0.274189,
]  # fmt: skip
RECORDED_MEAN = [-9.915952, -13.25648, -10.54521]


# Nothing random: the frozen protocol, bit for bit.


@pytest.mark.slow
@pytest.mark.parametrize("crop", ["random", "center"])
def test_without_parts_a_stream_is_the_frozen_table(tiny_pengi, clips, long_clips, crop):
    paths = [*clips["path"], *long_clips]
    table = embed(tiny_pengi, paths, cache=None, crop=crop)
    stream = embed_epochs(tiny_pengi, paths, stochastic=(), crop=crop)
    assert (
        all(torch.equal(epoch, table.features) for epoch in stream.features)
        and len(stream.features) == 2
    )
    assert stream.offsets == [table.offsets] * 2 and any(table.offsets)


@pytest.mark.slow
def test_epochs_that_are_all_the_same_are_computed_once(tiny_pengi, clips, monkeypatch):
    computed, embed_epoch = [], streams._ClipBuffer.embed_epoch

    def watched(self, pool, epoch, *about):
        computed.append(epoch)
        return embed_epoch(self, pool, epoch, *about)

    monkeypatch.setattr(streams._ClipBuffer, "embed_epoch", watched)
    embed_epochs(tiny_pengi, clips, stochastic=("text_dropout",))
    assert computed == [0]
    embed_epochs(tiny_pengi, clips, stochastic=("specaugment",))
    assert computed == [0, 0, 1]


# Streams: seeded, frozen outside, cached.


@pytest.mark.slow
def test_a_stream_repeats_and_touches_nothing(tiny_pengi, clips):
    before = (
        tiny_pengi.digest(),
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
    )
    one = embed_epochs(tiny_pengi, clips)
    after = (
        tiny_pengi.digest(),
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
    )
    assert before[0] == after[0] and torch.equal(before[1], after[1]) and before[2:] == after[2:]
    assert not any(module.training for module in tiny_pengi.audio.modules())
    torch.manual_seed(99)
    assert_same(one, embed_epochs(tiny_pengi, clips))
    assert not torch.allclose(one.features, embed_epochs(tiny_pengi, clips, seed=1).features)
    assert (
        one.features.norm(dim=-1).allclose(torch.ones(2, 6))
        and one.labels.tolist() == [0, 1, 2] * 2
    )


def test_an_error_leaves_the_model_as_it_was(tiny_pengi, clips, monkeypatch, quick):
    before = tiny_pengi.digest()
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embed_epochs(tiny_pengi, clips)
    assert tiny_pengi.digest() == before and not any(
        module.training for module in tiny_pengi.audio.modules()
    )


def test_an_interrupted_stream_goes_on_and_a_longer_one_begins_where_it_ended(
    tiny_pengi, clips, cache, monkeypatch, quick
):
    whole = embed_epochs(tiny_pengi, clips, 3)
    steps = count_steps(monkeypatch)
    counted = TrainModeAudio.__call__

    def die(self, x, epoch, step):
        if (epoch, step) == (1, 1):
            raise KeyboardInterrupt
        return counted(self, x, epoch, step)

    monkeypatch.setattr(TrainModeAudio, "__call__", die)
    with pytest.raises(KeyboardInterrupt):
        embed_epochs(tiny_pengi, clips, 2, cache=cache)
    monkeypatch.setattr(TrainModeAudio, "__call__", counted)
    steps.clear()
    two = embed_epochs(tiny_pengi, clips, 2, cache=cache)
    assert steps == [(1, 0), (1, 1)] and torch.equal(two.features, whole.features[:2])
    steps.clear()
    assert_same(embed_epochs(tiny_pengi, clips, 3, cache=cache), whole)
    assert steps == [(2, 0), (2, 1)]


@pytest.mark.parametrize("kind", ["streams", "waveforms"])
def test_damaged_entries_are_noticed(kind, tiny_pengi, clips, cache, quick):
    """An epoch, or a waveform that an epoch needs: computed anew, once, with the same result."""
    whole = embed_epochs(tiny_pengi, clips, cache=cache)
    path = sorted(cache.glob(f"*/{kind}/**/*.shard"))[0]
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    settings = dict(cache=cache) if kind == "streams" else dict(cache=cache, seed=1)
    expected = whole if kind == "streams" else embed_epochs(tiny_pengi, clips, seed=1)
    with pytest.warns(UserWarning, match=f"{kind}.* is not usable .*computed anew"):
        assert_same(embed_epochs(tiny_pengi, clips, **settings), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert_same(embed_epochs(tiny_pengi, clips, **settings), expected)


def test_long_waveforms_are_mapped(long_clips, cache):
    """From their first use on, so that memory does not hold a whole dataset."""
    path, waveforms = long_clips[0], []
    for _ in range(2):
        with TensorStore(cache, "waveforms", {"sample_rate": 44_100}) as store:
            waveforms.append(streams.read_waveform(path, file_digest(path), 44_100, store))
    expected = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    assert all(torch.equal(waveform, expected) for waveform in waveforms)
    assert len(list(cache.glob("**/*.entry"))) == 1
    if sys.platform == "linux":
        maps = Path("/proc/self/maps").read_text()
        assert maps.count(str(next(cache.glob("**/*.entry")))) == 2


def test_a_file_that_changes_meanwhile_is_refused(clips, cache):
    with (
        TensorStore(cache, "waveforms", {}) as store,
        pytest.raises(AudioError, match="was changed while it was read"),
    ):
        streams.read_waveform(clips["path"][0], "another digest", 44_100, store)


def test_an_embedding_that_is_not_finite(tiny_pengi, clips, cache, tmp_path):
    """The error names file and row, and no epoch is kept."""
    loud = tmp_path / "loud.wav"
    soundfile.write(loud, 1e19 * np.random.default_rng(0).uniform(-0.5, 0.5, 900), 44_100, "FLOAT")
    frame = pd.concat([clips, pd.DataFrame({"path": [str(loud)], "label": [0]})]).set_axis(
        range(2, len(clips) + 3)
    )
    frame.attrs["csv"] = "train.csv"
    expected = rf"loud.wav: .*not finite.*peak is 5e\+18.*row {len(clips) + 2} of train.csv"
    with pytest.raises(AudioError, match=expected):
        embed_epochs(tiny_pengi, frame, cache=cache)
    assert not list(cache.glob("*/streams/**/*.shard"))


def test_streams_of_odd_rates_have_their_own_name(tiny_pengi, clips, cache, tmp_path):
    """soxr resamples them, and the cache's names say so."""
    odd = tmp_path / "odd.wav"
    soundfile.write(odd, np.random.default_rng(0).uniform(-0.5, 0.5, 900), 44_101)
    embed_epochs(tiny_pengi, [odd], 1, cache=cache)
    (setting,) = cache.glob("*/streams/*/provenance.json")
    (name,) = json.loads(setting.read_text())["clips"]
    assert name.startswith(f"{file_digest(odd)} soxr")


def test_a_stream_is_as_it_was(tiny_pengi, clips, long_clips, quick):
    """Recorded before streams were kept in the store: starts of crops, and what they give.

    With an encoder whose arithmetic is simple; its rounding depends on the processor a little.
    """
    stream = embed_epochs(tiny_pengi, [*clips["path"], *long_clips], 3, seed=1)
    assert [epoch[6:] for epoch in stream.offsets] == RECORDED_STARTS
    assert all(epoch[:6] == [0] * 6 for epoch in stream.offsets)
    got = stream.features[:, ::3, :4].flatten().tolist()
    assert got == pytest.approx(RECORDED_FEATURES, abs=2e-6)
    assert stream.bn0["running_mean"][:3].tolist() == pytest.approx(RECORDED_MEAN, abs=1e-5)


def test_files_are_decoded_once(tiny_pengi, clips, long_clips, cache, monkeypatch, quick):
    decoded, real = [], audio.decode

    def decode(data, path, sample_rate):
        decoded.append(path)
        return real(data, path, sample_rate)

    monkeypatch.setattr(audio, "decode", decode)
    paths = [*clips["path"], *long_clips]
    embed_epochs(tiny_pengi, paths, 3, cache=None, stochastic=["crops"])
    assert sorted(decoded) == sorted(paths)
    embed_epochs(tiny_pengi, paths, 1, cache=cache, stochastic=["crops"])
    decoded.clear()
    embed_epochs(tiny_pengi, paths, 2, cache=cache, stochastic=["crops"], seed=1)
    assert not decoded


@pytest.mark.slow
def test_what_does_not_change_is_computed_once(tiny_pengi, clips, long_clips, monkeypatch, quick):
    """Log-mels of short clips; of a long one a fresh crop each epoch, unless `crop` says which."""
    started, real = [], TrainModeAudio.precompute

    def precompute(self, waveforms):
        started.append(len(waveforms))
        return real(self, waveforms)

    monkeypatch.setattr(TrainModeAudio, "precompute", precompute)
    paths = [*clips["path"], long_clips[0]]
    embed_epochs(tiny_pengi, paths, 3, stochastic=["crops", "bn0"])
    assert sum(started) == 7 + 2
    started.clear()
    embed_epochs(tiny_pengi, paths, 3, stochastic=["crops", "bn0"], crop="start")
    assert sum(started) == 7
    kept = embed_epochs(tiny_pengi, paths, 3, stochastic=["bn0"])
    started.clear()
    monkeypatch.setattr(streams, "BUFFER_BYTES", 0)
    assert_same(embed_epochs(tiny_pengi, paths, 3, stochastic=["bn0"]), kept)
    assert sum(started) == 3 * 7


def test_crops_are_drawn_anew_each_epoch_and_seed(tiny_pengi, long_clips, quick):
    one, two = (
        embed_epochs(tiny_pengi, long_clips, 3, stochastic=["crops"], seed=seed) for seed in (0, 1)
    )
    drawn = [start for stream in (one, two) for epoch in stream.offsets for start in epoch]
    assert len(set(drawn)) == 12 and all(0 <= start < 44_100 for start in drawn)
    table = embed(tiny_pengi, long_clips, cache=None, crop=one.offsets[1][0])
    assert torch.equal(one.features[1, 0], table.features[0])
    center = embed_epochs(tiny_pengi, long_clips, stochastic=["crops"], crop="center")
    assert center.offsets == [[22_050, 22_050]] * 2
    assert streams.crop_seed_at_test(STOCHASTIC, 0, 0) != streams.crop_seed_at_test(
        STOCHASTIC, 1, 0
    )
    assert streams.crop_seed_at_test(["bn0"], 1, 5) == 5


@pytest.mark.slow
def test_a_stream_s_key_names_all_that_changes_it(tiny_pengi, clips, cache, monkeypatch, quick):
    steps = count_steps(monkeypatch)

    def new(**settings):
        steps.clear()
        embed_epochs(tiny_pengi, settings.pop("clips", clips), 1, cache=cache, **settings)
        return bool(steps)

    assert (
        new()
        and not new()
        and not new(stochastic=[part for part in STOCHASTIC if part != "text_dropout"])
    )
    for other in (
        dict(seed=1),
        dict(batch_size=3),
        dict(stochastic=["bn0"]),
        dict(crop="start"),
        dict(crop_seed=1),
    ):
        assert new(**other) and not new(**other), other
    assert new(clips=clips.iloc[::-1]) and not new()
    monkeypatch.setitem(tiny_pengi.config, "projection_dropout", 0.25)
    assert new()


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(stochastic=["bn1"]), "no random part 'bn1'; there are crops, bn0"),
        (dict(batch_size=0), "nothing to do"),
    ],
)
def test_settings_that_make_no_sense(tiny_pengi, clips, settings, message):
    with pytest.raises(ValueError, match=message):
        embed_epochs(tiny_pengi, clips, **settings)


def test_a_file_that_cannot_be_read_is_named(tiny_pengi, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    frame = pd.DataFrame(
        {"path": [str(tmp_path / "broken.wav")], "label": [0], "csv": "train.csv", "row": 7}
    )
    with pytest.raises(AudioError, match=r"broken.wav: cannot be decoded.*\(row 7 of train.csv\)"):
        embed_epochs(tiny_pengi, frame)
