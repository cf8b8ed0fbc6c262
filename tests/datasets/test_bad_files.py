"""Bad files are found before anything is drawn, left out on demand, counted and named."""

import os

import numpy as np
import pytest
import soundfile
from outside import few, make_home, read_rows  # noqa: F401

from palmkit import DatasetError, draw_shots, load_dataset
from palmkit.cli import main
from palmkit.datasets.bad_files import find_bad_files
from palmkit.results.report import write_report


def spoil(home, name, kind="empty"):
    path = home / "tiny" / name
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "loud":
        soundfile.write(path, np.full(16_000, 1e19), 16_000, subtype="FLOAT")
    else:
        path.write_bytes(path.read_bytes()[:9000])
    return path


def test_bad_files_are_found_with_their_reasons(home):
    bad = [spoil(home, f"bell{name}.wav", kind) for name, kind in
           (("train0", "empty"), ("train1", "loud"), ("test1", "cut"))]  # fmt: skip
    paths = sorted((home / "tiny").glob("*.wav"))
    for _ in range(2):  # the second time from the cache
        found = find_bad_files(paths)
        assert set(found) == set(map(str, bad))
        assert [found[str(path)].split(" (")[0].split(";")[0] for path in bad] == [
            "the file is empty",
            "its peak is 1e+19",
            "is cut short",
        ]
    soundfile.write(bad[0], np.zeros(100), 16_000)
    assert set(find_bad_files(paths)) == {str(bad[1]), str(bad[2])}


def test_they_are_left_out_before_the_draw(home):
    """As if their rows were not in the tables."""
    spoil(home, "belltrain1.wav")
    left = load_dataset(home / "tiny", skip_bad=True)
    assert [text.partition(":")[0] for text in left.left_out] == ["belltrain1.wav"]
    table = home / "tiny" / "train.csv"
    table.write_text(table.read_text().replace("belltrain1.wav,bell\n", ""))
    without = load_dataset(home / "tiny", skip_bad=False)
    assert without.left_out == () and left.digest() == without.digest()
    assert list(draw_shots(left.train, 2)["path"]) == list(draw_shots(without.train, 2)["path"])


def test_a_class_without_clips(home):
    for n in range(2):
        spoil(home, f"belltest{n}.wav")
    with pytest.raises(DatasetError, match="tiny: without its bad files test has no clips of bell"):
        load_dataset(home / "tiny", skip_bad=True)


@pytest.mark.slow
def test_a_run_with_bad_files(home, capsys):
    """Without the flag its trials fail; with it rows and report count and name what is left out."""
    spoil(home, "belltrain1.wav")
    flags = few(home, "--import", home / "toy_model.py", "--checkpoint", "toy")
    flags += ["--method", "zeroshot", "palm"]
    assert main(["run", *flags, "--name", "bad"]) == 1
    assert main(["run", *flags, "--name", "one", "--skip-bad"]) == 0
    assert "tiny: 1 bad files are left out: belltrain1.wav: the file is empty" in (
        capsys.readouterr().err
    )
    assert not os.environ.get("PALMKIT_SKIP_BAD")
    rows = read_rows(home, "one")
    assert [rows[method]["n_bad"] for method in ("zeroshot", "palm")] == [1, 1]
    (named,) = rows["palm"]["bad_files"]
    assert named.startswith("belltrain1.wav: the file is empty")
    assert "belltrain1.wav" not in rows["palm"]["clips"]
    text = write_report("one").read_text()
    assert "tiny: --skip-bad left out 1 bad files. belltrain1.wav: the file is empty" in text


@pytest.mark.slow
def test_rows_of_a_whole_dataset_are_others(home):
    """Mended, the dataset has rows of its own, under another key."""
    good = (home / "tiny" / "belltrain1.wav").read_bytes()
    path = spoil(home, "belltrain1.wav")
    flags = few(home, "--import", home / "toy_model.py", "--checkpoint", "toy", "--skip-bad")
    flags += ["--method", "zeroshot", "--name", "two"]
    assert main(["run", *flags]) == 0
    path.write_bytes(good)
    assert main(["run", *flags]) == 0
    assert len(list((home / "runs" / "two" / "rows" / "tiny").glob("*.json"))) == 2
    assert sum("n_bad" in path.read_text() for path in (home / "runs").rglob("*.json")) == 1


@pytest.mark.slow
def test_the_flag_in_a_config_file(home):
    flags = few(home, "--import", home / "toy_model.py", "--checkpoint", "toy", "--skip-bad")
    config = home / "mine.toml"
    assert main(["run", *flags, "--method", "zeroshot", "--save-config", str(config)]) == 0
    assert "skip-bad = true" in config.read_text()
    spoil(home, "belltrain1.wav")
    assert main(["run", "--config", str(config), "--name", "three"]) == 0
    assert read_rows(home, "three")["zeroshot"]["n_bad"] == 1


@pytest.mark.slow
def test_the_flag_comes_before_the_variable(home, monkeypatch, capsys):
    """--no-skip-bad takes back what PALMKIT_SKIP_BAD says, and the variable stays."""
    spoil(home, "belltrain1.wav")
    monkeypatch.setenv("PALMKIT_SKIP_BAD", "1")
    flags = few(home, "--import", home / "toy_model.py", "--checkpoint", "toy", "--no-skip-bad")
    assert main(["run", *flags, "--method", "palm", "--name", "all"]) == 1
    assert "belltrain1.wav: the file is empty" in capsys.readouterr().err
    assert os.environ["PALMKIT_SKIP_BAD"] == "1"


@pytest.mark.slow
def test_a_bad_file_is_told_once_with_what_to_do(home, capsys):
    bad = spoil(home, "belltrain1.wav")
    assert main(["run", *few(home, "--method", "zeroshot", "palm", "--name", "told")]) == 1
    *messages, last = capsys.readouterr().err.splitlines()
    assert sum(str(bad) in line for line in messages) == 1
    assert "of 2 trials failed" in last and "or --skip-bad leaves bad files out" in last
    assert ".py, line" not in last
