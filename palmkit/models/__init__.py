"""Audio-text models."""

from palmkit.models.checkpoint import CheckpointError
from palmkit.models.pengi import Pengi, load_pengi

__all__ = ["CheckpointError", "Pengi", "load_pengi"]
