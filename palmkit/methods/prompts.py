"""The tokens of prompts: what stands before the class name, and the class name itself."""

from __future__ import annotations

import torch

from palmkit.models.base import count_special_tokens


def embed_prompt(model) -> torch.Tensor:
    """Token embeddings [n, text_width] of what stands before the class name in the model's prompt.

    Raises ValueError if nothing stands there.
    """
    # Without the space at its end, which some tokenizers take as the start of the next word.
    before = model.prompt.partition("{}")[0].rstrip()
    ids, mask = model.tokenize([before])
    front, behind = count_special_tokens(model)
    words = ids[:, front : int(mask.sum()) - behind]
    if not words.numel():
        raise ValueError(f"init='text': nothing stands before {{}} in the prompt {model.prompt!r}")
    return model.embed_tokens(words)[0].clone()


def tokenize_suffixes(model, class_names, context_length: int):
    """Ids [c, front + context_length + s] of "X X .. X name.", one X for each context vector, and
    how many of the last s tokens are not padding, [c]: the class name, the full stop and <end>."""
    front, behind = count_special_tokens(model)
    first = front + context_length  # of the class name's tokens
    context = ["X"] * context_length
    ids, mask = model.tokenize([" ".join([*context, f"{name}."]) for name in class_names])
    placeholders = ids[:, front:first]
    # Alone, they are as many tokens and the same ones. The first may be unlike the others: some
    # tokenizers tell the start of a text from a space.
    alone, alone_mask = model.tokenize([" ".join(context)])
    is_one_each = int(alone_mask.sum()) == first + behind
    if not is_one_each or not (placeholders == alone[:, front:first]).all():
        raise ValueError(
            f"the tokenizer of {model.name} must have one token for the word X, and {front} in "
            f"front of a text and {behind} behind it (`special_tokens` of the model)"
        )
    lengths = mask.sum(1) - first
    ids = ids[:, : first + int(lengths.max())]
    return ids.to(model.device), lengths.to(model.device)
