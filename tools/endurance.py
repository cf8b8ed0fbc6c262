"""Many planted faults of every kind, and the table of them: docs/reliability.md.

`make endurance` runs `tests/reliability` with many tries. The counts are kept in
docs/reliability.json, so that a part can be run again: by a file of tests, and by --kind, a part
of the name of a kind or of a test. The other counts stay. `--survey` counts failed tries and goes
on. `--json FILE` writes the counts there only: another version's become
docs/reliability-before.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reliability.md"
COUNTS = ROOT / "docs" / "reliability.json"
BEFORE = ROOT / "docs" / "reliability-before.json"
NO_TESTS = 5  # pytest's exit status where nothing was selected


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--survey", action="store_true", help="a failed try does not end a test")
    parser.add_argument("--json", type=Path, help="write the counts there, and no page")
    parser.add_argument("--before", type=Path, default=BEFORE, help="counts of another version")
    parser.add_argument("--kind", default="", help="only tests and kinds with this in their name")
    parser.add_argument("tests", nargs="*", default=["tests/reliability"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = given.json or Path(folder) / "counts.json"
        mode = "survey" if given.survey else "many"
        # A file after the other: what is counted is kept if a later one is interrupted.
        tests = list_tests(given.tests)
        status = max(run_tests(test, given.kind, mode, counts) for test in tests)
        if not counts.is_file():
            print("no test ran: see pytest's output above", file=sys.stderr)
            return status
        found = json.loads(counts.read_text())
    if given.json is None:
        write_page(found, given.before)
    print(make_table(found, {}))
    return status


def write_page(found: dict, before: Path) -> None:
    """The page of these counts, and of those of other kinds that an earlier command made."""
    earlier = json.loads(COUNTS.read_text()) if COUNTS.is_file() else {}
    merged = dict(sorted((earlier | found).items()))
    COUNTS.write_text(json.dumps(merged, indent=1) + "\n")
    PAGE.write_text(make_page(merged, json.loads(before.read_text()) if before.is_file() else {}))
    print(f"{PAGE.relative_to(ROOT)} is written")


def list_tests(given: list[str]) -> list[str]:
    """The test files that are meant: those given, and those in folders that are given."""
    files = []
    for name in given:
        inside = sorted((ROOT / name).glob("test_*.py"))
        files += [str(path.relative_to(ROOT)) for path in inside] or [name]
    return files


def run_tests(test: str, kind: str, mode: str, counts: Path) -> int:
    """pytest's exit status for a file; 0 if it has no test of this kind."""
    environment = os.environ | {
        "PALMKIT_FAULTS": mode,
        "PALMKIT_FAULTS_TABLE": str(counts.resolve()),
        "PALMKIT_PROGRESS": "0",
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rs", test]
    command += ["-k", kind] if kind else []
    status = subprocess.run(command, cwd=ROOT, env=environment).returncode
    return 0 if kind and status == NO_TESTS else status


def make_table(found: dict, before: dict) -> str:
    """A Markdown table: kind, tries, failures, and the failures of the earlier version."""
    head = ["kind of fault", "tries", "failures"] + (["failures before"] if before else [])
    lines = [head, ["---"] * len(head)]
    for kind, (tries, failures, _) in sorted(found.items()):
        line = [kind, f"{tries:,}", f"{failures:,}"]
        if before:
            old = before.get(kind)
            line.append(f"{old[1]:,} of {old[0]:,}" if old else "not tried")
        lines.append(line)
    tries, failures = (sum(one[n] for one in found.values()) for n in (0, 1))
    lines.append(["all", f"{tries:,}", f"{failures:,}"] + ([""] if before else []))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def make_page(found: dict, before: dict) -> str:
    return PAGE_TEXT.format(table=make_table(found, before))


PAGE_TEXT = """# How faults are tried

`make endurance` writes this page. It plants faults of every kind below, many times, from fixed
seeds. `make test` does the same with fewer tries.

A try fails if one of these happens:

- an error that is not one of the kit's, or that does not name the file or the row;
- a wrong number without an error;
- a process that does not end, or memory and disk without a bound;
- a file, a process or shared memory left behind; a finished row or tensor lost.

{table}

Kinds that begin with `grid` disturb a run of 18 trials of mini-PENGI: five classes of two generated
datasets, two seeds, zero-shot, Solved PALM, kernel ridge, PALM and COOP with three epochs, in two
worker processes. Each trial sleeps 0.05 seconds in addition. The *driver* is the process of the
command `palmkit run`. After the fault, the same command runs to its end without one. A try passes
if

- all rows (but for their columns `seconds`, `written`, `command` and `versions`) and the output of
  `palmkit table` equal those of a run that nothing disturbed;
- a row that was there after the fault has not been written again;
- no process is alive after 15 seconds, and none has left shared memory or a semaphore;
- the folder of the run has the files of the undisturbed run and no other, the cache has no
  temporary file, the folder for temporary files (`TMPDIR`, one for each try) is empty, and no lock
  is held;
- what went wrong was said in one line, without a traceback.

Try number N of a kind is drawn from the seed `KIND N`. A full disk is a file system in memory
(tmpfs) of 4 to 600 KB, which root can mount; without that right these kinds are skipped, and only
files limited in size (RLIMIT_FSIZE) are tried. The worker of a Dask cluster needs `distributed`,
and is skipped without. The commands are forks of a process that has imported palmkit; those that
are killed at the start, and some that get a signal, are started by an interpreter of their own.

Found by these tries, and mended:

- SIGTERM and SIGHUP ended a command without a word.
- Unfinished files of a killed process were never removed: in the folder of the run, in the cache.
- A worker with other versions, weights or clips made failed rows instead of ending the run.
- A second command of another version wrote its rows among those of the first.
- Killed workers left semaphores, and a warning of Python behind the last line.
- SIGINT and SIGHUP to a whole group while workers started showed Python's tracebacks.
- With three drivers, a shard of the cache could stay under its temporary name.
- SIGINT ended `python -m palmkit` by the signal instead of with status 130, if it came while Python
  ran a text by `exec` (1 of 10 tries).
- Notebook 10 did not run with folds that leave out the first (1 of 85 tries).

`tools/endurance.py --kind WORD` tries one kind again and keeps the counts of the others.

"Failures before": the same tests on the version before these faults were mended, with the tries
shown. "Not tried": not counted there, or the tries need what that version does not have.
"""


if __name__ == "__main__":
    sys.exit(main())
