"""A small player for SF2 sound fonts: samples, looped, tuned, shaped by their volume envelope.

Read from the SoundFont 2.04 specification (section 7: the tables; 8.1: the generators). What it
leaves out: modulators, vibrato, the moving filter, chorus and stereo. None of them decides which
instrument it is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np

from palmkit_synthetic.dsp import SAMPLE_RATE, low_pass

DRUMS = 128  # the bank of drum kits
# The fields of the tables, in the order in which they are stored (section 7).
ZONES = [("generator", "<u2"), ("modulator", "<u2")]
GENERATORS = [("kind", "<u2"), ("amount", "<i2")]
TABLES = {
    "phdr": [
        ("name", "S20"),
        ("program", "<u2"),
        ("bank", "<u2"),
        ("zone", "<u2"),
        ("unused", "V12"),
    ],
    "pbag": ZONES,
    "pgen": GENERATORS,
    "inst": [
        ("name", "S20"),
        ("zone", "<u2"),
    ],
    "ibag": ZONES,
    "igen": GENERATORS,
    "shdr": [
        ("name", "S20"),
        ("start", "<u4"),
        ("end", "<u4"),
        ("loop", "<u4"),
        ("loop_end", "<u4"),
        ("rate", "<u4"),
        ("key", "u1"),
        ("cents", "i1"),
        ("link", "<u2"),
        ("type", "<u2"),
    ],
}
# Generators (section 8.1.2). Times are in timecents, levels in tenths of a dB.
LOOP_OFFSET = 2
LOOP_END_OFFSET = 3
CUTOFF = 8
FILTER_ENVELOPE = 11
ATTACK = 34
HOLD = 35
DECAY = 36
SUSTAIN = 37
RELEASE = 38
INSTRUMENT = 41
KEY_RANGE = 43
ATTENUATION = 48
CENTS = 52
SAMPLE = 53
LOOPING = 54
SCALE = 56
ROOT = 58
DEFAULTS = {
    LOOP_OFFSET: 0,
    LOOP_END_OFFSET: 0,
    CUTOFF: 13_500,
    FILTER_ENVELOPE: 0,
    ATTACK: -12_000,
    HOLD: -12_000,
    DECAY: -12_000,
    SUSTAIN: 0,
    RELEASE: -12_000,
    ATTENUATION: 0,
    CENTS: 0,
    LOOPING: 0,
    SCALE: 100,
    ROOT: -1,
}
ALL_KEYS = 127 << 8  # a range: its lowest key in the low byte, its highest in the high byte


@dataclass(frozen=True)
class Zone:
    """A sample and how it is played on a range of keys."""

    keys: tuple[int, int]
    sample: np.void  # a row of shdr
    generators: dict[int, int]

    def seconds(self, kind: int) -> float:
        """A generator that is a time."""
        return 2 ** (self.generators[kind] / 1200)

    @property
    def name(self) -> str:
        """The recording's name in the font."""
        return self.sample["name"].split(b"\0")[0].decode("latin1")


class SoundFont:
    """presets: {(bank, program): [zones]}."""

    def __init__(self, path):
        chunks = dict(riff_chunks(Path(path).read_bytes()))
        self.samples = np.frombuffer(chunks["smpl"], "<i2").astype(np.float32) / 32_768
        self.tables = {}
        for name, fields in TABLES.items():
            self.tables[name] = np.frombuffer(chunks[name], np.dtype(fields))
        self.presets = {}
        for row, following in pairwise(self.tables["phdr"]):
            key = (int(row["bank"]), int(row["program"]))
            self.presets[key] = self._preset(row["zone"], following["zone"])

    def _generators(self, level: str, first: int, last: int):
        """The generators of zones first..last-1 as dicts.

        level: "p" for presets, "i" for instruments.
        """
        bags = self.tables[f"{level}bag"]["generator"]
        table = self.tables[f"{level}gen"]
        for zone in range(first, last):
            rows = table[bags[zone] : bags[zone + 1]]
            yield dict(zip(rows["kind"].tolist(), rows["amount"].tolist(), strict=True))

    def _preset(self, first: int, last: int) -> list[Zone]:
        """The zones of all instruments that a preset's zones first..last-1 name."""
        zones = []
        for preset in self._generators("p", first, last):
            if INSTRUMENT in preset:
                zones += self._instrument(preset[INSTRUMENT])
        return zones

    def _instrument(self, number: int) -> list[Zone]:
        """The zones of one instrument."""
        zones = []
        first, last = self.tables["inst"]["zone"][number : number + 2]
        shared = DEFAULTS
        for own in self._generators("i", first, last):
            if SAMPLE not in own:  # a first zone without a sample holds what the others share
                shared = DEFAULTS | own
                continue
            keys = own.get(KEY_RANGE, ALL_KEYS)
            sample = self.tables["shdr"][own[SAMPLE]]
            zones.append(Zone((keys & 127, keys >> 8), sample, shared | own))
        return zones

    def sample_names(
        self, program: int, keys: tuple[int, int] = (0, 127), bank: int = 0
    ) -> set[str]:
        """The recordings that a program plays between two keys."""
        lowest, highest = keys
        return {
            zone.name
            for zone in self.presets[bank, program]
            if zone.keys[0] <= highest and zone.keys[1] >= lowest
        }

    @lru_cache(maxsize=256)  # noqa: B019 - one font lives as long as the process
    def note(
        self, program: int, key: int, velocity: int, seconds: float, bank: int = 0
    ) -> np.ndarray:
        """[samples] one note at 44.1 kHz, with its release. velocity 1..127.

        Cached: do not write into it.
        """
        parts = []
        for zone in self.presets[bank, program]:
            if zone.keys[0] <= key <= zone.keys[1]:
                parts.append(self._play(zone, key, velocity, seconds))
        total = np.zeros(max([len(part) for part in parts], default=1))
        for part in parts:
            total[: len(part)] += part
        return total * (velocity / 127) ** 1.5

    def _play(self, zone: Zone, key: int, velocity: int, seconds: float) -> np.ndarray:
        """[samples] what one zone sounds like, at full velocity but for its filter."""
        position = positions(zone, key, seconds)
        whole = position.astype(np.int64)
        part = position - whole
        wave = self.samples[whole] * (1 - part) + self.samples[whole + 1] * part
        edge = filter_edge(zone, velocity)
        if edge < 16_000:  # above that, there is nothing to hear
            wave = low_pass(wave, edge)
        # The first players attenuated by 0.4 of what a font says, and fonts are made for that.
        gain = 10 ** (-0.4 * zone.generators[ATTENUATION] / 200)
        return wave * envelope(zone, len(wave), seconds) * gain


def positions(zone: Zone, key: int, seconds: float) -> np.ndarray:
    """[samples] where in the font's samples each sample of a note is read; ends with its release.

    A sample without a loop ends where its recording does.
    """
    given = zone.generators
    sample = zone.sample
    n = int((seconds + min(zone.seconds(RELEASE), 1.0)) * SAMPLE_RATE)
    position = int(sample["start"]) + speed(zone, key) * np.arange(n)
    is_looped = given[LOOPING] in (1, 3)  # all the time, or until the key is let go
    if not is_looped:
        return position[position < int(sample["end"]) - 1]
    loop = int(sample["loop"]) + given[LOOP_OFFSET]
    loop_end = int(sample["loop_end"]) + given[LOOP_END_OFFSET]
    length = max(loop_end - loop, 1)
    return np.where(position >= loop + length, loop + (position - loop) % length, position)


def speed(zone: Zone, key: int) -> float:
    """How many of the font's samples pass in one of the note's."""
    given = zone.generators
    root = given[ROOT] if given[ROOT] >= 0 else int(zone.sample["key"])
    cents = (key - root) * given[SCALE] + given[CENTS] + int(zone.sample["cents"])
    return 2 ** (cents / 1200) * int(zone.sample["rate"]) / SAMPLE_RATE


def filter_edge(zone: Zone, velocity: int) -> float:
    """The edge of a zone's low-pass in Hz.

    The envelope moves it; here it stays half way. A soft note is duller.
    """
    given = zone.generators
    envelope_cents = max(given[FILTER_ENVELOPE], 0) / 2
    cents = given[CUTOFF] + envelope_cents - 1500 * (1 - velocity / 127)
    return 8.176 * 2 ** (cents / 1200)  # cents above MIDI's key 0


def envelope(zone: Zone, n: int, seconds: float) -> np.ndarray:
    """[n] attack and hold, then decay and release, which are straight lines in dB.

    Section 8.1.2, generators 34 to 38: decay and release are times for a fall by 100 dB.
    """
    t = np.arange(n) / SAMPLE_RATE
    attack = zone.seconds(ATTACK)
    hold = zone.seconds(HOLD)
    sustain = max(zone.generators[SUSTAIN] / 10, 0)
    fall = np.clip((t - attack - hold) / zone.seconds(DECAY) * 100, 0, sustain)
    release = np.clip(t - seconds, 0, None) / max(zone.seconds(RELEASE), 0.02) * 100
    return np.minimum(1, t / attack) * 10 ** (-(fall + release) / 20)


def riff_chunks(data: bytes, start: int = 12):
    """(name, bytes) of every chunk of a RIFF file, those inside LISTs too."""
    while start + 8 <= len(data):
        name, size = struct.unpack("<4sI", data[start : start + 8])
        body = data[start + 8 : start + 8 + size]
        if name == b"LIST":
            yield from riff_chunks(body, 4)
        else:
            yield name.decode(), body
        start += 8 + size + size % 2


@cache
def general_midi() -> SoundFont:
    """TimGM6mb, which pretty_midi brings along: a General MIDI font of 6 MB.

    pretty_midi itself is not imported.
    """
    package = find_spec("pretty_midi")
    if package is None:
        raise ImportError('the sound font comes with pretty_midi: pip install "palmkit[synthetic]"')
    return SoundFont(Path(package.origin).parent / "TimGM6mb.sf2")
