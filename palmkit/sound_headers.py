"""What headers of sound files announce: lengths, and formats that libsndfile does not know."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass

MISSING = 0.01  # share of a file that may be missing: lengths in headers are off by some bytes
MATROSKA = b"\x1a\x45\xdf\xa3"
MOST_CHUNKS = 10_000  # before the sound; a damaged file may look as if it had millions
OGG_PAGE = 65_307  # bytes of the longest one


@dataclass(frozen=True)
class Chunks:
    """How a container is divided. first: where the first chunk is. id, size: bytes of a chunk's
    name and length. order: of the length's bytes. align: chunks start at multiples of it. sound:
    names of chunks of samples. counts_header: whether a length counts name and length too.
    """

    first: int
    id: int = 4
    size: int = 4
    order: str = "little"
    align: int = 2
    sound: tuple[bytes, ...] = (b"data",)
    counts_header: bool = False


CONTAINERS = {
    b"RIFF": Chunks(12),
    b"RIFX": Chunks(12, order="big"),
    b"RF64": Chunks(12),
    b"BW64": Chunks(12),
    b"FORM": Chunks(12, order="big", sound=(b"SSND", b"BODY")),
    b"riff": Chunks(40, id=16, size=8, align=8, counts_header=True),  # W64
    b"caff": Chunks(8, size=8, order="big", align=1),
}
# What libsndfile does not decode: how such a file begins, and its name.
FOREIGN = (
    (rb".{4}ftyp(M4A|M4B)", "AAC or ALAC in an MP4 container (m4a)"),
    (rb".{4}ftyp", "an MP4 container"),
    (rb"\xff[\xf0\xf1\xf8\xf9]", "AAC"),
    (rb"ADIF", "AAC"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media (wma)"),
    (rb"\x1a\x45\xdf\xa3", "a Matroska or WebM container"),
    (rb"#!AMR", "AMR"),
    (rb"MAC ", "Monkey's Audio (ape)"),
    (rb"wvpk", "WavPack"),
    (rb"MPCK|MP\+", "Musepack"),
    (rb"RIFF.{4}AVI ", "an AVI container"),
    (rb"\x0b\x77", "AC-3"),
    (rb"DSD ", "DSD"),
    (rb"TTA1", "TTA"),
    (rb"\x7f\xfe\x80\x01", "DTS"),
    (rb"OggS.{22}\x01.Speex   ", "Speex"),
    (rb"OggS.{22}\x01.\x7fFLAC", "FLAC in an Ogg container"),
    # The codecs of WAV files that libsndfile lacks, by their numbers.
    (rb"RIFF.{4}WAVEfmt .{4}\xff\x00", "AAC in a WAV file"),
    (rb"RIFF.{4}WAVEfmt .{4}\x00\x20", "AC-3 in a WAV file"),
    (
        rb"RIFF.{4}WAVEfmt .{4}(\x20\x00|[\x45\x64]\x00|\x42\x00|\x8f\x02)",
        "a WAV file of a rare codec",
    ),
)
# MPEG audio, layer III: bit rates (kbit/s) and sample rates (Hz) by their index.
MP3_BIT_RATES = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MP3_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def read_at(file, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def file_size(file) -> int:
    return file.seek(0, os.SEEK_END)


def is_cut(there: int, announced: int) -> bool:
    return there < (1 - MISSING) * announced


def foreign_format(head: bytes) -> str:
    """The name of a format that libsndfile does not decode, or ""."""
    return next((name for start, name in FOREIGN if re.match(start, head, re.DOTALL)), "")


def check_container(file) -> str:
    """What is wrong with a container's length, "" if nothing. Formats without one give "" too."""
    head = read_at(file, 0, 1024)
    if head[:4] == b"OggS":
        return _check_ogg(file)
    is_nist = head[:7] == b"NIST_1A"
    if is_nist:
        announced, there = _measure_nist(file, head)
    elif head[:4] == MATROSKA:
        announced, there = _measure_matroska(file, head)
    else:
        announced, there = _measure_sound(file)
    if is_cut(there, announced):
        return f"is cut short ({there} of {announced} bytes of sound)"
    if not is_nist and 0 < announced < there / 2 and _sound_goes_on(file, announced):
        return f"has a damaged header (it announces {announced} of {there} bytes of sound)"
    return ""


def _sound_goes_on(file, announced: int) -> bool:
    """Whether neither a chunk nor padding follows the sound."""
    rest = read_at(file, _find_sound(file).start + announced, 64)
    return bool(rest.strip(b"\0")) and not (_is_chunk(rest[:8]) or _is_chunk(rest[1:9]))


def _is_placeholder(length: int, size: int) -> bool:
    """Whether a program that did not know the length wrote it: about half the range, or more."""
    return length >= 2 ** (8 * size - 1) - 2**16


@dataclass(frozen=True)
class SoundChunk:
    """Where the samples of a container are. place: of their length, of `size` bytes. length: as
    announced. start: of the samples. large: the length in a ds64 chunk, 0 without one.
    """

    place: int
    size: int
    order: str
    length: int
    start: int
    large: int = 0


def _find_sound(file) -> SoundChunk | None:
    head = read_at(file, 0, 12)
    if head[:4] in (b".snd", b"dns."):
        order = "big" if head[:1] == b"." else "little"
        start, length = (int.from_bytes(head[at : at + 4], order) for at in (4, 8))
        return SoundChunk(8, 4, order, length, start)
    chunks = CONTAINERS.get(head[:4])
    return _find_chunk(file, chunks) if chunks else None


def _find_chunk(file, chunks: Chunks) -> SoundChunk | None:
    at, end, head, large = chunks.first, file_size(file), chunks.id + chunks.size, 0
    for _ in range(MOST_CHUNKS):
        if at + head > end:
            break
        start = read_at(file, at, head + 16)
        name, length = start[:4], int.from_bytes(start[chunks.id : head], chunks.order)
        if name == b"ds64":
            large = int.from_bytes(start[head + 8 : head + 16], "little")
        length -= head if chunks.counts_header else 0
        if name in chunks.sound:
            place = at + chunks.id
            return SoundChunk(place, chunks.size, chunks.order, length, at + head, large)
        at += head + max(length, 0)
        at += -at % chunks.align
    return None


def _measure_sound(file) -> tuple[int, int]:
    """(bytes of samples as announced, bytes that are there); (0, 0) where it is not known."""
    found = _find_sound(file)
    if found is None:
        return 0, 0
    length = found.length
    if _is_placeholder(length, found.size):
        length = 0 if _is_placeholder(found.large, 8) else found.large
    return length, file_size(file) - found.start


def with_length(file):
    """A container with its sound's length where a program did not write it. Others: as is.

    A recorder that was interrupted leaves 0. CAF has -1, which libsndfile does not take.
    """
    found = _find_sound(file)
    if found is None:
        return file
    there = file_size(file) - found.start
    is_open = found.length == 0 and not _is_chunk(read_at(file, found.start, 8))
    is_open |= found.order == "big" and found.size == 8 and _is_placeholder(found.length, 8)
    if there <= 0 or found.large or not is_open:
        return file
    data = bytearray(read_at(file, 0, -1))
    data[found.place : found.place + found.size] = there.to_bytes(found.size, found.order)
    return io.BytesIO(data)


def _is_chunk(start: bytes) -> bool:
    """Whether a chunk, a list of words for example, could start like this."""
    return re.fullmatch(rb"[A-Za-z][A-Za-z0-9 _]{3}.{4}", start, re.DOTALL) is not None


def _measure_nist(file, head: bytes) -> tuple[int, int]:
    def find(name: bytes, other: int) -> int:
        found = re.search(name + rb" -i (\d{1,15})\n", head)
        return int(found[1]) if found else other

    start = head.split()[1:2]
    length = find(b"sample_count", 0) * find(b"channel_count", 1) * find(b"sample_n_bytes", 1)
    known = start and start[0].isdigit()
    return (length, file_size(file) - int(start[0])) if known else (0, 0)


def _measure_matroska(file, head: bytes) -> tuple[int, int]:
    """As `_measure_sound`, of the segment behind a Matroska or WebM file's header."""
    header, at = _matroska_length(head, 4)
    if head[at + header : at + header + 4] != b"\x18\x53\x80\x67":
        return 0, 0
    length, start = _matroska_length(head, at + header + 4)
    # All bits set: a program that streamed the file did not know it.
    known = length + 1 < 2 ** (7 * (start - at - header - 4))
    return (length, file_size(file) - start) if known else (0, 0)


def _matroska_length(data: bytes, at: int) -> tuple[int, int]:
    """(a number of one to eight bytes, where it ends): its leading zeros say how many follow."""
    size = 9 - data[at].bit_length() if data[at : at + 1] else 9
    number = int.from_bytes(data[at : at + size], "big") & (2 ** (7 * size) - 1)
    return number, at + size


def _check_ogg(file) -> str:
    """An Ogg file ends with a whole page that is marked as the last of its stream."""
    size = file_size(file)
    tail = read_at(file, max(0, size - 2 * OGG_PAGE), 2 * OGG_PAGE)
    page = tail[max(tail.rfind(b"OggS"), 0) :]
    lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""
    whole = len(page) > 26 and len(page) >= 27 + page[26] + sum(lengths)
    if whole and page[5] & 4:
        return ""
    return "is cut short (its last page is missing: it cannot be decoded whole)"


# FLAC and MP3, whose decoders stop at the length in the header, or at a guess.


def announced_flac_frames(file) -> int:
    """The frames of a channel, 0 if the file does not say."""
    head = read_at(file, 0, 26)
    return int.from_bytes(head[21:26], "big") & (2**36 - 1) if head[:4] == b"fLaC" else 0


def without_flac_length(file):
    """A FLAC file that does not say its length, so that it is read to its end. Others: as is."""
    if read_at(file, 0, 4) != b"fLaC":
        return file
    data = bytearray(read_at(file, 0, -1))
    if len(data) > 26:
        data[21] &= 0xF0
        data[22:26] = bytes(4)
    return io.BytesIO(data)


def _mp3_start(file) -> int:
    """Where the first frame should be: behind the tags."""
    at = 0
    while (head := read_at(file, at, 10))[:3] == b"ID3" and len(head) == 10:
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        at += 10 + size + (10 if head[5] & 0x10 else 0)
    return at


def has_mp3_length(file) -> bool:
    """Whether an MP3 file announces its length, in its first frame."""
    head = read_at(file, _mp3_start(file), 256)
    found = re.search(rb"Xing|Info", head)
    return bool(found) and len(head) > found.end() + 3 and bool(head[found.end() + 3] & 1)


def _mp3_frame(header: bytes) -> int:
    """Bytes of the frame of layer III that starts with this header; 0 if none does."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version, rate, bits = header[1] >> 3 & 3, header[2] >> 2 & 3, header[2] >> 4
    if version == 1 or rate == 3 or bits in (0, 15):
        return 0
    factor = 144_000 if version == 3 else 72_000
    kbits = MP3_BIT_RATES[version == 3][bits]
    return factor * kbits // MP3_RATES[version][rate] + (header[2] >> 1 & 1)


def with_mp3_length(file):
    """An MP3 file with a first frame that says how many follow; as it is if they are damaged."""
    data = read_at(file, _mp3_start(file), -1)
    at = frames = 0
    while (length := _mp3_frame(data[at : at + 4])) and at + length <= len(data):
        at, frames = at + length, frames + 1
    rest = data[at:]
    ends = not rest.strip(b"\0") or rest.startswith((b"TAG", b"APETAGEX", b"LYRICS", b"\xff"))
    return io.BytesIO(_length_frame(data[:4], frames) + data) if frames and ends else file


def _length_frame(header: bytes, frames: int) -> bytes:
    """A frame without sound, as encoders put it first, with the number of frames."""
    is_mpeg1, is_mono = header[1] >> 3 & 3 == 3, header[3] >> 6 == 3
    place = 4 + {(True, False): 32, (True, True): 17, (False, True): 9}.get((is_mpeg1, is_mono), 17)
    # No checksum, 128 kbit/s (80 in MPEG 2), no padding.
    head = bytes([header[0], header[1] | 1, 0x90 | header[2] & 0x0C, header[3]])
    said = b"Xing" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
    return (head + bytes(place - 4) + said).ljust(_mp3_frame(head), b"\0")
