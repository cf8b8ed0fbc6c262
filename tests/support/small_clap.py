"""A ClapModel with random weights at a small size, in a folder as `save_pretrained` writes it."""

from __future__ import annotations

from pathlib import Path

import torch

CORPUS = ["This is a sound of a dog.", "low hum, high whistle, noise", "X X X X X X X X"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # ids 0 to 4, as RoBERTa has them
TOKENS = 300


def make_tokenizer(folder: Path):
    """A byte-level BPE that is trained on CORPUS, as a RobertaTokenizerFast."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import RobertaTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(CORPUS, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    bpe.model.save(str(folder))
    return RobertaTokenizerFast.from_pretrained(str(folder))


def make_clap(seed=0, fusion=False, dim=32, text: dict | None = None):
    """A small ClapModel. Its weights are larger than the library's initial ones, so that outputs
    depend on inputs and not only on biases."""
    from transformers import ClapConfig, ClapModel

    audio = dict(
        depths=[2, 2], num_attention_heads=[2, 4], num_hidden_layers=2, patch_embeds_hidden_size=16
    )
    audio |= dict(hidden_size=32, enable_fusion=fusion)
    audio |= dict(fusion_type="aff_2d") if fusion else {}
    text = dict(
        vocab_size=TOKENS,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=66,
    ) | (text or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=dim))
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, torch.nn.Linear):
                    module.weight.normal_(std=module.in_features**-0.5)
                    if module.bias is not None:
                        module.bias.normal_(std=0.1)
                if isinstance(module, torch.nn.Embedding):
                    module.weight.normal_(std=0.5)
            norm = model.audio_model.audio_encoder.batch_norm
            norm.running_mean.fill_(-30.0)  # near the mean and spread of a log-mel in dB
            norm.running_var.fill_(400.0)
            model.logit_scale_a.fill_(3.0)  # unlike the initial value, and unlike the text's
    return model.eval()


def save_clap(folder: Path, seed=0, fusion=False, **settings) -> Path:
    """A folder with a small ClapModel and its ClapProcessor."""
    from transformers import ClapFeatureExtractor, ClapProcessor

    tokenizer = make_tokenizer(folder / "vocabulary")
    extractor = ClapFeatureExtractor(truncation="fusion" if fusion else "rand_trunc")
    model = folder / "small-clap"
    make_clap(seed, fusion, **settings).save_pretrained(model)
    ClapProcessor(feature_extractor=extractor, tokenizer=tokenizer).save_pretrained(model)
    return model
