"""Small tables and a model without an encoder, for the methods on frozen features."""

import hashlib

import numpy as np
import torch
import torch.nn.functional as F

from palmkit import METHODS
from palmkit.models import ModelPair

NAMES = ["bell", "dog", "rain", "siren"]
DIM = 12
SCALE = 8.0


class TextModel:
    """An audio-text model in double precision that reads names; it encodes no sound."""

    name, note, prompt, logit_scale = "texts", "a stub", "a sound of {}", SCALE
    sample_rate, clip_seconds, dim = 16_000, 1.0, DIM
    device, dtype = torch.device("cpu"), torch.float64

    def __init__(self, dim=DIM, salt=""):
        self.dim, self.salt = dim, salt

    def encode_audio(self, waveforms):
        raise NotImplementedError

    def encode_text(self, prompts):
        rows = []
        for prompt in prompts:
            seed = int(hashlib.sha256(f"{self.salt}{prompt}".encode()).hexdigest()[:8], 16)
            generator = torch.Generator().manual_seed(seed)
            rows.append(torch.randn(self.dim, generator=generator, dtype=torch.float64))
        return F.normalize(torch.stack(rows), dim=-1)

    def digest(self):
        return f"texts {self.dim} {self.salt}"


def model_for(name):
    """A model of DIM dimensions for a method: one TextModel, or two if it needs them."""
    if not METHODS[name].needs_pair:
        return TextModel()
    return ModelPair(TextModel(dim=5), TextModel(dim=DIM - 5, salt="other"))


def table(counts, dim=DIM, seed=0):
    """float32 features [n, dim] around one centre a class, not of unit length, in a random order,
    and labels [n]. counts: clips of each class.
    """
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(len(counts), dim, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    noise = torch.randn(len(labels), dim, generator=generator)
    return 3 * (centres[labels] + 0.8 * noise), labels


def unit(features) -> np.ndarray:
    """Unit rows, in double precision."""
    rows = np.asarray(features, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
