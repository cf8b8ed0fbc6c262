"""Notebooks under other arithmetics, and benchmarks/arithmetics.py.

`make test` runs the beginning of notebook 4, up to its first training, under the oldest arithmetic.
`make test-arithmetics` (PALMKIT_ARITHMETICS=all) runs all notebooks under every arithmetic that the
processor has.
"""

import importlib.util
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

from palmkit import PALM, fit
from palmkit.storage import cache_root

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
_spec = importlib.util.spec_from_file_location("arithmetics", ROOT / "benchmarks/arithmetics.py")
arithmetics = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(arithmetics)

ALL = os.environ.get("PALMKIT_ARITHMETICS") == "all"
OLDEST = arithmetics.OLDEST | {"OMP_NUM_THREADS": "2"}
CHECKED = [name for name in arithmetics.available() if name != arithmetics.REVERSED]
BOOKS = [*sorted(NOTEBOOKS.glob("*.ipynb")), *sorted(NOTEBOOKS.glob("appendix/*.ipynb"))]


def run_nbval(books, folder, variables) -> subprocess.CompletedProcess:
    """nbval on these notebooks, cache and runs in `folder`; generated datasets are shared."""
    (folder / "cache").mkdir()
    (cache_root() / "mini-tasks").mkdir(parents=True, exist_ok=True)
    (folder / "cache" / "mini-tasks").symlink_to(cache_root() / "mini-tasks")
    environment = arithmetics.worker_environment(variables)
    environment |= {"PALMKIT_CACHE": str(folder / "cache"), "PALMKIT_RUNS": str(folder / "runs")}
    path = [str(ROOT), str(ROOT / "tools"), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    for name in ("PALMKIT_JOBS", "MPLBACKEND"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--color=no"]
    command += ["--nbval", "--nbval-current-env", *map(str, books)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.skipif(not ALL, reason="make test-arithmetics")
@pytest.mark.parametrize("name", CHECKED)
def test_notebooks_come_out_under_every_arithmetic(name, tmp_path):
    done = run_nbval(BOOKS, tmp_path, arithmetics.ARITHMETICS[name])
    cells = sum(
        cell.cell_type == "code"
        for book in BOOKS
        for cell in nbformat.read(book, as_version=4).cells
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert f"{cells} passed" in done.stdout


TRAINING = "losses = fit(method, train.features, train.labels, "


@pytest.fixture(scope="module")
def beginning():
    """Notebook 4 up to its first training. Its committed outputs come with it."""
    book = nbformat.read(NOTEBOOKS / "04_palm.ipynb", as_version=4)
    last = next(n for n, cell in enumerate(book.cells) if TRAINING in cell.source)
    book.cells = book.cells[: last + 1]
    return book


@pytest.mark.slow
def test_a_training_comes_out_under_the_oldest_arithmetic(beginning, tmp_path):
    nbformat.write(beginning, tmp_path / "book.ipynb")
    done = run_nbval([tmp_path / "book.ipynb"], tmp_path, OLDEST)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_another_learning_rate_turns_a_committed_output_red(beginning, tmp_path):
    """With 0.05 instead of 0.045 it is green: the test above, and notebook 4 itself."""
    changed = nbformat.from_dict(beginning)
    changed.cells[-1].source = changed.cells[-1].source.replace(TRAINING, f"{TRAINING}lr=0.045, ")
    nbformat.write(changed, tmp_path / "book.ipynb")
    done = run_nbval([tmp_path / "book.ipynb"], tmp_path, {})
    assert done.returncode == 1 and "1 failed" in done.stdout
    assert "Cell outputs differ" in done.stdout


def test_batches_are_those_of_fit_and_reversed_ones_have_the_same_clips(tiny_pengi):
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(20, tiny_pengi.dim, generator=generator), torch.arange(20) % 2
    losses = []
    for batches in (None, arithmetics.index_batches(20, 2, seed=3)):
        method = PALM(tiny_pengi, ["a dog", "a cat"])
        losses.append(fit(method, features, labels, epochs=2, seed=3, batches=batches))
    assert losses[0] == losses[1] and len(losses[0]) == 4
    forward, backward = (list(arithmetics.index_batches(20, 2, 3, flag)) for flag in (False, True))
    assert [batch.flip(0).tolist() for batch in backward] == [batch.tolist() for batch in forward]


def test_a_worker_gets_one_arithmetic_and_no_other(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    environment = arithmetics.worker_environment({"ATEN_CPU_CAPABILITY": "default"})
    assert environment["ATEN_CPU_CAPABILITY"] == "default"
    assert environment["OMP_NUM_THREADS"] == "1" and "ONEDNN_MAX_CPU_ISA" not in environment
    assert arithmetics.available()[0] == "native"


def made_rows(accuracies: dict) -> list[dict]:
    """Rows of PALM, {(arithmetic, seed): accuracy}; other than 0.5 is another decision."""
    constant = {"precision": "float32", "dataset": "A", "method": "palm", "n_test": 2, "f1": 0.0}
    return [
        {**constant, "arithmetic": arithmetic, "seed": seed, "accuracy": value, "loss": 1.0,
         "mean_lambda": 0.5, "train_loss": 1.0, "processor": "", "torch": "",
         "logits": [[0.0, 1.0], [0.0, 1.0 if value == 0.5 else -2.0]]}
        for (arithmetic, seed), value in accuracies.items()
    ]  # fmt: skip


def test_summary_of_a_table_made_by_hand():
    rows = made_rows({("a", 0): 0.5, ("a", 1): 0.5, ("b", 0): 0.7, ("b", 1): 0.5})
    table = arithmetics.to_table(rows)
    assert table["changed"].tolist() == [0, 1, 0, 0]
    assert table["logit_difference"].tolist() == [0, 3, 0, 0]
    line = arithmetics.summarise(table).loc[("float32", "palm", "accuracy")]
    assert np.isclose(line["trial"], 0.2) and np.isclose(line["seeds"], 0.1)
    assert np.isclose(line["datasets"], 0.1) and line["seed_sd"] == 0
    assert np.isclose(line["sd"], (0.02 / 2) ** 0.5)
    assert (arithmetics.summarise(table).xs("loss", level="metric")["trial"] == 0).all()


@pytest.mark.slow
@pytest.mark.skipif(not ALL, reason="make test-arithmetics")
def test_the_script_resumes_and_double_precision_agrees(tmp_path, capfd):
    given = Namespace(
        datasets=["VocalSounds"],
        methods=["coop", "palm"],
        seeds=[0],
        shots=4,
        epochs=3,
        folder=tmp_path,
    )
    names = ["native", "all oldest"]
    rows = [row for name in names for row in arithmetics.run_arithmetic(name, "float64", given)]
    assert len(capfd.readouterr().out.splitlines()) == 2  # a line of each process
    again = [row for name in names for row in arithmetics.run_arithmetic(name, "float64", given)]
    assert again == rows and capfd.readouterr().out == ""
    table = arithmetics.to_table(rows)
    assert table["arithmetic"].value_counts().to_dict() == {"native": 2, "all oldest": 2}
    assert (table["changed"] == 0).all() and table["logit_difference"].max() < 1e-6


def test_the_committed_table_is_complete_and_names_no_machine():
    table = pd.read_csv(NOTEBOOKS / "data" / "arithmetics.csv", comment="#")
    assert set(table["precision"]) == {"float32", "float64"}
    for _, part in table.groupby("precision"):
        assert set(part["method"]) == {"zeroshot", "coop", "cocoop", "palm"}
        trials = part.groupby(["dataset", "method", "seed"])["arithmetic"].agg(frozenset)
        assert trials.nunique() == 1 and {"native", "all oldest"} <= trials.iloc[0]
    assert set(" ".join(table["processor"].unique()).split()) <= {*arithmetics.CPU_FLAGS}
    double = table[table["precision"] == "float64"]
    assert (double["changed"] == 0).all() and double["logit_difference"].max() < 1e-6
