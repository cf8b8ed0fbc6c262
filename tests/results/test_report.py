"""The report of a run shows what the rows say, and needs neither network nor other files."""

import base64
import html.parser
import io
import json
import re
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import result_rows
import torch

from palmkit.experiments.rows import row_path, write_row
from palmkit.experiments.trials import Trial
from palmkit.results.captions import find_caption
from palmkit.results.confusion import Confusion, count_confusions
from palmkit.results.loading import load_rows
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
    assert found["Rain"] == ["0.40", "0.52 ± 0.02", "0.72 ± 0.02", "0.25"]
    assert found["Dogs & <cats>"][0] == "0.30" and found["AVERAGE"] == [
        "0.35",
        "0.47 ± 0.02",
        "0.67 ± 0.02",
        "0.25",
    ]
    assert re.findall(r"<b>([\d.]+)</b>", page) == [
        "0.62",
        "0.72",
        "0.67",
    ]  # the best of each line
    assert "PALM over COOP: +20.0 points, ahead on 2 of 2 datasets" in page
    assert "2 datasets, 3 methods, 3 seeds, 14 trials" in page
    assert (
        "torch 1.2.3" in page
        and "about 7.0 h" in page
        and "f" * 16 in page
        and "published numbers" not in page
    )


def test_seeds_that_are_missing_are_told(run):
    (run / "rows" / "Rain" / "palm-2.json").unlink()
    assert cells(write_report(run).read_text())["Rain"][2] == "0.71 ± 0.01 n=2"


@pytest.mark.slow
def test_settings_and_notes(run):
    page = write_report(run).read_text()
    assert "<tr><td>seeds<td>0, 1, 2\n" in page and "class=note" not in page
    assert "<tr><td>datasets<td>Dogs &amp; &lt;cats&gt;, Rain\n" in page
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


@pytest.mark.slow
def test_published_datasets_get_their_verdict_for_each_setting(tmp_path):
    for shots in (16, 4):
        write_rows(tmp_path, {("SESA", "palm", 0): 0.9}, n_test=105, shots=shots)
        (tmp_path / "rows" / "SESA" / "palm-0.json").rename(
            tmp_path / "rows" / "SESA" / f"palm-{shots}.json"
        )
    page = write_report(tmp_path).read_text()
    assert page.count("<h3>Beside the published numbers: shots=") == 2
    assert "shots=4, the paper&#39;s is 16" in page or "shots=4, the paper's is 16" in page


def test_rows_of_two_encoders_are_not_put_beside_the_published_numbers(tmp_path):
    about = dict(n_test=105, encoders="two", model="a + b", first="1" * 64, second="2" * 64)
    write_rows(tmp_path, {("SESA", "palm", 0): 0.9}, **about)
    page = write_report(tmp_path).read_text()
    assert "<h3>encoders=two</h3>" in page and "Beside the published numbers" not in page
    assert "<tr><td>model<td>a + b\n" in page
    for half, digit in (("first", "1"), ("second", "2")):
        assert f"<tr><td>{half} of two models (sha256)<td>{digit * 16}\n" in page


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
    assert "palm-2.json is left out: it is no JSON" in page and "0.71" in page


@pytest.mark.slow
def test_figures_are_in_the_file_by_notebook(run):
    for name in ("loose", "lambdas_Rain", "results"):
        ax = plt.subplots()[1]
        save_figure(ax, run, name, "A caption & more." if name == "loose" else "")
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
            'alt="Accuracy of each method on each dataset."',
            "<h3>6. Page",
            'alt="PALM&#39;s lambda of each class of Rain, before and after training."',
            "<h3>Others",
            'alt="A caption &amp; more."',
        )
    ]
    assert order == sorted(order)
    assert len(re.findall(r"src='data:image/png;base64,[^']{100,}'", page)) == 3
    assert "class=failed>failed" in page and "07_d: <span class=not-run>not run" in page
    links = re.findall(r"""href=["']([^"'#]+)["']""", page)
    links = [link for link in links if not link.startswith("data:")]
    assert len(links) == 3 + 2 * 2 and "their links work where it lies, in the folder first" in page
    for link in links:
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


def test_the_settings_are_those_of_the_rows(run):
    """Not those of the last command, which may have added one seed of another setting."""
    write_rows(run, {("Rain", "palm", 7): 0.6}, shots=4, lr=0.5, options={"init": "text"})
    page = write_report(run, parameters={"shots": 99, "lr": 0.123, "seeds": [8]}).read_text()
    settings = dict(re.findall(r"<tr><td>([^<]*)<td>([^<]*)\n", page[page.index("id=Settings") :]))
    assert settings["shots"] == "4; 16" and settings["lr"] == "0.05; 0.5"
    assert settings["seeds"] == "0, 1, 2, 7" and settings["methods"] == "Zero-shot, COOP, PALM"
    assert settings["options"] == "none; init: text" and settings["folds"] == "a single split"
    assert "0.123" not in page


def test_tables_and_rows_are_downloads_in_the_file(run):
    page = write_report(run).read_text()
    found = dict(re.findall(r'<a download="([^"]+)" href="data:[^;]+;base64,([^"]+)">', page))
    assert [*found] == ["results.md", "results.tex", "results.csv", "rows.csv"]
    for name in [*found][:3]:
        assert base64.b64decode(found[name]) == (run / "tables" / name).read_bytes()
    rows = pd.read_csv(io.BytesIO(base64.b64decode(found["rows.csv"])))
    assert len(rows) == 14 and {"accuracy", "shots", "key"} <= set(rows)


@pytest.mark.slow
def test_figures_of_published_numbers_are_marked(run):
    for name in ("critical_difference", "losses_palm"):
        ax = plt.subplots()[1]
        save_figure(ax, run, name)
        plt.close(ax.figure)
    page = html.unescape(write_report(run).read_text())
    captions = re.findall("<figcaption>(.*?)[(]", page)
    assert len(captions) == 2 and all(caption.strip().endswith(".") for caption in captions)
    assert captions[0].endswith("Published numbers, not this run's. ")
    assert "ublished" not in captions[1]


def test_every_figure_of_the_notebooks_has_a_caption():
    books = (Path(__file__).parents[2] / "notebooks").glob("[0-9]*.ipynb")
    text = "".join(path.read_text() for path in books)
    names = set(re.findall(r'save_figure\(.*?, f?\\"([^"]+)\\"\)', text))
    assert len(names) > 25
    assert [name for name in names if not find_caption(re.sub("{.*}", "Rain", name))] == []


def test_damaged_notebooks_and_figures_do_not_keep_the_report_from_being_written(run):
    (run / "notebooks").mkdir()
    (run / "figures").mkdir()
    (run / "notebooks" / "05_b.ipynb").write_text('{"cells": [{"cell_ty')
    (run / "figures" / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n123")
    page = write_report(run).read_text()
    assert "05_b.ipynb cannot be read" in page and "x.png cannot be read" in page
    assert "0.72" in page and "05_b: <span" not in page.partition("Left out")[0]


def test_warnings_of_python_are_no_text_of_the_report(run, monkeypatch):
    def warn(*_, **__):
        warnings.warn("Mean of empty slice", RuntimeWarning, stacklevel=2)
        warnings.warn("will go away", FutureWarning, stacklevel=2)
        return []

    monkeypatch.setattr("palmkit.results.report.count_confusions", warn)
    page = write_report(run).read_text()
    assert "empty slice" not in page and "will go away" not in page


class TestClasses:
    """Results by class and confusions, from the logits beside the rows."""

    @pytest.fixture
    def run(self, tmp_path):
        names = ["a dog", "<cat>", "rain"]
        for method, guesses in {"zeroshot": [0, 0, 0, 2, 2, 2], "palm": [0, 0, 1, 2, 2, 2]}.items():
            trial = Trial(method, "Mine", None, 0)
            row = result_rows.make_row("Mine", method, None, 0, class_names=names)
            row |= {"key": "k" * 64, "shots": trial.shots}
            tensors = {
                "logits": 9.0 * torch.eye(3)[torch.tensor(guesses)],
                "labels": torch.tensor([0, 0, 1, 1, 2, 2]),
            }
            write_row(row_path(tmp_path / "run", trial, row["key"]), row, tensors)
        return tmp_path / "run"

    def test_the_counts(self, run):
        first, second = count_confusions(load_rows(run, details=True), run)
        assert (first.method, second.method) == ("zeroshot", "palm")
        assert second.counts.tolist() == [[2, 0, 0], [0, 1, 1], [0, 0, 2]]
        assert second.recalls.tolist() == [1, 0.5, 1] and second.accuracy == 5 / 6
        assert first.most_confused(1) == (0, 0.5) and first.most_confused(0) is None

    def test_they_stand_in_the_report(self, run):
        page = write_report(run).read_text()
        line = "<tr><td>&lt;cat&gt;<td>2<td>0.00<td>0.50<td>rain (0.50)"
        assert "<details open><summary>Mine</summary>" in page and line in page
        matrix = page[page.index("<table class=matrix>") :].partition("</table>")[0]
        assert re.findall(r">(\d)\n?(?=<|\n)", matrix) == [*"200011002"]

    def test_rows_without_logits_are_told(self, run):
        for path in run.glob("rows/Mine/palm*.safetensors"):
            path.unlink()
        page = write_report(run).read_text()
        assert "Mine, palm: 1 of 1 rows have no usable logits" in page
        assert "<td>0.00<td>a dog (0.50)" in page

    def test_classes_without_clips_have_no_recall(self):
        found = Confusion("x", "palm", ["a", "b"], np.array([[1, 1], [0, 0]]), 1)
        assert found.recalls.tolist()[0] == 0.5 and np.isnan(found.recalls[1])
