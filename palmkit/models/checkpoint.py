"""PENGI, read from its own checkpoint: `pengi = load_pengi("base.pth")`.

The only place that knows the checkpoint's key names. Dimensions are read off the tensors; what tensors cannot tell
comes from `config`, whose default is PENGI's.
"""

from __future__ import annotations

import copy
import json
import re
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from palmkit.models.encoders import VOCABULARY, AudioEncoder, TextEncoder

# What tensors cannot tell (PENGI's config and code; the layout is that of a config.json beside the checkpoint).
PENGI_CONFIG = {
    "note": "",  # a sentence that every output of this checkpoint should carry, say "random weights"
    "precision": "float32",  # of the encoders and of methods: "float32" or "float64"
    "projection_dropout": 0.5,
    "audio": {
        "hop_size": 320,
        "log_amin": 1e-10,
        "bn_eps": 1e-5,
        "bn_momentum": 0.1,
        "spec_size": 256,
        "drop_path_rate": 0.1,
    },
    "text": {"num_attention_heads": 8, "layer_norm_eps": 1e-5, "enc_text_len": 40},
}
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
# What its tensors tell.
PENGI_SIZES = {
    "d_proj": 1024,
    "audio": {
        "n_fft": 1024, "mel_bins": 64, "patch_size": 4, "embed_dim": 96, "depths": [2, 2, 6, 2],
        "num_heads": [4, 8, 16, 32], "htsat_window_size": 8, "mlp_ratio": 4.0, "qkv_bias": True,
    },
    "text": {
        "vocab_size": 49_408, "hidden_size": 512, "max_position_embeddings": 77, "intermediate_size": 2048,
        "num_hidden_layers": 12, "projection_dim": 512,
    },
}  # fmt: skip
# What this code does and a config must not contradict.
ASSUMED = {
    "projection_layer_norm_eps": 1e-5,
    "logit_scale": 100.0,
    "audio": {
        "sampling_rate": 44_100, "n_samples": 308_700, "window": "hann", "center": True, "pad_mode": "reflect",
        "power": 2.0, "log_ref": 1.0, "top_db": None, "in_chans": 1, "layer_norm_eps": 1e-5, "patch_norm": True,
    },
    "text": {"hidden_act": "quick_gelu", "eos_id": 49_407, "bos_id": 49_406, "pad_id": 49_407},
}  # fmt: skip
# Tensors of the two encoders that may be in the file and are not needed: PENGI's unused classifier, and what Swin and
# older `transformers` store although it follows from the sizes.
UNUSED = re.compile(
    r"audio_encoder\.base\.htsat\.(head|tscam_conv)\.|\.relative_position_index$|\.attn_mask$|\.position_ids$"
)
HTSAT = "audio_encoder.base.htsat."
STFT = HTSAT + "spectrogram_extractor.stft."
STFT_KERNELS = (STFT + "conv_real.weight", STFT + "conv_imag.weight")
MEL = HTSAT + "logmel_extractor.melW"
TEXT = "caption_encoder."


class CheckpointError(ValueError):
    """A checkpoint that is not what it should be; the message names the tensors."""


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of the two encoders, without `module.`; code in the file is never run (weights_only)."""
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {path}; PENGI's (2.2 GB): `python -m palmkit fetch pengi`"
        )
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except MemoryError:
        raise
    except Exception as error:  # what broken bytes raise in the readers is not a closed list
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} is no whole PyTorch or safetensors checkpoint: {reason}"
        ) from error
    tensors = tensors.get("model", tensors) if isinstance(tensors, dict) else None
    state = {}
    for key, tensor in tensors.items() if isinstance(tensors, dict) else ():
        key = str(key).removeprefix("module.")
        if key.startswith(("audio_encoder.", TEXT)) and isinstance(tensor, torch.Tensor):
            state[key] = tensor
    if not state:
        raise CheckpointError(
            f"{path} holds no PENGI encoder: no tensor is named audio_encoder.* or caption_encoder.*"
        )
    return state


def read_config(checkpoint: Path) -> dict:
    """The `config.json` beside a checkpoint, {} if there is none."""
    path = checkpoint.parent / "config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text())
        merge_config(config)
    except ValueError as error:
        raise CheckpointError(f"{path}, beside {checkpoint.name}, is no config: {error}") from error
    return config


def merge_config(config: dict) -> dict:
    """PENGI's settings with those of `config` put over them."""
    sections = (
        [config, *(config.get(key, {}) for key in ("audio", "text"))]
        if isinstance(config, dict)
        else [config]
    )
    if not all(isinstance(section, dict) for section in sections):
        raise CheckpointError(
            f"a config is a dict with the dicts `audio` and `text`, not {config!r:.200}"
        )
    merged = copy.deepcopy(PENGI_CONFIG)
    for key, value in PENGI_CONFIG.items():
        if isinstance(value, dict):
            merged[key].update({k: v for k, v in config.get(key, {}).items() if k in value})
        else:
            merged[key] = config.get(key, value)
    if merged["precision"] not in PRECISIONS:
        raise CheckpointError(
            f"precision={merged['precision']!r} in a config must be one of {', '.join(PRECISIONS)}"
        )
    return merged


def add_stft_kernels(state: dict, config: dict) -> dict:
    """The state with the STFT kernels, if the config says that a small file leaves them out."""
    if config.get("audio", {}).get("stft") != "computed" or MEL not in state:
        return state
    bins = len(state[MEL])
    kernels = stft_kernels(torch.hann_window(2 * bins - 2), bins)
    return dict(zip(STFT_KERNELS, kernels, strict=True)) | state


def read_sizes(state: dict) -> dict:
    """Dimensions, depths and head counts, each from all tensors that tell it; those must agree."""

    def size(what, *places):
        """places: (axis, pattern of keys), each of which must have a tensor."""
        found = {}
        for axis, pattern in places:
            shapes = {
                key: list(tensor.shape)
                for key, tensor in state.items()
                if re.fullmatch(pattern, key)
            }
            if not shapes:
                raise CheckpointError(
                    f"the tensor {pattern}, which tells {what}, is missing".replace("\\", "")
                )
            found |= {
                f"{key} {shape}": shape[axis] if len(shape) > axis else None
                for key, shape in shapes.items()
            }
        if len(set(found.values())) > 1 or None in found.values():
            raise CheckpointError(
                f"tensors of the checkpoint disagree on {what}: {'; '.join(found)}"
            )
        return set(found.values()).pop()

    def count(prefix):
        return 1 + max(
            (int(key[len(prefix) :].split(".")[0]) for key in state if key.startswith(prefix)),
            default=-1,
        )

    htsat, base = re.escape(HTSAT), re.escape(TEXT + "base.")
    table = r"\.blocks\.\d+\.attn\.relative_position_bias_table"
    layers = range(count(HTSAT + "layers."))
    width = size("Swin's width", (0, htsat + r"patch_embed\.(proj|norm)\.(weight|bias)"))
    hidden = size("Swin's MLP", (0, htsat + r"layers\.0\.blocks\.\d+\.mlp\.fc1\.(weight|bias)"))
    window = size("Swin's window", (0, htsat + r"layers\.\d+" + table))  # (2 window - 1) ** 2
    return {
        "d_proj": size(
            "the joint width", (0, r"\w+_encoder\.projection\.(linear1|linear2|layer_norm)\.weight")
        ),
        "audio": {
            "n_fft": size("the FFT's length", (2, re.escape(STFT) + r"conv_(real|imag)\.weight")),
            "mel_bins": size(
                "the mel bands", (0, htsat + r"bn0\.(weight|bias|running_mean|running_var)")
            ),
            "patch_size": size("the patch", (2, htsat + r"patch_embed\.proj\.weight")),
            "embed_dim": width,
            "depths": [count(f"{HTSAT}layers.{n}.blocks.") for n in layers],
            "num_heads": [
                size(f"the heads of layer {n}", (1, f"{htsat}layers\\.{n}{table}")) for n in layers
            ],
            "htsat_window_size": int((window**0.5 + 1) / 2),
            "mlp_ratio": hidden / width,
            "qkv_bias": any(key.endswith(".qkv.bias") for key in state),
        },
        "text": {
            "vocab_size": size(
                "the vocabulary", (0, base + r"embeddings\.token_embedding\.weight")
            ),
            "hidden_size": size(
                "the text width", (1, base + r"embeddings\.(token|position)_embedding\.weight")
            ),
            "max_position_embeddings": size(
                "text positions", (0, base + r"embeddings\.position_embedding\.weight")
            ),
            "intermediate_size": size(
                "the text MLP", (0, base + r"encoder\.layers\.\d+\.mlp\.fc1\.(weight|bias)")
            ),
            "num_hidden_layers": count(TEXT + "base.encoder.layers."),
            "projection_dim": size(
                "CLIP's projection",
                (0, re.escape(TEXT) + r"clip_text_projection\.weight"),
                (1, re.escape(TEXT) + r"projection\.linear1\.weight"),
            ),
        },
    }


def check_config(config: dict, sizes: dict, path: Path) -> None:
    """Raise if a config contradicts the tensors or what this code does: it then belongs to another checkpoint."""

    def check(told, truth, reason, where=""):
        for key, value in truth.items():
            if isinstance(value, dict):
                check(told.get(key, {}), value, reason, f"{key}.")
            elif told.get(key, value) != value:
                raise CheckpointError(
                    f"the config of {path.name} says {where}{key}={told[key]!r}, but {reason} {value!r}"
                )

    check(config, sizes, "the tensors say")
    check(config, ASSUMED, "this code does")
    told = merge_config(config)["text"]["enc_text_len"]
    if (positions := sizes["text"]["max_position_embeddings"]) < told:
        raise CheckpointError(
            f"{TEXT}base.embeddings.position_embedding.weight has {positions} rows, too few for {told} tokens"
        )
    if (rows := sizes["text"]["vocab_size"]) != VOCABULARY:
        raise CheckpointError(
            f"{TEXT}base.embeddings.token_embedding.weight has {rows} rows; CLIP's vocabulary has {VOCABULARY}"
        )


def check_depths(sizes: dict) -> None:
    """Raise if a checkpoint of PENGI's widths has other depths: nothing else tells that a last layer is missing."""
    if (sizes["audio"]["embed_dim"], sizes["text"]["hidden_size"]) != (96, 512):
        return
    for encoder, depth in (("audio", "depths"), ("text", "num_hidden_layers")):
        if (found := sizes[encoder][depth]) != (true := PENGI_SIZES[encoder][depth]):
            raise CheckpointError(
                f"layers of the {encoder} encoder are missing: {depth} is {found}, PENGI has {true}"
            )


def build(sizes: dict, settings: dict) -> tuple[AudioEncoder, TextEncoder]:
    common = {"d_proj": sizes["d_proj"], "dropout": settings["projection_dropout"]}
    swin = {key.removeprefix("htsat_"): value for key, value in sizes["audio"].items()}
    text, heads = sizes["text"], settings["text"]["num_attention_heads"]
    if text["hidden_size"] % heads:
        raise CheckpointError(
            f"text width {text['hidden_size']} is no multiple of {heads} heads; pass config= with its heads"
        )
    return AudioEncoder(**swin, **settings["audio"], **common), TextEncoder(
        width=text["hidden_size"], layers=text["num_hidden_layers"], hidden=text["intermediate_size"],
        positions=text["max_position_embeddings"], clip_dim=text["projection_dim"], heads=heads,
        eps=settings["text"]["layer_norm_eps"], max_tokens=settings["text"]["enc_text_len"], **common,
    )  # fmt: skip


def checkpoint_key(name: str) -> str:
    """The checkpoint's name of a tensor of `audio.*` or `text.*` here."""
    encoder, name = name.split(".", 1)
    if encoder == "text":
        name = re.sub(r"^(token|position)_embedding", r"base.embeddings.\1_embedding", name)
        name = re.sub(
            r"^layers\.(\d+)\.([qkv]|out)_proj", r"base.encoder.layers.\1.self_attn.\2_proj", name
        )
        name = re.sub(r"^layers\.(\d+)\.fc", r"base.encoder.layers.\1.mlp.fc", name)
        name = re.sub(r"^layers\.", "base.encoder.layers.", name)
        return TEXT + name.replace("final_layer_norm", "base.final_layer_norm")
    if name.startswith("projection."):
        return "audio_encoder." + name
    name = name.removeprefix("trunk.")
    # timm puts patch merging at the start of a stage, HTS-AT at the end of the one before.
    name = re.sub(
        r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name
    )
    return HTSAT + name


def checkpoint_state(audio: AudioEncoder, text: TextEncoder) -> dict[str, torch.Tensor]:
    """The two encoders in the checkpoint's own names: what `fill` reads."""
    state = {
        checkpoint_key(f"audio.{k}"): v
        for k, v in audio.state_dict().items()
        if k not in ("window", "mel")
    }
    state |= {checkpoint_key(f"text.{k}"): v for k, v in text.state_dict().items()}
    kernels = stft_kernels(audio.window, len(audio.mel))
    return state | {MEL: audio.mel, **dict(zip(STFT_KERNELS, kernels, strict=True))}


def stft_kernels(window: torch.Tensor, bins: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A windowed Fourier transform as the checkpoint has it: two convolution kernels [bins, 1, n_fft]."""
    n_fft = len(window)
    angle = torch.outer(torch.arange(bins), torch.arange(n_fft)).remainder(n_fft).double() * (
        2 * torch.pi / n_fft
    )
    return tuple((window.double() * part).float()[:, None] for part in (angle.cos(), -angle.sin()))


def load_weights(audio: AudioEncoder, text: TextEncoder, state: dict, path: Path) -> None:
    """Copy the checkpoint's tensors into the modules; every tensor must be there, be known, and fit."""
    own = {
        **{f"audio.{k}": v for k, v in audio.state_dict().items()},
        **{f"text.{k}": v for k, v in text.state_dict().items()},
    }
    n_fft, bins = len(audio.window), len(audio.mel)
    stft = dict.fromkeys(STFT_KERNELS, [bins, 1, n_fft])
    expected = {
        checkpoint_key(k): list(v.shape)
        for k, v in own.items()
        if k not in ("audio.window", "audio.mel")
    }
    expected |= {**stft, MEL: list(audio.mel.shape)}
    given = {key: list(tensor.shape) for key, tensor in state.items() if not UNUSED.search(key)}
    problems = [f"missing: {key} {shape}" for key, shape in expected.items() if key not in given]
    problems += [
        f"unexpected: {key} {shape}" for key, shape in given.items() if key not in expected
    ]
    problems += [
        f"misshapen: {key} {given[key]}, expected {shape}"
        for key, shape in expected.items()
        if given.get(key, shape) != shape
    ]
    problems += [
        f"not finite: {key}" for key in expected if key in state and not state[key].isfinite().all()
    ]
    if problems:
        more = [f"... and {len(problems) - 20} more"] if len(problems) > 20 else []
        raise CheckpointError(
            "\n  ".join([f"{path.name} does not fit PENGI's encoders:", *problems[:20], *more])
        )
    for name, tensor in own.items():
        if name not in ("audio.window", "audio.mel"):
            tensor.copy_(state[checkpoint_key(name)])
    audio.mel.copy_(state[MEL])
    audio.window.copy_(read_window(*(state[key] for key in stft)))


def read_window(real: torch.Tensor, imag: torch.Tensor) -> torch.Tensor:
    """The window inside the checkpoint's STFT kernels [bins, 1, n_fft]. An FFT may stand for them only if they are a
    windowed Fourier transform, so that is checked."""
    exact = real.dtype == imag.dtype == torch.float32  # half precision has rounded them
    real, imag = real.float(), imag.float()
    window = real[0, 0]
    transform = stft_kernels(window, len(real))
    sign = (
        1 if (imag - transform[1]).abs().max() < (imag + transform[1]).abs().max() else -1
    )  # power has no sign
    error = (real - transform[0]).abs().max(), (imag - sign * transform[1]).abs().max()
    if not max(error) < (1e-4 if exact else 1e-3):
        raise CheckpointError(
            f"{STFT}conv_real/conv_imag.weight are no windowed Fourier transform (off by {max(error):.1e})"
        )
    return window
