"""A tiny dataset and a toy model in a folder, for tests of what comes from outside."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile

MODEL = """
import hashlib
import torch
import torch.nn.functional as F


class Toy:
    name, note, prompt, logit_scale = "toy", "a toy", "a sound of {}", 10.0
    sample_rate, clip_seconds, dim = 16_000, 1.0, 20
    device, dtype = torch.device("cpu"), torch.float32

    def encode_audio(self, waveforms):
        chunks = torch.as_tensor(waveforms).unflatten(1, (self.dim, -1)).std(2)
        return F.normalize(chunks - chunks.mean(1, keepdim=True), dim=-1)

    def encode_text(self, prompts):
        seeds = [int(hashlib.sha256(one.encode()).hexdigest()[:8], 16) for one in prompts]
        rows = [torch.randn(self.dim, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return F.normalize(torch.stack(rows), dim=-1)

    def digest(self):
        return "toy 1"


MODELS = {"toy": lambda device="auto": Toy()}
"""


@pytest.fixture(name="home")
def make_home(tmp_path, monkeypatch):
    """A dataset, a method and a model of its own; nothing of them is left in this process."""
    monkeypatch.setenv("PALMKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PALMKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PALMKIT_IMPORT", "")
    root, rng = tmp_path / "tiny", np.random.default_rng(0)
    root.mkdir()
    for split, number in (("train", 3), ("test", 2)):
        clips = [(f"{name}{split}{n}.wav", name) for name in ("bell", "dog") for n in range(number)]
        for path, name in clips:
            loud = 0.1 if name == "dog" else np.linspace(0, 1, 16_000)
            soundfile.write(root / path, rng.standard_normal(16_000) * 0.3 * loud, 16_000)
        table = pd.DataFrame(clips, columns=["path", "classname"])
        table.to_csv(root / f"{split}.csv", index=False)
    (tmp_path / "toy_model.py").write_text(MODEL)
    before = {name for name in sys.modules if name.startswith("palmkit.plugins.")}
    yield tmp_path
    for name in [one for one in sys.modules if one.startswith("palmkit.plugins.")]:
        if name not in before:
            del sys.modules[name]


def few(home, *more):
    grid = ["--dataset", str(home / "tiny"), "--shots", "2", "--epochs", "1", "--seed", "0"]
    return [*grid, *map(str, more)]


def read_rows(home, name):
    paths = (home / "runs" / name / "rows" / "tiny").glob("*.json")
    return {row["method"]: row for row in (json.loads(path.read_text()) for path in paths)}
