"""docs/claims.md is in step with the notebooks: each check of a page stands there, and exists.

A check is an `assert`, or the condition of a `found.add`. The file quotes a part of each as it is
in the cell; blanks and line breaks do not count.
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "claims.md").read_text()
QUOTE = re.compile(r"In \[(\d+)\]: (`[^`]+`(?:, `[^`]+`)*)")
# What a line says that names no check.
REASONS = ("Definition", "Published", "Recipe", "Arithmetic", "Limit", "Held by tests")


def squeeze(code: str) -> str:
    """Code without blanks, line breaks and the comma before a closing bracket."""
    return re.sub(r",(?=[)\]}])", "", "".join(code.split()))


def find_checks(source: str) -> list[str]:
    """The conditions that a cell checks, squeezed."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            found.append(node.test)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "found.add":
            found.append(node.args[1])
    return [squeeze(ast.get_source_segment(source, node)) for node in found]


def load_checks() -> dict[str, dict[int, list[str]]]:
    """{number of a page: {number of a code cell: its conditions}}, for pages with checks."""
    pages = {}
    for path in sorted([*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/*/*.ipynb")]):
        cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        checks = {n: find_checks(cell.source) for n, cell in enumerate(cells, 1)}
        checks = {n: found for n, found in checks.items() if found}
        if checks:
            pages[path.name.split("_")[0].lstrip("0") or "0"] = checks
    return pages


def load_tables() -> dict[str, str]:
    """{number of a page: its part of the file}."""
    parts = re.split(r"^## (?:Page )?(\w+)\b.*$", TEXT, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def lines_of(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


CHECKS, TABLES = load_checks(), load_tables()


def test_every_page_with_findings_has_a_part():
    assert len(CHECKS) >= 15
    assert set(CHECKS) <= set(TABLES)


@pytest.mark.parametrize("page", TABLES)
class TestPage:
    def test_each_claim_names_a_check_or_says_why_not(self, page):
        lines = lines_of(TABLES[page])
        assert lines and {len(line) for line in lines} == {2}
        assert not [
            claim
            for claim, held in lines
            if not QUOTE.search(held) and not held.startswith(REASONS)
        ]

    def test_each_quoted_check_is_in_its_cell(self, page):
        for number, quotes in QUOTE.findall(TABLES[page]):
            conditions = CHECKS[page][int(number)]
            for quote in re.findall(r"`([^`]+)`", quotes):
                assert any(squeeze(quote) in one for one in conditions), (number, quote)

    def test_each_check_of_the_page_is_quoted(self, page):
        quoted = {}
        for number, quotes in QUOTE.findall(TABLES[page]):
            quoted.setdefault(int(number), []).extend(
                squeeze(quote) for quote in re.findall(r"`([^`]+)`", quotes)
            )
        missing = [
            (number, condition)
            for number, conditions in CHECKS.get(page, {}).items()
            for condition in conditions
            if not any(quote in condition for quote in quoted.get(number, []))
        ]
        assert not missing
