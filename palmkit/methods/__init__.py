"""The methods by name."""

from __future__ import annotations

import functools

from palmkit.methods.base import Method
from palmkit.methods.coop import CoCoOp, CoOp
from palmkit.methods.palm import PALM
from palmkit.methods.zero_shot import ZeroShot

__all__ = ["METHODS", "PALM", "UNLEARNED", "CoCoOp", "CoOp", "Method", "ZeroShot"]

METHODS = {
    "zeroshot": ZeroShot,
    "coop": CoOp,
    "cocoop": CoCoOp,
    "palm": PALM,
    "palm-dagger": functools.partial(PALM, context=False),
}
UNLEARNED = ("zeroshot", "palm-dagger")  # nothing to learn, so one seed tells all
