"""All checks of a model, in order: none of them ends the others."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from palmkit.encoder_check import audio, embeddings, members, state, text, tokens, training
from palmkit.encoder_check.report import EncoderReport, Finding, Verdict, not_tested, wrong
from palmkit.encoder_check.subject import Subject, hash_tensors, preserved
from palmkit.models import MODELS, load_model
from palmkit.models.about import describe as describe_facts
from palmkit.models.pair import ModelPair
from palmkit.models.registry import list_models

# Members that a check needs. With a wrong one it is not run.
AUDIO = ("sample_rate", "clip_seconds", "dim", "device", "encode_audio")
TEXT = ("dim", "device", "dtype", "encode_text")
ALL = (*AUDIO, *TEXT, "logit_scale", "prompt", "padding", "channels", "defaults")
HERE = str(Path(__file__).parent)
LAST_FRAMES = 2  # of a traceback that are shown


@dataclass(frozen=True)
class Check:
    """function(subject) -> Verdict. needs: members, or checks before it, that must not be wrong.

    kind: "text" and "tokens" are for models that have these.
    """

    name: str
    function: Callable[[Subject], Verdict]
    needs: tuple[str, ...] = ()
    kind: str = "audio"


# What must be right before a check means something.
ENCODED = (*AUDIO, "encode_text", "audio embeddings", "text embeddings")
SAME_AUDIO = (*AUDIO, "audio embeddings", "device", "audio repeated")
DISTINCT_AUDIO = (*SAME_AUDIO, "sounds differ")
SAME_TEXT = (*TEXT, "text embeddings", "text repeated")
TOKENS = (*TEXT, "text_width", "token ids")
TRAINED = (
    *(*ALL, *DISTINCT_AUDIO, *SAME_TEXT),
    *("texts differ", "audio gradient", "text gradient"),
)


def list_checks(before: str) -> list[Check]:
    """before: `hash_tensors` of the model before all checks."""
    return [
        *embedding_checks(),
        *audio_checks(),
        *text_checks(),
        *token_checks(),
        *state_checks(),
        *method_checks(),
        Check("frozen", partial(state.check_frozen, before=before)),
        Check("speed", training.check_speed, ENCODED),
    ]


def embedding_checks() -> list[Check]:
    return [
        Check("members", members.check_members),
        Check("logit scale", members.check_logit_scale, ("logit_scale",), "text"),
        Check("audio embeddings", partial(embeddings.check_form, kind="audio"), AUDIO),
        Check("text embeddings", partial(embeddings.check_form, kind="text"), TEXT, "text"),
        Check(
            "device",
            embeddings.check_device,
            ("encode_audio", "audio embeddings", "encode_text", "text embeddings"),
        ),
        *both_encoders("unit length", embeddings.check_unit),
        *both_encoders("gradient", embeddings.check_no_gradient),
        *both_encoders("repeated", embeddings.check_repeated),
        Check("audio batches", embeddings.check_audio_batches, SAME_AUDIO),
        Check("text batches", embeddings.check_text_batches, SAME_TEXT, "text"),
    ]


def both_encoders(name: str, function) -> list[Check]:
    """The same check of audio and of text. function(subject, kind)."""
    return [
        Check(
            f"{kind} {name}",
            partial(function, kind=kind),
            (f"encode_{kind}", f"{kind} embeddings"),
            kind,
        )
        for kind in ("audio", "text")
    ]


def audio_checks() -> list[Check]:
    return [
        Check("sounds differ", audio.check_different_sounds, SAME_AUDIO),
        Check("silence, full scale", audio.check_extremes, SAME_AUDIO),
        Check("whole clip", audio.check_whole_clip, DISTINCT_AUDIO),
        Check("clip lengths", audio.check_clip_lengths, SAME_AUDIO),
        Check("sample rate", audio.check_sample_rate, DISTINCT_AUDIO),
        Check("volume", audio.check_volume, DISTINCT_AUDIO),
    ]


def text_checks() -> list[Check]:
    distinct = (*SAME_TEXT, "texts differ")
    return [
        Check("texts differ", text.check_different_texts, SAME_TEXT, "text"),
        Check("spelling", text.check_spellings, distinct, "text"),
        Check("long texts", text.check_long_texts, distinct, "text"),
    ]


def token_checks() -> list[Check]:
    distinct = (*SAME_TEXT, *TOKENS, "texts differ")
    return [
        Check("token ids", tokens.check_token_ids, (*TEXT, "text_width"), "tokens"),
        Check("token text", tokens.check_token_text, distinct, "tokens"),
        Check("token padding", tokens.check_token_padding, TOKENS, "tokens"),
        Check("token batches", tokens.check_token_batches, TOKENS, "tokens"),
        Check("token gradients", tokens.check_token_gradients, TOKENS, "tokens"),
    ]


def state_checks() -> list[Check]:
    both = (*SAME_AUDIO, *SAME_TEXT)
    return [
        Check("inputs", state.check_inputs, ENCODED),
        Check("process", state.check_process, (*ENCODED, "digest")),
        Check("digest", state.check_digest, ("digest", *AUDIO, "audio embeddings")),
        Check("digest covers", state.check_digest_covers, (*both, "digest")),
        Check("pickling", state.check_pickling, both),
    ]


def method_checks() -> list[Check]:
    zeroshot, palm, coop = (
        partial(training.check_method, name=name) for name in ("zeroshot", "palm", "coop")
    )
    return [
        Check("zero-shot", zeroshot, TRAINED, "text"),
        Check("PALM", palm, TRAINED, "text"),
        Check("COOP", coop, (*TRAINED, *TOKENS, "token gradients"), "tokens"),
    ]


def check_encoder(model, load=None) -> EncoderReport:
    """Check a model of one's own before hours of runs: an AudioTextModel, or its audio half.

    model: the model, or its name or folder as `load_model` takes it. load: a function that loads
    it once more, to see whether its digest stays; a name needs none.
    All checks run, and what the model's code raises is a finding. The model is left as it was.
    Of a `ModelPair` both models are checked: no other part of it is the user's.
    Raises FileNotFoundError for a name of no model.
    """
    if isinstance(model, str | Path):
        return check_name(model)
    if isinstance(model, ModelPair):
        return _check_pair(model)
    subject = Subject(model, load)
    with preserved():
        findings = tuple(run_checks(subject))
        return EncoderReport(describe(model), findings, attempt_facts(model))


def _check_pair(model: ModelPair) -> EncoderReport:
    """The findings of both models; the names of checks say of which."""
    findings = [
        replace(finding, check=f"{place}: {finding.check}")
        for place, encoder in zip(("first", "second"), model.encoders, strict=True)
        for finding in check_encoder(encoder).findings
    ]
    return EncoderReport(describe(model), tuple(findings), attempt_facts(model))


def check_name(name, device="auto") -> EncoderReport:
    """`check_encoder` of the model of this name, see `load_model`.

    A model from outside of the package is loaded without the check that `load_model` makes.
    """
    name = str(name)
    loaders = list_models()
    load = partial(load_model, name, device)
    if name in loaders and name not in MODELS:
        load = partial(loaders[name], device=device)
    try:
        model = load()
    except FileNotFoundError:
        if name not in loaders:
            raise
        model = None
    except (Exception, SystemExit) as error:  # whatever a user's loader raises
        if name not in loaders or name in MODELS:
            raise
        verdict = failed(error, "An error ended the loader")
        return EncoderReport(f"{name}: not loaded", (as_finding("loading", verdict),))
    if model is None:
        verdict = wrong(
            "The loader returned None.", "There is no model.", "Return the model, or raise."
        )
        return EncoderReport(f"{name}: not loaded", (as_finding("loading", verdict),))
    return check_encoder(model, load)


def run_checks(subject: Subject):
    """Yield a Finding for each check."""
    before = attempt(lambda subject: hash_tensors(subject.model), subject)
    try:
        bad = set(members.find_wrong_members(subject))
    except (Exception, SystemExit):  # a property that raises: the check of members says it
        bad = set(ALL)
    for check in list_checks(before):
        with preserved():
            verdict = attempt(partial(judge, check, bad=bad), subject)
        if verdict.state == "wrong":
            bad.add(check.name)
        yield as_finding(check.name, verdict)


def judge(check: Check, subject: Subject, bad: set[str]) -> Verdict:
    """What a check says, or why it is not run."""
    if check.kind == "text" and not subject.has_text:
        return not_tested("The model has no text encoder.")
    if check.kind == "tokens" and not subject.has_tokens:
        return not_tested("The model has no token-level text (PromptableText).")
    if reasons := [name for name in dict.fromkeys(check.needs) if name in bad]:
        return not_tested(f"First mend: {embeddings.name_some(reasons)}.")
    return check.function(subject)


def attempt(function, subject: Subject):
    """function(subject); what the model's code raises becomes a verdict."""
    try:
        return function(subject)
    except (Exception, SystemExit) as error:  # whatever a user's code raises
        return failed(error, "An error ended this check")


def failed(error: BaseException, what: str) -> Verdict:
    return wrong(
        f"{what}:\n{last_lines(error)}",
        "A run would stop here in the same way.",
        "Mend this, and check again.",
    )


def last_lines(error: BaseException) -> str:
    """The last frames of a traceback outside of these checks, and the error."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(HERE)
    ]
    lines = [
        f"{Path(frame.filename).name}, line {frame.lineno}, {frame.name}: {frame.line}"
        for frame in frames[-LAST_FRAMES:]
    ]
    message = "".join(traceback.format_exception_only(error)).strip().splitlines()
    return "\n".join([*lines, *message[:LAST_FRAMES]])


def as_finding(name: str, verdict: Verdict) -> Finding:
    return Finding(verdict.state, verdict.what, verdict.effect, verdict.advice, name)


def attempt_facts(model) -> dict[str, str]:
    """What a model says of itself; {} where its code raises, which the check of members finds."""
    try:
        return describe_facts(model)
    except (Exception, SystemExit):  # whatever a user's code raises
        return {}


def describe(model) -> str:
    """The model in a line."""
    said = {}
    for member in ("name", "sample_rate", "clip_seconds", "dim", "device"):
        try:
            said[member] = str(getattr(model, member))[:40]
        except (Exception, SystemExit):  # a property may raise anything
            said[member] = "?"
    return "{name}: {sample_rate} Hz, {clip_seconds} s, {dim} dimensions, on {device}".format(
        **said
    )
