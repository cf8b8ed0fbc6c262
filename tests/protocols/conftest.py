"""Fixtures of the tests of the released protocol."""

import pandas as pd
import pytest
from noise import write_clips

from palmkit.models.encoders import AudioEncoder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Six clips as a table with labels."""
    paths = write_clips(tmp_path_factory.mktemp("clips") / "short")
    return pd.DataFrame({"path": paths, "label": [0, 1, 2] * 2})


@pytest.fixture(scope="module")
def long_clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips") / "long", 2, 8)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def quick(monkeypatch):
    """An encoder that costs next to nothing, for tests that count and compare."""
    monkeypatch.setattr(
        AudioEncoder,
        "log_mel",
        lambda self, waves: 30 * waves[:, : 965 * 64].unflatten(1, (965, 64)),
    )
    monkeypatch.setattr(
        AudioEncoder,
        "pooled",
        lambda self, image: image[:, 0, : self.projection.linear1.in_features, ::8].mean(2),
    )
