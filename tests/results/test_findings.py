"""Sentences of a page and their conditions."""

import numpy as np
import pandas as pd
import pytest

from palmkit.results import Findings


def make(default_run=True, **holds):
    found = Findings(default_run)
    for sentence, condition in holds.items():
        found.add(sentence, condition)
    return found


def test_what_holds_is_shown_and_passes():
    found = make(one=True, two=np.bool_(True))
    found.add("three", 1 > 0, part="Misses")
    found.check()
    assert found.markdown() == "**Found**\n\n- one\n- two\n\n**Misses**\n\n- three"
    assert found._repr_markdown_() == found.markdown() and repr(found) == "3 findings"


@pytest.mark.parametrize("holds", [False, np.nan, pd.NA, None, np.bool_(False)])
def test_a_sentence_that_does_not_hold_is_an_error(holds):
    with pytest.raises(AssertionError, match="not true: false$"):
        make(true=True, false=holds).check()


def test_another_run_says_so_and_is_no_error():
    found = make(default_run=False, true=True, false=False)
    found.check()
    lines = found.markdown().splitlines()
    assert "written for the default run" in lines[0]
    assert "- true" in lines and "- **Not in this run:** false" in lines
