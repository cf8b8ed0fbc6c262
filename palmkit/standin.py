"""A stand-in for PENGI and for a dataset, generated: everything runs anywhere, and no number of it means anything.

The network has PENGI's architecture at a small size and random weights; the clips are synthetic.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
import torchaudio
from safetensors.torch import save

from palmkit.pengi import PENGI_CONFIG, PENGI_SIZES, build, checkpoint_state
from palmkit.storage import atomic_write, cache_root

VERSION = 1
NOTE = "stand-in: random weights and synthetic clips; not PENGI's numbers"
SMALL_SIZES = {
    "d_proj": 64,
    "audio": PENGI_SIZES["audio"] | {"embed_dim": 16, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8]},
    "text": PENGI_SIZES["text"]
    | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "projection_dim": 32},
}


def random_encoders(sizes=PENGI_SIZES, heads=8, seed=0):
    """PENGI's two encoders at the given sizes with random weights, its filter bank and its window: (audio, text)."""
    settings = copy.deepcopy(PENGI_CONFIG)
    settings["text"]["num_attention_heads"] = heads
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        audio, text = build(sizes, settings)
        with torch.no_grad():
            for module in (*audio.modules(), *text.modules()):
                if isinstance(module, torch.nn.Linear):  # large enough that inputs, not biases, decide what comes out
                    module.weight.normal_(std=module.in_features**-0.5)
            audio.bn0.running_mean.fill_(-20.0)  # near the mean and spread of a log-mel in dB
            audio.bn0.running_var.fill_(400.0)
            audio.mel.copy_(torchaudio.functional.melscale_fbanks(513, 50, 14_000, 64, 32_000, "slaney", "slaney"))
            audio.window.copy_(torch.hann_window(len(audio.window)))
            for embedding in (text.token_embedding, text.position_embedding):
                embedding.weight.mul_(0.02)  # CLIP's scale
    return audio.eval(), text.eval()


def standin_checkpoint() -> Path:
    """The small random checkpoint, generated at first use: a safetensors file with its config.json beside it."""
    folder = cache_root() / f"standin-{VERSION}" / "pengi"
    path = folder / "standin.safetensors"
    if not path.is_file():
        config = {"note": NOTE, "text": {"num_attention_heads": 4}}
        state = checkpoint_state(*random_encoders(SMALL_SIZES, heads=4))
        atomic_write(folder / "config.json", json.dumps(config, indent=1))
        atomic_write(path, save({key: tensor.contiguous() for key, tensor in state.items()}))
    return path


def _tone(t, rng):
    return np.sign(np.sin(2 * np.pi * rng.uniform(200, 900) * t))


def _sweep(t, rng):
    low, high = rng.uniform(200, 800), rng.uniform(1500, 5000)
    return np.sin(2 * np.pi * (low * t + (high - low) * t**2 / (2 * t[-1])))


def _clicks(t, rng):
    rate = rng.uniform(3, 9)
    return np.exp(-60 * np.mod(t, 1 / rate)) * rng.standard_normal(len(t))


def _siren(t, rng):
    return np.sin(
        2 * np.pi * (rng.uniform(500, 1500) * t + rng.uniform(40, 90) * np.sin(2 * np.pi * rng.uniform(1, 4) * t))
    )


def _rumble(t, rng):
    return np.cumsum(rng.standard_normal(len(t))) / 60


SOUNDS = {"buzzing tone": _tone, "clicks": _clicks, "low rumble": _rumble, "rising sweep": _sweep, "siren": _siren}


def standin_dataset(folds=2, clips_per_class=24) -> Path:
    """A dataset of synthetic clips in the published layout (five classes, two folds), generated at first use."""
    root = cache_root() / f"standin-{VERSION}" / "standin"
    done = root / "csv_files" / f"test_{folds}.csv"  # written last
    if done.is_file():
        return root
    rng, rows, rate = np.random.default_rng(0), [], 22_050
    (root / "audios").mkdir(parents=True, exist_ok=True)
    for name, make in SOUNDS.items():
        for n in range(folds * clips_per_class):
            t = np.arange(int(rate * rng.uniform(0.6, 1.4))) / rate
            clip = make(t, rng) * rng.uniform(0.2, 0.5) + 0.02 * rng.standard_normal(len(t))
            path = f"audios/{name.replace(' ', '_')}_{n:02d}.wav"
            soundfile.write(root / path, np.clip(clip, -1, 1), rate)
            rows.append((path, name, n % folds + 1))
    table = pd.DataFrame(rows, columns=["path", "classname", "fold"])
    for fold in range(1, folds + 1):
        for part, chosen in (("train", table["fold"] != fold), ("test", table["fold"] == fold)):
            atomic_write(
                root / "csv_files" / f"{part}_{fold}.csv", table.loc[chosen, ["path", "classname"]].to_csv(index=False)
            )
    return root
