"""Sound files: their samples, read in blocks to the end, and what is wrong with a file.

No length in a header is believed. What a container announces is compared with what is there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from palmkit.sound_headers import (
    announced_flac_frames,
    check_container,
    foreign_format,
    has_mp3_length,
    is_cut,
    read_at,
    with_length,
    with_mp3_length,
    without_flac_length,
)

MIN_RATE, MAX_RATE = 100, 1_000_000  # Hz
MAX_SECONDS = 2 * 3600  # of all channels together
BLOCK = 2**18  # samples that are decoded at a time
IN_MEMORY = 2**26  # bytes; a larger file is read from the disk as it is needed
# Samples of these types have a fixed size in these formats: their number is known, and each can be
# read alone.
FIXED_SIZE = re.compile("PCM_.*|FLOAT|DOUBLE|[AU]LAW")
FIXED_SIZE_IN = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST")
UNKNOWN = 2**63 - 1  # the reader's number of frames where it knows none
MP3_SLACK = 1152  # samples by which the length in an MP3 may be off: some encoders miscount a frame
# What files are that are no sound, by how they begin.
NO_SOUND = (
    (rb"version https://git-lfs", "a Git LFS pointer: run `git lfs pull` where the file is from"),
    (rb"[./\w]*annex/objects/", "a git-annex pointer: run `git annex get` where the file is from"),
    (rb"(?i)\s*(<!doctype|<html|<\?xml)", "a web page: the download failed, fetch the file again"),
    (rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf", "an archive: unpack it"),
    (
        rb"[\t\r\n -~]{6,256}\Z",
        "a text: the download failed, it points to the file, or it is no sound: fetch or remove it",
    ),
    (rb"\0{64}", "zeros: the download or copy failed, fetch the file again"),
)
# What libsndfile says of damaged files and means otherwise.
MISLEADING = re.compile("pipe|object at 0x|psf_fseek|resource fork|System error|^$")


class AudioError(ValueError):
    """An audio file that cannot be used; the message names it and says why."""


class Reader(soundfile.SoundFile):
    """soundfile's reader, which does not seek while it reads: some decoders cannot."""

    def seekable(self) -> bool:
        return False


class Seekable:
    """A file for libsndfile. Damaged headers make it seek to places before the start."""

    def __init__(self, file):
        self._file, self.read, self.readinto = file, file.read, file.readinto
        self.tell = file.tell

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with contextlib.suppress(ValueError, OSError):
            self._file.seek(offset, whence)
        return self._file.tell()


class Sound:
    """An open sound file.

    rate: Hz. channels. frames: samples of a channel; exact if `is_exact` or once all was read.
    decoder: what decodes it, "" for libsndfile alone.
    """

    def __init__(self, file, path, decoder: str = ""):
        self.path, self.decoder, self._file = path, decoder, file
        with self._open() as reader:
            self.rate, self.channels = reader.samplerate, reader.channels
            self.format, self.frames = reader.format, reader.frames
            is_fixed = FIXED_SIZE.fullmatch(reader.subtype) is not None
            self.is_exact = is_fixed and self.format in FIXED_SIZE_IN
        if not MIN_RATE <= self.rate <= MAX_RATE:
            raise AudioError(
                f"{path}: has a sample rate of {self.rate:,} Hz; rates from {MIN_RATE} to "
                f"{MAX_RATE:,} Hz can be used: correct its header, or convert the file"
            )
        if self.format == "FLAC":
            self.frames = announced_flac_frames(file)
        elif self.format == "MP3" and not has_mp3_length(file):
            self._count_mp3()
        if self.is_exact:
            self._check_frames(self.frames)

    def read(self, most: int = UNKNOWN) -> np.ndarray | None:
        """float32 [channels, frames] in [-1, 1], or None if there are more than `most` frames."""
        if self.is_exact and self.frames > most:
            return None
        kept, frames = [], 0
        for block in self.blocks():
            frames += len(block)
            kept = [*kept, block] if frames <= most else []
        return None if frames > most else _channels_first(kept)

    def read_range(self, start: int, stop: int) -> np.ndarray:
        """float32 [channels, stop - start]: only these frames."""
        part = _channels_first([*self.blocks(start, stop)])
        if part.shape[1] < stop - start:
            raise AudioError(f"{self.path}: was changed while it was read; start again")
        return part

    def blocks(self, start: int = 0, stop: int = UNKNOWN) -> Iterator[np.ndarray]:
        """float32 [frames, channels]: the frames from `start` to `stop`, in blocks.

        Raises AudioError for what cannot be read; at the end, for a file that is cut short.
        """
        size = max(1, BLOCK // self.channels)
        with self._open() as reader:
            at = reader.seek(start) if self.is_exact and start else 0
            while at < stop and len(block := self._read_block(reader, size)):
                wanted = block[max(start - at, 0) : stop - at]
                at += len(block)
                self._check_length(at)
                if len(wanted):
                    check_finite(wanted, self.path)
                    yield wanted
        if at < stop:
            self._check_frames(at)

    def _read_block(self, reader, size: int) -> np.ndarray:
        with self._explained():
            return reader.read(size, dtype="float32", always_2d=True)

    @contextlib.contextmanager
    def _open(self):
        # libsndfile gets no path: beside a path it looks for other files, the `._` ones of a Mac.
        with self._explained():
            file = without_flac_length(self._file)
            file.seek(0)
            reader = Reader(Seekable(file))
        with reader:
            yield reader

    def _count_mp3(self) -> None:
        """Without a length in the file libsndfile guesses one, and reads no more than that."""
        file, guess, self.frames = self._file, self.frames, UNKNOWN
        self._file = with_mp3_length(file)
        with self._open() as reader:
            if reader.frames <= guess:
                self._file = file
            else:
                self.decoder = "MP3 frames counted"

    def _check_frames(self, frames: int) -> None:
        """Compare the number of frames with what the file announces, and keep it."""
        if frames == 0:
            raise AudioError(
                f"{self.path}: holds no samples (zero length); fetch or copy it again, or remove "
                "its row"
            )
        slack = MP3_SLACK if self.format == "MP3" else 0
        if self.frames not in (0, UNKNOWN) and is_cut(frames + slack, self.frames):
            what = f"is cut short ({frames} of {self.frames} samples)"
            raise AudioError(f"{self.path}: {what}; fetch or copy it again")
        self._check_length(frames)
        self.frames = frames

    def _check_length(self, frames: int) -> None:
        if frames * self.channels > MAX_SECONDS * self.rate:
            raise AudioError(
                f"{self.path}: is longer than {MAX_SECONDS // 3600} hours (all channels "
                "together); cut it into clips"
            )

    @contextlib.contextmanager
    def _explained(self):
        """Whatever a reader raises, as an AudioError."""
        try:
            yield
        except Exception as error:
            raise AudioError(_explain(self.path, self._file, error)) from error


@contextlib.contextmanager
def open_file(path, in_memory: int = IN_MEMORY) -> Iterator[io.IOBase]:
    """The file, open for reading; in memory up to so many bytes. AudioError if it is not there."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "rb"))
            if os.fstat(file.fileno()).st_size <= in_memory:
                file = io.BytesIO(file.read())
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = getattr(error, "strerror", None) or error
            raise AudioError(f"{path}: cannot be read ({reason})") from error
        yield file


@contextlib.contextmanager
def open_sound(file, path) -> Iterator[Sound]:
    """Open a sound for reading. file: its bytes, or an open binary file. path: for messages.

    What libsndfile does not know is decoded by the program ffmpeg, if there is one. Raises
    AudioError.
    """
    file = io.BytesIO(file) if isinstance(file, bytes) else file
    head = read_at(file, 0, 64)
    if not head:
        raise AudioError(f"{path}: the file is empty (0 bytes); fetch or copy it again")
    if problem := check_container(file):
        raise AudioError(f"{path}: {problem}; fetch or copy it again")
    with contextlib.ExitStack() as stack:
        decoder = ""
        if name := foreign_format(head):
            file = stack.enter_context(_convert(file, path, name))
            decoder = ffmpeg_version()
        yield Sound(with_length(file), path, decoder)


def describe_sound(file, path) -> tuple[str, int]:
    """(what decodes it, "" for libsndfile alone; its rate in Hz, 0 if ffmpeg finds it out)."""
    if foreign_format(read_at(file, 0, 64)):
        return ffmpeg_version(), 0
    with open_sound(file, path) as sound:
        return sound.decoder, sound.rate


@dataclass(frozen=True)
class Scan:
    """What a file holds: rate (Hz), channels, frames, peak, content (a digest of the samples)."""

    rate: int
    channels: int
    frames: int
    peak: float
    content: str


def scan(path) -> Scan:
    """Read a whole file, one block at a time. Raises AudioError for one that cannot be used."""
    with open_file(path) as file, open_sound(file, path) as sound:
        sha = hashlib.sha256(f"{sound.rate} {sound.channels}".encode())
        peak = 0.0
        for block in sound.blocks():
            peak = max(peak, float(np.abs(block).max()))
            sha.update(block.tobytes())
        return Scan(sound.rate, sound.channels, sound.frames, peak, sha.hexdigest())


def check_finite(samples: np.ndarray, path) -> None:
    if not np.isfinite(samples).all():
        raise AudioError(
            f"{path}: holds NaN or infinite samples; replace the file or remove its row"
        )


def _channels_first(blocks: list[np.ndarray]) -> np.ndarray:
    return np.ascontiguousarray(np.concatenate(blocks).T) if blocks else np.zeros((1, 0), "f4")


def _explain(path, file, error: Exception) -> str:
    head = read_at(file, 0, 256)
    for pattern, what in NO_SOUND:
        if re.match(pattern, head):
            return f"{path}: cannot be decoded: it is {what}"
    reason = str(getattr(error, "error_string", error))
    if MISLEADING.search(reason):
        reason = "damaged, or of a format that libsndfile does not know"
    return f"{path}: cannot be decoded ({reason}); is it an audio file, and whole?"


# Formats that libsndfile does not know.


def ffmpeg_version() -> str:
    """ "ffmpeg 5.1.6", or "" without that program, or if it cannot be run."""
    program = shutil.which("ffmpeg")
    return _program_version(program) if program else ""


@functools.cache
def _program_version(program: str) -> str:
    try:
        done = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return " ".join(done.stdout.split()[:3:2])


@contextlib.contextmanager
def _convert(file, path, name: str) -> Iterator[io.IOBase]:
    """The sound as a WAV file of floats, by ffmpeg."""
    program, plain = shutil.which("ffmpeg"), Path(str(path))
    if program is None:
        raise AudioError(
            f"{path}: cannot be decoded: it is {name}. Install the program ffmpeg, or convert it: "
            f"ffmpeg -i {plain.name} {plain.stem}.wav"
        )
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "sound"), Path(folder, "sound.wav")
        file.seek(0)
        with open(source, "wb") as copy:
            shutil.copyfileobj(file, copy)
        limits = ["-nostdin", "-v", "error", "-xerror", "-t", str(MAX_SECONDS + 1)]
        form = ["-vn", "-c:a", "pcm_f32le", "-rf64", "auto"]
        command = [program, *limits, "-i", f"file:{source}", *form, f"file:{target}"]
        try:
            said = subprocess.run(command, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise AudioError(
                f"{path}: cannot be decoded: it is {name}, and {program} cannot be run "
                f"({error.strerror}): install ffmpeg again, or convert the file"
            ) from error
        if said.returncode or not target.is_file():
            reason = said.stderr.replace(f"file:{source}", name).strip().split("\n")[-1]
            reason = re.sub(r"\[(\w+) @ 0x[0-9a-f]+\] ", r"\1: ", reason)
            raise AudioError(f"{path}: cannot be decoded ({reason or name}); is it whole?")
        with open(target, "rb") as converted:
            yield converted
