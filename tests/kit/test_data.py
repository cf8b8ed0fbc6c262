"""Datasets on disk: both layouts, every way a CSV can be wrong, and what the few-shot draw says and
leaves alone.
"""

import os
import random
import unicodedata

import numpy as np
import pandas as pd
import pytest
import torch

from palmkit import AudioError, DatasetError, draw_shots, list_folds, load_dataset

TRAIN = [
    ("audios/a1.wav", "cat"),
    ("audios/a2.wav", "cat"),
    ("audios/b1.wav", "dog"),
    ("audios/b2.wav", "dog"),
]
TEST = [("audios/a3.wav", "cat"), ("audios/b3.wav", "dog")]


def table(rows, header="path,classname"):
    return "\n".join([header, *(",".join(row) for row in rows)]) + "\n"


def make(root, train=TRAIN, test=TEST, layout="{split}.csv"):
    """A dataset whose clips are there but empty: reading the CSVs opens none. train, test: rows, or
    a CSV's content.
    """
    for split, rows in (("train", train), ("test", test)):
        text = rows if isinstance(rows, (str, bytes)) else table(rows)
        csv = root / layout.format(split=split)
        csv.parent.mkdir(parents=True, exist_ok=True)
        csv.write_bytes(text.encode() if isinstance(text, str) else text)
    (root / "audios").mkdir(exist_ok=True)
    for name in ("a1", "a2", "a3", "a4", "b1", "b2", "b3"):
        (root / "audios" / f"{name}.wav").touch()
    return root


def refused(root, fold=None):
    """The message load_dataset refuses a dataset with."""
    with pytest.raises(DatasetError) as caught:
        load_dataset(root, fold)
    return str(caught.value)


# Good ones.


@pytest.mark.parametrize("layout", ["{split}.csv", "csv_files/{split}.csv"])
def test_one_split(layout, tmp_path):
    root = make(tmp_path / "pets", layout=layout)
    dataset = load_dataset(root)
    assert (dataset.name, dataset.root, dataset.fold, dataset.class_names) == (
        "pets",
        root,
        None,
        ["cat", "dog"],
    )
    assert list(dataset.train["path"]) == [str(root / path) for path, _ in TRAIN]
    assert list(dataset.train["class_name"]) == ["cat", "cat", "dog", "dog"]
    assert list(dataset.train["label"]) == [0, 0, 1, 1] and list(dataset.test["label"]) == [0, 1]
    assert list(dataset.train.index) == [2, 3, 4, 5]  # rows of the file
    assert dataset.train.attrs["csv"] == str(root / layout.format(split="train"))
    assert [dataset.relative(path) for path in dataset.test["path"]] == [path for path, _ in TEST]
    assert list_folds(root) == [None]


def test_folds(tmp_path):
    for fold in (1, 2, 10):
        make(tmp_path, TRAIN if fold < 10 else TRAIN[1:], layout=f"csv_files/{{split}}_{fold}.csv")
    assert list_folds(tmp_path) == [1, 2, 10]
    assert len(load_dataset(tmp_path, 2).train) == 4
    tenth = load_dataset(tmp_path, fold=10)
    assert (
        len(tenth.train) == 3
        and tenth.fold == 10
        and tenth.train.attrs["csv"].endswith("train_10.csv")
    )


def test_classes_are_sorted_as_python_sorts(tmp_path):
    """By code point: capitals first, digits as characters; the rows' order does not matter."""
    names = ["zebra", "Yak", "10", "9", "élan", "a b", "a"]
    root = make(tmp_path, [("audios/a1.wav", names[0])])
    rows = []
    for n, name in enumerate(names):
        (root / f"audios/{n}.wav").touch()
        rows.append((f"audios/{n}.wav", name))
    dataset = load_dataset(make(tmp_path, rows, rows))
    assert dataset.class_names == ["10", "9", "Yak", "a", "a b", "zebra", "élan"] == sorted(names)
    assert [dataset.class_names[label] for label in dataset.train["label"]] == names
    assert dataset.train["label"].dtype.kind == "i"


@pytest.mark.parametrize("other", ["dog", "2"])
@pytest.mark.parametrize("name", ["NA", "None", "nan", "null", "1", "1.0", "007", "True", "-inf"])
def test_class_name_stays_the_string_it_is(name, other, tmp_path):
    """Also where the whole column could be taken for numbers."""
    rows = [("audios/a1.wav", name), ("audios/b1.wav", other)]
    dataset = load_dataset(make(tmp_path, rows, rows))
    assert dataset.class_names == sorted([name, other])
    assert all(
        type(class_name) is str
        for class_name in [*dataset.class_names, *dataset.train["class_name"]]
    )


def test_quoted_class_name_with_a_comma(tmp_path):
    rows = [("audios/a1.wav", '"rain, heavy"'), ("audios/b1.wav", "dog")]
    assert load_dataset(make(tmp_path, rows, rows)).class_names == ["dog", "rain, heavy"]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_csv_as_editors_write_it(mark, newline, last, tmp_path):
    """With a byte order mark, with the line ends of any system, with and without the last one."""
    contents = [
        mark + (table(rows).rstrip("\n") + last).replace("\n", newline).encode()
        for rows in (TRAIN, TEST)
    ]
    dataset = load_dataset(make(tmp_path, *contents))
    assert (
        dataset.class_names == ["cat", "dog"] and len(dataset.train) == 4 and len(dataset.test) == 2
    )
    assert [dataset.relative(path) for path in dataset.train["path"]] == [path for path, _ in TRAIN]


def test_columns_in_another_order_and_others_beside_them(tmp_path):
    rows = [("7", name, path) for path, name in TRAIN]
    dataset = load_dataset(make(tmp_path, table(rows, "fold,classname,path")))
    assert list(dataset.train["label"]) == [0, 0, 1, 1]


def test_dataset_named_in_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PALMKIT_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path.parent)
    make(tmp_path / "pets")
    assert load_dataset("pets").root == tmp_path / "pets"


def test_dataset_in_a_linked_folder(tmp_path):
    """Datasets are large and often on another disk: the root itself may be a link."""
    make(tmp_path / "disk" / "pets")
    (tmp_path / "pets").symlink_to(tmp_path / "disk" / "pets")
    assert len(load_dataset(tmp_path / "pets").train) == 4


def test_digest_follows_what_the_split_lists(tmp_path):
    """Rows, classes and splits; not where the dataset lies."""
    digest = load_dataset(make(tmp_path / "one")).digest()
    assert load_dataset(make(tmp_path / "two")).digest() == digest
    assert load_dataset(make(tmp_path / "three", TRAIN[::-1])).digest() != digest
    assert load_dataset(make(tmp_path / "four", TRAIN[1:])).digest() != digest
    renamed = [
        [(path, name.replace("cat", "cow")) for path, name in rows] for rows in (TRAIN, TEST)
    ]
    assert load_dataset(make(tmp_path / "five", *renamed)).digest() != digest
    moved = load_dataset(
        make(tmp_path / "six", [*TRAIN, TEST[0]], [("audios/a4.wav", "cat"), TEST[1]])
    )
    assert moved.digest() != digest


def test_digest_follows_content_not_size_or_time(tmp_path):
    root = make(tmp_path / "pets")
    for number, (path, _) in enumerate([*TRAIN, *TEST]):
        (root / path).write_bytes(bytes([number]) * 10)
    dataset = load_dataset(root)
    digest = dataset.digest()
    clip = root / TRAIN[0][0]
    clip.touch()
    assert dataset.digest() == digest
    times = clip.stat()
    clip.write_bytes(b"other" * 2)
    os.utime(clip, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert clip.stat().st_size == 10 and dataset.digest() != digest
    clip.write_bytes(bytes(10))
    assert dataset.digest() == digest
    swapped = (root / TRAIN[0][0]).read_bytes(), (root / TEST[0][0]).read_bytes()
    clip.write_bytes(swapped[1])
    (root / TEST[0][0]).write_bytes(swapped[0])
    assert dataset.digest() != digest


def test_digest_of_another_fold(tmp_path):
    make(tmp_path, layout="csv_files/{split}_1.csv")
    train, test = [*TRAIN[:3], ("audios/b3.wav", "dog")], [TEST[0], TRAIN[3]]
    make(tmp_path, train, test, layout="csv_files/{split}_2.csv")
    digests = {load_dataset(tmp_path, fold).digest() for fold in (1, 2)}
    assert len(digests) == 2


def test_digest_of_a_clip_that_is_gone(tmp_path):
    dataset = load_dataset(make(tmp_path))
    (tmp_path / TRAIN[0][0]).unlink()
    with pytest.raises(AudioError, match=r"a1\.wav: cannot be read"):
        dataset.digest()


def test_dataset_of_the_current_folder_has_its_name(tmp_path, monkeypatch):
    make(tmp_path / "pets")
    monkeypatch.chdir(tmp_path / "pets")
    assert load_dataset(".").name == "pets"


# Bad folders.


def test_missing_root(tmp_path, monkeypatch):
    monkeypatch.setenv("PALMKIT_DATA", str(tmp_path / "elsewhere"))
    for call in (load_dataset, list_folds):
        with pytest.raises(DatasetError, match="PALMKIT_DATA") as caught:
            call("nowhere")
        assert "nowhere" in str(caught.value) and str(tmp_path / "elsewhere" / "nowhere") in str(
            caught.value
        )


def test_root_that_is_a_file(tmp_path):
    (tmp_path / "pets").write_text("no folder")
    assert str(tmp_path / "pets") in refused(tmp_path / "pets")


def test_folder_without_csv(tmp_path):
    message = refused(tmp_path)
    assert (
        tmp_path.name in message
        and "csv_files/train_1.csv" in message
        and "fetch it again" in message
    )


def test_train_without_test(tmp_path):
    (make(tmp_path) / "test.csv").unlink()
    assert str(tmp_path / "test.csv") in refused(tmp_path)


def test_fold_that_is_not_there(tmp_path):
    make(tmp_path, layout="csv_files/{split}_1.csv")
    make(tmp_path, layout="csv_files/{split}_2.csv")
    for fold in (3, 0, -1):
        message = refused(tmp_path, fold)
        assert f"train_{fold}.csv" in message and "[1, 2]" in message


def test_fold_left_out(tmp_path):
    message = refused(make(tmp_path, layout="csv_files/{split}_4.csv"))
    assert "[4]" in message and "fold=" in message


def test_fold_left_out_beside_one_split(tmp_path):
    """Where there are folds, an additional train.csv is not taken in their place."""
    make(tmp_path)
    assert "fold=" in refused(make(tmp_path, layout="csv_files/{split}_1.csv"))


def test_fold_given_where_there_is_none(tmp_path):
    message = refused(make(tmp_path), fold=1)
    assert "train_1.csv" in message and "no folds" in message


@pytest.mark.parametrize("fold", ["1", 1.0, True])
def test_fold_that_is_no_number(fold, tmp_path):
    make(tmp_path, layout="csv_files/{split}_1.csv")
    assert f"fold={fold!r}: use a whole number" in refused(tmp_path, fold)
    assert load_dataset(tmp_path, np.int64(1)).fold == 1


# Bad tables.


@pytest.mark.parametrize("column", ["path", "classname"])
def test_missing_column(column, tmp_path):
    header = "path,classname".replace(column, "other")
    message = refused(make(tmp_path, train=table(TRAIN, header)))
    assert (
        str(tmp_path / "train.csv") in message
        and f"no column {column}" in message
        and "other" in message
    )


@pytest.mark.parametrize("delimiter", ["; ", ";", "\t", ", "])
def test_delimiters_of_spreadsheets(delimiter, tmp_path):
    root = make(tmp_path, train=table(TRAIN).replace(",", delimiter))
    data = load_dataset(root)
    assert list(data.train["class_name"]) == [name for _, name in TRAIN]


def test_another_delimiter_is_named(tmp_path):
    message = refused(make(tmp_path, train=table(TRAIN).replace(",", "|")))
    assert str(tmp_path / "train.csv") in message and "path|classname" in message
    assert "separated by a comma, a semicolon, a tab" in message


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-16", "it looks like UTF-16"),
        ("utf-16-le", "it looks like UTF-16"),
        ("utf-32", "it looks like UTF-32"),
        ("latin-1", "it looks like Latin-1 or Windows-1252: row 3"),
    ],
)
def test_encodings_are_named(encoding, said, tmp_path):
    text = table([TRAIN[0], ("audios/caf\xe9.wav", "cat"), *TRAIN[2:]])
    message = refused(make(tmp_path, train=text.encode(encoding)))
    assert said in message and message.endswith("save it as CSV in UTF-8")


def test_a_header_with_capitals_and_spaces(tmp_path):
    root = make(tmp_path, train=table(TRAIN, " Path ,ClassName"))
    assert len(load_dataset(root).train) == 4


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no CSV"),
        ("\n\n", "no CSV"),
        ("path,classname\n", "no rows"),
        (b"RIFF\x12\x00\x00\x00WAVEfmt \x93\xff\xfe\x00", "no CSV"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "no CSV"),
        ("<html><body>404, not found</body></html>", "no column"),
        ("path,classname\naudios/caf\xe9.wav,cat\n".encode("latin-1"), "no CSV"),
        (table(TRAIN).encode("utf-16"), "no CSV"),
        (table([*TRAIN, ("audios/b3.wav", "dog", "third", "fourth")]), "row 6"),
        ('path,classname\n"audios/a1.wav,cat\naudios/b1.wav,dog\n', "no CSV"),
    ],
    ids=[
        "empty",
        "blank",
        "header",
        "wav",
        "png",
        "html",
        "latin-1",
        "utf-16",
        "too many fields",
        "open quote",
    ],
)
def test_no_table(split, content, reason, tmp_path):
    message = refused(make(tmp_path, **{split: content}))
    assert message.startswith(str(tmp_path / f"{split}.csv")) and reason in message


def test_unquoted_comma_in_the_first_row(tmp_path):
    """pandas would take the first column as the index and read every column one to the left of
    where it stands.
    """
    message = refused(make(tmp_path, [("audios/a1.wav", "dog", " barking"), *TRAIN[1:]]))
    assert str(tmp_path / "train.csv") in message and "quote" in message


ROWS = {  # what stands in the bad row -> what the message says of it
    ("audios/a2.wav", ""): "class name is empty",
    ("audios/a2.wav", "  "): "class name is empty",
    ("audios/a2.wav",): "class name is empty",
    ("", "cat"): "path is empty",
    (" ", "cat"): "path is empty",
    ("audios/a1.wav", "cat"): "audios/a1.wav stands in row 2 already",
    ("./audios/a1.wav", "cat"): "stands in row 2 already",
    ("audios/../audios/a1.wav", "cat"): "stands in row 2 already",
    ("../secret.wav", "cat"): "../secret.wav leaves the dataset's folder",
    ("audios/../../secret.wav", "cat"): "leaves the dataset's folder",
    ("SECRET", "cat"): "leaves the dataset's folder",
    ("audios/gone.wav", "cat"): "there is no file",
    ("audios", "cat"): "is a folder, no audio file; correct the path",
    ("audios\\gone.wav", "cat"): "there is no file",
    ("./audios\\a1.wav", "cat"): "stands in row 2 already",
    ("audios/a1.wav", "dog"): "as 'cat' there and 'dog' here; a clip has one class",
    ("audios/a\0.wav", "cat"): "it holds a NUL character",
    (f"audios/{'a' * 5000}.wav", "cat"): "cannot be a file (File name too long)",
}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: ascii(row)[:40])
def test_bad_row_is_named(split, row, tmp_path):
    """The bad row is the third of the file."""
    (tmp_path / "secret.wav").touch()
    made = tuple(field.replace("SECRET", str(tmp_path / "secret.wav")) for field in row)
    root = make(tmp_path / "pets", **{split: [TRAIN[0], made, *TRAIN[2:]]})
    message = refused(root)
    assert message.startswith(f"{root / split}.csv, row 3: ") and ROWS[row] in message


def test_missing_file_is_named_with_its_whole_path(tmp_path):
    root = make(tmp_path)
    (root / TRAIN[2][0]).unlink()
    assert str(root / TRAIN[2][0]) in refused(root)


def test_links_inside_the_folder_may_point_anywhere(tmp_path):
    """Audio often lies on another disk."""
    root = make(tmp_path / "pets")
    (root / "audios").rename(tmp_path / "other_disk")
    (root / "audios").symlink_to(tmp_path / "other_disk")
    assert len(load_dataset(root).train) == len(TRAIN)


def test_link_to_nothing(tmp_path):
    root = make(tmp_path)
    (root / TRAIN[1][0]).unlink()
    (root / TRAIN[1][0]).symlink_to(root / "audios" / "gone.wav")
    message = refused(root)
    assert "row 3" in message and "there is no file" in message


PATHS = [  # a cell that means audios/a1.wav; ROOT is the dataset's folder
    "audios\\a1.wav",
    "ROOT/audios/a1.wav",
    "ROOT/audios/../audios/a1.wav",
    "/disk/old/pets/audios/a1.wav",
    "D:\\old\\pets\\audios\\a1.wav",
]


@pytest.mark.parametrize("cell", PATHS)
def test_paths_as_other_systems_write_them(cell, tmp_path):
    """Absolute ones inside of the folder, also from before it was moved, and Windows's."""
    root = make(tmp_path / "pets")
    cell = cell.replace("ROOT", str(root))
    data = load_dataset(make(root, [(cell, "cat"), *TRAIN[1:]]))
    assert data.relative(data.train["path"].iloc[0]).endswith("a1.wav")
    if ".." not in cell:
        assert data.digest() == load_dataset(make(root)).digest()


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_file_in_another_form_of_unicode(forms, tmp_path):
    """macOS writes é as two characters, Windows and Linux as one. They look the same."""
    written, there = (unicodedata.normalize(form, "audios/caf\xe9/\xe9.wav") for form in forms)
    root = make(tmp_path)
    (root / there).parent.mkdir()
    (root / there).touch()
    data = load_dataset(make(root, [(written, "cat"), *TRAIN[1:]]))
    assert data.relative(data.train["path"].iloc[0]) == there


def test_a_class_in_two_forms_of_unicode_is_one_class(tmp_path):
    """As for the tokenizer. A class with one form keeps it, so that no digest changes."""
    composed, apart = "caf\xe9", "cafe\u0301"
    train = [(TRAIN[0][0], composed), (TRAIN[1][0], apart), *TRAIN[2:]]
    data = load_dataset(make(tmp_path, train, [(TEST[0][0], apart), TEST[1]]))
    assert data.class_names == [composed, "dog"] and list(data.train["label"]) == [0, 0, 1, 1]
    train = [(path, apart if name == "cat" else name) for path, name in TRAIN]
    data = load_dataset(make(tmp_path, train, [(TEST[0][0], apart), TEST[1]]))
    assert data.class_names == [apart, "dog"]


def test_a_validation_split_is_read_on_demand(tmp_path):
    root = make(tmp_path)
    before = load_dataset(root)
    assert before.read_validation() is None
    (root / "validation.csv").write_text(table([("audios/a4.wav", "dog")]))
    data = load_dataset(root)
    assert list(data.read_validation()["label"]) == [1] and data.digest() == before.digest()
    (root / "validation.csv").write_text(table([("audios/a4.wav", "cow")]))
    with pytest.raises(DatasetError, match="validation.csv has classes that .* not train on"):
        data.read_validation()


@pytest.mark.parametrize("name", ["a" * 300, "a/" + "b" * 300, "no\0name"])
def test_a_name_that_no_file_can_have(name):
    with pytest.raises(DatasetError, match="cannot be a dataset's name|no dataset folder"):
        load_dataset(name)


@pytest.mark.parametrize("blank", ["", "\r"])
def test_row_is_the_one_an_editor_shows(blank, tmp_path):
    """Blank lines are no rows, but they count."""
    rows = table(TRAIN[:2]) + f"{blank}\n{blank}\n" + "audios/gone.wav,dog\n"
    assert "row 6:" in refused(make(tmp_path, rows))
    rows = table(TRAIN).replace("\n", f"\n{blank}\n")
    assert list(load_dataset(make(tmp_path, rows)).train.index) == [3, 5, 7, 9]


def test_train_and_test_with_different_classes(tmp_path):
    root = make(tmp_path, TRAIN, [*TEST, ("audios/a1.wav", "cow")])
    message = refused(root)
    assert (
        tmp_path.name in message
        and "only in train: []" in message
        and "only in test: ['cow']" in message
    )
    assert "only in train: ['dog']" in refused(make(tmp_path, TRAIN, TEST[:1]))


def test_single_class(tmp_path):
    message = refused(make(tmp_path, TRAIN[:2], TEST[:1]))
    assert "two classes" in message and "['cat']" in message


# The draw.


def clips(**counts):
    rows = [
        (f"{name}{n}.wav", name, label)
        for label, name in enumerate(counts)
        for n in range(counts[name])
    ]
    return pd.DataFrame(rows, columns=["path", "class_name", "label"])


def test_fewer_clips_than_shots_gives_all_and_counts(tmp_path):
    train = clips(ant=3, bee=20, cat=15, dog=16)
    with pytest.warns(
        UserWarning, match=r"2 classes have fewer than 16 clips.*ant \(3\), cat \(15\)"
    ):
        drawn = draw_shots(train, shots=16)
    assert drawn.groupby("class_name").size().to_dict() == {
        "ant": 3,
        "bee": 16,
        "cat": 15,
        "dog": 16,
    }
    assert list(drawn["path"][:3]) == [
        "ant0.wav",
        "ant1.wav",
        "ant2.wav",
    ]  # all of them, in their order


@pytest.mark.filterwarnings("ignore:.*fewer than:UserWarning")
def test_short_class_draws_nothing_from_the_stream():
    """What the others get is what they get without it."""
    alone = draw_shots(clips(bee=20, cat=20), shots=4, seed=5)
    beside = draw_shots(clips(ant=3, bee=20, cat=20), shots=4, seed=5)
    assert list(beside["path"][3:]) == list(alone["path"])


def test_enough_clips_is_no_warning(recwarn):
    draw_shots(clips(ant=16, bee=17), shots=16)
    assert len(recwarn) == 0


@pytest.mark.parametrize("shots", [0, -2, 1.5, "4", None])
def test_shots_that_make_no_sense(shots):
    with pytest.raises(ValueError, match=rf"shots={shots!r}: use 1 or more, or -1"):
        draw_shots(clips(ant=3, bee=3), shots=shots)


@pytest.mark.parametrize("seed", [-1, 2**32, None, 0.5])
def test_seed_that_makes_no_sense(seed):
    """None would draw other clips each time."""
    with pytest.raises(ValueError, match=rf"seed={seed!r}: use a whole number from 0"):
        draw_shots(clips(ant=3, bee=3), shots=1, seed=seed)


def test_draw_repeats_and_depends_on_the_seed():
    train = clips(ant=30, bee=30)
    first, again, other = (list(draw_shots(train, 8, seed)["path"]) for seed in (3, 3, 4))
    assert first == again != other
    assert len(set(first)) == 16  # without replacement


def test_draw_leaves_generators_and_table_alone():
    train, before = clips(ant=30, bee=30), clips(ant=30, bee=30)
    for seed in (1, 2):
        np.random.seed(seed), random.seed(seed), torch.manual_seed(seed)
        states = (
            np.random.get_state()[1].tolist(),
            random.getstate(),
            torch.get_rng_state().tolist(),
        )
        draw_shots(train, 5, seed=9)
        assert states == (
            np.random.get_state()[1].tolist(),
            random.getstate(),
            torch.get_rng_state().tolist(),
        )
    pd.testing.assert_frame_equal(train, before)


@pytest.mark.parametrize("shots", [1, -1])
def test_draw_keeps_rows_and_csv(shots, tmp_path):
    """So that a message about a drawn clip can name its row."""
    train = load_dataset(make(tmp_path)).train
    drawn = draw_shots(train, shots)
    assert drawn.attrs == train.attrs and "csv" in drawn.attrs
    pd.testing.assert_frame_equal(drawn, train.loc[drawn.index])
    drawn["label"] = 0  # a copy
    assert list(train["label"]) == [0, 0, 1, 1]
