"""What the pages share: the sentence about other parameters, and the table of claims."""

import numpy as np
import pytest

from palmkit.experiments.config import choose, expand_datasets
from palmkit.results import pages

OWN = dict(only=["VocalSounds"], stream_epochs=8)


@pytest.fixture
def page():
    """The names of a page with every parameter of the default run, and two of its own."""
    defaults = choose({}).parameters()
    names = defaults | OWN | {"run": "notebooks", "np": np}
    return names | {"datasets": expand_datasets(defaults["datasets"])}


class TestChangedParameters:
    def test_none_in_the_default_run(self, page):
        assert pages.changed_parameters(page, **OWN) == []
        assert pages.changed_parameters({"run": "x"}) == []

    @pytest.mark.parametrize(
        "name, value",
        [
            ("seeds", [0]), ("folds", "first"), ("shots", 4), ("checkpoint", "pengi"),
            ("methods", ["palm"]), ("datasets", ["VocalSounds"]), ("only", []),
            ("stream_epochs", 50), ("protocol", "released"),
        ],
    )  # fmt: skip
    def test_each_counts(self, page, name, value):
        assert pages.changed_parameters(page | {name: value}, **OWN) == [name]

    @pytest.mark.parametrize("name, value", [("run", "x"), ("device", "cuda"), ("note", "mine")])
    def test_what_changes_no_finding_does_not(self, page, name, value):
        assert pages.changed_parameters(page | {name: value}, **OWN) == []

    def test_datasets_count_by_name(self, page):
        paths = [f"/data/{name}" for name in page["datasets"]]
        assert pages.changed_parameters(page | {"datasets": [*paths, "x/ESC10"]}, **OWN) == []

    def test_several_in_the_order_of_the_choices(self, page):
        changed = pages.changed_parameters(page | {"shots": 1, "seeds": [5], "only": []}, **OWN)
        assert changed == ["seeds", "shots", "only"]

    def test_an_own_parameter_that_is_not_there(self, page):
        with pytest.raises(KeyError, match="epoch_count"):
            pages.changed_parameters(page, epoch_count=3)


def test_the_sentence():
    assert pages.findings_note([]) is None
    text = pages.findings_note(["seeds", "shots"]).data
    assert "not the default run** (changed: seeds, shots)" in text
    assert "finds is of the default run" in text


def test_the_table_of_claims():
    table = pages.claim_table({
        "a gain": (0.055, 0.0544, "11 datasets"), "cells": (156, np.int64(146), 156),
        "no change": (0.5, 0.4999, 3), "ours alone": (None, np.float64(0.25), 2),
        "in words": ("all", "nine", 11), "missing": (0.5, np.nan, 3),
    }, digits=3)  # fmt: skip
    assert table.index.name == "claim"
    assert table.loc["a gain"].tolist() == ["0.055", "0.054", "-0.001", "11 datasets"]
    assert table.loc["cells"].tolist() == ["156", "146", "-10", "156"]
    assert table.loc["no change", "difference"] == "+0.000"
    assert table.loc["ours alone"].tolist() == ["–", "0.250", "–", "2"]
    assert table.loc["in words"].tolist() == ["all", "nine", "–", "11"]
    assert table.loc["missing"].tolist() == ["0.500", "–", "–", "3"]
