"""Checks of a model's members, before anything is encoded."""

from __future__ import annotations

import math

from palmkit.channels import CHANNELS
from palmkit.encoder_check.report import ok, remark, wrong
from palmkit.encoder_check.subject import ONLY_TEXT, Subject
from palmkit.models.about import default_settings
from palmkit.models.base import AudioTextModel, PromptableText, find_missing
from palmkit.models.check import NUMBERS, WANTED, is_right
from palmkit.padding import PADDINGS

LOW_SCALE, HIGH_SCALE = 10, 1000
LONG_CLIP = 60  # seconds; a clip length in samples or milliseconds is far over it
RATES = 4000, 200_000  # Hz, of any sound


def find_wrong_members(subject: Subject) -> dict[str, str]:
    """{member: what is wrong with it}, for all members of the protocols."""
    model, found = subject.model, {}
    if isinstance(model, type):
        names = (*find_missing(None, AudioTextModel), *find_missing(None, PromptableText))
        text = f"all, as the model is the class {model.__name__} and not an object of it: call it"
        return dict.fromkeys(names, text)
    missing = find_missing(model, AudioTextModel)
    if not subject.has_text:
        missing = [name for name in missing if name not in (*ONLY_TEXT, "note")]
    for name in missing:
        wanted = f"use {WANTED[name]}" if name in WANTED else "see palmkit/models/base.py"
        found[name] = f"{name} is missing: {wanted}"
    for name in WANTED:
        if name not in missing and hasattr(model, name):
            value = getattr(model, name)
            if not is_right(name, value) or isinstance(value, bool):
                found[name] = f"{name} is {value!r:.60}: use {WANTED[name]}"
    if "prompt" not in found and subject.has_text and model.prompt.count("{") != 1:
        found["prompt"] = f"prompt is {model.prompt!r:.60}: use one {{}}, for the class"
    for name in ("encode_audio", "encode_text", "digest"):
        if hasattr(model, name) and not callable(getattr(model, name)):
            found[name] = f"{name} is no function"
    if not isinstance(getattr(model, "name", ""), str):
        found["name"] = f"name is {model.name!r:.60}: use a text"
    found |= find_wrong_options(model)
    lacks = find_missing(model, PromptableText)
    width = getattr(model, "text_width", 1)
    if lacks and len(lacks) < len(find_missing(None, PromptableText)):
        found["text_width"] = f"{', '.join(lacks)} missing, and the rest of PromptableText is there"
    elif not isinstance(width, int) or width < 1:
        found["text_width"] = f"text_width is {width!r:.60}: use a whole number over 0"
    return found


def find_wrong_options(model) -> dict[str, str]:
    """The same for members that a model may have."""
    found = {}
    for name, known in (("padding", PADDINGS), ("channels", CHANNELS)):
        if hasattr(model, name) and getattr(model, name) not in known:
            value = getattr(model, name)
            found[name] = f"{name} is {value!r:.60}: use {', '.join(known)}, or leave it out"
    for name in ("defaults", "about"):
        if not isinstance(getattr(model, name, None) or {}, dict):
            found[name] = f"{name} is {getattr(model, name)!r:.60}: use a dict, or leave it out"
    if "defaults" not in found:
        try:
            default_settings(model)
        except ValueError as error:
            found["defaults"] = str(error)
    return found


def check_members(subject: Subject):
    found = find_wrong_members(subject)
    if found:
        return wrong(
            f"{len(found)} of the model's members: {'; '.join(dict.fromkeys(found.values()))}.",
            "load_model refuses such a model, or it stops where the member is first needed.",
            "Write them as AudioTextModel and PromptableText say (palmkit/models/base.py).",
        )
    if not subject.has_text:
        return remark(
            f"An audio encoder: none of {', '.join(ONLY_TEXT)} is there.",
            "It can be the second encoder of a kernel, and no model of a run.",
        )
    model = subject.model
    odd = []
    if not RATES[0] <= model.sample_rate <= RATES[1]:
        odd.append(f"sample_rate={model.sample_rate}: is it in Hz?")
    if model.clip_seconds > LONG_CLIP:
        odd.append(f"clip_seconds={model.clip_seconds}: is it in seconds?")
    if odd:
        return remark(f"All are there. {' '.join(odd)}")
    text = "and PromptableText, which COOP and COCOOP need" if subject.has_tokens else (
        "and no PromptableText, which only COOP and COCOOP need"
    )  # fmt: skip
    return ok(f"All of AudioTextModel are there ({', '.join(NUMBERS)}, ..), {text}.")


def check_logit_scale(subject: Subject):
    scale = subject.model.logit_scale
    if scale < LOW_SCALE:
        return remark(
            f"logit_scale is {scale:g}: is this log(scale)? Its exponential is "
            f"{math.exp(scale):.3g}.",
            f"Logits of cosines then lie within ±{scale:g}; losses stay high and steps small.",
            "Many checkpoints keep the logarithm: use its exponential if yours does.",
        )
    if scale > HIGH_SCALE:
        return remark(
            f"logit_scale is {scale:g}.",
            "The softmax is then nearly one-hot, and its gradients are nearly 0.",
            "CLIP and PENGI have 100, LAION-CLAP 14 to 100: was an exponential taken twice?",
        )
    return ok(f"{scale:g}; logits lie within ±{scale:g}.")
