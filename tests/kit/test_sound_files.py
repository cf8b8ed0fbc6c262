"""Sound files of every kind: read right and to the end, or refused with what to do."""

import io
import os
import random
import re
import shutil
import subprocess
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch
from sounds import SAMPLE_RATE, decode, samples, write

from palmkit import AudioError, audio, embed, load_dataset, read_clip, resampling
from palmkit.audio import crop_clip, resample
from palmkit.datasets.bad_files import find_bad_files
from palmkit.embeddings import provenance
from palmkit.sound_files import ffmpeg_version
from palmkit.sound_headers import MOST_CHUNKS, check_container, foreign_format
from palmkit.store import TensorStore

CLIP_SAMPLES = 7 * SAMPLE_RATE


class Toy:
    """A model with another rate and length: an embedding is the first samples of its waveform."""

    sample_rate, clip_seconds = 16_000, 0.5

    def digest(self):
        return "toy"

    def encode_audio(self, waveforms):
        return waveforms[:, :4]


# Sound of every format.


def encode(data, rate, **kwargs) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, data, rate, **kwargs)
    return file.getvalue()


def slow_noise(n, channels=1, seed=0):
    """Noise of low frequencies, [n, channels]."""
    noise = samples(n + 15, channels, seed)
    return sum(noise[k : k + n] for k in range(16)) / 4


TELEPHONE = [
    *(("WAV", "GSM610"), ("AIFF", "GSM610"), ("W64", "GSM610"), ("WAV", "G721_32")),
    *(("AU", "G721_32"), ("AU", "G723_24"), ("AU", "G723_40"), ("WAV", "NMS_ADPCM_32")),
    *(("AIFF", "DWVW_16"), ("AIFF", "DWVW_24"), ("WAV", "MS_ADPCM"), ("CAF", "ALAC_16")),
]


@pytest.mark.parametrize(("form", "subtype"), TELEPHONE)
def test_codecs_that_cannot_seek(form, subtype):
    """Decoded to the end, the samples about what was written."""
    written = slow_noise(8000)
    got = decode(encode(written, 8000, format=form, subtype=subtype), "clip", 8000)
    assert 8000 <= len(got) < 8800  # some codecs fill up their last block
    assert np.corrcoef(got[:8000], written[:, 0])[0, 1] > 0.9


def announce(data, frames) -> bytes:
    """A FLAC file that says it has this many frames."""
    changed = bytearray(data)
    changed[21] = changed[21] & 0xF0 | frames >> 32
    changed[22:26] = (frames & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(changed)


@pytest.mark.parametrize("frames", [0, 1, 11_999])
def test_flac_is_read_to_its_end(frames):
    """Of unknown length, as an encoder in a pipe writes it, or with a length that is too small."""
    data = encode(samples(12_000), SAMPLE_RATE, format="FLAC")
    assert torch.equal(decode(announce(data, frames), "clip"), decode(data, "clip"))


def test_flac_that_lacks_samples():
    data = encode(samples(12_000), SAMPLE_RATE, format="FLAC")
    with pytest.raises(AudioError, match=r"clip: is cut short \(12000 of 20000 samples\)"):
        decode(announce(data, 20_000), "clip")


def without_first_frame(data) -> bytes:
    """An MP3 file without its length: what follows its second frame header."""
    return data[data.find(b"\xff\xfb", 200) :]


def test_mp3_without_a_length_is_read_to_its_end():
    """Its bit rate varies, so a decoder's guess from the first frame is wrong by far."""
    quiet = 1e-4 * slow_noise(100_000)
    sound = np.concatenate([samples(100_000), quiet])
    data = encode(sound, SAMPLE_RATE, format="MP3")
    assert b"Xing" in data[:200] and b"Xing" not in without_first_frame(data)[:200]
    whole = len(decode(data, "clip"))
    assert whole == 200_000
    assert abs(len(decode(without_first_frame(data), "clip")) - whole) < 3000


# format, subtype: their containers say how long they are.
CUT = [
    *(("WAV", "PCM_16"), ("WAVEX", "FLOAT"), ("AIFF", "PCM_16"), ("AU", "PCM_16")),
    *(("W64", "PCM_16"), ("RF64", "PCM_16"), ("CAF", "PCM_16"), ("NIST", "PCM_16")),
    *(("SVX", "PCM_16"), ("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS")),
    *(("FLAC", "PCM_16"), ("WAV", "GSM610"), ("AU", "G721_32"), ("WAV", "IMA_ADPCM")),
]


@pytest.mark.parametrize(("form", "subtype"), CUT)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_cut_file_is_noticed(form, subtype, share):
    data = encode(samples(60_000), 48_000, format=form, subtype=subtype)
    assert len(decode(data, "clip", 48_000)) >= 60_000
    with pytest.raises(AudioError, match="clip: (is cut short|cannot be decoded)"):
        decode(data[: int(share * len(data))], "clip", 48_000)


def write_length(data, form, length) -> bytes:
    """A file of 2000 samples of 2 bytes that announces `length` bytes of sound."""
    place = 8 if form == "AU" else data.find(b"data") + 4
    size, order = {"WAV": (4, "little"), "AU": (4, "big"), "CAF": (8, "big")}[form]
    announced = int.from_bytes(data[place : place + size], order)
    assert announced == (4004 if form == "CAF" else 4000)
    written = (length % 2 ** (8 * size)).to_bytes(size, order)
    return data[:place] + written + data[place + size :]


@pytest.mark.parametrize("form", ["WAV", "AU", "CAF"])
@pytest.mark.parametrize("length", [-1, 0], ids=["not known", "never written"])
def test_a_length_that_is_missing(form, length):
    """A program that writes to a pipe sets all bits; a recorder that was interrupted leaves 0."""
    data = encode(samples(2000), SAMPLE_RATE, format=form, subtype="PCM_16")
    assert torch.equal(decode(write_length(data, form, length), "clip"), decode(data, "clip"))


def test_a_wav_file_without_sound_but_with_words():
    """Its chunk of words is no sound."""
    data = encode(samples(0), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    with pytest.raises(AudioError, match="holds no samples"):
        decode(data + b"LIST" + (400).to_bytes(4, "little") + 400 * b"a", "clip")


@pytest.mark.parametrize("form", ["WAV", "AU"])
def test_a_length_that_is_far_too_small(form):
    """Most of the sound would be passed over in silence."""
    data = encode(samples(2000), SAMPLE_RATE, format=form, subtype="PCM_16")
    with pytest.raises(AudioError, match="clip: has a damaged header .it announces 500 of 4000"):
        decode(write_length(data, form, 500), "clip")


def test_a_chunk_that_is_longer_than_the_sound():
    words = b"LIST" + (4000).to_bytes(4, "little") + 4000 * b"a"
    sound = encode(samples(250), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    assert len(decode(sound + words, "clip")) == 250


NO_SOUND = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s9--0.wav\n", "git annex get"),
    "page": (b"<!DOCTYPE html><html>404</html>", "web page.*fetch"),
    "zip": (b"PK\x03\x04" + bytes(60), "archive: unpack"),
    "zeros": (bytes(4000), "zeros.*fetch"),
    "text": (b"404: Not Found", "a text: the download failed"),
    "dvc": (
        b"outs:\n- md5: a304afb96060aad90176268345e10355\n  path: a.wav\n",
        "a text: .*points to",
    ),
    "mp3": (b"\xff\xfb\x90\xc4" + bytes(20), "libsndfile does not know"),
}


@pytest.mark.parametrize("kind", NO_SOUND)
def test_what_is_no_sound_is_called_by_its_name(kind):
    data, expected = NO_SOUND[kind]
    with pytest.raises(AudioError, match=f"clip.wav: cannot be decoded.*{expected}") as caught:
        decode(data, "clip.wav")
    assert "pipe" not in str(caught.value)


M4A = bytes(4) + b"ftypM4A " + bytes(50)


def make_ffmpeg(folder, script) -> None:
    program = folder / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_aac_without_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError, match=r"a/clip.m4a: .*m4a.*ffmpeg -i clip.m4a clip.wav"):
        decode(M4A, "a/clip.m4a")


WAV_OF = b"RIFF....WAVEfmt \x12\0\0\0"
OGG_OF = b"OggS\0\x02" + bytes(20) + b"\x01\x50"
RARE = {
    "Speex": OGG_OF + b"Speex   1.2.1",
    "FLAC in an Ogg container": OGG_OF + b"\x7fFLAC\x01\0",
    "AAC in a WAV file": WAV_OF + b"\xff\0",
    "AC-3 in a WAV file": WAV_OF + b"\0\x20",
    "a WAV file of a rare codec": WAV_OF + b"\x45\0",
    "TTA": b"TTA1\x01\0",
    "DTS": b"\x7f\xfe\x80\x01",
}


@pytest.mark.parametrize("name", RARE)
def test_codecs_that_libsndfile_lacks(name):
    assert foreign_format(RARE[name] + bytes(40)) == name


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "MS_ADPCM", "ULAW", "GSM610", "G721_32"])
def test_codecs_that_libsndfile_has(subtype):
    data = encode(samples(2000), 8000, format="WAV", subtype=subtype)
    assert foreign_format(data[:64]) == ""


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_cut_matroska_file(size):
    """ffmpeg decodes what is there and says nothing."""
    length = 100
    number = (length | 1 << 7 * size).to_bytes(size, "big")
    start = b"\x1a\x45\xdf\xa3\x9f" + bytes(31) + b"\x18\x53\x80\x67"
    cut = io.BytesIO(start + number + bytes(90))
    assert check_container(cut) == "is cut short (90 of 100 bytes of sound)"
    assert check_container(io.BytesIO(start + number + bytes(100))) == ""
    unknown = ((1 << 7 * size + 1) - 1).to_bytes(size, "big")
    assert check_container(io.BytesIO(start + unknown + bytes(90))) == ""
    for end in range(4, len(start) + size):  # cut within the header
        check_container(io.BytesIO((start + number)[:end]))


def test_a_reason_of_ffmpeg_has_no_addresses(tmp_path, monkeypatch):
    make_ffmpeg(tmp_path, "echo '[aac @ 0x55f3a0] Input buffer exhausted' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError, match=r"decoded \(aac: Input buffer exhausted\)"):
        decode(M4A, "clip.m4a")
    make_ffmpeg(tmp_path, "exit 1")
    with pytest.raises(AudioError, match=r"decoded \(AAC or ALAC in an MP4"):
        decode(M4A, "clip.m4a")


def test_aac_by_ffmpeg(tmp_path, monkeypatch):
    """Its sound, and its version in the name of what is computed from it."""
    path, wav = tmp_path / "clip.m4a", write(tmp_path / "sound.wav", samples(500))
    path.write_bytes(M4A)
    script = f"""[ "$1" = -version ] && echo "ffmpeg version 9.8 Copyright" && exit
for target; do :; done
cp {wav} "${{target#file:}}\""""
    make_ffmpeg(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert torch.equal(decode(M4A, path), decode(wav.read_bytes(), wav))
    assert "ffmpeg 9.8" in audio.content_key(path, SAMPLE_RATE)


def test_a_file_is_good_only_as_long_as_its_decoder_is_there(tmp_path, monkeypatch):
    path, wav = tmp_path / "clip.m4a", write(tmp_path / "sound.wav", samples(500))
    path.write_bytes(M4A)
    make_ffmpeg(
        tmp_path,
        f"""[ "$1" = -version ] && echo "ffmpeg version 9.8 Copyright" && exit
for target; do :; done
cp {wav} "${{target#file:}}\"""",
    )
    before = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{tmp_path}:{before}")
    assert find_bad_files([path], tmp_path / "cache") == {}
    (tmp_path / "nothing").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert "ffmpeg" in find_bad_files([path], tmp_path / "cache")[str(path)]


def test_aac_that_ffmpeg_refuses(tmp_path, monkeypatch):
    make_ffmpeg(tmp_path, "echo moov atom not found >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError, match="clip.m4a: cannot be decoded .*moov atom not found"):
        decode(M4A, "clip.m4a")


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="the program ffmpeg is not there")
def test_real_aac(tmp_path):
    wav = write(tmp_path / "clip.wav", slow_noise(SAMPLE_RATE), subtype="PCM_16")
    subprocess.run(["ffmpeg", "-v", "error", "-i", wav, tmp_path / "clip.m4a"], check=True)
    got = decode((tmp_path / "clip.m4a").read_bytes(), "clip.m4a")
    assert abs(len(got) - SAMPLE_RATE) < 3000 and 0.05 < got.std() < 0.5


# Sample rates.


@pytest.mark.parametrize("rate", [1, 99, 1_000_001, 10**9])
def test_rates_out_of_bounds(rate):
    data = bytearray(encode(samples(100), SAMPLE_RATE, format="WAV", subtype="PCM_16"))
    data[24:28] = rate.to_bytes(4, "little")
    with pytest.raises(AudioError, match="clip: .*from 100 to 1,000,000 Hz"):
        decode(bytes(data), "clip")


@pytest.mark.parametrize("rate", [100, 11_024, 44_056, 44_101, 999_983])
def test_odd_rates(rate):
    """Pitch and length are right. For all but 100 Hz torchaudio's kernel would be too large."""
    assert resampling.uses_soxr(rate, SAMPLE_RATE) == (rate != 100)
    pitch = rate / 4
    tone = np.sin(2 * np.pi * pitch * np.arange(2 * rate) / rate).astype("float32")
    got = decode(encode(tone, rate, format="WAV", subtype="FLOAT"), "clip")
    assert got.shape == (2 * SAMPLE_RATE,)
    strongest = int(torch.fft.rfft(got).abs().argmax()) / 2  # two seconds
    assert strongest == round(2 * pitch) / 2 if pitch < SAMPLE_RATE / 2 else got.abs().max() < 0.1


COMMON = (8000, 11_025, 16_000, 22_050, 24_000, 32_000, 37_800, 48_000, 88_200, 96_000, 192_000)


def test_names_of_embeddings_tell_the_resampler(tmp_path):
    """Where it is soxr only: embeddings of clips at common rates stay valid."""
    for rate in (*COMMON, 250_000, 384_000, 500_000):
        path = write(tmp_path / f"{rate}.wav", samples(100), rate)
        assert audio.content_key(path, SAMPLE_RATE) == audio.file_digest(path), rate
    path = write(tmp_path / "odd.wav", samples(100), 44_101)
    sha = audio.file_digest(path)
    assert re.fullmatch(rf"{sha} soxr \S+ VHQ", audio.content_key(path, SAMPLE_RATE))
    assert audio.content_key(path, 44_101) == sha


def test_embeddings_of_odd_rates_are_not_those_of_another_resampler(tmp_path):
    path = write(tmp_path / "odd.wav", samples(30_000), 44_101)
    embed(Toy(), [path], cache=tmp_path / "cache")
    with TensorStore(tmp_path / "cache", "embeddings", provenance(Toy(), "random", 0)) as store:
        assert audio.file_digest(path) not in store
        assert str(store.get(audio.content_key(path, 16_000))["note"]) == audio.SOXR


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 48_000, 96_000, 44_100])
def test_resampled_length(rate):
    for n in (1, 2, 7, 1000, 12_345, 99_991):
        whole = resample(torch.zeros(1, n), rate, SAMPLE_RATE)
        assert audio.resampled_length(n, rate, SAMPLE_RATE) == whole.shape[1], n


@pytest.mark.parametrize("rate", [8000, 48_000])
def test_long_waveforms_are_resampled_in_parts(rate, monkeypatch):
    """With the very values of all at once, which would take much memory."""
    waveform = torch.from_numpy(samples(99_991, 2).T.copy())
    whole = resample(waveform, rate, SAMPLE_RATE)
    monkeypatch.setattr(resampling, "SEGMENT", 10_007)
    assert torch.equal(resample(waveform, rate, SAMPLE_RATE), whole)


# Long clips.

LONG = {
    "wav": (8000, 2, {"format": "WAV", "subtype": "PCM_16"}),
    "w64": (44_100, 1, {"format": "W64", "subtype": "PCM_24"}),
    "aiff": (11_025, 3, {"format": "AIFF", "subtype": "PCM_16"}),
    "flac": (16_000, 1, {"format": "FLAC"}),
    "mp3": (16_000, 1, {"format": "MP3"}),
    "gsm": (8000, 1, {"format": "WAV", "subtype": "GSM610"}),
    "odd": (7001, 2, {"format": "WAV", "subtype": "PCM_16"}),
}


@pytest.mark.parametrize("kind", LONG)
def test_the_crop_of_a_long_clip_is_that_of_all_of_it(kind):
    """To the last bit, wherever it is: also where one channel ends and the next begins."""
    rate, channels, kwargs = LONG[kind]
    data = encode(samples(31 * rate * 2 // channels, channels), rate, **kwargs)
    whole = decode(data, "clip")
    assert len(whole) > 60 * SAMPLE_RATE
    last, border = len(whole) - CLIP_SAMPLES, len(whole) // channels
    for crop in ("start", "center", last, min(border - 50_000, last)):
        got, start = audio.read_crop(data, "clip", SAMPLE_RATE, CLIP_SAMPLES, crop)
        expected, wanted = crop_clip(whole, CLIP_SAMPLES, crop)
        assert start == wanted and torch.equal(got, expected), crop
    drawn = audio.read_crop(data, "clip", SAMPLE_RATE, CLIP_SAMPLES, "random", random.Random(3))
    assert drawn[1] == random.Random(3).randrange(last)


def test_a_long_clip_takes_little_memory(tmp_path):
    """20 minutes in stereo: its float samples would take twice the file's size."""
    path = write(tmp_path / "long.wav", np.zeros((20 * 60 * 8000, 2), "int16"), 8000, "PCM_16")
    tracemalloc.start()
    try:
        read_clip(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size + 2**24


def test_a_clip_that_is_too_long():
    data = encode(np.zeros(7201 * 100, "int16"), 100, format="FLAC")
    with pytest.raises(AudioError, match="clip: is longer than 2 hours.*cut it"):
        audio.read_crop(data, "clip", SAMPLE_RATE, CLIP_SAMPLES)


# Finite samples, but no finite embedding.


def test_an_embedding_that_is_not_finite(tmp_path, tiny_pengi):
    """It names file and row, and no such embedding is kept; those before it are."""
    names = ["a.wav", "b.wav", "loud.wav", "c.wav"]
    for n, name in enumerate(names):
        write(tmp_path / name, samples(2000, seed=n) * (1e19 if name == "loud.wav" else 1))
    rows = "".join(f"{name},{'xy'[n % 2]}\n" for n, name in enumerate(names))
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text(f"path,classname\n{rows}")
    clips, cache = load_dataset(tmp_path).train, tmp_path / "cache"
    for _ in range(2):
        with pytest.raises(AudioError, match="embedding is not finite.*peak is .*e.18") as caught:
            embed(tiny_pengi, clips, cache=cache)
        assert str(caught.value).startswith(f"{tmp_path / 'loud.wav'}: ")
        assert f"(row 4 of {tmp_path / 'train.csv'})" in str(caught.value)
    embed(tiny_pengi, clips.iloc[:2], cache=cache)
    with TensorStore(cache, "embeddings", provenance(tiny_pengi, "random", 0)) as store:
        kept = [audio.file_digest(tmp_path / name) in store for name in names]
    assert kept[:3] == [True, True, False]


def test_a_kept_embedding_that_is_not_finite_is_computed_again(tmp_path):
    """An earlier version may have kept one."""
    path, cache = write(tmp_path / "clip.wav", samples(9000)), tmp_path / "cache"
    with TensorStore(cache, "embeddings", provenance(Toy(), "random", 0)) as store:
        poisoned = {"feature": np.full(4, np.nan, "float32"), "offset": np.array(0)}
        store.put(audio.file_digest(path), poisoned)
    assert embed(Toy(), [path], cache=cache).features.isfinite().all()


def test_a_long_clip_is_repeated_for_a_longer_crop():
    """70 seconds become 120 seconds; a clip over LONG_SECONDS is not kept in memory otherwise."""
    data = encode(samples(70 * 200), 200, format="WAV", subtype="PCM_16")
    crop, start = audio.read_crop(data, "clip.wav", 200, 120 * 200, "random")
    assert start == 0 and torch.equal(
        crop, audio.crop_clip(decode(data, "clip.wav", 200), 120 * 200)[0]
    )


def test_of_megabytes_of_zeros_behind_a_header_few_are_read():
    reads = []

    class File(io.BytesIO):
        def read(self, size=-1):
            reads.append(super().read(size))
            return reads[-1]

    assert check_container(File(b"RIFF\0\0\0\0WAVE" + bytes(2**26))) == ""
    assert len(reads) < 1.1 * MOST_CHUNKS and sum(map(len, reads)) < 2**20


def test_an_ffmpeg_that_cannot_be_run(tmp_path, monkeypatch):
    make_ffmpeg(tmp_path, "")
    (tmp_path / "ffmpeg").write_bytes(b"\x7fELF")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ffmpeg_version() == ""
    with pytest.raises(AudioError, match=r"clip.m4a: .*m4a.*ffmpeg cannot be run .*install ffmpeg"):
        decode(M4A, "clip.m4a")
