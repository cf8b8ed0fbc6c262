"""Checks of what a text encoder reads."""

from __future__ import annotations

from palmkit.encoder_check.audio import COLLAPSED, is_in_words
from palmkit.encoder_check.embeddings import name_some
from palmkit.encoder_check.report import ok, remark, tiny, wrong
from palmkit.encoder_check.subject import SAME, TEXTS, Subject, distance, mean_cosine

LENGTHS = (10, 20, 40, 80, 200, 600)  # words
CUT = 1e-6  # the last of 600 words moves a mean of 600 by more; what is cut off, by nothing
SPELLINGS = (("dog", "Dog"), ("dog", " dog"), ("church bells", "church  bells"), ("rain", "RAIN"))


def check_different_texts(subject: Subject):
    cosine = mean_cosine(subject.texts)
    cosines = subject.texts @ subject.texts.T
    pairs = [
        f"{TEXTS[b]!r} and {TEXTS[a]!r}"
        for a in range(len(cosines))
        for b in range(a)
        if (subject.texts[a] - subject.texts[b]).norm() <= 10 * SAME
    ]
    if pairs or cosine > COLLAPSED:
        same = f"{len(pairs)} of {len(TEXTS) * (len(TEXTS) - 1) // 2} pairs of names have the same"
        return wrong(
            f"{same} embedding ({name_some(pairs)})." if pairs
            else f"The mean cosine of {len(TEXTS)} class names is {cosine:.5f}.",
            "Zero-shot cannot tell these classes apart, and trained methods start at chance.",
            "Does the tokenizer know the words, and does the embedding depend on all tokens?",
        )  # fmt: skip
    return ok(f"The mean cosine of {len(TEXTS)} class names is {cosine:.2f}.")


def check_spellings(subject: Subject):
    plain = subject.embed_text([pair[0] for pair in SPELLINGS])
    other = subject.embed_text([pair[1] for pair in SPELLINGS])
    moved = (plain - other).norm(dim=-1).tolist()
    odd = [
        f"{pair[0]!r} and {pair[1]!r} by {one:.2g}"
        for pair, one in zip(SPELLINGS, moved, strict=True)
        if one > SAME
    ]
    if odd:
        return remark(
            f"Spellings count: {', '.join(odd)}.",
            "Class names that differ in case or spaces from the training captions may do worse.",
        )
    return ok("Case and spaces do not count.")


def check_long_texts(subject: Subject):
    """Texts that differ in their last word only: encoded whole, or refused."""
    taken = 0
    for words in LENGTHS:
        start = " ".join(TEXTS[n % len(TEXTS)].split()[-1] for n in range(words - 1))
        try:
            pair = subject.embed_text([f"{start} thunder", f"{start} violin"])
        except Exception as error:  # whatever a user's code raises
            return judge_refusal(error, words, taken)
        moved = distance(pair[0], pair[1])
        if moved <= CUT:
            return wrong(
                f"The last of {words} words does not count (it moves the embedding by "
                f"{tiny(moved)}): longer texts are cut without a word.",
                "Long class names and prompts that differ only at their end become one class.",
                "Raise ValueError that says how many tokens the model takes.",
            )
        taken = words
    return ok(f"Texts of {taken} words are encoded whole.")


def judge_refusal(error: Exception, words: int, taken: int):
    lines = str(error).strip().splitlines() or ["without a message"]
    reason = f"{type(error).__name__}: {lines[0]:.150}"
    encoded = f"{taken} words are encoded whole" if taken else "10 words are too many"
    if is_in_words(error):
        return ok(f"{encoded}; {words} are refused in words ({reason}).")
    return remark(
        f"{encoded}; {words} fail without words ({reason}).",
        "A run with a long class name stops, and does not say why.",
        "Raise ValueError that says how many tokens the model takes.",
    )
