"""A trial that is out of memory says so, and what to do."""

import pytest
import torch

from palmkit.experiments.executor import Failure, attempt
from palmkit.experiments.memory import is_out_of_memory

SAYS = "the memory is too small for this trial"


def ask_for_4_pib():
    return torch.empty(2**50)


def fail(error):
    raise error


def test_what_the_cpu_s_allocator_says():
    failure = attempt(ask_for_4_pib)
    assert isinstance(failure, Failure)
    assert failure.message.startswith(SAYS) and "PALMKIT_JOBS=1" in failure.message
    assert "can't allocate memory" in failure.message  # what PyTorch said stays


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4 GiB"),
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_what_devices_say(error):
    assert is_out_of_memory(error)
    assert attempt(fail, error).message.startswith(SAYS)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("allocate")])
def test_other_errors_are_left_as_they_are(error):
    assert not is_out_of_memory(error)
    message = attempt(fail, error).message
    assert message.startswith(type(error).__name__) and SAYS not in message
