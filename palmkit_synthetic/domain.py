"""Where a clip comes from: the training corpus or a task.

Every range that differs between the two is written here. A sound function names its parameters and
gives their whole plausible range. Training draws from the middle of every range and a task from
both of its ends, so no source of a task is in the corpus, and a task lies outside of the corpus,
not between. Instruments' programs and speakers' voices are split in `music` and `speech`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Domain:
    """What the recordings of one kind of origin have in common. Pairs are (low, high)."""

    name: str  # also chooses programs, voices and sentences
    bands: tuple[tuple[float, float], ...]  # where in a parameter's range (0..1) it may lie
    # "diffuse": decaying noise from the start; "shoebox": sparse first echoes, then the tail.
    room: str
    room_chance: float
    reverb_seconds: tuple[float, float]
    wet: tuple[float, float]  # share of the room's answer
    noise: str  # "steady": one colour; "busy": gusts and mains hum
    noise_chance: float
    snr_db: tuple[float, float]
    overload_chance: float = 0.15
    dull_chance: float = 0.15
    dull_hz: tuple[float, float] = (3000.0, 12_000.0)  # edge of a dull recording's low-pass


TRAIN = Domain(
    name="train",
    bands=((0.1, 0.9),),
    room="diffuse",
    room_chance=0.4,
    reverb_seconds=(0.15, 1.6),
    wet=(0.05, 0.45),
    noise="steady",
    noise_chance=0.6,
    snr_db=(15.0, 55.0),
)
TASK = Domain(
    name="task",
    bands=((0.0, 0.1), (0.9, 1.0)),
    room="shoebox",
    room_chance=0.7,
    reverb_seconds=(0.2, 2.2),
    wet=(0.2, 0.6),
    noise="busy",
    noise_chance=0.9,
    snr_db=(6.0, 25.0),
)
