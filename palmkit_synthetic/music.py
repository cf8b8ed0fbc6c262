"""Music from a General MIDI sound font: instruments, drums and styles.

A note is (start in seconds, key, velocity, length in seconds). A task uses programs that training
never plays, and among the instrument families no recording of the font is in both (tests hold it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palmkit_synthetic.dsp import duration, place, repeat
from palmkit_synthetic.soundfont import DRUMS, general_midi


@dataclass(frozen=True)
class Family:
    """Programs of training and of tasks (numbered from 0), and the keys at which they sound right.

    keys: the lowest and the highest.
    """

    train: tuple[int, ...]
    task: tuple[int, ...]
    keys: tuple[int, int]

    def programs(self, domain: str) -> tuple[int, ...]:
        """The programs of a domain, by its name."""
        return self.train if domain == "train" else self.task


FAMILIES = {
    "bass": Family((32, 33, 34, 36), (35, 37), (28, 52)),
    "brass": Family((57, 58, 59, 60), (56, 61), (46, 77)),
    "flute": Family((73, 75, 77, 79), (72, 74), (67, 96)),
    "guitar": Family((24, 25, 27, 30), (26, 28), (40, 76)),
    "piano": Family((0, 1, 3, 4, 6), (5, 7), (36, 84)),
    "mallet": Family((9, 11, 12), (8, 13), (60, 96)),
    "organ": Family((16, 17, 18), (19,), (40, 84)),
    "reed": Family((65, 67, 68, 69, 70), (64, 66, 71), (46, 77)),
    "string": Family((40, 42, 49), (43, 44), (40, 84)),
    "choir": Family((52,), (53,), (48, 76)),
}
# Instruments of one program: in training only, or held out of it.
SOLO = {
    "harp": (46, (40, 84)),
    "accordion": (21, (48, 84)),
    "harmonica": (22, (55, 84)),
    "banjo": (105, (48, 76)),
    "sitar": (104, (45, 72)),
    "bagpipe": (109, (55, 76)),
    "koto": (107, (48, 79)),
    "steel drum": (114, (52, 84)),
    "timpani": (47, (36, 55)),
    "music box": (10, (60, 91)),
    "kalimba": (108, (52, 84)),
    "tubular bells": (14, (55, 79)),
    "pizzicato": (45, (45, 84)),
    "synthesizer": (81, (36, 84)),
}
# Keys of the drum kits.
PERCUSSION = {
    "snare drum": (38, 40),
    "bass drum": (35, 36),
    "cymbals": (49, 51, 57, 59),
    "tambourine": (54,),
    "cowbell": (56,),
    "hand drums": (60, 61, 62, 63, 64),
    "maracas": (69, 70),
    "wood block": (76, 77),
    "triangle": (80, 81),
}
KITS = {"train": (0, 16, 24, 25), "task": (8, 32, 40)}
SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "pentatonic": (0, 2, 4, 7, 9),
}
MAX_NOTE = 2.5  # seconds: longer ones only cost time
VELOCITY_STEP = 8  # few velocities, so that repeated notes are found in the font's cache


def render(draw, notes, program: int, bank: int = 0) -> np.ndarray:
    """Notes played by one program or kit: [clip's length]."""
    x = draw.silence()
    font = general_midi()
    for start, key, velocity, seconds in notes:
        rounded = VELOCITY_STEP * round(velocity / VELOCITY_STEP)
        loudness = int(np.clip(rounded, VELOCITY_STEP, 120))
        length = round(min(seconds, MAX_NOTE), 2)
        place(x, font.note(program, int(key), loudness, length, bank), start)
    return x


def detune(draw, x: np.ndarray) -> np.ndarray:
    """The clip up to half a semitone sharp or flat, as an old recording or another tuning is."""
    factor = 2 ** (draw.uniform("detuning", -0.5, 0.5) / 12)
    old = np.arange(len(x))
    return np.interp(old * factor, old, x, right=0)


# --- one instrument


def instrument(draw, programs: tuple[int, ...], keys: tuple[int, int]) -> np.ndarray:
    """One instrument: a held note, a melody, chords or an arpeggio, in its range."""
    program = int(draw.pick(programs))
    draw.parameters["program"] = program
    phrase = draw.pick([held_notes, melody, melody, chords, arpeggio])
    return detune(draw, render(draw, phrase(draw, keys), program))


def family(draw, name: str) -> np.ndarray:
    """An instrument of a family, by the domain's programs."""
    given = FAMILIES[name]
    return instrument(draw, given.programs(draw.domain.name), given.keys)


def solo(draw, name: str) -> np.ndarray:
    """An instrument of one program."""
    program, keys = SOLO[name]
    return instrument(draw, (program,), keys)


def held_notes(draw, keys):
    """One to three long notes, each alone."""
    count = draw.count(1, 3)
    velocity = draw.uniform("velocity", 35, 122)
    length = draw.seconds / count
    notes = []
    for k in range(count):
        key = draw.count(*keys)
        notes.append((k * length, key, velocity, length * draw.vary(0.5, 0.95)))
    return notes


def scale_keys(draw, keys) -> list[int]:
    """The keys of a random scale within a range."""
    scale = SCALES[draw.pick(list(SCALES))]
    root = draw.count(0, 11)
    lowest, highest = keys
    return [key for key in range(lowest, highest + 1) if (key - root) % 12 in scale]


def melody(draw, keys):
    """A walk over a scale, in notes and double notes, with rests."""
    scale = scale_keys(draw, keys)
    beat = draw.log("beat", 0.11, 0.75)
    velocity = draw.uniform("velocity", 45, 118)
    step = draw.count(0, 6)
    at = 0.0
    notes = []
    while at < draw.seconds:
        step += draw.count(-3, 3)
        step = min(max(step, 0), len(scale) - 1)
        length = beat * draw.pick([1, 1, 1, 2])
        if draw.chance(0.88):
            strength = velocity * draw.vary(0.85, 1.1)
            notes.append((at, scale[step], strength, length * draw.vary(0.6, 1)))
        at += length
    return notes


def chords(draw, keys):
    """Three keys of a scale at once, held or repeated."""
    scale = scale_keys(draw, keys)
    beat = draw.log("beat", 0.25, 1.6)
    velocity = draw.uniform("velocity", 45, 112)
    at = 0.0
    notes = []
    while at < draw.seconds:
        lowest = draw.count(0, max(len(scale) - 6, 0))
        for key in scale[lowest : lowest + 5 : 2]:
            start = at + draw.vary(0, 0.02)  # no hand strikes all keys at once
            notes.append((start, key, velocity, beat * draw.vary(0.6, 1)))
        at += beat
    return notes


def arpeggio(draw, keys):
    """The notes of chords one after the other, quickly, ringing on."""
    scale = scale_keys(draw, keys)
    beat = draw.log("beat", 0.09, 0.35)
    velocity = draw.uniform("velocity", 45, 112)
    draw.count(0, 4)  # not used, but drawn: without it all clips after it would be other ones
    pattern = (0, 1, 2, 3, 2, 1, 3, 1)  # up and down over four notes of a chord
    notes = []
    for k in range(int(draw.seconds / beat) + 1):
        if k % 8 == 0:
            lowest = draw.count(0, max(len(scale) - 8, 0))
        step = min(lowest + 2 * pattern[k % 8], len(scale) - 1)
        notes.append((k * beat, scale[step], velocity, 3 * beat))
    return notes


# --- drums


def kit(draw) -> int:
    """The program of a drum kit of the domain."""
    program = int(draw.pick(KITS[draw.domain.name]))
    draw.parameters["kit"] = program
    return program


def percussion(draw, name: str) -> np.ndarray:
    """One instrument of a drum kit: a rhythm, a roll, or a few strokes."""
    keys = PERCUSSION[name]
    step = draw.log("step", 0.09, 0.42)
    dice = draw.rng.random(8)
    pattern = dice < draw.vary(0.35, 0.9)
    if draw.chance(0.2):  # a roll
        step = draw.vary(0.05, 0.08)
        pattern = np.ones(8, bool)
    main_key = draw.pick(keys)
    steps = int(draw.seconds / step) + 1
    times = [k * step for k in range(steps) if pattern[k % 8]]
    notes = []
    for at in times or [0.0]:
        key = main_key if draw.chance(0.8) else draw.pick(keys)
        notes.append((at, key, draw.vary(55, 120), 0.3))
    return detune(draw, render(draw, notes, kit(draw), DRUMS))


def drum_kit(draw) -> np.ndarray:
    """A drummer: a random bar of kick, snare, hats and toms that recurs, perhaps after a crash."""
    step = draw.log("step", 0.085, 0.26)
    bars = {key: draw.rng.random(16) < share for key, share in DRUMMER.items()}
    bars[KICK][0] = True
    bars[SNARE][4] = True
    bars[SNARE][12] = True
    notes = [(0.0, CRASH, 100, 0.5)] if draw.chance(0.4) else []
    for k in range(int(draw.seconds / step) + 1):
        for key, bar in bars.items():
            if bar[k % 16]:
                notes.append((k * step, key, draw.vary(60, 120), 0.3))
    return detune(draw, render(draw, notes, kit(draw), DRUMS))


# --- styles


@dataclass(frozen=True)
class Style:
    """A style of music: tempo, instruments, and one bar of 16 steps for each part.

    In a bar, "x" is a step that is played and "X" one that is accented. Pairs of tuples of programs
    are those of training and those of tasks.
    """

    tempo: tuple[float, float]  # beats a minute
    drums: dict[int, str]  # key of the kit: bar
    bass: str
    comp: str  # chords
    comp_programs: tuple[tuple[int, ...], tuple[int, ...]]
    lead: float = 0.0  # share of the steps at which the melody has a note
    lead_programs: tuple[tuple[int, ...], tuple[int, ...]] = ((0,), (5,))
    swing: float = 0.0  # share of a step by which every second one is late
    scale: str = "major"
    power: bool = False  # chords of root and fifth only


# Keys of a drum kit.
KICK = 36
RIM = 37
SNARE = 38
CLAP = 39
HAT = 42
FOOT_HAT = 44
LOW_TOM = 45
OPEN_HAT = 46
HIGH_TOM = 48
CRASH = 49
RIDE = 51
# Bars that several styles share.
BACKBEAT = "....X.......X..."
EIGHTHS = "x.x.x.x.x.x.x.x."
FOUR_ON_THE_FLOOR = "X...X...X...X..."
BASS_PROGRAMS = ((33, 34), (35, 37))
STYLES = {
    "rock": Style(
        tempo=(108, 152),
        drums={
            KICK: "X.....x.X.x.....",
            SNARE: BACKBEAT,
            HAT: EIGHTHS,
        },
        bass=EIGHTHS,
        comp="X..x..x.X..x..x.",
        comp_programs=((30,), (29,)),
        power=True,
    ),
    "metal": Style(
        tempo=(150, 205),
        drums={
            KICK: "XxxxXxxxXxxxXxxx",
            SNARE: BACKBEAT,
            CRASH: "X.......X.......",
        },
        bass="xxxxxxxxxxxxxxxx",
        comp="XxxXxxXxxXxxXxxx",
        comp_programs=((30,), (29,)),
        scale="minor",
        power=True,
    ),
    "jazz": Style(
        tempo=(110, 210),
        drums={
            RIDE: "X...x..xX...x..x",
            FOOT_HAT: "....x.......x...",
        },
        bass="x...x...x...x...",
        comp="......x.....x...",
        comp_programs=((0, 1), (26, 5)),
        lead=0.45,
        lead_programs=((65, 57), (64, 66)),
        swing=0.33,
    ),
    "blues": Style(
        tempo=(66, 112),
        drums={
            KICK: "X.......X.......",
            SNARE: BACKBEAT,
            HAT: "x..xx..xx..xx..x",
        },
        bass="x..xx..xx..xx..x",
        comp="x..xx..xx..xx..x",
        comp_programs=((25, 0), (26, 5)),
        lead=0.25,
        lead_programs=((27, 65), (26, 66)),
        swing=0.33,
    ),
    "reggae": Style(
        tempo=(64, 92),
        drums={
            KICK: "........X.......",
            RIM: "........x.......",
            HAT: EIGHTHS,
        },
        bass="x..x....x.x...x.",
        comp="..X...X...X...X.",
        comp_programs=((17, 27), (19, 28)),
    ),
    "disco": Style(
        tempo=(110, 132),
        drums={
            KICK: FOUR_ON_THE_FLOOR,
            SNARE: BACKBEAT,
            OPEN_HAT: "..x...x...x...x.",
        },
        bass=EIGHTHS,
        comp="X.......X..x....",
        comp_programs=((49, 51), (44,)),
        lead=0.3,
        lead_programs=((49,), (61,)),
    ),
    "hip hop": Style(
        tempo=(78, 102),
        drums={
            KICK: "X..x..x...x.....",
            SNARE: BACKBEAT,
            HAT: "x.xxx.x.x.xxx.x.",
        },
        bass="X.........x.....",
        comp="X...............",
        comp_programs=((4, 11), (5,)),
        scale="minor",
    ),
    "country": Style(
        tempo=(92, 136),
        drums={
            KICK: "X.......X.......",
            SNARE: "..x.x.x...x.x.xx",
        },
        bass="X.......X.......",
        comp=BACKBEAT,
        comp_programs=((25, 24), (26,)),
        lead=0.55,
        lead_programs=((105, 40), (72, 110)),
    ),
    "classical": Style(
        tempo=(66, 138),
        drums={},
        bass="X.......X.......",
        comp=EIGHTHS,
        comp_programs=((0, 49), (6, 44)),
        lead=0.4,
        lead_programs=((40, 68, 73), (71, 72)),
    ),
    "techno": Style(
        tempo=(120, 146),
        drums={
            KICK: FOUR_ON_THE_FLOOR,
            CLAP: BACKBEAT,
            HAT: "..x...x...x...x.",
        },
        bass="..xx..xx..xx..xx",
        comp="x..x..x...x..x..",
        comp_programs=((81, 80), (62,)),
        scale="minor",
    ),
    "pop": Style(
        tempo=(92, 128),
        drums={
            KICK: "X.....x.X.......",
            SNARE: BACKBEAT,
            HAT: EIGHTHS,
        },
        bass="X..x..x.X..x....",
        comp="X...x...X...x...",
        comp_programs=((0, 25), (5, 26)),
        lead=0.35,
        lead_programs=((52, 73), (53, 74)),
    ),
}
# How full a drummer's bar is: the share of its steps at which each key is struck.
DRUMMER = {
    KICK: 0.3,
    SNARE: 0.2,
    HAT: 0.6,
    OPEN_HAT: 0.1,
    LOW_TOM: 0.08,
    HIGH_TOM: 0.08,
    RIDE: 0.15,
}
# Degrees of the scale, a bar each.
PROGRESSIONS = (
    (0, 5, 3, 4),
    (0, 3, 4, 0),
    (0, 4, 5, 3),
    (0, 3, 0, 4),
    (5, 3, 0, 4),
)
# The octaves in which a band plays: the key below which nothing of a part lies.
BASS_KEY = 30
COMP_KEY = 50
LEAD_KEY = 67
STRENGTHS = {"X": (100, 120), "x": (60, 100), ".": (30, 60)}  # velocities of a step in a bar


def style(draw, name: str) -> np.ndarray:
    """A band in a style: drums, bass, chords and a melody over four chords, a bar each.

    Bars vary a little.
    """
    given = STYLES[name]
    which = 0 if draw.domain.name == "train" else 1
    step = 15 / draw.uniform("tempo", *given.tempo)  # seconds: a beat has four steps
    times = step_times(draw, step, given.swing)
    bars = progression(draw, given.scale, len(times))
    # All notes are drawn before any part is played.
    drums = drum_part(draw, given, times)
    bass = part(draw, given.bass, times, bass_keys(bars), 2 * step)
    comp = part(draw, given.comp, times, comp_keys(bars, given.power), 3 * step)
    lead = lead_part(draw, given.lead, times, bars, 3 * step)
    x = 1.2 * render(draw, drums, kit(draw), DRUMS)
    x = x + render(draw, bass, draw.pick(BASS_PROGRAMS[which]))
    comp_level = draw.vary(0.5, 1)
    x += comp_level * render(draw, comp, draw.pick(given.comp_programs[which]))
    lead_level = draw.vary(0.6, 1)
    x += lead_level * render(draw, lead, draw.pick(given.lead_programs[which]))
    return detune(draw, x)


def step_times(draw, step: float, swing: float) -> list[float]:
    """When each step of the clip begins, in seconds; every second one is late by `swing` steps."""
    count = int(draw.seconds / step) + 1
    return [k * step + (k % 2) * swing * step for k in range(count)]


def progression(draw, scale: str, count: int) -> list[list[int]]:
    """For each of `count` steps the scale, from the root of its bar's chord upwards.

    As pitches from 0, in semitones.
    """
    root = draw.count(0, 11)
    degrees = draw.pick(PROGRESSIONS)
    offset = draw.count(0, 3)
    pitches = [root + pitch for pitch in SCALES[scale]]
    bars = [degrees[(k // 16 + offset) % 4] for k in range(count)]
    return [pitches[degree:] + pitches[:degree] for degree in bars]


def in_octave(pitch: int, lowest: int) -> int:
    """The key of a pitch in the octave that begins at `lowest`."""
    return lowest + (pitch - lowest) % 12


def bass_keys(bars) -> list[list[int]]:
    """For each step the root of its chord."""
    return [[in_octave(scale[0], BASS_KEY)] for scale in bars]


def comp_keys(bars, power: bool) -> list[list[int]]:
    """For each step the keys of its chord; power: without the third."""
    tones = (0, 4) if power else (0, 2, 4)
    return [[in_octave(scale[k], COMP_KEY) for k in tones] for scale in bars]


def part(draw, bar: str, times, keys, seconds: float):
    """One player: a bar's strokes at the steps' times, with the keys of each step.

    Now and then a stroke is left out or added.
    """
    notes = []
    for k, at in enumerate(times):
        mark = bar[k % 16]
        if mark == "." and not draw.chance(0.02):
            continue
        if draw.chance(0.05):
            continue
        softest, loudest = STRENGTHS[mark]
        for key in keys[k]:
            notes.append((at, key, draw.vary(softest, loudest), seconds))
    return notes


def drum_part(draw, given: Style, times):
    """The strokes of all keys of a style's drummer."""
    notes = []
    for key, bar in given.drums.items():
        notes += part(draw, bar, times, [[key]] * len(times), 0.3)
    return notes


def lead_part(draw, share: float, times, bars, seconds: float):
    """A melody: at a share of the steps a random tone of the scale."""
    notes = []
    for at, scale in zip(times, bars, strict=True):
        if draw.chance(share):
            key = in_octave(scale[draw.count(0, 6)], LEAD_KEY)
            notes.append((at, key, draw.vary(70, 112), seconds))
    return notes


# --- effects


def recorded_effect(draw, program: int) -> np.ndarray:
    """A sound effect of the font's last bank of programs.

    One more source for the sea, birds, applause, shots.
    """
    font = general_midi()
    rate = draw.vary(0.5, 10)

    def effect():
        return font.note(program, draw.count(54, 66), 96, draw.seconds)

    is_long = duration(effect()) > 1
    if is_long:
        return repeat(draw, effect, 1 / draw.seconds, jitter=0.4, count=3)
    return repeat(draw, effect, rate, jitter=0.4, count=60)
