"""Invented sounds that differ as much as sounds can."""

from __future__ import annotations

import math

import torch

PEAK = 0.3  # of all sounds; full scale is 1


def make_sounds(sample_rate: int, samples: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """{name: [samples]} float32, with a peak of PEAK. The names are usable as class names.

    Pitches are in Hz, and at most 0.4 times the rate. seed: of the noise, and of a change of pitch
    and tempo by up to 10 %.
    """
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples, dtype=torch.float64) / sample_rate
    length = samples / sample_rate
    factor = 1 + 0.1 * (2 * torch.rand(1, generator=generator).item() - 1)
    white = torch.randn(samples, generator=generator, dtype=torch.float64)

    def tone(hertz) -> torch.Tensor:
        return torch.sin(2 * math.pi * min(hertz * factor, 0.4 * sample_rate) * time)

    low, high = 0.01 * sample_rate * factor, 0.4 * sample_rate
    sweep = low * time + (high - low) * time**2 / (2 * length)
    beats = (time * 5 * factor) % 1
    sounds = {
        "low hum": tone(90) + tone(180) / 2 + tone(270) / 4,
        "high whistle": tone(0.2 * sample_rate),
        "rising siren": torch.sin(2 * math.pi * sweep),
        "white noise": white,
        "knocking": white * torch.exp(-40 * beats),
        "organ": tone(440) + tone(550) + tone(660) + tone(880),
        "rumble": torch.cumsum(white, 0) - torch.linspace(0, 1, samples) * white.sum(),
        "beeping": tone(0.1 * sample_rate) * (beats < 0.3),
    }
    return {name: (PEAK * x / x.abs().max()).float() for name, x in sounds.items()}


def make_chirp(sample_rate: float, samples: int) -> torch.Tensor:
    """A sound of fixed content in Hz and seconds, sampled at this rate: [samples] float32.

    Tones that rise from 100 Hz to 3 kHz once a second, and their octaves.
    """
    time = torch.arange(samples, dtype=torch.float64) / sample_rate
    phase = time % 1
    cycles = 100 * phase + 2900 * phase**2 / 2
    sound = torch.sin(2 * math.pi * cycles) + torch.sin(4 * math.pi * cycles) / 2
    return (PEAK * sound / sound.abs().max()).float()
