"""Corrupted clips: as strong as asked for, repeatable, and apart in the cache."""

import numpy as np
import pytest
import soundfile
import torch

from palmkit.corruptions import CORRUPTIONS, Corruption
from palmkit.embeddings import embed

RATE = 44_100
SECONDS = torch.arange(RATE) / RATE
TONE = torch.sin(2 * torch.pi * 1000 * SECONDS) + 0.5 * torch.sin(2 * torch.pi * 8000 * SECONDS)


def corrupted(waveform, kind, strength, seed="", rate=RATE):
    return Corruption(kind, strength, rate)(waveform, seed)


def test_strengths_are_what_they_say():
    noise = corrupted(TONE, "noise", 10) - TONE
    ratio = 10 * torch.log10(TONE.square().mean() / noise.square().mean()).item()
    assert ratio == pytest.approx(10, abs=0.1)
    assert torch.allclose(corrupted(TONE, "level", -20), TONE / 10, atol=1e-6)
    cut = corrupted(TONE, "clipping", 0.25)
    at_ceiling = cut.abs() > cut.abs().max() - 1e-6
    assert at_ceiling.double().mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(cut, TONE.clamp(-cut.abs().max(), cut.abs().max()))


@pytest.mark.parametrize(("rate", "edge"), [(RATE, 4000), (RATE // 2, 2000)])
def test_a_band_limit_is_in_hertz(rate, edge):
    """The same samples at half the rate hold half the frequencies."""
    power = torch.fft.rfft(corrupted(TONE, "band", edge, rate=rate)).abs()
    assert power[1000] > 2e4 and power[8000] < 1
    assert torch.fft.rfft(corrupted(TONE, "band", 9000, rate=rate)).abs()[8000] > 1e4


def test_it_repeats_and_every_clip_has_its_own_noise():
    for kind in CORRUPTIONS:
        assert torch.equal(corrupted(TONE, kind, 0.5, "a"), corrupted(TONE, kind, 0.5, "a"))
    assert not torch.equal(corrupted(TONE, "noise", 0, "a"), corrupted(TONE, "noise", 0, "b"))
    assert not corrupted(torch.zeros(99), "noise", 0).any()


def test_an_unknown_kind():
    with pytest.raises(ValueError, match="'wind'; use one of noise, level, band, clipping"):
        Corruption("wind", 1, RATE)


@pytest.mark.slow
def test_corrupted_clips_have_cache_entries_of_their_own(tiny_pengi, tmp_path):
    rng, paths = np.random.default_rng(0), [tmp_path / f"{n}.wav" for n in range(2)]
    for path in paths:
        soundfile.write(path, rng.standard_normal(4410) * 0.1, RATE)
    kinds = [("noise", 0), ("noise", 20), ("level", -20)]
    transforms = [None, *(Corruption(*kind, RATE) for kind in kinds)]
    fresh = [embed(tiny_pengi, paths, cache=None, transform=t).features for t in transforms]
    for _ in range(2):  # computed, then read
        for features, transform in zip(fresh, transforms, strict=True):
            cached = embed(tiny_pengi, paths, cache=tmp_path / "cache", transform=transform)
            assert torch.equal(cached.features, features)
    assert len({features[0].numpy().tobytes() for features in fresh}) == 4
