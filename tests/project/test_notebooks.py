"""The notebooks as documents, and the series as a batch. nbval compares their outputs."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from mini_pengi.descriptions import WORDINGS

from palmkit import notebooks as series
from palmkit.cli import main
from palmkit.experiments.config import CHOICES, choose, expand_datasets
from palmkit.results import changed_parameters
from palmkit_synthetic.tasks import DEFAULT_TASKS

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
BOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))
EXPLORE = FOLDER / "explore.ipynb"  # beside the series: not numbered, and nothing of a run
APPENDIX = sorted(FOLDER.glob("appendix/*.ipynb"))
NO_MODEL = FOLDER / "07_published.ipynb"  # has the numbers of others alone


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def is_folded(cell):
    """A cell whose code is hidden, such as the checks of a page's text at its end."""
    return cell.metadata.get("jupyter", {}).get("source_hidden", False)


def code_lines(cell):
    """Lines of a cell without its imports, which nobody has to follow."""
    body = ast.parse(cell.source).body
    imports = [n for n in body if isinstance(n, ast.Import | ast.ImportFrom)]
    return len(cell.source.splitlines()) - sum(n.end_lineno - n.lineno + 1 for n in imports)


def test_the_series_is_numbered_without_gaps():
    assert [book.name[:2] for book in BOOKS] == [f"{n:02d}" for n in range(len(BOOKS))] and len(
        BOOKS
    ) >= 7
    assert series.list_notebooks() == BOOKS and {*BOOKS, EXPLORE} == {*FOLDER.glob("*.ipynb")}
    assert series.list_notebooks(numbers=[2, 0]) == [BOOKS[0], BOOKS[2]]
    with pytest.raises(ValueError, match=r"there is no notebook 98, 99; there are 0 to \d+"):
        series.list_notebooks(numbers=[0, 99, 98])


@pytest.mark.parametrize("path", [*BOOKS, EXPLORE, *APPENDIX], ids=lambda path: path.stem)
class TestDocument:
    @pytest.fixture
    def book(self, path):
        return nbformat.read(path, as_version=4)

    def test_every_cell_was_executed_in_order(self, book):
        """nbval compares nothing in a cell that was never executed."""
        counts = [cell.execution_count for cell in code_cells(book)]
        assert counts == list(range(1, len(counts) + 1))
        assert not [
            o for cell in code_cells(book) for o in cell.outputs if o.output_type == "error"
        ]
        assert not [
            o for cell in code_cells(book) for o in cell.outputs if o.get("name") == "stderr"
        ]
        assert sum(bool(cell.outputs) for cell in code_cells(book)) >= 4

    def test_one_parameters_cell_of_literals(self, book, path):
        (cell,) = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
        values = {}
        exec(cell.source, {"__builtins__": {}}, values)  # literals only: no name may be needed
        known = papermill.inspect_notebook(str(path))
        assert set(known) == set(values)
        if path == NO_MODEL:
            assert set(values) == {"run"}
        if path in (*APPENDIX, NO_MODEL):
            return
        assert {"checkpoint", "device", "note", "study" if path == EXPLORE else "datasets"} <= set(
            values
        )
        assert ("run" in values) == (path != EXPLORE)
        defaults = choose({}).parameters()
        defaults["datasets"] = expand_datasets(defaults["datasets"])
        assert set(defaults) == set(CHOICES) and defaults["datasets"] == [*DEFAULT_TASKS]
        assert {
            name: values[name] for name in values if name in defaults
        }.items() <= defaults.items()

    def test_its_own_parameters_are_those_of_its_findings(self, book):
        """What a page gives as its default run is what its parameters cell has."""
        (cell,) = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
        page = {}
        exec(cell.source, {"__builtins__": {}}, page)
        code = "\n".join(cell.source for cell in code_cells(book))
        for own in re.findall(r"changed_parameters\(globals\(\)(.*)\)", code):
            given = eval(f"dict({own.lstrip(', ')})", {"dict": dict})
            assert changed_parameters(page, **given) == []
            assert "findings_note(" in code

    def test_it_reads_as_a_page(self, book, path):
        title, number = book.cells[0], path.name.split("_")[0]
        start = "# Exploring" if path == EXPLORE else f"# {number.lstrip('0') or '0'}. "
        assert title.cell_type == "markdown" and title.source.startswith(start)
        for word in (
            "**Question.**",
            "**Inputs.**",
            "**Outputs.**",
            "**Run time.**",
            "mini-PENGI",
            "**not**",
        ):
            assert word.lower() in title.source.lower(), word
        shown = [cell for cell in code_cells(book) if not is_folded(cell)]
        assert len(book.cells) <= 26 and all(code_lines(cell) <= 15 for cell in shown)
        assert not re.search(
            r"!pip|%cd|sys\.path", "\n".join(cell.source for cell in code_cells(book))
        )

    def test_small_and_without_traces_of_a_machine(self, path, book):
        text = path.read_text()
        assert len(text) < 300_000
        assert not re.search(r"/(home|root|Users|tmp|work|mnt)/", text)
        assert not any("execution" in cell.metadata for cell in book.cells)


def write_series(folder, *sources):
    """Notebooks 00_, 01_, ... with a parameters cell and one code cell each."""
    folder.mkdir()
    for n, source in enumerate(sources):
        parameters = nbformat.v4.new_code_cell(
            'run = "x"\nshots = 16', metadata={"tags": ["parameters"]}
        )
        book = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(source)])
        book.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        nbformat.write(book, folder / f"{n:02d}_book.ipynb")
    return folder


@pytest.mark.slow
def test_a_failed_notebook_is_kept_named_and_the_series_goes_on(tmp_path):
    mark = "open('done{}', 'a').write('x'); print(shots)"
    flag = "import os; assert os.path.exists('mended'), 'not mended yet'"
    folder = write_series(tmp_path / "books", mark.format(0), flag, mark.format(2))
    sources = {path: path.read_bytes() for path in folder.iterdir()}
    run = tmp_path / "runs" / "one"
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        with pytest.raises(
            series.NotebookFailed,
            match=r"01_book.ipynb failed in cell 3: AssertionError: not mended yet",
        ):
            series.run_series(run, {"shots": 4}, folder)
        assert (
            "01_book</a>" in (run / "index.html").read_text()
            and "failed" in (run / "index.html").read_text()
        )
        kept = nbformat.read(run / "notebooks" / "01_book.ipynb", as_version=4)
        assert any(o.output_type == "error" for cell in code_cells(kept) for o in cell.outputs)
        Path("mended").touch()
        index = series.run_series(run, {"shots": 4}, folder)
        assert Path("done0").read_text() == "x"  # not run twice
        assert "4\n" in json.dumps(
            nbformat.read(run / "notebooks" / "02_book.ipynb", as_version=4)
        ).replace("\\n", "\n")
    finally:
        os.chdir(here)
    assert sources == {path: path.read_bytes() for path in folder.iterdir()}
    page = index.read_text()
    for link in re.findall(r"href='([^']+)'", page):
        assert (run / link).is_file(), link


@pytest.mark.slow
def test_several_notebooks_at_a_time(tmp_path):
    folder = write_series(
        tmp_path / "books", *["import os; print(shots, os.environ['PALMKIT_PROGRESS'])"] * 3
    )
    index = series.run_series(tmp_path / "run", {"shots": 4}, folder, jobs=2, numbers=[0, 1, 2])
    for n in range(3):
        kept = nbformat.read(tmp_path / "run" / "notebooks" / f"{n:02d}_book.ipynb", as_version=4)
        assert "4 0" in str(code_cells(kept)[-1].outputs)
    assert index.read_text().count(">done<") == 3


def test_unknown_parameters_are_an_error_before_anything_runs(tmp_path):
    folder = write_series(tmp_path / "books", "print(shots)")
    message = "00_book.ipynb has no parameter shot; there are run, shots"
    with pytest.raises(ValueError, match=message):
        series.run_series(tmp_path / "run", {"shot": 4}, folder)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", range(len(BOOKS)))
def test_each_notebook_runs_alone_with_the_defaults(number):
    """What was not said may be missing from a notebook; what was said may not."""
    choices = choose({})
    (book,) = series.list_notebooks(numbers=[number])
    given = series.choose_parameters([book], choices.parameters() | {"run": "x"}, choices.given)
    assert set(given[book]) == set(papermill.inspect_notebook(str(book))) & {*CHOICES, "run"}
    if "lr" not in given[book]:
        with pytest.raises(ValueError, match=f"{book.name} has no parameter lr"):
            choices = choose({"lr": 0.5})
            series.choose_parameters([book], choices.parameters(), choices.given)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "0.5"], "has no parameter lr"),
        (["-p", "sots", "4"], "has no parameter sots"),
        (["-p", "run", "x"], "name the run by --name"),
        (["--only", "99"], "there is no notebook 99"),
        (["--epochs", "-1"], "epochs=-1"),
    ],
)
def test_bad_choices_are_refused_before_any_trial(tmp_path, flags, message, monkeypatch, capsys):
    folder = write_series(tmp_path / "books", "print(shots)")
    monkeypatch.setenv("PALMKIT_RUNS", str(tmp_path / "runs"))
    assert main(["notebooks", "--notebooks", str(folder), *flags]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_copying_the_series(tmp_path, capsys):
    copy = tmp_path / "copy"
    assert main(["notebooks", "--copy-to", str(copy)]) == 0
    assert capsys.readouterr().out.strip() == str(copy)
    assert [book.name for book in series.list_notebooks(copy)] == [book.name for book in BOOKS]
    tables = {path.name for path in (FOLDER / "data").iterdir()}
    assert {path.name for path in (copy / "data").iterdir()} == tables
    assert main(["notebooks", "--copy-to", str(copy)]) == 1
    assert "is there already" in capsys.readouterr().err


@pytest.mark.slow
def test_papermill_by_hand_from_any_folder(tmp_path):
    """The page runs from a folder that knows nothing of the checkout, with its own parameters."""
    env = {**os.environ, "PALMKIT_RUNS": str(tmp_path / "runs"), "PALMKIT_PROGRESS": "0"}
    env["PYTHONPATH"] = os.pathsep.join([str(FOLDER.parent), env.get("PYTHONPATH", "")])
    few = "{datasets: [VocalSounds], seeds: [0], epochs: 2, folds: [1], shots: 4, run: hand}"
    book = FOLDER / "04_palm.ipynb"
    command = [sys.executable, "-m", "papermill", str(book), "out.ipynb", "-y", few]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = list(
        (tmp_path / "runs" / "hand" / "rows" / "VocalSounds").glob("palm-fold1-shots4-seed0-*.json")
    )
    assert len(rows) == 1 and json.loads(rows[0].read_text())["epochs"] == 2


def test_page_1_has_the_wordings_of_the_card():
    """The page cannot import them: `tools` is not in the wheel."""
    book = nbformat.read(FOLDER / "01_zero_shot.ipynb", as_version=4)
    (cell,) = [cell for cell in code_cells(book) if cell.source.startswith("WORDINGS")]
    values = {}
    exec(cell.source.partition("\nprompts")[0], {"__builtins__": {}}, values)
    assert tuple(values["WORDINGS"]) == WORDINGS


def test_page_0_links_every_page():
    text = "\n".join(cell.source for cell in nbformat.read(BOOKS[0], as_version=4).cells)
    for path in (*BOOKS[1:], EXPLORE, *APPENDIX):
        assert f"]({path.relative_to(FOLDER).as_posix()})" in text, path
