"""How exact a GPU's convolutions are, in audio encoders."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable

import torch


@contextlib.contextmanager
def exact_convolutions():
    """In this block, convolutions on a GPU are as exact as matrix products are.

    PyTorch multiplies float32 matrices in float32, but convolutions in TF32, which keeps 10 bits of
    each factor: about 4e-4 of an audio embedding. Here both follow
    `torch.get_float32_matmul_precision()`: "highest", PyTorch's default, is float32 for both. With
    any other value convolutions stay as PyTorch has them. On a CPU nothing changes.
    Also a decorator: `@exact_convolutions()`.
    """
    if torch.get_float32_matmul_precision() != "highest":
        yield
        return
    _blocks.enter()
    try:
        yield
    finally:
        _blocks.leave()


class _Blocks:
    """The setting is the process's, and threads may embed side by side.

    The first block sets it and the last one puts it back.
    """

    def __init__(self):
        self.lock, self.open, self.put_back = threading.Lock(), 0, None

    def enter(self) -> None:
        with self.lock:
            if not self.open:
                self.put_back = _turn_off_tf32()
            self.open += 1

    def leave(self) -> None:
        with self.lock:
            self.open -= 1
            if not self.open:
                self.put_back()


def _turn_off_tf32() -> Callable[[], None]:
    """Convolutions in float32 from now on. Returns what puts the setting back.

    PyTorch has an older and a newer interface, and reading the older one raises where the newer one
    has set something else. So the older one is used unless somebody has used the newer one.
    """
    cudnn = torch.backends.cudnn
    try:
        holder, name, exact = cudnn, "allow_tf32", False
        before = cudnn.allow_tf32
    except RuntimeError:
        holder, name, exact = cudnn.conv, "fp32_precision", "ieee"
        before = cudnn.conv.fp32_precision
    setattr(holder, name, exact)
    return functools.partial(setattr, holder, name, before)


_blocks = _Blocks()
