"""What the published code computes, from one of two sources with the same shape.

`full` reads ../shared/reference beside the project. `compact` reads the committed copy in
tests/fixtures, made by make_fixture.py, and puts back what can be computed from its definition.
A test takes either, and they look the same.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

SHARED = Path(__file__).resolve().parents[3] / "shared" / "reference"
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
TABLES = ["audio_eval", "audio_eval_melw", "bn0_train", "preprocess", "text_eval", "zeroshot"]
METHODS = ["coop", "cocoop", "palm"]
COMMON = [
    "features",
    "features_unseen",
    "labels",
    "batch_index",
]  # the same in all three training tables

HTSAT = "module.audio_encoder.base.htsat."
MEL = HTSAT + "logmel_extractor.melW"
EMBEDDINGS = "module.caption_encoder.base.embeddings."
TOKENS = EMBEDDINGS + "token_embedding.weight"
UNUSED = (
    "htsat.tscam_conv.",
    "htsat.head.",
)  # in the checkpoint, but no embedding depends on them: zeros in the copy


@dataclass(frozen=True)
class Reference:
    """One source: `tables[file][tensor]`, `facts` (JSON), clips as int16, and a checkpoint."""

    name: str
    checkpoint: Path
    preprocess: Path
    tables: dict[str, dict[str, Tensor]]
    facts: dict
    clips: dict[str, Tensor]

    def waves(self) -> Tensor:
        """All clips as [n, 308700] in [-1, 1], tiled as published, in the order of the tables."""
        length = self.facts["config"]["audio"]["n_samples"]
        tiled = [clip.repeat(-(-length // len(clip)))[:length] for clip in self.clips.values()]
        return torch.stack(tiled).float() / 32768

    def state(self) -> dict[str, Tensor]:
        return torch.load(self.checkpoint, weights_only=True)["model"]


def read_table(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as table:
        return {key: table.get_tensor(key) for key in sorted(table.keys())}, table.metadata() or {}


def full(directory: Path = SHARED) -> Reference:
    """The reference as it was made."""
    tables, metadata = {}, {}
    for name in TABLES + [f"train_{method}" for method in METHODS]:
        tables[name], metadata[name] = read_table(directory / f"{name}.safetensors")
    fewshot = json.loads((directory / "fewshot.json").read_text())
    facts = {
        "config": json.loads((directory / "config.json").read_text()),
        "prompts": json.loads(metadata["text_eval"]["prompts"]),
        "class_names": json.loads(metadata["zeroshot"]["classnames"]),
        "files": json.loads((directory / "preprocess.json").read_text()),
        "fewshot": {
            "csv": fewshot["csv"],
            "cases": [case for case in fewshot["cases"] if not case["repeat"]],
        },
        "full_keys": json.loads((directory / "full_keys.json").read_text()),
    }
    clips = {
        clip: tables["audio_eval"][f"wave_{clip}"]
        for clip in json.loads(metadata["audio_eval"]["order"])
    }
    return Reference(
        "full", directory / "tiny_pengi.pth", directory / "preprocess", tables, facts, clips
    )


def compact(scratch: Path) -> Reference:
    """The committed copy; its checkpoint and config.json are rebuilt in `scratch`."""
    facts = json.loads((FIXTURES / "compact.json").read_text())
    facts["full_keys"] = flat(facts["full_keys"])
    for case in facts["fewshot"]["cases"]:
        case["paths"] = [
            facts["fewshot"]["csv"].splitlines()[row + 1].split(",")[0] for row in case.pop("rows")
        ]
    tables: dict[str, dict[str, Tensor]] = {}
    for key, tensor in read_table(FIXTURES / "compact.safetensors")[0].items():
        table, name = key.split("/", 1)
        tables.setdefault(table, {})[name] = tensor
    for method in METHODS:
        tables[f"train_{method}"] |= {name: tables["train_coop"][name] for name in COMMON}
    tables["audio_eval_melw"]["melW"] = dense(
        tables["audio_eval_melw"], "melW", facts["config"]["audio"]
    )
    write_checkpoint(
        scratch / "tiny_pengi.pth",
        rebuild(tables.pop("checkpoint"), facts["config"]),
        facts["config"],
    )
    with np.load(FIXTURES / "clips.npz") as archive:
        clips = {clip: torch.from_numpy(archive[clip]) for clip in facts["clips"]}
    return Reference(
        "compact", scratch / "tiny_pengi.pth", FIXTURES / "preprocess", tables, facts, clips
    )


def write_checkpoint(path: Path, state: dict[str, Tensor], config: dict) -> Path:
    """`state` in base.pth's layout, its config.json beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": state}, path)
    path.with_name("config.json").write_text(json.dumps({**config, "checkpoint": path.name}))
    return path


# What the copy leaves out because it follows from a definition.


def rebuild(stored: dict[str, Tensor], config: dict) -> dict[str, Tensor]:
    """The full state dict from the stored token rows and the mel matrix's non-zeros."""
    state = {key: tensor for key, tensor in stored.items() if not key.startswith((MEL, TOKENS))}
    tokens = torch.zeros(config["text"]["vocab_size"], config["text"]["hidden_size"])
    tokens[stored[TOKENS + ".rows"].long()] = stored[TOKENS]
    return {
        **state,
        **constants(config),
        **unused(config),
        TOKENS: tokens,
        MEL: dense(stored, MEL, config["audio"]),
    }


def constants(config: dict) -> dict[str, Tensor]:
    """STFT kernels, shift masks and position indices."""
    audio, text = config["audio"], config["text"]
    real, imaginary = stft_kernels(audio["n_fft"])
    state = {
        HTSAT + "spectrogram_extractor.stft.conv_real.weight": real,
        HTSAT + "spectrogram_extractor.stft.conv_imag.weight": imaginary,
        EMBEDDINGS + "position_ids": torch.arange(text["max_position_embeddings"])[None],
    }
    window, side = audio["htsat_window_size"], audio["spec_size"] // audio["patch_size"]
    for layer, depth in enumerate(audio["depths"]):
        for block in range(depth):
            prefix = f"{HTSAT}layers.{layer}.blocks.{block}."
            state[prefix + "attn.relative_position_index"] = relative_position_index(window)
            if (
                block % 2 and side >> layer > window
            ):  # every other block is shifted, where there is more than a window
                state[prefix + "attn_mask"] = shift_mask(side >> layer, window)
    return state


def unused(config: dict) -> dict[str, Tensor]:
    """The tagging heads that no embedding passes through; zeros of the right shape."""
    audio = config["audio"]
    classes, width = audio["num_classes"], audio["latent_dim"]
    rows = (
        audio["spec_size"]
        // audio["patch_size"]
        // 2 ** (len(audio["depths"]) - 1)
        // audio["freq_ratio"]
    )
    return {
        HTSAT + "tscam_conv.weight": torch.zeros(classes, width, rows, 3),
        HTSAT + "tscam_conv.bias": torch.zeros(classes),
        HTSAT + "head.weight": torch.zeros(classes, classes),
        HTSAT + "head.bias": torch.zeros(classes),
    }


def stft_kernels(n_fft: int) -> tuple[Tensor, Tensor]:
    """Periodic Hann times DFT, [bins, 1, n_fft]; powers of one root give the same last bit."""
    n = np.arange(n_fft)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / n_fft)
    kernels = np.power(np.exp(-2j * np.pi / n_fft), np.outer(n, n))[: n_fft // 2 + 1] * hann
    real, imaginary = torch.from_numpy(kernels.real.copy()), torch.from_numpy(kernels.imag.copy())
    return real[:, None].float(), imaginary[:, None].float()


def relative_position_index(window: int) -> Tensor:
    rows, columns = (
        torch.arange(window).repeat_interleave(window),
        torch.arange(window).repeat(window),
    )
    return (
        (rows[:, None] - rows + window - 1) * (2 * window - 1)
        + columns[:, None]
        - columns
        + window
        - 1
    )


def shift_mask(side: int, window: int) -> Tensor:
    """-100 between two positions of a shifted window that were not neighbours before the shift."""
    region = torch.zeros(side)
    region[-window:], region[-window // 2 :] = 1, 2
    regions = (3 * region[:, None] + region).unfold(0, window, window).unfold(1, window, window)
    regions = regions.reshape(-1, window * window)
    return -100.0 * (regions[:, None] != regions[:, :, None])


def sparse(matrix: Tensor, name: str) -> dict[str, Tensor]:
    """The non-zeros of a mel matrix under `name`, their flat positions under `name`.at."""
    at = matrix.flatten().nonzero()[:, 0]
    return {name: matrix.flatten()[at], f"{name}.at": at.int()}


def dense(table: dict[str, Tensor], name: str, audio: dict) -> Tensor:
    matrix = torch.zeros((audio["n_fft"] // 2 + 1) * audio["mel_bins"])
    matrix[table[f"{name}.at"].long()] = table[name]
    return matrix.reshape(-1, audio["mel_bins"])


def tree(keys: dict[str, list]) -> dict:
    """Dotted keys with [shape, dtype] as a tree: a prefix is written once, float32 left out."""
    nested: dict = {}
    for key, value in keys.items():
        *path, leaf = key.split(".")
        branch = nested
        for part in path:
            branch = branch.setdefault(part, {})
        shape, dtype = value
        branch[leaf] = shape if dtype == "float32" else [shape, dtype]
    return nested


def flat(nested: dict, prefix: str = "") -> dict[str, list]:
    """The inverse of `tree`."""
    keys = {}
    for part, value in nested.items():
        if isinstance(value, dict):
            keys.update(flat(value, f"{prefix}{part}."))
        else:
            keys[prefix + part] = value if value[-1:] == ["int64"] else [value, "float32"]
    return keys


# Comparisons. Every error is remembered, so that the report can say how close the closest call was.

largest: dict[tuple[str, str], tuple[float, float]] = {}


def within(limit: float, error: Tensor | float, stage: str, source: str, what: str = "") -> None:
    """Assert that no error exceeds `limit`; NaN does. what: the file or tensor, for the message."""
    error = float(torch.as_tensor(error, dtype=torch.float64).max())
    known = largest.get((stage, source), (0.0, 0.0))
    largest[stage, source] = (max(error, known[0]), max(limit, known[1]))
    assert error <= limit, f"{stage} ({source}) {what}: error {error:.2e} is over {limit:.0e}"


def relative(got: Tensor, expected: Tensor) -> Tensor:
    """Norm of the difference over norm of the reference, for each row."""
    assert got.shape == expected.shape, (
        f"shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    )
    difference = (got.double() - expected.double()).flatten(1).norm(dim=1)
    return difference / expected.double().flatten(1).norm(dim=1)


def scaled(got: Tensor, expected: Tensor) -> Tensor:
    """Largest elementwise difference over the reference's largest magnitude."""
    assert got.shape == expected.shape, (
        f"shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    )
    return (got.double() - expected.double()).abs().max() / expected.double().abs().max()


def absolute(got: Tensor, expected: Tensor) -> Tensor:
    assert got.shape == expected.shape, (
        f"shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    )
    return (got.double() - expected.double()).abs().max()


def report() -> str:
    """The largest error of each stage and the limit it was held to."""
    lines = [f"{'largest error':<38} {'compact':>8} {'full':>8} {'limit':>8}"]
    for stage in dict.fromkeys(stage for stage, _ in largest):
        reached = {source: error for (of, source), (error, _) in largest.items() if of == stage}
        errors = (
            f"{reached[source]:.1e}" if source in reached else "" for source in ("compact", "full")
        )
        limit = max(limit for (of, _), (_, limit) in largest.items() if of == stage)
        lines.append(
            f"{stage:<38} " + " ".join(f"{error:>8}" for error in errors) + f" {limit:>8.0e}"
        )
    return "\n".join(lines)
