"""The notebooks as a batch: executed in order by papermill, beside the rows they are made of, with an index page."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import joblib
import nbformat
import papermill
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from palmkit import audio
from palmkit.results.report import DONE, FAILED, OPEN, write_report
from palmkit.storage import atomic_write, notebooks_folder, progress_bar, run_folder

# Nothing that a page needs the network for: its formulas and diagrams are none.
NO_URLS = dict.fromkeys(
    ("mathjax_url", "require_js_url", "jquery_url", "mermaid_js_url", "mermaid_layout_elk_js_url"),
    "",
)


class NotebookFailed(RuntimeError):
    """A notebook of the series raised; the message names it, its cell and its error, and where it was kept."""


def list_notebooks(folder=None, numbers: list[int] | None = None) -> list[Path]:
    """The series, in order: notebooks/NN_name.ipynb; all, or those of these numbers."""
    folder = Path(folder or notebooks_folder())
    books = {int(book.name[:2]): book for book in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    if not books:
        raise FileNotFoundError(
            f"there are no notebooks in {folder}: run from a checkout, or give --notebooks FOLDER"
        )
    if numbers and (unknown := sorted(set(numbers) - set(books))):
        raise ValueError(
            f"there is no notebook {', '.join(map(str, unknown))}; there are {min(books)} to {max(books)}"
        )
    return [book for number, book in books.items() if not numbers or number in numbers]


def choose_parameters(books: list[Path], parameters: dict) -> dict[Path, dict]:
    """What each notebook gets: the given parameters that its own `parameters` cell has. ValueError if none has one."""
    own = {book: papermill.inspect_notebook(str(book)) for book in books}
    known = sorted({name for names in own.values() for name in names})
    if unknown := [name for name in parameters if name not in known]:
        raise ValueError(
            f"no notebook has a parameter {', '.join(unknown)}; there are {', '.join(known)}"
        )
    return {
        book: {name: value for name, value in parameters.items() if name in own[book]}
        for book in books
    }


def run_series(
    run, parameters: dict, folder=None, jobs: int = 1, numbers: list[int] | None = None
) -> Path:
    """Execute the series, `jobs` notebooks at a time, into `runs/RUN/notebooks`; the path of `runs/RUN/index.html`.

    numbers: only these notebooks. One that is done with the same source and parameters is not executed again. Raises
    NotebookFailed at the first that fails; it is kept with its error, and the index says so. The sources are never
    written to.
    """
    books = list_notebooks(folder, numbers)
    chosen = choose_parameters(books, parameters)
    (run_folder(run) / "notebooks").mkdir(parents=True, exist_ok=True)
    status = {book.stem: OPEN for book in books}
    bar = progress_bar(len(books), "notebooks", "notebook")
    os.environ["PALMKIT_PROGRESS"] = "0"  # bars of a kernel would end up in the page

    failures = []

    def execute(book):
        if failures:
            return  # nothing is begun after a failure
        try:
            _execute(book, run_folder(run) / "notebooks", chosen[book])
            status[book.stem] = DONE
        except NotebookFailed as error:
            status[book.stem] = FAILED
            failures.append(error)
        bar.update()

    try:
        joblib.Parallel(jobs, backend="threading")(joblib.delayed(execute)(book) for book in books)
    finally:
        bar.close()
        index = write_report(run, status, parameters)
    if failures:
        raise failures[0]
    return index


def _execute(book: Path, home: Path, parameters: dict) -> None:
    """Execute one notebook into `home`, beside its HTML page, unless that is done already."""
    out, seal = home / book.name, home / f".{book.stem}.json"
    inputs = audio.digest(book.read_bytes() + json.dumps(parameters, sort_keys=True).encode())
    if out.is_file() and seal.is_file() and seal.read_text() == inputs:
        return
    seal.unlink(missing_ok=True)
    try:
        papermill.execute_notebook(
            str(book),
            str(out),
            parameters,
            kernel_name="python3",
            cwd=os.getcwd(),
            progress_bar=False,
            extra_arguments=[
                "--IPKernelApp.log_level=ERROR"
            ],  # or each kernel warns that it listens on loopback
        )
    except PapermillExecutionError as error:
        raise NotebookFailed(
            f"{book.name} failed in cell {error.exec_count}: {error.ename}: {error.evalue}\nIt is kept, with "
            f"its error, as {out}. Mend the cause and start again: what is done is not run again."
        ) from error
    finally:
        _write_html(out)
    atomic_write(seal, inputs)


def _write_html(book: Path) -> None:
    if book.is_file():
        body, _ = HTMLExporter(**NO_URLS).from_notebook_node(nbformat.read(book, as_version=4))
        atomic_write(book.with_suffix(".html"), re.sub(r'<script src="">\s*</script>', "", body))
