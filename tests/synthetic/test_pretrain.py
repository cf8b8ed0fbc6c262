"""Pre-training runs, and what it writes is read by the same `load_pengi` as base.pth.

That it learns is not tested.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mini_pengi import descriptions, pretrain, text_tower, views
from mini_views import noise_views

from palmkit import load_pengi
from palmkit.models.encoders import tokenize
from palmkit_synthetic.concepts import TRAINING

CONCEPTS = list(TRAINING)[:12]


@pytest.fixture(scope="module")
def corpus():
    """Two clips a concept, of noise."""
    log_mels = np.random.default_rng(0).normal(-40, 15, (24, 690, 64)).astype(np.float16)
    return SimpleNamespace(
        concepts=CONCEPTS, concept_ids=np.arange(24) % 12, shards={0: log_mels}, settings={}
    )


def test_batches_are_of_distinct_concepts_and_finite(corpus):
    log_mels, ids, mask, concepts = pretrain.Batches(corpus, 8, seed=0)(0)
    assert log_mels.shape == (8, pretrain.FRAMES, 64) and log_mels.isfinite().all()
    assert len(set(concepts.tolist())) == 8 and ids.shape == mask.shape == (8, 40)


def test_the_corpus_has_the_models_frames():
    """Every fourth frame of the corpus is what the model's own front end makes of 7 s."""
    assert pretrain.CONFIG["audio"]["hop_size"] == 320 * pretrain.STRIDE
    assert 308_700 // pretrain.CONFIG["audio"]["hop_size"] + 1 == pretrain.FRAMES


@pytest.mark.slow
def test_equal_seeds_train_equal_models_and_load(corpus, tmp_path):
    logs = [
        pretrain.train(corpus, tmp_path / name, steps=2, batch=8, seed=seed, half=False)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert logs[0] == logs[1] != logs[2]
    checkpoint = tmp_path / "a" / "mini.safetensors"
    assert checkpoint.stat().st_size < 10_000_000
    pengi = load_pengi(checkpoint, device="cpu")
    trained = pretrain.Mini(len(CONCEPTS), seed=0)
    trained.load_state_dict(torch.load(tmp_path / "a" / "progress.pt", weights_only=False)["model"])
    trained.eval()
    waveform = 0.1 * torch.randn(1, 308_700, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(trained.audio(waveform), dim=-1)
    torch.testing.assert_close(
        pengi.encode_audio(waveform), expected, atol=5e-3, rtol=0
    )  # half precision in the file


@pytest.mark.slow
def test_a_stopped_run_goes_on_as_if_it_had_not_been(corpus, tmp_path, monkeypatch):
    """The same weights, bit by bit: nothing random hangs on what ran before in the process."""
    settings = dict(steps=4, batch=8, half=False)
    whole = pretrain.train(corpus, tmp_path / "whole", save_every=2, **settings)

    real = pretrain.train_step

    def stopped(model, optimizer, batch, step, settings):
        if step == 3:
            raise KeyboardInterrupt
        return real(model, optimizer, batch, step, settings)

    monkeypatch.setattr(pretrain, "train_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        pretrain.train(corpus, tmp_path / "stopped", save_every=2, **settings)
    monkeypatch.setattr(pretrain, "train_step", real)
    assert (tmp_path / "stopped" / "mini.safetensors").is_file()  # saved after two steps
    torch.manual_seed(123)
    again = pretrain.train(corpus, tmp_path / "stopped", save_every=2, **settings)
    assert again[-1]["step"] == whole[-1]["step"] == 4
    files = [(tmp_path / name / "mini.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert files[0] == files[1]


def test_a_batch_follows_from_seed_and_step(corpus):
    make = pretrain.Batches(corpus, 8, seed=3)
    one, two, other = make(5), make(5), make(6)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], other[0]) and not torch.equal(
        make(5)[0], pretrain.Batches(corpus, 8, 4)(5)[0]
    )
    captions = [caption for step in range(40) for caption in make.make(step)[1]]
    assert any(
        " and " in caption or "background" in caption for caption in captions
    )  # two sounds, both named
    assert {caption.endswith(".") for caption in captions} == {True, False}


def test_two_sounds_together_are_their_powers_added():
    a, b = torch.tensor([0.0, -20.0, -100.0]), torch.tensor([0.0, -30.0, 0.0])
    expected = 10 * torch.log10(10 ** (a / 10) + 10 ** (b / 10))
    torch.testing.assert_close(pretrain.add_power(a, b), expected, atol=1e-5, rtol=0)
    level = pretrain.mean_level(torch.tensor([[0.0, -10.0]]))
    assert level == pytest.approx(10 * np.log10((1 + 0.1) / 2), abs=1e-4)


def test_decay_is_for_matrices_only():
    model = pretrain.Mini(12, seed=0)
    decayed, plain = pretrain.optimizer_of(model, 1e-3, 0.05).param_groups
    assert decayed["weight_decay"] == 0.05 and plain["weight_decay"] == 0
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert any(p is model.text.token_embedding.weight for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))


@pytest.mark.slow
def test_a_run_of_other_settings_is_not_continued(corpus, tmp_path):
    pretrain.train(corpus, tmp_path, steps=1, batch=8, half=False)
    with pytest.raises(ValueError, match="is of another run"):
        pretrain.train(corpus, tmp_path, steps=2, batch=8, half=False)


def test_a_gain_changes_no_embedding():
    text = pretrain.Mini(12, seed=0).text.eval()
    ids, mask = tokenize(["the sound of rain", "church bells."])
    text_tower.amplify(
        text, 30.0
    )  # LayerNorm's epsilon, which a gain makes less of, is then nothing
    with torch.no_grad():
        before, residual = text(ids, mask), text.token_embedding.weight.clone()
        text_tower.amplify(text, 4.0)
        torch.testing.assert_close(text(ids, mask), before, atol=1e-4, rtol=0)
    assert torch.equal(text.token_embedding.weight, 4 * residual)


SMALL = text_tower.TEXT | {"batch": 10, "steps": 60, "warmup": 5}


def test_captioned_batches_have_distinct_concepts_and_follow_from_seed_and_step():
    batches = text_tower.CaptionedBatches(noise_views(CONCEPTS), SMALL, seed=3)
    rows, captions = batches.draw(5)
    assert len({batches.clips[row]["concept"] for row in rows}) == 10
    again, others = batches.draw(5), batches.draw(6)
    assert (again[0] == rows).all() and again[1] == captions != others[1]
    assert captions != text_tower.CaptionedBatches(noise_views(CONCEPTS), SMALL, seed=4).draw(5)[1]


def test_clips_with_a_second_sound_are_drawn_as_often_as_asked():
    def share(mixed: float) -> float:
        pairs = text_tower.CaptionedBatches(noise_views(CONCEPTS), SMALL | {"mixed": mixed}, seed=0)
        rows = np.concatenate([pairs.draw(step)[0] for step in range(60)])
        named = [pairs.clips[row]["second"] != "" for row in rows]
        return float(np.mean(named))

    assert share(1.0) == 1 and share(0.0) == pytest.approx(0.4, abs=0.06)
    assert share(0.5) == pytest.approx(0.7, abs=0.06)


def test_the_logit_scale_rises_to_the_published_one():
    learned = torch.tensor(np.log(17.0))
    scales = [text_tower.logit_scale(learned, step, 100).item() for step in range(100)]
    assert scales[0] == scales[49] == pytest.approx(17, rel=1e-5)
    assert all(a < b for a, b in zip(scales[49:], scales[50:], strict=False))
    assert scales[-1] == pytest.approx(100, rel=1e-5)
    wanted = learned.clone().requires_grad_()
    assert not text_tower.logit_scale(wanted, 60, 100).requires_grad


@pytest.mark.slow
def test_a_text_encoder_is_trained_once_and_leaves_the_audio_encoder(corpus, tmp_path):
    trunk, out = tmp_path / "trunk", tmp_path / "out"
    pretrain.train(corpus, trunk, steps=1, batch=8, half=False)
    text_tower.add_text_encoder(trunk, out, noise_views(CONCEPTS), seed=0, **SMALL)
    log = json.loads((out / "log.json").read_text())
    assert log["text_log"][-1]["contrast"] < log["text_log"][0]["contrast"] * 2
    assert log["text_log"][-1]["matched"] > log["text_log"][0]["matched"]
    assert log["settings"]["steps"] == 1 and log["settings"]["text"]["steps"] == 60
    before, after = (load_pengi(path / "mini.safetensors", "cpu") for path in (trunk, out))
    for name, tensor in before.audio.state_dict().items():
        same = torch.equal(tensor.double(), after.audio.state_dict()[name].double())
        assert same != name.startswith("projection."), name
    assert len(after.text.layers) == text_tower.LAYERS
    made = (out / "mini.safetensors").read_bytes()
    text_tower.add_text_encoder(trunk, out, noise_views(CONCEPTS), seed=0, **SMALL)
    assert (out / "mini.safetensors").read_bytes() == made
    text_tower.add_text_encoder(trunk, out, noise_views(CONCEPTS), seed=1, **SMALL)


def test_augmentation_says_what_it_did():
    """Above the edge nothing is left, and the gain and the hiss are those of the table."""
    x = torch.full((40, pretrain.FRAMES, 64), -30.0)
    rng = np.random.default_rng(0)
    changed, done = views.augment(x, rng)
    for clip, edge in zip(changed, done["edge_band"], strict=True):
        assert edge == 64 or (clip[:, edge:].median(0).values <= -99).sum() >= 64 - edge - 10
    clear = done["hiss_db"] > 60
    level = changed[:, :, :24].mean((1, 2)).numpy()
    assert np.corrcoef(level[clear], done["gain_db"][clear])[0, 1] > 0.8
    assert done["hiss_db"][~clear].between(-60, 60).all() and 5 < (~clear).sum() < 35


CLIP = {"wet": 0.4, "reverb": 1.5, "snr_db": 5.0, "edge_band": 30, "low_pass_hz": 20_000.0}
CLIP |= {"level_db": 20.0, "drive": 3.0, "excerpt": 1.0, "concept": "rain", "second": ""}
PLAIN = {"wet": 0.05, "reverb": 0.3, "snr_db": 30.0, "edge_band": 64, "low_pass_hz": 9_000.0}
PLAIN |= {"level_db": 0.0, "drive": 0.0, "excerpt": 9.0, "concept": "rain", "second": ""}


def test_captions_say_the_conditions_of_their_clip_and_no_other():
    before, after = descriptions.condition_words(CLIP)
    said = {word for words in [*before, *after] for word in words}
    assert {"distant", "in a large hall", "noisy", "muffled", "loud", "distorted"} <= said
    assert not said & {"clean", "bright", "quiet", "close to the microphone"}
    assert descriptions.condition_words(PLAIN) == ([], [])
    opposite = CLIP | {"wet": 0.0, "snr_db": 60.0, "edge_band": 64, "level_db": -20.0}
    before, after = descriptions.condition_words(opposite | {"drive": 0.0, "excerpt": 9.0})
    said = {word for words in [*before, *after] for word in words}
    assert {"clean", "bright", "faint", "close to the microphone"} <= said
    rng = np.random.default_rng(0)
    names = set(TRAINING["rain"].names)
    for _ in range(20):
        assert descriptions.describe("rain", PLAIN, rng, fully=True) == "rain"
        full = descriptions.describe("rain", CLIP, rng, fully=True)
        assert full != "rain" and any(name in full for name in names)


def test_captions_of_two_sounds_name_both():
    recipe = text_tower.TEXT | {"second_meaning": 0.0}
    rng, mixed = np.random.default_rng(0), PLAIN | {"second": "cow"}
    for _ in range(30):
        text = descriptions.caption(mixed, rng, recipe)
        assert any(name in text for name in TRAINING["rain"].names)
        assert any(name in text for name in TRAINING["cow"].names)


def test_a_name_of_two_meanings_comes_with_its_kind():
    recipe = text_tower.TEXT | {"second_meaning": 1.0, "described": 0.0}
    rng, hammer = np.random.default_rng(0), PLAIN | {"concept": "hammer"}
    texts = [descriptions.caption(hammer, rng, recipe) for _ in range(30)]
    assert all("metal" in text for text in texts)
    assert all("sound of" in text or "heard" in text for text in texts)
    known = set(TRAINING)
    assert {key for keys in descriptions.DOUBLE_MEANINGS.values() for key in keys} <= known


def test_no_caption_is_a_prompt_of_the_wording_table():
    """Words of the eight prompts that are in no caption, by which they are new to the model."""
    everything = [*descriptions.TEMPLATES, *descriptions.SECOND]
    everything += [text for texts in descriptions.KIND_TEMPLATES.values() for text in texts]
    for clip in (CLIP, PLAIN, CLIP | {"wet": 0.0, "snr_db": 60.0}, CLIP | {"wet": 0.2}):
        everything += [
            word for words in sum(descriptions.condition_words(clip), []) for word in words
        ]
    text = " | ".join(everything)
    for words in ("this is", "close and clean", "hum", "playing", "imitating", "is a recording of"):
        assert words not in text, words
    assert len(descriptions.WORDINGS) == len(set(descriptions.WORDINGS)) == 8
    assert descriptions.WORDINGS[0] == "The is a recording of  {}."
