"""Reading audio: what a waveform becomes, and what is said of a file that cannot be used."""

import concurrent.futures
import random
import re
import time

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from sounds import SAMPLE_RATE, decode, samples, write

from palmkit import AudioError, audio, embed, load_dataset, read_clip
from palmkit.audio import count_samples, crop_clip, resample

CLIP_SAMPLES = 7 * SAMPLE_RATE


def cut(path, **kwargs):
    """Half of a file."""
    data = write(path, samples(20_000), **kwargs).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def spoil(path):
    """A FLAC file with a third of it overwritten."""
    data = bytearray(write(path, samples(20_000), subtype="PCM_16", format="FLAC").read_bytes())
    third = len(data) // 3
    data[third : 2 * third] = bytes(third)
    path.write_bytes(data)


def poison(path, value):
    data = samples(1000)
    data[500] = value
    write(path, data)


# kind -> (how to make one, what the message must say of it)
BAD = {
    "missing": (lambda path: None, "cannot be read.*No such file"),
    "folder": (lambda path: path.mkdir(), "cannot be read.*[Dd]irectory"),
    "empty": (lambda path: path.write_bytes(b""), "empty.*0 bytes"),
    "header only": (
        lambda path: path.write_bytes(b"RIFF\x24\x00\x00\x00WAVE"),
        "cannot be decoded",
    ),
    "not audio": (
        lambda path: path.write_text("<html>404 not found</html>" * 9),
        "cannot be decoded",
    ),
    "noise": (lambda path: path.write_bytes(random.Random(0).randbytes(5000)), "cannot be decoded"),
    "corrupt flac": (spoil, "cannot be decoded"),
    "truncated flac": (
        lambda path: cut(path, subtype="PCM_16", format="FLAC"),
        "cannot be decoded",
    ),
    "truncated ogg": (
        lambda path: cut(path, subtype="VORBIS", format="OGG"),
        "cannot be decoded|no samples",
    ),
    "truncated wav": (
        lambda path: cut(path, subtype="PCM_16"),
        "cannot be decoded|truncated|cut short|incomplete",
    ),
    "truncated float wav": (cut, "cannot be decoded|truncated|cut short|incomplete"),
    "no samples": (lambda path: write(path, samples(0), subtype="PCM_16"), "no samples"),
    "no samples, stereo": (lambda path: write(path, samples(0, 2)), "no samples"),
    "NaN": (lambda path: poison(path, np.nan), "NaN"),
    "infinite": (lambda path: poison(path, -np.inf), "infinite"),
}


@pytest.fixture(params=BAD)
def bad(request, tmp_path):
    """A bad file and the reason it should be refused for."""
    make, reason = BAD[request.param]
    make(tmp_path / "bad.wav")
    return tmp_path / "bad.wav", reason


def test_bad_file_is_named_and_explained(bad):
    path, reason = bad
    with pytest.raises(AudioError, match=reason) as caught:
        read_clip(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_bad_file_s_message_is_for_people(bad):
    """No address of a Python object, and what to do about it."""
    with pytest.raises(AudioError) as caught:
        read_clip(bad[0])
    message = str(caught.value).removeprefix(str(bad[0]))
    assert "object at 0x" not in message
    assert re.search(
        r"copy it again|fetch|replace|remove|take .* out|\?$|No such file|[Dd]irectory", message
    ), message


def test_bad_file_through_embed_names_row_and_csv(tmp_path, tiny_pengi):
    """Whatever is wrong with the file: all kinds that a dataset's own check lets pass.

    The bad clip stands in the fourth row of train.csv, the header being the first.
    """
    good = write(tmp_path / "good.wav", samples(1000))
    bad = tmp_path / "bad.wav"
    write(tmp_path / "other.wav", samples(1000, seed=1))
    bad.touch()
    (tmp_path / "train.csv").write_text("path,classname\ngood.wav,a\nother.wav,b\nbad.wav,b\n")
    (tmp_path / "test.csv").write_text("path,classname\ngood.wav,a\nother.wav,b\n")
    dataset, unnamed = load_dataset(tmp_path), {}
    for kind, (make, reason) in BAD.items():
        if bad.is_dir():
            bad.rmdir()
        bad.unlink(missing_ok=True)
        make(bad)
        try:
            embed(tiny_pengi, dataset.train.iloc[2:], cache=None)
            unnamed[kind] = "accepted"
        except AudioError as error:
            message = str(error)
            told = [
                message.startswith(f"{bad}: "),
                re.search(reason, message),
                f"row 4 of {tmp_path / 'train.csv'}",
            ]
            if not all(told[:2]) or told[2] not in message:
                unnamed[kind] = message
    assert unnamed == {}
    assert len(embed(tiny_pengi, [good], cache=None).paths) == 1


def test_bad_file_through_embed_without_a_csv(tmp_path, tiny_pengi):
    with pytest.raises(AudioError, match="empty") as caught:
        (tmp_path / "bad.wav").touch()
        embed(tiny_pengi, [tmp_path / "bad.wav"], cache=None)
    assert str(caught.value).startswith(f"{tmp_path / 'bad.wav'}: ") and "row" not in str(
        caught.value
    )


def test_wav_from_a_pipe_is_whole(tmp_path):
    """Written to a pipe, a WAV file cannot tell its length and says 4 GB; that is no truncation."""
    path = write(tmp_path / "pipe.wav", samples(1000), subtype="PCM_16")
    expected = decode(path.read_bytes(), path)
    data = bytearray(path.read_bytes())
    at = data.find(b"data")
    data[4:8] = data[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    assert torch.equal(decode(bytes(data), path), expected)


@pytest.mark.parametrize(("missing", "accepted"), [(10, True), (2000, False)])
def test_wav_that_is_cut_short_by_a_little(missing, accepted, tmp_path):
    """A size in a header may be off by some bytes; a clip that lacks a tenth is refused."""
    data = write(tmp_path / "clip.wav", samples(20_000), subtype="PCM_16").read_bytes()[
        : -2 * missing
    ]
    if accepted:
        assert len(decode(data, "clip.wav")) == 20_000 - missing
    else:
        with pytest.raises(AudioError, match="clip.wav: is cut short"):
            decode(data, "clip.wav")


# Cropping.


@pytest.mark.parametrize(
    "crop", ["middle", "", "0", 0.0, 1.5, True, False, None, (0,), [5], np.float64(3)]
)
def test_crop_of_an_unknown_kind(crop, tmp_path):
    path = write(tmp_path / "clip.wav", samples(100))
    with pytest.raises(
        ValueError, match="'random', 'start', 'center' or a start in samples"
    ) as caught:
        read_clip(path, crop=crop)
    assert f"crop={crop!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("length", "crop"), [(CLIP_SAMPLES + 10, 11), (CLIP_SAMPLES + 10, -1), (100, 1)]
)
def test_crop_outside_the_clip(length, crop):
    with pytest.raises(
        ValueError,
        match=rf"crop={crop}: .* 0\.\.{max(length - CLIP_SAMPLES, 0)} .*{length} samples",
    ):
        crop_clip(torch.zeros(length), CLIP_SAMPLES, crop)


@pytest.mark.parametrize(
    "read", [read_clip, lambda path, crop: embed(STUB, [path], cache=None, crop=crop)]
)
def test_crop_outside_the_clip_names_the_file(read, tmp_path):
    """One start need not fit all clips of a dataset, so the message names the clip."""
    path = write(tmp_path / "short.wav", samples(100))
    with pytest.raises(ValueError, match="crop=7") as caught:
        read(path, crop=7)
    assert str(path) in str(caught.value)


class Stub:
    """A stand-in for Pengi where nothing is to be encoded."""

    sample_rate, clip_seconds = SAMPLE_RATE, 7.0

    def digest(self):
        return "stub"


STUB = Stub()


def test_crop_kinds():
    waveform = torch.arange(CLIP_SAMPLES + 9).float()
    for crop, start in {"start": 0, "center": 4, 0: 0, 3: 3, 9: 9}.items():
        cropped, offset = crop_clip(waveform, CLIP_SAMPLES, crop)
        assert offset == start and torch.equal(cropped, waveform[start : start + CLIP_SAMPLES]), (
            crop
        )


def test_random_crop_is_the_generator_s_draw_and_says_its_start():
    waveform = torch.arange(CLIP_SAMPLES + 1000).float()
    for seed in range(5):
        expected = random.Random(seed).randrange(1000)
        cropped, offset = crop_clip(waveform, CLIP_SAMPLES, "random", random.Random(seed))
        assert offset == expected == int(cropped[0])
        again, _ = crop_clip(waveform, CLIP_SAMPLES, offset)
        assert torch.equal(again, cropped)


def test_crop_is_a_copy():
    """Changing the clip must not change the waveform it was cut from."""
    waveform = torch.zeros(CLIP_SAMPLES + 5)
    crop_clip(waveform, CLIP_SAMPLES, "start")[0].fill_(1)
    assert waveform.abs().max() == 0


@pytest.mark.parametrize("length", [1, 7, 1000, CLIP_SAMPLES - 1, CLIP_SAMPLES, CLIP_SAMPLES + 1])
def test_tiled_to_seven_seconds(length):
    waveform = torch.arange(length).float()
    clip, start = crop_clip(waveform, CLIP_SAMPLES, "random", random.Random(0))
    assert clip.shape == (CLIP_SAMPLES,) and start == 0
    assert torch.equal(clip, (torch.arange(CLIP_SAMPLES) % length).float())


# Decoding.


def test_44100_hz_comes_as_it_is(tmp_path):
    """No resampling: every sample is the file's own."""
    data = samples(12_345)
    waveform = decode(write(tmp_path / "clip.wav", data).read_bytes(), "clip")
    assert waveform.dtype == torch.float32 and torch.equal(waveform, torch.from_numpy(data[:, 0]))


@pytest.mark.parametrize("channels", [2, 3])
def test_channels_follow_each_other(channels, tmp_path):
    data = samples(500, channels)
    waveform = decode(write(tmp_path / "clip.wav", data).read_bytes(), "clip")
    assert torch.equal(waveform, torch.from_numpy(np.concatenate(list(data.T))))


@pytest.mark.parametrize("rate", [8000, 22_050, 48_000])
def test_resampled_length_and_pitch(rate, tmp_path):
    """A tone of 1000 Hz is one afterwards, in each channel, and lasts as long."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)
    path = write(tmp_path / "tone.wav", np.stack([tone, tone], 1), rate)
    waveform = decode(path.read_bytes(), path)
    assert waveform.shape == (2 * SAMPLE_RATE,)
    for channel in waveform.chunk(2):
        assert int(torch.fft.rfft(channel).abs().argmax()) == 1000  # one second: bins are Hertz


def test_integer_samples_are_scaled_to_one(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.array([-32768, 0, 16384], "int16"), SAMPLE_RATE)
    assert decode(path.read_bytes(), path).tolist() == [-1.0, 0.0, 0.5]


# Other rates and lengths than PENGI's.


def test_a_model_s_rate_and_length(tmp_path):
    """16 kHz, 4 s: resampled to that rate, tiled or cropped to that length."""
    path = write(tmp_path / "clip.wav", samples(SAMPLE_RATE))
    whole = audio.decode(path.read_bytes(), path, 16_000)
    assert whole.shape == (16_000,)
    clip = read_clip(path, sample_rate=16_000, seconds=4.0)
    assert torch.equal(clip, whole.repeat(4))
    assert torch.equal(
        read_clip(path, "center", sample_rate=16_000, seconds=0.5), whole[4000:12_000]
    )
    assert count_samples(7.0, 44_100) == CLIP_SAMPLES and count_samples(0.1, 16_000) == 1600


class Toy:
    """A model with another rate and length: an embedding is the first samples of its waveform."""

    sample_rate, clip_seconds = 16_000, 0.5

    def digest(self):
        return "toy"

    def encode_audio(self, waveforms):
        assert waveforms.shape[1:] == (8000,)
        return waveforms[:, :4]


def test_embed_reads_clips_as_its_model_wants_them(tmp_path):
    path = write(tmp_path / "clip.wav", samples(2 * SAMPLE_RATE))
    got = embed(Toy(), [path], cache=tmp_path / "cache")
    whole = audio.decode(path.read_bytes(), path, 16_000)
    start = got.offsets[0]
    assert 0 < start < 24_000 and torch.equal(got.features[0], whole[start : start + 4])
    for name, value in (("sample_rate", 22_050), ("clip_seconds", 0.4)):
        other = Toy()
        setattr(other, name, value)
        other.encode_audio = lambda waveforms: -waveforms[:, :4]
        assert not torch.equal(
            embed(other, [path], cache=tmp_path / "cache").features, got.features
        )


# sha256 of what `resample` gives of these integers: the same on any processor.
RESAMPLED = {
    48_000: "dccfb846a9fb14d4d0365e2146a6c4254c787cc5db05c780dee8ad230b3268ab",
    22_050: "f4d7f795dd6ccae1c77996c1c47ce9f3fa990fb558b691aefb720c217ad1be02",
    16_000: "954ea86df79b25a31732c73984218cd86c75829499a0474b2aaa401303701f29",
}


@pytest.mark.parametrize("rate", RESAMPLED)
def test_resampling_does_not_depend_on_the_processor(rate):
    """The published kernel in double precision: within a rounding of the published result."""
    waveform = torch.from_numpy(np.random.default_rng(0).integers(-(2**15), 2**15, (2, rate)))
    waveform = (waveform / 2**15).float()
    got = resample(waveform, rate, SAMPLE_RATE)
    assert got.dtype == torch.float32 and audio.digest(got.numpy().tobytes()) == RESAMPLED[rate]
    published = torchaudio.transforms.Resample(rate, SAMPLE_RATE)(waveform)
    assert (got - published).abs().max() < 1e-6


def test_a_kernel_is_built_once(monkeypatch):
    """However many threads need the same one at the same time."""
    built, real = [], torchaudio.transforms.Resample

    def build(*rates):
        built.append(rates)
        time.sleep(0.05)
        return real(*rates)

    monkeypatch.setattr(torchaudio.transforms, "Resample", build)
    waveform = torch.zeros(1, 777)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: resample(waveform, 7770, 7777), range(8)))
    assert built == [(7770, 7777)]


# Waveforms that are no batch.


@pytest.mark.parametrize("shape", [(), (CLIP_SAMPLES,), (1, 1, CLIP_SAMPLES)])
def test_encode_audio_says_what_it_takes(shape, tiny_pengi):
    with pytest.raises(ValueError, match=r"waveforms \[n, samples\]") as caught:
        tiny_pengi.encode_audio(torch.zeros(shape))
    assert str(list(shape)) in str(caught.value)


def test_encode_audio_refuses_more_than_it_can_see(tiny_pengi):
    with pytest.raises(ValueError, match="too long"):
        tiny_pengi.encode_audio(torch.zeros(1, 320 * 1024))


@pytest.mark.parametrize("shape", [(0, CLIP_SAMPLES), (1, 0), (1, 100)])
def test_encode_audio_with_nothing_to_hear(shape, tiny_pengi):
    """No clip, no sample, or fewer samples than one frame: the message names the shape."""
    with pytest.raises(ValueError) as caught:
        tiny_pengi.encode_audio(torch.zeros(shape))
    assert str(list(shape)) in str(caught.value)


def test_encode_audio_takes_an_array(tiny_pengi):
    """NumPy or torch, float64 or float32: the same unit vector."""
    waveform = np.tile(samples(5000), (62, 1))[:CLIP_SAMPLES].T
    got = tiny_pengi.encode_audio(waveform.astype("float64"))
    assert torch.equal(got, tiny_pengi.encode_audio(torch.from_numpy(waveform)))
    assert (
        got.shape == (1, 64) and got.norm() == pytest.approx(1, abs=1e-6) and not got.requires_grad
    )
