"""A report of 1,000 classes, many settings and thousands of rows stays a page that a browser opens.

What it leaves out it counts, and the whole is in a file that it names.
"""

import json
import re

import numpy as np
import pandas as pd
import pytest
import result_rows
import torch

from palmkit.experiments.rows import row_path, write_row
from palmkit.experiments.status import read_status
from palmkit.experiments.trials import Trial
from palmkit.results import report
from palmkit.results.confusion import count_confusions
from palmkit.results.loading import load_rows
from palmkit.results.report import write_report
from palmkit.widgets.html import MOST_CLASSES, confusion_table


def write_trial(run, names, method="palm", seed=0, dataset="Rain", **more) -> None:
    """A row with logits. Each class has two clips; the first of them is right if its number is a
    multiple of 3.
    """
    count = len(names)
    labels = torch.arange(count).repeat(2)
    logits = torch.zeros(len(labels), count)
    guess = torch.where((labels % 3 == 0) & (torch.arange(2 * count) < count), labels, labels - 1)
    logits[torch.arange(2 * count), guess % count] = 1.0
    row = result_rows.make_row(dataset, method, None, seed, 0.2, class_names=names, **more)
    trial = Trial(method, dataset, None, seed, shots=row["shots"])
    key = f"{row['shots']:04d}{seed:06d}"
    write_row(row_path(run, trial, key), row | {"key": key}, {"logits": logits, "labels": labels})


def read_page(run) -> str:
    return write_report(run).read_text()


def class_names(count: int) -> list[str]:
    return [f"class {n:04d}" for n in range(count)]


@pytest.mark.slow
def test_a_thousand_classes_are_a_table_of_the_hardest(tmp_path):
    sizes = []
    for count in (300, 1000):
        run = tmp_path / str(count)
        for seed in range(2):
            write_trial(run, class_names(count), seed=seed)
        page = read_page(run)
        sizes.append(len(page))
        assert f"{count - 100} more are left out" in page
        assert page.count("<tr><td>class ") == 100
        assert "All classes of all datasets are in tables/classes.csv." in page
        # Of three classes, one is right in half of its clips: it is none of the hardest.
        assert "<tr><td>class 0003<" not in page and "<tr><td>class 0004<" in page
        whole = pd.read_csv(run / "tables" / "classes.csv")
        assert len(whole) == count and list(whole["class_name"]) == class_names(count)
        wanted = [0.5 if n % 3 == 0 else 0.0 for n in range(count)]
        assert list(whole["recall"]) == wanted and set(whole["decisions"]) == {4}
    assert sizes[1] < 1.05 * sizes[0]


def test_as_many_classes_as_fit_are_all_there(tmp_path):
    write_trial(tmp_path / "run", class_names(100))
    page = read_page(tmp_path / "run")
    assert page.count("<tr><td>class ") == 100
    assert "left out" not in page and not (tmp_path / "run" / "tables" / "classes.csv").exists()


@pytest.mark.slow
def test_many_settings_are_a_bounded_number_of_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MOST_TABLES", 3)
    monkeypatch.setattr(report, "MOST_DATASETS", 2)
    run = tmp_path / "run"
    for number in range(5):
        write_trial(run, class_names(4), shots=number + 1)
    page = read_page(run)
    assert page.count("<h3>shots=") == 3
    assert "2 more tables, of other settings, are left out here" in page
    assert page.count("<table class=classes>") == 2
    assert "3 more datasets and settings are left out." in page
    assert len(pd.read_csv(run / "tables" / "classes.csv")) == 5 * 4
    assert (run / "tables" / "results-5.csv").is_file()


@pytest.mark.slow
def test_large_downloads_lie_beside_the_page(tmp_path, monkeypatch):
    run = tmp_path / "run"
    write_trial(run, class_names(4))
    assert 'download="rows.csv"' in read_page(run)
    assert not (run / "tables" / "rows.csv").exists()
    monkeypatch.setattr(report, "LARGEST_DOWNLOAD", 1000)
    page = read_page(run)
    assert 'download="rows.csv"' not in page and 'download="results.md"' in page
    assert re.search(r'<a href="tables/rows.csv">rows.csv</a> \(0.0 MB\)\.', page)
    assert len(pd.read_csv(run / "tables" / "rows.csv")) == 1


def test_many_warnings_and_values_are_counted(tmp_path):
    run = tmp_path / "run"
    for seed in range(report.MOST_VALUES + 20):
        write_trial(run, class_names(2), seed=seed)
    folder = run / "rows" / "Rain"
    for number in range(report.MOST_TEXTS + 7):
        (folder / f"damaged-{number:03d}.json").write_text("{")
    page = read_page(run)
    assert "damaged-049.json" in page and "damaged-050.json" not in page
    assert "<li>and 7 more" in page
    assert "98, 99, and 20 more" in page


def test_rows_are_read_without_their_long_lists(tmp_path, monkeypatch):
    """The report reads class names and nothing else of what grows with steps and clips."""
    write_trial(tmp_path / "run", class_names(4))
    asked = []
    monkeypatch.setattr(report, "load_rows", lambda run, details: asked.append(details) or [])
    with pytest.raises(AttributeError):
        write_report(tmp_path / "run")
    assert asked == [["class_names"]]


def test_equal_class_names_are_one_list(tmp_path):
    for seed in range(3):
        write_trial(tmp_path / "run", class_names(50), seed=seed)
    rows = load_rows(tmp_path / "run", details=["class_names"])
    assert len({id(names) for names in rows["class_names"]}) == 1
    assert "losses" not in rows and "clips" not in rows and "n_classes" not in rows
    assert "losses" in load_rows(tmp_path / "run", details=True)


def test_confusions_are_summed_row_by_row(tmp_path, monkeypatch):
    """Matrices of 1,000 classes have 8 MB; no more than two of a method are in memory."""
    import tracemalloc

    names, seeds = class_names(400), 12
    for seed in range(seeds):
        write_trial(tmp_path / "run", names, seed=seed)
    rows = load_rows(tmp_path / "run", details=["class_names"])
    tracemalloc.start()
    try:
        (found,) = count_confusions(rows, tmp_path / "run")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.trials == seeds and found.counts.sum() == seeds * 800
    # Logits as float64 have 2.6 MB, a matrix 1.3 MB.
    assert peak < 8 * found.counts.nbytes


def test_status_looks_at_no_long_list(tmp_path):
    """It is asked again and again while a run of thousands of rows goes on."""
    run = tmp_path / "run"
    write_trial(run, class_names(4))
    (path,) = run.glob("rows/*/*.json")
    row = json.loads(path.read_text())
    path.write_text(json.dumps(row | {"losses": ["no number", None]}, indent=1))
    assert read_status(run).done == 1
    path.write_text(json.dumps(row | {"accuracy": "no number"}, indent=1))
    assert read_status(run).done == 0


def test_a_confusion_table_of_many_classes_has_those_with_most_wrong_clips():
    count = MOST_CLASSES + 40
    counts = np.eye(count, dtype=int) * 10
    counts[7, 3] = counts[90, 91] = 5
    table = confusion_table(counts, class_names(count))
    assert table.count("<tr>") == MOST_CLASSES + 1
    assert f"{MOST_CLASSES} of {count} classes: those with most wrong clips" in table
    assert "class 0007" in table and "class 0090" in table and "class 0091" not in table
    assert "rgba(1,115,178,0.67)" in table  # 10 of the 15 clips of class 7
    assert "caption" not in confusion_table(counts[:9, :9], class_names(9))
