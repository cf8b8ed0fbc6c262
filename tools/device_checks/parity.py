"""Parity with the published code's tensors on the device: audio, text, logits, training."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from reference import absolute, relative, scaled

from device_checks import DEFAULT, FULL, PRECISIONS, TF32, Line, Setup, precision, within
from palmkit import PALM, CoCoOp, CoOp, ZeroShot, fit
from palmkit.models.precision import exact_convolutions

METHODS = {"coop": CoOp, "cocoop": CoCoOp, "palm": PALM}
BUFFERS = ("sos", "classes_pad")  # of published states; they follow from the class names

# Relative errors, but for "decibel" and "logit". FULL's limits are those of tests/kit on the CPU.
# PyTorch's default has TF32 in convolutions, which palmkit turns off: the same limits.
# TF32 keeps 10 bits of each factor. Rounding all factors so on the CPU gave 1e-3 (audio, text),
# 3e-3 dB, 0.05 (logit) and 4e-2 (training). TF32's limits are about five times that.
LIMITS = {
    FULL: dict(audio=1e-4, decibel=1e-2, text=1e-5, logit=3e-3, training=1e-3),
    DEFAULT: dict(audio=1e-4, decibel=1e-2, text=1e-5, logit=3e-3, training=1e-3),
    TF32: dict(audio=1e-2, decibel=2e-2, text=1e-2, logit=3e-1, training=2e-1),
}


def check(setup: Setup) -> Iterator[Line]:
    for name in PRECISIONS:
        setup.tell(f"parity, {name}")
        with precision(name):
            errors = {**measure_encoders(setup), **measure_training(setup)}
        for (what, kind), error in errors.items():
            yield within(f"{what}, {name}", error, LIMITS[name][kind])


@torch.no_grad()
@exact_convolutions()
def measure_encoders(setup: Setup) -> dict[tuple[str, str], torch.Tensor]:
    """{(what, kind of limit): errors} of each stage of audio, of text, and of zero-shot."""
    model, source = setup.there, setup.source
    table, audio = source.tables["audio_eval"], model.audio
    waves = source.waves()
    log_mel = audio.log_mel(waves.to(model.device, model.dtype))
    image = audio.image(log_mel)
    latent = audio.pooled(image)
    frames, parts = log_mel.cpu()[:, table["frame_index"]], image.cpu()[:, 0, ::8, ::8]
    faint = table["faint_wave"][None].to(model.device, model.dtype) / 32768
    units = model.encode_audio(waves)
    texts = model.encode_text(source.facts["prompts"]).cpu()
    logits = ZeroShot(model, source.facts["class_names"])(units)
    return {
        ("log-mel", "audio"): relative(frames, table["logmel_frames"]),
        ("log-mel of a faint band, dB", "decibel"): absolute(
            audio.log_mel(faint).cpu()[0, 2], table["faint_logmel"]
        ),
        ("image", "audio"): relative(parts, table["image_grid8"]),
        ("latent", "audio"): relative(latent.cpu(), table["latent_f64"]),
        ("audio embedding", "audio"): relative(
            units.cpu(), F.normalize(table["embedding_f64"], dim=-1)
        ),
        ("text embedding", "text"): relative(
            texts, F.normalize(source.tables["text_eval"]["embedding_f64"], dim=-1)
        ),
        ("zero-shot logits", "logit"): absolute(logits.cpu(), source.tables["zeroshot"]["logits"]),
    }


def measure_training(setup: Setup) -> dict[tuple[str, str], torch.Tensor]:
    """The largest error of each method over its twenty published steps: losses, what was learned,
    and logits of the support set afterwards.
    """
    found = {}
    for name, cls in METHODS.items():
        table = setup.source.tables[f"train_{name}"]
        method = cls(setup.there, setup.source.facts["class_names"])
        method.load_prompt_learner(published_state(table, "init"))
        losses = fit(method, table["features"], table["labels"], batches=table["batch_index"])
        learned, expected = method.prompt_learner_state(), published_state(table, "final")
        with torch.no_grad():
            logits = method(table["features"].to(setup.there.device)).cpu()
        loss = table["loss_f64"]
        errors = [((torch.tensor(losses, dtype=torch.float64) - loss).abs() / loss).max()]
        errors += [scaled(learned[key], value) for key, value in expected.items()]
        errors += [scaled(logits, table["eval_logits_f64"])]
        found[f"{method.label}, 20 steps", "training"] = torch.stack(errors)
    return found


def published_state(table: dict, prefix: str) -> dict[str, torch.Tensor]:
    """The learned tensors `prefix.*` of a training table, without the prefix."""
    tensors = {
        key.removeprefix(f"{prefix}."): value
        for key, value in table.items()
        if key.startswith(f"{prefix}.") and not key.endswith("_f64")
    }
    return {key: value for key, value in tensors.items() if key not in BUFFERS}
