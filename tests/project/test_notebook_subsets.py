"""Every notebook runs alone, with any subset of methods, folds, seeds and datasets.

The cells run in this process, on tones of half a second, with one epoch of one clip a class.
"""

import pytest
from notebook_cells import make_small_datasets, small_series

from palmkit.cli import main
from palmkit.experiments import is_default
from palmkit.experiments.config import choose, expand_datasets

LIGHT = (1, 2, 3, 4, 5, 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_small_datasets(tmp_path_factory.mktemp("subsets"))


@pytest.fixture
def run(folder, monkeypatch):
    return small_series(folder, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("number", LIGHT)
def test_with_one_dataset_fold_and_seed(run, number):
    assert run(number, folds=[2])["folds"] == [2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "methods", [["zeroshot", "palm"], ["coop", "mine-of-notebooks"]], ids="+".join
)
def test_results_with_some_of_the_methods(run, methods):
    shown = run(5, methods=methods)
    assert set(shown["rows"]["method"]) == set(methods)
    assert set(shown["table"]["method"]) == set(methods)


@pytest.mark.slow
@pytest.mark.parametrize("number", [8, 10, 11, 15, 16])
def test_the_studies_with_one_dataset_fold_and_seed(run, number):
    run(number, folds=[2])  # 16 has datasets of its own


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
