"""No progress bars: those of several processes would write over each other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def no_progress() -> Iterator[None]:
    """No progress bars in the block."""
    before = os.environ.get("PALMKIT_PROGRESS", "")
    os.environ["PALMKIT_PROGRESS"] = "0"
    try:
        yield
    finally:
        os.environ["PALMKIT_PROGRESS"] = before


def show_nothing(done: int, total: int) -> None:
    """An `on_progress` for `embed` instead of a progress bar."""
