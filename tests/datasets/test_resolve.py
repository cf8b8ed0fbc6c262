"""Names become folders; an unknown name gets a suggestion."""

import os

import pytest

from palmkit import DatasetError, load_dataset
from palmkit.datasets import manifest
from palmkit.datasets.resolve import choose_folds, find_dataset
from palmkit.tables import write_split


@pytest.fixture
def data(tmp_path, monkeypatch):
    """PALMKIT_DATA with one dataset of two folds."""
    monkeypatch.setenv("PALMKIT_DATA", str(tmp_path))
    root = tmp_path / "My-Pets"
    clips = [("audios/a.wav", "cat"), ("audios/b.wav", "dog")]
    (root / "audios").mkdir(parents=True)
    for path, _ in clips:
        (root / path).touch()
    for fold in (1, 2):
        for split in ("train", "test"):
            write_split(root, split, fold, clips)
    return tmp_path


def refused(name):
    with pytest.raises(DatasetError) as caught:
        find_dataset(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Instrumets", "Did you mean Instruments"),
        ("vocalsounds", "Did you mean VocalSound"),
        ("mypets", "Did you mean My-Pets?"),
        ("some/where/My-Pet", "Did you mean My-Pets?"),
        ("esc-50", "Did you mean ESC50"),
    ],
)
def test_did_you_mean(name, meant, data):
    message = refused(name)
    assert meant in message and f"there is no dataset folder {name}, nor {data / name}" in message


def test_nothing_close_is_not_guessed(data):
    message = refused("zzz")
    assert "Did you mean" not in message and "Instruments" in message and "PALMKIT_DATA" in message


def test_a_published_dataset_that_is_not_fetched(data):
    assert "`palmkit fetch ESC50` fetches it" in refused("ESC50")
    assert "`palmkit fetch EmoDB` fetches it, or says how to get it" in refused("EmoDB")


def test_without_a_manifest_generated_names_are_still_suggested(data, monkeypatch):
    monkeypatch.setattr(manifest, "manifest_path", lambda: data / "nowhere.csv")
    assert "Did you mean Instruments?" in refused("instrument")


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name(name, data):
    assert "name is empty" in refused(name)


def test_a_file_that_is_no_table(data):
    (data / "clip.wav").touch()
    assert "clip.wav is a file, and no CSV" in refused("clip.wav")


def test_folds_by_word_and_number(data):
    assert choose_folds("My-Pets") == [1, 2] and choose_folds("My-Pets", "first") == [1]
    assert choose_folds("My-Pets", ["2"]) == [2]
    with pytest.raises(ValueError, match=r"My-Pets has the folds \[1, 2\]; there is no fold \[3\]"):
        choose_folds("My-Pets", [3, 1])
    assert load_dataset("My-Pets", 2).root == data / "My-Pets"


@pytest.mark.parametrize("folds", ["second", [], ["x"], [-1], [1.5]])
def test_folds_that_make_no_sense(folds, data):
    with pytest.raises(ValueError, match='use "all", "first" or a list of numbers'):
        choose_folds("My-Pets", folds)


def test_what_is_neither_a_folder_nor_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DatasetError, match="pipe is neither a folder nor a file"):
        load_dataset(tmp_path / "pipe")
