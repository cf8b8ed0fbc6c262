"""Captions that say what is heard and how it was recorded: "a distant dog barking in a large hall".

A clip's conditions are what the recording chain and the augmentation did to it, as numbers. Each
condition has words that stand before a name and words that stand after it. Which of them a caption
says is drawn. So the words of a caption carry information, and a prompt is a choice.

Some names mean two things, as in real captions: "metal" is a style of music and what a hammer hits.
The kind of caption ("music with metal", "the sound of metal") says which is meant.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from palmkit_synthetic.captions import CLOSINGS
from palmkit_synthetic.concepts import TRAINING

# None is a prompt of WORDINGS. Few templates are in use: most words of a prompt are then unknown.
TEMPLATES = ("{}", "a recording of {}")
KIND_TEMPLATES = {
    "sound": ("the sound of {}", "{} can be heard", "i heard {}"),
    "scene": (
        *("a street scene: {}", "standing in a {}", "the ambience of a {}", "{} as a place"),
    ),
    "music": ("a solo of {}", "a melody on the {}", "music with {}", "the instrument is {}"),
    "style": ("a song: {}", "the genre is {}", "a band plays {}"),
    "mood": ("someone talks, {}", "a voice: {}", "the speaker is {}"),
    "language": ("speech: {}", "someone speaks: {}"),
    "digit": ("the word {}", "someone says {}"),
}
# The published prompt, and seven others, listed before the first trial. No caption uses their
# "this is", "close and clean", "with hum", "music playing" or "imitating".
WORDINGS = (
    "The is a recording of  {}.",
    "{}",
    "this is a sound of {}",
    "close and clean: {}",
    "a distant {} in a large hall",
    "a noisy recording of {} with hum",
    "{} with music playing in the background",
    "someone imitating {} on a telephone",
)
SECOND = ("{} and {}", "{} with {} in the background", "{} while {} is heard")

# Words that are names of a default dataset's class, and what else they are said of.
DOUBLE_MEANINGS = {
    "metal": ("hammer", "coins", "can opening", "scissors"),
    "string": ("zipper",),
    "brass": ("church bells", "bicycle bell", "doorbell"),
    "reed": ("wind", "stream"),
    "bass": ("explosion", "thunder"),
    "organ": ("heartbeat", "breathing"),
    "piano": ("glass breaking",),
    "guitar": ("finger snapping",),
    "flute": ("wind",),
    "beach": ("sea gull", "sea waves", "children playing"),
    "forest": ("chirping birds", "wind", "crackling fire", "chainsaw"),
    "restaurant": ("crowd", "drinking", "pouring water"),
    "office": ("keyboard typing", "mouse click", "telephone", "air conditioner"),
    "city street": ("siren", "car horn", "car passing by", "jackhammer"),
    "train station": ("train", "crowd"),
    "happy": ("laughter", "chirping birds", "children playing", "whistling"),
    "sad": ("crying baby", "sigh", "rain"),
    "angry": ("dog", "scream", "car horn", "bee"),
    "neutral": ("engine", "air conditioner"),
    "jazz": ("finger snapping",),
    "classical": ("applause",),
    "blues": ("rain", "sigh"),
    "reggae": ("sea waves",),
    "hip hop": ("frog",),
}
SECOND_MEANINGS: dict[str, list[str]] = {}
for _word, _concepts in DOUBLE_MEANINGS.items():
    for _concept in _concepts:
        SECOND_MEANINGS.setdefault(_concept, []).append(_word)


def pick(rng, options):
    return options[rng.integers(len(options))]


def condition_words(clip: dict) -> tuple[list[tuple], list[tuple]]:
    """What may be said before a name and after it of a clip with these conditions.

    clip: wet, reverb (s), snr_db, edge_band (of 64), low_pass_hz, level_db, drive, excerpt (s).
    Each entry is a tuple of words that mean the same.
    """
    before, after = [], []
    wet, snr, level = clip["wet"], clip["snr_db"], clip["level_db"]
    if wet > 0.25 and clip["reverb"] > 0.7:
        after.append(
            ("in a large hall", "in a big empty room", "with a long echo", "in a cathedral")
        )
    elif wet > 0.12:
        after.append(("in a room", "indoors", "with reverberation", "in a corridor"))
    elif wet == 0:
        after.append(("close to the microphone", "up close", "without any echo", "outdoors"))
    if wet > 0.3:
        before.append(("distant", "far away", "remote"))
    if snr < 8:
        before.append(("noisy", "hissing"))
        after.append(("with loud hiss", "with a lot of noise", "in heavy noise"))
    elif snr < 20:
        after.append(("with some hiss", "with background noise", "with noise"))
    elif snr > 40:
        before.append(("clean", "clear"))
        after.append(("without noise", "in silence"))
    if clip["edge_band"] < 40 or clip["low_pass_hz"] < 4500:
        before.append(("muffled", "dull"))
        after.append(("on a telephone", "behind a wall", "through an old radio", "over the phone"))
    elif clip["edge_band"] == 64 and snr > 30 and clip["low_pass_hz"] > 15_000:
        before.append(("bright", "crisp"))
    if level < -8:
        before.append(("quiet", "faint", "soft"))
    elif level > 12:
        before.append(("loud", "very loud"))
    if clip["drive"] > 2:
        before.append(("distorted", "overdriven"))
        after.append(("with distortion", "too loud for the recorder"))
    if clip["excerpt"] < 2:
        before.append(("short", "brief", "a piece of"))
    return before, after


def describe(name: str, clip: dict, rng, fully: bool) -> str:
    """A name with some of its clip's conditions.

    fully: say something before and after it wherever there is something to say.
    """
    before, after = condition_words(clip)
    if before and (fully or rng.random() < 0.6):
        name = f"{pick(rng, pick(rng, before))} {name}"
    if after and (fully or rng.random() < 0.7):
        words = pick(rng, pick(rng, after))
        name = f"{words}: {name}" if rng.random() < 0.25 else f"{name} {words}"
    return name


def caption(clip: dict, rng, recipe: dict, fully: bool = False) -> str:
    """A caption of a clip. clip: its conditions, `concept`, and `second`, a concept or "".

    recipe: `described`, `second_meaning` and `by_kind`, shares of captions. fully: see `describe`.
    """
    concept = TRAINING[clip["concept"]]
    name, has_two_meanings = pick(rng, concept.names), False
    others = SECOND_MEANINGS.get(clip["concept"])
    if others and rng.random() < recipe["second_meaning"]:
        has_two_meanings, other = True, pick(rng, others)
        if rng.random() < 0.5:
            name = other
        else:
            name = pick(rng, (f"{name} {other}", f"{other} {name}", f"{name}, {other}"))
    if clip["second"]:
        name = pick(rng, SECOND).format(name, pick(rng, TRAINING[clip["second"]].names))
    if fully or rng.random() < recipe["described"]:
        name = describe(name, clip, rng, fully)
    by_kind = has_two_meanings or rng.random() < recipe["by_kind"]
    templates = KIND_TEMPLATES[concept.kind] if by_kind else TEMPLATES
    return pick(rng, templates).format(name) + pick(rng, CLOSINGS)


def conditions_table(parameters: list[dict], done: pd.DataFrame) -> pd.DataFrame:
    """The conditions of clips: what the recording chain drew, and what an augmentation did.

    parameters: of each clip, see `palmkit_synthetic.finish`. done: `hiss_db` (level of the clip
    above the hiss), `edge_band` and `gain_db`, see `views.augment`.
    """

    def drawn(name: str, absent: float) -> np.ndarray:
        return np.array([clip.get(name, absent) for clip in parameters])

    return pd.DataFrame(
        {
            "wet": drawn("wet", 0.0),
            "reverb": drawn("reverb", 0.0),
            "snr_db": np.minimum(drawn("snr_db", 99.0), done["hiss_db"]),
            "edge_band": done["edge_band"],
            "low_pass_hz": drawn("low_pass_hz", 20_000.0),
            "level_db": done["gain_db"] + 20 * np.log10(drawn("level", 1.0)) + 12,
            "drive": drawn("drive", 0.0),
            "excerpt": drawn("excerpt", 9.0),
        }
    )
