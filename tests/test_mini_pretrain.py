"""Pre-training runs, and what it writes is read by the same `load_pengi` as base.pth. That it learns is not tested."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from palmkit import load_pengi
from palmkit_mini import pretrain
from palmkit_mini.concepts import TRAINING

CONCEPTS = list(TRAINING)[:12]


@pytest.fixture(scope="module")
def corpus():
    """Two clips a concept, of noise."""
    log_mels = np.random.default_rng(0).normal(-40, 15, (24, 690, 64)).astype(np.float16)
    return SimpleNamespace(concepts=CONCEPTS, concept_ids=np.arange(24) % 12, shards={0: log_mels}, settings={})


def test_batches_are_of_distinct_concepts_and_finite(corpus):
    log_mels, ids, mask, concepts = pretrain.Batches(corpus, 8, seed=0)()
    assert log_mels.shape == (8, pretrain.FRAMES, 64) and log_mels.isfinite().all()
    assert len(set(concepts.tolist())) == 8 and ids.shape == mask.shape == (8, 40)


def test_the_corpus_is_heard_as_the_model_will_hear_it():
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
    torch.testing.assert_close(pengi.encode_audio(waveform), expected, atol=5e-3, rtol=0)  # half precision in the file


def test_a_run_of_other_settings_is_not_continued(corpus, tmp_path):
    pretrain.train(corpus, tmp_path, steps=1, batch=8, half=False)
    with pytest.raises(ValueError, match="is of another run"):
        pretrain.train(corpus, tmp_path, steps=2, batch=8, half=False)
