"""Gains and biases inside PENGI's audio encoder, with gradients through it (ASPL)."""

from __future__ import annotations

import torch
from torch import nn

from palmkit.audio import count_samples
from palmkit.models.encoders import AudioEncoder
from palmkit.models.pengi import Pengi

STAGES = (
    "log_mel",  # the log-mel before bn0: a channel is a mel band
    "patches",  # after the patch embedding and its LayerNorm
    "stage1",  # after Swin's first stage, whose end merges patches and doubles the channels
)


class ChannelAffine(nn.Module):
    """gain * x + bias for x [..., channels], one of each a channel; at first the identity."""

    def __init__(self, like: torch.Tensor):
        """like: [channels]; type and device are taken from it."""
        super().__init__()
        self.gain = nn.Parameter(torch.ones_like(like))
        self.bias = nn.Parameter(torch.zeros_like(like))

    def forward(self, x):
        return self.gain * x + self.bias


class TunedAudio(nn.Module):
    """An AudioEncoder, its weights shared, with a ChannelAffine at some of STAGES."""

    chunks = staticmethod(AudioEncoder.chunks)

    def __init__(self, encoder: AudioEncoder, stages: nn.ModuleDict):
        super().__init__()
        self.encoder, self.stages = encoder, stages
        self.window, self.bn0, self.projection = encoder.window, encoder.bn0, encoder.projection

    def tune(self, stage: str, x):
        """x [..., channels] as the stage's gain and bias change it."""
        return self.stages[stage](x) if stage in self.stages else x

    def encode(self, log_mel):
        """[n, frames, mel] -> [n, d_proj], as the AudioEncoder from its log-mel on."""
        trunk = self.encoder.trunk
        image = self.encoder.image(self.tune("log_mel", log_mel))
        x = self.tune("patches", trunk.patch_embed(image))  # [n, rows, columns, channels]
        for number, stage in enumerate(trunk.layers):
            # timm merges patches where a stage begins; in HTS-AT this ends the stage before.
            x = stage.downsample(x)
            x = stage.blocks(self.tune(f"stage{number}", x))
        return self.projection(trunk.norm(x).mean((1, 2)))

    def forward(self, waveforms):
        """[n, samples] -> [n, d_proj]."""
        return self.encode(self.encoder.log_mel(waveforms))


def make_stages(model, names, purpose: str) -> nn.ModuleDict:
    """A ChannelAffine for each of the stages, by its name.

    purpose: what needs them. Raises ValueError for a model that is not PENGI.
    """
    if not isinstance(model, Pengi):
        raise ValueError(
            f"{purpose} needs the stages {', '.join(names)} of PENGI's audio encoder with their "
            f"gradients, which {model.name} does not have"
        )
    trunk = model.audio.trunk
    merged = trunk.layers[1].downsample.reduction.weight[:, 0]
    likes = {
        "log_mel": model.audio.bn0.weight,
        "patches": trunk.patch_embed.proj.weight[:, 0, 0, 0],
        "stage1": merged,
    }
    return nn.ModuleDict({name: ChannelAffine(likes[name]) for name in names})


def tuned_pengi(model: Pengi, stages: nn.ModuleDict) -> Pengi:
    """The same PENGI, its weights shared, with copies of these gains and biases. It has no
    gradient."""
    frozen = nn.ModuleDict()
    for name, stage in stages.items():
        frozen[name] = ChannelAffine(stage.gain)
        frozen[name].load_state_dict(stage.state_dict())
    audio = TunedAudio(model.audio, frozen)
    other = type(model)(audio, model.text, model.config, model.device, model.name)
    other.note = model.note
    return other


def log_mel_shape(model: Pengi) -> tuple[int, int]:
    """(frames, mel bands) of a clip's log-mel."""
    samples = count_samples(model.clip_seconds, model.sample_rate)
    return samples // model.audio.hop_size + 1, model.audio.mel.shape[1]
