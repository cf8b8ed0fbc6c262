"""Music from a General MIDI sound font: single notes, melodies and chords of one instrument, drums,
and styles.

A note is (start in seconds, key, velocity, length in seconds). A task uses programs that training
never plays, and among the instrument families no recording of the font is in both (tests hold it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palmkit_synthetic.dsp import SAMPLE_RATE, place, repeat
from palmkit_synthetic.soundfont import DRUMS, general_midi


@dataclass(frozen=True)
class Family:
    """Programs of training and of tasks (numbered from 0), and the keys between which they sound
    like themselves.
    """

    train: tuple[int, ...]
    task: tuple[int, ...]
    keys: tuple[int, int]

    def programs(self, domain: str) -> tuple[int, ...]:
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
SOLO = {  # instruments of one program: in training only, or held out of it
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
PERCUSSION = {  # keys of the drum kits
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


def render(draw, notes, program: int, bank: int = 0) -> np.ndarray:
    """Notes played by one program or kit: [clip's length]."""
    x, font = np.zeros(draw.n), general_midi()
    for start, key, velocity, seconds in notes:
        loudness = int(
            np.clip(8 * round(velocity / 8), 8, 120)
        )  # few levels, so that repeated notes are cached
        place(
            x, font.note(program, int(key), loudness, round(min(seconds, MAX_NOTE), 2), bank), start
        )
    return x


def detune(draw, x):
    """The whole clip up to half a semitone sharp or flat, as an old recording or another tuning
    would be.
    """
    factor = 2 ** (draw.uniform("detuning", -0.5, 0.5) / 12)
    return np.interp(np.arange(len(x)) * factor, np.arange(len(x)), x, right=0)


def instrument(draw, programs, keys):
    """One instrument: a held note, a melody, chords or an arpeggio, in its range."""
    program = int(draw.pick(programs))
    draw.parameters["program"] = program
    phrase = draw.pick([held_notes, melody, melody, chords, arpeggio])
    return detune(draw, render(draw, phrase(draw, keys), program))


def family(draw, name: str):
    """An instrument of a family, by the domain's programs."""
    return instrument(draw, FAMILIES[name].programs(draw.domain.name), FAMILIES[name].keys)


def solo(draw, name: str):
    program, keys = SOLO[name]
    return instrument(draw, (program,), keys)


def held_notes(draw, keys):
    """One to three long notes, each alone."""
    count, strength = draw.count(1, 3), draw.uniform("velocity", 35, 122)
    length = draw.seconds / count
    return [
        (k * length, draw.count(*keys), strength, length * draw.vary(0.5, 0.95))
        for k in range(count)
    ]


def scale_keys(draw, keys):
    """The keys of a random scale within a range."""
    scale, root = SCALES[draw.pick(list(SCALES))], draw.count(0, 11)
    return [key for key in range(keys[0], keys[1] + 1) if (key - root) % 12 in scale]


def melody(draw, keys):
    """A walk over a scale, in notes and double notes, with rests."""
    steps, beat = scale_keys(draw, keys), draw.log("beat", 0.11, 0.75)
    strength, place_in_scale = draw.uniform("velocity", 45, 118), draw.count(0, 6)
    at, notes = 0.0, []
    while at < draw.seconds:
        place_in_scale = int(np.clip(place_in_scale + draw.count(-3, 3), 0, len(steps) - 1))
        length = beat * draw.pick([1, 1, 1, 2])
        if draw.chance(0.88):
            notes.append(
                (
                    at,
                    steps[place_in_scale],
                    strength * draw.vary(0.85, 1.1),
                    length * draw.vary(0.6, 1),
                )
            )
        at += length
    return notes


def chords(draw, keys):
    """Three keys of a scale at once, held or repeated."""
    steps, beat = scale_keys(draw, (keys[0], keys[1])), draw.log("beat", 0.25, 1.6)
    strength, at, notes = draw.uniform("velocity", 45, 112), 0.0, []
    while at < draw.seconds:
        low = draw.count(0, max(len(steps) - 6, 0))
        chord = steps[low : low + 5 : 2]
        notes += [
            (at + draw.vary(0, 0.02), key, strength, beat * draw.vary(0.6, 1)) for key in chord
        ]
        at += beat
    return notes


def arpeggio(draw, keys):
    """The notes of chords one after the other, quickly, ringing on."""
    steps, beat = scale_keys(draw, keys), draw.log("beat", 0.09, 0.35)
    strength, low, notes = draw.uniform("velocity", 45, 112), draw.count(0, 4), []
    for k in range(int(draw.seconds / beat) + 1):
        if k % 8 == 0:
            low = draw.count(0, max(len(steps) - 8, 0))
        place_in_chord = low + 2 * (0, 1, 2, 3, 2, 1, 3, 1)[k % 8]
        notes.append((k * beat, steps[min(place_in_chord, len(steps) - 1)], strength, 3 * beat))
    return notes


def kit(draw) -> int:
    program = int(draw.pick(KITS[draw.domain.name]))
    draw.parameters["kit"] = program
    return program


def percussion(draw, name: str):
    """One instrument of a drum kit: a rhythm, a roll that gets louder, or a few strokes."""
    keys, step = PERCUSSION[name], draw.log("step", 0.09, 0.42)
    pattern = draw.rng.random(8) < draw.vary(0.35, 0.9)
    if draw.chance(0.2):
        step, pattern = draw.vary(0.05, 0.08), np.ones(8, bool)  # a roll
    key = draw.pick(keys)
    times = [k * step for k in range(int(draw.seconds / step) + 1) if pattern[k % 8]] or [0.0]
    notes = [
        (at, key if draw.chance(0.8) else draw.pick(keys), draw.vary(55, 120), 0.3) for at in times
    ]
    return detune(draw, render(draw, notes, kit(draw), DRUMS))


def drum_kit(draw):
    """A drummer: a random pattern of kick, snare, hats and toms, two bars that recur, and a crash
    to begin with.
    """
    step = draw.log("step", 0.085, 0.26)
    parts = {36: 0.3, 38: 0.2, 42: 0.6, 46: 0.1, 45: 0.08, 48: 0.08, 51: 0.15}
    bars = {key: draw.rng.random(16) < share for key, share in parts.items()}
    bars[36][0] = bars[38][4] = bars[38][12] = True
    notes = [(0.0, 49, 100, 0.5)] if draw.chance(0.4) else []
    for k in range(int(draw.seconds / step) + 1):
        notes += [
            (k * step, key, draw.vary(60, 120), 0.3) for key, bar in bars.items() if bar[k % 16]
        ]
    return detune(draw, render(draw, notes, kit(draw), DRUMS))


@dataclass(frozen=True)
class Style:
    """A style of music as one bar of 16 steps for each part ("x": played, "X": accented), tempo and
    instruments.

    Pairs of tuples of programs are those of training and those of tasks.
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


KICK, SNARE, RIM, CLAP, HAT, OPEN_HAT, FOOT_HAT, CRASH, RIDE = 36, 38, 37, 39, 42, 46, 44, 49, 51
BACKBEAT, EIGHTHS, FOUR_ON_THE_FLOOR = "....X.......X...", "x.x.x.x.x.x.x.x.", "X...X...X...X..."
BASS_PROGRAMS = ((33, 34), (35, 37))
STYLES = {
    "rock": Style(
        (108, 152), {KICK: "X.....x.X.x.....", SNARE: BACKBEAT, HAT: EIGHTHS},
        EIGHTHS, "X..x..x.X..x..x.", ((30,), (29,)), power=True,
    ),
    "metal": Style(
        (150, 205), {KICK: "XxxxXxxxXxxxXxxx", SNARE: BACKBEAT, CRASH: "X.......X......."},
        "xxxxxxxxxxxxxxxx", "XxxXxxXxxXxxXxxx", ((30,), (29,)), scale="minor", power=True,
    ),
    "jazz": Style(
        (110, 210), {RIDE: "X...x..xX...x..x", FOOT_HAT: "....x.......x..."},
        "x...x...x...x...", "......x.....x...", ((0, 1), (26, 5)), 0.45, ((65, 57), (64, 66)), 0.33,
    ),
    "blues": Style(
        (66, 112), {KICK: "X.......X.......", SNARE: BACKBEAT, HAT: "x..xx..xx..xx..x"},
        "x..xx..xx..xx..x", "x..xx..xx..xx..x", ((25, 0), (26, 5)), 0.25,
        ((27, 65), (26, 66)), 0.33,
    ),
    "reggae": Style(
        (64, 92), {KICK: "........X.......", RIM: "........x.......", HAT: EIGHTHS},
        "x..x....x.x...x.", "..X...X...X...X.", ((17, 27), (19, 28)),
    ),
    "disco": Style(
        (110, 132), {KICK: FOUR_ON_THE_FLOOR, SNARE: BACKBEAT, OPEN_HAT: "..x...x...x...x."},
        EIGHTHS, "X.......X..x....", ((49, 51), (44,)), 0.3, ((49,), (61,)),
    ),
    "hip hop": Style(
        (78, 102), {KICK: "X..x..x...x.....", SNARE: BACKBEAT, HAT: "x.xxx.x.x.xxx.x."},
        "X.........x.....", "X...............", ((4, 11), (5,)), scale="minor",
    ),
    "country": Style(
        (92, 136), {KICK: "X.......X.......", SNARE: "..x.x.x...x.x.xx"},
        "X.......X.......", BACKBEAT, ((25, 24), (26,)), 0.55, ((105, 40), (72, 110)),
    ),
    "classical": Style(
        (66, 138), {}, "X.......X.......", EIGHTHS, ((0, 49), (6, 44)), 0.4,
        ((40, 68, 73), (71, 72)),
    ),
    "techno": Style(
        (120, 146), {KICK: FOUR_ON_THE_FLOOR, CLAP: BACKBEAT, HAT: "..x...x...x...x."},
        "..xx..xx..xx..xx", "x..x..x...x..x..", ((81, 80), (62,)), scale="minor",
    ),
    "pop": Style(
        (92, 128), {KICK: "X.....x.X.......", SNARE: BACKBEAT, HAT: EIGHTHS},
        "X..x..x.X..x....", "X...x...X...x...", ((0, 25), (5, 26)), 0.35, ((52, 73), (53, 74)),
    ),
}  # fmt: skip
PROGRESSIONS = (
    (0, 5, 3, 4),
    (0, 3, 4, 0),
    (0, 4, 5, 3),
    (0, 3, 0, 4),
    (5, 3, 0, 4),
)  # degrees of the scale


def style(draw, name: str):
    """A band in a style: drums, bass, chords and a melody over four chords, a bar each; bars vary a
    little.
    """
    given, which = STYLES[name], 0 if draw.domain.name == "train" else 1
    step = 15 / draw.uniform("tempo", *given.tempo)
    times = [k * step + (k % 2) * given.swing * step for k in range(int(draw.seconds / step) + 1)]
    chords = progression(draw, given.scale, len(times))
    drums = [
        note
        for key, bar in given.drums.items()
        for note in part(draw, bar, times, [[key]] * len(times), 0.3)
    ]
    bass = part(
        draw, given.bass, times, [[30 + (chord[0] - 30) % 12] for chord in chords], 2 * step
    )
    tones = (0, 4) if given.power else (0, 2, 4)
    comp = part(
        draw,
        given.comp,
        times,
        [[50 + (chord[k] - 50) % 12 for k in tones] for chord in chords],
        3 * step,
    )
    lead = [
        (at, 67 + (chord[draw.count(0, 6)] - 67) % 12, draw.vary(70, 112), 3 * step)
        for at, chord in zip(times, chords, strict=True)
        if draw.chance(given.lead)
    ]
    x = 1.2 * render(draw, drums, kit(draw), DRUMS) + render(
        draw, bass, draw.pick(BASS_PROGRAMS[which])
    )
    x += draw.vary(0.5, 1) * render(draw, comp, draw.pick(given.comp_programs[which]))
    return detune(
        draw, x + draw.vary(0.6, 1) * render(draw, lead, draw.pick(given.lead_programs[which]))
    )


def progression(draw, scale: str, count: int) -> list[list[int]]:
    """For each of `count` steps the scale (as pitches from 0) from the root of its bar's chord
    upwards.
    """
    root, degrees, offset = draw.count(0, 11), draw.pick(PROGRESSIONS), draw.count(0, 3)
    pitches = [root + pitch for pitch in SCALES[scale]]
    bars = [degrees[(k // 16 + offset) % 4] for k in range(count)]
    return [pitches[degree:] + pitches[:degree] for degree in bars]


def part(draw, bar: str, times, keys, seconds: float):
    """One player: a bar's strokes at the steps' times, with the keys of each step; now and then a
    stroke left out.
    """
    notes = []
    for k, at in enumerate(times):
        mark = bar[k % 16]
        if mark == "." and not draw.chance(0.02) or draw.chance(0.05):
            continue
        strength = {"X": (100, 120), "x": (60, 100), ".": (30, 60)}[mark]
        notes += [(at, key, draw.vary(*strength), seconds) for key in keys[k]]
    return notes


def recorded_effect(draw, program: int):
    """A sound effect of the font's last bank of programs: one more source for the sea, birds,
    applause, shots.
    """
    font, rate = general_midi(), draw.vary(0.5, 10)

    def effect():
        return font.note(program, draw.count(54, 66), 96, draw.seconds)

    long = len(effect()) > SAMPLE_RATE
    return repeat(draw, effect, 1 / draw.seconds if long else rate, 0.4, count=3 if long else 60)
