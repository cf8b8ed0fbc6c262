"""Acoustic scenes: places as layers of sounds, some always there, some that come and go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palmkit_synthetic import music, speech
from palmkit_synthetic.dsp import multiples, normalize, ring, scatter
from palmkit_synthetic.sounds import animals, machines, nature, objects, people


def dishes(draw):
    """Plates, cups and cutlery: short clear modes at random moments."""
    pitch = draw.log("dishes", 1500, 5000)

    def clink():
        modes = multiples(pitch * draw.vary(0.6, 1.8), 1, 1.6, 2.7)
        return ring(modes, [0.06, 0.04, 0.02], [1, 0.6, 0.4], 0.3)

    return scatter(draw, clink, draw.log("clinks a second", 0.8, 4), 0.8)


def traffic(draw):
    """Many cars far away: a low, slowly changing rumble."""
    rumble = draw.noise(1.6, 30, draw.log("traffic edge", 400, 2500))
    return rumble * draw.wander(0.7, 0.6, 1)


def cabin(draw):
    """Inside a car: the engine and the road through the body, nearly nothing above 500 Hz."""
    road = draw.noise(2.4, 25, draw.log("road edge", 200, 900))
    surface = draw.wander(2, 0.8, 1)
    return road * surface + 0.3 * normalize(machines.engine(draw))


def announcement(draw):
    """A chime and a voice from a loudspeaker."""
    return speech.speaking(draw, draw.pick(["English", "French", "German", "Italian"]))


def background_music(draw):
    """Music of a kind that is played in public."""
    return music.style(draw, draw.pick(["jazz", "pop", "blues"]))


@dataclass(frozen=True)
class Scene:
    """The sound functions of a place."""

    bed: tuple  # always there, at full level
    events: tuple  # each there in half of the clips, 3 to 18 dB below


SCENES = {
    "beach": Scene((nature.sea,), (animals.gull, people.children, nature.wind, animals.dog)),
    "city street": Scene(
        (traffic, machines.car_passing),
        (machines.car_horn, people.footsteps, people.crowd, machines.siren),
    ),
    "forest": Scene(
        (animals.bird, nature.wind),
        (nature.stream, animals.crow, animals.crickets, people.footsteps),
    ),
    "restaurant": Scene(
        (people.crowd, dishes), (background_music, people.laugh, people.footsteps, nature.pouring)
    ),
    "train station": Scene(
        (people.crowd, machines.train), (announcement, people.footsteps, people.children)
    ),
    "office": Scene(
        (objects.keyboard_typing, machines.air_conditioner),
        (objects.mouse_click, machines.telephone, people.cough),
    ),
    "kitchen": Scene(
        (objects.frying, dishes),
        (nature.boiling, nature.pouring, machines.microwave_beep, nature.drops),
    ),
    "park": Scene(
        (people.children, animals.bird), (animals.dog, people.footsteps, traffic, animals.duck)
    ),
    "construction site": Scene(
        (machines.jackhammer,),
        (objects.hammer, machines.drill, machines.reversing_beep, machines.engine),
    ),
    "farm": Scene(
        (animals.hen,), (animals.cow, animals.sheep, animals.pig, animals.rooster, machines.engine)
    ),
    "car": Scene((cabin,), (machines.car_horn, background_music, machines.siren)),
}


def scene(draw, name: str) -> np.ndarray:
    """A place: its bed, and some of its events."""
    x = draw.silence()
    for layer in SCENES[name].bed:
        x = x + normalize(layer(draw)) * draw.vary(0.5, 1)
    for event in SCENES[name].events:
        if draw.chance(0.5):
            sound = normalize(event(draw))
            x = x + sound * 10 ** (-draw.vary(3, 18) / 20)
    return x
