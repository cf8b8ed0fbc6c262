"""Planted faults: many tries of one kind, seeded, counted.

`make test` makes a few tries of each kind. `make endurance` makes many and writes
`docs/reliability.md`. With PALMKIT_FAULTS=survey a fault that survives does not end the test: all
tries are made, and the table says how many survived. It is how another version is measured.
"""

import contextlib
import functools
import json
import os
from collections import Counter
from pathlib import Path

import hypothesis

# "few": make test. "many": make endurance. "survey": many, and no failure ends a test.
MODE = os.environ.get("PALMKIT_FAULTS", "few")
TRIES: Counter = Counter()
SURVIVORS: Counter = Counter()
EXAMPLES: dict[str, str] = {}  # what the first failed try of a kind raised


def count_tries(few: int, many: int) -> int:
    return few if MODE == "few" else many


@contextlib.contextmanager
def attempt(kind: str):
    """One try. It fails if anything is raised, a failed assertion too."""
    TRIES[kind] += 1
    try:
        yield
    except hypothesis.errors.HypothesisException:  # a draw that is not wanted: not a try
        TRIES[kind] -= 1
        raise
    except Exception as error:
        SURVIVORS[kind] += 1
        EXAMPLES.setdefault(kind, f"{type(error).__name__}: {error}".split("\n")[0][:200])
        if MODE != "survey":
            raise


def fuzz(kind: str, few: int, many: int, **strategies):
    """A test by hypothesis: the same examples in every run, `few` or `many` of them.

    The test's other arguments are fixtures. Each example is an `attempt` of this kind.
    """

    def decorate(function):
        @hypothesis.settings(
            max_examples=count_tries(few, many),
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(**strategies)
        @functools.wraps(function)
        def test(*args, **kwargs):
            with attempt(kind):
                function(*args, **kwargs)

        return test

    return decorate


def save(path: Path) -> None:
    """Add this process's counts to a JSON file: {kind: [tries, failures, example]}."""
    found = json.loads(path.read_text()) if path.is_file() else {}
    for kind in TRIES:
        found[kind] = [TRIES[kind], SURVIVORS[kind], EXAMPLES.get(kind, "")]
    path.write_text(json.dumps(found, indent=1))
