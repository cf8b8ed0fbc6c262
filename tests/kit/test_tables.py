"""The CSV tables of splits: where they are, and what the one writer writes."""

import pytest

from palmkit import DatasetError, load_dataset
from palmkit.tables import find_folds, read_table, split_path, write_split

ROWS = [("audios/a 1.wav", "rain, heavy"), ("audios/b.wav", 'the "dog"'), ("audios/c.wav", "élan")]
TEXT = (
    'path,classname\naudios/a 1.wav,"rain, heavy"\naudios/b.wav,"the ""dog"""\naudios/c.wav,élan\n'
)


@pytest.mark.parametrize(
    ("fold", "name"),
    [(None, "train.csv"), (1, "csv_files/train_1.csv"), (10, "csv_files/train_10.csv")],
)
def test_a_written_table_is_read_again(fold, name, tmp_path):
    path = write_split(tmp_path, "train", fold, ROWS)
    assert path == tmp_path / name and path.read_bytes() == TEXT.encode()
    assert [(row["path"], row["classname"]) for _, row in read_table(path)] == ROWS
    assert find_folds(tmp_path) == [fold]


def test_a_written_dataset_loads(tmp_path):
    for path, _ in ROWS:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    for split in ("train", "test"):
        write_split(tmp_path, split, 2, ROWS)
    assert load_dataset(tmp_path, 2).class_names == sorted(name for _, name in ROWS)


def test_the_upper_split_is_the_papers(tmp_path):
    assert split_path(tmp_path, "test") == tmp_path / "test.csv"
    (tmp_path / "csv_files").mkdir()
    (tmp_path / "csv_files" / "train.csv").touch()
    assert split_path(tmp_path, "test") == tmp_path / "csv_files" / "test.csv"
    (tmp_path / "train.csv").touch()
    assert split_path(tmp_path, "test") == tmp_path / "test.csv"


def test_names_that_are_no_fold(tmp_path):
    (tmp_path / "csv_files").mkdir()
    for name in ("train_1a.csv", "train_.csv", "train_01.csv", "test_3.csv", "train_2.csv.bak"):
        (tmp_path / "csv_files" / name).touch()
    assert find_folds(tmp_path) == [None]
    (tmp_path / "csv_files" / "train_2.csv").touch()
    assert find_folds(tmp_path) == [2]


BAD = {
    "path,classname,path\na.wav,cat,b.wav\n": "the column path more than once: keep one",
    "path, label\na.wav,cat\n": "no column classname.*--class-column",
    "a.wav,cat\nb.wav,dog\n": "no column path, classname.*the first line must be a header",
    "path|classname\na.wav|cat\n": "no column path, classname.*a comma, a semicolon, a tab",
}


@pytest.mark.parametrize("content", BAD, ids=range(len(BAD)))
def test_bad_header(content, tmp_path):
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(DatasetError, match=BAD[content]):
        read_table(tmp_path / "train.csv")


def test_a_folder_is_no_table(tmp_path):
    (tmp_path / "train.csv").mkdir()
    with pytest.raises(DatasetError, match="train.csv is a folder: a table is a CSV file"):
        read_table(tmp_path / "train.csv")


def test_many_blank_lines_before_the_header(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("\n" * 5000 + "sep=;\n" + "path;classname\na,b.wav;cat\n")
    ((line, row),) = read_table(path)
    assert line == 5003 and row == {"path": "a,b.wav", "classname": "cat"}
