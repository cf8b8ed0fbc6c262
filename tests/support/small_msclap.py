"""MS-CLAP 2023 at a small size with random weights, in a folder as a user has it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from small_bpe import train_bpe
from small_pengi import AUDIO, SIZES

from palmkit.models.checkpoint import merge_config
from palmkit.models.msclap import WEIGHTS_FILE
from palmkit.models.msclap_checkpoint import MSCLAP_CONFIG, build, checkpoint_state
from palmkit.models.random import draw_weights

CORPUS = ["this is the sound of a dog.", "low hum, high whistle, noise", "hey!! !! hey!! X X X X X"]
TOKENS = 300
END = "<|endoftext|>"
CONFIG = {"note": "random weights", "audio": AUDIO, "text": {"num_attention_heads": 4}}
TEXT = {
    **{"vocab_size": TOKENS, "hidden_size": 32, "max_position_embeddings": 100},
    **{"intermediate_size": 64, "num_hidden_layers": 2},
}
# Windows of two patches are the largest that fit into the last stage's map.
SMALL = SIZES | {"audio": SIZES["audio"] | {"htsat_window_size": 2}, "text": TEXT}
LOG_SCALE = 3.0


def write_tokenizer(folder: Path) -> Path:
    """vocab.json and merges.txt of a byte-level BPE that is trained on CORPUS. Token 0 is "!" and
    the last one <|endoftext|>, as GPT-2 has them."""
    train_bpe(folder, 10 * CORPUS, TOKENS - 1)
    vocabulary = json.loads((folder / "vocab.json").read_text())
    # As many tokens as wanted, however many merges the corpus gave.
    for n in range(len(vocabulary), TOKENS - 1):
        vocabulary[f"unused {n}"] = n
    (folder / "vocab.json").write_text(json.dumps(vocabulary | {END: TOKENS - 1}))
    return folder


def make_encoders(seed=0, sizes=None, config=CONFIG):
    """HTS-AT and GPT-2 with random weights, at a small size or at `sizes`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        audio, text = build(sizes or SMALL, merge_config(config, MSCLAP_CONFIG))
        draw_weights(audio, text)
        for block in text.layers:  # unlike the initial ones, which do nothing
            for norm in (block.layer_norm1, block.layer_norm2):
                norm.weight.data.add_(0.1 * torch.randn(len(norm.weight)))
                norm.bias.data.normal_(std=0.1)
    return audio.eval(), text.eval()


def save_msclap(folder: Path, seed=0) -> Path:
    """A folder with CLAP_weights_2023.pth, its config.json and the tokenizer."""
    write_tokenizer(folder)
    torch.save({"model": checkpoint_state(*make_encoders(seed), LOG_SCALE)}, folder / WEIGHTS_FILE)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder
