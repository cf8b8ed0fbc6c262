"""The audio encoder in train mode, as the published training runs it."""

from __future__ import annotations

import contextlib
import copy
import functools

import torch
import torch.nn.functional as F

from palmkit import audio
from palmkit.models.checkpoint import PENGI_CONFIG
from palmkit.models.pengi import Pengi, round_features
from palmkit.models.precision import exact_convolutions

STOCHASTIC = (
    "crops",  # longer clips are cropped again in every epoch, and at test by each seed
    "bn0",  # batch statistics while training; the running ones are kept for test
    "specaugment",  # stripes of the log-mel set to 0, after bn0
    "drop_path",  # stochastic depth in the Swin trunk
    "audio_dropout",  # of the audio projection
    "text_dropout",  # of the text projection
)
STRIPES = 2  # of each kind, a clip
FRAMES = 64  # a stripe in time is narrower than this; of PENGI's frames, every 320 samples
BANDS = 8  # a stripe of bands is narrower than this


def check_stochastic(names) -> tuple[str, ...]:
    """Names of what is random, in order: "all", or some of STOCHASTIC. Raises ValueError."""
    if isinstance(names, str):
        names = STOCHASTIC if names == "all" else [names]
    if unknown := [name for name in names if name not in STOCHASTIC]:
        known = ", ".join(STOCHASTIC)
        raise ValueError(f"there is no random part {unknown[0]!r}; there are {known}")
    return tuple(name for name in STOCHASTIC if name in names)


@contextlib.contextmanager
def seeded(device, *purpose):
    """torch's generators seeded by a purpose, say (seed, "drop_path", epoch); then restored."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(audio.digest(repr(purpose).encode())[:15], 16))
        yield


@contextlib.contextmanager
def text_dropout(model, seed):
    """The published training's dropout in the text projection, on within the `with` block only.

    Raises ValueError for a model other than PENGI.
    """
    check_model(model)
    with seeded(model.device, seed, "text_dropout"):
        try:
            model.text.projection.train()
            yield
        finally:
            model.text.projection.eval()


def check_model(model) -> None:
    """Raise ValueError unless the model is PENGI: the train mode is defined for its modules."""
    if not isinstance(model, Pengi):
        raise ValueError(
            f"the published protocol's train mode is PENGI's and not defined for {model.name}: "
            "use the frozen protocol"
        )


def spec_augment(x, frames=FRAMES):
    """PENGI's SpecAugment: x [n, mel, frames, 1] after bn0 with stripes set to 0.

    Each clip gets two stripes of 0 to 63 frames and two of 0 to 7 bands, with uniform starts
    inside the image. PENGI's trainer applies it although the flag for it is off.
    frames: stripes in time are narrower than this.
    """
    x = x.clone()
    for axis, limit in ((2, frames), (1, BANDS)):
        hit = draw_stripes(len(x), x.shape[axis], limit).to(x.device)  # [n, total]
        x.masked_fill_(hit[:, None, :, None] if axis == 2 else hit[:, :, None, None], 0)
    return x


def draw_stripes(n: int, total: int, limit: int) -> torch.Tensor:
    """[n, total] bool: what two stripes narrower than `limit` cover of `total` places."""
    if total < limit:
        raise ValueError(f"stripes of {limit - 1} do not fit into {total} frames or bands")
    width = torch.randint(limit, (n, STRIPES, 1))
    start = (torch.rand(n, STRIPES, 1, dtype=torch.float64) * (total - width)).long()
    place = torch.arange(total)
    return ((place >= start) & (place < start + width)).any(1)


def with_bn_statistics(model, bn0=None) -> Pengi:
    """The same PENGI, its weights shared, with these statistics of bn0 (`EpochEmbeddings.bn0`)."""
    shared = {id(parameter): parameter for parameter in model.audio.parameters()}  # deepcopy's memo
    audio_encoder = copy.deepcopy(model.audio, shared)
    audio_encoder.bn0.load_state_dict(bn0 or {}, strict=False)
    other = type(model)(audio_encoder, model.text, model.config, model.device, model.name)
    other.note = model.note
    return other


class TrainModeAudio:
    """PENGI's audio encoder in train mode. The model that it is made from does not change.

    Each random part is seeded by (seed, its name, epoch, step). A call takes what `precompute`
    gives, with epoch and step, and returns unit embeddings [n, dim] in float32. `bn0` are the
    running statistics until now. Raises ValueError for a model other than PENGI.
    """

    def __init__(self, model, stochastic=STOCHASTIC, seed=0, autocast=False):
        from timm.layers import DropPath  # here: a process without PENGI does not need timm

        check_model(model)
        if autocast and model.dtype != torch.float32:
            raise ValueError(
                f"autocast does nothing for {model.name}, which computes in double precision: "
                "leave it out, or load the model with precision float32 in its config"
            )
        self.stochastic = check_stochastic(stochastic)
        self.seed, self.autocast = seed, autocast
        self.model = with_bn_statistics(model)
        self.encoder = self.model.audio
        self.encoder.bn0.train("bn0" in self.stochastic)
        self.encoder.projection.train("audio_dropout" in self.stochastic)
        for module in self.encoder.trunk.modules():
            if isinstance(module, DropPath):
                module.train("drop_path" in self.stochastic)
        # With dropout at most, the input of the projection is a constant of the clip.
        self.deterministic = not {"bn0", "specaugment", "drop_path"} & set(self.stochastic)
        # Stripes last as long as PENGI's where frames come less often, as in mini-PENGI.
        self.frames = round(FRAMES * PENGI_CONFIG["audio"]["hop_size"] / self.encoder.hop_size)

    @property
    def bn0(self) -> dict[str, torch.Tensor]:
        """Copies of the running statistics, on the CPU."""
        return {name: buffer.cpu().clone() for name, buffer in self.encoder.bn0.named_buffers()}

    @bn0.setter
    def bn0(self, state) -> None:
        self.encoder.bn0.load_state_dict({name: state[name] for name in self.bn0}, strict=False)

    @torch.no_grad()
    @exact_convolutions()
    def precompute(self, waveforms):
        """Waveforms [n, samples] -> what no epoch changes: log-mels, or the projection's input."""
        log_mel = self.model.batched(self.encoder.log_mel, waveforms)
        return self.pooled(log_mel, 0, 0) if self.deterministic else log_mel

    def pooled(self, log_mel, epoch, step):
        """Log-mels [n, frames, mel] -> the projection's input [n, features]."""
        stripes = None
        if "specaugment" in self.stochastic:
            stripes = functools.partial(spec_augment, frames=self.frames)
        with seeded(self.model.device, self.seed, "specaugment", epoch, step):
            image = self.encoder.image(log_mel, stripes)  # the whole batch, for bn0's statistics
        with seeded(self.model.device, self.seed, "drop_path", epoch, step):
            return self.model.batched(self.encoder.pooled, image)

    @torch.no_grad()
    @exact_convolutions()
    def __call__(self, x, epoch: int, step: int) -> torch.Tensor:
        with torch.autocast(self.model.device.type, enabled=self.autocast):
            pooled = x if self.deterministic else self.pooled(x, epoch, step)
            with seeded(self.model.device, self.seed, "audio_dropout", epoch, step):
                embedding = self.model.batched(self.encoder.projection, pooled)
        # Half precision is normalised in float32, double precision in double.
        embedding = embedding.to(torch.promote_types(embedding.dtype, torch.float32))
        return round_features(F.normalize(embedding, dim=-1))
