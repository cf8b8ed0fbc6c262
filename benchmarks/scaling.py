"""How one machine is used: processes and threads 1 -> 2, small trials, and stacked seeds.

`python benchmarks/scaling.py` prints Markdown tables (docs/scale_machine.md). Contenders take turns
(A B A B ...) and a ratio is the median of the rounds. Embeddings and features are random, and the
models are mini-PENGI and one of PENGI's size with random weights. `--small` tests the script.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import joblib
import psutil
import torch
from scaling_units import (
    CLASSES,
    MODELS,
    SHOTS,
    UNITS,
    load,
    seconds_of,
    seeds_alone,
    seeds_stacked,
    stages,
)

from palmkit.experiments.executor import in_parallel, threads
from palmkit.experiments.profiling import machine
from palmkit.experiments.rows import write_row

STACKS = (3, 10)
TRIALS = ("zeroshot", "prototypes", "kernel-ridge", "solved-palm", "gda", "palm")
ROW = {"losses": [0.123456789] * 500, "clips": ["a clip of a folder.wav"] * CLASSES * SHOTS}
# Of what stacked seeds learn, relative to the largest: what 50 steps make of rounding.
LIMITS = {torch.float64: 1e-9, torch.float32: 1e-5}
NOTE = (
    "Ratios over 1: the second is faster. Median of the rounds (lowest to highest). Processes: "
    "the same calls through `in_parallel`, one thread each; workers are started before."
)


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7, help="rounds of each comparison")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each contender in a round")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--small", action="store_true", help="one short round: a test, no result")
    given = parser.parse_args(arguments)
    if given.repeats < 1 or not given.seconds > 0:
        parser.error("--repeats takes 1 or more, --seconds more than 0")
    if given.small:
        given.repeats, given.seconds, given.models = 1, 0.02, ["mini-PENGI"]
    start, busy = time.perf_counter(), psutil.getloadavg()[0]
    text = [scaling_table(given), trial_table(given), stack_table(given)]
    about = f"{machine(torch.device('cpu'))}, load {busy:.1f} before"
    if given.small:
        about = f"**Small: a test of the script, no result.** {about}"
    print(f"{about}; {given.repeats} rounds, {time.perf_counter() - start:.0f} s.\n")
    print("\n\n".join(text))


def tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


# Processes and threads.


def scaling_table(given) -> str:
    with threads(1):
        began = time.perf_counter()
        for model in given.models:  # the workers start, import and load
            seconds_of(next(iter(UNITS)), model, 1, processes=2)
        began = time.perf_counter() - began
    lines = [
        "| unit | model | seconds | processes 1 to 2 | threads 1 to 2 |",
        "|---|---|---|---|---|",
    ]
    for model in given.models:
        for unit in UNITS:
            tell(f"{unit}, {model}")
            lines.append(f"| {unit} | {model} | {scaling_cells(unit, model, given)} |")
    many = joblib.cpu_count() < 2
    cores = " There is one core here, so nothing can be gained." if many else ""
    note = f"{NOTE} Two workers started, imported and loaded in {began:.1f} s.{cores}"
    return "\n".join(lines) + f"\n\n{note}"


def scaling_cells(unit: str, model: str, given) -> str:
    with threads(1):
        UNITS[unit](model)
        one = seconds(functools.partial(UNITS[unit], model))
        count = max(1, round(given.seconds / one / 4))
        work = functools.partial(seconds_of, unit, model, count)
        work(2)
        processes = compare(functools.partial(work, 1), functools.partial(work, 2), given.repeats)
    of_threads = compare(
        *(functools.partial(on_threads, n, unit, model, 4 * count) for n in (1, 2)), given.repeats
    )
    return f"{one:.3f} | {spread(processes)} | {spread(of_threads)}"


def on_threads(number: int, unit: str, model: str, count: int) -> float:
    """Seconds of `count` units on so many threads of this process."""
    with threads(number):
        return seconds_of(unit, model, count, processes=1, calls=1)


def seconds(run: Callable) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(first: Callable, second: Callable, repeats: int) -> list[float]:
    """Seconds of the first over those of the second, in each round. They take turns."""
    return [first() / second() for _ in range(repeats)]


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


# A small trial.


def trial_table(given) -> str:
    names = ["class texts", "fit", "predict", "score"]
    lines = [
        f"| milliseconds | {' | '.join(names)} | write a row | hand over a call |",
        f"|---|{'---|' * 6}",
    ]
    with threads(1), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row.json"
        tensors = {"logits": torch.zeros(40, CLASSES)}
        beside = [
            median_ms(functools.partial(write_row, path, ROW, tensors), given),
            median_ms(hand_over, given) / 100,
        ]
        for method in TRIALS:
            tell(f"a trial of {method}")
            parts = stages(method, given.models[0])
            cells = [median_ms(parts[name], given) for name in names] + beside
            lines.append(f"| {method} | {' | '.join(f'{cell:.1f}' for cell in cells)} |")
    return "\n".join(lines) + (
        f"\n\n{given.models[0]}, {CLASSES} classes, {SHOTS} shots, 50 epochs of SGD, one thread. "
        "The worker has the model and the embeddings. To hand over a call: one that does nothing, "
        "through two workers."
    )


def hand_over() -> None:
    for _ in in_parallel(len, [("",)] * 100, [1.0] * 100, 2):
        pass


def median_ms(run: Callable, given) -> float:
    run()
    return 1000 * statistics.median(seconds(run) for _ in range(given.repeats))


# Stacked seeds.


def stack_table(given) -> str:
    lines = [
        "| PALM | model | seconds alone | stacked: ratio | largest difference |",
        "|---|---|---|---|---|",
    ]
    for model in given.models:
        for seeds in STACKS:
            tell(f"{seeds} seeds, {model}")
            lines.append(f"| {seeds} seeds | {model} | {stack_cells(model, seeds, given)} |")
    return "\n".join(lines) + "\n\nOne thread. The difference is of what is learned, relative."


def stack_cells(model: str, seeds: int, given) -> str:
    with threads(1):
        alone, stacked = (functools.partial(f, model, seeds) for f in (seeds_alone, seeds_stacked))
        error = max(
            ((one - other).abs().max() / other.abs().max()).item()
            for one, other in zip(stacked(), alone(), strict=True)
        )
        if error > LIMITS[load(model).dtype]:
            raise AssertionError(f"stacked seeds differ by {error:.1e}; nothing is timed")
        took = seconds(alone)
        ratios = compare(lambda: seconds(alone), lambda: seconds(stacked), given.repeats)
    return f"{took:.2f} | {spread(ratios)} | {error:.0e}"


if __name__ == "__main__":
    main()
