"""All tests: those of the modules and the notebooks, side by side. `make test` runs it.

Each half is one pytest, and most of it is one thread, so two cores do both in the time of one. The
output of the notebooks is kept and printed at the end. The exit status is 0 if both passed.
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
HALVES = {
    "tests": [*PYTEST, "tests"],
    "notebooks": [*PYTEST, "notebooks", "--nbval", "--nbval-current-env"],
}


def start(half: str, folder: Path, output) -> subprocess.Popen:
    """A half with runs of its own. The generated datasets are shared, and made once."""
    environment = os.environ | {
        "PALMKIT_RUNS": str(folder / half),
        "PALMKIT_CACHE": str(folder / "cache"),
        "PALMKIT_PROGRESS": "0",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        HALVES[half], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
    )


def run(halves: list[str], folder: Path) -> dict[str, int]:
    """Run the halves side by side; the exit status of each."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(folder / f"{half}.txt", "w+b")) for half in halves[1:]]
        outputs = [None, *files]  # the first is seen as it comes
        running = [start(half, folder, file) for half, file in zip(halves, outputs, strict=True)]
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
    halves = [half for half in HALVES if (ROOT / half).is_dir()]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        status = run(halves, Path(folder))
    minutes = (time.monotonic() - begun) / 60
    results = ", ".join(f"{half} {'failed' if code else 'passed'}" for half, code in status.items())
    print(f"{results}, in {minutes:.1f} minutes", flush=True)
    return max(map(abs, status.values()))


if __name__ == "__main__":
    sys.exit(main())
