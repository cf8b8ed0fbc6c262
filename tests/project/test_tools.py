"""The maintainer's scripts start, and find what they need without a test's settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import reference

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "tools").glob("*.py"))


def run(*arguments):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tools'}"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_finds_its_imports(name):
    path = ROOT / "tools" / name
    done = run("-c", f"import runpy; runpy.run_path({str(path)!r}, run_name='imported')")
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_pretraining_starts():
    done = run("-m", "mini_pengi", "--help")
    assert done.returncode == 0 and "usage:" in done.stdout, done.stderr[-2000:]


def test_the_reference_is_looked_for_beside_the_project():
    """Where it is not found, tests that need it skip, and nobody would notice."""
    assert ROOT.parent / "shared" / "reference" == reference.SHARED
    assert reference.FIXTURES == ROOT / "tests" / "fixtures" and reference.FIXTURES.is_dir()
