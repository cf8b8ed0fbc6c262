"""Runs of a tiny grid by `palmkit run`, here or on a cluster; methods that kill their worker."""

import importlib.util
import json

import pytest
from outside import few

from palmkit.cli import main

PACKAGES = {"dask": "distributed", "ray": "ray"}
# All of a row but times and places: seconds, written, command, tensors' file (its sha256 counts).
OTHER = {"seconds", "written", "command"}
# `{when}` is a condition on self.seed and the file ONCE; a worker has the variable TEST_WORKER.
DIES = """
import os, pathlib, signal, time, torch
from palmkit import Method

ONCE = pathlib.Path({once!r})


class Dies(Method):
    name = {name!r}

    def fit(self, features, labels, **settings):
        if "TEST_WORKER" in os.environ and {when}:
            ONCE.touch()
            {act}
        return [float(torch.get_num_threads())]

    def forward(self, features):
        return features[:, : len(self.class_names)]
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def make_method(home, name, when, act=KILL):
    """A file with a method that does something in a worker; home/NAME.once exists when it did."""
    path = home / f"{name}.py"
    once = str(home / f"{name}.once")
    path.write_text(DIES.format(name=name, once=once, when=when, act=act))
    return path


def run(home, name, *more):
    flags = few(home, "--import", home / "toy_model.py", "--checkpoint", "toy", "--name", name)
    return main(["run", *flags, *map(str, more)])


def same(row):
    """What of a row must not depend on where it was made."""
    return json.dumps({name: value for name, value in row.items() if name not in OTHER})


def all_rows(home, name):
    paths = sorted((home / "runs" / name / "rows" / "tiny").glob("*.json"))
    return [json.loads(path.read_text()) for path in paths]


def start_cluster(kind, *arguments, **options):
    """A cluster of this kind, as a context manager that gives its address."""
    if not importlib.util.find_spec(PACKAGES[kind]):
        pytest.skip(f"the extra `{kind}` is not installed")
    if kind == "dask":
        from dask_cluster import dask_cluster as cluster
    else:
        from ray_cluster import ray_cluster as cluster
    return cluster(*arguments, **options)
