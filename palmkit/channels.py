"""What becomes of a file's channels."""

from __future__ import annotations

import torch

# "mix": their mean. "join": one after the other, as in the published code; a stereo file becomes
# twice as long.
CHANNELS = ("mix", "join")


def combine_channels(waveform: torch.Tensor, channels="mix") -> torch.Tensor:
    """[channels, n] -> [n] if they are mixed, [channels * n] if they are joined."""
    if channels not in CHANNELS:
        raise ValueError(f"channels={channels!r}: use {', '.join(CHANNELS)}")
    return waveform.mean(0) if channels == "mix" else waveform.reshape(-1)


def model_channels(model) -> str:
    """What a model does with channels: one of CHANNELS; "mix" if it does not say."""
    return getattr(model, "channels", "mix")


def channels_key(model) -> dict:
    """What a key of cached embeddings says of it: nothing for "join", as older keys have none."""
    channels = model_channels(model)
    return {} if channels == "join" else {"channels": channels}
