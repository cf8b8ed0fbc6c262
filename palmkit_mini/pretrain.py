"""Pre-training of mini-PENGI on the corpus: `python -m palmkit_mini.pretrain --corpus FOLDER --out FOLDER`.

PENGI's two encoders at a small size learn to bring a clip and a caption of it together (symmetric InfoNCE), helped by
a classifier of concepts that is thrown away. All augmentation is on the log-mel. A run that was stopped goes on from
its last save.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import nn

from palmkit.encoders import tokenize
from palmkit.pengi import PENGI_CONFIG, build, checkpoint_state
from palmkit.storage import atomic_write, progress_bar
from palmkit_mini.captions import TEMPLATES
from palmkit_mini.clips import front_end
from palmkit_mini.concepts import TRAINING
from palmkit_mini.corpus import Corpus

FRAMES, STRIDE = 242, 4  # of 7 s at hop 1280: every fourth frame of the corpus
SIZES = {
    "d_proj": 256,
    "audio": {
        "n_fft": 1024, "mel_bins": 64, "patch_size": 4, "embed_dim": 32, "depths": [2, 2, 2], "num_heads": [2, 4, 8],
        "htsat_window_size": 8, "mlp_ratio": 4.0, "qkv_bias": True,
    },
    "text": {
        "vocab_size": 49_408, "hidden_size": 64, "max_position_embeddings": 40, "intermediate_size": 256,
        "num_hidden_layers": 4, "projection_dim": 64,
    },
}  # fmt: skip
CONFIG = {
    "projection_dropout": 0.1,
    "audio": {"hop_size": 1280, "spec_size": 128, "drop_path_rate": 0.05, "stft": "computed"},
    "text": {"num_attention_heads": 4},
}
# How often a kind of concept is drawn: digits and languages are many, and alike.
WEIGHT = {"sound": 1.0, "scene": 0.7, "music": 0.7, "style": 0.5, "mood": 0.5, "language": 0.3, "digit": 0.4}


def settings() -> dict:
    merged = copy.deepcopy(PENGI_CONFIG)
    for key, value in CONFIG.items():
        merged[key] = {**merged[key], **value} if isinstance(value, dict) else value
    return merged


class Mini(nn.Module):
    """The two encoders, a learned temperature, and a concept classifier that is not saved."""

    def __init__(self, concepts: int, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        told = settings()
        told["audio"].pop("stft")
        self.audio, self.text = build(SIZES, told)
        window, bank = front_end()
        self.audio.window.copy_(window)
        self.audio.mel.copy_(bank)
        for embedding in (self.text.token_embedding, self.text.position_embedding):
            nn.init.normal_(embedding.weight, std=0.02)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.classifier = nn.Linear(self.audio.trunk.num_features, concepts)

    def forward(self, log_mels, ids, mask):
        latent = self.audio.latent(self.audio.image(log_mels))
        audio = F.normalize(self.audio.projection(latent).float(), dim=-1)
        text = F.normalize(self.text(ids, mask).float(), dim=-1)
        return self.log_scale.exp().clamp(max=100) * audio @ text.T, self.classifier(latent).float()


def add_power(a, b):
    """Decibels of two sounds heard together."""
    high = torch.maximum(a, b)
    return high + 10 * torch.log10(1 + 10 ** (-(a - b).abs() / 10))


class Batches:
    """Batches of distinct concepts: augmented log-mels, captions and concept numbers."""

    def __init__(self, corpus: Corpus, size: int, seed: int):
        self.rng, self.size = np.random.default_rng(seed), size
        self.concepts = corpus.concepts
        ids = corpus.concept_ids
        self.log_mels = np.concatenate([corpus.shards[k] for k in sorted(corpus.shards)])
        self.clips = [np.flatnonzero(ids == k) for k in range(len(self.concepts))]
        weights = np.array([WEIGHT[TRAINING[key].kind] for key in self.concepts])
        self.weights = weights / weights.sum()

    def draw(self, replace: bool):
        """Concept numbers, and a log-mel of each: [size, FRAMES, 64], from a random moment on, tiled."""
        rng = self.rng
        concepts = rng.choice(len(self.concepts), self.size, replace=replace, p=self.weights)
        rows = [rng.choice(self.clips[k]) for k in concepts]
        length = self.log_mels.shape[1]
        start = np.where(
            rng.random(self.size) < 0.5, rng.integers(0, length, self.size), rng.integers(0, STRIDE, self.size)
        )
        frames = (start[:, None] + STRIDE * np.arange(FRAMES)) % length
        x = np.stack([self.log_mels[row][index] for row, index in zip(rows, frames, strict=True)])
        return concepts, torch.from_numpy(x.astype(np.float32))

    def name(self, concept: int) -> str:
        names = TRAINING[self.concepts[concept]].names
        return names[self.rng.integers(len(names))]

    def __call__(self):
        rng = self.rng
        concepts, x = self.draw(replace=False)
        others, y = self.draw(replace=True)
        captions = [self.name(k) for k in concepts]
        mixed = rng.random(self.size) < 0.2
        snr = rng.uniform(-2, 18, self.size)
        for n in np.flatnonzero(mixed & (others != concepts)):
            gain = (10 ** (x[n] / 10)).mean().log10() * 10 - (10 ** (y[n] / 10)).mean().log10() * 10 - snr[n]
            x[n] = add_power(x[n], y[n] + gain)
            if snr[n] < 8:
                link = ("and", "with")[rng.integers(2)]
                captions[n] = f"{captions[n]} {link} {self.name(others[n])}" + (
                    " in the background" if link == "with" else ""
                )
        captions = [TEMPLATES[rng.integers(len(TEMPLATES))].format(caption) for caption in captions]
        return augment(x, rng), *tokenize(captions), torch.from_numpy(concepts)


def augment(x, rng):
    """Equaliser, gain, noise floor, a codec's missing top bands, SpecAugment: [n, frames, 64] dB, in place."""
    n, frames, bands = x.shape

    def some(chance):
        return torch.from_numpy(rng.random((n, 1, 1)) < chance)

    def uniform(low, high, *shape):
        return torch.from_numpy(rng.uniform(low, high, (n, *shape))).float()

    curve = F.interpolate(
        torch.from_numpy(rng.normal(0, 6, (n, 1, 6))).float(), bands, mode="linear", align_corners=True
    )
    x = x + curve * some(0.8) + torch.from_numpy(rng.normal(5, 7, (n, 1, 1))).float()
    hiss = 10 * torch.log10(torch.from_numpy(rng.standard_exponential((n, frames, bands))).float() + 1e-4)
    floor = uniform(-75, -15, 1, 1) + uniform(-5, 20, 1, 1) * torch.linspace(1, -1, bands) + 0.6 * hiss
    x = torch.where(some(0.5), add_power(x, floor), x).clamp(-100, 60)
    for clip in x:
        if rng.random() < 0.5:
            clip[:, rng.integers(44, bands) :] = -100
        mean = clip.mean()
        if rng.random() < 0.5:
            start, width = rng.integers(frames - 30), rng.integers(1, 30)
            clip[start : start + width] = mean
        if rng.random() < 0.5:
            start, width = rng.integers(bands - 10), rng.integers(1, 10)
            clip[:, start : start + width] = mean
        if rng.random() < 0.3:
            clip.copy_(clip.roll(int(rng.integers(-2, 3)), 1))
    return x


def train(corpus: Corpus, out: Path, *, steps: int, batch: int = 64, lr: float = 2e-3, warmup: int = 100,
          weight_decay: float = 0.05, seed: int = 0, half: bool = True) -> list[dict]:  # fmt: skip
    """Train from nothing, or go on from where a run of the same settings stopped; the log, a line per 50 steps."""
    told = dict(steps=steps, batch=batch, lr=lr, warmup=warmup, weight_decay=weight_decay, seed=seed, half=half,
                corpus=corpus.settings)  # fmt: skip
    batches = Batches(corpus, batch, seed)
    model = Mini(len(corpus.concepts), seed)
    model.audio.bn0.running_mean.fill_(-35)
    model.audio.bn0.running_var.fill_(400)
    plain = [p for name, p in model.named_parameters() if p.ndim < 2 or "embedding" in name or "bias_table" in name]
    decayed = [p for p in model.parameters() if all(p is not q for q in plain)]
    groups = [dict(params=decayed, weight_decay=weight_decay), dict(params=plain, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))
    progress, log, first = out / "progress.pt", [], 0
    if progress.is_file():
        saved = torch.load(progress, weights_only=False)
        if saved["told"] != told:
            raise ValueError(f"{progress} is of another run: {saved['told']}; delete it or choose another folder")
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        batches.rng.bit_generator.state, log, first = saved["rng"], saved["log"], saved["step"]
    model.train()
    target, seen, bar = torch.arange(batch), [], progress_bar(steps, "pre-training", "step")
    bar.update(first)
    for step in range(first, steps):
        rate = min(1, (step + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = lr * rate
        log_mels, ids, mask, concepts = batches()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits, classes = model(log_mels, ids, mask)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        loss = contrast + F.cross_entropy(classes, concepts, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        right = ((logits.argmax(1) == target).float().mean(), (classes.argmax(1) == concepts).float().mean())
        bar.update()
        seen.append([contrast.item(), *(float(r) for r in right)])
        if (step + 1) % 50 == 0 or step + 1 == steps:
            contrast, matched, classified = np.mean(seen, 0).round(4).tolist()
            log.append(dict(step=step + 1, contrast=contrast, matched=matched, classified=classified,
                            scale=round(model.log_scale.exp().item(), 2)))  # fmt: skip
            bar.set_postfix(log[-1])
            seen = []
        if (step + 1) % 500 == 0 or step + 1 == steps:
            state = dict(told=told, model=model.state_dict(), optimizer=optimizer.state_dict(), log=log, step=step + 1)
            out.mkdir(parents=True, exist_ok=True)
            torch.save({**state, "rng": batches.rng.bit_generator.state}, progress.with_suffix(".new"))
            progress.with_suffix(".new").replace(progress)
            export(model, out, told, log)
    bar.close()
    return log


def export(model: Mini, out: Path, told: dict, log: list[dict]) -> None:
    """The encoders in half precision in the layout of base.pth, with config and log."""
    state = checkpoint_state(model.audio, model.text)
    state = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    state = {key: tensor.contiguous() for key, tensor in state.items() if "spectrogram_extractor" not in key}
    atomic_write(out / "config.json", json.dumps(CONFIG, indent=1))
    atomic_write(out / "log.json", json.dumps({"settings": told, "log": log}, indent=1))
    atomic_write(out / "mini.safetensors", save(state))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--full", action="store_true", help="float32 throughout, instead of bfloat16 where it is safe")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    train(Corpus(given.corpus), given.out, steps=given.steps, seed=given.seed, half=not given.full)


if __name__ == "__main__":
    main()
