"""PENGI's own checkpoint: the only place with its key names. MS-CLAP's audio encoder has the same.

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
COMPUTED = ("window", "mel")  # tensors of HTS-AT here that the checkpoint has in another form
STFT_KERNELS = (STFT + "conv_real.weight", STFT + "conv_imag.weight")
MEL = HTSAT + "logmel_extractor.melW"
TEXT = "caption_encoder."
CLAP_AUDIO = "audio_model.audio_encoder."  # of LAION-CLAP in transformers, which is another model
ENCODERS = ("audio_encoder", "caption_encoder")
WRAPPERS = ("module", "_orig_mod")  # parts of names that DDP and `torch.compile` add
CONTAINERS = ("model", "state_dict", "model_state_dict", "module")  # where other programs keep them


class CheckpointError(ValueError):
    """A checkpoint that is not as expected; the message names the tensors."""


def read_checkpoint(path: Path, others: tuple[str, ...] = (), title="PENGI") -> dict:
    """The tensors of the two encoders, under their names in base.pth, and those named in `others`.

    They may lie in a dict `model` or `state_dict` (Lightning), and their names may have the
    prefixes of DDP, `torch.compile` and other wrappers. Code in the file is never run.
    """
    if path.is_dir():
        raise CheckpointError(
            f"{path} is a folder. A folder of transformers.ClapModel is named clap:FOLDER, one of "
            "MS-CLAP 2023 msclap:FOLDER; of PENGI name the file"
        )
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
    if isinstance(tensors, dict) and any(str(key).startswith(CLAP_AUDIO) for key in tensors):
        raise CheckpointError(
            f"{path} is of transformers.ClapModel: load its folder as clap:FOLDER"
        )
    state = find_state(tensors, others)
    if not set(state) - set(others):
        raise CheckpointError(
            f"{path} holds no {title} encoder: "
            "no tensor is named audio_encoder.* or caption_encoder.*"
        )
    return state


def find_state(content, others=(), depth: int = 3) -> dict[str, torch.Tensor]:
    """The encoders' tensors in a dict, or in one of the dicts that containers keep them in."""
    if not isinstance(content, dict):
        return {}
    state, names = {}, {}
    for name, tensor in content.items():
        key = plain_key(str(name), others)
        if key is None or not isinstance(tensor, torch.Tensor):
            continue
        if key in state:
            raise CheckpointError(f"the checkpoint has {key} twice: {names[key]} and {name}")
        state[key], names[key] = tensor, name
    if state or depth == 0:
        return state
    inside = (find_state(content.get(name), others, depth - 1) for name in CONTAINERS)
    return next(filter(None, inside), {})


def plain_key(name: str, others=()) -> str | None:
    """A tensor's name without the names that wrappers add; None if it is of no encoder and not in
    `others`.
    """
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    if ".".join(parts) in others:
        return ".".join(parts)
    starts = [n for n, part in enumerate(parts[:-1]) if part in ENCODERS]
    return ".".join(parts[starts[0] :]) if starts else None


def read_config(checkpoint: Path, defaults: dict = PENGI_CONFIG) -> dict:
    """The `config.json` beside a checkpoint, {} if there is none."""
    path = checkpoint.parent / "config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_bytes())
        merge_config(config, defaults)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}, beside {checkpoint.name}, is no config: {error}") from error
    return config


def merge_config(config: dict, defaults: dict = PENGI_CONFIG) -> dict:
    """The defaults, overridden by what `config` has of them. Raises CheckpointError."""
    sections = [config]
    if isinstance(config, dict):
        sections += [config.get("audio", {}), config.get("text", {})]
    if not all(isinstance(section, dict) for section in sections):
        raise CheckpointError(
            f"a config is a dict with the dicts `audio` and `text`, not {config!r:.200}"
        )
    try:
        check_values(config, defaults)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    merged = copy.deepcopy(defaults)
    for key, value in defaults.items():
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
    if any(key.startswith(TEXT + "base.wte.") for key in state):
        raise CheckpointError(
            "its text encoder is GPT-2, so it is MS-CLAP 2023's checkpoint: load it as msclap:FILE"
        )
    return read_joint_sizes(state) | {"text": read_text_sizes(state)}


def read_joint_sizes(state: dict) -> dict:
    """The joint width and HTS-AT's sizes."""
    d_proj = find_size(state, "the joint width", (0, PROJECTIONS))
    return {"d_proj": d_proj, "audio": read_audio_sizes(state)}


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
            key = re.sub(r"\\[wd]\+", "*", pattern).replace("\\", "")
            raise CheckpointError(f"the tensor {key}, which shows {what}, is missing")
        for key, shape in shapes.items():
            found[f"{key} {shape}"] = shape[axis] if len(shape) > axis else None
    values = set(found.values())
    if len(values) > 1 or None in values:
        raise CheckpointError(f"tensors of the checkpoint disagree on {what}: {'; '.join(found)}")
    return values.pop()


def count_layers(state: dict, prefix: str) -> int:
    """Layers that are numbered from 0 after a prefix."""
    parts = (key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix))
    return 1 + max((int(part) for part in parts if part.isdecimal()), default=-1)


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


def check_depths(sizes: dict, published: dict = PENGI_SIZES, title: str = "PENGI") -> None:
    """Raise if a checkpoint of the published model's widths has other depths.

    A missing last layer cannot be noticed otherwise.
    """
    for encoder, width in (("audio", "embed_dim"), ("text", "hidden_size")):
        if sizes[encoder][width] != published[encoder][width]:
            return
    for encoder, depth in (("audio", "depths"), ("text", "num_hidden_layers")):
        found, expected = sizes[encoder][depth], published[encoder][depth]
        if found != expected:
            raise CheckpointError(
                f"layers of the {encoder} encoder are missing: {depth} is {found}, "
                f"{title} has {expected}"
            )


def build(
    sizes: dict, settings: dict, text_class: type[TextEncoder] = TextEncoder
) -> tuple[AudioEncoder, TextEncoder]:
    """The two encoders with PyTorch's initial values."""
    check_heads(sizes, settings)
    audio, text = build_audio(sizes, settings), sizes["text"]
    text_encoder = text_class(clip_dim=text["projection_dim"], **text_settings(sizes, settings))
    return audio, text_encoder


def check_heads(sizes: dict, settings: dict) -> None:
    width, heads = sizes["text"]["hidden_size"], settings["text"]["num_attention_heads"]
    if width % heads:
        raise CheckpointError(
            f"text width {width} is no multiple of {heads} heads; "
            "pass config= with its heads (text.num_attention_heads)"
        )


def text_settings(sizes: dict, settings: dict) -> dict:
    """Arguments that all text encoders have: sizes of their tensors, and what these do not show."""
    size, text = sizes["text"], settings["text"]
    return {
        "width": size["hidden_size"],
        "layers": size["num_hidden_layers"],
        "hidden": size["intermediate_size"],
        "positions": size["max_position_embeddings"],
        "heads": text["num_attention_heads"],
        "eps": text["layer_norm_eps"],
        "max_tokens": text["enc_text_len"],
        "d_proj": sizes["d_proj"],
        "dropout": settings["projection_dropout"],
    }


def build_audio(sizes: dict, settings: dict) -> AudioEncoder:
    """HTS-AT with PyTorch's initial values."""
    swin = {key.removeprefix("htsat_"): value for key, value in sizes["audio"].items()}
    swin |= {"d_proj": sizes["d_proj"], "dropout": settings["projection_dropout"]}
    spec_size, bands = settings["audio"]["spec_size"], sizes["audio"]["mel_bins"]
    if spec_size % bands:
        raise CheckpointError(f"audio.spec_size={spec_size}: use a multiple of {bands} mel bands")
    try:
        return AudioEncoder(**swin, **settings["audio"])
    except (ValueError, RuntimeError, TypeError, ArithmeticError, AssertionError) as error:
        raise CheckpointError(
            f"no encoder can be built with {settings['audio']} of a config: {error}"
        ) from error


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
    return audio_state(audio) | text_targets(text)


def audio_state(audio: AudioEncoder) -> dict[str, torch.Tensor]:
    """HTS-AT and its projection under the checkpoint's names."""
    kernels = stft_kernels(audio.window, len(audio.mel))
    return audio_targets(audio) | {MEL: audio.mel, **dict(zip(STFT_KERNELS, kernels, strict=True))}


def audio_targets(audio: AudioEncoder) -> dict[str, torch.Tensor]:
    """Its own tensors, without mel matrix and window, under the checkpoint's names."""
    tensors = audio.state_dict()
    return {checkpoint_key(f"audio.{k}"): v for k, v in tensors.items() if k not in COMPUTED}


def text_targets(text: TextEncoder) -> dict[str, torch.Tensor]:
    return {checkpoint_key(f"text.{key}"): tensor for key, tensor in text.state_dict().items()}


def stft_kernels(window: torch.Tensor, bins: int) -> list[torch.Tensor]:
    """A windowed Fourier transform as the checkpoint has it: two kernels [bins, 1, n_fft]."""
    n_fft = len(window)
    steps = torch.outer(torch.arange(bins), torch.arange(n_fft)).remainder(n_fft)
    angle = steps.double() * (2 * torch.pi / n_fft)
    waves = (angle.cos(), -angle.sin())
    return [(window.double() * wave).float()[:, None] for wave in waves]


def load_weights(audio: AudioEncoder, text: TextEncoder, state: dict, path: Path) -> None:
    """Copy the checkpoint's tensors into the modules. None may be missing, unknown or misshapen."""
    targets = text_targets(text)
    shapes = {key: list(tensor.shape) for key, tensor in targets.items()}
    check_tensors(state, audio_shapes(audio) | shapes, f"{path.name} does not fit PENGI's encoders")
    load_audio(audio, state)
    for key, tensor in targets.items():
        tensor.copy_(state[key])


def load_audio(audio: AudioEncoder, state: dict) -> None:
    """Copy a checkpoint's tensors, which are of `audio_shapes`, into HTS-AT."""
    for key, tensor in audio_targets(audio).items():
        tensor.copy_(state[key])
    audio.mel.copy_(state[MEL])
    audio.window.copy_(read_window(*(state[key] for key in STFT_KERNELS)))


def audio_shapes(audio: AudioEncoder) -> dict[str, list[int]]:
    """The tensors that a checkpoint must have for HTS-AT."""
    shapes = {key: list(tensor.shape) for key, tensor in audio_targets(audio).items()}
    kernel = [len(audio.mel), 1, len(audio.window)]
    return shapes | {**dict.fromkeys(STFT_KERNELS, kernel), MEL: list(audio.mel.shape)}


def check_tensors(state: dict, expected: dict[str, list[int]], title: str, unused=UNUSED) -> None:
    """Raise CheckpointError unless the tensors are those expected. `unused` may be there too."""
    if problems := find_problems(state, expected, unused):
        more = [f"... and {len(problems) - 20} more"] if len(problems) > 20 else []
        raise CheckpointError("\n  ".join([f"{title}:", *problems[:20], *more]))


def find_problems(state: dict, expected: dict[str, list[int]], unused) -> list[str]:
    """One line for each tensor that is missing, unexpected, misshapen or not finite."""
    given = {key: list(tensor.shape) for key, tensor in state.items() if not unused.search(key)}
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
