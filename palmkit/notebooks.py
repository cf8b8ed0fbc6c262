"""The notebooks as a batch: executed in order by papermill, with a page that links them."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from pathlib import Path

import joblib

from palmkit import audio
from palmkit.datasets.resolve import SKIP_BAD
from palmkit.extras import extra
from palmkit.models.about import has_pengi_design
from palmkit.results.report import DONE, FAILED, OPEN, write_report
from palmkit.storage import atomic_write, notebooks_folder, progress_bar, run_folder

with extra("notebooks"):
    import nbformat
    import papermill
    from nbconvert import HTMLExporter
    from papermill.exceptions import PapermillExecutionError

log = logging.getLogger(__name__)

PENGI_ONLY = "pengi-only"
# Leaves out what would need the network: pages have no formulas and no diagrams.
NO_URLS = dict.fromkeys(
    ("mathjax_url", "require_js_url", "jquery_url", "mermaid_js_url", "mermaid_layout_elk_js_url"),
    "",
)


class NotebookFailed(RuntimeError):
    """A notebook of the series raised; the message names it, its cell and its error, and where it
    was kept.
    """


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
            f"there is no notebook {', '.join(map(str, unknown))}; "
            f"there are {min(books)} to {max(books)}"
        )
    return [book for number, book in books.items() if not numbers or number in numbers]


def fitting_numbers(books: list[Path], model) -> list[int]:
    """The numbers of the notebooks that can run with a model. A message names the others.

    A notebook whose parameters cell has the tag PENGI_ONLY is about PENGI's own encoders.
    """
    fits = {book: has_pengi_design(model) or not _needs_pengi(book) for book in books}
    if left_out := [book.name for book, fit in fits.items() if not fit]:
        log.warning(
            "%s: left out, for it is about PENGI's encoders, and %s is another model",
            ", ".join(left_out),
            model.name,
        )
    return [int(book.name[:2]) for book, fit in fits.items() if fit]


def _needs_pengi(book: Path) -> bool:
    cells = nbformat.read(book, as_version=4).cells
    return any(PENGI_ONLY in cell.metadata.get("tags", []) for cell in cells)


def choose_parameters(books: list[Path], parameters: dict, given=()) -> dict[Path, dict]:
    """The parameters for each notebook: those in its own `parameters` cell.

    given: names of the parameters that a user set. Raises ValueError for one that no notebook has.
    """
    own = {book: papermill.inspect_notebook(str(book)) for book in books}
    known = sorted({name for names in own.values() for name in names})
    if unknown := sorted(set(given) - set(known)):
        which = (
            "the chosen notebooks have no parameter"
            if len(books) > 1
            else (f"{books[0].name} has no parameter")
        )
        raise ValueError(f"{which} {', '.join(unknown)}; there are {', '.join(known)}")
    return {
        book: {name: value for name, value in parameters.items() if name in own[book]}
        for book in books
    }


def copy_series(to, folder=None) -> Path:
    """Copy the series, with what its notebooks read, into a new or empty folder; its path."""
    source = Path(folder or notebooks_folder())
    list_notebooks(source)
    to = Path(to).expanduser()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise FileExistsError(f"{to} is there already: name a new or an empty folder")
    hidden = shutil.ignore_patterns(".*", "__pycache__")
    shutil.copytree(source, to, ignore=hidden, dirs_exist_ok=True)
    return to


def run_series(
    run,
    parameters: dict,
    folder=None,
    jobs: int = 1,
    numbers: list[int] | None = None,
    given=None,
) -> Path:
    """Execute the series, `jobs` notebooks at a time, into `runs/RUN/notebooks`; the path of its
    page.

    numbers: only these notebooks. given: names of the parameters that a notebook must have; None:
    all. A notebook that is done with the same source and parameters is not executed again. Raises
    NotebookFailed at the first that fails; it is kept with its error, and the page says so. The
    sources are never written to.
    """
    books = list_notebooks(folder, numbers)
    chosen = choose_parameters(books, parameters, parameters if given is None else given)
    home = run_folder(run) / "notebooks"
    home.mkdir(parents=True, exist_ok=True)
    status = {book.stem: OPEN for book in books}
    failures: list[NotebookFailed] = []
    bar = progress_bar(len(books), "notebooks", "notebook")
    os.environ["PALMKIT_PROGRESS"] = "0"  # bars of a kernel would end up in the page

    def execute(book: Path) -> None:
        if failures:
            return  # nothing starts after a failure
        try:
            _execute(book, home, chosen[book])
            status[book.stem] = DONE
        except NotebookFailed as error:
            status[book.stem] = FAILED
            failures.append(error)
        bar.update()

    try:
        joblib.Parallel(jobs, backend="threading")(joblib.delayed(execute)(book) for book in books)
    finally:
        bar.close()
        page = write_report(run, status, parameters)
    if failures:
        raise failures[0]
    return page


def _execute(book: Path, home: Path, parameters: dict) -> None:
    """Execute one notebook into `home`, beside its HTML page, unless that is done already."""
    out = home / book.name
    seal = home / f".{book.stem}.json"
    settings = json.dumps(parameters, sort_keys=True) + os.environ.get(SKIP_BAD, "")
    inputs = audio.digest(book.read_bytes() + settings.encode())
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
            # Otherwise each kernel warns that it is bound to loopback.
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
    except PapermillExecutionError as error:
        raise NotebookFailed(
            f"{book.name} failed in cell {error.exec_count}: {error.ename}: {error.evalue}\n"
            f"It is kept, with its error, as {out}. Mend the cause and start again: what is done "
            "is not run again."
        ) from error
    finally:
        _write_html(out)
    atomic_write(seal, inputs)


def _write_html(book: Path) -> None:
    if not book.is_file():
        return
    body, _ = HTMLExporter(**NO_URLS).from_notebook_node(nbformat.read(book, as_version=4))
    body = re.sub(r'<script src="">\s*</script>', "", body)
    atomic_write(book.with_suffix(".html"), body)
