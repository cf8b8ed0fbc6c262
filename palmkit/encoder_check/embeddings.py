"""Checks that audio and text embeddings share: form, length, gradient, repetition, batches."""

from __future__ import annotations

import torch

from palmkit.encoder_check.report import ok, remark, tiny, wrong
from palmkit.encoder_check.subject import SAME, TEXTS, Subject, distance, seed_all
from palmkit.models.check import UNIT_TOLERANCE, find_fault

SHOWN = 3  # of many items in a sentence


def embed(subject: Subject, kind: str, items) -> torch.Tensor:
    return subject.embed_audio(items) if kind == "audio" else subject.embed_text(items)


def check_form(subject: Subject, kind: str):
    model, n = subject.model, len(TEXTS)
    answer, shape = subject.answer(kind), [n, model.dim]
    if fault := find_fault(answer, shape):
        return wrong(
            f"encode_{kind} returned {fault} for {n} inputs.",
            "Nothing can be computed of it: a run stops at its first batch.",
            f"Return a floating-point tensor {shape}, [inputs, dim], of finite numbers.",
        )
    usual = torch.float32 if kind == "audio" else model.dtype
    if answer.dtype in (torch.float16, torch.bfloat16):
        return wrong(
            f"encode_{kind} returned {answer.dtype}, with 3 digits or fewer.",
            "Cosines are rounded by up to 4e-3, and logits by up to "
            f"{4e-3 * getattr(model, 'logit_scale', 100):.2g}.",
            f"Compute in float32, or at least normalise in float32; return {usual}.",
        )
    if answer.dtype != usual:
        return remark(
            f"{list(answer.shape)}, finite, but {answer.dtype} in place of {usual}.",
            "It is converted where it is used.",
        )
    return ok(f"{list(answer.shape)}, {answer.dtype}, finite.")


def check_device(subject: Subject):
    wanted = subject.model.device
    kinds = ("audio", "text") if subject.has_text else ("audio",)
    found = {kind: subject.answer(kind).device for kind in kinds}
    elsewhere = [
        f"encode_{kind} answers on {device}"
        for kind, device in found.items()
        if not is_same_device(device, wanted)
    ]
    if elsewhere:
        return wrong(
            f"device is {wanted}, but {' and '.join(elsewhere)}.",
            "Methods put their tensors on model.device: the first logits stop a run.",
            "Set device to where the weights are, and leave the answers there.",
        )
    return ok(f"All embeddings are on {wanted}.")


def is_same_device(first: torch.device, second: torch.device) -> bool:
    """Whether they may be one device: "cuda" and "cuda:1" may, "cuda:0" and "cuda:1" may not."""
    indices = {first.index, second.index} - {None}
    return first.type == second.type and len(indices) < 2


def check_unit(subject: Subject, kind: str):
    lengths = subject.answer(kind).detach().double().norm(dim=1)
    low, high = lengths.min().item(), lengths.max().item()
    if max(abs(low - 1), abs(high - 1)) > UNIT_TOLERANCE:
        return wrong(
            f"Lengths are from {low:.3g} to {high:.3g}, not 1 ({UNIT_TOLERANCE:g} is allowed).",
            "Logits are no cosines: longer embeddings count more, in zero-shot, in PALM's mix of "
            "text and z, and in distances.",
            "Return torch.nn.functional.normalize(embeddings, dim=-1).",
        )
    return ok(f"Lengths differ from 1 by {tiny(max(abs(low - 1), abs(high - 1)))} at most.")


def check_no_gradient(subject: Subject, kind: str):
    answer = subject.answer(kind)
    if answer.requires_grad:
        return wrong(
            f"What encode_{kind} returns requires a gradient.",
            "Each training step would go back through the encoder: PALM stops in its second step, "
            "and memory grows with the number of clips.",
            f"Compute inside of `with torch.no_grad():`, as encode_{kind} is of a frozen model.",
        )
    if answer.is_inference():
        return wrong(
            f"What encode_{kind} returns is a tensor of inference mode.",
            "autograd refuses it as an input: training stops at its first step.",
            "Leave inference mode, and return embeddings.clone().",
        )
    return ok("No gradient, and no tensor of inference mode.")


def check_repeated(subject: Subject, kind: str):
    """Two calls, with another input between, and with other seeds."""
    items = subject.sounds if kind == "audio" else TEXTS
    seed_all(0)
    first = embed(subject, kind, items[:4])
    embed(subject, kind, items[4:])
    again = distance(embed(subject, kind, items[:4]), first)
    seed_all(0)
    seeded = distance(embed(subject, kind, items[:4]), first)
    if again > SAME:
        cause = "A call depends on the call before it: a cache, a running mean, a counter?"
        if seeded <= SAME:
            cause = (
                "With the same seed of the global generators it is the same: dropout in train "
                "mode, or a random crop?"
            )
        return wrong(
            f"Two calls with the same input differ by {again:.2g}; {SAME:g} is allowed. {cause}",
            "Results depend on chance, and the cache keeps one draw of it.",
            "Call eval() on all networks; choose crops from the input alone.",
        )
    seed_all(1)
    other = distance(embed(subject, kind, items[:4]), first)
    if other > SAME:
        return wrong(
            f"With other seeds of the global generators embeddings differ by {other:.2g}.",
            "Results depend on what ran before.",
            "Draw nothing in encode; fix what is random at loading, with a generator of its own.",
        )
    return ok(f"Calls differ by {tiny(max(again, other))}; global seeds do not count.")


def check_audio_batches(subject: Subject):
    sounds, whole = subject.sounds, subject.audio
    n, silent = len(sounds), torch.zeros_like(sounds[:1])
    found = {
        "alone": distance(subject.embed_audio(sounds[:1]), whole[:1]),
        "in another order": distance(subject.embed_audio(sounds.flip(0)).flip(0), whole),
        "beside silence": distance(subject.embed_audio(torch.cat([sounds[:1], silent]))[:1],
                                   whole[:1]),
        "beside a loud clip": distance(
            subject.embed_audio(torch.cat([sounds[:2], sounds[2:3] * 30]))[:2], whole[:2]
        ),
    }  # fmt: skip
    for size in (3, 5):
        parts = torch.cat([subject.embed_audio(part) for part in sounds.split(size)])
        found[f"in batches of {size}"] = distance(parts, whole)
    return judge_batches(
        found,
        subject.same,
        f"in a batch of {n}",
        "Take every mean, maximum and norm of one clip alone; batch norms need eval().",
    )


def check_text_batches(subject: Subject):
    whole, order = subject.texts, list(range(len(TEXTS)))[::-1]
    alone = torch.cat([subject.embed_text([text]) for text in TEXTS])
    longest = max(TEXTS, key=len)
    beside = [subject.embed_text([text, longest])[:1] for text in TEXTS[:4]]
    found = {
        "alone": distance(alone, whole),
        "beside a longer text": distance(torch.cat(beside), alone[:4]),
        "in another order": distance(subject.embed_text([TEXTS[n] for n in order])[order], whole),
    }
    return judge_batches(
        found,
        subject.same,
        f"in a batch of {len(TEXTS)}",
        "Mask padding: give the attention mask to the network, and take padding out of means.",
    )


def judge_batches(found: dict[str, float], allowed: float, beside: str, advice: str):
    """found: {how else it was computed: distance}."""
    worst = max(found, key=found.get)
    if found[worst] <= allowed:
        return ok(f"The same to {tiny(found[worst])} {', '.join(found)} as {beside}.")
    bad = [f"{how} by {value:.2g}" for how, value in found.items() if value > allowed]
    return wrong(
        f"An embedding differs from that {beside}: {', '.join(bad)} ({allowed:g} is allowed).",
        "A result depends on what else is in the batch, so on batch size and order, and cached "
        "embeddings on which clips were cached before.",
        advice,
    )


def name_some(items: list[str]) -> str:
    """The first of many items, and how many there are."""
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
