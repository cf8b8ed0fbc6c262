"""`benchmarks/scale.py` at tiny sizes: what a step does grows with the size, and no faster.

Calls, opened files and looks at files are counted, not timed: the counts do not depend on the
machine. A step that looks at every clip for every trial, class or row has too many.
"""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import scale  # noqa: E402

LINEAR = 1.2  # what a step may do for each clip, beside what it does at the smaller size
# Rows are 40 of zero-shot and 160 for each seed.
SIZES = {"clips": (100, 300), "classes": (20, 60), "rows": (200, 360)}


@pytest.fixture(scope="module", params=SIZES)
def counts(request, tmp_path_factory):
    """(kind, {step: counts at the small size, and at the larger one})."""
    kind, found = request.param, {}
    with pytest.MonkeyPatch.context() as patch:
        for size in SIZES[kind]:
            place = scale.Place(tmp_path_factory.mktemp(f"{kind}-{size}"), kind, size)
            for name, value in place.environment().items():
                patch.setenv(name, value)
            scale.start(place, "build")  # in another process, so that this one knows no clip
            for step in scale.STEPS:
                if step.kind == kind:
                    measured = scale.measure(step.name, place, counted=True)
                    found.setdefault(step.name, []).append(measured)
    return kind, found


@pytest.mark.slow
def test_nothing_grows_faster_than_the_data(counts):
    kind, found = counts
    few, many = SIZES[kind]
    for step, (small, large) in found.items():
        for what in ("calls", "opens", "stats", "lists"):
            assert large[what] <= LINEAR * many / few * small[what] + 50, f"{step}: {what}"


# For each clip, class or row: calls of functions, opened files, looks at files. Calls are 1.5 times
# those that were found (Python 3.11, pandas 3.1), files exactly as many.
MOST = {
    "read the tables (`load_dataset`)": (120, 0, 1),
    "hash all clips, once a process": (172, 1, 1),
    "look again whether a clip has changed": (119, 0, 1),
    "draw 16 shots": (1, 0, 0),
    "look up all embeddings (`embed`)": (904, 1, 2),
    "count what the cache lacks": (29, 0, 1),
    "`palmkit run --dry-run`, 201 trials": (600, 0, 5),
    "`palmkit run`, one zero-shot trial": (600, 0, 5),
    "`palmkit check`, every file": (1457, 1, 2),
    "draw 2 shots a class": (33, 0, 0),
    "encode the class names": (264, 0, 0),
    "build PALM, one step": (160, 0, 0),
    "count confusions, 5 rows": (134, 0, 0),
    "the report, 5 rows": (600, 0, 0),
    "plan the grid (`palmkit run --dry-run`)": (2694, 2, 2),
    "`palmkit status`": (611, 1, 0),
    "read the rows (`load_rows`)": (605, 1, 0),
    "`palmkit table`": (715, 1, 0),
    "`palmkit leaderboard`": (1028, 1, 0),
    "`palmkit export`, CSV": (1215, 1, 0),
    "the report": (3924, 5, 2),
    "resume: `palmkit run` with two trials left, table and report": (7464, 8, 4),
}


@pytest.mark.slow
def test_each_clip_class_and_row_is_looked_at_a_few_times(counts):
    kind, found = counts
    few, many = SIZES[kind]
    for step, (small, large) in found.items():
        for what, most in zip(("calls", "opens", "stats"), MOST[step], strict=True):
            each = (large[what] - small[what]) / (many - few)
            assert each <= most + 0.1, f"{step}: {each:.2f} {what} for each of {kind}"


def test_every_step_has_its_numbers():
    assert {step.name for step in scale.STEPS} == {*MOST}


@pytest.mark.slow
def test_the_command_prints_its_table(tmp_path):
    script = str(BENCHMARKS / "scale.py")
    sizes = ["--clips", "40", "80", "--classes", "--rows", "--only", "draw", "--repeats", "1"]
    call = [sys.executable, script, *sizes, "--folder", str(tmp_path)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "| `palmkit --help` |" in done.stdout
    assert "| step | 40 clips | 80 clips | growth of time |" in done.stdout
    assert "| draw 16 shots |" in done.stdout
    assert not [*tmp_path.iterdir()]  # all that was made is gone


def test_growth_is_the_exponent():
    assert scale.growth(2, 200, 10) == pytest.approx(2)
    assert scale.growth(3, 30, 10) == pytest.approx(1)
