"""After pre-training: make the small text encoder fit for prompt learners, as CLIP's is.

CLIP's text encoder has two properties from its size and its hundreds of millions of captions. It
ignores words that mean nothing to it, among them the sixteen random vectors that COOP starts from.
And its embeddings are so large that a step of the paper's learning rate is a small one. The first
is trained here: text with random tokens in front is embedded where the text alone is
(self-distillation, two minutes). The second is a matter of units: the residual stream is multiplied
by GAIN, which LayerNorms undo, so that no embedding changes. Both were chosen on the generated
tasks.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mini_pengi.pretrain import Mini, export, pick, schedule
from palmkit.models.encoders import TextEncoder, tokenize
from palmkit.storage import progress_bar
from palmkit_synthetic.captions import CLOSINGS, TEMPLATES
from palmkit_synthetic.concepts import TRAINING

# most: random tokens in front.
STEADY = dict(steps=1500, batch=64, lr=1e-3, warmup=50, weight_decay=0.01, most=20)
GAIN = 4.0
WORDS = 49_406  # ids below are words; the two above begin and end a text


def caption(rng) -> str:
    """A name of a concept in a template."""
    concept = pick(rng, [*TRAINING.values()])
    return pick(rng, TEMPLATES).format(pick(rng, concept.names)) + pick(rng, CLOSINGS)


def disturb(ids, mask, rng, most: int):
    """Put up to `most` random tokens between `<|startoftext|>` and the text, as room allows."""
    ids, mask = ids.clone(), mask.clone()
    for row, length in zip(range(len(ids)), mask.sum(1).tolist(), strict=True):
        extra = min(int(rng.integers(most + 1)), ids.shape[1] - length)
        text = ids[row, 1:length].clone()
        ids[row, 1 : 1 + extra] = torch.from_numpy(rng.integers(WORDS, size=extra))
        ids[row, 1 + extra : length + extra] = text
        mask[row, : length + extra] = 1
    return ids, mask


def look_past(text: TextEncoder, seed: int, recipe: dict) -> list[float]:
    """Train `text` to embed a disturbed caption where it embeds the caption now.

    Returns the loss (1 - cosine) per 50 steps. Token embeddings stay as they are: a random token
    must remain one.
    """
    goal = copy.deepcopy(text).eval().requires_grad_(False)
    text.train().requires_grad_(True)
    text.token_embedding.requires_grad_(False)
    parameters = [parameter for parameter in text.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe["lr"], weight_decay=recipe["weight_decay"], betas=(0.9, 0.98)
    )
    losses = []
    with progress_bar(recipe["steps"], "steadying", "step") as bar:
        for step in range(recipe["steps"]):
            rng = np.random.default_rng([seed, step])
            torch.manual_seed(seed * 1_000_003 + step)  # of dropout
            schedule(optimizer, step, recipe)
            ids, mask = tokenize([caption(rng) for _ in range(recipe["batch"])])
            with torch.no_grad():
                wanted = F.normalize(goal(ids, mask), dim=-1)
            found = F.normalize(text(*disturb(ids, mask, rng, recipe["most"])), dim=-1)
            loss = (1 - (found * wanted).sum(-1)).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            losses.append(loss.item())
            bar.update()
    text.eval().requires_grad_(False)
    chunks = np.split(np.array(losses), range(50, len(losses), 50))
    return [round(float(np.mean(chunk)), 4) for chunk in chunks]


@torch.no_grad()
def amplify(text: TextEncoder, gain: float) -> None:
    """Multiply the residual stream: tokens, positions and each block's two outputs."""
    for embedding in (text.token_embedding, text.position_embedding):
        embedding.weight.mul_(gain)
    for layer in text.layers:
        for product in (layer.out_proj, layer.fc2):
            product.weight.mul_(gain)
            product.bias.mul_(gain)


def steady(folder: Path, seed: int, **recipe) -> None:
    """Steady the text encoder of a finished pre-training in `folder`, and export it.

    Does nothing if log.json says that it is done already.
    """
    log = json.loads((folder / "log.json").read_text())
    if "steady" in log["settings"]:
        return
    saved = torch.load(folder / "progress.pt", weights_only=True)
    model = Mini(saved["model"]["classifier.weight"].shape[0], seed)
    model.load_state_dict(saved["model"])
    recipe = STEADY | recipe
    losses = look_past(model.text, seed, recipe)
    amplify(model.text, GAIN)
    settings = log["settings"] | {"steady": recipe | {"gain": GAIN, "losses": losses}}
    export(model, folder, settings, log["log"])
