"""GPT-2 as a text encoder: its transformer in the two pieces of `TextEncoder`, and its byte-pair
encoding as MS-CLAP 2023 uses it."""

from __future__ import annotations

import json
from pathlib import Path

import torch.nn.functional as F
from torch import nn

from palmkit.extras import extra
from palmkit.models.checkpoint import CheckpointError
from palmkit.models.encoders import TextBlock, TextEncoder

END = "<|endoftext|>"
PAD = "!"  # token 0: MS-CLAP made an ordinary token of GPT-2 its padding
VOCABULARY_FILE, MERGES_FILE, WHOLE_FILE = "vocab.json", "merges.txt", "tokenizer.json"
WHERE = (
    f"put {VOCABULARY_FILE} and {MERGES_FILE} of GPT-2 there (repository openai-community/gpt2 of "
    f"the Hugging Face hub), or its {WHOLE_FILE}"
)


class Gpt2Block(TextBlock):
    """One block of GPT-2. The activation is all that sets it apart from CLIP's."""

    @staticmethod
    def activation(y):
        return F.gelu(y, approximate="tanh")


class Gpt2Encoder(TextEncoder):
    """GPT-2 and a Projection right after its last LayerNorm."""

    block = Gpt2Block

    def __init__(self, *, vocabulary, width, **settings):
        super().__init__(width=width, clip_dim=width, **settings)
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.clip_text_projection = nn.Identity()


class Gpt2Tokenizer:
    """Text -> GPT-2's token ids. `<|endoftext|>` and "!" are always tokens of their own.

    It pickles as its vocabulary and merges, and needs `palmkit[clap]`.
    """

    def __init__(self, vocabulary: dict[str, int], merges: list[tuple[str, str]]):
        """Raises CheckpointError if this is not a vocabulary like GPT-2's."""
        with extra("clap"):
            from tokenizers import Tokenizer, models, pre_tokenizers
        self.vocabulary, self.merges = vocabulary, merges
        if problem := find_problem(vocabulary, pre_tokenizers.ByteLevel.alphabet()):
            raise CheckpointError(f"the tokenizer {problem}: it is not GPT-2's")
        try:
            self._bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        except Exception as error:  # the library raises bare ones
            raise CheckpointError(f"the tokenizer's merges are not of it: {error}") from error
        self._bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._bpe.add_special_tokens([END, PAD])

    def __reduce__(self):
        return Gpt2Tokenizer, (self.vocabulary, self.merges)

    def __len__(self) -> int:
        return len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        return self._bpe.encode(text).ids


def find_problem(vocabulary: dict[str, int], alphabet: list[str]) -> str:
    """Why a vocabulary cannot be GPT-2's; "" if it can."""
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        return f"does not number its {len(vocabulary)} tokens from 0 on"
    if vocabulary.get(PAD) != 0:
        return f"has {PAD!r} as token {vocabulary.get(PAD)}, not as token 0"
    if missing := sorted({END, *alphabet} - set(vocabulary)):
        return f"lacks {', '.join(missing[:5])}"
    return ""


def read_tokenizer(folder: Path) -> Gpt2Tokenizer:
    """The tokenizer of `vocab.json` and `merges.txt`, or else of `tokenizer.json`, in a folder.

    Raises CheckpointError if they are missing or not as expected.
    """
    files = [folder / VOCABULARY_FILE, folder / MERGES_FILE]
    try:
        if all(file.is_file() for file in files):
            vocabulary = json.loads(files[0].read_text(encoding="utf-8"))
            merges = read_merges(files[1].read_text(encoding="utf-8"))
        elif (folder / WHOLE_FILE).is_file():
            vocabulary, merges = read_whole(folder / WHOLE_FILE)
        else:
            missing = " and ".join(file.name for file in files if not file.is_file())
            raise CheckpointError(f"{folder.name}: {missing} of the tokenizer is missing: {WHERE}")
        check_types(vocabulary, merges)
    except CheckpointError:
        raise
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder.name}: the files of the tokenizer cannot be read ({error}): {WHERE}"
        ) from error
    return Gpt2Tokenizer(vocabulary, merges)


def read_merges(text: str) -> list[tuple[str, ...]]:
    """Pairs of tokens, one a line; the first line may be a comment."""
    lines = text.splitlines()
    first = 1 if lines and lines[0].startswith("#version") else 0
    return [tuple(line.split(" ")) for line in lines[first:] if line]


def read_whole(path: Path) -> tuple[dict, list[tuple[str, ...]]]:
    """Vocabulary and merges of a `tokenizer.json`. Its other rules are not read."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    model = whole["model"]
    added = {token["content"]: token["id"] for token in whole.get("added_tokens", [])}
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    return model["vocab"] | added, [tuple(pair) for pair in pairs]


def check_types(vocabulary, merges) -> None:
    """Raise ValueError for a vocabulary or merges of another type than the tokenizer takes."""
    if not isinstance(vocabulary, dict) or {type(n) for n in vocabulary.values()} - {int}:
        raise ValueError("the vocabulary is no dict of tokens and their numbers")
    for pair in merges:
        if len(pair) != 2 or not all(isinstance(token, str) for token in pair):
            raise ValueError(f"{pair!r:.80} is no merge of two tokens")
