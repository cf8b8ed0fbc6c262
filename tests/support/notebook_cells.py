"""A notebook's code cells, run in this process with other parameters."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import soundfile

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"


def find_notebook(number: int) -> Path:
    (path,) = FOLDER.glob(f"{number:02d}_*.ipynb")
    return path


def run_cells(number: int, parameters: dict) -> dict:
    """The notebook's names after all its cells. A cell that raises is named."""
    namespace = {"__name__": "__main__", "display": lambda *shown: None}
    cells = [c for c in nbformat.read(find_notebook(number), 4).cells if c.cell_type == "code"]
    with mock.patch.object(plt, "show", lambda: plt.close("all")):
        for count, cell in enumerate(cells, 1):
            code = compile(cell.source, f"<notebook {number}, cell {count}>", "exec")
            exec(code, namespace)
            if "parameters" in cell.metadata.get("tags", []):
                namespace.update({k: v for k, v in parameters.items() if k in namespace})
    plt.close("all")
    return namespace


def make_tiny_dataset(folder: Path, classes=("dog", "rain"), folds=2, clips=2, seed=0) -> Path:
    """A dataset of short tones with noise, `clips` of each class in each fold; one split if
    folds=1.
    """
    rng = np.random.default_rng(seed)
    (folder / "csv_files").mkdir(parents=True)
    lines: dict[int, list[str]] = {}
    for fold in range(1, max(folds, 2) + 1):
        for label, name in enumerate(classes):
            for n in range(clips):
                path = f"{fold}-{label}-{n}.wav"
                time = np.arange(4000) / 8000
                tone = 0.3 * np.sin(2 * np.pi * 200 * 2**label * time)
                soundfile.write(folder / path, tone + 0.1 * rng.standard_normal(4000), 8000)
                lines.setdefault(fold, []).append(f"{path},{name}")
    for fold in [*lines][:folds]:
        train = [line for other in lines if other != fold for line in lines[other]]
        for part, chosen in (("train", train), ("test", lines[fold])):
            text = "\n".join(["path,classname", *chosen, ""])
            place = f"{part}.csv" if folds == 1 else f"csv_files/{part}_{fold}.csv"
            (folder / place).write_text(text)
    return folder


# Small datasets, a method from outside, and the notebooks on them.

MINE = """
from palmkit.methods import PALM

class Mine(PALM):
    name, label = "mine-of-notebooks", "My method & more"
"""
SMALL = dict(folds="first", seeds=[0], shots=1, epochs=1, stream_epochs=1, spoken={})


def make_small_datasets(folder: Path) -> Path:
    """`tiny` with two folds, and `one <split>`; the folder."""
    make_tiny_dataset(folder / "tiny")
    make_tiny_dataset(folder / "one <split>", ("dog", "cat & co", "rain", "bell"), folds=1)
    return folder


@functools.cache
def method_file() -> Path:
    """A method's file. A process imports it once, so all tests have the same."""
    folder = tempfile.mkdtemp(prefix="palmkit-method-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "mine_of_notebooks.py"
    path.write_text(MINE)
    return path


def small_series(folder: Path, monkeypatch):
    """A function that runs a notebook's cells on the datasets of `make_small_datasets`."""
    variables = {"RUNS": folder / "runs", "CACHE": folder / "cache", "JOBS": 1}
    for name, value in (variables | {"IMPORT": method_file()}).items():
        monkeypatch.setenv(f"PALMKIT_{name}", str(value))
    monkeypatch.setenv("MPLBACKEND", "agg")

    def run(number, **chosen):
        datasets = [str(folder / name) for name in chosen.pop("datasets", ["tiny"])]
        name = f"subset-{number}-{sorted(chosen.items())}"
        return run_cells(number, SMALL | {"datasets": datasets, "run": name} | chosen)

    return run
