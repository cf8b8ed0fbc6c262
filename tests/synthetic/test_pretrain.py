"""Pre-training runs, and what it writes is read by the same `load_pengi` as base.pth.

That it learns is not tested.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mini_pengi import pretrain, steady

from palmkit import load_pengi
from palmkit.models.encoders import EOT, tokenize
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


def test_a_run_of_other_settings_is_not_continued(corpus, tmp_path):
    pretrain.train(corpus, tmp_path, steps=1, batch=8, half=False)
    with pytest.raises(ValueError, match="is of another run"):
        pretrain.train(corpus, tmp_path, steps=2, batch=8, half=False)


def test_disturbing_puts_random_tokens_in_front_and_nothing_else():
    ids, mask = tokenize(["the sound of rain", "x " * 36])
    rng, seen = np.random.default_rng(0), set()
    for _ in range(30):
        new, wide = steady.disturb(ids, mask, rng, most=20)
        for row, length in enumerate(mask.sum(1).tolist()):
            extra = int(wide[row].sum()) - length
            assert 0 <= extra <= 20 and length + extra <= 40
            assert new[row, 0] == ids[row, 0] and (new[row, 1 : 1 + extra] < steady.WORDS).all()
            assert torch.equal(new[row, 1 + extra : length + extra], ids[row, 1:length])
            assert (new[row, length + extra :] == EOT).all()
            seen.add((row, extra))
    assert len(seen) > 12
    assert not torch.equal(ids, new) and mask.sum() < wide.sum()


def test_a_gain_changes_no_embedding():
    text = pretrain.Mini(12, seed=0).text.eval()
    ids, mask = tokenize(["the sound of rain", "church bells."])
    steady.amplify(text, 30.0)  # LayerNorm's epsilon, which a gain makes less of, is then nothing
    with torch.no_grad():
        before, residual = text(ids, mask), text.token_embedding.weight.clone()
        steady.amplify(text, 4.0)
        torch.testing.assert_close(text(ids, mask), before, atol=1e-4, rtol=0)
    assert torch.equal(text.token_embedding.weight, 4 * residual)


@pytest.mark.slow
def test_text_learns_to_look_past_random_tokens_and_is_steadied_once(corpus, tmp_path):
    pretrain.train(corpus, tmp_path, steps=1, batch=8, half=False)
    steady.steady(tmp_path, seed=0, steps=60, batch=16)
    log = json.loads((tmp_path / "log.json").read_text())
    losses = log["settings"]["steady"]["losses"]
    assert losses[-1] < losses[0] and log["settings"]["steps"] == 1
    made = (tmp_path / "mini.safetensors").read_bytes()
    steady.steady(tmp_path, seed=0, steps=60, batch=16)
    assert (tmp_path / "mini.safetensors").read_bytes() == made
    tokens = load_pengi(tmp_path / "mini.safetensors", device="cpu").text.token_embedding.weight
    first = pretrain.Mini(len(CONCEPTS), seed=0).text.token_embedding.weight
    unseen = slice(40_000, 40_010)  # in no caption of a step: only the gain has touched them
    torch.testing.assert_close(
        tokens[unseen], steady.GAIN * first[unseen].detach(), atol=1e-3, rtol=0
    )
