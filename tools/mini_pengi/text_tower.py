"""The second half of pre-training: a new text encoder for an audio encoder that stays as it is.

As in LiT (arXiv 2111.07991): the trained audio encoder is locked. A text encoder and the audio
projection learn from its latents and from captions that describe the recording. The logit scale is
learned in the first half of the steps, and rises to the published 100 in the second, so that the
published constants fit the model.

At the end the residual stream of the text encoder is multiplied by GAIN. LayerNorms undo that, so
no embedding changes, but a step of the paper's learning rate becomes a smaller one.
"""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mini_pengi.descriptions import caption
from mini_pengi.pretrain import SIZES, WEIGHT, export, mean_of, mini_config, schedule
from mini_pengi.views import Views, load_audio
from palmkit.models.checkpoint import build
from palmkit.models.encoders import AudioEncoder, TextEncoder, tokenize
from palmkit.storage import progress_bar
from palmkit_synthetic.concepts import TRAINING

LAYERS = 2
LOGIT_SCALE = 100.0
GAIN = 4.0
TEXT = dict(
    steps=1500,
    batch=96,
    lr=2e-3,
    warmup=100,
    weight_decay=0.05,
    token_std=0.02,  # of token embeddings before training: words of no caption keep it
    described=0.7,  # shares of captions: with conditions,
    by_kind=0.5,  # in a template of the concept's kind,
    second_meaning=0.5,  # with a name of two meanings, where there is one
    mixed=0.2,  # share of clips that are chosen among those with a second sound
)


def new_text_encoder(
    seed: int, token_std: float, text_class: type[TextEncoder] = TextEncoder
) -> tuple[nn.Module, TextEncoder]:
    """An audio projection and a text encoder with initial weights."""
    sizes = copy.deepcopy(SIZES)
    sizes["text"]["num_hidden_layers"] = LAYERS
    config = mini_config()
    config["audio"].pop("stft")
    torch.manual_seed(seed)
    audio, text = build(sizes, config, text_class)
    nn.init.normal_(text.token_embedding.weight, std=token_std)
    nn.init.normal_(text.position_embedding.weight, std=0.02)
    return audio.projection, text


class CaptionedBatches:
    """batches(step): latents [batch, width], token ids and mask. Concepts are distinct."""

    def __init__(self, views: Views, recipe: dict, seed: int):
        self.latents, self.recipe, self.seed = views.latents, recipe, seed
        self.clips = views.clips.to_dict("records")
        self.concepts = list(TRAINING)
        concepts, mixed = views.clips["concept"], views.clips["second"] != ""
        self.rows = [np.flatnonzero(concepts == key) for key in self.concepts]
        self.mixed_rows = [np.flatnonzero((concepts == key) & mixed) for key in self.concepts]
        weights = np.array([WEIGHT[TRAINING[key].kind] for key in self.concepts])
        weights = weights * [len(rows) > 0 for rows in self.rows]
        self.weights = weights / weights.sum()

    def draw(self, step: int) -> tuple[np.ndarray, list[str]]:
        """Rows of the views, and a caption of each."""
        rng = np.random.default_rng([self.seed, step])
        n = self.recipe["batch"]
        chosen = rng.choice(len(self.concepts), n, replace=False, p=self.weights)
        rows = [self.draw_row(concept, rng) for concept in chosen]
        return np.array(rows), [caption(self.clips[row], rng, self.recipe) for row in rows]

    def draw_row(self, concept: int, rng) -> int:
        mixed = self.mixed_rows[concept]
        wants_mixed = len(mixed) and rng.random() < self.recipe["mixed"]
        return rng.choice(mixed if wants_mixed else self.rows[concept])

    def __call__(self, step: int):
        rows, captions = self.draw(step)
        return self.latents[rows], *tokenize(captions)


def learned_scale(log_scale: torch.Tensor, step: int, steps: int) -> torch.Tensor:
    """The learned scale in every step."""
    return log_scale.exp().clamp(max=LOGIT_SCALE)


def logit_scale(log_scale: torch.Tensor, step: int, steps: int) -> torch.Tensor:
    """The learned scale; over the second half of the steps it rises to LOGIT_SCALE."""
    learned = learned_scale(log_scale, step, steps)
    if step < steps / 2:
        return learned
    part = (step + 1 - steps / 2) / (steps - steps / 2)
    return torch.exp((1 - part) * learned.detach().log() + part * math.log(LOGIT_SCALE))


def train_text(
    projection, text: TextEncoder, batches: CaptionedBatches, recipe: dict, scale_at=logit_scale
) -> list[dict]:
    """Train both in place. Returns the log, a line per 50 steps.

    scale_at: `logit_scale` or `learned_scale`.
    """
    log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    optimizer = _optimizer(projection, text, log_scale, recipe)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    projection.train()
    text.train()
    log, seen = [], []
    with progress_bar(recipe["steps"], "text encoder", "step") as bar:
        for step in range(recipe["steps"]):
            schedule(optimizer, step, recipe)
            latents, ids, mask = batches(step)
            torch.manual_seed(batches.seed * 1_000_003 + step)  # of dropout
            audio = F.normalize(projection(latents), dim=-1)
            scale = scale_at(log_scale, step, recipe["steps"])
            logits = scale * audio @ F.normalize(text(ids, mask), dim=-1).T
            target = torch.arange(len(logits))
            loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            matched = (logits.argmax(1) == target).double().mean().item()
            seen.append({"contrast": loss.item(), "matched": matched})
            if (step + 1) % 50 == 0 or step + 1 == recipe["steps"]:
                log.append({"step": step + 1, **mean_of(seen), "scale": round(scale.item(), 2)})
                seen = []
            bar.update()
    projection.eval()
    text.eval()
    return log


def _optimizer(projection, text: TextEncoder, log_scale, recipe: dict):
    """AdamW. Embeddings, LayerNorms, biases and the scale do not decay."""
    embeddings = {id(text.token_embedding.weight), id(text.position_embedding.weight)}
    weights = [*projection.parameters(), *text.parameters()]
    decays = [p.ndim >= 2 and id(p) not in embeddings for p in weights]
    decayed = [p for p, chosen in zip(weights, decays, strict=True) if chosen]
    rest = [p for p, chosen in zip(weights, decays, strict=True) if not chosen]
    groups = [
        {"params": decayed, "weight_decay": recipe["weight_decay"]},
        {"params": [*rest, log_scale], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe["lr"], betas=(0.9, 0.98))


@torch.no_grad()
def amplify(text: TextEncoder, gain: float) -> None:
    """Multiply the residual stream: tokens, positions and each block's two outputs."""
    for embedding in (text.token_embedding, text.position_embedding):
        embedding.weight.mul_(gain)
    for layer in text.layers:
        for product in (layer.out_proj, layer.fc2):
            product.weight.mul_(gain)
            product.bias.mul_(gain)


def read_trunk(trunk: Path, out: Path, text: dict) -> tuple[AudioEncoder, dict, list[dict]] | None:
    """The audio encoder in folder `trunk`, the settings of the whole model, the encoder's log.

    text: the recipe of the text encoder that is to be trained for it. None if `out` holds the
    result of the same settings.
    """
    first = json.loads((trunk / "log.json").read_text())
    settings, path = {**first["settings"], "text": text}, out / "log.json"
    if path.is_file() and json.loads(path.read_text())["settings"] == settings:
        return None
    return load_audio(trunk / "mini.safetensors"), settings, first["log"]


def add_text_encoder(trunk: Path, out: Path, views: Views, seed: int, **recipe) -> None:
    """Train a text encoder for the audio encoder in folder `trunk`, and export both to `out`.

    recipe: changes to TEXT. Does nothing if `out` holds the result of the same settings.
    """
    text = TEXT | recipe | {"layers": LAYERS, "gain": GAIN}
    if (found := read_trunk(trunk, out, text)) is None:
        return
    audio, settings, audio_log = found
    projection, encoder = new_text_encoder(seed, text["token_std"])
    log = train_text(projection, encoder, CaptionedBatches(views, text, seed), text)
    amplify(encoder, GAIN)
    audio.projection = projection
    export(audio, encoder, out, settings, {"log": audio_log, "text_log": log})
