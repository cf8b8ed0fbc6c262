"""A method and a model from outside of the package: in runs, tables, workers and kernels."""

import os
import subprocess
import sys

import nbformat
import pytest
from outside import few, make_home, read_rows  # noqa: F401

from palmkit.cli import main
from palmkit.experiments import executor

METHOD = '''
import torch
from palmkit import Method


class Centroids(Method):
    """The mean embedding of each class."""

    name = "{name}"
    label = "Centroids"

    def __init__(self, model, class_names, seed=0, stretch=1.0):
        super().__init__(model, class_names, seed)
        self.stretch = stretch
        zeros = torch.zeros(len(class_names), model.dim, device=model.device, dtype=model.dtype)
        self.centroids = torch.nn.Parameter(zeros)

    def fit(self, features, labels, **settings):
        for label in labels.unique():
            self.centroids.data[label] = features[labels == label].mean(0)
        return []

    def forward(self, features):
        return self.stretch * {factor} * features @ self.centroids.T
'''


def write_method(home, stem, factor=10, name="centroids"):
    path = home / f"{stem}.py"
    path.write_text(METHOD.format(name=name, factor=factor))
    return path


@pytest.mark.slow
def test_a_method_and_a_model_from_outside(home, capsys):
    files = [write_method(home, "outside_a"), home / "toy_model.py"]
    flags = few(home, "--import", *files, "--checkpoint", "toy", "--name", "one")
    command = ["run", *flags, "--method", "zeroshot", "palm", "centroids"]
    assert main([*command, "--option", "stretch=2"]) == 1
    assert "there is no zeroshot option 'stretch'" in capsys.readouterr().err
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "| Zero-shot | PALM | Centroids |" in shown.out and "Note: a toy" in shown.err
    rows = read_rows(home, "one")
    assert rows["centroids"]["accuracy"] > 0.5 and rows["centroids"]["losses"] == []
    assert rows["centroids"]["method_digest"] and rows["palm"]["method_digest"] == ""
    assert {row["weights"] for row in rows.values()} == {"toy 1"}
    assert main(["table", "one", "--import", str(files[0])]) == 0
    assert "Centroids" in capsys.readouterr().out
    assert main(["run", *flags, "--method", "coop"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("palmkit: ") and "toy" in error


@pytest.mark.slow
def test_another_source_is_another_row(home):
    for stem, factor in (("outside_b", 10), ("outside_c", 20)):
        path = write_method(home, stem, factor, name=f"centroids-{stem[-1]}")
        flags = few(home, "--import", path, "--name", "two", "--method", f"centroids-{stem[-1]}")
        assert main(["run", *flags]) == 0
    rows = read_rows(home, "two")
    keys = {row["method_digest"] for row in rows.values()}
    assert len(rows) == len(keys) == 2


def test_an_unknown_method_lists_those_from_outside(home, capsys):
    path = write_method(home, "outside_d", name="centroids-d")
    assert main(["run", *few(home, "--import", path, "--method", "centroids-e")]) == 1
    error = capsys.readouterr().err
    assert "did you mean 'centroids-d'" in error and len(error.splitlines()) == 1


SCRIPT = """
import os, sys
from palmkit.experiments import executor

def work(model, number):
    return type(model).__name__, number, os.getpid()

def start(number):
    return os.getpid()

if __name__ == "__main__":
    from palmkit.plugins import load_plugins
    from palmkit.models import load_model
    executor.START = 0
    if sys.argv[2] == "reused":  # workers that started before the plugin was known
        list(executor.in_parallel(start, [(0,), (1,)], [1, 1], 2))
    load_plugins([sys.argv[1]])
    model = load_model("toy")
    done = dict(executor.in_parallel(work, [(model, 0), (model, 1)], [1, 1], 2))
    assert [name for name, *_ in done.values()] == ["Toy", "Toy"], done
    assert os.getpid() not in {pid for *_, pid in done.values()}
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["new", "reused"])
def test_worker_processes_know_what_comes_from_outside(home, workers):
    (home / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(home / "script.py"), str(home / "toy_model.py"), workers]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


PARAMETERS = """
run = "x"
checkpoint = "mini"
methods = []
datasets = []
seeds = []
shots = 16
"""
GRID = """
checkpoint = "toy"
method = ["centroids-f"]
dataset = ["{folder}"]
seed = [0]
shots = 2
"""


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_takes_nothing_away(home):
    flags = few(home, "--method", "zeroshot", "--name", "piped")
    command = [sys.executable, "-m", "palmkit", "run", "--quiet", *flags]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 141 and "Broken pipe" not in done.stderr
    assert read_rows(home, "piped") and (home / "runs" / "piped" / "index.html").is_file()


FAILS = """
import time
from palmkit import Method


class Fails(Method):
    name = "fails"

    def fit(self, features, labels, **settings):
        time.sleep(0.5)
        return {}["no key"] if self.seed == 1 else []

    def forward(self, features):
        return features[:, : len(self.class_names)]
"""


@pytest.mark.slow
def test_an_error_in_a_worker_names_file_and_line(home, capsys, monkeypatch):
    path = home / "fails.py"
    path.write_text(FAILS)
    monkeypatch.setenv("PALMKIT_JOBS", "2")
    monkeypatch.setattr(executor, "START", 0)
    flags = few(home, "--import", path, "--method", "fails", "--seed", "1")
    assert main(["run", *flags]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{path} failed: KeyError: 'no key' (line 11)" in error
    assert error.startswith("palmkit: 1 of 2 trials failed")


@pytest.mark.slow
def test_kernels_know_what_comes_from_outside(home):
    cell = "from palmkit.methods import list_methods\nprint(*list_methods())"
    parameters = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    book = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(cell)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "x", "language": "python"}
    (home / "books").mkdir()
    nbformat.write(book, home / "books" / "00_book.ipynb")
    path = write_method(home, "outside_f", name="centroids-f")
    flags = ["--import", path, home / "toy_model.py", "--notebooks", home / "books"]
    config = home / "grid.toml"
    config.write_text(GRID.format(folder=home / "tiny"))
    assert main(["notebooks", *map(str, flags), "--config", str(config), "--name", "three"]) == 0
    kept = nbformat.read(home / "runs" / "three" / "notebooks" / "00_book.ipynb", as_version=4)
    assert "centroids-f" in str(kept.cells[-1].outputs)
    assert [*read_rows(home, "three")] == ["centroids-f"]


PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "my-methods"
version = "1.0"

[project.entry-points."palmkit.methods"]
centroids-e = "my_methods.method:Centroids"

[project.entry-points."palmkit.models"]
toy-e = "my_methods.model:load"
"""
INSTALLED_METHOD = """
import torch
from palmkit import Method


class Centroids(Method):
    name = "centroids-e"

    def fit(self, features, labels, **settings):
        self.centroids = torch.stack([features[labels == n].mean(0) for n in labels.unique()])
        return []

    def forward(self, features):
        return features @ self.centroids.T
"""


@pytest.mark.slow
def test_an_installed_package_brings_a_method_and_a_model(home):
    """By pip, as users have it: the entry points are found without any flag."""
    source, site = home / "source", home / "site"
    (source / "my_methods").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "my_methods" / "__init__.py").write_text("")
    (source / "my_methods" / "method.py").write_text(INSTALLED_METHOD)
    model = (home / "toy_model.py").read_text() + "\nload = MODELS['toy']\n"
    (source / "my_methods" / "model.py").write_text(model)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--no-build-isolation", "--target", str(site), str(source)], check=True)
    flags = few(home, "--method", "centroids-e", "--checkpoint", "toy-e", "--name", "installed")
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "palmkit", "run", "--quiet", *flags],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    row = read_rows(home, "installed")["centroids-e"]
    assert row["note"] == "a toy" and row["accuracy"] > 0.5 and len(row["method_digest"]) == 64
