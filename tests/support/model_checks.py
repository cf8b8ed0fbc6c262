"""What tests of several models check in the same way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import soundfile
import torch

from palmkit import METHODS, evaluate, fit
from palmkit.experiments.run import run_trials
from palmkit.experiments.trials import make_grid

METHOD_NAMES = ["zeroshot", "coop", "cocoop", "palm", "solved-palm", "kernel-ridge"]
SETTINGS = dict(epochs=5, batch_size=4, lr=0.02)
STEPS = 15  # of three classes with four clips each


def assert_near(ours: torch.Tensor, theirs: torch.Tensor, tolerance=1e-5) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance


def watch_digests(model) -> Callable[..., tuple[bool, bool]]:
    """changed(target, name, value): whether (digest, audio_digest) change with it.

    It sets an item of a dict or list, or an attribute of anything else. The old value is put back,
    and the digests must be the first ones again.
    """
    first = model.digest(), model.audio_digest()

    def changed(target, name, value) -> tuple[bool, bool]:
        is_item = isinstance(target, dict | list)
        old = target[name] if is_item else getattr(target, name)
        put = target.__setitem__ if is_item else lambda *pair: setattr(target, *pair)
        put(name, value)
        now = model.digest() != first[0], model.audio_digest() != first[1]
        put(name, old)
        assert (model.digest(), model.audio_digest()) == first
        return now

    return changed


def check_trials(model, root: Path, folder: Path, encode: Callable) -> None:
    """Rows of METHOD_NAMES are as from clips that are read and learned from by hand.

    root: a dataset as `tones.write_tone_dataset` writes it. folder: of the run and its cache.
    encode: a list of waveforms [samples] as they are in the files -> embeddings [n, dim].
    """
    grid = make_grid(datasets=[str(root)], methods=METHOD_NAMES, seeds=[0], shots=4, **SETTINGS)
    rows = run_trials(grid, model, folder / "run", cache=folder / "cache")
    assert [row["method"] for row in rows] == METHOD_NAMES
    train, test = (pd.read_csv(root / f"{split}.csv") for split in ("train", "test"))
    names = sorted({*test["classname"]})

    def embed_files(table: pd.DataFrame):
        """Embeddings of a table's files, and their labels: classes are sorted by name."""
        waves = [soundfile.read(root / path, dtype="float32")[0] for path in table["path"]]
        labels = torch.tensor([names.index(name) for name in table["classname"]])
        return encode([torch.from_numpy(wave) for wave in waves]), labels

    features, labels = embed_files(test)
    for row in rows:
        assert row["weights"] == model.digest() and "not PENGI" in row["note"]
        method = METHODS[row["method"]](model, names, seed=0)
        if method.learns:
            support = train.set_index("path").loc[row["clips"]].reset_index()
            losses = fit(method, *embed_files(support), **SETTINGS, seed=0)
            assert row["losses"] == pytest.approx(losses, rel=1e-3, abs=1e-3)
            assert method.own_fit or len(losses) == STEPS
        expected = evaluate(method, features, labels)
        assert row["accuracy"] == expected["accuracy"] and not row["diverged"]
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-3, abs=1e-3)
    assert len({row["loss"] for row in rows}) == len(rows)
    again = run_trials(grid, model, folder / "run", cache=folder / "cache")
    assert [row["written"] for row in again] == [row["written"] for row in rows]
