"""The audio encoder in train mode, as the published training runs it."""

from __future__ import annotations

import contextlib
import copy
import functools

import torch
import torch.nn.functional as F
from timm.layers import DropPath

from palmkit import audio
from palmkit.models.checkpoint import PENGI_CONFIG
from palmkit.models.pengi import Pengi

PARTS = (
    "crops",  # clips over 7 s are cropped anew in every epoch, and at test by each seed for itself
    "bn0",  # batch statistics while training, and running ones that drift and are kept for test
    "specaugment",  # stripes of the log-mel set to 0, after bn0
    "drop_path",  # stochastic depth in the Swin trunk
    "audio_dropout",  # of the audio projection
    "text_dropout",  # of the text projection
)
STRIPES = 2  # of each kind, a clip
FRAMES, BANDS = (
    64,
    8,
)  # a stripe is narrower than this; of PENGI's frames, which come every 320 samples


def check_parts(parts) -> tuple[str, ...]:
    """Names of random parts, in order: "all", or some of PARTS. Raises ValueError for another name."""
    parts = PARTS if parts == "all" else [parts] if isinstance(parts, str) else parts
    if unknown := [part for part in parts if part not in PARTS]:
        raise ValueError(f"there is no random part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in parts)


@contextlib.contextmanager
def seeded(device, *purpose):
    """torch's generators seeded by what they are for, say (seed, "drop_path", epoch, step); afterwards as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(audio.digest(repr(purpose).encode())[:15], 16))
        yield


@contextlib.contextmanager
def text_dropout(model, seed):
    """The published training's dropout in the text projection, for the `fit` within; afterwards it is off again."""
    with seeded(model.device, seed, "text_dropout"):
        try:
            model.text.projection.train()
            yield
        finally:
            model.text.projection.eval()


def spec_augment(x, frames=FRAMES):
    """x [n, mel, frames, 1] after bn0 -> the same with stripes set to 0, each clip for itself.

    Two stripes of 0..63 frames and two of 0..7 bands, starts uniform where they fit: PENGI's SpecAugment, which its
    trainer applies although the flag for it is off. frames: the width that stripes in time stay below.
    """
    x = x.clone()
    for axis, limit in ((2, frames), (1, BANDS)):
        total = x.shape[axis]
        if total < limit:
            raise ValueError(f"stripes of {limit - 1} do not fit into {total} frames or bands")
        width = torch.randint(limit, (len(x), STRIPES, 1))
        start = (torch.rand(len(x), STRIPES, 1, dtype=torch.float64) * (total - width)).long()
        place = torch.arange(total)
        hit = ((place >= start) & (place < start + width)).any(1).to(x.device)  # [n, total]
        x.masked_fill_(hit[:, None, :, None] if axis == 2 else hit[:, :, None, None], 0)
    return x


def with_bn_statistics(model, bn0=None) -> Pengi:
    """The same PENGI, its weights shared and not copied, with these statistics of bn0 (as `Stream.bn0`)."""
    audio_encoder = copy.deepcopy(model.audio, {id(p): p for p in model.audio.parameters()})
    audio_encoder.bn0.load_state_dict(bn0 or {}, strict=False)
    other = Pengi(audio_encoder, model.text, model.config, model.device, model.name)
    other.note = model.note
    return other


class TrainModeAudio:
    """PENGI's audio encoder with random parts on, each seeded by (seed, its name, epoch, step). `pengi` is not touched.

    Called with what `precompute` gives and with epoch and step, it answers with unit embeddings [n, dim]; `bn0` are the
    statistics as they have drifted so far.
    """

    def __init__(self, model, parts=PARTS, seed=0, autocast=False):
        self.parts, self.seed, self.autocast = check_parts(parts), seed, autocast
        self.model = with_bn_statistics(model)
        self.encoder = self.model.audio
        self.encoder.bn0.train("bn0" in self.parts)
        self.encoder.projection.train("audio_dropout" in self.parts)
        for module in self.encoder.trunk.modules():
            if isinstance(module, DropPath):
                module.train("drop_path" in self.parts)
        # Nothing but dropout changes: then what goes into the projection is as constant as its clip.
        self.deterministic = not {"bn0", "specaugment", "drop_path"} & set(self.parts)
        # Stripes are as long in seconds as PENGI's where frames come less often, as in mini-PENGI.
        self.frames = round(FRAMES * PENGI_CONFIG["audio"]["hop_size"] / self.encoder.hop_size)

    @property
    def bn0(self) -> dict[str, torch.Tensor]:
        return {name: buffer.cpu().clone() for name, buffer in self.encoder.bn0.named_buffers()}

    @bn0.setter
    def bn0(self, state) -> None:
        self.encoder.bn0.load_state_dict({name: state[name] for name in self.bn0}, strict=False)

    @torch.no_grad()
    def precompute(self, waveforms):
        """Waveforms [n, samples] -> what never changes for them: log-mels, or latents if nothing but dropout is on."""
        log_mel = self.model.batched(self.encoder.log_mel, waveforms)
        return self.latent(log_mel, 0, 0) if self.deterministic else log_mel

    def latent(self, log_mel, epoch, step):
        stripes = (
            functools.partial(spec_augment, frames=self.frames)
            if "specaugment" in self.parts
            else None
        )
        with seeded(self.model.device, self.seed, "specaugment", epoch, step):
            image = self.encoder.image(
                log_mel, stripes
            )  # the whole batch: its statistics are bn0's
        with seeded(self.model.device, self.seed, "drop_path", epoch, step):
            return self.model.batched(self.encoder.pooled, image)

    @torch.no_grad()
    def __call__(self, x, epoch: int, step: int):
        with torch.autocast(self.model.device.type, enabled=self.autocast):
            latent = x if self.deterministic else self.latent(x, epoch, step)
            with seeded(self.model.device, self.seed, "audio_dropout", epoch, step):
                embedding = self.model.batched(self.encoder.projection, latent)
        # Half precision is normalised in float32, double precision in double.
        embedding = embedding.to(torch.promote_types(embedding.dtype, torch.float32))
        return F.normalize(embedding, dim=-1).float()
