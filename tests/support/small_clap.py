"""A ClapModel with random weights at a small size, in a folder as `save_pretrained` writes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from small_bpe import train_bpe

CORPUS = ["This is a sound of a dog.", "low hum, high whistle, noise", "X X X X X X X X"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # ids 0 to 4, as RoBERTa has them
TOKENS = 300


def make_tokenizer(folder: Path):
    """A byte-level BPE that is trained on CORPUS, as a RobertaTokenizerFast."""
    from transformers import RobertaTokenizerFast

    train_bpe(folder, CORPUS, TOKENS, SPECIAL)
    return RobertaTokenizerFast.from_pretrained(str(folder))


def make_clap(seed=0, fusion=False):
    """A small ClapModel, the same in every version of the library: its weights are drawn here."""
    from transformers import ClapConfig, ClapModel

    audio = dict(depths=[2, 2], num_attention_heads=[2, 4], num_hidden_layers=2)
    audio |= dict(patch_embeds_hidden_size=16, hidden_size=32, enable_fusion=fusion)
    audio |= dict(fusion_type="aff_2d") if fusion else {}
    text = dict(vocab_size=TOKENS, hidden_size=24, num_hidden_layers=2, num_attention_heads=4)
    text |= dict(intermediate_size=48, max_position_embeddings=66)
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=32)
    with torch.random.fork_rng(devices=[]):
        model = ClapModel(config).eval()
    with torch.no_grad():
        draw_weights(model, torch.Generator().manual_seed(seed))
        center_audio(model, make_extractor(fusion))
    return model


def draw_weights(model, generator) -> None:
    """Weights that are larger than the library's initial ones, so that outputs depend on inputs."""
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            is_table = "embeddings" in name or "relative_position" in name
            gain = 2 if name.startswith("audio_model") else 1
            noise *= 0.5 if is_table else gain * parameter[0].numel() ** -0.5
        elif name.endswith("weight"):  # of a norm
            noise = 1 + 0.1 * noise
        else:
            noise *= 0.1
        parameter.copy_(noise)
    norm = model.audio_model.audio_encoder.batch_norm
    norm.running_mean.fill_(-40.0)  # near the mean and spread of a log-mel in dB
    norm.running_var.fill_(1000.0)
    model.logit_scale_a.fill_(3.0)  # unlike the initial value, and unlike the text's
    model.logit_scale_t.fill_(2.0)


def center_audio(model, extractor) -> None:
    """Take the mean of some tones' embeddings off, or all clips have nearly the same one."""
    rng, time = np.random.default_rng(0), np.arange(extractor.sampling_rate) / 48_000
    tones = [np.sin(2 * np.pi * 150 * 1.7**n * time) for n in range(8)]
    tones = [0.3 * tone + 0.03 * rng.normal(size=len(time)) for tone in tones]
    made = extractor(tones, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    longer = torch.zeros(len(tones), 1, dtype=torch.bool)
    hidden = model.audio_model(input_features=made["input_features"], is_longer=longer)
    mean = model.audio_projection(hidden.pooler_output).mean(0)
    model.audio_projection.linear2.bias.sub_(mean)


def make_extractor(fusion=False):
    from transformers import ClapFeatureExtractor

    return ClapFeatureExtractor(truncation="fusion" if fusion else "rand_trunc")


def save_clap(folder: Path, seed=0, fusion=False) -> Path:
    """A folder with a small ClapModel and its ClapProcessor."""
    from transformers import ClapProcessor

    tokenizer = make_tokenizer(folder / "vocabulary")
    model = folder / "small-clap"
    make_clap(seed, fusion).save_pretrained(model)
    ClapProcessor(feature_extractor=make_extractor(fusion), tokenizer=tokenizer).save_pretrained(
        model
    )
    return model
