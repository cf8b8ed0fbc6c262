"""PENGI's own checkpoint: the only place with its key names.

Sizes are read off the tensors. What tensors do not show comes from a config, whose default is
PENGI's.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import torch

from palmkit.models.config_check import check_values
from palmkit.models.encoders import VOCABULARY, AudioEncoder, TextEncoder
from palmkit.models.torch_files import TensorFileError, read_tensors

# What tensors do not show, from PENGI's config and code; a config.json has the same layout.
PENGI_CONFIG = {
    "note": "",  # a sentence that every output should carry, say "random weights"
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
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# How far the STFT's kernels may be off what they should be, by how they were rounded.
ROUNDED = {torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 1e-2}
# What its tensors show.
PENGI_SIZES = {
    "d_proj": 1024,
    "audio": {
        **{"n_fft": 1024, "mel_bins": 64, "patch_size": 4, "embed_dim": 96},
        **{"depths": [2, 2, 6, 2], "num_heads": [4, 8, 16, 32], "htsat_window_size": 8},
        **{"mlp_ratio": 4.0, "qkv_bias": True},
    },
    "text": {
        **{"vocab_size": 49_408, "hidden_size": 512, "max_position_embeddings": 77},
        **{"intermediate_size": 2048, "num_hidden_layers": 12, "projection_dim": 512},
    },
}
# What this code does and a config must not contradict.
ASSUMED = {
    "projection_layer_norm_eps": 1e-5,
    "logit_scale": 100.0,
    "audio": {
        **{"sampling_rate": 44_100, "n_samples": 308_700, "window": "hann", "center": True},
        **{"pad_mode": "reflect", "power": 2.0, "log_ref": 1.0, "top_db": None},
        **{"in_chans": 1, "layer_norm_eps": 1e-5, "patch_norm": True},
    },
    "text": {"hidden_act": "quick_gelu", "eos_id": 49_407, "bos_id": 49_406, "pad_id": 49_407},
}
# Tensors of the two encoders that may be in the file and are not needed: PENGI's unused classifier,
# and what Swin and older `transformers` store although it follows from the sizes.
UNUSED = re.compile(
    r"audio_encoder\.base\.htsat\.(head|tscam_conv)\."
    r"|\.relative_position_index$|\.attn_mask$|\.position_ids$"
)
HTSAT = "audio_encoder.base.htsat."
STFT = HTSAT + "spectrogram_extractor.stft."
STFT_KERNELS = (STFT + "conv_real.weight", STFT + "conv_imag.weight")
MEL = HTSAT + "logmel_extractor.melW"
TEXT = "caption_encoder."
ENCODERS = ("audio_encoder", "caption_encoder")
WRAPPERS = ("module", "_orig_mod")  # parts of names that DDP and `torch.compile` add
CONTAINERS = ("model", "state_dict", "model_state_dict", "module")  # where other programs keep them


class CheckpointError(ValueError):
    """A checkpoint that is not as expected; the message names the tensors."""


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of the two encoders, under their names in base.pth.

    They may lie in a dict `model` or `state_dict` (Lightning), and their names may have the
    prefixes of DDP, `torch.compile` and other wrappers. Code in the file is never run.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {path}; PENGI's (2.2 GB): `palmkit fetch pengi`"
        )
    try:
        tensors = read_tensors(path)
    except TensorFileError as error:
        raise CheckpointError(
            f"{path} is no whole PyTorch or safetensors checkpoint: {error}"
        ) from error
    state = find_state(tensors)
    if not state:
        raise CheckpointError(
            f"{path} holds no PENGI encoder: "
            "no tensor is named audio_encoder.* or caption_encoder.*"
        )
    return state


def find_state(content, depth: int = 3) -> dict[str, torch.Tensor]:
    """The encoders' tensors in a dict, or in one of the dicts that containers keep them in."""
    if not isinstance(content, dict):
        return {}
    state, names = {}, {}
    for name, tensor in content.items():
        key = plain_key(str(name))
        if key is None or not isinstance(tensor, torch.Tensor):
            continue
        if key in state:
            raise CheckpointError(f"the checkpoint has {key} twice: {names[key]} and {name}")
        state[key], names[key] = tensor, name
    if state or depth == 0:
        return state
    inside = (find_state(content.get(name), depth - 1) for name in CONTAINERS)
    return next(filter(None, inside), {})


def plain_key(name: str) -> str | None:
    """A tensor's name without the names that wrappers add; None if it is of no encoder."""
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    starts = [n for n, part in enumerate(parts[:-1]) if part in ENCODERS]
    return ".".join(parts[starts[0] :]) if starts else None


def read_config(checkpoint: Path) -> dict:
    """The `config.json` beside a checkpoint, {} if there is none."""
    path = checkpoint.parent / "config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_bytes())
        merge_config(config)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}, beside {checkpoint.name}, is no config: {error}") from error
    return config


def merge_config(config: dict) -> dict:
    """PENGI's settings, overridden by those of `config`. Raises CheckpointError."""
    sections = [config]
    if isinstance(config, dict):
        sections += [config.get("audio", {}), config.get("text", {})]
    if not all(isinstance(section, dict) for section in sections):
        raise CheckpointError(
            f"a config is a dict with the dicts `audio` and `text`, not {config!r:.200}"
        )
    try:
        check_values(config, PENGI_CONFIG)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
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
    if state[MEL].ndim != 2 or len(state[MEL]) < 2:
        raise CheckpointError(f"misshapen: {MEL} {list(state[MEL].shape)}")
    bins = len(state[MEL])
    kernels = stft_kernels(torch.hann_window(2 * bins - 2), bins)
    return dict(zip(STFT_KERNELS, kernels, strict=True)) | state


def read_sizes(state: dict) -> dict:
    """Sizes, depths and head counts. Each is read off all tensors that show it; they must agree."""
    sizes = {"d_proj": find_size(state, "the joint width", (0, PROJECTIONS))}
    return sizes | {"audio": read_audio_sizes(state), "text": read_text_sizes(state)}


PROJECTIONS = r"\w+_encoder\.projection\.(linear1|linear2|layer_norm)\.weight"


def read_audio_sizes(state: dict) -> dict:
    htsat, stft = re.escape(HTSAT), re.escape(STFT)
    stage, table = htsat + r"layers\.", r"\.blocks\.\d+\.attn\.relative_position_bias_table"
    fc1 = stage + r"0\.blocks\.\d+\.mlp\.fc1\.(weight|bias)"
    bn0 = htsat + r"bn0\.(weight|bias|running_mean|running_var)"
    stages = range(count_layers(state, HTSAT + "layers."))

    def find(what, axis, pattern):
        return find_size(state, what, (axis, pattern))

    width = find("Swin's width", 0, htsat + r"patch_embed\.(proj|norm)\.(weight|bias)")
    positions = find("Swin's window", 0, stage + r"\d+" + table)  # (2 window - 1) ** 2
    return {
        "n_fft": find("the FFT's length", 2, stft + r"conv_(real|imag)\.weight"),
        "mel_bins": find("the mel bands", 0, bn0),
        "patch_size": find("the patch", 2, htsat + r"patch_embed\.proj\.weight"),
        "embed_dim": width,
        "depths": [count_layers(state, f"{HTSAT}layers.{n}.blocks.") for n in stages],
        "num_heads": [find(f"the heads of layer {n}", 1, f"{stage}{n}{table}") for n in stages],
        "htsat_window_size": int((positions**0.5 + 1) / 2),
        "mlp_ratio": find("Swin's MLP", 0, fc1) / width,
        "qkv_bias": any(key.endswith(".qkv.bias") for key in state),
    }


def read_text_sizes(state: dict) -> dict:
    text = re.escape(TEXT)
    embeddings, layers = text + r"base\.embeddings\.", text + r"base\.encoder\.layers\."

    def find(what, *places):
        return find_size(state, what, *places)

    return {
        "vocab_size": find("the vocabulary", (0, embeddings + r"token_embedding\.weight")),
        "hidden_size": find(
            "the text width", (1, embeddings + r"(token|position)_embedding\.weight")
        ),
        "max_position_embeddings": find(
            "text positions", (0, embeddings + r"position_embedding\.weight")
        ),
        "intermediate_size": find("the text MLP", (0, layers + r"\d+\.mlp\.fc1\.(weight|bias)")),
        "num_hidden_layers": count_layers(state, TEXT + "base.encoder.layers."),
        "projection_dim": find(
            "CLIP's projection",
            (0, text + r"clip_text_projection\.weight"),
            (1, text + r"projection\.linear1\.weight"),
        ),
    }


def find_size(state: dict, what: str, *places: tuple[int, str]) -> int:
    """The size that tensors show at places (axis, pattern of keys).

    Raises CheckpointError if a pattern has no tensor or if tensors disagree.
    """
    found = {}
    for axis, pattern in places:
        shapes = {k: list(tensor.shape) for k, tensor in state.items() if re.fullmatch(pattern, k)}
        if not shapes:
            key = pattern.replace("\\", "")
            raise CheckpointError(f"the tensor {key}, which shows {what}, is missing")
        for key, shape in shapes.items():
            found[f"{key} {shape}"] = shape[axis] if len(shape) > axis else None
    values = set(found.values())
    if len(values) > 1 or None in values:
        raise CheckpointError(f"tensors of the checkpoint disagree on {what}: {'; '.join(found)}")
    return values.pop()


def count_layers(state: dict, prefix: str) -> int:
    """Layers that are numbered from 0 after a prefix."""
    numbers = (int(key[len(prefix) :].split(".")[0]) for key in state if key.startswith(prefix))
    return 1 + max(numbers, default=-1)


def check_config(config: dict, sizes: dict, path: Path) -> None:
    """Raise CheckpointError if a config contradicts the tensors or what this code does."""
    check_agreement(config, sizes, path, "the tensors say")
    check_agreement(config, ASSUMED, path, "this code does")
    tokens = merge_config(config)["text"]["enc_text_len"]
    embeddings = f"{TEXT}base.embeddings"
    if (rows := sizes["text"]["max_position_embeddings"]) < tokens:
        raise CheckpointError(
            f"{embeddings}.position_embedding.weight has {rows} rows, too few for {tokens} tokens "
            "(text.enc_text_len)"
        )
    if (rows := sizes["text"]["vocab_size"]) != VOCABULARY:
        raise CheckpointError(
            f"{embeddings}.token_embedding.weight has {rows} rows; "
            f"CLIP's vocabulary has {VOCABULARY}"
        )


def check_agreement(config: dict, expected: dict, path: Path, reason: str, where="") -> None:
    for key, value in expected.items():
        if isinstance(value, dict):
            check_agreement(config.get(key, {}), value, path, reason, f"{key}.")
        elif config.get(key, value) != value:
            raise CheckpointError(
                f"the config of {path.name} says {where}{key}={config[key]!r}, "
                f"but {reason} {value!r}"
            )


def check_depths(sizes: dict) -> None:
    """Raise if a checkpoint of PENGI's widths has other depths.

    A missing last layer cannot be noticed otherwise.
    """
    if (sizes["audio"]["embed_dim"], sizes["text"]["hidden_size"]) != (96, 512):
        return
    for encoder, depth in (("audio", "depths"), ("text", "num_hidden_layers")):
        found, expected = sizes[encoder][depth], PENGI_SIZES[encoder][depth]
        if found != expected:
            raise CheckpointError(
                f"layers of the {encoder} encoder are missing: {depth} is {found}, "
                f"PENGI has {expected}"
            )


def build(sizes: dict, settings: dict) -> tuple[AudioEncoder, TextEncoder]:
    """The two encoders with PyTorch's initial values."""
    common = {"d_proj": sizes["d_proj"], "dropout": settings["projection_dropout"]}
    swin = {key.removeprefix("htsat_"): value for key, value in sizes["audio"].items()}
    text, heads = sizes["text"], settings["text"]["num_attention_heads"]
    if text["hidden_size"] % heads:
        raise CheckpointError(
            f"text width {text['hidden_size']} is no multiple of {heads} heads; "
            "pass config= with its heads (text.num_attention_heads)"
        )
    spec_size, bands = settings["audio"]["spec_size"], sizes["audio"]["mel_bins"]
    if spec_size % bands:
        raise CheckpointError(f"audio.spec_size={spec_size}: use a multiple of {bands} mel bands")
    try:
        audio_encoder = AudioEncoder(**swin, **settings["audio"], **common)
    except (ValueError, RuntimeError, TypeError, ArithmeticError, AssertionError) as error:
        raise CheckpointError(
            f"no encoder can be built with {settings['audio']} of a config: {error}"
        ) from error
    text_encoder = TextEncoder(
        width=text["hidden_size"],
        layers=text["num_hidden_layers"],
        hidden=text["intermediate_size"],
        positions=text["max_position_embeddings"],
        clip_dim=text["projection_dim"],
        heads=heads,
        eps=settings["text"]["layer_norm_eps"],
        max_tokens=settings["text"]["enc_text_len"],
        **common,
    )
    return audio_encoder, text_encoder


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
    """The two encoders under the checkpoint's names: what `load_weights` reads."""
    state = {
        checkpoint_key(f"audio.{k}"): v
        for k, v in audio.state_dict().items()
        if k not in ("window", "mel")
    }
    state |= {checkpoint_key(f"text.{k}"): v for k, v in text.state_dict().items()}
    kernels = stft_kernels(audio.window, len(audio.mel))
    return state | {MEL: audio.mel, **dict(zip(STFT_KERNELS, kernels, strict=True))}


def stft_kernels(window: torch.Tensor, bins: int) -> list[torch.Tensor]:
    """A windowed Fourier transform as the checkpoint has it: two kernels [bins, 1, n_fft]."""
    n_fft = len(window)
    steps = torch.outer(torch.arange(bins), torch.arange(n_fft)).remainder(n_fft)
    angle = steps.double() * (2 * torch.pi / n_fft)
    waves = (angle.cos(), -angle.sin())
    return [(window.double() * wave).float()[:, None] for wave in waves]


def load_weights(audio: AudioEncoder, text: TextEncoder, state: dict, path: Path) -> None:
    """Copy the checkpoint's tensors into the modules. None may be missing, unknown or misshapen."""
    modules = {"audio": audio, "text": text}
    targets = {
        checkpoint_key(f"{encoder}.{name}"): tensor
        for encoder, module in modules.items()
        for name, tensor in module.state_dict().items()
        if (encoder, name) not in (("audio", "window"), ("audio", "mel"))
    }
    kernel = [len(audio.mel), 1, len(audio.window)]
    expected = {key: list(tensor.shape) for key, tensor in targets.items()}
    expected |= {**dict.fromkeys(STFT_KERNELS, kernel), MEL: list(audio.mel.shape)}
    if problems := find_problems(state, expected):
        more = [f"... and {len(problems) - 20} more"] if len(problems) > 20 else []
        title = f"{path.name} does not fit PENGI's encoders:"
        raise CheckpointError("\n  ".join([title, *problems[:20], *more]))
    for key, tensor in targets.items():
        tensor.copy_(state[key])
    audio.mel.copy_(state[MEL])
    audio.window.copy_(read_window(*(state[key] for key in STFT_KERNELS)))


def find_problems(state: dict, expected: dict[str, list[int]]) -> list[str]:
    """One line for each tensor that is missing, unexpected, misshapen or not finite."""
    given = {key: list(tensor.shape) for key, tensor in state.items() if not UNUSED.search(key)}
    missing = [f"missing: {key} {shape}" for key, shape in expected.items() if key not in given]
    unexpected = [
        f"unexpected: {key} {shape}" for key, shape in given.items() if key not in expected
    ]
    misshapen = [
        f"misshapen: {key} {given[key]}, expected {shape}"
        for key, shape in expected.items()
        if given.get(key, shape) != shape
    ]
    fitting = [key for key, shape in expected.items() if given.get(key) == shape]
    others = [
        f"no plain floating-point numbers: {key} ({state[key].dtype}, {state[key].layout})"
        for key in fitting
        if not _is_plain(state[key], key)
    ]
    infinite = [
        f"not finite: {key}"
        for key in fitting
        if _is_plain(state[key], key) and not state[key].isfinite().all()
    ]
    return [*missing, *unexpected, *misshapen, *others, *infinite]


def _is_plain(tensor: torch.Tensor, key: str) -> bool:
    """Whether a tensor is of numbers as weights are: no quantised, sparse or complex ones."""
    is_count = key.endswith("num_batches_tracked") and tensor.dtype == torch.int64
    return tensor.layout == torch.strided and (tensor.dtype in FLOATS or is_count)


def read_window(real: torch.Tensor, imag: torch.Tensor) -> torch.Tensor:
    """The window inside the checkpoint's STFT kernels [bins, 1, n_fft].

    An FFT replaces the kernels only if they are a windowed Fourier transform. Otherwise this raises
    CheckpointError.
    """
    tolerance = max(ROUNDED.get(one.dtype, 1e-3) for one in (real, imag))
    real, imag = real.float(), imag.float()
    window = real[0, 0]
    expected_real, expected_imag = stft_kernels(window, len(real))
    # Power has no sign, so either sign of the imaginary part will do.
    error = max(
        (real - expected_real).abs().max(),
        min((imag - expected_imag).abs().max(), (imag + expected_imag).abs().max()),
    )
    if not error < tolerance:
        raise CheckpointError(
            f"{STFT}conv_real/conv_imag.weight are no windowed Fourier transform "
            f"(off by {error:.1e})"
        )
    return window
