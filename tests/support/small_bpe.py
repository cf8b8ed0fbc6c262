"""A byte-level BPE for the small models of tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def train_bpe(
    folder: Path, corpus: Sequence[str], tokens: int, special: Sequence[str] = ()
) -> None:
    """Train it on a corpus; vocab.json and merges.txt are written.

    tokens: how many it has at most. special: the first ones, which stand for no text.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=tokens,
        special_tokens=[*special],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    bpe.model.save(str(folder))
