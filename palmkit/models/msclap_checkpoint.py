"""MS-CLAP 2023's checkpoint: its key names and sizes. Those of its audio encoder are PENGI's."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from palmkit.models.checkpoint import (
    ASSUMED,
    PENGI_CONFIG,
    PENGI_SIZES,
    TEXT,
    UNUSED,
    CheckpointError,
    audio_shapes,
    audio_state,
    build_audio,
    check_agreement,
    check_heads,
    check_tensors,
    count_layers,
    find_size,
    load_audio,
    merge_config,
    read_joint_sizes,
    text_settings,
)
from palmkit.models.encoders import AudioEncoder
from palmkit.models.gpt2 import Gpt2Encoder

# What tensors do not show, from memory of the public package and of GPT-2's config.
MSCLAP_CONFIG = PENGI_CONFIG | {
    "text": {"num_attention_heads": 12, "layer_norm_eps": 1e-5, "enc_text_len": 77},
}
# What its tensors show.
MSCLAP_SIZES = {
    "d_proj": 1024,
    "audio": PENGI_SIZES["audio"],
    "text": {
        **{"vocab_size": 50_257, "hidden_size": 768, "max_position_embeddings": 1024},
        **{"intermediate_size": 3072, "num_hidden_layers": 12},
    },
}
# What this code does and a config must not contradict.
MSCLAP_ASSUMED = {
    "projection_layer_norm_eps": ASSUMED["projection_layer_norm_eps"],
    "audio": ASSUMED["audio"],
    "text": {"hidden_act": "gelu_new", "pad_id": 0},
}
SCALE = "logit_scale"  # its exponential is the scale
GPT2 = TEXT + "base."
PROJECTION = TEXT + "projection."
# Older versions of `transformers` store the causal mask, which follows from the sizes.
NOT_NEEDED = re.compile(
    UNUSED.pattern + r"|^caption_encoder\.base\.h\.\d+\.attn\.(bias|masked_bias)$"
)
# A module of GPT-2 in the checkpoint: the modules here that it holds, one after the other.
TABLES = {"wte": ("token_embedding",), "wpe": ("position_embedding",)}
LAYER = {
    "ln_1": ("layer_norm1",),
    "attn.c_attn": ("q_proj", "k_proj", "v_proj"),
    "attn.c_proj": ("out_proj",),
    "ln_2": ("layer_norm2",),
    "mlp.c_fc": ("fc1",),
    "mlp.c_proj": ("fc2",),
}


def check_kind(state: dict) -> None:
    """Raise CheckpointError, in words, for a checkpoint of another model."""
    if any(key.startswith(GPT2 + "wte.") for key in state):
        return
    if any(key.startswith(GPT2 + "embeddings.word_embeddings.") for key in state):
        raise CheckpointError(
            "its text encoder is BERT, so it is MS-CLAP 2022; only MS-CLAP 2023 "
            "(CLAP_weights_2023.pth, with GPT-2) is read"
        )
    if any(key.startswith(GPT2 + "embeddings.token_embedding.") for key in state):
        raise CheckpointError(
            "its text encoder is CLIP's, so it is PENGI's checkpoint: load it without `msclap:`"
        )


def read_sizes(state: dict) -> dict:
    """Sizes and depths. Each is read off all tensors that show it; they must agree."""
    gpt2 = re.escape(GPT2)
    text = {
        "vocab_size": find_size(state, "the vocabulary", (0, gpt2 + r"wte\.weight")),
        "hidden_size": find_size(state, "the text width", (1, gpt2 + r"(wte|wpe)\.weight")),
        "max_position_embeddings": find_size(state, "text positions", (0, gpt2 + r"wpe\.weight")),
        "intermediate_size": find_size(
            state, "the text MLP", (1, gpt2 + r"h\.\d+\.mlp\.c_fc\.weight")
        ),
        "num_hidden_layers": count_layers(state, GPT2 + "h."),
    }
    return read_joint_sizes(state) | {"text": text}


def check_config(config: dict, sizes: dict, path: Path) -> None:
    """Raise CheckpointError if a config contradicts the tensors or what this code does."""
    check_agreement(config, sizes, path, "the tensors say")
    check_agreement(config, MSCLAP_ASSUMED, path, "this code does")
    tokens = merge_config(config, MSCLAP_CONFIG)["text"]["enc_text_len"]
    if (rows := sizes["text"]["max_position_embeddings"]) < tokens:
        raise CheckpointError(
            f"{GPT2}wpe.weight has {rows} rows, too few for {tokens} tokens (text.enc_text_len)"
        )


def build(sizes: dict, settings: dict) -> tuple[AudioEncoder, Gpt2Encoder]:
    """The two encoders with PyTorch's initial values."""
    check_heads(sizes, settings)
    vocabulary = sizes["text"]["vocab_size"]
    text_encoder = Gpt2Encoder(vocabulary=vocabulary, **text_settings(sizes, settings))
    return build_audio(sizes, settings), text_encoder


def list_modules(text: Gpt2Encoder) -> dict[str, list[torch.nn.Module]]:
    """The checkpoint's names of GPT-2's modules, and what they are here."""
    names = TABLES | {"ln_f": ("final_layer_norm",)}
    for n in range(len(text.layers)):
        names |= {
            f"h.{n}.{theirs}": tuple(f"layers.{n}.{name}" for name in ours)
            for theirs, ours in LAYER.items()
        }
    return {
        GPT2 + theirs: [text.get_submodule(name) for name in ours] for theirs, ours in names.items()
    }


def text_state(text: Gpt2Encoder, device="cpu") -> dict[str, torch.Tensor]:
    """The text encoder under the checkpoint's names. GPT-2's layers are [inputs, outputs].

    device: "meta" gives shapes alone, without copies.
    """
    projection = text.projection.state_dict()
    state = {PROJECTION + key: tensor.to(device) for key, tensor in projection.items()}
    for name, modules in list_modules(text).items():
        weight = torch.cat([module.weight.detach().to(device) for module in modules])
        is_linear = isinstance(modules[0], torch.nn.Linear)
        state[f"{name}.weight"] = weight.T.contiguous() if is_linear else weight
        if not isinstance(modules[0], torch.nn.Embedding):
            biases = [module.bias.detach().to(device) for module in modules]
            state[f"{name}.bias"] = torch.cat(biases)
    return state


def checkpoint_state(audio: AudioEncoder, text: Gpt2Encoder, log_scale: float) -> dict:
    """The model under the checkpoint's names: what `load_weights` reads."""
    return audio_state(audio) | text_state(text) | {SCALE: torch.tensor(log_scale)}


def load_weights(audio: AudioEncoder, text: Gpt2Encoder, state: dict, path: Path) -> None:
    """Copy the checkpoint's tensors into the modules. None may be missing, unknown or misshapen."""
    shapes = {key: list(tensor.shape) for key, tensor in text_state(text, "meta").items()}
    expected = audio_shapes(audio) | shapes | {SCALE: []}
    check_tensors(state, expected, f"{path.name} does not fit MS-CLAP 2023", NOT_NEEDED)
    load_audio(audio, state)
    for key, tensor in text.projection.state_dict().items():
        tensor.copy_(state[PROJECTION + key])
    for name, modules in list_modules(text).items():
        for key, tensors in parts(state, name, modules).items():
            for module, tensor in zip(modules, tensors, strict=True):
                module.get_parameter(key).data.copy_(tensor)


def parts(state: dict, name: str, modules: list) -> dict[str, tuple[torch.Tensor, ...]]:
    """What a module of GPT-2 in the checkpoint holds for each of the modules here."""
    weight = state[f"{name}.weight"]
    if isinstance(modules[0], torch.nn.Linear):
        weight = weight.T
    found = {"weight": weight.chunk(len(modules))}
    if not isinstance(modules[0], torch.nn.Embedding):
        found["bias"] = state[f"{name}.bias"].chunk(len(modules))
    return found
