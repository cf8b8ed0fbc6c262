"""The tests in two halves side by side: `make test` runs all of them, `make check` the fast ones.

Each half is one pytest, and most of it is one thread, so two cores do both in the time of one. The
output of the second half is kept and printed at the end. The exit status is 0 if both passed.
--fast: the fast tests of the modules, without notebooks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
# nbval takes the kernel of this environment, not another one registered as "python3".
NBVAL = ["--nbval", "--nbval-current-env"]
# Folders of tests/ that take about half of the time of the fast tests; the others are the rest.
FIRST = ("kit", "methods", "models", "project", "protocols")


def all_halves() -> dict[str, list[str]]:
    """The commands of both halves of all tests. They take about as long as each other."""
    halves = {"tests": [*PYTEST, "tests"], "notebooks": [*PYTEST, "notebooks", *NBVAL]}
    return {half: command for half, command in halves.items() if (ROOT / half).is_dir()}


def fast_halves() -> dict[str, list[str]]:
    """The commands of both halves of the fast tests. Every folder of tests is in one of them."""
    folders = sorted({path.parent for path in (ROOT / "tests").rglob("test_*.py")})
    first = [path for path in folders if path.name in FIRST]
    rest = [path for path in folders if path.name not in FIRST]
    fast = [*PYTEST, "-m", "not slow"]
    return {"first": [*fast, *map(str, first)], "second": [*fast, *map(str, rest)]}


def start(command: list[str], half: str, folder: Path, output) -> subprocess.Popen:
    """A half with runs of its own. The generated datasets are shared, and made once.

    Trials of notebooks run in their kernel: the other half keeps the other core busy, and each
    notebook would start worker processes of its own.
    """
    environment = os.environ | {
        "PALMKIT_RUNS": str(folder / half),
        "PALMKIT_CACHE": str(folder / "cache"),
        "PALMKIT_PROGRESS": "0",
        "OMP_NUM_THREADS": "1",
        "PALMKIT_JOBS": "1",
    }
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
    )


def run(halves: dict[str, list[str]], folder: Path) -> dict[str, int]:
    """Run the commands side by side; the exit status of each."""
    with contextlib.ExitStack() as stack:
        names = [*halves]
        files = [stack.enter_context(open(folder / f"{half}.txt", "w+b")) for half in names[1:]]
        outputs = [None, *files]  # the first is seen as it comes
        running = [
            start(halves[half], half, folder, file)
            for half, file in zip(names, outputs, strict=True)
        ]
        try:
            status = [process.wait() for process in running]
        except BaseException:
            for process in running:
                process.terminate()
            raise
        for file in files:
            file.seek(0)
            shutil.copyfileobj(file, sys.stdout.buffer)
    return dict(zip(halves, status, strict=True))


def main() -> int:
    halves = fast_halves() if sys.argv[1:] == ["--fast"] else all_halves()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        status = run(halves, Path(folder))
    minutes = (time.monotonic() - begun) / 60
    results = ", ".join(f"{half} {'failed' if code else 'passed'}" for half, code in status.items())
    print(f"{results}, in {minutes:.1f} minutes", flush=True)
    return max(map(abs, status.values()))


if __name__ == "__main__":
    sys.exit(main())
