"""What is computed at once: as much as the memory holds. Chunks change no result but by rounding.

A method takes some clips of a batch at once, and its gradients are summed over these chunks. COOP
and COCOOP also split the prompts of a clip. Where the memory turns out to be too small, half as
much is computed at once from then on, and the same step is computed again.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator

import torch
from torch.utils.checkpoint import checkpoint

from palmkit.memory import OutOfMemory, is_out_of_memory, memory_for_chunks, stated_memory
from palmkit.models.precision import exact_convolutions

log = logging.getLogger(__name__)

MOST_TOKENS = 8192  # of prompts at once, where PALMKIT_MEMORY is not set
# Peak memory of a training step over the tensors that are kept for its backward pass, at most.
PEAK = 1.5


class ChunkedClips:
    """A method that takes clips in chunks. Base class of all methods."""

    max_clips: int | None = None  # at once; None: all

    def clips_at_once(self, n: int) -> int:
        """How many of a batch of n clips go through the method at once."""
        return n if self.max_clips is None else min(n, self.max_clips)

    def take_less(self, n: int) -> str:
        """Compute half as much of a batch of n clips at once. Returns "from .. to .." in words, or
        "" where there is no less.
        """
        now = self.clips_at_once(n)
        if now == 1 or getattr(self, "transductive", False):
            return ""
        self.max_clips = now // 2
        return f"from {now} to {self.max_clips} clips at once"


class ChunkedPrompts(ChunkedClips):
    """A method whose memory grows with the tokens of its prompts: those of all classes, for COCOOP
    also for each clip.
    """

    max_tokens: int = MOST_TOKENS  # that the text encoder gets at once
    clips_share_prompts = True  # False: each clip has prompts of its own

    @property
    def prompt_tokens(self) -> int:
        """Tokens of a clip's prompts: the prefix once, and what each class has of its own."""
        return self.names.shape[0] * self.names.shape[1] + self.prefix_tokens

    @property
    def prefix_tokens(self) -> int:
        return self.start.shape[1] + self.context_length

    def prompts_at_once(self, clips: int) -> tuple[int, int]:
        """(clips, classes) whose prompts go through the text encoder at once."""
        most = max(1, self.max_tokens // self.prompt_tokens)
        classes = (self.max_tokens - self.prefix_tokens) // self.names.shape[1]
        return min(most, clips), min(max(1, classes), len(self.names))

    def clips_at_once(self, n: int) -> int:
        n = super().clips_at_once(n)
        # With text dropout, one draw is for the whole batch: see `encode_prompts`.
        if self.clips_share_prompts or is_stochastic(self.model):
            return n
        return self.prompts_at_once(n)[0]

    def take_less(self, n: int) -> str:
        said = super().take_less(n) if self.tunes_audio else ""
        before = self.prompts_at_once(1 if self.clips_share_prompts else n)
        if before == (1, 1):
            return said
        clips, classes = before[0] // 2 or 1, len(self.names)
        if before[0] == 1:
            classes = before[1] // 2
        self.max_tokens = clips * (classes * self.names.shape[1] + self.prefix_tokens)
        change = f"from {before[0] * before[1]} to {clips * classes} prompts at once"
        return f"{said} and {change}" if said else change


def is_stochastic(model) -> bool:
    """Whether the text projection of a model draws random numbers now."""
    return bool(getattr(model, "text_is_stochastic", False))


# The sizes of chunks.


def tokens_in_memory(method: ChunkedPrompts) -> int:
    """Tokens of prompts that fit into the memory with what their gradients need.

    With PALMKIT_MEMORY, as many as it holds. Without, MOST_TOKENS, or fewer where less is free: so
    the last digits of results depend on the free memory only where there is little of it.
    """
    memory = memory_for_chunks(method.model.device)
    token = PEAK * token_bytes(method)
    if not token:  # a model without gradients
        return MOST_TOKENS
    fit = max(1, int(memory / token))
    return fit if stated_memory() is not None else min(fit, MOST_TOKENS)


def token_bytes(method: ChunkedPrompts) -> float:
    """Bytes that autograd keeps for one token of a prompt: measured with one class and with two."""
    with torch.random.fork_rng(cuda_devices(method.model.device)):
        one, two = (_kept_bytes(method, classes) for classes in (1, 2))
    return max(two - one, 0) / method.names.shape[1]


@torch.enable_grad()
def _kept_bytes(method: ChunkedPrompts, classes: int) -> int:
    """Bytes that autograd keeps for the prompts of one clip and some classes, and the weights."""
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    context = method.context.detach()[None].requires_grad_()
    prefix = torch.cat([method.start, context], 1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # Held until all is counted: a freed place would be taken again.
        text = method.model.encode_embeddings(
            prefix, method.names[:classes], method.lengths[:classes]
        )
    del text
    return sum(kept.values())


# Prompts in chunks.


def encode_prompts(method: ChunkedPrompts, prefix, names, lengths) -> torch.Tensor:
    """`encode_embeddings` of the method's model, in chunks: prefix [b, p, width], names
    [c, s, width] and their lengths [c] -> text embeddings [b, c, dim], not normalised.

    Activations of a chunk are computed again in the backward pass. With text dropout only what
    comes before the projection is in chunks, so that the draw does not depend on them.
    """
    model, sizes = method.model, method.prompts_at_once(len(prefix))
    if sizes == (len(prefix), len(names)):
        return model.encode_embeddings(prefix, names, lengths)
    own = [*zip(names.split(sizes[1]), lengths.split(sizes[1]), strict=True)]
    if is_stochastic(model):
        return model.project_prompts(_in_chunks(model.prompt_latents, prefix.split(sizes[0]), own))
    return _in_chunks(model.encode_embeddings, prefix.split(sizes[0]), own)


def _in_chunks(encode: Callable, prefixes, own) -> torch.Tensor:
    """own: (names, lengths) of the chunks of classes."""
    encode = functools.partial(checkpoint, encode, use_reentrant=False)
    rows = [torch.cat([encode(part, *one) for one in own], 1) for part in prefixes]
    return torch.cat(rows)


# Steps and batches in chunks.


def take_gradient(method, loss: Callable, reset: Callable, inputs, labels) -> torch.Tensor:
    """Set the gradients of the mean loss of a batch, and return it.

    loss: of a method, inputs and labels, the mean over clips. reset: forgets gradients.
    """

    def run() -> torch.Tensor:
        reset()
        total = None
        for part, share in _chunks(method, len(labels)):
            value = loss(method, inputs[part], labels[part])
            value = value if share == 1 else value * share
            value.backward()
            total = value.detach() if total is None else total + value.detach()
        return total

    return until_it_fits(method, run, len(labels))


def predict_batch(method, features, check: Callable) -> torch.Tensor:
    """Logits [n, classes] of features [n, dim]. check: of logits and their number."""

    def run() -> torch.Tensor:
        parts = [slice(None)]
        if not getattr(method, "transductive", False):
            parts = [part for part, _ in _chunks(method, len(features))]
        logits = [
            check(method, method(rows), len(rows)) for rows in map(features.__getitem__, parts)
        ]
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    return until_it_fits(method, run, len(features))


def _chunks(method, n: int) -> Iterator[tuple[slice, float]]:
    """The chunks of a batch of n clips, and their shares of it.

    With text dropout every chunk has the draw that the whole batch would have.
    """
    size = getattr(method, "clips_at_once", lambda n: n)(n)
    device = method.model.device
    state = random_state(device) if size < n and is_stochastic(method.model) else None
    for start in range(0, n, size):
        if state is not None:
            restore_random_state(device, state)
        stop = min(start + size, n)
        yield slice(start, stop), (stop - start) / n


def until_it_fits(method, run: Callable, n: int):
    """run() for a batch of n clips. For want of memory it starts again with half as much at once.

    The random numbers are then the same. Raises what `run` raised if there is no less.
    """
    device = method.model.device
    state = random_state(device)
    while True:
        try:
            return run()
        except (RuntimeError, MemoryError) as error:
            change = ""
            if is_out_of_memory(error) and hasattr(method, "take_less"):
                change = method.take_less(n)
            if not change:
                raise
        # Here the error is gone, and with it the tensors that its traceback holds.
        _go_on(getattr(method, "name", "") or type(method).__name__, change, device)
        restore_random_state(device, state)


class ClipEncoder:
    """`encode_audio` of a model in batches, which are halved for want of memory."""

    def __init__(self, model):
        self.model = model
        self.most: int | None = None  # clips at once; None: those of a batch

    def __call__(self, waveforms) -> torch.Tensor:
        """[n, samples] -> [n, dim] on the CPU, float32. Raises OutOfMemory for a single clip."""
        while True:
            size = min(self.most or len(waveforms), len(waveforms))
            try:
                with exact_convolutions():
                    parts = [self.model.encode_audio(part) for part in waveforms.split(size)]
                return torch.cat([part.float().cpu() for part in parts])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise OutOfMemory(self.describe()) from error
            self.most = size // 2
            change = f"from {size} to {self.most} clips at once"
            _go_on("embedding", change, self.model.device)

    def describe(self) -> str:
        return (
            f"the memory of {self.model.device} is too small for {self.model.name} to embed one "
            f"clip of {self.model.clip_seconds:g} s: end other programs, or use another device"
        )


def _go_on(what: str, change: str, device: torch.device) -> None:
    """Give freed memory back, and say once what goes on with less at once."""
    with contextlib.suppress(RuntimeError):
        if device.type == "cuda":
            torch.cuda.empty_cache()
    line = f"{what}: the memory of {device} is too small; it goes on {change}"
    log.log(logging.DEBUG if line in _said else logging.WARNING, "%s", line)
    _said.add(line)


_said: set[str] = set()  # warnings of this process: hundreds of trials would repeat them


# Random numbers.


def cuda_devices(device: torch.device) -> list[torch.device]:
    """Devices besides the CPU that have a random generator of their own."""
    return [device] if device.type == "cuda" else []


def random_state(device: torch.device) -> list[torch.Tensor]:
    """The states of PyTorch's generators for this device."""
    return [torch.get_rng_state(), *map(torch.cuda.get_rng_state, cuda_devices(device))]


def restore_random_state(device: torch.device, states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    for one, state in zip(cuda_devices(device), states[1:], strict=True):
        torch.cuda.set_rng_state(state, one)
