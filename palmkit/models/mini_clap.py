"""mini-CLAP, the second model that comes with the kit: `load_model("mini-clap")`.

It has mini-PENGI's audio encoder of another training seed, and a text encoder of CLAP's kind:
- Every token sees all others (mini-PENGI's text encoder is causal), so no prefix can be shared. The
  embedding is read at the first token.
- The logit scale is the one that training ended with (PENGI's is fixed at 100).
- The prompt is CLAP's.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from palmkit.checksums import verify_folder
from palmkit.models.base import choose_device
from palmkit.models.checkpoint import (
    TEXT,
    CheckpointError,
    add_stft_kernels,
    build,
    check_config,
    find_state,
    load_weights,
    merge_config,
    read_config,
    read_sizes,
)
from palmkit.models.clap import PROMPT
from palmkit.models.encoders import VOCABULARY, TextBlock, TextEncoder
from palmkit.models.pengi import Pengi
from palmkit.models.torch_files import TensorFileError, read_tensors

MINI_CLAP = Path(__file__).parents[1] / "mini_clap" / "mini_clap.safetensors"
TOKENS = TEXT + "base.embeddings.token_embedding.weight"  # of a state, not of the file
TOKEN_IDS, TOKEN_ROWS = "token_ids", "token_rows"  # of the file: rows that training changed


class BidirectionalText(TextEncoder):
    """TextEncoder's weights and layers, and another mask: a token sees all that is no padding.

    The embedding is read at the first token, <start>.
    """

    def prefix(self, x):
        """Token embeddings [b, p, width] as they are: nothing of a prefix can be computed ahead."""
        return x

    def suffix_latents(self, x, eot, prefix=None):
        """Token embeddings [b, c, s, width] after a prefix [b, p, width] -> [b, c, clip_dim].

        eot [c]: positions of the last tokens in x that are no padding.
        """
        shape, length = x.shape[:2], eot + 1
        if prefix is not None:
            x = torch.cat([prefix[:, None].expand(-1, shape[1], -1, -1), x], 2)
            length = length + prefix.shape[1]
        steps = torch.arange(x.shape[2], device=x.device)
        padding = (steps >= length[:, None]).repeat(shape[0], 1)  # [b * c, tokens]
        x = self.hidden_states(x.flatten(0, 1), padding)[:, 0]
        return self.clip_text_projection(self.final_layer_norm(x)).unflatten(0, shape)

    def hidden_states(self, x, padding):
        """Token embeddings [n, s, width] and where they are padding [n, s] -> hidden states.

        They are of the first token only, [n, 1, width]: of the last layer no other is used.
        """
        x = x + self.position_embedding.weight[: x.shape[1]]
        for layer in self.layers[:-1]:
            x = attend(layer, x, x, padding)
        return attend(self.layers[-1], x[:, :1], x, padding)


def attend(layer: TextBlock, x, others, padding):
    """One layer for the tokens x [n, q, width], which see all of others [n, s, width] that is no
    padding [n, s] -> [n, q, width]."""

    def split(y):  # [n, s, width] -> [n, heads, s, d]
        return y.unflatten(2, (layer.heads, -1)).transpose(1, 2)

    q = split(layer.q_proj(layer.layer_norm1(x)))
    y = layer.layer_norm1(others)
    k, v = split(layer.k_proj(y)), split(layer.v_proj(y))
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # [n, heads, q, s]
    weights = scores.masked_fill(padding[:, None, None], float("-inf")).softmax(-1)
    x = x + layer.out_proj((weights @ v).transpose(1, 2).flatten(2))
    return x + layer.fc2(layer.activation(layer.fc1(layer.layer_norm2(x))))


class MiniClap(Pengi):
    """The two frozen encoders as an AudioTextModel with PromptableText."""

    prompt = PROMPT
    # Of PALM, the median of rates that were chosen inside support sets (notebook 16).
    defaults = {"lr": 0.05}

    def __init__(self, audio, text: BidirectionalText, config, device, name="mini-CLAP"):
        """config: PENGI's settings, and `logit_scale`."""
        super().__init__(audio, text, config, device, name)
        self.logit_scale = config["logit_scale"]


def random_tokens(width: int, std: float) -> torch.Tensor:
    """Token embeddings before training, [VOCABULARY, width]: the same numbers on every machine.

    Words that are in no caption keep them, so the file need not have them. They are uniform, with
    this standard deviation, and come from integers (the function of SplitMix64).
    """
    x = np.arange(1, VOCABULARY * width + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = (x ^ (x >> np.uint64(31))) >> np.uint64(11)
    uniform = (x.astype(np.float64) + 0.5) / 2**53 - 0.5
    return torch.from_numpy(uniform * (std * 12**0.5)).reshape(VOCABULARY, width)


def load_mini_clap(device="auto", path: Path = MINI_CLAP) -> MiniClap:
    """mini-CLAP from its file, with `config.json` beside it. Raises CheckpointError."""
    if problem := verify_folder(path.parent):
        raise CheckpointError(problem)
    try:
        tensors = read_tensors(path)
    except TensorFileError as error:
        raise CheckpointError(f"{path.name}: {error}") from error
    given = read_config(path)
    state = read_state(tensors, given, path)
    sizes = read_sizes(state)
    check_config({key: given[key] for key in given if key != "logit_scale"}, sizes, path)
    settings = merge_config(given) | {"logit_scale": given["logit_scale"]}
    with torch.random.fork_rng(devices=[]):  # initial values, which the checkpoint replaces
        audio, text = build(sizes, settings, BidirectionalText)
    load_weights(audio, text, state, path)
    settings["text"]["attention"] = "both directions"  # it distinguishes the digest
    model = MiniClap(audio, text, settings, choose_device(device))
    model.checkpoint_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    model.about = {
        "licence": "MIT",
        "revision": f"sha256 {model.checkpoint_sha256}",
        "training data": "generated sounds; see its model card",
    }
    return model


def read_state(tensors: dict, config: dict, path: Path) -> dict[str, torch.Tensor]:
    """The encoders' tensors with all token embeddings. Raises CheckpointError."""
    scale, std = config.get("logit_scale"), config.get("text", {}).get("token_std")
    if not all(isinstance(value, float) and value > 0 for value in (scale, std)):
        raise CheckpointError(
            f"config.json beside {path.name} must have `logit_scale` and `text.token_std`, numbers "
            f"over 0, not {json.dumps([scale, std])}"
        )
    if missing := [name for name in (TOKEN_IDS, TOKEN_ROWS) if name not in tensors]:
        raise CheckpointError(f"{path.name} lacks {', '.join(missing)}")
    ids, rows = tensors[TOKEN_IDS].long(), tensors[TOKEN_ROWS]
    tokens = random_tokens(rows.shape[1], std).half()
    tokens[ids] = rows.half()
    return add_stft_kernels(find_state(tensors) | {TOKENS: tokens}, config)
