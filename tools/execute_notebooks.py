"""Execute the notebooks in place, in order, so that their outputs are the committed code's.

Run by `make notebooks`. Runs and cache go to a fresh folder, and no timing is kept.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def execute(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    NotebookClient(
        book,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": path.parent}},
    ).execute()
    for output in (output for cell in book.cells for output in cell.get("outputs", [])):
        # The view of a widget whose kernel has ended.
        output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    # No version of Python, so that the file does not change with it.
    kernel = book.metadata["kernelspec"]
    book.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    nbformat.write(book, path)


if __name__ == "__main__":
    patterns = ("[0-9][0-9]_*.ipynb", "explore.ipynb", "appendix/*.ipynb")
    series = [path for pattern in patterns for path in sorted(NOTEBOOKS.glob(pattern))]
    chosen = [Path(name) for name in sys.argv[1:]] or series
    with tempfile.TemporaryDirectory() as fresh:
        os.environ.update(
            PALMKIT_RUNS=f"{fresh}/runs", PALMKIT_CACHE=f"{fresh}/cache", PALMKIT_PROGRESS="0"
        )
        os.environ["OMP_NUM_THREADS"] = "1"  # as in `make test`: sums in the same order
        for path in chosen:
            print(path.name, flush=True)
            execute(path)
