"""One clip: from (concept, number, seed, domain) to a waveform, and from a waveform to PENGI's log-mel.

A clip depends on nothing else, so any of them can be made again alone and played.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torchaudio

from palmkit_synthetic.concepts import CONCEPTS
from palmkit_synthetic.domain import TRAIN, Domain
from palmkit_synthetic.draw import Draw
from palmkit_synthetic.dsp import SAMPLE_RATE
from palmkit_synthetic.finish import finish

SECONDS = 5.0
HOP = 320  # PENGI's: 690 frames for 5 s
N_FFT, MELS = 1024, 64
SOURCES = (
    "numpy",
    "scipy",
    "pretty_midi",
    "espeakng-loader",
)  # packages whose version may change a clip
CODE = (  # files that decide what a clip is, beside those in sounds/ (domain.py counts by the domain's values)
    *(
        "clips.py",
        "concepts.py",
        "draw.py",
        "dsp.py",
        "espeak_server.py",
        "finish.py",
        "music.py",
        "scenes.py",
    ),
    *("sentences.py", "soundfont.py", "speech.py"),
)


def draw_clip(
    concept: str, index: int, seed: int = 0, domain: Domain = TRAIN, seconds: float = SECONDS
):
    """Clip number `index` of a concept: ([samples] float32 at 44.1 kHz, its parameters), perhaps shorter than asked."""
    if concept not in CONCEPTS:
        raise KeyError(f"there is no concept {concept!r}; CONCEPTS lists them")
    rng = np.random.default_rng([seed, index, zlib.crc32(f"{domain.name}/{concept}".encode())])
    draw = Draw(rng, domain, seconds)
    waveform = finish(draw, CONCEPTS[concept].generate(draw))
    return waveform, draw.parameters


def make_clip(
    concept: str, index: int, seed: int = 0, domain: Domain = TRAIN, seconds: float = SECONDS
) -> np.ndarray:
    """[samples] float32 at 44.1 kHz: one clip, tiled to its length if it is shorter, as the kit's reader does."""
    waveform, _ = draw_clip(concept, index, seed, domain, seconds)
    return np.resize(waveform, round(seconds * SAMPLE_RATE))


@cache
def front_end() -> tuple[torch.Tensor, torch.Tensor]:
    """PENGI's window and filter bank, which was built for 32 kHz (see `palmkit.encoders`)."""
    bank = torchaudio.functional.melscale_fbanks(
        N_FFT // 2 + 1, 50, 14_000, MELS, 32_000, "slaney", "slaney"
    )
    return torch.hann_window(N_FFT), bank


def log_mel(waveforms: torch.Tensor, hop: int = HOP) -> torch.Tensor:
    """[n, samples] -> [n, frames, 64] in dB, floor -100: `AudioEncoder.log_mel` in single precision, for any hop."""
    window, bank = front_end()
    spectrum = torch.stft(
        waveforms, N_FFT, hop, window=window, center=True, pad_mode="reflect", return_complex=True
    )
    power = torch.view_as_real(spectrum).square().sum(-1).transpose(1, 2)
    return 10 * torch.log10((power @ bank).clamp(min=1e-10))


def tile_frames(log_mels: np.ndarray, frames: int) -> np.ndarray:
    """[n, own, mel] -> [n, frames, mel]: cut, or repeated from the start as PENGI's reader repeats a short clip."""
    return log_mels[:, np.arange(frames) % log_mels.shape[1]]


def recipe(domain: Domain) -> str:
    """A digest of all that decides what clips sound like: the code (not its comments), the domain, the sources."""
    sha = hashlib.sha256()
    folder = Path(__file__).parent
    for path in [folder / name for name in CODE] + sorted((folder / "sounds").glob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                node.value.value = ""  # a docstring
        sha.update(ast.dump(tree).encode())
    sha.update(repr((domain, [importlib.metadata.version(name) for name in SOURCES])).encode())
    return sha.hexdigest()[:16]
