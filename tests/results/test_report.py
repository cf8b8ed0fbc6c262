"""The report of a run shows what the rows say, and needs neither network nor other files."""

import html.parser
import json
import re

import matplotlib.pyplot as plt
import nbformat
import pytest
import result_rows

from palmkit.results.plots import save_figure
from palmkit.results.report import write_report


def write_rows(run, accuracies, **more):
    """Rows from {(dataset, method, seed): accuracy}, one split each."""
    for (dataset, method, seed), accuracy in accuracies.items():
        row = result_rows.make_row(dataset, method, None, seed, accuracy, **more)
        path = run / "rows" / dataset / f"{method}-{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row))


GRID = {
    (dataset, method, seed): base + 0.1 * (dataset == "Rain") + 0.02 * seed
    for dataset in ("Rain", "Dogs & <cats>")
    for method, base, seeds in (("zeroshot", 0.3, 1), ("coop", 0.4, 3), ("palm", 0.6, 3))
    for seed in range(seeds)
}


@pytest.fixture
def run(tmp_path):
    write_rows(tmp_path / "first", GRID)
    return tmp_path / "first"


def cells(page):
    """The first table of a page: {first cell: [the others]}, without tags."""
    table = re.search(r"<table>(.*?)</table>", page, re.S).group(1)
    lines = [re.split(r"<t[hd][^>]*>", line)[1:] for line in re.split(r"<tr[^>]*>", table)[1:]]
    plain = [
        [html.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in line] for line in lines
    ]
    return {line[0]: line[1:] for line in plain}


def test_the_table_is_the_rows(run):
    page = write_report(run).read_text()
    found = cells(page)
    assert found[""] == ["Zero-shot n=1", "COOP n=3", "PALM n=3", "chance"]
    assert found["Rain"] == ["0.400", "0.520 ± 0.020", "0.720 ± 0.020", "0.250"]
    assert found["Dogs & <cats>"][0] == "0.300" and found["AVERAGE"] == [
        "0.350",
        "0.470 ± 0.020",
        "0.670 ± 0.020",
        "0.250",
    ]
    assert re.findall(r"<b>([\d.]+)</b>", page) == [
        "0.620",
        "0.720",
        "0.670",
    ]  # the best of each line
    assert "PALM over COOP: +20.0 points, ahead on 2 of 2 datasets" in page
    assert "2 datasets, 3 methods, 3 seeds, 14 trials" in page
    assert (
        "torch 1.2.3" in page
        and "7.00 hours" in page
        and "f" * 16 in page
        and "published numbers" not in page
    )


def test_seeds_that_are_missing_are_told(run):
    (run / "rows" / "Rain" / "palm-2.json").unlink()
    assert cells(write_report(run).read_text())["Rain"][2] == "0.710 ± 0.014 n=2"


def test_settings_and_notes(run):
    page = write_report(
        run, parameters={"seeds": [0, 1], "note": "", "datasets": ["<x>"]}
    ).read_text()
    assert "<td>0, 1" in page and "&lt;x&gt;" in page and "class=note" not in page
    write_rows(run, {("Rain", "palm", 0): 0.6}, note="not <PENGI>")
    assert "<p class=note>not &lt;PENGI&gt;" in write_report(run).read_text()
    write_rows(run, {("Rain", "palm", 5): 0.6}, shots=4)
    page = write_report(run).read_text()
    assert "<h3>shots=16</h3>" in page and "<h3>shots=4</h3>" in page


def test_published_datasets_get_their_verdict(tmp_path):
    write_rows(tmp_path / "run", {("SESA", "palm", 0): 0.9, ("SESA", "coop", 0): 0.8}, n_test=105)
    page = write_report(tmp_path / "run").read_text()
    assert (
        "Beside the published numbers" in page
        and "outside noise" in page
        and "within noise" in page
    )


def test_published_datasets_get_their_verdict_for_each_setting(tmp_path):
    for shots in (16, 4):
        write_rows(tmp_path, {("SESA", "palm", 0): 0.9}, n_test=105, shots=shots)
        (tmp_path / "rows" / "SESA" / "palm-0.json").rename(
            tmp_path / "rows" / "SESA" / f"palm-{shots}.json"
        )
    page = write_report(tmp_path).read_text()
    assert page.count("<h3>Beside the published numbers: shots=") == 2
    assert "shots=4, the paper&#39;s is 16" in page or "shots=4, the paper's is 16" in page


def test_the_rows_origin_is_shown(run):
    origin = {
        "palmkit": "1.2.3", "commit": "c0ffee dirty", "command": "palmkit run --name '<x>'",
        "checkpoint_sha256": "5eed" * 16, "dataset_digest": "da7a" * 16,
    }  # fmt: skip
    write_rows(run, GRID, **origin)
    page = html.unescape(write_report(run).read_text())
    for name, value in {
        "palmkit": "1.2.3", "commit": "c0ffee dirty", "command": "palmkit run --name '<x>'",
        "checkpoint (sha256)": "5eed" * 4,
        "datasets (sha256)": f"Dogs & <cats> {'da7a' * 4}, Rain {'da7a' * 4}",
    }.items():  # fmt: skip
        assert f"<tr><td>{name}<td>{value}\n" in page


def test_a_damaged_row_is_named(run):
    (run / "rows" / "Rain" / "palm-2.json").write_text("{")
    page = write_report(run).read_text()
    assert "palm-2.json is left out: it is no JSON" in page and "0.710" in page


def test_figures_are_in_the_file_by_notebook(run):
    for name in ("loose", "lambdas_Rain", "results"):
        ax = plt.subplots()[1]
        save_figure(ax, run, name)
        plt.close(ax.figure)
    (run / "notebooks").mkdir()
    for stem, source in {
        "05_b": 'save_figure(ax, run, "results")',
        "06_c": 'save_figure(ax, run, f"lambdas_{name}")',
    }.items():
        title = nbformat.v4.new_markdown_cell(f"# {stem[1]}. Page\n\ntext")
        book = nbformat.v4.new_notebook(cells=[title, nbformat.v4.new_code_cell(source)])
        nbformat.write(book, run / "notebooks" / f"{stem}.ipynb")
        (run / "notebooks" / f"{stem}.html").write_text("")
    page = write_report(run, {"05_b": "done", "06_c": "failed", "07_d": "not run"}).read_text()
    order = [
        page.index(word)
        for word in (
            "<h3>5. Page",
            "alt='results'",
            "<h3>6. Page",
            "alt='lambdas Rain'",
            "<h3>Others",
            "alt='loose'",
        )
    ]
    assert order == sorted(order)
    assert len(re.findall(r"src='data:image/png;base64,[^']{100,}'", page)) == 3
    assert "class=failed>failed" in page and "07_d: <span class=not-run>not run" in page
    for link in re.findall(r"href='([^']+)'", page):
        assert (run / link).is_file(), link
    (run / "notebooks" / ".05_b.json").write_text("sealed: it is done")
    page = write_report(run).read_text()  # by a later `run`, which knows nothing of notebooks
    assert "5. Page</a>" in page and page.count(">done<") == 1 and page.count(">failed<") == 1


def test_no_network_and_no_other_file_is_needed(run):
    page = write_report(run, parameters={"checkpoint": "mini"}).read_text()
    assert not re.search(r"(src|href)=['\"]?(https?:)?//|@import|<script|<link", page)


def test_a_run_without_rows_has_a_report_that_says_so(tmp_path):
    page = write_report(tmp_path / "empty").read_text()
    assert "No table: there are no rows" in page and "href=#Results" not in page


def test_the_page_is_well_formed(run):
    class Reader(html.parser.HTMLParser):
        open, ids, links = [], set(), set()

        def handle_starttag(self, tag, attributes):
            self.ids |= {value for name, value in attributes if name == "id"}
            self.links |= {
                value[1:] for name, value in attributes if name == "href" and value.startswith("#")
            }
            if tag in ("table", "ul", "div", "figure", "b", "span", "h2", "h3"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            if tag in ("table", "ul", "div", "figure", "b", "span", "h2", "h3"):
                assert self.open.pop() == tag

    reader = Reader()
    reader.feed(write_report(run, {"00_a": "not run"}).read_text())
    assert (
        reader.open == [] and reader.links <= reader.ids and {"Results", "Settings"} <= reader.links
    )
