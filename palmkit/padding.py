"""How a clip that is shorter than a model's clips is filled."""

from __future__ import annotations

import torch

# "repeat": it is tiled and cut, as in the published code. "repeatpad": it is tiled as often as it
# fits as a whole, and zeros follow, as CLAP's models have it. "pad": zeros follow.
PADDINGS = ("repeat", "repeatpad", "pad")


def pad_clip(waveform: torch.Tensor, samples: int, padding="repeat") -> torch.Tensor:
    """Bring [n], which is not longer, to [samples]. padding: one of PADDINGS."""
    whole, rest = divmod(samples, waveform.numel())
    if padding == "repeat":
        return waveform.repeat(whole + bool(rest))[:samples]
    if padding not in PADDINGS:
        raise ValueError(f"padding={padding!r}: use {', '.join(PADDINGS)}")
    if padding == "repeatpad":
        waveform = waveform.repeat(whole)
    return torch.nn.functional.pad(waveform, (0, samples - waveform.numel()))


def model_padding(model) -> str:
    """What a model does with shorter clips: one of PADDINGS; "repeat" if it does not say."""
    return getattr(model, "padding", "repeat")


def padding_key(model) -> dict:
    """What a key of cached embeddings says of it: nothing for "repeat", as older keys have none."""
    padding = model_padding(model)
    return {} if padding == "repeat" else {"padding": padding}
