"""Every notebook runs alone, with any subset of methods, folds, seeds and datasets.

The cells run in this process, on tones of half a second, with one epoch of one clip a class.
"""

import pytest
from faults import attempt, count_tries
from notebook_cells import make_tiny_dataset, run_cells

from palmkit.cli import main
from palmkit.experiments import is_default
from palmkit.experiments.config import choose, expand_datasets

MINE = """
from palmkit.methods import PALM

class Mine(PALM):
    name, label = "mine", "My method & more"
"""
SMALL = dict(folds="first", seeds=[0], shots=1, epochs=1, heard_epochs=1, spoken={})
LIGHT = (1, 2, 3, 4, 5, 6)
HEAVY = (0, 7, 8, 9, 10, 11, 12, 13)
WITH_METHODS = (5, 7, 8)
SUBSETS = (
    {},
    dict(folds=[2], seeds=[7]),
    dict(folds=[2, 1], seeds=[4, 1], epochs=2),
    dict(datasets=["one <split>"]),
    dict(datasets=["tiny", "one <split>"], folds="all"),
)
METHODS = (
    ["zeroshot", "palm"],
    ["coop"],
    ["zeroshot"],
    ["mine"],
    ["palm-dagger", "cocoop", "mine"],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("subsets")
    make_tiny_dataset(folder / "tiny")
    make_tiny_dataset(folder / "one <split>", ("dog", "cat & co", "rain", "bell"), folds=1)
    (folder / "mine.py").write_text(MINE)
    return folder


@pytest.fixture
def run(folder, monkeypatch):
    """Run a notebook's cells on the small datasets."""
    monkeypatch.setenv("PALMKIT_RUNS", str(folder / "runs"))
    monkeypatch.setenv("PALMKIT_CACHE", str(folder / "cache"))
    monkeypatch.setenv("PALMKIT_JOBS", "1")
    monkeypatch.setenv("PALMKIT_IMPORT", str(folder / "mine.py"))
    monkeypatch.setenv("MPLBACKEND", "agg")

    def run(number, **chosen):
        datasets = [str(folder / name) for name in chosen.pop("datasets", ["tiny"])]
        name = f"subset-{number}-{sorted(chosen.items())}"
        return run_cells(number, SMALL | {"datasets": datasets, "run": name} | chosen)

    return run


@pytest.mark.parametrize("number", LIGHT)
def test_with_one_dataset_fold_and_seed(run, number):
    assert run(number, folds=[2])["folds"] == [2]


@pytest.mark.parametrize("methods", [["zeroshot", "palm"], ["coop", "mine"]], ids="+".join)
def test_results_with_some_of_the_methods(run, methods):
    shown = run(5, methods=methods)
    assert set(shown["rows"]["method"]) == set(methods)
    assert set(shown["table"]["method"]) == set(methods)


@pytest.mark.slow
@pytest.mark.parametrize("number", [8, 11])
def test_the_studies_with_one_dataset_fold_and_seed(run, number):
    run(number)


@pytest.mark.slow
def test_every_notebook_with_every_subset(run):
    """One of them in `make test`, all in `make endurance`."""
    tries = [(number, chosen) for number in (*LIGHT, *HEAVY) for chosen in SUBSETS]
    tries += [(number, dict(methods=methods)) for number in WITH_METHODS for methods in METHODS]
    few = [(7, dict(methods=["mine"]))]
    for number, chosen in tries if count_tries(0, 1) else few:
        with attempt("notebook with a part of the grid"):
            run(number, **chosen)


def test_the_claims_are_checked_for_the_defaults_only():
    defaults = choose({}).parameters()
    datasets = expand_datasets(defaults.pop("datasets"))
    assert is_default(datasets, **defaults) and is_default([*datasets, "data/ESC10"], **defaults)
    assert not is_default(datasets[1:], **defaults) and not is_default([*datasets, "mine"])
    for name, value in dict(folds=[1], seeds=[0], methods=["palm"], shots=4).items():
        assert not is_default(datasets, **defaults | {name: value})


class TestAlone:
    """What the command says about choices that a notebook does not have."""

    @pytest.fixture
    def arguments(self, folder, monkeypatch):
        monkeypatch.setenv("PALMKIT_RUNS", str(folder / "runs"))
        monkeypatch.setenv("PALMKIT_CACHE", str(folder / "cache"))
        small = ["--epochs", "1", "--shots", "1", "--seed", "0", "--fold", "first"]
        return ["notebooks", "--name", "alone", "--dataset", str(folder / "tiny"), *small]

    def test_what_chooses_trials_may_be_missing(self, arguments, folder, capsys):
        """Notebook 6 has no methods: the trials of the command have."""
        files = ["--save-config", str(folder / "saved.toml")]
        assert main([*arguments, "--only", "6", "--method", "zeroshot", "palm", *files]) == 0
        assert main([*arguments, "--only", "0", "--lr", "0.5", *files]) == 1
        assert "00_start_here.ipynb has no parameter epochs, lr, shots" in capsys.readouterr().err

    def test_a_parameter_by_hand_may_not(self, arguments, capsys):
        assert main([*arguments, "--only", "6", "-p", "methods", "palm"]) == 1
        assert "06_lambdas.ipynb has no parameter methods" in capsys.readouterr().err
