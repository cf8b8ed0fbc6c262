"""What the check of a model found, and how it is shown."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

import pandas as pd

# Only "wrong" makes a model unfit. A remark is worth a look, and may be meant so.
STATES = ("ok", "remark", "wrong", "not tested")
WIDTH = 100  # of the table on a terminal
COLUMNS = ["check", "state", "what", "effect", "advice"]


@dataclass(frozen=True)
class Verdict:
    """What one check says. state: one of STATES. what: with the measured figure.

    effect: what it does to results. advice: what to do. Both are "" unless something is wrong.
    """

    state: str
    what: str
    effect: str = ""
    advice: str = ""


def ok(what: str) -> Verdict:
    return Verdict("ok", what)


def remark(what: str, effect: str = "", advice: str = "") -> Verdict:
    return Verdict("remark", what, effect, advice)


def wrong(what: str, effect: str, advice: str) -> Verdict:
    return Verdict("wrong", what, effect, advice)


def tiny(value: float) -> str:
    """A distance or an error in one digit: "2e-07", "0"."""
    return f"{value:.0e}" if value else "0"


def not_tested(what: str) -> Verdict:
    return Verdict("not tested", what)


@dataclass(frozen=True)
class Finding(Verdict):
    """A verdict with the name of its check."""

    check: str = ""

    @property
    def words(self) -> str:
        """All that it says, in one text."""
        return " ".join(part for part in (self.what, self.effect, self.advice) if part)


@dataclass(frozen=True)
class EncoderReport:
    """What `check_encoder` found. `.ok`: no finding is wrong. `print(report)` shows the table.

    title: the model in a line. findings: one for each check, in the order of the checks. facts:
    licence, revision and training data, as `palmkit.models.about.describe` says them.
    """

    title: str
    findings: tuple[Finding, ...]
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.select("wrong")

    def select(self, state: str) -> list[Finding]:
        """The findings in one of STATES."""
        return [one for one in self.findings if one.state == state]

    def __getitem__(self, check: str) -> Finding:
        """The finding of the check of this name. Raises KeyError."""
        for one in self.findings:
            if one.check == check:
                return one
        raise KeyError(check)

    def table(self) -> pd.DataFrame:
        """check, state, what, effect, advice: a row for each check."""
        rows = [[getattr(one, column) for column in COLUMNS] for one in self.findings]
        return pd.DataFrame(rows, columns=COLUMNS)

    def __str__(self) -> str:
        return format_report(self)


def format_report(report: EncoderReport, width: int = WIDTH) -> str:
    """The findings as a table for a terminal, and how many there are of each state."""
    names = max(len(one.check) for one in report.findings)
    states = max(map(len, STATES))
    facts = [f"{name}: {text}" for name, text in report.facts.items()]
    lines = [report.title, *facts, ""]
    tested = [one for one in report.findings if one.state != "not tested"]
    for one in tested:
        start = f"{one.check:<{names}}  {one.state:<{states}}  "
        lines += _indent(one.what, start, width)
        for label, text in (("Effect: ", one.effect), ("To do: ", one.advice)):
            if text:
                lines += _indent(label + text, " " * len(start), width)
    lines += _list_not_tested(report, width)
    counts = {state: len(report.select(state)) for state in STATES}
    total = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    verdict = "Nothing is wrong." if report.ok else "This model is not right yet."
    return "\n".join([*lines, "", f"{len(report.findings)} checks: {total}. {verdict}"])


def _list_not_tested(report: EncoderReport, width: int) -> list[str]:
    """Checks that were not made, a line for each reason."""
    reasons: dict[str, list[str]] = {}
    for one in report.select("not tested"):
        reasons.setdefault(one.what, []).append(one.check)
    lines = [""] if reasons else []
    for reason, checks in reasons.items():
        lines += _indent(f"{reason} Not tested: {', '.join(checks)}.", "", width)
    return lines


def _indent(text: str, start: str, width: int) -> list[str]:
    """Lines of at most `width` characters; those after the first are indented."""
    lines: list[str] = []
    for line in text.split("\n"):  # a traceback has lines of its own
        lines += textwrap.wrap(line, width - len(start), break_on_hyphens=False) or [""]
    margin = " " * len(start)
    return [f"{margin if n else start}{line}".rstrip() for n, line in enumerate(lines)]
