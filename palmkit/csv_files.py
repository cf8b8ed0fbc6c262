"""Read a CSV as people save it: separated by commas, semicolons or tabs, in UTF-8."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

COLUMNS = ("path", "classname")
DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
WORKBOOKS = {
    b"PK\x03\x04": "an Excel workbook (xlsx)",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (xls)",
}
# A blank line, or a line such as `sep=;` that Excel writes.
BEFORE_HEADER = re.compile(
    r"(?:[ \t]*|sep=(?P<delimiter>[,;\t])?[,;\t]*)(?:\r\n|\r|\n)", re.IGNORECASE
)
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class DatasetError(ValueError):
    """A dataset that cannot be used; the message names file and row and says what to do.

    It is one line: a line break in a name is shown as \\n.
    """

    def __init__(self, message: str):
        super().__init__(message.replace("\r", "\\r").replace("\n", "\\n"))


def read_table(path: Path, columns: Sequence[str] = COLUMNS) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV, each with its line in the file; the header is line 1.

    columns: names that the header must have. The delimiter is the one that finds most of them, or
    what a first line such as `sep=;` (Excel's) says. Spaces around a name in the header, and its
    case, do not matter. Empty rows, of delimiters alone too, are no rows; they count as lines.
    The values are not checked. Raises DatasetError.
    """
    text = _read_text(path, columns)
    try:
        before, text, delimiter = _find_header(text, columns)
        reader = _reader(text, delimiter, columns)
        header = _clean_header(next(reader, []), columns)
        _check_header(path, header, columns)
        rows = [
            (before + reader.line_num, _as_dict(header, values))
            for values in reader
            if any(value.strip() for value in values)
        ]
    except csv.Error as error:
        raise DatasetError(
            f"{path} is no CSV table in UTF-8 ({error}): save it as CSV in UTF-8"
        ) from error
    if not rows:
        raise DatasetError(f"{path} has no rows: add a row for each clip, as {','.join(columns)}")
    return rows


def read_header(path: Path) -> list[str]:
    """The columns of a CSV. Raises DatasetError for a file that is no CSV."""
    text = _read_text(path)
    try:
        _, text, delimiter = _find_header(text)
        return _clean_header(next(_reader(text, delimiter), []))
    except csv.Error as error:
        raise DatasetError(f"{path} is no CSV table in UTF-8 ({error})") from error


def _read_text(path: Path, columns: Sequence[str] = COLUMNS) -> str:
    if not path.is_file():
        problem = f"{path} is a folder" if path.is_dir() else f"there is no {path}"
        raise DatasetError(
            f"{problem}: a table is a CSV file with the columns {' and '.join(columns)}; write "
            "it, or fetch the dataset again"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}): make it readable") from error
    try:
        if other := _other_encoding(data):
            raise ValueError(f"it looks like {other}")
        return data.decode("utf-8-sig")
    except ValueError as error:  # UnicodeDecodeError is one
        raise DatasetError(
            f"{path} is no CSV table in UTF-8 ({_explain(data, error)}): save it as CSV in UTF-8"
        ) from error


def _other_encoding(data: bytes) -> str:
    """UTF-16 or UTF-32, "" if the bytes are neither."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    # Text of Latin letters in UTF-16 is half NUL bytes, in UTF-32 three quarters.
    zeros = data.count(0) / max(len(data), 1)
    if data.startswith(UTF16_MARKS) or 0.3 < zeros < 0.6:
        return "UTF-16"
    return "UTF-32" if 0.6 <= zeros < 0.8 else ""


def _explain(data: bytes, error: ValueError) -> str:
    """Why bytes are no text in UTF-8, with the name of the encoding that they seem to have."""
    if not isinstance(error, UnicodeDecodeError):
        return str(error)
    for start, what in WORKBOOKS.items():
        if data.startswith(start):
            return f"it is {what}"
    is_text = not any(byte < 9 or 13 < byte < 32 for byte in data)
    seems = "it looks like Latin-1 or Windows-1252: " if is_text else ""
    line = data[: error.start].count(b"\n") + 1
    return f"{seems}row {line} has the byte 0x{data[error.start]:02x}"


def _reader(text: str, delimiter: str, columns: Sequence[str] = ()):
    first = text.splitlines()[0] if text else ""
    # In a header such as "path, classname" the spaces belong to no name and to no value.
    spaced = any(f"{delimiter} {column}".lower() in first.lower() for column in columns)
    return csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=spaced
    )


def _find_header(text: str, columns: Sequence[str] = COLUMNS) -> tuple[int, str, str]:
    """(lines before the header, the text from there on, the delimiter)."""
    start = lines = 0
    delimiter = None
    while line := BEFORE_HEADER.match(text, start):
        start, lines = line.end(), lines + 1
        delimiter = delimiter or line["delimiter"]
    text = text[start:]
    return lines, text, delimiter or _guess_delimiter(text, columns)


def _guess_delimiter(text: str, columns: Sequence[str] = COLUMNS) -> str:
    """The delimiter that finds most of the columns, else the one that makes most fields."""

    def score(delimiter: str) -> tuple[int, int]:
        try:
            header = _clean_header(next(_reader(text, delimiter), []), columns)
        except csv.Error:
            return 0, 0
        return len(set(columns) & set(header)), len(header)

    return max(DELIMITERS, key=score)


def _clean_header(names: list[str], columns: Sequence[str] = ()) -> list[str]:
    """Names without spaces around them; in the case of `columns` where only the case differs."""
    names = [name.strip() for name in names]
    for column in columns:
        same = [n for n, name in enumerate(names) if name.casefold() == column.casefold()]
        if column not in names and len(same) == 1:
            names[same[0]] = column
    return names


def _check_header(path: Path, header: list[str], columns: Sequence[str]) -> None:
    if not header:
        raise DatasetError(
            f"{path} is no CSV table: it is empty; write the header path,classname and a row for "
            "each clip"
        )
    if missing := [column for column in columns if column not in header]:
        raise DatasetError(
            f"{path} has no column {', '.join(missing)}; its columns are {header}: the first line "
            f"must be a header with {' and '.join(columns)}, separated by "
            f"{', '.join(DELIMITERS.values())}. Other names of columns are given by path_column, "
            "class_column, ... (--path-column, --class-column, ...)"
        )
    if repeated := sorted({column for column in columns if header.count(column) > 1}):
        raise DatasetError(
            f"{path} has the column {', '.join(repeated)} more than once: keep one of each"
        )


def _as_dict(header: list[str], values: list[str]) -> dict:
    """A row by column. Missing fields are None; fields beyond the header are a list under None."""
    row = dict.fromkeys(header) | dict(zip(header, values, strict=False))
    if len(values) > len(header):
        row[None] = values[len(header) :]
    return row
