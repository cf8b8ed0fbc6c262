"""All that depends on the device, on a GPU: `make gpu` prints a Markdown table for docs/gpu.md.

Parity with the published code's tensors, time and memory at PENGI's size, the released protocol,
rows that are the same twice and on the CPU, a trial out of memory, two devices. It takes under
5 minutes on one GPU. Progress goes to stderr, the table to stdout. The exit status is 0 if all is
within its limit, else 1. Without a GPU it says so and ends with 0.

`--device cpu --small` runs the same lines on the CPU with a tiny model: a test of this script.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch
from device_checks import Line, Setup, costs, memory, parity, protocol, rows, several

import palmkit

SECTIONS = {
    "parity with the published code": parity,
    "time and memory": costs,
    "the released protocol": protocol,
    "rows": rows,
    "out of memory": memory,
    "two devices": several,
}
NO_GPU = "skipped: PyTorch finds no CUDA device here, so nothing was run"
TEST_ONLY = "{}, small: a test of the script, no result"
MARKS = {True: "yes", False: "**no**", None: ""}


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="a tiny model and few clips")
    given = parser.parse_args(arguments)
    if given.device == "cpu" and not given.small:
        parser.error("--device cpu is a test of this script: give --small too")
    if given.device == "cuda" and not torch.cuda.is_available():
        print(NO_GPU)
        return 0
    os.environ["PALMKIT_PROGRESS"] = "0"
    started = time.perf_counter()
    with errors_only(), tempfile.TemporaryDirectory() as folder:
        setup = Setup(torch.device(given.device), given.small, Path(folder))
        lines = [*describe_machine(setup)]
        for title, section in SECTIONS.items():
            lines += run_section(title, section, setup)
    failed = sum(line.passed is False for line in lines)
    held = sum(line.passed is not None for line in lines)
    seconds = f"{time.perf_counter() - started:.0f} s"
    lines.append(Line("all", f"{held - failed} of {held} hold; {seconds}", "all", failed == 0))
    print(make_table(lines))
    return 1 if failed else 0


@contextlib.contextmanager
def errors_only():
    """No warnings of palmkit: a planted failure is no news."""
    log = logging.getLogger("palmkit")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def run_section(title: str, section, setup: Setup) -> list[Line]:
    """The lines of a section. An error is a line that does not hold, and the next one runs."""
    lines = []
    try:
        for line in section.check(setup):
            lines.append(line)
            if line.passed is False:
                setup.tell(f"NOT within its limit: {line.what}: {line.value}, limit {line.limit}")
    except Exception as error:  # whatever a device's libraries raise
        traceback.print_exc()
        lines.append(Line(title, describe_error(error), "runs to its end", False))
    return lines


def describe_error(error: Exception) -> str:
    """One line for the table."""
    message = memory.shorten(" ".join(str(error).split())).replace("|", "/")
    if isinstance(error, torch.OutOfMemoryError):
        return f"the device's memory is too small, or others use it: {message}"
    return f"{type(error).__name__}: {message}"


def describe_machine(setup: Setup) -> list[Line]:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    if setup.device.type == "cuda":
        about = torch.cuda.get_device_properties(setup.device)
        card = f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
        lines = [Line("card", card), Line("driver", find_driver())]
    else:
        lines = [Line("device", platform.machine())]
    if setup.small:
        lines.insert(0, Line("**what this is**", TEST_ONLY.format(setup.device.type)))
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda or 'none'}"
    versions += f", Python {platform.python_version()}, palmkit {palmkit.__version__}"
    return [*lines, Line("versions", versions), Line("day (UTC)", today)]


def find_driver() -> str:
    """The version of NVIDIA's driver by nvidia-smi, which comes with it; PyTorch does not say."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return "unknown: nvidia-smi does not answer"
    return ", ".join(dict.fromkeys(done.stdout.split())) or "unknown"


def make_table(lines: list[Line]) -> str:
    head = ["| what | measured | limit | holds |", "|---|---|---|---|"]
    cells = [(one.what, one.value, one.limit, MARKS[one.passed]) for one in lines]
    return "\n".join([*head, *(f"| {' | '.join(line)} |" for line in cells)])


if __name__ == "__main__":
    sys.exit(main())
