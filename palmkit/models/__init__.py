"""Audio-text models."""

from palmkit.models.checkpoint import CheckpointError
from palmkit.models.pengi import Pengi, load_pengi


def load_model(name, device="auto"):
    """The model of this name, or of a checkpoint file. device: "auto" is CUDA if there is one."""
    return load_pengi(name, device)


__all__ = ["load_model", "CheckpointError", "Pengi", "load_pengi"]
