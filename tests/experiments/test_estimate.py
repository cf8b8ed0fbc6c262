"""The estimate before a grid starts, against what the grid does and the published counts."""

import shutil
from types import SimpleNamespace

import pytest
from noise import count_embeddings
from standin import make_dataset

from palmkit import load_pengi
from palmkit.cli import main
from palmkit.experiments import estimate as planning
from palmkit.experiments.run import run_trials
from palmkit.experiments.trials import dataset_grid, make_grid
from palmkit.models import random
from palmkit.published import paper_datasets

NAMES = [*paper_datasets()]
SETTINGS = dict(methods="all", folds="all", seeds=[0, 1, 2], shots=16, epochs=50, crop="random")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Two of the eleven are at hand, small."""
    monkeypatch.setenv("PALMKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PALMKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PALMKIT_CACHE", str(tmp_path / "cache"))
    make_dataset(tmp_path / "data", "Beijing-Opera", per_class=1, seconds=0.5)
    make_dataset(tmp_path / "data", "SESA", per_class=1, seconds=0.5)
    return tmp_path


@pytest.fixture
def known_clock(monkeypatch):
    """Ten ms to build, 1 s a step, 1 ms a test clip, 0.1 s to embed a clip; nothing is measured."""
    monkeypatch.setattr(planning.Clock, "measure", lambda *_: (0.01, 1.0, 0.001))
    monkeypatch.setattr(planning.Clock, "clip", lambda _: 0.1)


@pytest.fixture(scope="module")
def mini():
    return load_pengi("mini", "cpu")


def test_the_published_grid(tmp_path, monkeypatch, known_clock, mini):
    """With nothing at hand: 35 folds, four methods, three seeds, zero-shot once."""
    monkeypatch.setenv("PALMKIT_DATA", str(tmp_path))
    monkeypatch.setenv("PALMKIT_JOBS", "1")
    told = planning.estimate_cost(mini, tmp_path / "run", NAMES, **SETTINGS)
    table = told.table.set_index("dataset")
    assert (
        told.absent == NAMES and table["folds"].sum() == 35 and table["trials"].sum() == 350
    )  # as the released logs
    assert table["done"].sum() == 0
    assert table.loc["ESC50", "clips"] == 2000 and table.loc["UrbanSound8K", "clips"] == 8732
    assert table.loc["TUT2017", "clips"] == 4680 and table.loc["Beijing-Opera", "clips"] == 236
    assert (
        table.loc["VocalSound", "clips"] == 3591 + 3 * 96
    )  # one split: the tests, and a draw of each seed
    assert table.loc["SESA", "embed_s"] == pytest.approx(0.1 * (105 + 3 * 64))
    # 9 learned units of 4 steps an epoch and 1 zero-shot, each built and tested on 105 clips
    assert table.loc["SESA", "train_s"] == pytest.approx(9 * 50 * 4 * 1.0 + 10 * (0.01 + 0.105))
    page = str(told)
    assert (
        "350 trials, 0 of them done" in page
        and page.count("not at hand") == 11
        and "1 trials at a time" in page
    )


def test_the_published_grid_as_it_was_released(tmp_path, monkeypatch, known_clock, mini):
    """A clip is encoded in every epoch of each seed, for all methods at once."""
    monkeypatch.setenv("PALMKIT_DATA", str(tmp_path))
    settings = SETTINGS | dict(protocol="released")
    frozen, told = (
        planning.estimate_cost(mini, "x", ["SESA", "ESC50"], **dataset_grid)
        for dataset_grid in (SETTINGS, settings)
    )
    clips = told.table.set_index("dataset")["clips"]
    assert clips["SESA"] == 3 * (50 * 64 + 105) + 105 and clips["ESC50"] == 5 * (
        3 * (50 * 800 + 400) + 400
    )
    assert told.disk > frozen.disk + 3 * (64 + 5 * 800) * 4 * 7 * 44_100


@pytest.mark.slow
def test_plan_is_what_the_run_then_does(home, known_clock, mini):
    settings = SETTINGS | dict(methods=["zeroshot", "palm"], seeds=[0, 1], shots=2, epochs=1)
    datasets = ["Beijing-Opera", "SESA", "CREMA-D"]
    told = planning.estimate_cost(mini, "one", datasets, **settings)
    table = told.table.set_index("dataset")
    assert told.absent == ["CREMA-D"]
    assert dict(table["trials"]) == {"Beijing-Opera": 15, "SESA": 3, "CREMA-D": 3}
    assert table.loc["Beijing-Opera", "clips"] == 20  # every clip is tested in some fold
    units = make_grid(datasets=datasets[:2], **settings)
    run_trials(units[:4], mini, "one")
    embedded = count_embeddings(home / "cache")
    again = planning.estimate_cost(mini, "one", datasets, **settings).table.set_index("dataset")
    assert dict(again["done"]) == {"Beijing-Opera": 4, "SESA": 0, "CREMA-D": 0}
    assert again.loc["Beijing-Opera", "train_s"] < table.loc["Beijing-Opera", "train_s"]
    run_trials(units, mini, "one")
    clips = count_embeddings(home / "cache")
    assert clips == table["clips"][:2].sum() and embedded < clips
    disk = sum(
        p.stat().st_blocks * 512
        for root in ("cache", "runs")
        for p in (home / root).rglob("*")
        if p.is_file()
    )
    assert disk < told.disk


def test_memory_and_disk(home, known_clock, mini, monkeypatch):
    told = planning.estimate_cost(mini, "one", ["SESA"], **SETTINGS)
    assert 1e8 < told.memory / told.jobs < 1e11
    planning.check_disk(told.disk, "one")
    monkeypatch.setattr(
        planning.shutil, "disk_usage", lambda _: SimpleNamespace(free=told.disk - 1)
    )
    with pytest.raises(OSError, match="GB are needed and .* GB are free at .*PALMKIT_CACHE"):
        planning.check_disk(told.disk, "one")


def test_folds_of_datasets_that_are_not_at_hand(tmp_path, monkeypatch, known_clock, mini):
    monkeypatch.setenv("PALMKIT_DATA", str(tmp_path))
    for folds, numbers in (("first", [1, 1]), ([2, 3], [2, 2])):
        table = planning.estimate_cost(
            mini, "x", ["ESC50", "TUT2017"], **SETTINGS | dict(folds=folds)
        ).table
        assert list(table["folds"]) == numbers
    with pytest.raises(ValueError, match="--shots -1: ESC50 has to be at hand"):
        planning.estimate_cost(mini, "x", ["ESC50"], **SETTINGS | dict(shots=-1))
    with pytest.raises(ValueError, match="there is no dataset folder ESC51"):
        planning.estimate_cost(mini, "x", ["ESC50", "ESC51"], **SETTINGS)


def test_the_grid_of_one_dataset():
    """Zero-shot has one seed; a fold's trials stand together, then a seed's."""
    grid = dataset_grid(["palm", "zeroshot"], "x", [1, 2], [1, 2])
    assert [(trial.fold, trial.seed, trial.method) for trial in grid] == [
        *((1, 1, "palm"), (1, 1, "zeroshot"), (1, 2, "palm")),
        *((2, 1, "palm"), (2, 1, "zeroshot"), (2, 2, "palm")),
    ]


@pytest.mark.slow
def test_command_tells_and_runs_what_is_there(home, known_clock, capsys):
    shutil.rmtree(home / "data" / "Beijing-Opera")
    arguments = [
        "run",
        "--profile",
        "paper",
        "--checkpoint",
        "mini",
        "--shots",
        "1",
        "--epochs",
        "1",
        "--seed",
        "0",
    ]
    assert main([*arguments, "--dry-run"]) == 0
    told = capsys.readouterr().err
    assert "140 trials, 0 of them done" in told and "`palmkit fetch Beijing-Opera CREMA-D" in told
    assert not (home / "runs").exists()
    assert main(arguments) == 0
    out = capsys.readouterr()
    assert "Not at hand: Beijing-Opera (69 MB)" in out.err and "| SESA |" in out.out
    shutil.rmtree(home / "data" / "SESA")
    assert main(arguments) == 1
    assert "none of these datasets is at hand" in capsys.readouterr().err


def test_plan_without_the_checkpoint(home, known_clock, mini, monkeypatch, capsys):
    monkeypatch.setattr("palmkit.models.random.random_pengi", lambda device: mini)
    assert main(["run", "--profile", "paper", "--dry-run", "--device", "cpu"]) == 1
    told = capsys.readouterr().err
    assert "the estimate uses random weights of its size" in told and "350 trials" in told
    assert told.splitlines()[-1].startswith("palmkit: there is no checkpoint")
    assert main(["run", "--dry-run", "--checkpoint", str(home / "gone.pth")]) == 1
    assert "units" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_network_of_pengis_size():
    pengi = random.random_pengi("cpu")
    assert pengi.dim == 1024 and pengi.text.width == 512 and pengi.note == "random weights"
    assert sum(p.numel() for p in [*pengi.audio.parameters(), *pengi.text.parameters()]) > 90e6


@pytest.mark.slow
def test_what_the_cache_has_is_not_counted(home, known_clock, mini):
    """Also for another method, seed or run; not with another crop or a corruption."""
    settings = SETTINGS | dict(methods=["zeroshot"], seeds=[0], shots=2, epochs=1)

    def clips(run, **other):
        told = planning.estimate_cost(mini, run, ["SESA"], **settings | other)
        return int(told.table["clips"].sum()), told.table["embed_s"].sum()

    tested = clips("one")[0]
    assert tested > 0
    run_trials(make_grid(datasets=["SESA"], **settings), mini, "one")
    assert clips("one") == (0, 0) and clips("two") == (0, 0)
    drawn = clips("two", methods=["palm"], seeds=[1])[0]
    assert 0 < drawn <= 2 * 4  # the draw, without what was tested
    assert clips("two", crop="start")[0] == tested
    noisy = {"corruption": ["noise", 10]}
    assert clips("two", options=noisy)[0] == tested
    damaged = clips("two", methods=["palm"], seeds=[1], options=noisy)[0]
    assert damaged == tested + drawn


def test_progress_names_the_dataset_and_counts(home, known_clock, mini, monkeypatch):
    shown = []

    class Bar:
        def __init__(self, total, what, unit, **options):
            shown.append((what, total))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def set_description(self, text, refresh=True):
            shown.append((text, None))

        def update(self, n=1):
            pass

        set_postfix_str = update

    for module in ("palmkit.embeddings", "palmkit.experiments.calls"):
        monkeypatch.setattr(f"{module}.progress_bar", Bar)
    settings = SETTINGS | dict(methods=["zeroshot"], folds="first", seeds=[0])
    run_trials(make_grid(datasets=["SESA", "Beijing-Opera"], **settings), mini, "bars")
    texts = [text for text, _ in shown]
    assert "embed SESA (1 of 2)" in texts and "embed Beijing-Opera (2 of 2)" in texts
    assert texts[-3:] == ["0 of 2 trials", "1 of 2 trials", "2 of 2 trials"]
