"""A PENGI of small width with random weights: an encoding of four clips takes milliseconds."""

import torch

from palmkit.models import random
from palmkit.models.checkpoint import PENGI_CONFIG, PENGI_SIZES
from palmkit.models.pengi import Pengi

AUDIO = {"hop_size": 5120, "spec_size": 64}  # 61 frames of 64 bands: 16 x 16 patches
SIZES = {
    "d_proj": 48,
    "audio": PENGI_SIZES["audio"] | {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [2] * 4},
    "text": {
        **{"vocab_size": 49_408, "hidden_size": 32, "max_position_embeddings": 77},
        **{"intermediate_size": 64, "num_hidden_layers": 2, "projection_dim": 32},
    },
}


def small_pengi(monkeypatch, precision="float32") -> Pengi:
    """The model. monkeypatch: of pytest; it is undone before this returns."""
    with monkeypatch.context() as patch:
        config = PENGI_CONFIG | {
            "precision": precision,
            "note": "random weights",
            "audio": PENGI_CONFIG["audio"] | AUDIO,
            "text": PENGI_CONFIG["text"] | {"num_attention_heads": 4},
        }
        patch.setattr(random, "PENGI_CONFIG", config)
        audio, text = random.random_encoders(SIZES, heads=4)
    return Pengi(audio, text, config, torch.device("cpu"), "small PENGI")
