"""Rows are read light or whole, whatever their layout; a damaged one is left out and named."""

import json

import pytest
import result_rows

from palmkit.results import loading


@pytest.fixture
def run(tmp_path):
    for seed in range(3):
        result_rows.write_row(tmp_path, result_rows.make_row(seed=seed, accuracy=0.1 * seed))
    return tmp_path


@pytest.mark.parametrize("indent", [1, None, 4])
@pytest.mark.parametrize("offsets", [0, [1, 2]])
def test_light_rows_are_the_whole_ones_without_their_long_lists(tmp_path, indent, offsets):
    row = result_rows.make_row(test_offsets=offsets, lambdas=[], options={"rare": ["x", "]"]})
    result_rows.write_row(tmp_path, row, indent)
    light, whole = loading.load_rows(tmp_path), loading.load_rows(tmp_path, details=True)
    row["regime"], row["encoders"] = "published", "one"  # older rows have none
    assert whole.iloc[0].to_dict() == row
    kept = {name: value for name, value in row.items() if name not in loading.HEAVY_FIELDS}
    assert light.iloc[0].to_dict() == kept | {"n_classes": 4}


def test_hidden_files_are_no_rows(run, recwarn):
    for path in sorted(run.glob("rows/*/*.json")):
        path.with_name(f"._{path.name}").write_bytes(b'\0\5\x16\7 "failed"')
    assert len(loading.load_rows(run)) == 3 and not loading.load_failed(run)
    assert not recwarn.list


def test_long_lists_are_not_parsed(tmp_path):
    """A damaged list does not matter to the light row. The whole row names it."""
    path = result_rows.write_row(tmp_path, result_rows.make_row())
    path.write_text(path.read_text().replace("0.25", "oops"))
    assert len(loading.load_rows(tmp_path)) == 1
    with pytest.warns(UserWarning, match="is no JSON"), pytest.raises(FileNotFoundError):
        loading.load_rows(tmp_path, details=True)


@pytest.mark.parametrize("field", ["seed", "dataset", "method", "fold", "accuracy"])
def test_a_row_that_lost_a_field_is_named_and_left_out(run, field):
    path = sorted(run.glob("rows/*/*.json"))[1]
    row = json.loads(path.read_text())
    del row[field]
    path.write_text(json.dumps(row))
    with pytest.warns(UserWarning, match=f"{path.name} is left out: it has no field '{field}'"):
        assert len(loading.load_rows(run)) == 2


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "is no JSON"),
        ('{"dataset": "Rain"', "is no JSON"),
        ("[1, 2]", "is no JSON object"),
        ('{"dataset": 3}', "its dataset is 3"),
    ],
)
def test_a_damaged_row_is_named_and_left_out(run, text, reason):
    path = sorted(run.glob("rows/*/*.json"))[1]
    path.write_text(text)
    with pytest.warns(UserWarning, match=rf"{path.name} is left out: .*{reason}"):
        assert len(loading.load_rows(run)) == 2


def test_a_value_of_another_kind_is_named(run):
    path = sorted(run.glob("rows/*/*.json"))[0]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"accuracy": "0.9"}))
    with pytest.warns(UserWarning, match="its accuracy is '0.9'"):
        loading.load_rows(run)


@pytest.mark.parametrize(
    "field, value",
    [("note", 3), ("note", None), ("class_names", None), ("trial_version", "x"), ("options", [1])],
)
def test_other_fields_have_their_types_too(run, field, value):
    path = sorted(run.glob("rows/*/*.json"))[0]
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.warns(UserWarning, match=f"is left out: its {field} is "):
        assert len(loading.load_rows(run)) == 2


def test_a_diverged_row_is_read(tmp_path):
    row = result_rows.make_row(accuracy={"float": "nan"}, diverged="the loss is nan")
    result_rows.write_row(tmp_path, row)
    assert loading.load_rows(tmp_path)["accuracy"].isna().tolist() == [True]


def test_rows_of_before_have_the_fields_of_today(tmp_path):
    row = result_rows.make_row(parts="all")
    for name in ("stochastic", "note", "options"):
        del row[name]
    result_rows.write_row(tmp_path, row)
    (read,) = loading.load_rows(tmp_path)[["stochastic", "note", "options"]].to_dict("records")
    assert read == {"stochastic": "all", "note": "", "options": {}}


def test_a_run_without_rows_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="there are no rows in .*palmkit run --name"):
        loading.load_rows(tmp_path)
