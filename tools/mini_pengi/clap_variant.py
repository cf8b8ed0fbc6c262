"""mini-CLAP: another text encoder for a mini-PENGI's audio encoder (`--variant clap`).

The recipe is that of `text_tower` with the same captions. Two things differ: every token sees all
others, and the logit scale is learned to the last step. `palmkit.models.mini_clap` reads the file.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save

from mini_pengi.descriptions import WORDINGS
from mini_pengi.figures import save_figures, trial_rows, unseen_rows, wording_rows
from mini_pengi.pretrain import CONFIG, half_state
from mini_pengi.text_tower import (
    GAIN,
    LAYERS,
    TEXT,
    CaptionedBatches,
    amplify,
    learned_scale,
    new_text_encoder,
    read_trunk,
    train_text,
)
from mini_pengi.views import Views
from palmkit.experiments.trials import make_grid
from palmkit.models.mini_clap import (
    PROMPT,
    TOKEN_IDS,
    TOKEN_ROWS,
    TOKENS,
    BidirectionalText,
    load_mini_clap,
    random_tokens,
)
from palmkit.storage import atomic_write
from palmkit_synthetic.tasks import DEFAULT_TASKS, TASKS

NOTE = (
    "mini-CLAP: the second small model of the kit, pre-trained on generated sounds; its numbers "
    "are neither PENGI's nor LAION-CLAP's"
)
FILE = "mini_clap.safetensors"
SHIPPED = 1  # its training seed


def add_clap_text(trunk: Path, out: Path, views: Views, seed: int, **recipe) -> None:
    """Train a text encoder of CLAP's kind for the audio encoder in folder `trunk`, and export both.

    recipe: changes to TEXT. Does nothing if `out` holds the result of the same settings.
    """
    text = TEXT | recipe | {"layers": LAYERS, "gain": GAIN, "variant": "clap"}
    if (found := read_trunk(trunk, out, text)) is None:
        return
    audio, settings, audio_log = found
    projection, encoder = new_text_encoder(seed, text["token_std"], BidirectionalText)
    with torch.no_grad():
        weight = encoder.token_embedding.weight
        weight.copy_(random_tokens(weight.shape[1], text["token_std"]))
        before = weight.clone()
    log = train_text(
        projection, encoder, CaptionedBatches(views, text, seed), text, scale_at=learned_scale
    )
    changed = (encoder.token_embedding.weight != before).any(1).nonzero().flatten()
    amplify(encoder, GAIN)
    audio.projection = projection
    export(audio, encoder, changed, out, settings, {"log": audio_log, "text_log": log})


def export(audio, text, changed, out: Path, settings: dict, logs: dict) -> None:
    """The encoders in half precision with config and log.

    changed: tokens whose embeddings are written, int64. All others are as before training.
    """
    state = half_state(audio, text)
    del state[TOKENS]
    rows = text.token_embedding.weight.detach()[changed].half().contiguous()
    state |= {TOKEN_IDS: changed.int(), TOKEN_ROWS: rows}
    recipe, scale = settings["text"], logs["text_log"][-1]["scale"]
    tokens = {"token_std": recipe["token_std"] * recipe["gain"]}
    config = {**CONFIG, "note": NOTE, "precision": "float64", "logit_scale": float(scale)}
    config["text"] = {**CONFIG["text"], **tokens}
    atomic_write(out / "config.json", json.dumps(config, indent=1))
    atomic_write(out / FILE, save(state))
    atomic_write(out / "log.json", json.dumps({"settings": settings, **logs}, indent=1))


def measure(folder: Path, training_seed: int) -> pd.DataFrame:
    """Zero-shot accuracies of the model in `folder`, kept as `figures.csv` there.

    Rows have `figures.COLUMNS`, of the kinds "method" (zero-shot only), "wording" and "unseen".
    """
    model = load_mini_clap("cpu", folder / FILE)
    found = [trial_rows(make_grid("zeroshot", list(TASKS)), model, folder)]
    for dataset in DEFAULT_TASKS:
        words = wording_rows(model, dataset, [PROMPT, *WORDINGS])
        found.append(pd.DataFrame(words).assign(kind="wording"))
    found.append(pd.DataFrame(unseen_rows(model)).assign(kind="unseen"))
    return save_figures(found, folder, training_seed)
