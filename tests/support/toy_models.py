"""Two audio-text models that are deliberately unlike PENGI: random weights, other sizes."""

from __future__ import annotations

import hashlib
import zlib

import torch
import torch.nn.functional as F
from torch import nn

WIDTH = 24
START, END, PAD = 0, 1, 2
WORDS = 997  # the vocabulary: a word's id is its checksum modulo this


class WordModel:
    """16 kHz, clips of 4 s, 48 dimensions; a bag of words as text, no token-level text."""

    name = "words"
    sample_rate = 16_000
    clip_seconds = 4.0
    dim = 48
    logit_scale = 20.0
    prompt = "a sound of {}"
    dtype = torch.float32
    note = "random weights"

    def __init__(self, device="cpu"):
        self.device = torch.device("cpu" if device == "auto" else device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.audio_layer = nn.Linear(400, self.dim)
            self.words = nn.Embedding(WORDS, self.dim)
            self.build()
        for module in self.modules().values():
            module.to(self.device).eval().requires_grad_(False)

    def build(self):
        """What a subclass adds."""

    def modules(self) -> dict[str, nn.Module]:
        return {key: value for key, value in vars(self).items() if isinstance(value, nn.Module)}

    def encode_audio(self, waveforms):
        samples = int(self.sample_rate * self.clip_seconds)
        assert waveforms.shape[1:] == (samples,), "a clip of another length was handed out"
        frames = torch.as_tensor(waveforms).to(self.device).unflatten(1, (-1, 400))
        with torch.no_grad():
            spectrum = frames.abs().sort(-1).values.mean(1)  # [n, 400]
            return F.normalize(self.audio_layer(spectrum.float()), dim=-1)

    def encode_text(self, prompts):
        rows = [self.words(torch.tensor(word_ids(p), device=self.device)).mean(0) for p in prompts]
        return F.normalize(torch.stack(rows), dim=-1)

    def digest(self):
        sha = hashlib.sha256(f"{self.name} {self.sample_rate} {self.clip_seconds}".encode())
        for key, module in sorted(self.modules().items()):
            for name, tensor in sorted(module.state_dict().items()):
                sha.update(f"{key}.{name}".encode() + tensor.cpu().numpy().tobytes())
        return sha.hexdigest()


class BidirectionalModel(WordModel):
    """The same sizes with a small transformer as text encoder.

    Every token sees every other one, and the embedding is the mean of all tokens. So a prefix
    cannot run once for all classes.
    """

    name = "bidirectional"
    text_width = WIDTH

    def build(self):
        self.tokens = nn.Embedding(WORDS, WIDTH)
        self.positions = nn.Embedding(64, WIDTH)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 4, 32, 0.0, batch_first=True)
        self.head = nn.Linear(WIDTH, self.dim)

    def tokenize(self, prompts):
        rows = [[START, *word_ids(prompt), END] for prompt in prompts]
        ids = torch.full((len(rows), max(map(len, rows))), PAD)
        mask = torch.zeros_like(ids)
        for n, row in enumerate(rows):
            ids[n, : len(row)] = torch.tensor(row)
            mask[n, : len(row)] = 1
        return ids, mask

    def embed_tokens(self, ids):
        return self.tokens(ids.to(self.device))

    def encode_embeddings(self, prefix, suffix, lengths):
        b, p, c, s = len(prefix), prefix.shape[1], len(suffix), suffix.shape[1]
        x = torch.cat(
            [prefix[:, None].expand(b, c, p, -1), suffix[None].expand(b, c, s, -1)], 2
        ).flatten(0, 1)  # [b * c, p + s, width]
        lengths = (p + lengths).repeat(b)
        return self.encode(x, lengths).unflatten(0, (b, c))

    def encode(self, x, lengths):
        """Token embeddings [n, tokens, width], of which `lengths` [n] are true -> [n, dim]."""
        padding = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]
        x = self.layer(x + self.positions.weight[: x.shape[1]], src_key_padding_mask=padding)
        true = (~padding)[..., None]
        return self.head((x * true).sum(1) / lengths[:, None])

    def encode_text(self, prompts):
        ids, mask = self.tokenize(prompts)
        with torch.no_grad():
            text = self.encode(self.embed_tokens(ids), mask.sum(1).to(self.device))
        return F.normalize(text, dim=-1)


def word_ids(prompt: str) -> list[int]:
    """A word's id is its checksum; a full stop is a word."""
    words = prompt.lower().replace(".", " .").split()
    return [3 + zlib.crc32(word.encode()) % (WORDS - 3) for word in words]


MODELS = {"words": WordModel, "bidirectional": BidirectionalModel}
