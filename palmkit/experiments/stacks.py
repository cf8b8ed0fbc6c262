"""Trials that learn together: PALM with several seeds or learning rates, as `methods.stack` has it.

PALMKIT_STACK=N stacks up to N trials that differ in nothing else. It is off by default: results
are equal to 1e-6 and not to the last digit. Failures, retries and rows stay per trial. A stack
that fails, or whose process is killed, is split, and each of its trials runs alone.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

from palmkit.experiments.executor import Failure, in_parallel
from palmkit.experiments.trials import Trial, find_method
from palmkit.experiments.variations import method_options
from palmkit.methods.palm import PALM
from palmkit.methods.stack import can_stack, fit_stack
from palmkit.training import TrainingDiverged

SETTING = "PALMKIT_STACK"


@dataclass(frozen=True)
class Fitted:
    """A method that has learned.

    seconds: (prepare, fit); of a stack, its equal share. initial: PALM's lambdas before. chosen:
    options that were chosen. size: how many learned in the same stack.
    """

    method: object
    losses: list[float]
    diverged: str
    seconds: tuple[float, float]
    initial: list[float] | None
    chosen: dict = field(default_factory=dict)
    size: int = 1


def stack_size() -> int:
    """Trials of a stack at most: PALMKIT_STACK, or 1. Raises ValueError."""
    given = os.environ.get(SETTING, "") or "1"
    if not re.fullmatch("[1-9][0-9]{0,3}", given):
        raise ValueError(f"{SETTING}={given}: use a number of trials, 1 or more")
    return int(given)


def make_stacks(trials: list[Trial], n_train: list[int]) -> list[list[int]]:
    """The numbers of the trials, in lists of those that learn together."""
    size = stack_size()
    stacks: dict[tuple, list[list[int]]] = {}
    for n, trial in enumerate(trials):
        kind = (_kind(trial, n_train[n]), -1 if _fits(trial) else n)
        of_kind = stacks.setdefault(kind, [[]])
        if len(of_kind[-1]) == size:
            of_kind.append([])
        of_kind[-1].append(n)
    return [stack for of_kind in stacks.values() for stack in of_kind]


def _fits(trial: Trial) -> bool:
    """Whether a trial may be stacked at all."""
    is_plain = trial.protocol == "frozen" and trial.regime == "published"
    return find_method(trial.method) is PALM and is_plain and "pca_dim" not in trial.options


def _kind(trial: Trial, n_train: int) -> str:
    """Equal for trials that differ in seed and learning rate only."""
    return json.dumps([{**asdict(trial), "seed": None, "lr": None}, n_train], default=str)


def fit_together(calls: list) -> list[Fitted]:
    """Learn the trials of loaded calls together. Raises what any of them raises."""
    start = time.perf_counter()
    methods, supports = [], []
    for call in calls:
        options = method_options(call.trial.options)
        names = call.dataset.class_names
        methods.append(PALM(call.model, names, seed=call.trial.seed, **options))
        supports.append(call.source.load()[1])
    if not can_stack(methods):
        raise ValueError("these trials cannot learn together")
    initial = [method.lambdas.flatten().tolist() for method in methods]
    built = time.perf_counter()
    settings = calls[0].trial.fit_settings()
    own = {"seed", "lr"}
    found = fit_stack(
        methods,
        [support.features for support in supports],
        [support.labels for support in supports],
        seeds=[call.trial.fit_settings()["seed"] for call in calls],
        lrs=[call.trial.lr for call in calls],
        **{name: value for name, value in settings.items() if name not in own},
    )
    size, end = len(calls), time.perf_counter()
    seconds = ((built - start) / size, (end - built) / size)
    fitted = []
    for method, before, losses in zip(methods, initial, found, strict=True):
        diverged = ""
        if isinstance(losses, TrainingDiverged):
            losses, diverged = losses.losses, str(losses)
        fitted.append(Fitted(method, losses, diverged, seconds, before, size=size))
    return fitted


def run_stacks(
    run_one: Callable,
    run_stack: Callable,
    stacks: list[list[int]],
    calls: list[tuple],
    seconds: list[float],
    jobs: int,
    names: list[str],
    on_start: Callable,
) -> Iterator[tuple]:
    """As `in_parallel`, with run_one(*call) for a trial alone and run_stack(calls) for a stack."""
    split = []
    for part, done in _run_parts(run_stack, stacks, calls, seconds, jobs, names, on_start):
        if not isinstance(done, Failure):
            yield from zip(part, done, strict=True)
        elif len(part) == 1:
            yield part[0], done
        else:
            split += part
    about = ([calls[n] for n in split], [seconds[n] for n in split], jobs)
    alone = in_parallel(run_one, *about, [names[n] for n in split], lambda k: on_start(split[k]))
    for k, done in alone:
        yield split[k], done


def _run_parts(run_stack, stacks, calls, seconds, jobs, names, on_start) -> Iterator[tuple]:
    """(stack, its results or the Failure of all of it) as they finish."""

    def start(k: int) -> None:
        for n in stacks[k]:
            on_start(n)

    parts = [([calls[n] for n in stack],) for stack in stacks]
    costs = [sum(seconds[n] for n in stack) for stack in stacks]
    titles = ["; ".join(names[n] for n in stack) for stack in stacks]
    for k, done in in_parallel(run_stack, parts, costs, jobs, titles, start):
        yield stacks[k], done
