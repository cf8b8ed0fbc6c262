"""Words for a trial that needs more memory than there is."""

from __future__ import annotations

import torch

# What PyTorch says on a CPU, and cuBLAS on a GPU; both raise a plain RuntimeError.
PHRASES = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
ADVICE = (
    "the memory is too small for this trial: a smaller batch_size, fewer trials at the same time "
    "(PALMKIT_JOBS=1) or another device need less; "
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, on a CPU or on a GPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(one in str(error) for one in PHRASES)
