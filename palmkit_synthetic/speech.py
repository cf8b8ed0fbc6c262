"""Speech by espeak-ng (formant synthesis): sentences in twelve languages, moods, spoken digits.

The library comes with the wheel `espeakng-loader` and speaks in a process of its own
(`espeak_server`). Voices and sentences of training and of tasks are different ones.
"""

from __future__ import annotations

import atexit
import json
import struct
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy import signal

from palmkit_synthetic import espeak_server
from palmkit_synthetic.dsp import (
    SAMPLE_RATE,
    TAU,
    band,
    low_pass,
    noise,
    overdrive,
    peak,
    place,
    time,
)
from palmkit_synthetic.sentences import SENTENCES

VOICES = {  # espeak-ng's variants, by domain and sex
    "train": {
        "man": (
            *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"),
            *("Denis", "Gene", "Mike", "john", "paul", "ed"),
        ),
        "woman": ("f1", "f2", "f3", "f4", "f5", "Alicia", "steph", "aunty"),
    },
    "task": {
        "man": ("Alex", "Andy", "Diogo", "Lee", "Marco", "Mario", "Michael", "robert", "travis"),
        "woman": ("Andrea", "Annie", "anika", "belinda", "linda"),
    },
}
WHISPERS = ("whisper", "whisperf")
LANGUAGES = {  # espeak-ng's names of the language
    "English": ("en-us", "en"),
    "French": ("fr",),
    "German": ("de",),
    "Spanish": ("es", "es-419"),
    "Italian": ("it",),
    "Russian": ("ru",),
    "Mandarin": ("cmn",),
    "Hindi": ("hi",),
    "Polish": ("pl",),
    "Portuguese": ("pt", "pt-br"),
    "Turkish": ("tr",),
    "Finnish": ("fi",),
}
DIGITS = {
    "English": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "Spanish": ("cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"),
}


@dataclass(frozen=True)
class Mood:
    """How a mood is spoken: the range of each parameter. (0, 0): not at all."""

    rate: tuple[float, float]  # words a minute
    pitch: tuple[float, float]  # espeak-ng's, 0 to 99
    range: tuple[float, float]  # of the pitch; espeak-ng's, 0 to 99
    tilt: tuple[float, float]  # dB by which 1.5 to 6 kHz are raised
    distortion: tuple[float, float] = (0, 0)  # hoarseness
    shake: tuple[float, float] = (0, 0)  # trembling: share of the loudness


MOODS = {
    "angry": Mood(
        rate=(185, 245),
        pitch=(45, 75),
        range=(75, 99),
        tilt=(4, 9),
        distortion=(2.0, 5.0),
    ),
    "happy": Mood(
        rate=(165, 215),
        pitch=(65, 95),
        range=(80, 99),
        tilt=(1, 4),
    ),
    "sad": Mood(
        rate=(90, 130),
        pitch=(10, 40),
        range=(5, 25),
        tilt=(-12, -5),
    ),
    "neutral": Mood(
        rate=(145, 175),
        pitch=(35, 60),
        range=(35, 55),
        tilt=(-2, 1),
    ),
    "fearful": Mood(
        rate=(175, 230),
        pitch=(70, 99),
        range=(20, 50),
        tilt=(-2, 2),
        shake=(0.2, 0.5),
    ),
}


class Speaker:
    """The server process, started at the first word."""

    def __init__(self):
        try:
            import espeakng_loader
        except ImportError as error:
            raise ImportError(
                'speech comes from espeak-ng: pip install "palmkit[synthetic]"'
            ) from error
        paths = [espeakng_loader.get_library_path(), str(espeakng_loader.get_data_path())]
        command = [sys.executable, str(Path(espeak_server.__file__)), *paths]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        atexit.register(self.close)

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.communicate()  # closes the pipes and waits

    def say(self, text: str, voice: str, pitch: float = 50, **parameters) -> np.ndarray:
        """[samples] at 44.1 kHz (nothing above 11 kHz).

        Raises RuntimeError if espeak-ng stays silent.
        """
        times_as_fast = SAMPLE_RATE // espeak_server.SAMPLE_RATE
        # espeak-ng crashes on some low voices of wide range; higher, it does not.
        for higher in (0, 15, 30, 45):
            request = {"text": text, "voice": voice, "pitch": pitch + higher, **parameters}
            data = self.ask(request)
            if data:
                waveform = np.frombuffer(data, "<i2") / 32_768
                return signal.resample_poly(waveform, times_as_fast, 1)
        raise RuntimeError(f"espeak-ng said nothing for {text!r} with the voice {voice!r}")

    def ask(self, request: dict) -> bytes:
        """One request to the server; nothing if espeak-ng crashed over it."""
        self.process.stdin.write((json.dumps(request) + "\n").encode())
        self.process.stdin.flush()
        header = self.process.stdout.read(8)
        if len(header) < 8:  # the server itself is gone
            return b""
        (length,) = struct.unpack("<q", header)
        return self.process.stdout.read(length)


@cache
def speaker() -> Speaker:
    """The server of this process."""
    return Speaker()


def utter(
    draw, text: str, language: str, sex: str | None = None, voice: str | None = None, **parameters
) -> np.ndarray:
    """A text in a language, by a voice of the domain; sex None: either.

    Silence around it is cut off.
    """
    sex = sex or draw.pick(["man", "woman"])
    variant = voice or draw.pick(VOICES[draw.domain.name][sex])
    settings = {
        "rate": draw.log("rate", 110, 245),
        "pitch": draw.uniform("pitch", 15, 85),
        "range": draw.uniform("range", 15, 95),
    }
    settings |= parameters  # what is given replaces what was drawn
    draw.parameters |= {"voice": variant} | settings
    accent = draw.pick(LANGUAGES[language])
    sound = speaker().say(text, f"{accent}+{variant}", **settings)
    loud = np.flatnonzero(np.abs(sound) > 0.01 * np.abs(sound).max())
    return sound[loud[0] : loud[-1] + 1]


def sentence(draw, language: str) -> str:
    """A run of words of one of the domain's sentences, now and then shuffled."""
    trained, tested = SENTENCES[language]
    words = draw.pick(trained if draw.domain.name == "train" else tested).split()
    start = draw.count(0, max(len(words) - 7, 0))
    chosen = words[start:]
    if draw.chance(0.5):
        chosen = chosen + words[:start]
    if draw.chance(0.25):
        chosen = draw.rng.permutation(chosen)
    return " ".join(chosen)


def start_within(draw, seconds: float, sound: np.ndarray) -> np.ndarray:
    """A sound that begins within the clip's first seconds: [clip's length]."""
    x = draw.silence()
    place(x, sound, draw.vary(0, seconds))
    return x


def speaking(draw, language: str, sex: str | None = None) -> np.ndarray:
    """A sentence in a language."""
    text = sentence(draw, language)
    return start_within(draw, 0.4, utter(draw, text, language, sex))


def mood(draw, name: str, language: str | None = None) -> np.ndarray:
    """Speech with a mood, as far as prosody, brightness, hoarseness and trembling carry it."""
    given = MOODS[name]
    language = language or draw.pick(
        ["English", "French", "Spanish", "Italian", "Polish", "Portuguese"]
    )
    prosody = {
        "rate": draw.uniform("rate", *given.rate),
        "pitch": draw.uniform("pitch", *given.pitch),
        "range": draw.uniform("range", *given.range),
    }
    text = sentence(draw, language)
    sound = peak(utter(draw, text, language, **prosody))
    brightness = 10 ** (draw.uniform("tilt", *given.tilt) / 20) - 1
    sound = sound + brightness * band(sound, 1500, 6000, 1)
    if given.distortion != (0, 0):
        sound = overdrive(sound, draw.uniform("distortion", *given.distortion))
    if given.shake != (0, 0):
        sound = sound * tremble(draw, len(sound), draw.uniform("shake", *given.shake))
    return start_within(draw, 0.3, sound)


def tremble(draw, n: int, depth: float) -> np.ndarray:
    """[n] a loudness that trembles 6 to 10 times a second."""
    rate = draw.vary(6, 10)
    return 1 + depth * np.sin(TAU * rate * time(n))


def whispering(draw) -> np.ndarray:
    """A whispered sentence: espeak-ng's breathy variants, without their last trace of voice."""
    language = draw.pick(["English", "French", "German", "Spanish", "Italian"])
    text = sentence(draw, language)
    sound = utter(draw, text, language, voice=draw.pick(WHISPERS))
    breath = peak(sound - low_pass(sound, 300))
    return start_within(draw, 0.4, breath)


def word(draw, text: str, language: str) -> np.ndarray:
    """One word alone, as in sets of spoken digits; half are telephone-like.

    Shorter than a clip: readers tile it.
    """
    sound = peak(utter(draw, text, language))
    if draw.chance(0.5):
        sound = low_pass(sound, draw.vary(3200, 4200), 6)
    before = pause(draw)
    after = pause(draw)
    x = np.concatenate([before, sound, after])
    return x + 0.001 * noise(draw.rng, len(x))


def pause(draw) -> np.ndarray:
    """The silence before or after a word."""
    return np.zeros(int(draw.vary(0, 0.15) * SAMPLE_RATE))


def sneeze_word(draw) -> np.ndarray:
    """A sneeze as it is spelt, spoken: 'achoo!'."""
    text = draw.pick(["achoo!", "hatchoo!", "atchoum!", "hachoo!", "ah choo!"])
    return peak(utter(draw, text, "English", range=draw.vary(20, 99)))
