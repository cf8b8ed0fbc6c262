"""PENGI as a model of the kit: `pengi = load_pengi("base.pth")`."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F

from palmkit.checksums import verify_folder
from palmkit.models.base import choose_device
from palmkit.models.checkpoint import (
    ASSUMED,
    PENGI_SIZES,
    PRECISIONS,
    CheckpointError,
    add_stft_kernels,
    build,
    check_config,
    check_depths,
    load_weights,
    merge_config,
    read_checkpoint,
    read_config,
    read_sizes,
)
from palmkit.models.encoders import AudioEncoder, TextEncoder, tokenize
from palmkit.models.precision import exact_convolutions
from palmkit.storage import data_root

MINI = Path(__file__).parents[1] / "mini" / "mini.safetensors"  # its model card is beside it
LOGIT_SCALE = 100.0  # fixed in the published code; PENGI's own temperature is not used
PROMPT = "The is a recording of  {}."  # sic: the published zero-shot numbers belong to this wording

FEATURE_STEPS = 2.0**20  # of a float64 model's features between 0 and 1


class HtsatModel:
    """HTS-AT and a causal text encoder, `.audio` and `.text`, frozen. With a subclass's
    `logit_scale`, `prompt` and `tokenize` they are an AudioTextModel with PromptableText.
    """

    sample_rate = ASSUMED["audio"]["sampling_rate"]
    clip_seconds = ASSUMED["audio"]["n_samples"] / sample_rate
    checkpoint_sha256 = ""  # of the file that it was loaded from, as model cards name it
    padding, channels = "repeat", "join"  # of short clips, and of stereo files, as published

    def __init__(
        self,
        audio: AudioEncoder,
        text: TextEncoder,
        config: dict,
        device: torch.device,
        name: str = "PENGI",
    ):
        self.dtype = choose_dtype(config.get("precision", "float32"), device)
        self.audio = audio.to(device, self.dtype).eval().requires_grad_(False)
        self.text = text.to(device, self.dtype).eval().requires_grad_(False)
        self.config, self.device, self.name, self.note = config, device, name, ""
        self.dim = audio.projection.linear1.out_features
        self.text_width = text.width

    @property
    def note(self) -> str:
        """A sentence for every output: the checkpoint's note, and one set by the user."""
        given = self.config["note"]
        return self._note if given in self._note else "; ".join(filter(None, [given, self._note]))

    @note.setter
    def note(self, note: str):
        self._note = note

    @exact_convolutions()
    def encode_audio(self, waveforms) -> torch.Tensor:
        """Waveforms [n, samples] at 44.1 kHz -> unit embeddings [n, dim], float32, no gradient."""
        waveforms = torch.as_tensor(waveforms, dtype=torch.float32)
        shape = list(waveforms.shape)
        if len(shape) != 2 or 0 in shape or shape[1] <= len(self.audio.window) // 2:
            raise ValueError(f"encode_audio takes waveforms [n, samples], not of shape {shape}")
        with torch.inference_mode():
            embedding = self.batched(self.audio.eval(), waveforms.to(self.device, self.dtype))
            features = round_features(F.normalize(embedding, dim=-1))
        return features.clone()  # outside of inference mode: autograd accepts it as an input

    def batched(self, module, x) -> torch.Tensor:
        """module(x) for x [n, ...] on the device.

        CPU batches are always four clips, so a clip's result does not depend on its neighbours;
        four are as many as a CPU's cache holds.
        """
        n = len(x)
        if self.device.type == "cpu":
            x = torch.cat([x, x.new_zeros(-n % 4, *x.shape[1:])])
        return torch.cat([module(chunk) for chunk in self.audio.chunks(x, 4)])[:n]

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        """Prompts -> unit embeddings [n, dim]. Raises ValueError for a prompt that is too long."""
        return self.project_text(self.text_latents(prompts))

    def text_latents(self, prompts: list[str]) -> torch.Tensor:
        """Prompts -> input of the text projection, [n, clip_dim]; the same in any mode."""
        ids, mask = (tensor.to(self.device) for tensor in self.tokenize(prompts))
        with torch.inference_mode():
            latents = self.text.eval().pooled(ids, mask)
        return latents.clone()

    def project_text(self, latents: torch.Tensor) -> torch.Tensor:
        """[n, clip_dim] -> unit embeddings [n, dim]; with dropout while `text_is_stochastic`."""
        with torch.no_grad():
            return F.normalize(self.text.projection(latents), dim=-1)

    def embed_tokens(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [...] -> token embeddings [..., text_width]."""
        return self.text.token_embedding(ids.to(self.device))

    def encode_embeddings(self, prefix, suffix, lengths) -> torch.Tensor:
        """prefix [b, p, width], suffix [c, s, width], lengths [c] -> [b, c, dim], differentiable.

        The text encoder is causal: the prefix runs once and all classes attend to it.
        """
        return self.project_prompts(self.prompt_latents(prefix, suffix, lengths))

    def prompt_latents(self, prefix, suffix, lengths) -> torch.Tensor:
        """The same up to the text projection, [b, c, clip_dim]: nothing in it is random."""
        shared = self.text.prefix(prefix)
        suffix = suffix.expand(len(prefix), -1, -1, -1)  # [b, c, s, width]
        return self.text.suffix_latents(suffix, lengths - 1, shared)

    def project_prompts(self, latents: torch.Tensor) -> torch.Tensor:
        """[b, c, clip_dim] -> [b, c, dim], with gradients; random while `text_is_stochastic`."""
        return self.text.projection(latents)

    def audio_digest(self) -> str:
        """sha256 of all that changes an audio embedding; independent of the text encoder."""
        return self.digest("audio")

    def settings(self, encoder: str) -> dict:
        """What changes embeddings of "audio" or "text", besides the weights."""
        return {**ASSUMED[encoder], **self.config[encoder]}

    def digest(self, *encoders: str) -> str:
        """sha256 of weights as they are now, config and preprocessing.

        encoders: "audio" or "text" is for that encoder only. The note is not included.
        """
        sha = hashlib.sha256()
        for encoder in encoders or ("audio", "text"):
            sha.update(json.dumps(self.settings(encoder), sort_keys=True).encode())
            for name, tensor in sorted(getattr(self, encoder).state_dict().items()):
                sha.update(f"{encoder}.{name}{list(tensor.shape)}{tensor.dtype}".encode())
                sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        if not encoders:
            config = {key: value for key, value in self.config.items() if key != "note"}
            sha.update(json.dumps(config, sort_keys=True).encode())
        return sha.hexdigest()


class Pengi(HtsatModel):
    """PENGI's two encoders."""

    logit_scale = LOGIT_SCALE
    prompt = PROMPT
    defaults = {"epochs": 50, "batch_size": 16, "lr": 0.05, "momentum": 0.9}  # as published

    @property
    def text_is_stochastic(self) -> bool:
        """Whether the text projection is in train mode, as in the published training."""
        return self.text.projection.training

    def tokenize(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask of each prompt, both [n, 40] int64."""
        return tokenize(prompts, self.text.max_tokens)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type to compute in. Double precision does not depend on the processor; MPS has none."""
    return torch.float32 if device.type == "mps" else PRECISIONS[precision]


def load_mini(device="auto") -> Pengi:
    """mini-PENGI, which comes with the kit."""
    return load_pengi("mini", device)


def load_original(device="auto") -> Pengi:
    """PENGI from `base.pth`, where `fetch("pengi")` puts it."""
    return load_pengi("pengi", device)


def round_features(embedding) -> torch.Tensor:
    """Unit embeddings [..., dim] as float32 features.

    Double precision is first rounded to multiples of 2^-20. Processors differ in its last bits.
    Rounding to float32 alone would give a few values in a million another float32.
    """
    if embedding.dtype == torch.float64:
        embedding = (embedding * FEATURE_STEPS).round() / FEATURE_STEPS
    return embedding.float()


def load_pengi(checkpoint, device="auto", config=None) -> Pengi:
    """Load PENGI's encoders from a checkpoint in `base.pth`'s layout or a safetensors file.

    checkpoint: a path, "mini" (mini-PENGI, which comes with the kit) or "pengi" (base.pth as
        `fetch("pengi")` brings it). Keys may have the prefix `module.`; decoder keys are ignored.
    device: "auto" is CUDA if there is one.
    config: a dict, or None for a `config.json` beside the checkpoint if there is one, else PENGI's
        own values.
    Raises CheckpointError naming each missing, unexpected or misshapen tensor.
    """
    named = {"mini": MINI, "pengi": data_root() / "pengi" / "base.pth"}
    path = named.get(checkpoint) or Path(checkpoint).expanduser()
    name = checkpoint if checkpoint in named else path.name
    try:
        return _load(path, config, choose_device(device), str(name))
    except CheckpointError as error:
        if path.name in str(error):
            raise
        raise CheckpointError(f"{path.name}: {error}") from error


def _load(path: Path, config: dict | None, device: torch.device, name: str) -> Pengi:
    if problem := verify_folder(path.parent):
        raise CheckpointError(problem)
    state = read_checkpoint(path)
    config = read_config(path) if config is None else config
    settings = merge_config(config)
    state = add_stft_kernels(state, config)
    sizes = read_sizes(state)
    check_config(config, sizes, path)
    has_heads = "num_attention_heads" in config.get("text", {})
    if not has_heads:
        check_depths(sizes)
        if sizes != PENGI_SIZES:
            warnings.warn(
                f"{path.name} is not of PENGI's size: {settings['text']['num_attention_heads']} "
                "text heads are assumed; put a config.json beside it or pass config=",
                stacklevel=4,
            )
    with torch.random.fork_rng(
        devices=[]
    ):  # modules draw initial values, which the checkpoint replaces
        audio, text = build(sizes, settings)
    load_weights(audio, text, state, path)
    model = Pengi(audio, text, settings, device, name)
    with open(path, "rb") as file:
        model.checkpoint_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return model
