"""A process of its own in which espeak-ng speaks, run as a script by `speech`.

It imports nothing heavy.

espeak-ng keeps hidden state from one utterance to the next (flutter, noise), so that what it says
depends on what it said before. Every utterance is therefore spoken by a fresh fork of a process
that has never spoken. A crash inside espeak-ng costs one utterance. Protocol: a line of JSON in; a
length (8 bytes) and 16-bit samples at 22,050 Hz out.
"""

import ctypes
import json
import os
import signal
import struct
import sys

SYNCHRONOUS = 2  # enum espeak_AUDIO_OUTPUT: samples go to the callback, before espeak_Synth returns
UTF8 = 1
PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "range": 4}  # enum espeak_PARAMETER
SAMPLE_RATE = 22_050
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def start(library: str, data: str):
    """espeak-ng's library, ready to speak. Raises RuntimeError if it cannot start."""
    espeak = ctypes.CDLL(library)
    rate = espeak.espeak_Initialize(SYNCHRONOUS, 0, os.fsencode(data), 0)
    if rate != SAMPLE_RATE:
        raise RuntimeError(f"espeak-ng cannot start from {data} (answer {rate})")
    return espeak


def speak(espeak, text: str, voice: str, **parameters) -> bytes:
    """16-bit samples of one utterance; none if espeak-ng does not know the voice."""
    blocks = []

    def keep(samples, count, _events):
        if samples and count > 0:
            blocks.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = CALLBACK(keep)
    espeak.espeak_SetSynthCallback(callback)
    if espeak.espeak_SetVoiceByName(voice.encode()) != 0:
        return b""
    for name, value in parameters.items():
        espeak.espeak_SetParameter(PARAMETERS[name], int(value), 0)
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(1))  # breath is noise, seeded by the clock otherwise
    data = text.encode()
    espeak.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 0, 0, UTF8, None, None)
    return b"".join(blocks)


def serve(espeak) -> None:
    """Answer every line of standard input with the samples of an utterance."""
    for line in sys.stdin:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(speak(espeak, **json.loads(line)))
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            samples = pipe.read()
        os.waitpid(child, 0)
        sys.stdout.buffer.write(struct.pack("<q", len(samples)) + samples)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    # An interrupted notebook closes the pipe; no need to complain.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(start(*sys.argv[1:3]))
