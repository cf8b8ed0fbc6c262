"""What the command line says, and what it keeps to itself."""

import os
import subprocess
import sys
import warnings

import pytest
import result_rows

from palmkit.cli import main


@pytest.fixture
def run(tmp_path):
    for seed in range(3):
        row = result_rows.make_row("日本 é", class_names=["a", "b"], seed=seed, fold=None)
        result_rows.write_row(tmp_path / "run", row)
    return tmp_path / "run"


def warn_from(filename, category):
    warnings.warn_explicit("something is odd", category, str(filename), 1)


@pytest.mark.parametrize(
    ("where", "category", "is_shown"),
    [
        ("palmkit/data.py", UserWarning, True),
        ("my_method.py", UserWarning, True),
        ("palmkit/data.py", RuntimeWarning, False),
        ("palmkit/data.py", FutureWarning, False),
        ("torch/nn/modules.py", UserWarning, False),
        ("matplotlib/axes.py", DeprecationWarning, False),
    ],
)
def test_warnings_of_other_packages_are_no_messages(
    run, monkeypatch, capsys, tmp_path, where, category, is_shown
):
    import palmkit.results.tables as tables

    folder = os.path.dirname(os.path.dirname(pytest.__file__))  # where packages are installed
    place = {"palmkit": os.path.dirname(os.path.dirname(tables.__file__)) + "/data.py"}
    place["my_method.py"] = tmp_path / "my_method.py"
    path = place.get(where.partition("/")[0], f"{folder}/{where}")
    load_rows = tables.load_rows

    def load_and_warn(run):
        warn_from(path, category)
        return load_rows(run)

    monkeypatch.setattr(tables, "load_rows", load_and_warn)
    assert main(["table", str(run)]) == 0
    assert ("Warning: something is odd" in capsys.readouterr().err) == is_shown
    assert main(["table", str(run), "--verbose"]) == 0
    assert "something is odd" in capsys.readouterr().err


@pytest.mark.slow
def test_a_terminal_without_the_letters_of_a_name(run):
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    command = [sys.executable, "-m", "palmkit", "table", str(run)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert r"\u65e5\u672c \xe9" in done.stdout and r"\xb1" in done.stdout


class Full:
    """A reader that is gone after the first line."""

    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        pass

    def fileno(self):
        return self.file.fileno()


@pytest.mark.slow
def test_a_run_has_its_report_before_its_table_is_read(tmp_path, monkeypatch):
    """`palmkit run | head` writes the report, though nobody reads the table."""
    from notebook_cells import make_tiny_dataset

    monkeypatch.setenv("PALMKIT_RUNS", str(tmp_path / "runs"))
    make_tiny_dataset(tmp_path / "tiny")
    stdout = Full()
    with open(tmp_path / "stdout", "w") as stdout.file:
        monkeypatch.setattr(sys, "stdout", stdout)
        code = main(
            ["run", "--dataset", str(tmp_path / "tiny"), "--method", "zeroshot", "--name", "piped"]
        )
    assert code == 141 and (tmp_path / "runs" / "piped" / "index.html").is_file()
