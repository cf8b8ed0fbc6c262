"""The first half of pre-training: mini-PENGI's audio encoder (`make mini` runs both halves).

PENGI's two encoders at a small size learn to bring a clip and a caption of it together (symmetric
InfoNCE), helped by a classifier of concepts. Of this the audio encoder is kept, and `text_tower`
trains another text encoder for it. All augmentation is on the log-mel.

Whatever is random in a step follows from the seed and the step's number alone, so an interrupted
run resumes from its last save and gives the same weights.
"""

from __future__ import annotations

import copy
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import nn

from mini_pengi.corpus import Corpus
from mini_pengi.front_end import front_end
from palmkit.models.checkpoint import PENGI_CONFIG, build, checkpoint_state
from palmkit.models.encoders import tokenize
from palmkit.models.pengi import Pengi
from palmkit.storage import atomic_write, progress_bar
from palmkit_synthetic.captions import CLOSINGS, TEMPLATES
from palmkit_synthetic.concepts import TRAINING

FRAMES, STRIDE = 242, 4  # of 7 s at hop 1280: every fourth frame of the corpus
NOTE = "mini-PENGI: a small model pre-trained on generated sounds; not PENGI's numbers"
SIZES = {
    "d_proj": 256,
    "audio": {
        "n_fft": 1024, "mel_bins": 64, "patch_size": 4, "embed_dim": 32, "depths": [2, 2, 2],
        "num_heads": [2, 4, 8], "htsat_window_size": 8, "mlp_ratio": 4.0, "qkv_bias": True,
    },
    "text": {
        "vocab_size": 49_408, "hidden_size": 64, "max_position_embeddings": 40,
        "intermediate_size": 256, "num_hidden_layers": 4, "projection_dim": 64,
    },
}  # fmt: skip
CONFIG = {
    "note": NOTE,
    "projection_dropout": 0.1,
    "audio": {
        "hop_size": 320 * STRIDE,
        "spec_size": 128,
        "drop_path_rate": 0.05,
        "stft": "computed",
    },
    "text": {"num_attention_heads": 4},
}
# How often a kind of concept is drawn: digits and languages are many, and differ little.
WEIGHT = {
    "sound": 1.0,
    "scene": 0.7,
    "music": 0.7,
    "style": 0.5,
    "mood": 0.5,
    "language": 0.4,
    "digit": 0.4,
}
MIXED = 0.2  # share of a batch's clips with a second sound over them
NAMED_ABOVE_DB = 8  # both are named if the second is less than so much below the first
RECIPE = dict(
    steps=3000, batch=64, lr=2e-3, warmup=100, weight_decay=0.05, smoothing=0.05, half=True
)


def mini_config() -> dict:
    """PENGI's settings with mini-PENGI's over them."""
    merged = copy.deepcopy(PENGI_CONFIG)
    for key, value in CONFIG.items():
        merged[key] = {**merged[key], **value} if isinstance(value, dict) else value
    return merged


class Mini(nn.Module):
    """The two encoders, a learned temperature, and a concept classifier that is not saved."""

    def __init__(self, concepts: int, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        config = mini_config()
        config["audio"].pop("stft")
        self.audio, self.text = build(SIZES, config)
        window, bank = front_end()
        self.audio.window.copy_(window)
        self.audio.mel.copy_(bank)
        self.audio.bn0.running_mean.fill_(-35)  # about the mean and spread of a log-mel in dB
        self.audio.bn0.running_var.fill_(400)
        for embedding in (self.text.token_embedding, self.text.position_embedding):
            nn.init.normal_(embedding.weight, std=0.02)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.classifier = nn.Linear(self.audio.trunk.num_features, concepts)

    def forward(self, log_mels, ids, mask):
        """Log-mels [n, FRAMES, 64] and captions [n, 40] -> two tables of logits.

        Those of clips by captions [n, n], and of clips by concepts [n, concepts].
        """
        latent = self.audio.pooled(self.audio.image(log_mels))
        audio = F.normalize(self.audio.projection(latent).float(), dim=-1)
        text = F.normalize(self.text(ids, mask).float(), dim=-1)
        return self.log_scale.exp().clamp(max=100) * audio @ text.T, self.classifier(latent).float()


def untrained(seed: int = 0) -> Pengi:
    """The network as pre-training finds it, for comparison: its weights are random."""
    with torch.random.fork_rng(devices=[]):
        model = Mini(len(TRAINING), seed)
    note = f"the network of mini-PENGI with random weights (seed {seed})"
    return Pengi(model.audio, model.text, mini_config() | {"note": note}, torch.device("cpu"))


def add_power(a, b):
    """Decibels of the sum of two sounds."""
    high = torch.maximum(a, b)
    return high + 10 * torch.log10(1 + 10 ** (-(a - b).abs() / 10))


def draw_frames(log_mels, rng) -> torch.Tensor:
    """[n, FRAMES, 64] from corpus log-mels [n, frames, 64], each from a random moment on."""
    n, length = log_mels.shape[:2]
    anywhere = rng.random(n) < 0.5
    start = np.where(anywhere, rng.integers(0, length, n), rng.integers(0, STRIDE, n))
    frames = (start[:, None] + STRIDE * np.arange(FRAMES)) % length
    return torch.from_numpy(log_mels[np.arange(n)[:, None], frames])


class Batches:
    """batches(step): augmented log-mels [size, FRAMES, 64], token ids, mask, concept numbers.

    The concepts of a batch are distinct.
    """

    def __init__(self, corpus: Corpus, size: int, seed: int):
        self.size, self.seed, self.concepts = size, seed, corpus.concepts
        ids = corpus.concept_ids
        self.log_mels = np.concatenate([corpus.shards[k] for k in sorted(corpus.shards)])
        self.clips = [np.flatnonzero(ids == k) for k in range(len(self.concepts))]
        weights = np.array([WEIGHT[TRAINING[key].kind] for key in self.concepts])
        self.weights = weights / weights.sum()

    def draw(self, rng, replace: bool):
        """Concept numbers, and a log-mel of each [size, FRAMES, 64], from a random moment on."""
        concepts = rng.choice(len(self.concepts), self.size, replace=replace, p=self.weights)
        rows = [rng.choice(self.clips[k]) for k in concepts]
        return concepts, draw_frames(self.log_mels[rows], rng).float()

    def name(self, rng, concept: int) -> str:
        return pick(rng, TRAINING[self.concepts[concept]].names)

    def __call__(self, step: int):
        log_mels, captions, concepts = self.make(step)
        return log_mels, *tokenize(captions), torch.from_numpy(concepts)

    def make(self, step: int):
        """The batch of a step, with its captions as text."""
        rng = np.random.default_rng([self.seed, step])
        concepts, x = self.draw(rng, replace=False)
        others, y = self.draw(rng, replace=True)
        captions = [self.name(rng, k) for k in concepts]
        below = rng.uniform(-2, 18, self.size)  # dB
        for n in np.flatnonzero((rng.random(self.size) < MIXED) & (others != concepts)):
            x[n] = add_power(x[n], y[n] + mean_level(x[n]) - mean_level(y[n]) - below[n])
            if below[n] < NAMED_ABOVE_DB:
                pattern = pick(rng, ("{} and {}", "{} with {} in the background"))
                captions[n] = pattern.format(captions[n], self.name(rng, others[n]))
        captions = [
            pick(rng, TEMPLATES).format(caption) + pick(rng, CLOSINGS) for caption in captions
        ]
        return augment(x, rng), captions, concepts


def pick(rng, options):
    return options[rng.integers(len(options))]


def mean_level(log_mel) -> float:
    """dB of a log-mel's mean power."""
    return 10 * math.log10((10 ** (log_mel / 10)).mean())


def augment(x, rng):
    """Augment log-mels [n, frames, 64] in dB, in place.

    Equaliser, gain, noise floor, a codec's missing top bands, SpecAugment.
    """
    n, frames, bands = x.shape

    def some(chance):
        return torch.from_numpy(rng.random((n, 1, 1)) < chance)

    def uniform(low, high, *shape):
        return torch.from_numpy(rng.uniform(low, high, (n, *shape))).float()

    points = torch.from_numpy(rng.normal(0, 6, (n, 1, 6))).float()
    curve = F.interpolate(points, bands, mode="linear", align_corners=True)
    x = x + curve * some(0.8) + torch.from_numpy(rng.normal(5, 7, (n, 1, 1))).float()
    hiss = 10 * torch.log10(
        torch.from_numpy(rng.standard_exponential((n, frames, bands), np.float32)) + 1e-4
    )
    floor = (
        uniform(-75, -15, 1, 1) + uniform(-5, 20, 1, 1) * torch.linspace(1, -1, bands) + 0.6 * hiss
    )
    x = torch.where(some(0.5), add_power(x, floor), x).clamp(-100, 60)
    drop_parts(x, rng, lowest_band=44, gaps=0.5)
    return x


def drop_parts(x, rng, lowest_band: int, gaps: float) -> np.ndarray:
    """Drop parts of log-mels [n, frames, 64], in place. Returns the first missing band of each.

    Of half of the clips all bands from `lowest_band` or higher are missing, as after a codec. A
    share `gaps` has a gap in time, and as many one in frequency. Some are moved by up to two bands.
    """
    n, frames, bands = x.shape
    edge = np.full(n, bands)
    for k, clip in enumerate(x):
        if rng.random() < 0.5:
            edge[k] = rng.integers(lowest_band, bands)
            clip[:, edge[k] :] = -100
        mean = clip.mean()
        if rng.random() < gaps:
            start, width = rng.integers(frames - 30), rng.integers(1, 30)
            clip[start : start + width] = mean
        if rng.random() < gaps:
            start, width = rng.integers(bands - 10), rng.integers(1, 10)
            clip[:, start : start + width] = mean
        if rng.random() < 0.3:
            clip.copy_(clip.roll(int(rng.integers(-2, 3)), 1))
    return edge


def optimizer_of(model: Mini, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW that decays matrices only.

    Embeddings, biases, norms and the tables of relative positions are not decayed.
    """
    named = list(model.named_parameters())
    plain = {name for name, p in named if p.ndim < 2 or "embedding" in name or "bias_table" in name}
    decayed = [p for name, p in named if name not in plain]
    rest = [p for name, p in named if name in plain]
    groups = [dict(params=decayed, weight_decay=weight_decay), dict(params=rest, weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))


def train(corpus: Corpus, out: Path, seed: int = 0, save_every: int = 250, **recipe) -> list[dict]:
    """Train from nothing, or resume a run of the same settings; the log, a line per 50 steps.

    out: a folder for `progress.pt` and, all along, for the checkpoint as it is.
    recipe: changes to RECIPE.

    Raises ValueError if `out` holds a run of other settings.
    """
    settings = RECIPE | recipe | {"seed": seed, "corpus": corpus.settings}
    if (finished := _finished(out, settings)) is not None:
        return finished
    model = Mini(len(corpus.concepts), seed)
    optimizer = optimizer_of(model, settings["lr"], settings["weight_decay"])
    log, first = _resume(out / "progress.pt", settings, model, optimizer)
    batches, steps, seen = Batches(corpus, settings["batch"], seed), settings["steps"], []
    with progress_bar(steps, "pre-training", "step") as bar, ThreadPoolExecutor(1) as ahead:
        bar.update(first)
        coming = ahead.submit(batches, first)
        for step in range(first, steps):
            batch, coming = coming.result(), ahead.submit(batches, step + 1)
            torch.manual_seed(seed * 1_000_003 + step)  # of dropout and stochastic depth
            seen.append(train_step(model, optimizer, batch, step, settings))
            bar.update()
            done = step + 1
            if done % 50 == 0 or done == steps:
                scale = round(model.log_scale.exp().item(), 2)
                log.append({"step": done, **mean_of(seen), "scale": scale})
                bar.set_postfix(log[-1])
                seen = []
            if done % save_every == 0 or done == steps:
                _save(out, settings, model, optimizer, log, done)
    return log


def _finished(out: Path, settings: dict) -> list[dict] | None:
    """The log of a finished run of these settings whose checkpoint is in `out`, or None."""
    path = out / "log.json"
    if not path.is_file() or not (out / "mini.safetensors").is_file():
        return None
    content = json.loads(path.read_text())
    is_whole = content["settings"] == settings and content["log"][-1:]
    return content["log"] if is_whole and content["log"][-1]["step"] == settings["steps"] else None


def _resume(path: Path, settings: dict, model: Mini, optimizer) -> tuple[list[dict], int]:
    """Load what a former run saved, if there is one: its log, and the steps that it has done."""
    if not path.is_file():
        return [], 0
    saved = torch.load(path, weights_only=True)
    if saved["settings"] != settings:
        raise ValueError(
            f"{path} is of another run: {saved['settings']}; delete it or choose another folder"
        )
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return saved["log"], saved["step"]


def _save(out: Path, settings: dict, model: Mini, optimizer, log: list[dict], step: int) -> None:
    """Save a run's state, whole or not at all, and the checkpoint as it is."""
    state = {
        "settings": settings,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "log": log,
        "step": step,
    }
    out.mkdir(parents=True, exist_ok=True)
    torch.save(state, out / "progress.new")
    (out / "progress.new").replace(out / "progress.pt")
    export(model.audio, model.text, out, settings, {"log": log})


def mean_of(seen: list[dict]) -> dict:
    return {name: round(float(np.mean([line[name] for line in seen])), 4) for name in seen[0]}


def schedule(optimizer, step: int, settings: dict) -> None:
    """Set the learning rate of a step: warm-up, then half a cosine to zero."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / settings["steps"])
    for group in optimizer.param_groups:
        group["lr"] = settings["lr"] * min(1, (step + 1) / settings["warmup"]) * cosine


def train_step(model: Mini, optimizer, batch, step: int, settings: dict) -> dict:
    """One step; what is logged of it."""
    log_mels, ids, mask, concepts = batch
    schedule(optimizer, step, settings)
    model.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=settings["half"]):
        logits, classes = model(log_mels, ids, mask)
    target = torch.arange(len(logits))
    contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    loss = contrast + F.cross_entropy(classes, concepts, label_smoothing=settings["smoothing"])
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    matched = (logits.argmax(1) == target).float().mean().item()
    classified = (classes.argmax(1) == concepts).float().mean().item()
    return dict(contrast=contrast.item(), matched=matched, classified=classified)


def half_state(audio, text) -> dict[str, torch.Tensor]:
    """What is stored of the encoders: in half precision, without the constants of the STFT."""
    return {
        key: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for key, tensor in checkpoint_state(audio, text).items()
        if "spectrogram_extractor" not in key
    }


def export(audio, text, out: Path, settings: dict, logs: dict) -> None:
    """The encoders in half precision in the layout of base.pth, with config and log."""
    config = {"note": NOTE, "precision": "float64", **CONFIG}  # equal on all processors
    atomic_write(out / "config.json", json.dumps(config, indent=1))
    atomic_write(out / "log.json", json.dumps({"settings": settings, **logs}, indent=1))
    atomic_write(out / "mini.safetensors", save(half_state(audio, text)))
