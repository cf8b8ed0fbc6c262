"""Many planted faults of every kind, and the table of them: docs/reliability.md.

`make endurance` runs `tests/reliability` with many tries. `--survey` counts survivors and goes on.
`--before FILE` adds a column with the counts of another version, made there with `--json FILE`.
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
BEFORE = ROOT / "docs" / "reliability-before.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--survey", action="store_true", help="a survivor does not end a test")
    parser.add_argument("--json", type=Path, help="write the counts there, and no page")
    parser.add_argument("--before", type=Path, default=BEFORE, help="counts of another version")
    parser.add_argument("tests", nargs="*", default=["tests/reliability"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = given.json or Path(folder) / "counts.json"
        mode = "survey" if given.survey else "many"
        # A file after the other: what is counted is kept if a later one is interrupted.
        status = max(run_tests(test, mode, counts) for test in list_tests(given.tests))
        if not counts.is_file():
            print("no test ran: see pytest's output above", file=sys.stderr)
            return status
        found = json.loads(counts.read_text())
    if given.json is None:
        before = json.loads(given.before.read_text()) if given.before.is_file() else {}
        PAGE.write_text(make_page(found, before))
        print(f"{PAGE.relative_to(ROOT)} is written")
    print(make_table(found, {}))
    return status


def list_tests(given: list[str]) -> list[str]:
    """The test files that are meant: those given, and those in folders that are given."""
    files = []
    for name in given:
        inside = sorted((ROOT / name).glob("test_*.py"))
        files += [str(path.relative_to(ROOT)) for path in inside] or [name]
    return files


def run_tests(test: str, mode: str, counts: Path) -> int:
    environment = os.environ | {
        "PALMKIT_FAULTS": mode,
        "PALMKIT_FAULTS_TABLE": str(counts.resolve()),
        "PALMKIT_PROGRESS": "0",
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", test]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def make_table(found: dict, before: dict) -> str:
    """A Markdown table: kind, tries, survivors, and the survivors of the earlier version."""
    head = ["kind of fault", "tries", "survivors"] + (["survivors before"] if before else [])
    lines = [head, ["---"] * len(head)]
    for kind, (tries, survivors, _) in sorted(found.items()):
        line = [kind, f"{tries:,}", f"{survivors:,}"]
        if before:
            old = before.get(kind)
            line.append(f"{old[1]:,} of {old[0]:,}" if old else "not tried")
        lines.append(line)
    tries, survivors = (sum(one[n] for one in found.values()) for n in (0, 1))
    lines.append(["all", f"{tries:,}", f"{survivors:,}"] + ([""] if before else []))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def make_page(found: dict, before: dict) -> str:
    return PAGE_TEXT.format(table=make_table(found, before))


PAGE_TEXT = """# How faults are tried

`make endurance` writes this page. It plants faults of every kind below, many times, from fixed
seeds. `make test` does the same with fewer tries.

A fault is survived wrongly, and counts as a *survivor*, when one of these happens:

- an error that is not one of the kit's, or that does not name the file or the row;
- a wrong number without an error;
- a process that does not end, or memory and disk without a bound;
- a file, a process or shared memory left behind; a finished row or tensor lost.

{table}

"Survivors before": the same tests on the version before these faults were mended, with the tries
shown. "Not tried": not counted there, or the tries need what that version does not have.
"""


if __name__ == "__main__":
    sys.exit(main())
