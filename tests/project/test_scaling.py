"""benchmarks/scaling.py runs, and tells of what it cannot compare."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
GIVEN = SimpleNamespace(repeats=1, seconds=0.01, models=["mini-PENGI"], small=True)


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scaling

    return scaling


@pytest.mark.slow
def test_the_script_runs():
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "scaling.py"), "--small"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("**Small: a test of the script, no result.**")
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    units = [line.split(" | ")[0][2:] for line in rows]
    assert units[1:6] == [
        "embedding, 4 clips",
        "4 closed forms",
        "PALM, 5 steps",
        "COOP, 5 steps",
        "COCOOP, 5 steps",
    ]
    assert units[-2:] == ["3 seeds", "10 seeds"]


def test_ratios_are_first_over_second(scaling):
    times = iter([2.0, 1.0, 6.0, 2.0, 4.0, 4.0])
    ratios = scaling.compare(times.__next__, times.__next__, 3)
    assert ratios == [2.0, 3.0, 1.0]
    assert scaling.spread(ratios) == "2.00 (1.00 to 3.00)"


def test_wrong_stacks_are_not_timed(scaling, monkeypatch):
    alone = scaling.seeds_alone
    monkeypatch.setattr(scaling, "seeds_stacked", lambda *about: [z * 1.001 for z in alone(*about)])
    with pytest.raises(AssertionError, match="stacked seeds differ by .*; nothing is timed"):
        scaling.stack_cells("mini-PENGI", 2, GIVEN)


def test_a_unit_that_fails_is_told(scaling, monkeypatch):
    import scaling_units

    monkeypatch.setitem(scaling_units.UNITS, "broken", lambda model: 1 / 0)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        scaling_units.seconds_of("broken", "mini-PENGI", 1, processes=1)
