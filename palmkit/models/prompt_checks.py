"""What every text encoder refuses, in the same words."""

from __future__ import annotations

SHOWN = 80  # characters of a prompt that an error repeats


def check_prompts(prompts) -> None:
    """Raise TypeError unless it is a list of strings, and ValueError if it is empty."""
    if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
        raise TypeError("prompts must be a list of strings")
    if not prompts:
        raise ValueError("there are no prompts to encode")


def check_length(prompt: str, tokens: int, most: int) -> None:
    """Raise ValueError for a prompt of more than `most` tokens. None is cut off silently."""
    if tokens > most:
        shown = prompt if len(prompt) <= SHOWN else f"{prompt[:SHOWN]}..."
        raise ValueError(
            f"{shown!r} has {tokens} tokens; the text encoder takes {most}: shorten it"
        )
