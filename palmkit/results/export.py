"""All rows of a run as one table of numbers: CSV, or Parquet."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pandas as pd

from palmkit.experiments.row_fields import WHOLE_FIELDS
from palmkit.extras import extra
from palmkit.results.formats import to_csv
from palmkit.results.loading import load_rows
from palmkit.results.method_style import order_methods
from palmkit.results.settings import SETTINGS
from palmkit.results.tables import METRICS
from palmkit.storage import atomic_write

SUFFIXES = (".csv", ".parquet")
# The first columns. All other fields of the rows follow, by name.
FIRST = ("dataset", "method", "fold", "seed", *METRICS, *SETTINGS, "n_train", "n_test", "n_classes")
# pandas makes these floats where a row has none.
WHOLE = ("fold", *WHOLE_FIELDS)


def export_rows(run, path) -> Path:
    """Write `export_frame(run)` to a .csv or .parquet file; its path.

    Raises ValueError for another suffix, FileNotFoundError for a run without rows.
    """
    path = Path(path).expanduser()
    check_suffix(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file, such as {path / 'rows.csv'}")
    frame = export_frame(run)
    atomic_write(path, _as_parquet(frame) if path.suffix.lower() == ".parquet" else to_csv(frame))
    return path


def check_suffix(path) -> None:
    """Raise ValueError for a file of another format than CSV and Parquet."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: the file's name must end in {' or '.join(SUFFIXES)}")


def export_frame(run) -> pd.DataFrame:
    """One line for each trial: dataset, method, fold, seed, METRICS, SETTINGS, and all else that a
    row has but for its long lists.

    An option of the method, and any other field that holds several values, has a column of its own
    for each: options.context_length, seconds.fit, versions.torch.
    """
    rows = load_rows(run)
    for name in rows.columns.intersection([*WHOLE]):
        with contextlib.suppress(TypeError, OverflowError):  # a number of more than 64 bits
            rows[name] = rows[name].astype("Int64")
    rows = flatten_rows(rows)
    rows = rows.sort_values(
        ["dataset", "method", "fold", "seed"],
        key=lambda column: order_methods(column) if column.name == "method" else column,
        kind="stable",
    )
    columns = [name for name in FIRST if name in rows]
    columns += sorted(set(rows) - set(columns))
    return rows[columns].reset_index(drop=True)


def flatten_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with a column for each entry of a dict; each column has values of one type."""
    flat = {}
    for name in rows:
        values = rows[name]
        dicts = values.map(lambda value: value if isinstance(value, dict) else {})
        for key in dict.fromkeys(key for one in dicts for key in one):
            flat[f"{name}.{key}"] = dicts.map(lambda one, key=key: one.get(key))
        if name == "options" or not values.map(lambda value: isinstance(value, dict)).any():
            flat[name] = values
    return pd.DataFrame({name: _one_type(values) for name, values in flat.items()})


def _one_type(values: pd.Series) -> pd.Series:
    """Whole numbers, numbers, truth values or texts; other values as JSON."""
    if pd.api.types.is_numeric_dtype(values):
        return values
    kinds = {type(value) for value in values if not _is_missing(value)}
    for wanted, column in ((int, "Int64"), (bool, "boolean")):
        if kinds == {wanted}:
            try:
                return values.map(lambda value: None if _is_missing(value) else value).astype(
                    column
                )
            except OverflowError:  # over 64 bits
                return values.map(_as_text).astype("string")
    if kinds <= {int, float} and kinds:
        return pd.to_numeric(values).astype(float)
    if kinds <= {str}:
        return values.astype("string")
    return values.map(_as_text).astype("string")


def _is_missing(value) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def _as_text(value) -> str | None:
    if _is_missing(value) or isinstance(value, str):
        return None if _is_missing(value) else value
    return json.dumps(value, sort_keys=True, default=str)


def _as_parquet(frame: pd.DataFrame) -> bytes:
    with extra("parquet"):
        import pyarrow  # noqa: F401
    file = io.BytesIO()
    frame.to_parquet(file, index=False)
    return file.getvalue()
