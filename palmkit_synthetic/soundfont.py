"""A small player for SF2 sound fonts: recorded samples, looped, tuned, shaped by their volume
envelope.

Read from the SoundFont 2.04 specification (section 7: the tables; 8.1: the generators). What it
leaves out: modulators, vibrato, the moving filter, chorus and stereo. None of them decides which
instrument it is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from palmkit_synthetic.dsp import SAMPLE_RATE, low_pass

DRUMS = 128  # the bank of drum kits
TABLES = {
    "phdr": [
        ("name", "S20"),
        ("program", "<u2"),
        ("bank", "<u2"),
        ("zone", "<u2"),
        ("unused", "V12"),
    ],
    "pbag": [("generator", "<u2"), ("modulator", "<u2")],
    "pgen": [("kind", "<u2"), ("amount", "<i2")],
    "inst": [("name", "S20"), ("zone", "<u2")],
    "ibag": [("generator", "<u2"), ("modulator", "<u2")],
    "igen": [("kind", "<u2"), ("amount", "<i2")],
    "shdr": [
        ("name", "S20"),
        ("start", "<u4"),
        ("end", "<u4"),
        ("loop", "<u4"),
        ("loop_end", "<u4"),
        ("rate", "<u4"),
    ]
    + [("key", "u1"), ("cents", "i1"), ("link", "<u2"), ("type", "<u2")],
}
# Generators (section 8.1.2) and their defaults
LOOP_OFFSET, LOOP_END_OFFSET, CUTOFF, FILTER_ENVELOPE = 2, 3, 8, 11
ATTACK, HOLD, DECAY, SUSTAIN, RELEASE = 34, 35, 36, 37, 38
INSTRUMENT, KEY_RANGE, ATTENUATION, CENTS, SAMPLE, LOOPING, SCALE, ROOT = (
    41,
    43,
    48,
    52,
    53,
    54,
    56,
    58,
)
DEFAULTS = {
    LOOP_OFFSET: 0,
    LOOP_END_OFFSET: 0,
    CUTOFF: 13_500,
    FILTER_ENVELOPE: 0,
    SUSTAIN: 0,
    ATTENUATION: 0,
}
DEFAULTS |= dict.fromkeys((ATTACK, HOLD, DECAY, RELEASE), -12_000) | {
    CENTS: 0,
    LOOPING: 0,
    SCALE: 100,
    ROOT: -1,
}


@dataclass(frozen=True)
class Zone:
    """A sample and how it is played on a range of keys."""

    keys: tuple[int, int]
    sample: np.void  # a row of shdr
    generators: dict[int, int]

    def seconds(self, kind: int) -> float:
        return 2 ** (self.generators[kind] / 1200)

    @property
    def name(self) -> str:
        return self.sample["name"].split(b"\0")[0].decode("latin1")


class SoundFont:
    """presets: {(bank, program): [zones]}."""

    def __init__(self, path):
        chunks = dict(riff_chunks(Path(path).read_bytes()))
        self.samples = np.frombuffer(chunks["smpl"], "<i2").astype(np.float32) / 32_768
        self.tables = {
            name: np.frombuffer(chunks[name], np.dtype(fields)) for name, fields in TABLES.items()
        }
        self.presets = {
            (int(row["bank"]), int(row["program"])): self._preset(row["zone"], following["zone"])
            for row, following in zip(self.tables["phdr"], self.tables["phdr"][1:], strict=False)
        }

    def _generators(self, level: str, first: int, last: int):
        """The generators of zones first..last-1 as dicts.

        level: "p" for presets, "i" for instruments.
        """
        bags, table = self.tables[f"{level}bag"]["generator"], self.tables[f"{level}gen"]
        for zone in range(first, last):
            rows = table[bags[zone] : bags[zone + 1]]
            yield dict(zip(rows["kind"].tolist(), rows["amount"].tolist(), strict=True))

    def _preset(self, first: int, last: int) -> list[Zone]:
        zones = []
        for preset in self._generators("p", first, last):
            if INSTRUMENT not in preset:
                continue
            low, high = self.tables["inst"]["zone"][preset[INSTRUMENT] : preset[INSTRUMENT] + 2]
            shared = DEFAULTS
            for own in self._generators("i", low, high):
                if SAMPLE not in own:  # a first zone without a sample holds what the others share
                    shared = DEFAULTS | own
                    continue
                keys = own.get(KEY_RANGE, 127 << 8)
                zones.append(
                    Zone((keys & 127, keys >> 8), self.tables["shdr"][own[SAMPLE]], shared | own)
                )
        return zones

    def sample_names(
        self, program: int, keys: tuple[int, int] = (0, 127), bank: int = 0
    ) -> set[str]:
        """The recordings that a program plays between two keys."""
        zones = self.presets[bank, program]
        return {zone.name for zone in zones if zone.keys[0] <= keys[1] and zone.keys[1] >= keys[0]}

    @lru_cache(maxsize=256)  # noqa: B019 - one font lives as long as the process
    def note(
        self, program: int, key: int, velocity: int, seconds: float, bank: int = 0
    ) -> np.ndarray:
        """[samples] one note at 44.1 kHz, with its release. velocity 1..127.

        Cached: do not write into it.
        """
        zones = [
            zone for zone in self.presets[bank, program] if zone.keys[0] <= key <= zone.keys[1]
        ]
        parts = [self._play(zone, key, velocity, seconds) for zone in zones]
        total = np.zeros(max([len(part) for part in parts], default=1))
        for part in parts:
            total[: len(part)] += part
        return total * (velocity / 127) ** 1.5

    def _play(self, zone: Zone, key: int, velocity: int, seconds: float) -> np.ndarray:
        given, sample = zone.generators, zone.sample
        root = given[ROOT] if given[ROOT] >= 0 else int(sample["key"])
        cents = (key - root) * given[SCALE] + given[CENTS] + int(sample["cents"])
        step = 2 ** (cents / 1200) * int(sample["rate"]) / SAMPLE_RATE
        n = int((seconds + min(zone.seconds(RELEASE), 1.0)) * SAMPLE_RATE)
        position = int(sample["start"]) + step * np.arange(n)
        if given[LOOPING] in (1, 3):
            loop = int(sample["loop"]) + given[LOOP_OFFSET]
            length = max(int(sample["loop_end"]) + given[LOOP_END_OFFSET] - loop, 1)
            position = np.where(
                position >= loop + length, loop + (position - loop) % length, position
            )
        else:
            position = position[position < int(sample["end"]) - 1]
        whole = position.astype(np.int64)
        part = position - whole
        wave = self.samples[whole] * (1 - part) + self.samples[whole + 1] * part
        cutoff = given[CUTOFF] + max(given[FILTER_ENVELOPE], 0) / 2 - 1500 * (1 - velocity / 127)
        edge = 8.176 * 2 ** (cutoff / 1200)
        wave = low_pass(wave, edge) if edge < 16_000 else wave
        return wave * envelope(zone, len(wave), seconds) * 10 ** (-0.4 * given[ATTENUATION] / 200)


def envelope(zone: Zone, n: int, seconds: float) -> np.ndarray:
    """[n] attack and hold, then decay and release, which are straight lines in dB (section 8.1.2,
    34 to 38).
    """
    t = np.arange(n) / SAMPLE_RATE
    attack, hold = zone.seconds(ATTACK), zone.seconds(HOLD)
    fall = np.clip(
        (t - attack - hold) / zone.seconds(DECAY) * 100, 0, max(zone.generators[SUSTAIN] / 10, 0)
    )
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
    """TimGM6mb, which pretty_midi brings along: a General MIDI font of 6 MB. pretty_midi itself is
    not imported.
    """
    package = find_spec("pretty_midi")
    if package is None:
        raise ImportError('the sound font comes with pretty_midi: pip install "palmkit[synthetic]"')
    return SoundFont(Path(package.origin).parent / "TimGM6mb.sf2")
