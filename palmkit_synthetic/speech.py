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
from functools import cache
from pathlib import Path

import numpy as np
from scipy import signal

from palmkit_synthetic import espeak_server
from palmkit_synthetic.dsp import SAMPLE_RATE, band, low_pass, noise, peak, place
from palmkit_synthetic.sentences import SENTENCES

VOICES = {  # espeak-ng's variants, by domain and sex
    "train": {
        "man": (
            "m1",
            "m2",
            "m3",
            "m4",
            "m5",
            "m6",
            "m7",
            "m8",
            "Denis",
            "Gene",
            "Mike",
            "john",
            "paul",
            "ed",
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
# Words a minute, pitch and its range (espeak-ng: 0 to 99), spectral tilt in dB, hoarseness and
# trembling.
MOODS = {
    "angry": dict(
        rate=(185, 245), pitch=(45, 75), range=(75, 99), tilt=(4, 9), drive=(2.0, 5.0), shake=(0, 0)
    ),
    "happy": dict(
        rate=(165, 215), pitch=(65, 95), range=(80, 99), tilt=(1, 4), drive=(0, 0), shake=(0, 0)
    ),
    "sad": dict(
        rate=(90, 130), pitch=(10, 40), range=(5, 25), tilt=(-12, -5), drive=(0, 0), shake=(0, 0)
    ),
    "neutral": dict(
        rate=(145, 175), pitch=(35, 60), range=(35, 55), tilt=(-2, 1), drive=(0, 0), shake=(0, 0)
    ),
    "fearful": dict(
        rate=(175, 230),
        pitch=(70, 99),
        range=(20, 50),
        tilt=(-2, 2),
        drive=(0, 0),
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
        self.process.terminate()
        self.process.communicate()  # closes the pipes and waits

    def say(self, text: str, voice: str, pitch: float = 50, **parameters) -> np.ndarray:
        """[samples] at 44.1 kHz (nothing above 11 kHz).

        Raises RuntimeError if espeak-ng stays silent.
        """
        # espeak-ng crashes on some low voices of wide range; higher, it does not.
        for higher in (0, 15, 30, 45):
            data = self.ask(dict(text=text, voice=voice, pitch=pitch + higher, **parameters))
            if data:
                samples = np.frombuffer(data, "<i2") / 32_768
                return signal.resample_poly(samples, SAMPLE_RATE // espeak_server.SAMPLE_RATE, 1)
        raise RuntimeError(f"espeak-ng said nothing for {text!r} with the voice {voice!r}")

    def ask(self, request: dict) -> bytes:
        """One request to the server; nothing if espeak-ng crashed over it."""
        self.process.stdin.write((json.dumps(request) + "\n").encode())
        self.process.stdin.flush()
        header = self.process.stdout.read(8)
        return self.process.stdout.read(struct.unpack("<q", header)[0]) if len(header) == 8 else b""


@cache
def speaker() -> Speaker:
    return Speaker()


def utter(
    draw, text: str, language: str, sex: str | None = None, voice: str | None = None, **parameters
) -> np.ndarray:
    """A text in a language, by a voice of the domain; sex None: either.

    Silence around it is cut off.
    """
    sex = sex or draw.pick(["man", "woman"])
    variant = voice or draw.pick(VOICES[draw.domain.name][sex])
    settings = dict(rate=draw.log("rate", 110, 245), pitch=draw.uniform("pitch", 15, 85))
    settings |= dict(range=draw.uniform("range", 15, 95)) | parameters
    draw.parameters |= {"voice": variant} | settings
    sound = speaker().say(text, f"{draw.pick(LANGUAGES[language])}+{variant}", **settings)
    loud = np.flatnonzero(np.abs(sound) > 0.01 * np.abs(sound).max())
    return sound[loud[0] : loud[-1] + 1]


def sentence(draw, language: str) -> str:
    """A run of words of one of the domain's sentences, now and then shuffled."""
    words = draw.pick(SENTENCES[language][0 if draw.domain.name == "train" else 1]).split()
    start = draw.count(0, max(len(words) - 7, 0))
    chosen = words[start:] + words[:start] if draw.chance(0.5) else words[start:]
    return " ".join(draw.rng.permutation(chosen)) if draw.chance(0.25) else " ".join(chosen)


def speaking(draw, language: str, sex: str | None = None):
    """A sentence in a language."""
    x = np.zeros(draw.n)
    place(x, utter(draw, sentence(draw, language), language, sex), draw.vary(0, 0.4))
    return x


def mood(draw, name: str, language: str | None = None):
    """Speech with a mood, as far as rate, pitch, its range, brightness, hoarseness and trembling
    carry it.
    """
    given = MOODS[name]
    language = language or draw.pick(
        ["English", "French", "Spanish", "Italian", "Polish", "Portuguese"]
    )
    prosody = {key: draw.uniform(key, *given[key]) for key in ("rate", "pitch", "range")}
    sound = peak(utter(draw, sentence(draw, language), language, **prosody))
    bright = band(sound, 1500, 6000, 1)
    sound = sound + (10 ** (draw.uniform("tilt", *given["tilt"]) / 20) - 1) * bright
    if given["drive"][1]:
        sound = np.tanh(draw.uniform("drive", *given["drive"]) * sound)
    if given["shake"][1]:
        t = np.arange(len(sound)) / SAMPLE_RATE
        sound = sound * (
            1 + draw.uniform("shake", *given["shake"]) * np.sin(2 * np.pi * draw.vary(6, 10) * t)
        )
    x = np.zeros(draw.n)
    place(x, sound, draw.vary(0, 0.3))
    return x


def whispering(draw):
    """A whispered sentence: espeak-ng's breathy variants, without their last trace of voice."""
    language = draw.pick(["English", "French", "German", "Spanish", "Italian"])
    sound = utter(draw, sentence(draw, language), language, voice=draw.pick(WHISPERS))
    x = np.zeros(draw.n)
    place(x, peak(sound - low_pass(sound, 300)), draw.vary(0, 0.4))
    return x


def word(draw, text: str, language: str):
    """One word alone, as in sets of spoken digits: shorter than a clip (readers tile it); half are
    telephone-like.
    """
    sound = peak(utter(draw, text, language))
    if draw.chance(0.5):
        sound = low_pass(sound, draw.vary(3200, 4200), 6)
    pauses = [np.zeros(int(draw.vary(0, 0.15) * SAMPLE_RATE)) for _ in range(2)]
    return np.concatenate([pauses[0], sound, pauses[1]]) + 0.001 * noise(
        draw.rng, sum(map(len, pauses)) + len(sound)
    )


def sneeze_word(draw):
    """A sneeze as it is spelt, spoken: 'achoo!'."""
    text = draw.pick(["achoo!", "hatchoo!", "atchoum!", "hachoo!", "ah choo!"])
    return peak(utter(draw, text, "English", range=draw.vary(20, 99)))
