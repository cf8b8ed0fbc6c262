"""Procedural sounds: each a function of a `Draw` that returns a waveform of the clip's length (or
silent at its end).

The docstring of a function says which physical idea it uses; the ranges of its parameters stand in
its first lines.
"""

__all__ = ["animals", "machines", "nature", "objects", "people"]
