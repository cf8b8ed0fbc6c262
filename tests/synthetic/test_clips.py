"""The generators: reproducible, audible, and different between training and tasks."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from mini_pengi.front_end import log_mel

from palmkit.models.random import random_encoders
from palmkit_synthetic import music, scenes, soundfont, speech
from palmkit_synthetic.captions import TEMPLATES, captions
from palmkit_synthetic.clips import draw_clip, make_clip
from palmkit_synthetic.concepts import CONCEPTS, HELD_OUT, SOUNDS, TRAINING
from palmkit_synthetic.domain import TASK, TRAIN
from palmkit_synthetic.draw import Draw
from palmkit_synthetic.dsp import SAMPLE_RATE
from palmkit_synthetic.finish import cut, dull, finish, overload
from palmkit_synthetic.recipe import CODE, FOLDER, definitions, recipe

ONE_OF_EACH_KIND = (
    "dog",
    "forest",
    "guitar",
    "jazz music",
    "angry speech",
    "a woman speaking French",
    "siete",
)


def digest(waveform):
    return hashlib.sha256(waveform.tobytes()).hexdigest()


@pytest.mark.parametrize("concept", ONE_OF_EACH_KIND)
def test_same_seed_same_clip(concept):
    first = draw_clip(concept, 3, seed=1)
    draw_clip("whispering", 0)  # what was made before does not matter, least of all to espeak-ng
    again = draw_clip(concept, 3, seed=1)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    others = [
        draw_clip(concept, 4, seed=1)[0],
        draw_clip(concept, 3, seed=2)[0],
        draw_clip(concept, 3, 1, TASK)[0],
    ]
    assert len({digest(waveform) for waveform in (first[0], *others)}) == 4


@pytest.mark.slow
def test_same_clip_in_another_process():
    concepts = (
        "a woman speaking French",
        "whispering",
        "dog",
        "guitar",
    )  # breathy voices: noise is seeded
    code = (
        "import hashlib; from palmkit_synthetic.clips import make_clip; "
        f"print(*[hashlib.sha256(make_clip(c, 0).tobytes()).hexdigest() for c in {concepts}])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == [digest(make_clip(concept, 0)) for concept in concepts]


@pytest.mark.slow
@pytest.mark.parametrize("domain", [TRAIN, TASK], ids=lambda domain: domain.name)
def test_every_concept_is_audible(domain):
    for concept in CONCEPTS:
        waveform = make_clip(concept, 0, domain=domain, seconds=2.0)
        assert waveform.shape == (88_200,) and waveform.dtype == np.float32
        assert np.isfinite(waveform).all(), concept
        assert 0.04 < np.abs(waveform).max() <= 1.0, concept
        assert waveform.std() > 1e-4, concept


def test_names_are_unique_and_captions_are_not_the_evaluation_prompts():
    names = [name.lower() for concept in CONCEPTS.values() for name in concept.names]
    assert len(names) == len(set(names))
    assert {
        "dog",
        "rain",
        "crying baby",
        "clock tick",
        "crackling fire",
        "rooster",
        "sea waves",
    } <= set(names)
    prompts = {"the is a recording of {}", "this is a recording of {}"}
    assert prompts.isdisjoint(
        template.lower().rstrip(". ").replace("  ", " ") for template in TEMPLATES
    )
    assert captions(CONCEPTS["dog"])[0] == "dog"
    assert len(captions(CONCEPTS["dog"])) == len(TEMPLATES) * len(CONCEPTS["dog"].names)


def test_held_out_concepts_are_nowhere_in_training():
    assert set(CONCEPTS) >= HELD_OUT and len(HELD_OUT) >= 10
    assert HELD_OUT.isdisjoint(TRAINING)
    held_out_sounds = {make for make, names in SOUNDS.items() if names[0] in HELD_OUT}
    in_scenes = {layer for scene in scenes.SCENES.values() for layer in (*scene.bed, *scene.events)}
    assert held_out_sounds and held_out_sounds.isdisjoint(in_scenes)


class Recorder(Draw):
    """Keeps every parameter drawn, with its range: {(name, low, high): [positions in 0..1]}."""

    def __init__(self, *given):
        super().__init__(*given)
        self.positions = {}

    def uniform(self, name, low, high):
        value = super().uniform(name, low, high)
        if high > low:
            self.positions.setdefault((name, low, high), []).append((value - low) / (high - low))
        return value

    def log(self, name, low, high):
        value = super().log(name, low, high)
        self.positions.setdefault((name, low, high), []).append(
            np.log(value / low) / np.log(high / low)
        )
        return value


RECORDING = {"reverb", "wet", "drive", "low_pass_hz", "snr_db", "excerpt", "level"}


def test_what_is_drawn_for_a_recording_is_kept_under_names_that_no_source_uses():
    kept = set()
    for seed in range(10):
        draw = Draw(np.random.default_rng(seed), TRAIN, 2.1)
        finish(draw, draw.noise())
        kept |= draw.parameters.keys()
    assert kept == RECORDING
    for concept in ONE_OF_EACH_KIND:  # of the sounds, the next test
        draw = Draw(np.random.default_rng(0), TRAIN, 0.5)
        CONCEPTS[concept].generate(draw)
        assert RECORDING.isdisjoint(draw.parameters), concept


@pytest.mark.slow
@pytest.mark.parametrize("domain", [TRAIN, TASK], ids=lambda domain: domain.name)
def test_parameters_lie_within_the_domains_bands(domain):
    seen = 0
    for make in SOUNDS:
        draw = Recorder(np.random.default_rng(0), domain, 1.0)
        make(draw)
        assert RECORDING.isdisjoint(draw.parameters), make.__name__
        for name, positions in draw.positions.items():
            for position in positions:
                inside = any(low - 1e-9 <= position <= high + 1e-9 for low, high in domain.bands)
                assert inside, (make.__name__, name, position)
                seen += 1
    assert seen > 200


def test_the_drive_that_is_kept_is_that_of_the_overdrive():
    draw = Draw(np.random.default_rng(0), TRAIN, 0.1)
    loud = overload(draw, 7 * draw.noise())
    assert 1.5 <= draw.parameters["drive"] <= 5
    assert np.arctanh(np.abs(loud).max()) == pytest.approx(draw.parameters["drive"])


def test_the_edge_that_is_kept_is_that_of_the_low_pass():
    draw = Draw(np.random.default_rng(0), TRAIN, 2.0)
    before = draw.noise()
    after = dull(draw, before)
    edge = draw.parameters["low_pass_hz"]
    assert 3000 <= edge <= 12_000
    frequencies = np.fft.rfftfreq(draw.n, 1 / SAMPLE_RATE)
    left = np.abs(np.fft.rfft(after)) / np.abs(np.fft.rfft(before))
    near = np.abs(frequencies / edge - 1) < 0.01
    assert np.median(left[near]) == pytest.approx(0.5**0.5, rel=0.02)  # 3 dB down at its edge


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("seconds", [1.0, 5.0], ids=["all of a short one", "part of a long one"])
def test_the_excerpt_that_is_kept_is_what_is_left_of_the_source(seed, seconds):
    draw = Draw(np.random.default_rng(seed), TRAIN, seconds)
    piece = np.trim_zeros(cut(draw, 1 + draw.silence()))
    assert draw.parameters["excerpt"] * SAMPLE_RATE == pytest.approx(len(piece))
    assert draw.parameters["excerpt"] <= min(seconds, 3.5)


def test_domains_share_neither_parameters_nor_rooms_nor_noise():
    for low, high in TASK.bands:
        assert all(high <= a or low >= b for a, b in TRAIN.bands)
    assert TRAIN.room != TASK.room and TRAIN.noise != TASK.noise


def test_instruments_of_tasks_are_never_recordings_of_training():
    font = soundfont.general_midi()
    trained = set().union(
        *(
            font.sample_names(program, family.keys)
            for family in music.FAMILIES.values()
            for program in family.train
        ),
        *(font.sample_names(program, keys) for program, keys in music.SOLO.values()),
    )
    for name, family in music.FAMILIES.items():
        assert set(family.train).isdisjoint(family.task), name
        for program in family.task:
            samples = font.sample_names(program, family.keys)
            assert samples and samples.isdisjoint(trained), (name, program)
    for style in music.STYLES.values():
        for trained_programs, task_programs in (style.comp_programs, style.lead_programs):
            assert set(trained_programs).isdisjoint(task_programs)


def test_voices_and_sentences_of_tasks_are_other_ones():
    for sex in ("man", "woman"):
        assert set(speech.VOICES["train"][sex]).isdisjoint(speech.VOICES["task"][sex])
    assert all(not set(trained) & set(task) for trained, task in speech.SENTENCES.values())
    assert all(len(trained) == 5 and len(task) == 2 for trained, task in speech.SENTENCES.values())
    assert speech.LANGUAGES.keys() == speech.SENTENCES.keys() and len(speech.LANGUAGES) == 12
    assert set(music.KITS["train"]).isdisjoint(music.KITS["task"])


@pytest.mark.slow
def test_every_voice_speaks_every_language():
    variants = [v for sexes in speech.VOICES.values() for voices in sexes.values() for v in voices]
    for language in [name for names in speech.LANGUAGES.values() for name in names]:
        for variant in variants[::5]:
            assert len(speech.speaker().say("10", f"{language}+{variant}")) > 2000
    with pytest.raises(RuntimeError, match="said nothing"):
        speech.speaker().say("hello", "no-such-language")


def test_the_sound_font_is_in_tune():
    note = soundfont.general_midi().note(73, 81, 100, 1.0)  # a flute's a'': 880 Hz
    spectrum = np.abs(np.fft.rfft(note[8_000:40_000] * np.hanning(32_000)))
    assert abs(np.argmax(spectrum) * 44_100 / 32_000 / 880 - 1) < 0.01


@pytest.mark.slow
def test_log_mel_is_that_of_the_kits_encoder():
    waveforms = torch.from_numpy(np.stack([make_clip("dog", 0), make_clip("rain", 0)]))
    audio, _ = random_encoders()
    expected = audio.log_mel(waveforms)
    ours = log_mel(waveforms)
    assert ours.shape == expected.shape == (2, 690, 64)
    assert (ours - expected).abs().max() < 0.1  # single precision: faint bands beside loud ones
    assert log_mel(waveforms, hop=441).shape == (2, 501, 64)


def closure(start: str) -> set[str]:
    """A module of the package, and all of the package that it imports, directly or not."""
    found, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        found.add(name)
        code = (FOLDER / f"{name}.py").read_text()
        named = re.findall(r"from palmkit_synthetic\.(\w+) import", code)
        for names in re.findall(r"from palmkit_synthetic import ([\w, ]+)", code):
            named += names.split(", ")
        waiting += set(named) - found - {"sounds"}
    return found


def test_the_recipe_covers_the_domain_and_all_code_that_makes_a_clip():
    assert recipe(TRAIN) == recipe(TRAIN) != recipe(TASK)
    assert closure("clips") - {"domain"} == {name.removesuffix(".py") for name in CODE}


CODE_OF_A_CLIP = '''"""A module."""
from palmkit_synthetic.dsp import noise
import numpy as np


def rain(draw):
    """Drops."""
    return noise(draw, f"{draw.n}", low=20.0)
'''
SAME = {
    "comments and docstrings": CODE_OF_A_CLIP.replace("Drops.", "Rain.").replace("A module", "# x"),
    "a module's own name": CODE_OF_A_CLIP.replace(
        "palmkit_synthetic.dsp", "palmkit_synthetic.noise"
    ),
    "layout": CODE_OF_A_CLIP.replace("noise(draw,", "noise(\n        draw,  # the draw\n"),
    "no docstring": CODE_OF_A_CLIP.replace('    """Drops."""\n', ""),
}
OTHER = {
    "a constant": CODE_OF_A_CLIP.replace("20.0", "21.0"),
    "a zero": CODE_OF_A_CLIP.replace("20.0", "0"),
    "none": CODE_OF_A_CLIP.replace("20.0", "None"),
    "a name": CODE_OF_A_CLIP.replace("low=", "high="),
    "another package": CODE_OF_A_CLIP.replace("import numpy", "import scipy"),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", [*SAME, *OTHER])
def test_the_recipe_changes_with_what_a_clip_is(change, tmp_path):
    paths = [tmp_path / "one.py", tmp_path / "two.py"]
    paths[0].write_text(CODE_OF_A_CLIP)
    paths[1].write_text((SAME | OTHER)[change])
    one, two = (recipe(TRAIN, [path]) for path in paths)
    assert (one == two) == (change in SAME)
    assert one != recipe(TRAIN)


def test_the_recipe_does_not_depend_on_the_file_of_a_definition(tmp_path):
    paths = [tmp_path / name for name in ("one.py", "two.py", "both.py")]
    texts = ["LOW = 20\n", "def rain(draw):\n    return draw.n\n"]
    for path, text in zip(paths, [*texts, "\n\n".join(texts[::-1])], strict=True):
        path.write_text(text)
    assert recipe(TRAIN, paths[:2]) == recipe(TRAIN, paths[2:])
    assert len(list(definitions(paths[2]))) == 2


def test_a_missing_source_is_named(monkeypatch):
    monkeypatch.setattr("palmkit_synthetic.recipe.SOURCES", ("no-such-package",))
    with pytest.raises(ModuleNotFoundError, match=r"no-such-package .*palmkit\[synthetic\]"):
        recipe(TRAIN)
