"""Rows edited by hand: each wrong one is told by its file and left out, and the others count."""

import json
import warnings
from pathlib import Path

import pytest
import result_rows
from faults import fuzz
from hypothesis import strategies as st

from palmkit.cli import main
from palmkit.results import report, tables
from palmkit.results.loading import load_rows

pytestmark = pytest.mark.slow

FIELDS = [
    *result_rows.ROW,
    *("dataset", "method", "fold", "seed", "accuracy", "f1", "precision", "recall", "loss"),
    *("key", "diverged", "failed", "n_classes", "trial_version", "rates", "model_note", "tensors"),
    *("method_digest", "lambdas", "lambdas_initial", "parts", "version", "label", "trainable"),
    *("n_train", "command", "commit", "palmkit", "checkpoint_sha256", "bad_files", "n_bad", "note"),
]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 100),
    st.integers(),
    st.floats(),
    st.sampled_from([7, -0.5, 1e308, 10**400, {"float": "nan"}, {"float": "inf"}, {"float": 3}]),
    st.text(max_size=5),
    st.sampled_from(["\ud800", "a/b", "..", "", " ", "\x00", "<b>", "a|b\nc", "é", "e\u0301"]),
    st.lists(st.one_of(st.integers(), st.text(max_size=3), st.none()), max_size=4),
    st.dictionaries(st.text(max_size=3), st.one_of(st.integers(), st.text(max_size=2)), max_size=2),
)
EDITS = st.one_of(
    st.tuples(st.just("set"), st.sampled_from(FIELDS), VALUES),
    st.tuples(st.just("delete"), st.sampled_from(FIELDS), st.none()),
    st.tuples(st.just("add"), st.text(max_size=6), VALUES),
    st.tuples(
        st.just("text"), st.sampled_from(["", "{", "[]", "null", "3", '"x"', "{}"]), st.none()
    ),
    st.tuples(st.just("text"), st.sampled_from(["deep", "\ufeff{}", "NaN"]), st.none()),
    st.tuples(st.just("bytes"), st.binary(max_size=8), st.none()),
    st.tuples(st.just("cut"), st.integers(0, 2000), st.none()),
    st.tuples(st.just("word"), st.sampled_from(["NaN", "Infinity", "1e999", "long"]), st.none()),
    st.tuples(st.just("folder"), st.none(), st.none()),
    st.tuples(st.just("copy"), st.none(), st.none()),
)


def write_run(folder: Path) -> list[Path]:
    """A run of two datasets, two methods and two seeds."""
    return [
        result_rows.write_row(folder, result_rows.make_row(dataset, method, 1, seed, 0.5, loss=1.0))
        for dataset in ("Rain", "Wind")
        for method in ("zeroshot", "palm")
        for seed in (range(2) if method == "palm" else [0])
    ]


def edit(path: Path, kind: str, what, value) -> None:
    text = path.read_text()
    row = json.loads(text)
    if not isinstance(row, dict):
        raise ValueError("an earlier edit made it no row")
    if kind in ("set", "add"):
        path.write_text(json.dumps(row | {what: value}, indent=1))
    elif kind == "delete":
        path.write_text(json.dumps({k: v for k, v in row.items() if k != what}, indent=1))
    elif kind == "text":
        path.write_text(what if what != "deep" else "[" * 10**5)
    elif kind == "bytes":
        path.write_bytes(what)
    elif kind == "cut":
        path.write_text(text[:what])
    elif kind == "word":
        path.write_text(text.replace("0.5", what if what != "long" else "9" * 5000))
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "copy":
        path.with_name(f"copy of {path.name}").write_text(text)


def check_run(folder: Path) -> None:
    """Every output is made, or refused by an error that names the run or a row."""
    for details in (False, True):
        try:
            rows = load_rows(folder, details)
        except FileNotFoundError as error:
            assert str(folder) in str(error)
            continue
        known = rows["accuracy"].dropna()
        assert ((known >= 0) & (known <= 1)).all()
        for metric in ("accuracy", "loss"):
            try:
                found = tables.result_tables(rows, metric)
            except ValueError:
                continue
            assert all(len(table.summary) for table in found)
    assert main(["table", str(folder), "--format", "latex", "--quiet"]) in (0, 1)
    report.write_report(folder).read_text()


@pytest.mark.slow
@fuzz(
    "rows edited by hand",
    few=6,
    many=400,
    edits=st.lists(st.tuples(st.integers(0, 5), EDITS), min_size=1, max_size=3),
)
def test_edited_rows(tmp_path_factory, edits):
    folder = tmp_path_factory.mktemp("run")
    paths = write_run(folder)
    for number, (kind, what, value) in edits:
        if paths[number].is_file():
            try:
                edit(paths[number], kind, what, value)
            except (ValueError, RecursionError):  # it is no row any more: an earlier edit
                continue
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        check_run(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("accuracy", 7),
        ("accuracy", -0.1),
        ("accuracy", {"float": "inf"}),
        ("f1", 1.5),
        ("seed", -1),
        ("seed", 2**40),
        ("fold", -1),
        ("fold", 1.0),
        ("shots", -2),
        ("n_test", 10**30),
        ("epochs", True),
        ("lr", 0),
        ("momentum", 1),
        ("dataset", "a/b"),
        ("dataset", " "),
        ("method", "two\nlines"),
        ("seconds", {"fit": "long"}),
        ("seconds", {"fit": -1}),
        ("versions", {"torch": 3}),
        ("class_names", [1, 2]),
        ("class_names", []),
        ("options", []),
        ("autocast", 1),
        ("rates", 3),
        ("version", "mine"),
        ("note", "\ud800"),
    ],
)
def test_a_value_that_cannot_be(tmp_path, field, value):
    paths = write_run(tmp_path)
    edit(paths[0], "set", field, value)
    with pytest.warns(UserWarning, match=f"{paths[0].name} is left out: .*") as warned:
        assert len(load_rows(tmp_path)) == len(paths) - 1
    (message,) = [str(one.message) for one in warned]
    assert field in message or "\\ud800" in message


def test_lists_that_do_not_fit_each_other(tmp_path):
    paths = write_run(tmp_path)
    edit(paths[1], "set", "lambdas", [0.5, 0.5])
    with pytest.warns(UserWarning, match="its lambdas has 2 entries for 4 classes"):
        assert len(load_rows(tmp_path, details=True)) == len(paths) - 1


@pytest.mark.parametrize("kind", ["folder", "bytes", "text"])
def test_a_file_that_is_no_row(tmp_path, kind):
    paths = write_run(tmp_path)
    edit(paths[2], kind, b"\xff\xfe" if kind == "bytes" else "deep", None)
    with pytest.warns(UserWarning, match=f"{paths[2].name} is left out: it "):
        assert len(load_rows(tmp_path)) == len(paths) - 1


def test_a_half_notebook_does_not_keep_the_report_from_being_written(tmp_path):
    write_run(tmp_path)
    (tmp_path / "notebooks").mkdir()
    for name, text in (("half", '{"cells": [{"cell_'), ("none", ""), ("list", "[]"), ("bad", "\0")):
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text(text)
    (tmp_path / "notebooks" / "folder.ipynb").mkdir()
    (tmp_path / "notebooks" / "bytes.ipynb").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "half.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    page = report.write_report(tmp_path).read_text()
    assert "half" in page and "failed" in page and "Rain" in page
