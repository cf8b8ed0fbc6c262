"""PENGI's two encoders: HTS-AT for audio, CLIP's text transformer, each with PENGI's projection.

Swin is timm's and the byte-pair encoding is open_clip's. The text transformer is written out
because prompt learning needs it in two pieces: a prefix that runs once, and the class names after
it.
"""

from __future__ import annotations

import functools
import unicodedata

import torch
import torch.nn.functional as F
from torch import nn

from palmkit.models.prompt_checks import check_length, check_prompts

VOCABULARY = 49_408
EOT = 49_407  # <|endoftext|>, which is also the padding


class Projection(nn.Module):
    """LayerNorm(e1 + dropout(W2 gelu(e1))) with e1 = W1 x. [..., d_in] -> [..., d_out]."""

    def __init__(self, d_in: int, d_out: int, dropout: float = 0.5):
        super().__init__()
        self.linear1 = nn.Linear(d_in, d_out, bias=False)
        self.linear2 = nn.Linear(d_out, d_out, bias=False)
        self.layer_norm = nn.LayerNorm(d_out)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        e1 = self.linear1(x)
        return self.layer_norm(e1 + self.dropout(self.linear2(F.gelu(e1))))


class AudioEncoder(nn.Module):
    """HTS-AT in stages: waveform -> log_mel -> image -> pooled -> projection."""

    def __init__(
        self,
        *,
        n_fft,
        mel_bins,
        hop_size,
        log_amin,
        bn_eps,
        bn_momentum,
        spec_size,
        d_proj,
        dropout,
        **swin,
    ):
        super().__init__()
        # Imported late, as open_clip below: a process without PENGI starts in half of the time.
        from timm.models.swin_transformer import SwinTransformer

        self.hop_size, self.log_amin, self.spec_size = hop_size, log_amin, spec_size
        self.segments = spec_size // mel_bins
        self.register_buffer("window", torch.zeros(n_fft))
        self.register_buffer("mel", torch.zeros(n_fft // 2 + 1, mel_bins))
        self.bn0 = nn.BatchNorm2d(mel_bins, eps=bn_eps, momentum=bn_momentum)
        self.trunk = SwinTransformer(
            img_size=spec_size, in_chans=1, num_classes=0, global_pool="", **swin
        )
        for stage in self.trunk.layers:
            for (
                block
            ) in stage.blocks:  # timm does not fuse window attention by default: a quarter slower
                block.attn.fused_attn = True
        self.projection = Projection(self.trunk.num_features, d_proj, dropout)

    def log_mel(self, waveforms):
        """[n, samples] -> [n, frames, mel] in dB.

        An FFT gives what the checkpoint's convolution kernels give. It runs in double precision
        where the device has it: in float32 it is off by 0.03 dB in faint bands beside loud ones.
        """
        power = torch.cat(
            [self.power(part) for part in self.chunks(waveforms, 1)]
        )  # [n, bins, frames]
        return 10 * torch.log10((power.transpose(1, 2) @ self.mel).clamp(min=self.log_amin))

    def power(self, waveforms):
        precise = waveforms if waveforms.device.type == "mps" else waveforms.double()
        window = self.window.to(precise.dtype)
        spectrum = torch.stft(
            precise,
            len(window),
            self.hop_size,
            window=window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        return (spectrum.real.square() + spectrum.imag.square()).to(self.mel.dtype)

    @staticmethod
    def chunks(x, clips: int):
        """On a CPU x in chunks of a few clips, for its cache holds no more; elsewhere x whole."""
        return x.split(clips if x.device.type == "cpu" else max(len(x), 1))

    def image(self, log_mel, augment=None):
        """[n, frames, mel] -> [n, 1, size, size].

        bn0 per mel band; time is stretched to `size * segments` frames; segments are stacked.
        augment: a function of bn0's result, [n, mel, frames, 1] (the published SpecAugment).
        """
        frames = self.spec_size * self.segments
        if log_mel.shape[1] > frames:
            raise ValueError(
                f"{log_mel.shape[1]} frames do not fit into {frames}: the waveforms are too long"
            )
        x = self.bn0(log_mel.transpose(1, 2)[..., None])  # [n, mel, frames, 1]
        x = x if augment is None else augment(x)
        x = x.permute(0, 3, 2, 1)  # [n, 1, frames, mel]
        if x.shape[2] < frames:
            x = F.interpolate(x, (frames, x.shape[3]), mode="bicubic", align_corners=True)
        x = x.reshape(len(x), self.segments, self.spec_size, -1)  # [n, segment, frame, mel]
        return x.transpose(2, 3).reshape(
            len(x), 1, -1, self.spec_size
        )  # row = segment * mel_bins + mel

    def pooled(self, image):
        """[n, 1, size, size] -> [n, 768]: Swin's last map, averaged over positions."""
        return self.trunk.forward_features(image).mean((1, 2))

    def forward(self, waveforms):
        return self.projection(self.pooled(self.image(self.log_mel(waveforms))))


class TextBlock(nn.Module):
    """One pre-LayerNorm block of CLIP. A query attends to the prefix and to what precedes it."""

    def __init__(self, width: int, heads: int, hidden: int, eps: float):
        super().__init__()
        self.heads = heads
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(width, width) for _ in range(4)
        )
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    @staticmethod
    def activation(y):
        return y * torch.sigmoid(1.702 * y)  # QuickGELU

    def split(self, y):
        """[b, c, s, width] -> [b, c, heads, s, d]."""
        return y.unflatten(3, (self.heads, -1)).transpose(2, 3)

    def keys_and_values(self, x):
        """Keys and values of x [b, c, s, width], both [b, c, heads, s, d]."""
        y = self.layer_norm1(x)
        return self.split(self.k_proj(y)), self.split(self.v_proj(y))

    def forward(self, x, prefix=None, at=None):
        """x [b, c, s, width] -> the new x, and keys and values of the x that was given.

        prefix: keys and values [b, heads, p, d] of what stands in front of x. The c sequences of
            one b share it, so it is never copied: its scores are one product with all queries,
            joined with the sequence's scores before the softmax. The result is exact.
        at: [c] positions; only the new x there is computed, [b, c, 1, width].
        """
        k, v = self.keys_and_values(x)
        future = torch.ones(x.shape[2], x.shape[2], dtype=torch.bool, device=x.device).triu(1)
        if at is not None:
            x = x[:, torch.arange(len(at), device=x.device), at][:, :, None]
            future = future[at][:, None, None]
        q = self.split(self.q_proj(self.layer_norm1(x)))
        q = q * q.shape[-1] ** -0.5  # [b, c, heads, q, d]
        scores = (q @ k.transpose(-1, -2)).masked_fill(future, float("-inf"))  # [b, c, heads, q, s]
        if prefix is None:
            out = scores.softmax(-1) @ v
        else:
            keys, values = prefix
            p, queries = keys.shape[2], (x.shape[1], x.shape[2])
            flat = q.transpose(1, 2).flatten(2, 3) @ keys.transpose(-1, -2)  # [b, heads, c * q, p]
            before = flat.unflatten(2, queries).transpose(1, 2)  # [b, c, heads, q, p]
            weights = torch.cat([before, scores], -1).softmax(-1)
            shared = weights[..., :p].transpose(1, 2).flatten(2, 3) @ values  # [b, heads, c * q, d]
            out = weights[..., p:] @ v + shared.unflatten(2, queries).transpose(1, 2)
        x = x + self.out_proj(out.transpose(2, 3).flatten(3))
        return x + self.fc2(self.activation(self.fc1(self.layer_norm2(x)))), (k, v)


class TextEncoder(nn.Module):
    """CLIP's text transformer and PENGI's projection, without padding.

    The mask is causal. So nothing after `<|endoftext|>` matters, and a shared prefix is the same
    for every class.
    """

    block = TextBlock

    def __init__(
        self, *, width, heads, layers, hidden, positions, clip_dim, d_proj, eps, dropout, max_tokens
    ):
        super().__init__()
        self.max_tokens = max_tokens
        self.token_embedding = nn.Embedding(VOCABULARY, width)
        self.position_embedding = nn.Embedding(positions, width)
        self.layers = nn.ModuleList(self.block(width, heads, hidden, eps) for _ in range(layers))
        self.final_layer_norm = nn.LayerNorm(width, eps)
        self.clip_text_projection = nn.Linear(width, clip_dim, bias=False)
        self.projection = Projection(clip_dim, d_proj, dropout)

    @property
    def width(self) -> int:
        return self.token_embedding.embedding_dim

    def prefix(self, x):
        """Token embeddings [b, p, width] -> each layer's keys and values [b, heads, p, d]."""
        x = (x + self.position_embedding.weight[: x.shape[1]])[:, None]
        keys_and_values = []
        for layer in self.layers[:-1]:
            x, (k, v) = layer(x)
            keys_and_values.append((k[:, 0], v[:, 0]))
        k, v = self.layers[-1].keys_and_values(x)  # nothing else of the last layer is used
        return [*keys_and_values, (k[:, 0], v[:, 0])]

    def encode_suffix(self, x, eot, prefix=None):
        """Token embeddings [b, c, s, width] after a prefix -> [b, c, d_proj].

        eot [c]: positions of `<|endoftext|>`. prefix: what `prefix` returns.
        """
        return self.projection(self.suffix_latents(x, eot, prefix))

    def suffix_latents(self, x, eot, prefix=None):
        """The same up to the projection: [b, c, clip_dim]."""
        start = 0 if prefix is None else prefix[0][0].shape[2]
        prefixes = [None] * len(self.layers) if prefix is None else prefix
        x = x + self.position_embedding.weight[start : start + x.shape[2]]
        for layer, before in zip(self.layers[:-1], prefixes, strict=False):
            x, _ = layer(x, before)
        x, _ = self.layers[-1](
            x, prefixes[-1], at=eot
        )  # of the last layer, only what stands at <|endoftext|>
        return self.clip_text_projection(self.final_layer_norm(x[:, :, 0]))

    def pooled(self, ids, mask):
        """Ids and mask [n, 40] of `tokenize` -> what goes into the projection, [n, clip_dim]."""
        length = mask.sum(1)
        return self.suffix_latents(
            self.token_embedding(ids[:, : int(length.max())])[None], length - 1
        )[0]

    def forward(self, ids, mask):
        """Ids and mask [n, 40] of `tokenize` -> [n, d_proj], not normalised."""
        return self.projection(self.pooled(ids, mask))


@functools.cache
def _bpe():
    from open_clip import SimpleTokenizer

    bpe = SimpleTokenizer()
    # The published tokenizer normalises and lower-cases; open_clip's default does more.
    bpe.clean_fn = lambda text: " ".join(unicodedata.normalize("NFC", text).split()).lower()
    return bpe


def tokenize(prompts: list[str], max_tokens: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """CLIP's token ids and mask of each prompt, both [n, max_tokens] int64.

    Padding is `<|endoftext|>` with mask 0.
    Raises ValueError for a prompt that does not fit: the published code does not truncate either.
    """
    check_prompts(prompts)
    bpe = _bpe()
    ids = torch.full((len(prompts), max_tokens), EOT)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        tokens = [bpe.sot_token_id, *bpe.encode(prompt), EOT]
        check_length(prompt, len(tokens), max_tokens)
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return ids, mask
