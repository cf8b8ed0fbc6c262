"""Runs that are disturbed: what failed is told, all else is done, nothing is lost or left over."""

import json

import pytest
import soundfile
from outside import few, make_home  # noqa: F401

from palmkit.cli import main

FAILS = """
import torch
from palmkit import Method


class Fails(Method):
    name = "fails"

    def fit(self, features, labels, **settings):
        if self.seed == 1:
            raise {error}
        return []

    def forward(self, features):
        return features[:, : len(self.class_names)]
"""


def read_all(home, name="one") -> dict:
    """{method, dataset, seed: row} of a run."""
    paths = sorted((home / "runs" / name / "rows").glob("*/*.json"))
    rows = [json.loads(path.read_text()) for path in paths]
    return {(row["method"], row["dataset"], row["seed"]): row for row in rows}


def make_method(home, error: str, name="fails"):
    path = home / f"{name}.py"
    path.write_text(FAILS.format(error=error))
    return path


@pytest.mark.parametrize(
    "error", ["KeyError('no key')", "MemoryError()", "RuntimeError('two\\nlines')", "OSError(5)"]
)
def test_a_trial_that_raises_is_a_row_and_the_others_go_on(home, capsys, error):
    path = make_method(home, error)
    flags = few(home, "--import", path, "--method", "zeroshot", "fails", "--name", "one")
    flags += ["--seed", "0", "1", "2"]
    assert main(["run", *flags]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("palmkit: 1 of 4 trials failed")
    assert "fails on tiny, fold None, seed 1" in said.err and "--retry-failed" in said.err
    assert "Zero-shot" in said.out  # the table of the others
    rows = read_all(home)
    assert len(rows) == 4
    failed = rows["fails", "tiny", 1]
    assert error.partition("(")[0] in failed["failed"] and "\n" not in failed["failed"]
    assert f"{path.name} failed" in failed["failed"] and "line 11" in failed["failed"]
    assert "accuracy" not in failed and failed["palmkit"] and failed["seed"] == 1
    assert all("failed" not in row for key, row in rows.items() if key[2] != 1)
    page = (home / "runs" / "one" / "index.html").read_text()
    assert "Failed trials" in page and "fails on tiny, fold None, seed 1" in page


def test_failed_trials_run_again_when_asked(home, capsys):
    path = make_method(home, "KeyError('no key')")
    path.write_text(path.read_text().replace("self.seed == 1", "True"))
    flags = few(home, "--import", path, "--method", "fails", "--name", "one")
    assert main(["run", *flags]) == 1
    (row,) = (home / "runs" / "one" / "rows" / "tiny").glob("*.json")
    before = row.stat().st_mtime_ns
    assert main(["run", *flags]) == 1  # told again, not run again
    assert row.stat().st_mtime_ns == before
    assert main(["table", "one"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "1 of 1 trials failed" in error and "--retry-failed" in error
    assert main(["run", *flags, "--retry-failed"]) == 1
    assert row.stat().st_mtime_ns > before


def test_a_retry_that_succeeds_takes_the_place_of_the_failure(home, capsys, monkeypatch):
    monkeypatch.setenv("MENDED", "")
    error = "KeyError() if not __import__('os').environ['MENDED'] else StopIteration()"
    path = make_method(home, error)
    path.write_text(path.read_text().replace("if self.seed == 1:", "if not MENDED():"))
    path.write_text(f"import os\nMENDED = lambda: os.environ['MENDED']\n{path.read_text()}")
    flags = few(home, "--import", path, "--method", "fails", "--name", "one")
    assert main(["run", *flags]) == 1
    monkeypatch.setenv("MENDED", "yes")
    assert main(["run", *flags, "--retry-failed"]) == 0
    (row,) = read_all(home).values()
    assert "failed" not in row and 0 <= row["accuracy"] <= 1


def test_failed_rows_enter_no_mean(home, capsys):
    from palmkit.results import load_rows, result_tables

    path = make_method(home, "KeyError('no key')")
    flags = few(home, "--import", path, "--method", "fails", "--name", "one")
    assert main(["run", *flags, "--seed", "0", "1"]) == 1
    with pytest.warns(UserWarning, match="1 of 2 trials failed and count in no table"):
        rows = load_rows("one")
    (table,) = result_tables(rows)
    assert list(rows["seed"]) == [0] and list(table.summary["seeds"]) == [1]


def copy_dataset(home, name: str):
    import shutil

    return shutil.copytree(home / "tiny", home / name)


@pytest.mark.parametrize("first", [True, False])
def test_a_corrupt_clip_of_one_dataset_leaves_the_other(home, capsys, first):
    bad = copy_dataset(home, "broken")
    (bad / "belltest0.wav").write_bytes(b"RIFF, but no sound")
    folders = [str(bad), str(home / "tiny")][:: 1 if first else -1]
    flags = ["--dataset", *folders, "--shots", "2", "--epochs", "1", "--seed", "0"]
    checkpoint = ["--import", str(home / "toy_model.py"), "--checkpoint", "toy"]
    assert main(["run", *flags, *checkpoint, "--method", "zeroshot", "--name", "one"]) == 1
    rows = read_all(home)
    assert "belltest0.wav" in rows["zeroshot", "broken", 0]["failed"]
    assert 0 <= rows["zeroshot", "tiny", 0]["accuracy"] <= 1
    assert "1 of 2 trials failed" in capsys.readouterr().err
    soundfile.write(bad / "belltest0.wav", [0.1, 0.2] * 8000, 16_000)
    assert main(["run", *flags, *checkpoint, "--method", "zeroshot", "--name", "one"]) == 0


def test_a_run_s_folder_deleted_under_it_is_one_error(home, capsys):
    path = make_method(home, "KeyError()")
    text = path.read_text().replace("if self.seed == 1:", "import shutil; shutil.rmtree(RUN)\n"
                                    "        if False:")  # fmt: skip
    path.write_text(f"RUN = {str(home / 'runs' / 'one')!r}\n{text}")
    flags = few(home, "--import", path, "--method", "fails", "--name", "one")
    assert main(["run", *flags]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{home / 'runs' / 'one'} was deleted" in error and "The same command" in error
