"""PENGI's log-mel in single precision, for any hop: the corpus stores it."""

from __future__ import annotations

from functools import cache

import torch
import torchaudio

HOP = 320  # samples, PENGI's: 690 frames for 5 s
N_FFT = 1024
MELS = 64
FILTER_RATE = 32_000  # Hz; PENGI's filter bank was built for this rate, its audio has 44.1 kHz
LOWEST, HIGHEST = 50, 14_000  # Hz


@cache
def front_end() -> tuple[torch.Tensor, torch.Tensor]:
    """PENGI's window [1024] and filter bank [513, 64]."""
    bank = torchaudio.functional.melscale_fbanks(
        N_FFT // 2 + 1, LOWEST, HIGHEST, MELS, FILTER_RATE, "slaney", "slaney"
    )
    return torch.hann_window(N_FFT), bank


def log_mel(waveforms: torch.Tensor, hop: int = HOP) -> torch.Tensor:
    """[n, samples] -> [n, frames, 64] in dB, floor -100, as `AudioEncoder.log_mel` has it."""
    window, bank = front_end()
    spectrum = torch.stft(
        waveforms, N_FFT, hop, window=window, center=True, pad_mode="reflect", return_complex=True
    )
    power = torch.view_as_real(spectrum).square().sum(-1).transpose(1, 2)
    return 10 * torch.log10((power @ bank).clamp(min=1e-10))
