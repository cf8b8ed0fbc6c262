"""Class folders as people have them: splits and folds around them, other files, odd names."""

import itertools
import os
import unicodedata

import pytest
from layouts import put, put_table

from palmkit import DatasetError, check_dataset, import_dataset, list_folds, load_dataset


def fill(root, *places, count=5, suffix=".wav"):
    for place in places:
        for n in range(count):
            put(root / place / f"{n}{suffix}")
    return root


def said(root):
    """What `check` says of an import."""
    return " ".join(check_dataset(root, decode=False).findings["what"])


@pytest.mark.parametrize(
    "names",
    [
        ("train", "test"),
        ("Training", "Testing"),
        ("train", "eval"),
        ("train", "validation", "test"),
        ("train", "dev", "test"),
        ("train_set", "test_set"),
        ("Train Data", "Test Data"),
        ("audio_train", "audio_test"),
        ("trainset", "validationset", "testset"),
    ],
)
@pytest.mark.parametrize("around", ["", "data", "my-sounds-master"])
def test_splits_are_no_classes(names, around, tmp_path):
    root = tmp_path / "pets"
    for split, name in itertools.product(names, ("cat", "dog")):
        fill(root / around, f"{split}/{name}", count=2)
    data = load_dataset(root)
    assert data.class_names == ["cat", "dog"] and len(data.train) == len(data.test) == 4
    assert all(f"/{names[0]}/" in path for path in data.train["path"])
    kept = data.read_validation()
    assert (kept is None) == (len(names) == 2)
    if len(names) == 3:
        assert len(kept) == 4 and "a validation split of 4 clips is kept" in said(root)


@pytest.mark.parametrize("name", ["fold{}", "Fold {}", "fold_0{}", "split_{}"])
def test_folds_are_no_classes(name, tmp_path):
    for fold in (1, 2, 3):
        fill(tmp_path / "pets", *(f"{name.format(fold)}/{c}" for c in ("cat", "dog")), count=2)
    assert list_folds(tmp_path / "pets") == [1, 2, 3]
    data = load_dataset(tmp_path / "pets", 2)
    assert data.class_names == ["cat", "dog"] and len(data.train) == 8
    assert all(f"/{name.format(2)}/" in path for path in data.test["path"])


@pytest.mark.parametrize("outer", [("train", "test"), ("fold1", "fold2", "fold3")])
def test_another_folder_beside_splits_or_folds(outer, tmp_path):
    """The splits do not become classes because of it."""
    fill(tmp_path / "pets", *(f"{one}/{name}" for one in outer for name in ("cat", "dog")), "noise")
    with pytest.raises(DatasetError, match="are splits or folds with class folders, and noise"):
        load_dataset(tmp_path / "pets")


def test_class_folders_with_equal_folders_are_said(tmp_path):
    """They may be speakers or places; only their owner knows."""
    fill(tmp_path / "sounds", *(f"{place}/{name}" for place in "ab" for name in ("cat", "dog")))
    assert "a, b are taken as classes, and all have the folders cat, dog" in said(
        tmp_path / "sounds"
    )
    fill(tmp_path / "others", "cat/ann", "cat/bob", "dog/ann", "dog/eve")
    fill(tmp_path / "plain", "cat", "dog")
    for name in ("others", "plain"):
        assert "taken as classes" not in said(tmp_path / name)


def test_a_class_may_be_named_train(tmp_path):
    """Beside bus and tram a train is a vehicle."""
    fill(tmp_path / "traffic", "train", "bus", "tram")
    assert load_dataset(tmp_path / "traffic", 1).class_names == ["bus", "train", "tram"]
    fill(tmp_path / "digits", "1", "2", "3")
    assert load_dataset(tmp_path / "digits", 1).class_names == ["1", "2", "3"]


def test_only_a_training_split(tmp_path):
    fill(tmp_path / "pets", "train/cat", "train/dog")
    with pytest.raises(DatasetError, match="the splits are train; there is no test split"):
        load_dataset(tmp_path / "pets")
    fill(tmp_path / "pets", "validation/cat", "validation/dog")
    with pytest.raises(DatasetError, match="are train and validation; there is no test split"):
        load_dataset(tmp_path / "pets")


@pytest.mark.parametrize("outer", [("train", "test"), ("fold1", "fold2")])
def test_splits_or_folds_without_class_folders(outer, tmp_path):
    with pytest.raises(DatasetError, match="hold no class folders.*give a CSV"):
        import_dataset(fill(tmp_path / "pets", *outer))
    fill(tmp_path / "both", *(f"{one}/{two}" for one in outer for two in ("train", "test")))
    with pytest.raises(DatasetError, match="hold splits or folds again"):
        import_dataset(tmp_path / "both")


@pytest.mark.parametrize(
    "name", [".git", "__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__pycache__"]
)
def test_folders_that_systems_leave_behind(name, tmp_path):
    root = fill(tmp_path / "pets", "cat", "dog", name, f"cat/{name}", f"dog/deep/{name}")
    put(root / "cat" / "._0.wav")
    data = load_dataset(root, 1)
    assert data.class_names == ["cat", "dog"] and len(data.train) + len(data.test) == 10


def test_a_folder_named_as_a_file_is_no_file(tmp_path):
    root = fill(tmp_path / "pets", "cat", "dog", "cat/cat0.wav")
    assert "are in no table" not in said(root)
    data = load_dataset(root, 1)
    assert len(data.train) + len(data.test) == 15
    table = put_table(root / "x.csv", ("path", "classname"), [("cat/cat0.wav", "cat")])
    with pytest.raises(DatasetError, match="x.csv, row 2: .* is a folder, no audio file"):
        import_dataset(table)


@pytest.mark.parametrize("suffix", [".caf", ".aifc", ".wave", ".sph", ".W64", ".rf64"])
def test_suffixes_of_decodable_files(suffix, tmp_path):
    root = fill(tmp_path / "pets", "cat", "dog", suffix=suffix)
    assert len(load_dataset(root, 1).train) == 8


@pytest.mark.parametrize("suffix", [".m4a", ".xyz", ""])
def test_a_class_of_unknown_files_is_named(suffix, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no ffmpeg
    root = fill(fill(tmp_path / "pets", "cat", "dog"), "bird", suffix=suffix)
    shown = suffix or "no suffix"
    with pytest.raises(DatasetError, match=rf"\(bird: {shown} \(5\)\): .*convert the files"):
        load_dataset(root, 1)


def test_what_is_left_out_is_said(tmp_path):
    root = fill(tmp_path / "pets", "cat", "dog")
    put(root / "cat" / "more.xyz")
    put(root / "docs" / "about.pdf")
    put(root / "docs" / "LICENSE")
    put(root / "beside.wav")
    (root / "dog" / "linked").symlink_to(root / "cat")
    assert load_dataset(root, 1).class_names == ["cat", "dog"]
    findings = said(root)
    assert "1 file in" in findings and ".xyz (1)" in findings
    assert "docs holds no recording, so it is no class" in findings
    assert "1 file beside the class folders left out: beside.wav" in findings
    assert "links to folders are not followed" in findings


@pytest.mark.parametrize("letter", ["\u200b", "\ufeff", "\u00ad"])
def test_names_that_differ_in_what_cannot_be_seen(letter, tmp_path):
    """A zero-width space, a byte-order mark, a soft hyphen: one class for the reader."""
    for name in ("cat", f"cat{letter}", "dog"):
        for n in range(5):
            put(tmp_path / "pets" / name / f"{n}.wav")
    with pytest.raises(DatasetError, match="'cat' and .* differ in case, spaces or invisible"):
        load_dataset(tmp_path / "pets", 1)


def test_one_class_in_two_forms_of_unicode(tmp_path):
    forms = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    root = fill(tmp_path / "sounds", *forms, "street")
    data = load_dataset(root, 1)
    assert data.class_names == [forms[0], "street"] and len(data.train) + len(data.test) == 15
    assert check_dataset(root, shots=1, decode=False).ok


@pytest.mark.parametrize("place", ["cat/caf\udce9.wav", "caf\udce9/0.wav"])
def test_a_name_that_is_not_in_utf8(place, tmp_path):
    """The error stays the same, and the folder can be used once the name is mended."""
    root = fill(tmp_path / "sounds", "cat", "dog")
    put(root / place, b"x")
    for _ in range(2):
        with pytest.raises(DatasetError, match=r"'.*caf\xe9.*' is not in UTF-8: rename it"):
            load_dataset(root, 1)
    os.rename(root / place, root / "cat" / "mended.wav")
    if place.endswith("0.wav"):
        (root / "caf\udce9").rmdir()
    assert load_dataset(root, 1).class_names == ["cat", "dog"]


@pytest.mark.parametrize("name", ["a\rb", "a\nb", 'a"b', "a,b", " a", "#a", "'a'"])
def test_odd_names_of_files_and_classes(name, tmp_path):
    root = fill(tmp_path / "sounds", name, "dog")
    put(root / "dog" / f"{name}.wav")
    data = load_dataset(root, 1)
    assert data.class_names == sorted([name, "dog"])
    assert set(os.listdir(root / "dog")) == {
        path.rsplit("/", 1)[1]
        for frame in (data.train, data.test)
        for path in frame["path"][frame["class_name"] == "dog"]
    }


def test_a_table_beside_class_folders(tmp_path):
    """One that lists clips is pointed to; another one does not matter."""
    root = fill(tmp_path / "pets", "cat", "dog")
    put_table(root / "lengths.csv", ("file", "seconds"), [("cat/0.wav", 1)])
    assert load_dataset(root, 1).class_names == ["cat", "dog"]
    put_table(root / "list.csv", ("path", "classname"), [("cat/0.wav", "cat")])
    with pytest.raises(DatasetError, match="but list.csv: give the path of that table"):
        load_dataset(root, 1)
