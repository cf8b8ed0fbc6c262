"""Words for a trial that needs more memory than there is."""

from __future__ import annotations

from palmkit.memory import OutOfMemory, is_out_of_memory

ADVICE = (
    "the memory is too small for this trial: a smaller batch_size, fewer trials at the same time "
    "(PALMKIT_JOBS=1) or another device need less; "
)


def advice(error: BaseException) -> str:
    """What to do about an error for want of memory; "" for another, or if its message says all."""
    says_all = isinstance(error, OutOfMemory)
    return ADVICE if is_out_of_memory(error) and not says_all else ""
