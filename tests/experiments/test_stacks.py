"""Trials that learn together: rows, failures and retries stay per trial."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch

from palmkit import load_pengi
from palmkit.experiments import executor, run, stacks, trials
from palmkit.experiments.failures import TrialsFailed

SETTINGS = {"shots": 4, "epochs": 3, "batch_size": 4}


@pytest.fixture(scope="module")
def mini():
    return load_pengi("mini", device="cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three classes of noise in bands, six training clips and two test clips each."""
    import soundfile

    root = tmp_path_factory.mktemp("data") / "Noises"
    (root / "audios").mkdir(parents=True)
    splits = {"train": [], "test": []}
    for label, name in enumerate(("bell", "dog", "rain")):
        for n in range(8):
            generator = torch.Generator().manual_seed(10 * label + n)
            wave = torch.randn(22_050, generator=generator).cumsum(0) * 0.01 * (label + 1)
            path = f"audios/{name} {n}.wav"
            soundfile.write(root / path, wave.tanh().numpy(), 22_050)
            splits["train" if n < 6 else "test"].append((path, name))
    write_splits(root, splits)
    return root


def write_splits(root, splits):
    import pandas as pd

    folder = root / "csv_files"
    folder.mkdir()
    for split, lines in splits.items():
        frame = pd.DataFrame(lines, columns=["path", "classname"])
        frame.to_csv(folder / f"{split}.csv")


def rows_of(grid, mini, folder, size, monkeypatch):
    monkeypatch.setenv("PALMKIT_STACK", str(size))
    return run.run_trials(grid, mini, folder, cache=None)


@pytest.fixture(scope="module")
def grid(dataset):
    return trials.make_grid(["palm", "coop"], [dataset], seeds=[0, 1, 2], **SETTINGS)


@pytest.fixture(scope="module")
def palms(grid):
    return [trial for trial in grid if trial.method == "palm"]


@pytest.mark.slow
def test_rows_are_those_of_trials_alone(grid, mini, tmp_path, monkeypatch):
    """To 1e-9 of the losses, and all other columns alike; a row says how many shared its time."""
    alone = rows_of(grid, mini, tmp_path / "alone", 1, monkeypatch)
    together = rows_of(grid, mini, tmp_path / "together", 8, monkeypatch)
    changing = {"seconds", "written", "losses", "stacked", "lambdas", "loss", "tensors"}
    for one, other in zip(alone, together, strict=True):
        assert {k: v for k, v in one.items() if k not in changing} == {
            k: v for k, v in other.items() if k not in changing
        }
        for name in ("losses", "lambdas"):
            assert other.get(name, 0) == pytest.approx(one.get(name, 0), rel=1e-9)
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-9)
        assert "stacked" not in one
        assert other.get("stacked") == (3 if other["method"] == "palm" else None)
    palm = [row for row in together if row["method"] == "palm"]
    assert len({row["seconds"]["fit"] for row in palm}) == 1, "the share is equal"
    assert len({row["losses"][0] for row in palm}) == 3


@pytest.mark.slow
def test_seconds_are_shares_of_the_stack_s(mini, palms, tmp_path, monkeypatch):
    """Of 0.6 s to prepare three methods and 3 s to fit them, each has a third."""
    monkeypatch.setenv("PALMKIT_STACK", "8")
    clock = iter([10.0, 10.6, 13.6])
    monkeypatch.setattr(stacks, "time", SimpleNamespace(perf_counter=clock.__next__))
    rows = run.run_trials(palms, mini, tmp_path / "run", cache=None)
    for row in rows:
        assert (row["seconds"]["prepare"], row["seconds"]["fit"]) == (0.2, 1.0)


def test_a_stack_is_of_what_differs_in_seed_and_rate_only(dataset, monkeypatch):
    monkeypatch.setenv("PALMKIT_STACK", "2")
    grid = trials.make_grid(["palm", "zeroshot"], [dataset], seeds=[0, 1, 2], **SETTINGS)
    other = trials.make_grid(["palm"], [dataset], seeds=[3], shots=2, epochs=3, batch_size=4)
    rate = trials.make_grid(["palm"], [dataset], seeds=[0], lr=0.2, **SETTINGS)
    every = [*grid, *other, *rate]
    found = {
        tuple((every[n].method, every[n].seed, every[n].shots, every[n].lr) for n in stack)
        for stack in stacks.make_stacks(every, [one.shots for one in every])
    }
    assert found == {
        (("palm", 0, 4, 0.05), ("palm", 1, 4, 0.05)),
        (("palm", 2, 4, 0.05), ("palm", 0, 4, 0.2)),
        (("palm", 3, 2, 0.05),),
        (("zeroshot", 0, 0, 0.05),),
    }
    monkeypatch.delenv("PALMKIT_STACK")
    assert all(len(stack) == 1 for stack in stacks.make_stacks(every, [4] * len(every)))
    monkeypatch.setenv("PALMKIT_STACK", "many")
    with pytest.raises(ValueError, match="PALMKIT_STACK=many: use a number of trials"):
        stacks.stack_size()


@pytest.mark.slow
def test_a_failing_trial_costs_only_itself(palms, mini, tmp_path, monkeypatch):
    """The others of its stack run alone, and a retry runs it again."""
    expected = rows_of(palms, mini, tmp_path / "alone", 1, monkeypatch)
    inner = stacks.PALM.__init__

    def init(self, model, class_names, seed=0, **options):
        if seed == 1:
            raise ValueError("seed 1 is broken")
        inner(self, model, class_names, seed, **options)

    monkeypatch.setattr(stacks.PALM, "__init__", init)
    monkeypatch.setattr(run, "_measure", lambda clock, job: 0.1)
    with pytest.raises(TrialsFailed) as caught:
        rows_of(palms, mini, tmp_path / "run", 8, monkeypatch)
    assert "1 of 3 trials failed" in str(caught.value)
    monkeypatch.setattr(stacks.PALM, "__init__", inner)
    rows = run.run_trials(palms, mini, tmp_path / "run", cache=None, retry_failed=True)
    assert [row["losses"] for row in rows] == [row["losses"] for row in expected]
    assert not any("stacked" in row for row in rows)


def one(number: int, guilty: int):
    """A trial; the guilty one ends its process as a lack of memory would."""
    if number == guilty:
        os.kill(os.getpid(), signal.SIGKILL)
    return number, os.getpid()


def several(calls):
    return [one(*call) for call in calls]


@pytest.mark.slow
def test_a_killed_trial_costs_only_itself():
    calls = [(n, 2) for n in range(6)]
    started = []
    found = stacks.run_stacks(
        one,
        several,
        [[0, 1], [2, 3], [4, 5]],
        calls,
        [executor.START] * 6,
        2,
        [f"trial {n}" for n in range(6)],
        started.append,
    )
    done = dict(found)
    assert {n: result[0] for n, result in done.items() if n != 2} == {
        n: n for n in range(6) if n != 2
    }
    assert done[2] is executor.KILLED
    assert set(started) == set(range(6))
