"""Sentences about a concept, for pre-training. Mixtures ("A and B") are the training script's."""

from __future__ import annotations

from palmkit_synthetic.concepts import Concept

# None is a prompt of the evaluation. There are many, and sentences end with and without a full
# stop: with twelve templates, the published prompt halved the text encoder's zero-shot accuracy.
TEMPLATES = (
    *("{}", "a recording of {}", "the sound of {}", "{} can be heard", "an audio clip of {}"),
    *("someone recorded {}", "i heard {}", "{} in the distance", "{} recorded outdoors"),
    *("{} recorded indoors", "listen to {}", "this sounds like {}", "this is {}"),
    *("it is the sound of {}", "the recording is of {}", "there is {} here"),
    *("what we hear is {}", "in this clip there is {}", "a clear recording of {}"),
    *("a short clip with {}", "audio of {}", "the noise of {}", "here is {}"),
    *("you can hear {} in this recording", "{} is heard", "the audio is a clip of {}"),
    *("a field recording with {}", "that was {}"),
)
CLOSINGS = ("", ".")


def captions(concept: Concept) -> list[str]:
    """Every name of a concept in every template."""
    return [template.format(name) for name in concept.names for template in TEMPLATES]
