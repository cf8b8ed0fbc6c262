"""Learned prompts as files in the published code's layout, theirs and ours.

Such a file is a dict of two states, saved by `torch.save`: `prompt_learner`, and `pengi_bn0_buffer`, the statistics to
which bn0 had drifted and without which the prompt is tested on other embeddings than it was learned on.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch

from palmkit.methods.coop import CoOp
from palmkit.models.pengi import Pengi
from palmkit.protocols.train_mode import with_bn_statistics
from palmkit.storage import atomic_write

LEARNER, BUFFER = "prompt_learner", "pengi_bn0_buffer"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class PromptError(ValueError):
    """A file that is no saved prompt, or one of another model or method; the message says why."""


def save_prompt(path, method, bn0=None) -> None:
    """Write what `method` learned, to be loaded by the published code or by `load_prompt`.

    bn0: `Stream.bn0`; None: the method's PENGI as it is, which is right for what was learned on frozen embeddings.
    """
    bn0 = dict(method.model.audio.bn0.named_buffers()) if bn0 is None else bn0
    learned = method.prompt_learner_state() | (_buffers(method) if isinstance(method, CoOp) else {})
    torch.save(
        {LEARNER: learned, BUFFER: {name: bn0[name].cpu() for name in STATISTICS}},
        buffer := io.BytesIO(),
    )
    atomic_write(Path(path), buffer.getvalue())


def load_prompt(path, method) -> Pengi:
    """Put the learned prompt of a file into `method`; the PENGI to embed test clips with.

    Code in the file is never run (weights_only). Raises FileNotFoundError, PromptError.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no prompt {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # what broken bytes raise in the reader is not a closed list
        raise PromptError(
            f"{path} is no file of PyTorch, or holds more than tensors: {error!s:.200}"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get(LEARNER), dict):
        raise PromptError(f"{path} holds no state {LEARNER!r}: it is no saved prompt")
    bn0 = _statistics(state.get(BUFFER), method.model.audio.bn0, path)
    try:
        method.load_prompt_learner(
            {name.removeprefix("module."): value for name, value in state[LEARNER].items()}
        )
    except ValueError as error:
        raise PromptError(f"{path}: {error}") from error
    return with_bn_statistics(method.model, bn0)


def _statistics(state, bn0, path) -> dict[str, torch.Tensor]:
    """bn0's buffers, under whatever prefix they are named in the file."""
    found = (
        {str(name).rsplit(".", 1)[-1]: value for name, value in state.items()}
        if isinstance(state, dict)
        else {}
    )
    for name in STATISTICS[:2]:
        given, own = found.get(name), getattr(bn0, name)
        if (
            not isinstance(given, torch.Tensor)
            or given.shape != own.shape
            or not given.isfinite().all()
        ):
            raise PromptError(
                f"{path}: {BUFFER}.{name} is missing, not finite or not of shape {list(own.shape)}"
            )
    if (found["running_var"] < 0).any():
        raise PromptError(f"{path}: {BUFFER}.running_var holds negative variances")
    return {name: found[name] for name in STATISTICS if name in found}


def _buffers(method) -> dict[str, torch.Tensor]:
    """What the published COOP and COCOOP keep beside the context: token embeddings in front of it and after it, up to
    the 40th: `sos` [c, 1, width], `classes_pad` [c, 23, width] for 16 vectors."""
    length = len(method.context)
    ids, _ = method.model.tokenize([f"{'X ' * length}{name}." for name in method.class_names])
    embedded = method.model.text.token_embedding(ids.to(method.model.device)).cpu()
    return {"sos": embedded[:, :1].clone(), "classes_pad": embedded[:, 1 + length :].clone()}
