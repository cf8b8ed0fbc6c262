"""`make gpu` on the CPU: every part of the script runs, and what is over a limit is noticed."""

import copy
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gpu
import pytest
import torch
from device_checks import (
    DEFAULT,
    FULL,
    PRECISIONS,
    TF32,
    Line,
    Setup,
    costs,
    parity,
    precision,
    protocol,
    several,
    within,
)
from device_checks import rows as row_checks

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--device", "cpu", "--small"]


def cells(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines][1:]


@pytest.mark.slow
def test_the_whole_script_on_the_cpu(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "gpu.py"), *SMALL]
    places = {"PALMKIT_RUNS": str(tmp_path / "runs"), "PALMKIT_CACHE": str(tmp_path / "cache")}
    environment = os.environ | places | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    table = cells(done.stdout)
    assert table[0][1] == "cpu, small: a test of the script, no result"
    assert all(len(line) == 4 and line[3] in ("yes", "") for line in table)
    marks = [line[3] for line in table[:-1]]
    assert table[-1][1].startswith(f"{marks.count('yes')} of {marks.count('yes')} hold")
    names = [line[0] for line in table]
    for what in ("log-mel", "audio embedding", "text embedding", "COCOOP, 20 steps"):
        assert [f"{what}, {name}" in names for name in PRECISIONS] == [True] * 3
    expected = (
        "training step",
        "rows of the frozen",
        "autocast",
        "out of memory",
        "two devices in",
    )
    assert all(any(part in name for name in names) for part in expected)
    ratios = [line[1] for line in table if "training step" in line[0]]
    assert len(ratios) == 3 and all(re.search(r"ratio [\d.]+", text) for text in ratios)
    assert "parity, TF32 off" in done.stderr  # progress
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 0
    assert (
        capsys.readouterr().out
        == "skipped: PyTorch finds no CUDA device here, so nothing was run\n"
    )


def test_the_cpu_is_for_tests_of_the_script_only(capsys):
    with pytest.raises(SystemExit) as refusal:
        gpu.main(["--device", "cpu"])
    assert refusal.value.code == 2 and "--small" in capsys.readouterr().err


def section(*lines, error=None):
    def check(setup):
        yield from lines
        if error:
            raise error

    return SimpleNamespace(check=check)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("tried 80 GiB"), "the device's memory is too small, or others use"),
        (RuntimeError("a|b\nc"), "RuntimeError: a/b c"),
    ],
)
def test_an_error_is_a_line_and_the_next_section_runs(monkeypatch, capsys, error, words):
    last = section(within("the last", 0.5, 1.0))
    monkeypatch.setattr(gpu, "SECTIONS", {"first": section(error=error), "last": last})
    assert gpu.main(SMALL) == 1
    table = {line[0]: line for line in cells(capsys.readouterr().out)}
    assert table["first"][3] == "**no**" and words in table["first"][1]
    assert table["the last"] == ["the last", "5.0e-01", "1e+00", "yes"]
    assert table["all"][1].startswith("1 of 2 hold") and table["all"][3] == "**no**"


@pytest.mark.slow
@pytest.mark.parametrize(("error", "status"), [(0.9e-3, 0), (1.1e-3, 1), (math.nan, 1)])
def test_the_exit_status_follows_the_limits(monkeypatch, capsys, error, status):
    lines = [Line("seconds", "1.0 s"), within("an error", torch.tensor([0.0, error]), 1e-3)]
    monkeypatch.setattr(gpu, "SECTIONS", {"one": section(*lines)})
    assert gpu.main(SMALL) == status
    assert ("NOT within its limit: an error" in capsys.readouterr().err) == bool(status)


@pytest.mark.parametrize("name", [FULL, DEFAULT, TF32])
def test_precision_is_set_and_put_back(name):
    def now():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = now()
    with precision(name):
        assert now() == PRECISIONS[name]
    assert now() == before


@pytest.fixture
def setup(tmp_path):
    return Setup(torch.device("cpu"), True, tmp_path)


def spoil(model, encoder, factor):
    with torch.no_grad():
        getattr(model, encoder).projection.linear2.weight.mul_(factor)


@pytest.mark.parametrize("encoder", ["audio", "text"])
def test_parity_notices_other_weights(setup, encoder):
    spoil(setup.there, encoder, 1.001)
    with precision(FULL):
        errors = parity.measure_encoders(setup)
    over = {
        what for (what, kind), error in errors.items() if error.max() > parity.LIMITS[FULL][kind]
    }
    assert f"{encoder} embedding" in over and not over & {"log-mel", "image", "latent"}


@pytest.mark.slow
def test_the_protocol_notices_another_device_s_numbers(setup):
    spoil(setup.there, "audio", 1.01)
    first = next(protocol.check(setup))
    assert first.what == "stream, device to CPU" and first.passed is False


def test_nothing_is_timed_that_computes_something_else(setup, monkeypatch):
    monkeypatch.setattr(
        costs, "Audio", lambda model: lambda waves: 1.01 * model.encode_audio(waves)
    )
    with pytest.raises(AssertionError, match="encode_audio: the two computations differ"):
        next(costs.check(setup))


def test_a_batch_that_did_not_fit_is_named(setup, monkeypatch):
    measured = {"seconds": 0.5, "mib": 10.0}
    row = dict(what="COCOOP, training step", clips=16, plain_clips=2, palmkit=measured)
    row["plain"] = {"seconds": 4.0, "mib": 80.0}
    monkeypatch.setattr(costs, "learner_rows", lambda *given: [row])
    monkeypatch.setattr(costs, "ZeroShot", lambda *given: lambda features: features)
    stopwatch = costs.Stopwatch(setup.device, 1)
    line = [*costs.method_lines(setup, setup.there, stopwatch, 3, 16)][-1]
    expected = "0.500 s, 10 MiB; straightforward: 4.00 s, 80 MiB; ratio 8.00"
    assert line.value == f"{expected} (scaled up from 2 clips)"


def test_rows_of_a_second_run_that_differ_are_named(setup, monkeypatch, tmp_path):
    def run(setup, name, model, trials):
        error = 0.5 if name == "rows of the released protocol 2" else 0.0
        return [
            ({"method": one, "losses": [2.0 + error]}, {"logits": torch.ones(2, 2)})
            for one in ("palm", "coop")
        ]

    monkeypatch.setattr(row_checks, "run", run)
    row_checks.write_tones(tmp_path / "few", train=3, test=1)
    lines = {line.what: line for line in row_checks.equality_lines(setup, tmp_path / "few")}
    wrong = lines.pop("rows of the released protocol, run twice")
    assert wrong.passed is False and wrong.value == "0 of 2 rows equal (not palm, coop: 2.0e-01)"
    assert len(lines) == 2 and all(line.passed for line in lines.values())


@pytest.mark.parametrize(
    ("kind", "small", "count", "expected"),
    [
        ("cpu", True, 0, ["cpu", "cpu"]),
        ("cpu", False, 0, ["cpu"]),
        ("cuda", False, 1, ["cuda:0"]),
        ("cuda", True, 8, ["cuda:0", "cuda:1"]),
    ],
)
def test_which_devices_are_compared(monkeypatch, kind, small, count, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    given = SimpleNamespace(device=torch.device(kind), small=small)
    assert several.list_devices(given) == expected
    if len(expected) == 1:
        assert [*several.check(given)] == [Line("two devices", "not run: there is one")]


def test_a_pair_across_two_devices_is_refused(setup):
    other = copy.copy(setup.there)
    other.device = torch.device("meta")
    assert several.join(setup.there, setup.here) == "joined"
    assert several.join(setup.there, other) == "refused"


def test_the_card_is_named(monkeypatch):
    about = SimpleNamespace(name="NVIDIA Example", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    monkeypatch.setattr(gpu, "find_driver", lambda: "580.1.2")
    lines = gpu.describe_machine(SimpleNamespace(device=torch.device("cuda"), small=False))
    assert [line.value for line in lines[:2]] == ["NVIDIA Example, 80 GiB", "580.1.2"]
    assert torch.__version__ in lines[2].value and len(lines) == 4


def test_rows_that_differ_are_noticed():
    row = {
        "accuracy": 0.5,
        "losses": [1.0],
        "tensors": "abc",
        "seconds": {"fit": 1},
        "written": "x",
    }
    assert row_checks.same(row, row | {"seconds": {"fit": 2}, "written": "y"})
    for field, value in {"accuracy": 0.6, "losses": [1.0000001], "tensors": "abd"}.items():
        assert not row_checks.same(row, row | {field: value})
    logits = torch.tensor([[4.0, -2.0]])
    for changed in ({"logits": logits + 0.4}, {"logits": logits, "prompt.z": torch.ones(2)}):
        one = [(row, {"logits": logits, "prompt.z": 1.1 * torch.ones(2)})]
        other = [(row, {"prompt.z": 1.1 * torch.ones(2)} | changed)]
        assert row_checks.largest_error(one, other) == pytest.approx(0.1, rel=0.1)
    assert row_checks.largest_error(one, one) == 0


def test_the_driver_is_what_nvidia_smi_says(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.find_driver() == "unknown: nvidia-smi does not answer"
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 580.1.2\necho 580.1.2\n")
    program.chmod(0o755)
    assert gpu.find_driver() == "580.1.2"


def test_the_page_does_not_claim_a_run_that_was_not():
    page = (ROOT / "docs" / "gpu.md").read_text()
    assert ("**Not run so far**" in page) != ("| card |" in page)
    assert "cpu, small" not in page
