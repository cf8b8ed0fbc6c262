"""Faults that a test plants in the processes of a run: in its driver, or in its workers.

The environment variable PLANTED has them, as JSON; without it nothing is changed. `planted_grid.py`
is the file that a run names with --import, so that workers plant them too.
"""

import errno
import json
import os
import random
import signal
import time
from pathlib import Path


def plant() -> None:
    """Change this process as PLANTED says."""
    wanted = json.loads(os.environ.get("PLANTED", "{}"))
    if not wanted:
        return
    driver = int(os.environ.setdefault("PLANTED_DRIVER", str(os.getpid())))
    is_driver = driver == os.getpid()
    for name, value in wanted.items():
        fault, where = FAULTS[name]
        if where in ("all", "driver" if is_driver else "worker"):
            fault(value)


def use_processes(seconds: float) -> None:
    """Worker processes also for a grid of few seconds. Each trial sleeps for so long first."""
    from palmkit.experiments import calls, executor

    executor.START = 0.0
    original = calls.run_trial

    def run_trial(trial, *arguments, **options):
        time.sleep(seconds)
        return original(trial, *arguments, **options)

    calls.run_trial = run_trial


def kill_at_write(number: int) -> None:
    """kill -9 of this process between writing its file of this number and renaming it."""
    _at_replace(number, lambda original, *paths: os.kill(os.getpid(), signal.SIGKILL))


def fail_at_replace(fault: list) -> None:
    """A rename that fails, [its number, the name of errno, whether it took place all the same]."""
    number, name, done = fault

    def fail(original, *paths):
        if done:
            original(*paths)
        code = getattr(errno, name)
        raise OSError(code, os.strerror(code), str(paths[0]))

    _at_replace(number, fail)


def _at_replace(number: int, fault) -> None:
    original, count = os.replace, 0

    def replace(source, target):
        nonlocal count
        count += 1
        return fault(original, source, target) if count == number else original(source, target)

    os.replace = replace


def kill_at_trial(fault: list) -> None:
    """kill -9 of the worker that begins a trial, some times.

    fault: [method, seed, dataset, times, a file that counts].
    """
    from palmkit.experiments import calls

    method, seed, dataset, times, file = fault
    original = calls.run_trial

    def run_trial(trial, *arguments, **options):
        if (trial.method, trial.seed, Path(trial.dataset).name) == (method, seed, dataset):
            with open(file, "a+b", buffering=0) as counter:
                if counter.tell() < times:
                    counter.write(b"x")
                    os.kill(os.getpid(), signal.SIGKILL)
        return original(trial, *arguments, **options)

    calls.run_trial = run_trial


def limit_file_size(bytes_: int) -> None:
    """No file can be larger."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))


def jump_clock(seed: int) -> None:
    """time.time() jumps by up to a day at every tenth call, forward and back."""
    rng, now, now_ns = random.Random(seed), time.time, time.time_ns
    state = {"calls": 0, "offset": 0.0}

    def offset() -> float:
        state["calls"] += 1
        if state["calls"] % 10 == 0:
            state["offset"] = rng.uniform(-86_400, 86_400)
        return state["offset"]

    time.time = lambda: now() + offset()
    time.time_ns = lambda: now_ns() + int(offset() * 1e9)


def have_version(fault: list) -> None:
    """Another version of a package, [name, version]."""
    import palmkit
    from palmkit.experiments import references

    name, version = fault
    if name == "palmkit":
        palmkit.__version__ = version
    else:
        original = references.version
        references.version = lambda one: version if one == name else original(one)


def have_weights(seed: int) -> None:
    """Another weight in the default model."""
    import torch

    from palmkit.models import registry

    def load(device="auto"):
        model = original(device=device)
        torch.manual_seed(seed)
        modules = [one for one in vars(model).values() if isinstance(one, torch.nn.Module)]
        with torch.no_grad():
            parameter = next(modules[0].parameters())
            parameter += 0.01 * torch.randn_like(parameter)
        return model

    original = registry.MODELS["mini"]
    registry.MODELS["mini"] = load


def touch_at_trial(fault: list) -> None:
    """A file is replaced by another when the driver sends the first trial, [file, its new content].

    As on a node whose copy differs: a worker loads what the driver did not.
    """
    from palmkit.experiments import calls

    target, source = map(Path, fault)
    original = calls.in_parallel

    def in_parallel(function, given, *arguments):
        if given:
            target.write_bytes(source.read_bytes())
        return original(function, given, *arguments)

    calls.in_parallel = in_parallel


# name: (what plants it, in which processes)
FAULTS = {
    "processes": (use_processes, "all"),
    "kill_at_write": (kill_at_write, "driver"),
    "fail_at_replace": (fail_at_replace, "driver"),
    "kill_at_trial": (kill_at_trial, "worker"),
    "limit_file_size": (limit_file_size, "all"),
    "jump_clock": (jump_clock, "all"),
    "worker_version": (have_version, "worker"),
    "worker_weights": (have_weights, "worker"),
    "version": (have_version, "all"),
    "touch_at_trial": (touch_at_trial, "driver"),
}
