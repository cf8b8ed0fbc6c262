"""README.md: its commands and Python blocks run as printed, and its table is the card's.

A block that begins with "# needs the network" is not run: its commands are only parsed. The same
holds for all blocks of docs/*.md.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from mini_pengi import card, controls

from palmkit import cli
from palmkit_synthetic.tasks import DEFAULT_TASKS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
NETWORK = "# needs the network"
COLUMNS = ("zeroshot", "coop", "cocoop", "palm", controls.PROBE)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    return [
        line
        for block in blocks(text, "sh")
        for line in block.splitlines()
        if line and not line.startswith("#")
    ]


ALL_COMMANDS = sorted({line for text in PAGES.values() for line in commands(text)})
RUNNABLE = [line for b in blocks(README, "sh") if NETWORK not in b for line in b.splitlines()]


def test_it_is_short_and_says_first_what_was_not_run():
    words = [word for word in README.split() if re.search(r"\w", word)]
    assert len(words) < 900
    top = README.split("\n## ")[0]
    for what in ("PENGI's own weights", "eleven datasets", "CUDA"):
        assert what in top.split("**Not run so far")[1]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    folder = ROOT if name == "README.md" else ROOT / "docs"
    links = re.findall(r"\]\(([^)#]+)\)", PAGES[name])
    missing = [x for x in links if not x.startswith("https:") and not (folder / x).exists()]
    assert not missing


def test_make_targets_exist():
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for text in PAGES.values() for word in re.findall(r"`make ([a-z-]+)", text)}
    assert named and named <= known


def test_names_in_code_marks_are_files_or_folders():
    table = README.split("## Where things are")[1]
    names = [name for name in re.findall(r"`([\w/.]+)`", table) if "/" in name or "." in name]
    homes = [ROOT, ROOT / "notebooks", ROOT / "palmkit"]
    assert names and [x for x in names if not any((home / x).exists() for home in homes)] == []


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_commands_are_understood(command, capsys):
    """Every flag exists: one that does not is added, and is the only one to be refused."""
    program, *arguments = shlex.split(command)
    assert program == "palmkit"
    with pytest.raises(SystemExit) as end:
        cli.main([*arguments, "--no-such-flag"])
    assert end.value.code == 2
    assert "there is no argument --no-such-flag" in capsys.readouterr().err


def test_the_means_of_both_training_seeds_are_the_cards():
    """In README.md, and in that of tools/mini_pengi, with the spread of the prompts."""
    figures = pd.read_csv(ROOT / "palmkit" / "mini" / "figures.csv")
    methods = card.cells(figures, "method")["mean"].unstack("method")
    means = methods[methods.index.get_level_values("dataset").isin(DEFAULT_TASKS)]
    means = means.groupby("training_seed")[["zeroshot", "coop", "cocoop", "palm"]].mean().round(3)
    other, shipped = (means.loc[seed, ["coop", "cocoop", "palm"]] for seed in (1, 0))
    text = " ".join((ROOT / "README.md").read_text().split())
    assert "are {:.3f}, {:.3f} and {:.3f}, where".format(*other) in text
    assert "this one has {:.3f}, {:.3f} and {:.3f} (".format(*shipped) in text
    text = " ".join((ROOT / "tools" / "mini_pengi" / "README.md").read_text().split())
    for method, label in {"zeroshot": "zero-shot", "palm": "PALM"}.items():
        assert "{} {:.3f} and {:.3f}".format(label, *means[method]) in text
    spreads = [card.spread_of_prompts(own)[0] for _, own in figures.groupby("training_seed")]
    assert "spread {:.3f} and {:.3f}".format(*spreads) in text


def test_the_table_is_the_cards():
    figures = pd.read_csv(ROOT / "palmkit" / "mini" / "figures.csv")
    figures = figures[(figures["training_seed"] == 0) & figures["method"].isin(COLUMNS)]
    figures = figures[figures["kind"].isin(["method", "control"])]
    section = README.split("## Results of mini-PENGI")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    shown = {
        cells[0]: cells[1:] for cells in ([c.strip() for c in x[1:-1].split("|")] for x in lines)
    }
    datasets = [name for name in shown if name != "mean"]
    every = figures[figures["dataset"].isin(datasets)]
    mean = every.groupby(["method", "seed", "dataset"])["accuracy"].mean()
    mean = mean.groupby(["method", "seed"]).mean().reset_index().assign(dataset="mean")
    mean = mean.assign(training_seed=0, kind="method")
    expected = card.cells(pd.concat([every.assign(kind="method"), mean]), "method").loc[0]
    assert len(datasets) == 7
    for (dataset, method), cell in expected.iterrows():
        words = f"{cell['mean']:.3f}" + (f"±{cell['std']:.3f}" if cell["count"] > 1 else "")
        assert shown[dataset][COLUMNS.index(method)] == words, (dataset, method)


@pytest.mark.parametrize("name", PAGES)
def test_python_blocks_are_python_and_import_what_exists(name):
    for block in blocks(PAGES[name], "python"):
        imports = [n for n in ast.parse(block).body if isinstance(n, ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), name, "exec"), {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a reader works: an empty folder with the two files that the README shows."""
    home = tmp_path_factory.mktemp("reader")
    for block in blocks(README, "python"):
        if match := re.match(r"# (my_\w+\.py)\n", block):
            (home / match[1]).write_text(block)
    return home


def run(arguments, folder) -> str:
    env = {**os.environ, "PALMKIT_RUNS": str(folder / "runs")}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_python_examples_run(folder):
    examples = [b for b in blocks(README, "python") if not b.startswith("# my_")]
    assert examples
    for example in examples:
        assert len(example.splitlines()) <= 11
        assert "'accuracy': 0." in run(["-c", example], folder)


@pytest.mark.slow
def test_commands_run_as_printed(folder):
    """In the order of the page; the outside method and the outside model are in their tables."""
    printed = {line: run(["-m", *shlex.split(line)], folder) for line in RUNNABLE}
    checked = printed.pop("palmkit check-model toy --import my_model.py")
    assert "Nothing is wrong." in checked
    for line, table in printed.items():
        label = "Nearest mean" if "my_method" in line else "PALM"
        assert "VocalSounds" in table and label in table, (line, table)
    for name in ("first", "mine", "toy"):
        assert (folder / "runs" / name / "index.html").is_file()


def test_the_table_of_solved_palm_is_that_of_its_file():
    text = PAGES["rivals.md"].split("## Solved PALM")[1].split("\n## ")[0]
    lines = [
        [c.strip() for c in line[1:-1].split("|")] for line in text.splitlines() if "|" in line
    ]
    shown = {cells[0]: [float(cell) for cell in cells[1:]] for cells in lines[2:]}
    table = pd.read_csv(ROOT / "notebooks" / "data" / "solved.csv", comment="#")
    means = 100 * table.pivot_table("accuracy", "method", "shots")
    names = {
        "zero-shot": "Zero-shot",
        "PALM by SGD": "PALM",
        "kernel ridge (ProKeR)": "Kernel ridge",
        "centred mix": "Centred mix",
        "solved PALM": "Solved PALM",
    }
    assert set(shown) == set(names)
    for label, name in names.items():
        assert shown[label] == pytest.approx(means.loc[name].tolist(), abs=0.06)
