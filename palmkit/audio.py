"""From an audio file to a waveform of a model's sample rate and clip length.

What is done, and in which order, follows the published PALM code.
"""

from __future__ import annotations

import functools
import hashlib
import os
import random

import torch

from palmkit.channels import combine_channels, model_channels
from palmkit.padding import model_padding, pad_clip
from palmkit.resampling import SOXR, resample, resample_part, resampled_length, uses_soxr
from palmkit.sound_files import AudioError, Sound, describe_sound, open_file, open_sound

# Digests that a process keeps, about 500 bytes each. With fewer than a dataset has clips, each look
# at all of them would read every file again.
REMEMBERED = 4_000_000
LONG_SECONDS = 60  # of all channels together; of a longer clip, only the crop is kept in memory


def decode(data: bytes, path, sample_rate: int) -> torch.Tensor:
    """Decode a file's bytes to float32 in [-1, 1] at `sample_rate`: [samples of all channels].

    Channels are put one after the other, not mixed: the published code does so (`reshape(-1)` of
    [channels, n]), and a stereo file therefore becomes twice as long. `path` is only for messages.
    Raises AudioError.
    """
    with open_sound(data, path) as sound:
        return resample(torch.from_numpy(sound.read()), sound.rate, sample_rate).reshape(-1)


def read_crop(
    file, path, rate: int, samples: int, crop="random", rng=None, padding="repeat", channels="join"
) -> tuple[torch.Tensor, int]:
    """`crop_clip` of `decode`, to the last bit, without keeping all of a long file in memory.

    file: its bytes, or an open binary file. `path` is only for messages. rate: of the result, in
    Hz. padding, channels: of palmkit.padding.PADDINGS and palmkit.channels.CHANNELS. Raises
    AudioError.
    """
    # A clip that is not longer than the crop is needed as a whole: it is repeated.
    seconds = max(LONG_SECONDS, samples // rate + 1)
    with open_sound(file, path) as sound:
        whole = sound.read(most=seconds * sound.rate // sound.channels)
        if whole is None and uses_soxr(sound.rate, rate):
            whole = sound.read()
        if whole is not None:
            waveform = resample(torch.from_numpy(whole), sound.rate, rate)
            waveform = combine_channels(waveform, channels)
            return crop_clip(waveform, samples, crop, rng, path, padding)
        n = resampled_length(sound.frames, sound.rate, rate)
        shift = n if channels == "join" else 0  # where the next channel starts
        start = choose_start(n + shift * (sound.channels - 1), samples, crop, rng, path)
        parts = []
        for channel in range(sound.channels):
            first, last = (max(at - channel * shift, 0) for at in (start, start + samples))
            if first < min(last, n):
                parts.append(_read_part(sound, channel, first, min(last, n), rate))
        return torch.cat(parts) if shift else torch.stack(parts).mean(0), start


def _read_part(sound: Sound, channel: int, first: int, last: int, sample_rate: int) -> torch.Tensor:
    """Resampled values `first` to `last` of a channel, from the samples that they depend on."""

    def read(start, stop):
        return torch.from_numpy(sound.read_range(start, stop)[channel])

    return resample_part(read, sound.frames, first, last, sound.rate, sample_rate)


def count_samples(seconds: float, sample_rate: int) -> int:
    """Samples in a clip of this length: `count_samples(model.clip_seconds, model.sample_rate)`."""
    return round(seconds * sample_rate)


def crop_clip(
    waveform: torch.Tensor, samples: int, crop="random", rng=None, path="the clip", padding="repeat"
) -> tuple[torch.Tensor, int]:
    """Bring [n] to [samples]: padded if shorter, cropped if longer. Returns (clip, crop's start).

    crop: "random" (start drawn by `rng.randrange(n - samples)`, the published draw, at training and
    at test), "start", "center" or a start in samples. `rng` is a `random.Random`; without one
    Python's global generator is used, as in the published code. `path` is only for messages.
    padding: one of palmkit.padding.PADDINGS, for a shorter clip.
    """
    start = choose_start(waveform.numel(), samples, crop, rng, path)
    if waveform.numel() <= samples:
        return pad_clip(waveform, samples, padding), 0
    return waveform[start : start + samples].clone(), start


def choose_start(length: int, samples: int, crop="random", rng=None, path="the clip") -> int:
    """Where the crop of a clip of this length starts; see `crop_clip`."""
    if crop not in ("random", "start", "center") and (
        isinstance(crop, bool) or not isinstance(crop, int)
    ):
        raise ValueError(
            f"crop={crop!r}: use 'random', 'start', 'center' or a start in samples (int)"
        )
    spare = length - samples
    if isinstance(crop, int) and not 0 <= crop <= max(spare, 0):
        raise ValueError(
            f"crop={crop}: a start must lie in 0..{max(spare, 0)} ({path} has {length} samples)"
        )
    if spare <= 0:
        return 0
    if crop == "random":
        return (rng or random).randrange(spare)
    return {"start": 0, "center": spare // 2}.get(crop, crop)


def read_clip(
    path, crop="random", rng=None, sample_rate=44_100, seconds=7.0, **policy
) -> torch.Tensor:
    """Read one clip as the published loader does: [seconds x sample_rate] float32 samples.

    crop, rng: as in `crop_clip`. policy: padding and channels of `read_crop`. The defaults are
    PENGI's, the paper's only model; for another: `read_clip(path, **clip_settings(model))`.
    Raises AudioError for a missing, empty, corrupt or NaN file.
    """
    samples = count_samples(seconds, sample_rate)
    with open_file(path) as file:
        return read_crop(file, path, sample_rate, samples, crop, rng, **policy)[0]


def clip_policy(model) -> dict:
    """What a model does with short clips and with channels: arguments of `read_crop`."""
    return {"padding": model_padding(model), "channels": model_channels(model)}


def clip_settings(model) -> dict:
    """What `read_clip` needs to know of a model: rate, length, padding and channels."""
    return {
        "sample_rate": model.sample_rate,
        "seconds": model.clip_seconds,
        **clip_policy(model),
    }


def read_bytes(path) -> bytes:
    """The file's bytes, or an AudioError that names it."""
    with open_file(path) as file:
        return file.read()


def digest(data: bytes) -> str:
    """sha256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def stream_digest(file) -> str:
    """sha256 of an open file, in hexadecimal."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path) -> str:
    """sha256 of a file's bytes; a process computes it again if size, times or inode changed."""
    return _file_digest(str(path), *_file_stat(path))


def content_key(path, sample_rate: int) -> str:
    """A file's sha256, and by what it is decoded or resampled where that is out of the ordinary.

    It is the name of what is computed from the file.
    """
    sha, note = file_digest(path), _decoding_note(str(path), sample_rate, *_file_stat(path))
    return f"{sha} {note}" if note else sha


def _file_stat(path) -> tuple[int, ...]:
    try:
        stat = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{path}: cannot be read ({reason})") from error
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


@functools.lru_cache(REMEMBERED)
def _file_digest(path, *_stat) -> str:
    with open_file(path) as file:
        return stream_digest(file)


@functools.lru_cache(REMEMBERED)
def _decoding_note(path, sample_rate: int, *_stat) -> str:
    try:
        with open_file(path, in_memory=0) as file:  # mostly, its header is enough
            decoder, rate = describe_sound(file, path)
    except AudioError:
        return ""  # it is raised when the file is decoded
    # 0: not known without decoding it.
    resampler = SOXR if rate == 0 or uses_soxr(rate, sample_rate) else ""
    return ", ".join(filter(None, (decoder, resampler)))
