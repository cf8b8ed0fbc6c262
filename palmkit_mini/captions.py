"""Sentences about a concept, for training. Mixtures of two sounds ("A and B") are the training script's."""

from __future__ import annotations

from palmkit_mini.concepts import Concept

TEMPLATES = (  # none is the prompt of the evaluation
    "{}",
    "a recording of {}",
    "the sound of {}",
    "{} can be heard",
    "an audio clip of {}",
    "someone recorded {}",
    "i can hear {}",
    "{} in the distance",
    "{} recorded outdoors",
    "{} recorded indoors",
    "listen to {}",
    "this sounds like {}",
)


def captions(concept: Concept) -> list[str]:
    """Every name of a concept in every template."""
    return [template.format(name) for name in concept.names for template in TEMPLATES]
