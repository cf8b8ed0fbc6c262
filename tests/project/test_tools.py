"""The maintainer's scripts start, and find what they need without a test's settings."""

import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import reference
import torch

from palmkit import PALM, CoCoOp, CoOp, load_model

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "tools").glob("*.py"))


def run(*arguments):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tools'}"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


RUN_EACH = """
import os, runpy, sys, traceback
import palmkit.models, palmkit.results  # what most scripts need; loaded once for all of them
for path in sys.argv[1:]:
    sys.stderr.flush()
    if not (child := os.fork()):
        try:
            runpy.run_path(path, run_name="imported")
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(path)
"""


@pytest.mark.slow
def test_scripts_find_their_imports():
    done = run("-c", RUN_EACH, *(str(ROOT / "tools" / name) for name in SCRIPTS))
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr[-3000:]


@pytest.mark.slow
def test_the_pretraining_starts():
    done = run("-m", "mini_pengi", "--help")
    assert done.returncode == 0 and "usage:" in done.stdout, done.stderr[-2000:]


def test_the_reference_is_looked_for_beside_the_project():
    """Where it is not found, tests that need it skip, and nobody would notice."""
    assert ROOT.parent / "shared" / "reference" == reference.SHARED
    assert reference.FIXTURES == ROOT / "tests" / "fixtures" and reference.FIXTURES.is_dir()


@pytest.mark.parametrize("cls", [CoOp, CoCoOp, PALM])
def test_the_straightforward_computation_takes_mini_pengi(cls, monkeypatch):
    """The benchmark stopped after its first model: mini-PENGI's text is float64, features float32.

    Both ways compute the same logits, or their times would not be of the same work.
    """
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    learner = importlib.import_module("straightforward").Learner
    method = cls(load_model("mini", "cpu"), ["dog", "rain"])
    features = torch.randn(3, method.model.dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(learner(method)(features), method(features), atol=1e-4, rtol=0)


def test_all_tests_and_all_pages_are_in_one_half():
    halves = runpy.run_path(str(ROOT / "tools" / "run_tests.py"))["all_halves"]()
    assert halves["tests"][-1] == "tests" and "notebooks" in halves["notebooks"]
    assert not [one for command in halves.values() for one in command if "ignore" in one]


def test_every_fast_test_is_in_one_half():
    halves = runpy.run_path(str(ROOT / "tools" / "run_tests.py"))["fast_halves"]()
    folders = [
        argument for command in halves.values() for argument in command if "tests" in argument
    ]
    expected = {str(path.parent) for path in (ROOT / "tests").rglob("test_*.py")}
    assert len(halves) == 2 and sorted(folders) == sorted(expected)
    assert all(command[-1] != "not slow" for command in halves.values())
