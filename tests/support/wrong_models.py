"""A model on which every check of `check_encoder` is ok, and models with one fault each."""

from __future__ import annotations

import hashlib
import threading
import types

import torch
import torch.nn.functional as F
from torch import nn
from toy_models import BidirectionalModel

MOST_TOKENS = 50  # of a text


class RightModel(BidirectionalModel):
    """16 kHz, 1 s; a log spectrum as audio, a small transformer as text. Random weights."""

    name = "right"
    clip_seconds = 1.0
    dim = 16

    def build(self):
        super().build()
        self.spectrum = nn.Linear(129, self.dim)
        self.spectrum.register_buffer("mean", torch.full((129,), 0.1))
        del self.audio_layer, self.words

    def encode_audio(self, waveforms):
        n = waveforms.shape[1] if waveforms.ndim == 2 else 0
        if not 256 <= n <= 16_000:
            raise ValueError(f"encode_audio takes 256 to 16000 samples, not {n}")
        window = torch.hann_window(256)
        with torch.no_grad():
            frames = torch.stft(waveforms, 256, 128, window=window, return_complex=True)
            level = (frames.abs().square().mean(2) + 1e-9).log()  # [n, 129]
            shape = level - level.mean(1, keepdim=True) - self.spectrum.mean
            return F.normalize(self.spectrum(shape), dim=-1)

    def tokenize(self, prompts):
        ids, mask = super().tokenize(prompts)
        if ids.shape[1] > MOST_TOKENS:
            raise ValueError(f"{ids.shape[1]} tokens are too many: it takes {MOST_TOKENS}")
        return ids, mask

    def embed_tokens(self, ids):
        return self.tokens(ids)

    def encode_text(self, prompts):
        ids, mask = self.tokenize(prompts)
        with torch.no_grad():
            return F.normalize(self.encode(self.embed_tokens(ids), mask.sum(1)), dim=-1)


class NoPrompt(RightModel):
    prompt = "a sound"


class Fraction(RightModel):
    sample_rate = 16_000.0


class OddOptions(RightModel):
    channels = "left"
    defaults = {"learning_rate": 0.1}


class LogScale(RightModel):
    logit_scale = 3.0  # of exp(3) = 20


class HugeScale(RightModel):
    logit_scale = 1e39


class Array(RightModel):
    def encode_audio(self, waveforms):
        return super().encode_audio(waveforms).numpy()


class TooWide(RightModel):
    def encode_audio(self, waveforms):
        return F.pad(super().encode_audio(waveforms), (0, 1))


class NotFinite(RightModel):
    def encode_text(self, prompts):
        return super().encode_text(prompts) / 0


class Half(RightModel):
    def encode_audio(self, waveforms):
        return super().encode_audio(waveforms).half()


class OtherDevice(RightModel):
    def __init__(self):
        super().__init__()
        self.device = torch.device("cuda", 0)


class LongAudio(RightModel):
    def encode_audio(self, waveforms):
        return 3 * super().encode_audio(waveforms)


class LongText(RightModel):
    def encode_text(self, prompts):
        return super().encode_text(prompts) * 2.5


class AudioGradient(RightModel):
    def encode_audio(self, waveforms):
        return super().encode_audio(waveforms).requires_grad_()


class InferenceText(RightModel):
    def encode_text(self, prompts):
        with torch.inference_mode():
            return super().encode_text(prompts)


class Dropout(RightModel):
    def encode_audio(self, waveforms):
        return F.normalize(F.dropout(super().encode_audio(waveforms), 0.1), dim=-1)


class Seeded(RightModel):
    """Another crop for another global seed, though nothing is drawn."""

    def encode_audio(self, waveforms):
        return (
            super()
            .encode_audio(waveforms.roll(torch.initial_seed() % 7, 0))
            .roll(torch.initial_seed() % 5, 1)
        )


class Counting(RightModel):
    calls = 0

    def encode_text(self, prompts):
        self.calls += 1
        noise = torch.arange(self.dim) * 1e-3 * self.calls
        return F.normalize(super().encode_text(prompts) + noise, dim=-1)


class BatchMean(RightModel):
    def encode_audio(self, waveforms):
        found = super().encode_audio(waveforms)
        return F.normalize(found - 0.1 * found.mean(0), dim=-1)


class BatchPeak(RightModel):
    """Quiet clips vanish beside a loud one."""

    def encode_audio(self, waveforms):
        return super().encode_audio(waveforms / waveforms.abs().max().clamp(min=1e-3) + 1e-4)


class NoTextMask(RightModel):
    def encode_text(self, prompts):
        ids, mask = self.tokenize(prompts)
        with torch.no_grad():
            lengths = torch.full_like(mask.sum(1), mask.shape[1])
            return F.normalize(self.encode(self.embed_tokens(ids), lengths), dim=-1)


class Collapsed(RightModel):
    def encode_audio(self, waveforms):
        return F.normalize(super().encode_audio(waveforms) + 20, dim=-1)


class SilenceFails(RightModel):
    def encode_audio(self, waveforms):
        return super().encode_audio(waveforms / waveforms.abs().amax(1, keepdim=True))


class SilenceIsZero(RightModel):
    def encode_audio(self, waveforms):
        return super().encode_audio(waveforms) * (waveforms != 0).any(1, keepdim=True)


class FirstSecond(RightModel):
    """It looks at the first half only."""

    def encode_audio(self, waveforms):
        return super().encode_audio(waveforms[:, :8000])


class ShortIsNaN(RightModel):
    def encode_audio(self, waveforms):
        found = super().encode_audio(waveforms[:, :16_000])
        return found if waveforms.shape[1] == 16_000 else found / 0


class NoWords(RightModel):
    def encode_audio(self, waveforms):
        return super().encode_audio(waveforms.view(-1, 16_000))


class NoPitch(RightModel):
    """Only the level in each eighth of a clip counts, in steps of 5 dB."""

    def encode_audio(self, waveforms):
        eighths = waveforms[:, : waveforms.shape[1] // 8 * 8].unflatten(1, (8, -1))
        level = (2 * (eighths.square().mean(2) + 1e-7).log10()).round()  # [n, 8]
        with torch.no_grad():
            return F.normalize(self.spectrum(level.repeat(1, 17)[:, :129]), dim=-1)


class OtherRate(RightModel):
    """The extractor is made for 8 kHz, and takes 16 kHz as such."""

    def build(self):
        super().build()
        self.extractor = types.SimpleNamespace(sampling_rate=8000)


class HigherRate(RightModel):
    def build(self):
        super().build()
        self.config = {"sampling_rate": 48_000}


class LowBand(RightModel):
    """Nothing over 3.5 kHz counts, and nothing says why."""

    def encode_audio(self, waveforms):
        spectrum = torch.fft.rfft(waveforms)
        spectrum[:, spectrum.shape[1] * 7 // 16 :] = 0
        low = torch.fft.irfft(spectrum, waveforms.shape[1])
        # Fixed noise hides what is left of the window's slopes.
        noise = torch.randn(low.shape[1], generator=torch.Generator().manual_seed(0))
        return super().encode_audio(low + 0.01 * low.std(1, keepdim=True) * noise)


class Resampling(OtherRate):
    """The same, but it takes every second sample of what is low enough: this is right."""

    def encode_audio(self, waveforms):
        spectrum = torch.fft.rfft(waveforms)
        half = torch.fft.irfft(spectrum[:, : spectrum.shape[1] // 2 + 1]) / 2
        return super().encode_audio(half)


class Quiet(RightModel):
    def encode_audio(self, waveforms):
        found = super().encode_audio(waveforms)
        level = waveforms.square().mean(1, keepdim=True).sqrt()
        return F.normalize(found + 12 * level * torch.linspace(-1, 1, self.dim), dim=-1)


class OneText(RightModel):
    def encode_text(self, prompts):
        return super().encode_text(["sound" for _ in prompts])


class Spelling(RightModel):
    def encode_text(self, prompts):
        big = torch.tensor([[float(prompt != prompt.lower())] for prompt in prompts])
        return F.normalize(super().encode_text(prompts) + 0.1 * big, dim=-1)


class CutText(RightModel):
    def tokenize(self, prompts):
        ids, mask = BidirectionalModel.tokenize(self, prompts)
        return ids[:, :30], mask[:, :30]


class NoStart(RightModel):
    def tokenize(self, prompts):
        ids, mask = super().tokenize(prompts)
        return ids[:, 1:], mask[:, 1:]


class Positions(RightModel):
    """COOP's tokens have positions that encode_text does not give them."""

    def encode_embeddings(self, prefix, suffix, lengths):
        return super().encode_embeddings(prefix + self.positions.weight[7], suffix, lengths)


class NoTokenMask(RightModel):
    def encode_embeddings(self, prefix, suffix, lengths):
        return super().encode_embeddings(prefix, suffix, torch.full_like(lengths, suffix.shape[1]))


class OnePrefix(RightModel):
    def encode_embeddings(self, prefix, suffix, lengths):
        found = super().encode_embeddings(prefix[:1], suffix, lengths)
        return found.expand(len(prefix), -1, -1)


class Detached(RightModel):
    def encode_embeddings(self, prefix, suffix, lengths):
        return super().encode_embeddings(prefix.detach(), suffix, lengths)


class TwiceTheGradient(RightModel):
    def encode_embeddings(self, prefix, suffix, lengths):
        return super().encode_embeddings(2 * prefix - prefix.detach(), suffix, lengths)


class InPlace(RightModel):
    def encode_audio(self, waveforms):
        waveforms /= 2
        return super().encode_audio(waveforms)


class Seeding(RightModel):
    def encode_audio(self, waveforms):
        torch.manual_seed(0)
        return super().encode_audio(waveforms)


class Threads(RightModel):
    def encode_text(self, prompts):
        torch.set_num_threads(3)
        return super().encode_text(prompts)


class CountingDigest(RightModel):
    count = 0

    def digest(self):
        self.count += 1
        return f"{super().digest()}{self.count}"


class NewWeights(RightModel):
    """Drawn at random at each loading."""

    loaded = 0

    def __init__(self):
        super().__init__()
        type(self).loaded += 1
        self.head.bias.data += 0.01 * self.loaded


class NoBuffers(RightModel):
    def digest(self):
        named = [one for m in self.modules().values() for one in sorted(m.named_parameters())]
        return hashlib.sha256(b"".join(p.numpy().tobytes() for _, p in named)).hexdigest()


class FixedDigest(RightModel):
    def digest(self):
        return "right 1"


class RateNotHashed(RightModel):
    """The rate counts in encode_audio, and is not hashed."""

    def encode_audio(self, waveforms):
        return super().encode_audio(waveforms).roll(self.sample_rate // 16_000, 1)

    def digest(self):
        sha = hashlib.sha256()
        for _, module in sorted(self.modules().items()):
            for _, tensor in sorted(module.state_dict().items()):
                sha.update(tensor.numpy().tobytes())
        return sha.hexdigest()


class Locked(RightModel):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class LosesWeights(RightModel):
    def __setstate__(self, state):
        self.__dict__.update(state)
        self.head = nn.Linear(self.head.in_features, self.dim)


class LongPrompt(RightModel):
    prompt = "a sound " * 30 + "of {}"


class OtherProjection(RightModel):
    text_is_stochastic = False

    def text_latents(self, prompts):
        return super().encode_text(prompts)

    def project_text(self, latents):
        return latents.flip(1)


class SplitPlaceholder(RightModel):
    def tokenize(self, prompts):
        return super().tokenize([prompt.replace("X", "x y") for prompt in prompts])


class NotFrozen(RightModel):
    def __init__(self):
        super().__init__()
        self.head.requires_grad_(True)


class RunningCount(RightModel):
    def __init__(self):
        super().__init__()
        self.seen = torch.zeros(1)

    def encode_audio(self, waveforms):
        self.seen += len(waveforms)
        return super().encode_audio(waveforms)


class TrainMode(RightModel):
    def __init__(self):
        super().__init__()
        self.head.train()


class RaisesAlone(RightModel):
    def encode_audio(self, waveforms):
        if len(waveforms) == 1:
            raise IndexError("a batch of one")
        return super().encode_audio(waveforms)


class RaisesAlways(RightModel):
    def encode_text(self, prompts):
        raise SystemExit("usage: no model here")


class FiveFaults(RightModel):
    """Lengths, half of the clip, unmasked padding, a seed, and a digest without the text."""

    name = "five faults"

    def encode_audio(self, waveforms):
        torch.manual_seed(0)
        return 3 * super().encode_audio(waveforms[:, :8000])

    encode_text = NoTextMask.encode_text

    def digest(self):
        return hashlib.sha256(self.spectrum.weight.numpy().tobytes()).hexdigest()


# {model: ({check: its state}, words that it says)}: all that is not ok.
FAULTS = {
    NoPrompt: ({"members": "wrong"}, "prompt is 'a sound': use a text with {} for the class"),
    Fraction: ({"members": "wrong"}, "sample_rate is 16000.0: use a number over 0"),
    OddOptions: (
        {"members": "wrong"},
        "2 of the model's members: channels is 'left': use mix, join, or leave it out; "
        "defaults of the model 'right' has 'learning_rate'",
    ),
    LogScale: ({"logit scale": "remark"}, "is this log(scale)? Its exponential is 20.1"),
    Array: ({"audio embeddings": "wrong"}, "encode_audio returned float32 for 8 inputs"),
    TooWide: ({"audio embeddings": "wrong"}, "the shape [8, 17]"),
    NotFinite: ({"text embeddings": "wrong"}, "NaN or infinite values"),
    Half: ({"audio embeddings": "wrong"}, "torch.float16, with 3 digits or fewer"),
    OtherDevice: ({"device": "wrong"}, "device is cuda:0, but encode_audio answers on cpu"),
    LongAudio: ({"audio unit length": "wrong"}, "Lengths are from 3 to 3, not 1"),
    LongText: ({"text unit length": "wrong"}, "Lengths are from 2.5 to 2.5, not 1"),
    AudioGradient: ({"audio gradient": "wrong"}, "encode_audio returns requires a gradient"),
    InferenceText: ({"text gradient": "wrong"}, "encode_text returns is a tensor of inference"),
    Dropout: ({"audio repeated": "wrong", "process": "wrong"}, "dropout in train mode"),
    Seeded: ({"audio repeated": "wrong"}, "With other seeds of the global generators"),
    Counting: ({"text repeated": "wrong"}, "A call depends on the call before it"),
    BatchMean: ({"audio batches": "wrong"}, "differs from that in a batch of 8: alone by"),
    BatchPeak: ({"audio batches": "wrong"}, "beside a loud clip by"),
    NoTextMask: ({"text batches": "wrong"}, "Mask padding"),
    Collapsed: ({"sounds differ": "wrong"}, "All clips have nearly the same embedding"),
    SilenceFails: ({"silence, full scale": "wrong"}, "The embedding of silence has NaN"),
    SilenceIsZero: ({"silence, full scale": "remark"}, "The embedding of silence is 0"),
    FirstSecond: ({"whole clip": "wrong"}, "at 0.5 to 1 s moves the embedding by 0."),
    ShortIsNaN: ({"clip lengths": "wrong"}, "For 0.05 s encode_audio returned"),
    NoWords: ({"clip lengths": "remark"}, "It fails without words for 0.05 s: RuntimeError"),
    NoPitch: (
        {"sounds differ": "remark", "sample rate": "wrong", "PALM": "remark"},
        "has the same embedding",
    ),
    OtherRate: ({"sample rate": "wrong"}, "but model.extractor.sampling_rate is 8000"),
    HigherRate: ({"sample rate": "remark"}, "but model.config.sampling_rate is 48000"),
    LowBand: ({"sample rate": "remark"}, "Was it trained at 7200 Hz or less?"),
    Quiet: ({"volume": "remark"}, "Quiet and loud recordings of one class differ"),
    OneText: ({"texts differ": "wrong"}, "28 of 28 pairs of names have the same embedding"),
    Spelling: ({"spelling": "remark"}, "'dog' and 'Dog' by"),
    CutText: ({"long texts": "wrong"}, "The last of 40 words does not count"),
    NoStart: ({"token ids": "wrong"}, "so special_tokens[0] is not 1"),
    Positions: ({"token text": "wrong"}, "is not encode_text of it"),
    NoTokenMask: ({"token padding": "wrong"}, "counts: other values in the padding differs by"),
    OnePrefix: ({"token batches": "wrong"}, "Prefixes or classes are mixed up"),
    Detached: ({"token gradients": "wrong"}, "no gradient for prefix"),
    TwiceTheGradient: ({"token gradients": "wrong"}, "in the prefix (2 % is allowed)"),
    InPlace: ({"inputs": "wrong"}, "encode_audio changes its waveforms"),
    Seeding: ({"process": "wrong"}, "encode_audio draws from or seeds the global generator of"),
    Threads: ({"process": "wrong"}, "torch's number of threads from"),
    CountingDigest: ({"digest": "wrong"}, "for one model"),
    NewWeights: ({"digest": "wrong"}, "Loaded a second time its digest is"),
    NoBuffers: ({"digest covers": "wrong"}, "spectrum.mean (digest)"),
    FixedDigest: ({"digest covers": "wrong"}, "tokens.weight (digest)"),
    RateNotHashed: ({"digest covers": "wrong"}, "sample_rate (digest)"),
    Locked: ({"pickling": "wrong"}, "cannot be copied through pickle"),
    LosesWeights: ({"pickling": "wrong"}, "A copy through pickle gives embeddings that differ"),
    LongPrompt: ({"zero-shot": "wrong"}, "tokens are too many: it takes 50"),
    OtherProjection: ({"PALM": "wrong"}, "project_text of text_latents differs"),
    SplitPlaceholder: ({"token ids": "remark", "COOP": "wrong"}, "one token for the word X"),
    NotFrozen: ({"frozen": "wrong"}, "2 of 19 tensors require a gradient: head.weight"),
    RunningCount: ({"frozen": "wrong"}, "The weights are not as they were"),
    TrainMode: ({"frozen": "remark"}, "1 modules are in train mode: head"),
    RaisesAlone: (
        {"audio batches": "wrong", "clip lengths": "remark"},
        "IndexError: a batch of one",
    ),
    RaisesAlways: ({"text embeddings": "wrong"}, "SystemExit: usage: no model here"),
}
FIVE = ("audio unit length", "text batches", "whole clip", "process", "digest covers")
MODELS = {"right": RightModel, "five": FiveFaults}
