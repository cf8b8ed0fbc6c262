"""What speed.py compares palmkit with: the same numbers from the straightforward computation.

Every prompt is padded to 40 tokens and encoded on its own: by CoOp every class, by CoCoOp every
class for every clip, one clip after the other as in the published code, and by PALM the class names
in every step. Audio goes through the STFT as convolution and Swin with timm's unfused attention.
Weights are read by the checkpoint's names, so no line of palmkit's forward is shared.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F

from palmkit.methods.coop import CoCoOp
from palmkit.methods.palm import PALM
from palmkit.models.checkpoint import HTSAT, MEL, STFT, TEXT, checkpoint_state


def projection(state, prefix, x):
    e1 = x @ state[prefix + "linear1.weight"].T
    e2 = F.gelu(e1) @ state[prefix + "linear2.weight"].T
    norm = prefix + "layer_norm."
    return F.normalize(
        F.layer_norm(e1 + e2, e1.shape[-1:], state[norm + "weight"], state[norm + "bias"]), dim=-1
    )


class Text:
    """CLIP's text transformer: embeddings [n, 40, width], end at eot [n] -> unit [n, dim]."""

    def __init__(self, state, heads, layers):
        self.state, self.heads, self.layers = state, heads, layers
        self.tokens = 0  # that went through the transformer so far

    def linear(self, name, x):
        return F.linear(
            x, self.state[f"{TEXT}base.{name}.weight"], self.state[f"{TEXT}base.{name}.bias"]
        )

    def norm(self, name, x):
        name = f"{TEXT}base.{name}"
        return F.layer_norm(
            x, x.shape[-1:], self.state[name + ".weight"], self.state[name + ".bias"]
        )

    def __call__(self, x, eot):
        self.tokens += x.shape[:-1].numel()
        x = x + self.state[TEXT + "base.embeddings.position_embedding.weight"][: x.shape[1]]
        for n in range(self.layers):
            layer = f"encoder.layers.{n}."
            y = self.norm(layer + "layer_norm1", x)
            q, k, v = (
                self.linear(f"{layer}self_attn.{part}_proj", y)
                .unflatten(-1, (self.heads, -1))
                .transpose(1, 2)
                for part in "qkv"
            )  # [n, heads, 40, d]
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.linear(layer + "self_attn.out_proj", y.transpose(1, 2).flatten(2))
            y = self.linear(layer + "mlp.fc1", self.norm(layer + "layer_norm2", x))
            x = x + self.linear(layer + "mlp.fc2", y * torch.sigmoid(1.702 * y))
        x = self.norm("final_layer_norm", x)[torch.arange(len(x), device=x.device), eot]
        return projection(
            self.state, TEXT + "projection.", x @ self.state[TEXT + "clip_text_projection.weight"].T
        )


class Learner:
    """Logits of a palmkit method, [b, dim] -> [b, classes], from the parameters that it holds."""

    def __init__(self, method):
        pengi = method.model
        self.method = method
        state = checkpoint_state(pengi.audio, pengi.text)
        self.text = Text(state, pengi.config["text"]["num_attention_heads"], len(pengi.text.layers))
        palm = isinstance(method, PALM)
        prompts = (
            method.class_names
            if palm
            else [f"{'X ' * len(method.context)}{name}." for name in method.class_names]
        )
        ids = pengi.tokenize(prompts)[0].to(pengi.device)
        self.eot = ids.argmax(1)
        self.embedded = state[TEXT + "base.embeddings.token_embedding.weight"][
            ids
        ]  # [c, 40, width]

    def with_context(self, context):
        """Text embeddings [c, dim] of <sot> context class . <eot>, every class on its own."""
        start, names = self.embedded[:, :1], self.embedded[:, 1 + len(context) :]
        return self.text(torch.cat([start, context.expand(len(names), -1, -1), names], 1), self.eot)

    def __call__(self, features):
        method = self.method
        audio = F.normalize(features.to(self.embedded.dtype), dim=-1)  # mini-PENGI's are float64
        if isinstance(method, CoCoOp):
            rows = [
                clip @ self.with_context(method.context + shift).T
                for clip, shift in zip(audio, method.meta_net(audio), strict=True)
            ]
            return 100 * torch.stack(rows)
        if isinstance(method, PALM):
            with torch.no_grad():
                f = self.text(self.embedded, self.eot)
            weight = torch.sigmoid(method.lambda_logits)[:, None]
            text = F.normalize((1 - weight) * f + weight * method.z, dim=-1)
        else:
            text = self.with_context(method.context)
        return 100 * audio @ text.T


class Audio:
    """PENGI's audio encoder in the published order: waveforms [n, samples] -> unit [n, dim]."""

    def __init__(self, pengi):
        self.state = checkpoint_state(pengi.audio, pengi.text)
        self.hop, self.size = pengi.config["audio"]["hop_size"], pengi.config["audio"]["spec_size"]
        self.trunk = copy.deepcopy(pengi.audio.trunk)
        for stage in self.trunk.layers:
            for block in stage.blocks:  # as timm leaves it
                block.attn.fused_attn = False

    def log_mel(self, waveforms):
        """[n, samples] -> [n, 1, frames, mel] in dB, by the checkpoint's convolution kernels."""
        kernels = [self.state[f"{STFT}conv_{part}.weight"] for part in ("real", "imag")]
        padded = F.pad(waveforms[:, None], (kernels[0].shape[2] // 2,) * 2, mode="reflect")
        real, imag = (
            F.conv1d(padded, kernel, stride=self.hop) for kernel in kernels
        )  # [n, bins, frames]
        power = (real**2 + imag**2).transpose(1, 2)[:, None]
        return 10 * torch.log10((power @ self.state[MEL]).clamp(min=1e-10))

    def image(self, x):
        parts = [
            self.state[f"{HTSAT}bn0.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        ]
        x = F.batch_norm(x.transpose(1, 3), *parts).transpose(1, 3)
        x = F.interpolate(x, (4 * self.size, x.shape[3]), mode="bicubic", align_corners=True)
        x = x.permute(0, 1, 3, 2).reshape(
            len(x), 1, x.shape[3], 4, self.size
        )  # [n, 1, mel, segment, frame]
        return x.permute(0, 1, 3, 2, 4).reshape(len(x), 1, self.size, self.size)

    def latent(self, image):
        return self.trunk.forward_features(image).flatten(1, 2).mean(1)

    def __call__(self, waveforms):
        latent = self.latent(self.image(self.log_mel(waveforms)))
        return projection(self.state, "audio_encoder.projection.", latent)
