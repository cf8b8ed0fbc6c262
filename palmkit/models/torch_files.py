"""Read a file of tensors without running code that may be in it."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

HEAD = 1024  # bytes that tell what a file is
LARGE = 100_000_000  # bytes of a file that may need more memory than there is


class TensorFileError(ValueError):
    """A file that cannot be read; the message says what it is and names no file."""


def read_tensors(path: Path):
    """What a file of PyTorch or safetensors holds: dicts, lists, numbers and tensors, on the CPU.

    Raises TensorFileError.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        is_zip = zipfile.is_zipfile(path)
        if is_zip and path.stat().st_size <= LARGE:
            _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except MemoryError as error:
        if path.stat().st_size > LARGE:  # it may be whole, and the memory too small
            raise
        raise TensorFileError("it is damaged") from error
    except Exception as error:  # what broken bytes raise in the readers is not a closed list
        raise TensorFileError(_explain(path, error)) from error


def _check_sums(path: Path) -> None:
    """Raise ValueError if a tensor in a zip is not what was saved; PyTorch does not compare."""
    with zipfile.ZipFile(path) as archive:
        if (name := archive.testzip()) is not None:
            raise ValueError(f"{name} is damaged")


def _explain(path: Path, error: Exception) -> str:
    """What is wrong with a file, in our own words: PyTorch's advise to run the code in it."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is the pointer of a file in Git LFS: `git lfs pull` brings the file itself"
    if head.lstrip()[:1] == b"<":
        return "it is a web page: download the file itself"
    if _is_text(head):
        return "it is a text file"
    if isinstance(error, SafetensorError):
        return f"it is cut short or damaged ({str(error).splitlines()[0]})"
    if isinstance(error, pickle.UnpicklingError) and "Unsupported global" in str(error):
        return (
            "it holds more than tensors, or is damaged. Objects could run code and are not "
            "loaded: save the model's state_dict() alone"
        )
    return "it is cut short or damaged"


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    text = head.decode("utf-8", errors="replace")
    odd = sum(not (one.isprintable() or one in "\n\r\t") for one in text)
    return odd + text.count("\ufffd") <= len(text) // 50
