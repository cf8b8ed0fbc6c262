"""Checks of all that depends on the device. `tools/gpu.py` runs them and prints their lines."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
for folder in ("tests/support", "benchmarks"):  # the published code's tensors; other computations
    sys.path.insert(0, str(ROOT / folder))

# How float32 is multiplied: (precision of matrix products, whether convolutions may use TF32).
FULL, DEFAULT, TF32 = "TF32 off", "PyTorch's default", "TF32 on"
PRECISIONS = {FULL: ("highest", False), DEFAULT: ("highest", True), TF32: ("high", True)}


@dataclass(frozen=True)
class Line:
    """A line of the table. passed: whether `value` is within `limit`; None if nothing is held."""

    what: str
    value: str
    limit: str = ""
    passed: bool | None = None


def within(what: str, error, limit: float) -> Line:
    """The line of an error and the limit that it is held to. NaN is over every limit."""
    error = float(torch.as_tensor(error, dtype=torch.float64).max())
    return Line(what, f"{error:.1e}", f"{limit:.0e}", error <= limit)


def holds(what: str, value: str, limit: str, passed: bool) -> Line:
    return Line(what, value, limit, bool(passed))


@dataclass
class Setup:
    """What all checks take.

    device: the one that is checked. small: a tiny model, few clips, one repeat. folder: for files.
    source: the published code's tensors (`tests/support/reference.py`). here, there: a small PENGI
    with that source's weights, on the CPU and on the device.
    """

    device: torch.device
    small: bool
    folder: Path
    source: object = field(init=False)
    here: object = field(init=False)
    there: object = field(init=False)
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self):
        import reference

        from palmkit import load_pengi

        self.source = reference.compact(self.folder / "reference")
        self.here = load_pengi(self.source.checkpoint, "cpu")
        self.there = load_pengi(self.source.checkpoint, self.device)

    def tell(self, what: str) -> None:
        """One line of progress, to stderr, so that stdout has the table alone."""
        seconds = time.perf_counter() - self.started
        print(f"[{seconds:4.0f} s] {what}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def precision(name: str):
    """float32 products as PRECISIONS has them, within the `with` block only."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        set_precision(*PRECISIONS[name])
        yield
    finally:
        set_precision(*before)


def set_precision(products: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions
