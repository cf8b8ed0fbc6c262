"""`palmkit doctor`: what an installation is, and whether it computes what it should."""

import json
import shutil

import pytest
from notebook_cells import make_tiny_dataset

from palmkit import doctor, self_test
from palmkit.checksums import hash_files, write_checksums
from palmkit.cli import main


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder of data with a fetched dataset, one of one's own, and a checkpoint."""
    root = tmp_path / "data"
    for name in ("fetched", "own"):
        make_tiny_dataset(root / name)
    write_checksums(root / "fetched", hash_files(root / "fetched"), name="fetched")
    (root / "pengi").mkdir()
    (root / "pengi" / "base.pth").write_bytes(b"123")
    monkeypatch.setenv("PALMKIT_DATA", str(root))
    monkeypatch.setenv("PALMKIT_CACHE", str(tmp_path / "cache"))
    return root


@pytest.mark.slow
def test_what_is_at_hand_is_listed_with_its_checksum(data):
    found = doctor.examine(parity=False)
    assert [one["name"] for one in found["checkpoints"]] == [
        "mini/mini.safetensors",
        "mini_clap/mini_clap.safetensors",
        "pengi/base.pth",
    ]
    assert [one["state"] for one in found["checkpoints"]] == ["as shipped", "as shipped", ""]
    assert found["checkpoints"][2]["sha256"].startswith("a665a45920422f9d417e4867efdc4fb8a04a1f3f")
    assert [one["name"] for one in found["datasets"]] == ["fetched", "own"]
    assert [one["state"] for one in found["datasets"]] == ["as fetched", ""]
    assert [one["folds"] for one in found["datasets"]] == [2, 2]
    assert [step["ok"] for step in found["self_test"]] == [True] * 5
    assert doctor.find_problems(found) == []
    text = doctor.format_report(found)
    for part in (
        "torch ",
        "Memory: ",
        "Folders",
        "own: 2 folds",
        "For a bug report",
        "No problems",
    ):
        assert part in text


def test_a_change_of_what_was_fetched_is_a_problem(data):
    (data / "fetched" / "1-0-0.wav").write_bytes(b"RIFF")
    found = doctor.examine(parity=False)
    (problem,) = doctor.find_problems(found)
    assert problem.startswith("fetched: ") and "changed: 1-0-0.wav" in problem
    assert problem in doctor.format_report(found)


def test_a_checksum_file_that_is_damaged(data):
    (data / "fetched" / "palmkit.lock.json").write_text("{")
    (problem,) = doctor.find_problems(doctor.examine(parity=False))
    assert "is no checksum file" in problem


FLAT = """
import torch
from toy_models import WordModel

class FlatModel(WordModel):
    about = {"licence": "CC0"}
    def encode_audio(self, waveforms):
        return torch.nn.functional.normalize(torch.ones(len(waveforms), self.dim), dim=-1)

MODELS = {"flat": FlatModel}
"""


@pytest.mark.slow
def test_a_model_is_checked_too(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("palmkit.doctor.run_parity_tests", lambda: None)
    monkeypatch.setenv("PALMKIT_IMPORT", "")  # --import adds to it
    (tmp_path / "flat.py").write_text(FLAT)
    assert main(["doctor", "--import", str(tmp_path / "flat.py"), "--checkpoint", "flat"]) == 1
    text = capsys.readouterr().out
    assert "licence: CC0" in text and "training data: not stated" in text
    assert "model flat, sounds differ: The mean cosine" in text
    assert main(["doctor", "--checkpoint", "mini"]) == 0
    assert "licence: MIT" in capsys.readouterr().out


class TestSelfTest:
    def test_other_numbers_fail(self, tmp_path):
        numbers = json.loads(self_test.EXPECTED.read_text())
        numbers["embed text"][3] += 1e-3
        (tmp_path / "other.json").write_text(json.dumps(numbers))
        outcomes = self_test.run_self_test(expected=tmp_path / "other.json")
        assert [one.ok for one in outcomes] == [True, True, False, True, True]

    def test_a_step_that_raises_is_told(self, monkeypatch):
        def fail(steps):
            raise RuntimeError("no kernel image")

        monkeypatch.setitem(self_test.STEPS, "embed sound", fail)
        first, last = self_test.run_self_test()
        assert first.ok and last.problem == "RuntimeError: no kernel image" and not last.ok

    def test_what_is_expected_may_be_missing(self, tmp_path):
        (outcome,) = self_test.run_self_test(expected=tmp_path / "none.json")
        assert not outcome.ok and "install palmkit again" in outcome.problem

    @pytest.mark.slow
    def test_parity_with_the_committed_tensors(self):
        outcome = self_test.run_parity_tests()
        assert outcome.ok and outcome.problem == ""


class TestCommand:
    @pytest.fixture(autouse=True)
    def no_parity(self, monkeypatch):
        monkeypatch.setattr("palmkit.doctor.run_parity_tests", lambda: None)

    @pytest.mark.slow
    def test_as_text_and_as_json(self, data, capsys):
        assert main(["doctor"]) == 0
        assert "train PALM: ok" in capsys.readouterr().out
        assert main(["doctor", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["problems"] == [] and found["folders"]["data"]["path"] == str(data)

    def test_a_problem_is_the_exit_status(self, data, capsys):
        shutil.rmtree(data / "fetched" / "csv_files")
        assert main(["doctor"]) == 1
        assert "fetched: " in capsys.readouterr().out.partition("Problems")[2]


def test_a_folder_that_there_cannot_be(data, monkeypatch):
    monkeypatch.setenv("PALMKIT_DATA", str(data / ("x" * 300)))
    found = doctor.examine(parity=False)
    assert found["folders"]["data"]["exists"] is False
    assert found["datasets"] == [] and len(found["checkpoints"]) == len(doctor.SHIPPED)


@pytest.mark.parametrize("content", ["{}", "[]", '{"decode and resample": ["a"]}'])
def test_expected_numbers_that_are_damaged(content, tmp_path):
    (tmp_path / "other.json").write_text(content)
    (outcome,) = self_test.run_self_test(expected=tmp_path / "other.json")
    assert "other.json cannot be read" in outcome.problem and not outcome.ok
