"""One worker process for each GPU, with a made-up number of GPUs: no CUDA is needed, nor used."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from palmkit.experiments import devices, executor
from palmkit.experiments.devices import VISIBLE, Gpus, gpus_for, list_gpus

TAKE = """
import sys, time
from pathlib import Path
from palmkit.experiments.devices import Gpus
print(Gpus(["4", "7"], Path(sys.argv[1])).take(), flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def three_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.delenv("PALMKIT_JOBS", raising=False)
    devices.shared_gpus.cache_clear()
    yield
    devices.shared_gpus.cache_clear()


@pytest.mark.parametrize(
    "given, found", [(None, ["0", "1", "2"]), ("", ["0", "1", "2"]), (" 5, GPU-8a ,2", None)]
)
def test_the_gpus_are_those_that_the_process_may_use(monkeypatch, given, found):
    if given is not None:
        monkeypatch.setenv(VISIBLE, given)
    assert list_gpus() == (found or ["5", "GPU-8a", "2"])


@pytest.mark.parametrize("device, number", [("cuda", 3), ("cuda:1", 1), ("cpu", 1)])
def test_trials_of_a_model_on_any_gpu_are_spread(device, number):
    class Large:
        dim, text_width = 1024, 1024

    Large.device = torch.device(device)
    assert executor.count_jobs(Large()) == number
    assert len(gpus_for(Large.device)) == (3 if number == 3 else 0)


def test_one_gpu_is_nothing_to_share(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert gpus_for(torch.device("cuda")) == [] and devices.shared_gpus().names == []
    assert Gpus([], None).take() is None and VISIBLE not in os.environ


def test_each_takes_another_and_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setenv(VISIBLE, "")
    first, second, third = (Gpus(["4", "7"], tmp_path) for _ in range(3))
    assert first.take() == "4" and os.environ[VISIBLE] == "4"
    assert second.take() == "7" and os.environ[VISIBLE] == "7"
    assert third.take() is None and os.environ[VISIBLE] == "7"
    first.held.release()
    assert third.take() == "4"


def test_only_a_model_on_cuda_takes_one(tmp_path, monkeypatch):
    monkeypatch.setenv(VISIBLE, "")
    monkeypatch.setattr(devices, "_own", Gpus(["4", "7"], tmp_path))
    devices.take_gpu("cpu")
    devices.take_gpu("cuda:1")
    assert not [*tmp_path.iterdir()]
    devices.take_gpu("cuda")
    assert os.environ[VISIBLE] == "4"


def take(folder, seconds):
    command = [sys.executable, "-c", TAKE, str(folder), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_process_gives_its_gpu_back(tmp_path):
    first = take(tmp_path, 600)
    assert first.stdout.readline() == "4\n"
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = take(tmp_path, 0)
    assert second.communicate()[0] == "4\n"


def see(n):
    devices.take_gpu("cuda")
    time.sleep(1)  # so that no worker takes the calls of another
    return os.environ[VISIBLE], os.getpid()


@pytest.mark.slow
def test_local_workers_have_a_gpu_each():
    calls = [(n,) for n in range(6)]
    found = dict(executor.in_parallel(see, calls, [9.0] * 6, 3)).values()
    assert {gpu for gpu, _ in found} == {"0", "1", "2"}
    assert len({*found}) == 3  # each process keeps its own
    assert VISIBLE not in os.environ


def test_the_lock_folder_goes_with_the_command():
    folder = devices.shared_gpus().folder
    assert folder.is_dir() and devices.shared_gpus().folder == folder
    folder.rmdir()
