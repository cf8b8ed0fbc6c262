"""Clips to listen to and to look at, in notebooks."""

from __future__ import annotations

import io

import numpy as np
import soundfile
import torch
from IPython.display import Audio
from scipy import signal

from mini_pengi.front_end import HOP, log_mel
from palmkit.results.plots import plot_log_mel
from palmkit_synthetic.dsp import SAMPLE_RATE


def player(waveform: np.ndarray, seconds: float = 2.5) -> Audio:
    """A player of the first seconds of [samples] at 44.1 kHz.

    The sound is Ogg Vorbis at half the rate, to be small.
    """
    half = signal.resample_poly(waveform[: round(seconds * SAMPLE_RATE)], 1, 2)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(half, -1, 1), SAMPLE_RATE // 2, format="OGG", subtype="VORBIS")
    return Audio(data=buffer.getvalue())


def log_mel_of(waveform: np.ndarray) -> np.ndarray:
    """[samples] at 44.1 kHz -> [frames, 64] in dB."""
    return log_mel(torch.from_numpy(np.ascontiguousarray(waveform))[None])[0].numpy()


def show_log_mel(waveform: np.ndarray, ax, title: str):
    """The log-mel of [samples] at 44.1 kHz on an axes, 80 dB deep, without a colour bar."""
    log_mels = log_mel_of(waveform)
    scale = dict(hop=HOP, sample_rate=SAMPLE_RATE)
    plot_log_mel(log_mels, ax, colorbar=False, vmin=log_mels.max() - 80, **scale)
    ax.set_title(title, fontsize=8)
    return ax
