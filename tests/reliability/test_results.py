"""Tables and reports of odd rows, and notebooks with a part of the grid."""

import contextlib
import csv
import html.parser
import io
import json
import re
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import mistune
import nbformat
import numpy as np
import pytest
import result_rows
from faults import MODE, attempt, fuzz
from hypothesis import strategies as st
from notebook_cells import make_small_datasets, small_series

from palmkit.cli import main
from palmkit.results.report import write_report

pytestmark = pytest.mark.slow

SIGNS = "&%$#_{}~^\\<>|\"'`*[]()!-+=:;,.?@ \xa0\n\r\tab1é日本±–†\u200b\u2028&lt;"
NAMES = st.text(st.sampled_from(SIGNS), min_size=1, max_size=12).filter(
    lambda text: text.strip() and text.strip() == text and text not in (".", "..")
)
METHODS = ("zeroshot", "coop", "cocoop", "palm", "palm-dagger", "a_method & more")
UNTRAINED = ("zeroshot", "palm-dagger")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A new folder for each example."""
    root, count = tmp_path_factory.mktemp("runs"), iter(range(10**9))
    return lambda: root / str(next(count))


def write_rows(run, rows) -> None:
    folder = Path(run) / "rows" / "d"
    folder.mkdir(parents=True)
    for n, row in enumerate(rows):
        (folder / f"{n}.json").write_text(json.dumps(row))


def print_table(run, *flags) -> tuple[int, str, str]:
    """`palmkit table`: its status, what it printed, and its messages."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["table", str(run), *flags])
    return code, out.getvalue(), err.getvalue()


def plain(text: str) -> str:
    """A text as one line of a page shows it."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).split())


class Text(html.parser.HTMLParser):
    """A page's text by element, without the content of scripts and styles."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.cells, self.stack = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag in ("td", "th", "p", "li", "summary", "h1"):
            self.cells.append("")

    def handle_endtag(self, tag):
        if tag in ("p", "li", "summary", "h1", "table"):
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data

    @property
    def texts(self) -> set[str]:
        return {plain(cell) for cell in self.cells}


# Special signs.


def named_rows(name, note, classes):
    return [
        result_rows.make_row(name, method, None, 0, accuracy, note=note, class_names=classes)
        for method, accuracy in (("zeroshot", 0.25), ("palm", 0.75))
    ]


@fuzz("special signs in a Markdown table", few=15, many=1000, name=NAMES, note=NAMES)
def test_markdown(place, name, note):
    run = place()
    write_rows(run, named_rows(name, note, ["a", "b"]))
    code, text, _ = print_table(run)
    assert code == 0
    page = mistune.create_markdown(plugins=["table", "strikethrough"])(text)
    found = [plain(html.unescape(cell)) for cell in re.findall(r"<td[^>]*>(.*?)</td>", page, re.S)]
    assert found[0] == plain(name) and len(found) == 3


@fuzz("special signs in a LaTeX table", few=15, many=1000, name=NAMES)
def test_latex(place, name):
    run = place()
    write_rows(run, named_rows(name, "", ["a", "b"]))
    code, text, _ = print_table(run, "--format", "latex")
    assert code == 0
    (line,) = [line for line in text.splitlines() if "0.75" in line]
    bare = re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]|\$\\pm\$|\$\^\\dagger\$", "", line)
    assert bare.endswith(r" \\") and bare.count("&") == 2
    assert not re.search(r"[\\%$#_{}~^<>|]", bare.removesuffix(r" \\"))


@fuzz("special signs in a CSV table", few=15, many=1000, name=NAMES)
def test_csv(place, name):
    run = place()
    write_rows(run, named_rows(name, "", ["a", "b"]))
    code, text, _ = print_table(run, "--format", "csv")
    lines = [*csv.DictReader(io.StringIO(text, newline=""))]
    assert code == 0 and [line["dataset"] for line in lines] == [name] * 2
    assert [float(line["mean"]) for line in lines] == [0.25, 0.75]


@pytest.mark.slow
@fuzz("special signs in a report", few=8, many=400, name=NAMES, note=NAMES, label=NAMES)
def test_report(place, name, note, label):
    run = place()
    classes = [label, "b"] if label != "b" else ["a", "b"]
    write_rows(run, named_rows(name, note, classes))
    page = Text(write_report(run).read_text(encoding="utf-8"))
    assert {plain(name), plain(note)} <= page.texts
    assert {*page.tags} <= KNOWN_TAGS


KNOWN_TAGS = {
    *("html", "meta", "title", "style", "h1", "h2", "h3", "p", "nav", "a", "div", "table"),
    *("thead", "tr", "th", "td", "span", "b", "ul", "li", "figure", "img", "figcaption"),
    *("details", "summary", "tbody"),
}


# Odd sets of trials.

CELLS = st.tuples(
    st.sampled_from(["Rain", "Dogs"]),
    st.sampled_from(METHODS),
    st.sampled_from([None, 0, 1, 2, 3]),
    st.integers(0, 3),
    st.sampled_from([4, 16]),
)
SETS = st.dictionaries(
    CELLS, st.floats(0, 1, width=16) | st.just("diverged"), min_size=1, max_size=30
)


def rows_of(cells: dict) -> list[dict]:
    rows = []
    for (dataset, method, fold, seed, shots), accuracy in cells.items():
        row = result_rows.make_row(dataset, method, fold, seed, 0.0)
        learned = method not in UNTRAINED
        row |= {"shots": shots if learned else 0, "epochs": 50 if learned else 0}
        diverged = accuracy == "diverged"
        score = {"float": "nan"} if diverged else accuracy
        row |= {"accuracy": score, "f1": score, "diverged": "at step 3" if diverged else ""}
        row["key"] = f"{dataset}-{method}-{fold}-{seed}-{row['shots']}"
        rows.append(row)
    return [*{row["key"]: row for row in rows}.values()]


def expected_means(rows) -> set[float]:
    """Means over folds, then over seeds, of complete seeds, by dataset, method and shots."""
    folds, cells = {}, {}
    trained = sorted({row["shots"] for row in rows if row["method"] not in UNTRAINED}) or [0]
    for shots in trained:
        group = [row for row in rows if row["method"] in UNTRAINED or row["shots"] == shots]
        for row in group:
            folds.setdefault((shots, row["dataset"]), set()).add(row["fold"])
            cell = (shots, row["dataset"], row["method"], row["seed"])
            score = np.nan if isinstance(row["accuracy"], dict) else row["accuracy"]
            cells.setdefault(cell, []).append(score)
    seeds = {}
    for (shots, dataset, method, _), scores in cells.items():
        if len(scores) == len(folds[shots, dataset]) and np.isfinite(scores).all():
            seeds.setdefault((shots, dataset, method), []).append(np.mean(scores))
    return {round(float(np.mean(one)), 9) for one in seeds.values()}


@pytest.mark.slow
@fuzz("odd sets of trials in a table", few=15, many=1000, cells=SETS)
def test_sets(place, cells):
    run, rows = place(), rows_of(cells)
    write_rows(run, rows)
    code, text, messages = print_table(run, "--format", "csv")
    expected = expected_means(rows)
    if code:
        assert not expected and "no seed of any method has all folds" in messages
        return
    lines = [*csv.DictReader(io.StringIO(text, newline=""))]
    found = {round(float(x["mean"]), 9) for x in lines if x["dataset"] != "AVERAGE"}
    assert found == expected
    assert all(float(x["low"]) <= float(x["mean"]) <= float(x["high"]) for x in lines if x["low"])


@pytest.mark.slow
@fuzz("odd sets of trials in a report", few=10, many=300, cells=SETS)
def test_sets_in_a_report(place, cells):
    run, rows = place(), rows_of(cells)
    write_rows(run, rows)
    page = Text(write_report(run).read_text(encoding="utf-8"))
    assert any(text.startswith("No table: ") for text in page.texts) == (not expected_means(rows))
    assert {*page.tags} <= KNOWN_TAGS and f"{len(rows)} trials" in " ".join(page.texts)


@fuzz("odd sets of trials in an export", few=10, many=500, cells=SETS)
def test_sets_in_an_export(place, cells):
    from palmkit.results.export import export_frame, export_rows

    run, rows = place(), rows_of(cells)
    write_rows(run, rows)
    frame = export_frame(run)
    assert sorted(frame["key"]) == sorted(row["key"] for row in rows)
    text = export_rows(run, run / "rows.csv").read_text(encoding="utf-8")
    written = [*csv.DictReader(io.StringIO(text, newline=""))]
    assert [line["key"] for line in written] == frame["key"].tolist()
    assert [line["shots"] for line in written] == frame["shots"].astype(str).tolist()
    assert export_rows(run, run / "rows.parquet").stat().st_size > 0


# Files beside the rows.


@pytest.mark.slow
@fuzz(
    "damaged figures and notebooks of a run",
    few=8,
    many=300,
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=3),
)
def test_damaged_files(place, tmp_path_factory, cut, flips):
    run = place()
    write_rows(run, named_rows("Rain", "", ["a", "b"]))
    whole = list_files_of_a_run(tmp_path_factory)
    for name, data in whole.items():
        damaged = bytearray(data[: int(cut * len(data))] if cut < 0.9 else data)
        for where, value in flips if damaged else ():
            damaged[int(where * len(damaged))] = value
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        page = Text(write_report(run).read_text(encoding="utf-8"))
    assert "Rain" in page.texts


FILES: dict[str, bytes] = {}


def list_files_of_a_run(tmp_path_factory) -> dict[str, bytes]:
    if not FILES:
        ax = plt.subplots(figsize=(2, 1))[1]
        for suffix in ("png", "pdf"):
            file = io.BytesIO()
            ax.figure.savefig(file, format=suffix)
            FILES[f"figures/results.{suffix}"] = file.getvalue()
        plt.close(ax.figure)
        cells = [nbformat.v4.new_markdown_cell("# 5. Results"), nbformat.v4.new_code_cell("1 + 1")]
        book = nbformat.writes(nbformat.v4.new_notebook(cells=cells))
        FILES["notebooks/05_results.ipynb"] = book.encode()
    return FILES


# Notebooks.

SUBSETS = (
    {},
    dict(folds=[2], seeds=[7]),
    dict(folds=[2, 1], seeds=[4, 1], epochs=2),
    dict(datasets=["one <split>"]),
    dict(datasets=["tiny", "one <split>"], folds="all"),
)
SOME_METHODS = (
    ["zeroshot", "palm"],
    ["coop"],
    ["zeroshot"],
    ["mine-of-notebooks"],
    ["palm-dagger", "cocoop"],
)
WITH_METHODS = (5, 7, 8)


@pytest.mark.slow
def test_notebooks(tmp_path, monkeypatch):
    """One of them in `make test`, all in `make endurance`."""
    run = small_series(make_small_datasets(tmp_path), monkeypatch)
    tries = [(5, dict(methods=["mine-of-notebooks"]))]
    if MODE != "few":
        tries = [(number, chosen) for number in range(14) for chosen in SUBSETS]
        tries += [(n, dict(methods=methods)) for n in WITH_METHODS for methods in SOME_METHODS]
    for number, chosen in tries:
        with attempt("notebook with a part of the grid"):
            run(number, **chosen)
