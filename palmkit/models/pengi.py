"""PENGI as a model of the kit: `pengi = load_pengi("base.pth")`."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F

from palmkit.checksums import verify_folder
from palmkit.models.checkpoint import (
    MEL,
    PENGI_SIZES,
    STFT_KERNELS,
    CheckpointError,
    build,
    check_config,
    check_depths,
    load_weights,
    merge_config,
    read_checkpoint,
    read_config,
    read_sizes,
    stft_kernels,
)
from palmkit.models.encoders import AudioEncoder, TextEncoder, tokenize
from palmkit.storage import data_root

MINI = Path(__file__).parents[1] / "mini" / "mini.safetensors"  # its model card is beside it


class Pengi:
    """The two frozen encoders: `.audio`, `.text` (modules), `.config`, `.device`, `.dim`, `.note`."""

    def __init__(self, audio: AudioEncoder, text: TextEncoder, config: dict, device: torch.device):
        self.audio, self.text = (
            encoder.to(device).eval().requires_grad_(False) for encoder in (audio, text)
        )
        self.config, self.device, self.note = config, device, ""
        self.dim = audio.projection.linear1.out_features

    @property
    def note(self) -> str:
        """What every output of this model should say: the checkpoint's own note, and one that was set beside it."""
        own = self.config["note"]
        return self._note if own in self._note else "; ".join(filter(None, [own, self._note]))

    @note.setter
    def note(self, note: str):
        self._note = note

    def encode_audio(self, waveforms) -> torch.Tensor:
        """Waveforms [n, samples] at 44.1 kHz -> unit embeddings [n, dim], in eval mode, without gradient."""
        waveforms = torch.as_tensor(waveforms, dtype=torch.float32)
        if (
            waveforms.ndim != 2
            or 0 in waveforms.shape
            or waveforms.shape[1] <= len(self.audio.window) // 2
        ):
            raise ValueError(
                f"encode_audio takes waveforms [n, samples], not a tensor of shape {list(waveforms.shape)}"
            )
        with torch.inference_mode():
            embedding = F.normalize(
                self.batched(self.audio.eval(), waveforms.to(self.device)), dim=-1
            )
        return (
            embedding.clone()
        )  # outside inference mode: a plain tensor that autograd accepts as an input

    def batched(self, module, x) -> torch.Tensor:
        """module(x), x [n, ...] on the device. On a CPU four clips at a time, always: a clip's last bits must not hang
        on how many are beside it, and four are as many as its cache holds."""
        n = len(x)
        if self.device.type == "cpu":
            x = torch.cat([x, x.new_zeros(-n % 4, *x.shape[1:])])
        return torch.cat([module(part) for part in self.audio.parts(x, 4)])[:n]

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        """Prompts -> unit embeddings [n, dim]. Raises ValueError for a prompt over 40 tokens."""
        return self.project_text(self.text_latents(prompts))

    def text_latents(self, prompts: list[str]) -> torch.Tensor:
        """Prompts -> what goes into the text projection, [n, clip_dim]; no mode of training changes it."""
        ids, mask = (tensor.to(self.device) for tensor in self.tokenize(prompts))
        with torch.inference_mode():
            latents = self.text.eval().latent(ids, mask)
        return latents.clone()

    def project_text(self, latents) -> torch.Tensor:
        """[n, clip_dim] -> unit embeddings [n, dim]; with dropout if, and only if, the projection is in train mode."""
        with torch.no_grad():
            return F.normalize(self.text.projection(latents), dim=-1)

    def tokenize(self, prompts: list[str]):
        """Token ids and mask of each prompt, both [n, 40] int64."""
        return tokenize(prompts, self.text.max_tokens)

    def digest(self, *encoders: str) -> str:
        """sha256 of the weights as they are now, of "audio", "text" or (default) both, whatever file they came from."""
        sha = hashlib.sha256()
        for encoder in encoders or ("audio", "text"):
            for name, tensor in sorted(getattr(self, encoder).state_dict().items()):
                sha.update(f"{encoder}.{name}{list(tensor.shape)}{tensor.dtype}".encode())
                sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()


def load_pengi(checkpoint, device="auto", config=None) -> Pengi:
    """Load PENGI's encoders from a checkpoint in `base.pth`'s layout or a safetensors file.

    checkpoint: a path, "mini" (mini-PENGI, which comes with the kit) or "pengi" (base.pth as `fetch("pengi")` brings
        it). Keys may have the prefix `module.`; decoder keys are ignored.
    device: "auto" is CUDA if there is one.
    config: a dict, or None for a `config.json` beside the checkpoint if there is one, else PENGI's own values.
    Raises CheckpointError naming each missing, unexpected or misshapen tensor.
    """
    named = {"mini": MINI, "pengi": data_root() / "pengi" / "base.pth"}
    path = named.get(checkpoint) or Path(checkpoint).expanduser()
    try:
        if problem := verify_folder(path.parent):
            raise CheckpointError(problem)
        state = read_checkpoint(path)
        config = read_config(path) if config is None else config
        settings = merge_config(config)
        if (
            config.get("audio", {}).get("stft") == "computed" and MEL in state
        ):  # 4 MB that a small file need not carry
            bins = len(state[MEL])
            state = (
                dict(
                    zip(
                        STFT_KERNELS,
                        stft_kernels(torch.hann_window(2 * bins - 2), bins),
                        strict=True,
                    )
                )
                | state
            )
        sizes = read_sizes(state)
        check_config(config, sizes, path)
        if not (told := "num_attention_heads" in config.get("text", {})):
            check_depths(sizes)
        with torch.random.fork_rng(devices=[]):  # modules draw initial values that are thrown away
            audio, text = build(sizes, settings)
        load_weights(audio, text, state, path)
    except CheckpointError as error:
        raise (
            error if path.name in str(error) else CheckpointError(f"{path.name}: {error}")
        ) from error
    if sizes != PENGI_SIZES and not told:
        warnings.warn(
            f"{path.name} is not of PENGI's size: {settings['text']['num_attention_heads']} text heads are assumed, "
            "for no config tells; put a config.json beside it or pass config=",
            stacklevel=2,
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Pengi(audio, text, settings, torch.device(device))
