"""Checks of which parts of a sound an audio encoder uses."""

from __future__ import annotations

import torch

from palmkit.encoder_check.embeddings import name_some
from palmkit.encoder_check.report import ok, remark, wrong
from palmkit.encoder_check.sounds import PEAK, make_chirp
from palmkit.encoder_check.subject import SAME, Subject, attributes, distance, mean_cosine

COLLAPSED = 0.999  # mean cosine; a loss in float32 still tells clips apart below it
PARTS = 8  # of a clip
# A part of a clip counts if a change of it moves the embedding by more. An eighth of a clip that
# counts at all moves it by 1e-2; what is left out moves it by 1e-7, or 1e-5 through resampling.
COUNTS = 1e-4
BANDS = (0.9, 0.8, 0.7, 0.6, 0.45, 0.35, 0.25, 0.1)  # of half the sample rate
TONE_COUNTS = 0.01  # a tone as loud as the clip; the slopes of a low-pass filter leave less
QUIET = 0.1  # the factor of the volume check
RATE_NAMES = ("sample_rate", "sampling_rate", "samplerate", "rate", "sr", "fs")


def check_different_sounds(subject: Subject):
    cosine = mean_cosine(subject.audio)
    if cosine > COLLAPSED:
        return wrong(
            f"The mean cosine of {len(subject.sounds)} very different sounds is {cosine:.5f}.",
            "All clips have nearly the same embedding: every method is near chance.",
            "Are the weights loaded, and is the input scaled as in training (dB, mean and spread)?",
        )
    cosines = subject.audio @ subject.audio.T
    pairs = [
        f"{subject.names[a]} and {subject.names[b]}"
        for a in range(len(cosines))
        for b in range(a)
        if cosines[a, b] > 1 - SAME
    ]
    if pairs:
        return remark(
            f"The mean cosine of {len(cosines)} sounds is {cosine:.2f}, but these have one "
            f"embedding: {name_some(pairs)}.",
            "No method can tell such sounds apart.",
        )
    return ok(f"The mean cosine of {len(cosines)} very different sounds is {cosine:.2f}.")


def check_extremes(subject: Subject):
    """Silence, full scale, one sample that is not 0."""
    square = subject.sounds[:1].sign()
    click = torch.zeros_like(square)
    click[0, len(click[0]) // 2] = 1.0
    clips = {"silence": torch.zeros_like(square), "full scale": square, "a click": click,
             "16 bits' last digit": square * 2**-15}  # fmt: skip
    answers = subject.model.encode_audio(torch.cat(list(clips.values()))).detach()
    finite = dict(zip(clips, answers.isfinite().all(1).tolist(), strict=True))
    if not all(finite.values()):
        return wrong(
            f"The embedding of {' and of '.join(k for k, one in finite.items() if not one)} has "
            "NaN or infinite values.",
            "A run stops with AudioError at the first such file.",
            "Add a small number before each logarithm, division and normalisation.",
        )
    zeros = [name for name, one in zip(clips, answers, strict=True) if one.norm() < 0.5]
    if zeros:
        return remark(
            f"The embedding of {' and of '.join(zeros)} is 0.",
            "All classes have the logit 0 there, so the first class is predicted.",
        )
    return ok(f"Finite for {', '.join(clips)}.")


def check_whole_clip(subject: Subject):
    """Each eighth of a clip counts."""
    first, other = subject.sounds[3], subject.sounds[5]  # noise, and an organ
    edges = [round(n * subject.samples / PARTS) for n in range(PARTS + 1)]
    changed = first.repeat(PARTS, 1)
    for n in range(PARTS):
        changed[n, edges[n] : edges[n + 1]] = other[edges[n] : edges[n + 1]]
    moved = (subject.embed_audio(changed) - subject.audio[3]).norm(dim=-1)
    seconds = subject.model.clip_seconds
    unused = [n for n in range(PARTS) if moved[n] <= COUNTS]
    if not unused:
        return ok(
            f"Each eighth of {seconds:g} s counts: another sound there moves the embedding by "
            f"{moved.min():.2g} to {moved.max():.2g}."
        )
    starts = [n for n in unused if n - 1 not in unused]
    ends = [n + 1 for n in unused if n + 1 not in unused]
    spans = [
        f"{start * seconds / PARTS:.3g} to {end * seconds / PARTS:.3g} s"
        for start, end in zip(starts, ends, strict=True)
    ]
    return wrong(
        f"{len(unused)} of {PARTS} parts of a clip of {seconds:g} s do not count: another sound at "
        f"{' and '.join(spans)} moves the embedding by {moved[unused].max():.1g}.",
        "What happens there changes no result.",
        f"Set clip_seconds to what the model takes ({seconds * (1 - len(unused) / PARTS):.2g} s?), "
        "or give it the whole clip.",
    )


def check_clip_lengths(subject: Subject):
    """Shorter and longer waveforms are encoded, or refused in words."""
    model, taken, refused, odd = subject.model, [], [], []
    for label, factor in (("0.05 s", 0.05 / model.clip_seconds), ("half a clip", 0.5),
                          ("1.5 clips", 1.5)):  # fmt: skip
        samples = max(1, round(subject.samples * factor))
        waveform = subject.sounds[3:4].repeat(1, 2)[:, :samples]
        try:
            answer = model.encode_audio(waveform.clone())
        except Exception as error:  # whatever a user's code raises
            text = f"{label}: {type(error).__name__}: {str(error).strip().splitlines()[:1] or ''}"
            (refused if is_in_words(error) else odd).append(
                text.replace("['", "").replace("']", "")
            )
            continue
        if [*answer.shape] != [1, model.dim] or not answer.isfinite().all():
            return wrong(
                f"For {label} encode_audio returned the shape {[*answer.shape]}"
                f"{'' if answer.isfinite().all() else ' with NaN or infinite values'}.",
                "`embed` always hands out whole clips; your own calls get wrong embeddings.",
                "Pad or refuse such waveforms: raise ValueError with the length that it takes.",
            )
        taken.append(label)
    if odd:
        return remark(
            f"It fails without words for {'; '.join(odd)}.",
            "`embed` always hands out whole clips, so no run is concerned.",
            "Raise ValueError with the length that it takes.",
        )
    parts = [f"Encoded: {', '.join(taken)}." if taken else "",
             f"Refused in words: {'; '.join(refused)}." if refused else ""]  # fmt: skip
    return ok(" ".join(part for part in parts if part))


def is_in_words(error: Exception) -> bool:
    """Is it a refusal that somebody wrote, and no failure deep inside of a library?"""
    chosen = isinstance(error, ValueError | TypeError | AssertionError | NotImplementedError)
    return chosen and len(str(error).split()) >= 3


def check_sample_rate(subject: Subject):
    """The rate counts; no part of the model says another one; the highest frequency that counts."""
    rate, samples = subject.model.sample_rate, subject.samples
    wrong_rates = torch.stack([make_chirp(rate * x, samples) for x in (1.0, 0.5, 2.0)])
    right, *others = subject.embed_audio(wrong_rates)
    moved = min(distance(right, one) for one in others)
    if moved <= COUNTS:
        return wrong(
            f"One sound at {rate} Hz, at half and at twice that rate has the same embedding "
            f"(distance {moved:.1g}).",
            "Pitch and time have no effect, so a wrong rate cannot be noticed.",
            "Does encode_audio use the order of the samples? See also the other audio checks.",
        )
    top, over = find_band(subject)
    inner = {name: value for name, value in find_rates(subject.model).items() if value != rate}
    # A model that resamples to a lower rate itself uses nothing over half of that.
    resamples = [name for name, value in inner.items() if top * rate <= value < rate]
    if unlike := {name: value for name, value in inner.items() if name not in resamples}:
        return judge_inner_rate(rate, top, *next(iter(unlike.items())))
    counts = f"A sound at half or twice the rate moves the embedding by {moved:.2g}"
    if resamples:
        return ok(f"{counts}. {resamples[0]} is {inner[resamples[0]]}: the model resamples itself.")
    if top < 0.5:
        return remark(
            f"{counts}. But tones over {over * rate / 2000:.3g} kHz do not count, of "
            f"{rate / 2000:.3g} kHz at {rate} Hz.",
            "For a model that is made for a lower rate, all sounds are too low and too slow.",
            f"Was it trained at {round(over * rate)} Hz or less? Then set sample_rate to that.",
        )
    return ok(f"{counts}; tones up to {top * rate / 2000:.3g} kHz or higher count.")


def judge_inner_rate(rate: int, top: float, name: str, value: int):
    """A part of the model says another rate, and nothing shows that the model resamples."""
    effect = (
        f"Waveforms of {rate} Hz that are taken as {value} Hz are {value / rate:.3g} times as high "
        "and as fast."
    )
    advice = f"Set sample_rate to {value}, unless the model resamples from {rate} Hz itself."
    if value > rate:
        return remark(f"sample_rate is {rate}, but {name} is {value}.", effect, advice)
    reason = f"tones up to {top * rate / 2000:.3g} kHz count, so it does not resample"
    return wrong(f"sample_rate is {rate}, but {name} is {value}: {reason}.", effect, advice)


def find_band(subject: Subject) -> tuple[float, float]:
    """(the highest of BANDS in which a loud tone moves the embedding, the band over it).

    0 for none; 1 for the band over the highest.
    """
    time = torch.arange(subject.samples, dtype=torch.float64)
    tones = torch.stack([torch.sin(torch.pi * band * time) for band in BANDS]).float() * PEAK
    clip = subject.sounds[5]
    moved = (subject.embed_audio(clip + tones) - subject.audio[5]).norm(dim=-1)
    over = 1.0
    for band, one in zip(BANDS, moved.tolist(), strict=True):
        if one > TONE_COUNTS:
            return band, over
        over = band
    return 0.0, over


def find_rates(model) -> dict[str, int]:
    """{place: Hz} of rates that parts of the model say, such as a feature extractor's."""
    found = {}
    owners = {"model": model} | {
        f"model.{key}": value
        for key, value in attributes(model).items()
        if hasattr(value, "__dict__") or isinstance(value, dict)
    }
    for place, owner in owners.items():
        fields = owner if isinstance(owner, dict) else attributes(owner)
        for key, value in fields.items():
            is_rate = str(key) in RATE_NAMES and isinstance(value, int | float)
            if is_rate and value >= 1000 and (place, key) != ("model", "sample_rate"):
                found[f"{place}.{key}"] = int(value)
    return found


def check_volume(subject: Subject):
    quiet = subject.embed_audio(subject.sounds * QUIET)
    cosine = (quiet * subject.audio).sum(-1).min().item()
    words = f"At a tenth of the volume the cosine with the embedding before is {cosine:.3f} or more"
    if cosine < 0.9:
        return remark(
            f"{words}.",
            "Quiet and loud recordings of one class differ: accuracy depends on levels.",
            "If the model was trained on normalised waveforms, normalise in encode_audio.",
        )
    return ok(f"{words}.")
