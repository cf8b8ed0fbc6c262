"""What the corpus is about: every concept with its names and its generator.

The names are what people write as labels and say in captions. Held-out concepts are never in the
training corpus, so that zero-shot on them can be reported: half of them are new combinations of
words that others have ("train horn"), half have a word of their own ("owl"), of which a text
encoder trained here knows nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from palmkit_synthetic import music, scenes, speech
from palmkit_synthetic.draw import Draw
from palmkit_synthetic.dsp import peak, place
from palmkit_synthetic.sounds import animals as a
from palmkit_synthetic.sounds import machines as m
from palmkit_synthetic.sounds import nature as n
from palmkit_synthetic.sounds import objects as o
from palmkit_synthetic.sounds import people as p

CLIPS = {
    "sound": 80,
    "scene": 66,
    "music": 60,
    "style": 66,
    "mood": 60,
    "language": 44,
    "digit": 50,
}  # a concept


@dataclass(frozen=True)
class Concept:
    """key: its first name. kind: one of CLIPS. generate: from a Draw to a waveform."""

    names: tuple[str, ...]
    kind: str
    generate: Callable[[Draw], np.ndarray]
    held_out: bool = False

    @property
    def key(self) -> str:
        return self.names[0]


SOUNDS = {
    # animals
    a.dog: ("dog", "dog bark", "a dog barking", "barking dog"),
    a.rooster: ("rooster", "a rooster crowing", "rooster crow", "cock crowing"),
    a.cat: ("cat", "a cat meowing", "meow"),
    a.crow: ("crow", "a crow cawing", "caw"),
    a.bird: ("chirping birds", "birds chirping", "bird song", "bird"),
    a.crickets: ("crickets", "crickets chirping", "insects"),
    a.frog: ("frog", "a frog croaking", "frog croak"),
    a.cow: ("cow", "a cow mooing", "moo"),
    a.sheep: ("sheep", "a sheep bleating", "baa"),
    a.pig: ("pig", "a pig oinking", "oink"),
    a.hen: ("hen", "a hen clucking", "chicken"),
    a.duck: ("duck", "a duck quacking", "quack"),
    a.gull: ("sea gull", "seagulls crying", "gulls"),
    a.owl: ("owl", "an owl hooting", "hoot"),
    a.wolf: ("wolf", "a wolf howling", "howl"),
    a.bee: ("bee", "a buzzing insect", "bees buzzing", "fly"),
    a.horse: ("horse", "a horse galloping", "hooves"),
    a.woodpecker: ("woodpecker", "a woodpecker drumming"),
    # weather, water, fire
    n.rain: ("rain", "rain falling", "rainfall", "heavy rain"),
    n.sea: ("sea waves", "ocean waves", "waves crashing on the shore", "the sea"),
    n.wind: ("wind", "wind blowing", "strong wind"),
    n.thunder: ("thunder", "thunderstorm", "rolling thunder"),
    n.fire: ("crackling fire", "fire crackling", "a campfire crackling", "burning fire", "fire"),
    n.drops: ("water drops", "dripping water", "a dripping tap"),
    n.stream: ("stream", "a flowing stream", "running water", "water stream"),
    n.pouring: ("pouring water", "water being poured", "filling a glass with water"),
    n.waterfall: ("waterfall", "a roaring waterfall"),
    n.boiling: ("boiling water", "water bubbling", "bubbles"),
    n.ice_steps: ("footsteps in snow", "walking in snow", "a person walking in snow"),
    # people
    p.baby_cry: ("crying baby", "baby cry", "a baby crying", "infant crying"),
    p.baby_laugh: ("laughing baby", "a baby laughing", "baby laughter"),
    p.laugh: ("laughter", "laughing", "a person laughing"),
    p.sneeze: ("sneezing", "sneeze", "a person sneezing", "person sneeze"),
    p.cough: ("coughing", "cough", "a person coughing"),
    p.breathing: ("breathing", "a person breathing", "breath"),
    p.snore: ("snoring", "a person snoring", "snore"),
    p.sniff: ("sniff", "sniffing", "a person sniffing"),
    p.sigh: ("sigh", "a person sighing", "sighing"),
    p.throat_clearing: ("throat clearing", "a person clearing their throat"),
    p.scream: ("scream", "a person screaming", "screaming"),
    p.hiccup: ("hiccup", "a person hiccuping"),
    p.clapping: ("clapping", "hands clapping", "hand clap"),
    p.applause: ("applause", "an audience applauding"),
    p.crowd: ("crowd", "people talking in a crowd", "babble"),
    p.children: ("children playing", "children shouting", "playground"),
    p.footsteps: ("footsteps", "a person walking", "walking footsteps"),
    p.brushing: ("brushing teeth", "a person brushing teeth", "toothbrush"),
    p.drinking: ("drinking", "sipping a drink", "a person drinking"),
    p.finger_snap: ("finger snapping", "snapping fingers"),
    p.whistling: ("whistling", "a person whistling", "whistle"),
    p.heartbeat: ("heartbeat", "a beating heart"),
    # machines and signals
    m.helicopter: ("helicopter", "a helicopter flying", "helicopter rotor"),
    m.chainsaw: ("chainsaw", "a chainsaw running", "chain saw cutting wood"),
    m.engine: ("engine", "engine idling", "an idling engine"),
    m.motorcycle: ("motorcycle", "a motorcycle revving", "motorbike"),
    m.car_passing: ("car passing by", "a car driving past", "passing car"),
    m.train: ("train", "a train passing", "train on tracks"),
    m.train_horn: ("train horn", "the horn of a train"),
    m.airplane: ("airplane", "an airplane flying over", "aircraft"),
    m.vacuum_cleaner: ("vacuum cleaner", "a vacuum cleaner running", "vacuuming"),
    m.hair_dryer: ("hair dryer", "a hair dryer blowing"),
    m.washing_machine: ("washing machine", "a washing machine running", "laundry"),
    m.drill: ("drilling", "a power drill", "electric drill"),
    m.jackhammer: ("jackhammer", "a jackhammer on the street"),
    m.air_conditioner: ("air conditioner", "an air conditioner humming", "fan"),
    m.sewing_machine: ("sewing machine", "a sewing machine running"),
    m.lawn_mower: ("lawn mower", "mowing the lawn"),
    m.siren: ("siren", "an emergency siren", "police siren"),
    m.car_horn: ("car horn", "a car honking", "the horn of a car"),
    m.car_alarm: ("car alarm", "the alarm of a car"),
    m.reversing_beep: ("reversing beeps", "a truck backing up"),
    m.clock_tick: ("clock tick", "a clock ticking", "ticking clock", "clock"),
    m.alarm_clock: ("clock alarm", "an alarm beeping", "alarm"),
    m.telephone: ("telephone", "a telephone ringing", "phone ringing"),
    m.microwave_beep: ("microwave oven", "a microwave beeping"),
    # things
    o.door_knock: ("door knock", "knocking on a door", "door wood knock"),
    o.keyboard_typing: ("keyboard typing", "typing on a computer keyboard", "computer keyboard"),
    o.mouse_click: ("mouse click", "clicking a computer mouse"),
    o.door_creak: ("door creak", "a creaking door", "door wood creaks"),
    o.door_slam: ("door slam", "a door slamming", "door being shut"),
    o.can_opening: ("can opening", "opening a can", "a can being opened"),
    o.glass_breaking: ("glass breaking", "breaking glass", "shattering glass"),
    o.church_bell: ("church bells", "a church bell ringing", "bell"),
    o.doorbell: ("doorbell", "a doorbell ringing", "ding dong"),
    o.bicycle_bell: ("bicycle bell", "a bicycle bell ringing"),
    o.fireworks: ("fireworks", "fireworks exploding"),
    o.hand_saw: ("hand saw", "sawing wood", "saw"),
    o.gunshot: ("gun shot", "gunshot", "a gun being fired"),
    o.explosion: ("explosion", "a loud explosion"),
    o.hammer: ("hammer", "hammering a nail", "hammering"),
    o.coin_drop: ("coins", "coins dropping", "a coin falling"),
    o.bouncing_ball: ("bouncing ball", "a ball bouncing", "ball"),
    o.scissors: ("scissors", "cutting with scissors"),
    o.zipper: ("zipper", "a zipper being pulled"),
    o.paper_crumple: ("crumpling paper", "paper being crumpled", "paper"),
    o.camera_shutter: ("camera", "a camera shutter", "taking photographs"),
    o.typewriter: ("typewriter", "typing on a typewriter"),
    o.frying: ("frying", "food sizzling in a pan", "sizzling"),
    o.steam: ("steam", "steam hissing", "hiss"),
    o.toilet_flush: ("toilet flush", "flushing toilet", "a toilet being flushed"),
    o.white_noise: ("white noise", "static noise", "radio static"),
    o.pure_tone: ("pure tone", "a beep", "sine tone"),
    o.wind_chimes: ("wind chimes", "chimes in the wind"),
    o.singing_bowl: ("gong", "a gong being struck", "singing bowl"),
}
RECORDED = {
    n.sea: 122,
    a.bird: 123,
    m.telephone: 124,
    m.helicopter: 125,
    p.applause: 126,
    o.gunshot: 127,
}
HELD_OUT = {  # combinations, then words of their own
    *("train horn", "car alarm", "laughing baby", "footsteps in snow"),
    *("a woman speaking Turkish", "a man speaking Finnish"),
    *("owl", "wolf", "woodpecker", "toilet flush", "harmonica", "bagpipe"),
}


def sound(draw: Draw, make) -> np.ndarray:
    """A procedural sound; in training, a fifth of some kinds come from the sound font's recorded
    effects instead.
    """
    if draw.domain.name == "train" and make in RECORDED and draw.chance(0.2):
        return music.recorded_effect(draw, RECORDED[make])
    x = make(draw)
    if make is p.sneeze and draw.domain.name == "train" and draw.chance(0.35):
        x = peak(x) * draw.vary(0, 0.7)
        place(x, speech.sneeze_word(draw), draw.vary(0, 0.3 * draw.seconds))
    return x


def played(name: str) -> tuple[str, ...]:
    """Names of an instrument."""
    article = "an" if name[0] in "aeiou" else "a"
    return (name, f"{article} {name} playing", f"{name} music")


def music_concepts():
    """Instrument families, single instruments, percussion, and styles."""
    for name in music.FAMILIES:
        extra = {
            "string": ("bowed strings",),
            "choir": ("vocal", "a choir singing"),
            "piano": ("keyboard instrument",),
        }
        yield Concept(played(name) + extra.get(name, ()), "music", partial(music.family, name=name))
    for name in music.SOLO:
        yield Concept(played(name), "music", partial(music.solo, name=name))
    for name in music.PERCUSSION:
        yield Concept((name, f"{name} being played"), "music", partial(music.percussion, name=name))
    yield Concept(("drums", "a drum beat", "a drummer playing"), "music", music.drum_kit)
    for name in music.STYLES:
        yield Concept(
            (f"{name} music", name, f"a {name} band"), "style", partial(music.style, name=name)
        )


def speech_concepts():
    """Languages by a man and by a woman, moods, whispering, digits."""
    for language in speech.LANGUAGES:
        man = (f"a man speaking {language}", f"{language} speech", f"a man's voice in {language}")
        woman = (f"a woman speaking {language}", language, f"a woman's voice in {language}")
        yield Concept(man, "language", partial(speech.speaking, language=language, sex="man"))
        yield Concept(woman, "language", partial(speech.speaking, language=language, sex="woman"))
    for name in speech.MOODS:
        yield Concept(
            (f"{name} speech", name, f"a {name} voice"), "mood", partial(speech.mood, name=name)
        )
    yield Concept(("whispering", "a person whispering", "whisper"), "mood", speech.whispering)
    for language, words in speech.DIGITS.items():
        for text in words:
            names = (text, f"the spoken digit {text}", f"a person saying {text}")
            yield Concept(names, "digit", partial(speech.word, text=text, language=language))


def all_concepts():
    """Every concept, held out or not."""
    for make, names in SOUNDS.items():
        yield Concept(names, "sound", partial(sound, make=make))
    for name in scenes.SCENES:
        yield Concept((name, f"the sounds of a {name}"), "scene", partial(scenes.scene, name=name))
    yield from music_concepts()
    yield from speech_concepts()


CONCEPTS: dict[str, Concept] = {
    concept.key: Concept(concept.names, concept.kind, concept.generate, concept.key in HELD_OUT)
    for concept in all_concepts()
}
TRAINING: dict[str, Concept] = {
    key: concept for key, concept in CONCEPTS.items() if not concept.held_out
}
