"""PENGI's two encoders with random weights, at any size: for benchmarks and tests."""

from __future__ import annotations

import copy

import torch
import torchaudio

from palmkit.models.base import choose_device
from palmkit.models.checkpoint import PENGI_CONFIG, PENGI_SIZES, build
from palmkit.models.encoders import AudioEncoder, TextEncoder
from palmkit.models.pengi import Pengi


def random_pengi(device="auto") -> Pengi:
    """A model of PENGI's size with random weights. It takes as much time and memory as PENGI."""
    config = PENGI_CONFIG | {"note": "random weights"}
    return Pengi(*random_encoders(), config, choose_device(device), "random PENGI")


def random_encoders(sizes=PENGI_SIZES, heads=8, seed=0):
    """PENGI's audio and text encoder at these sizes: random weights, its filter bank and window."""
    settings = copy.deepcopy(PENGI_CONFIG)
    settings["text"]["num_attention_heads"] = heads
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        audio, text = build(sizes, settings)
        draw_weights(audio, text)
    return audio.eval(), text.eval()


@torch.no_grad()
def draw_weights(audio: AudioEncoder, text: TextEncoder) -> None:
    """Random weights from the global generator, PENGI's filter bank and window."""
    for module in (*audio.modules(), *text.modules()):
        if isinstance(module, torch.nn.Linear):
            # Large enough that outputs depend on inputs, not only on biases.
            module.weight.normal_(std=module.in_features**-0.5)
    audio.bn0.running_mean.fill_(-20.0)  # near the mean and spread of a log-mel in dB
    audio.bn0.running_var.fill_(400.0)
    bank = torchaudio.functional.melscale_fbanks(513, 50, 14_000, 64, 32_000, "slaney", "slaney")
    audio.mel.copy_(bank)
    audio.window.copy_(torch.hann_window(len(audio.window)))
    for embedding in (text.token_embedding, text.position_embedding):
        embedding.weight.mul_(0.02)  # CLIP's scale, and GPT-2's
