"""The findings of a page: sentences, each with the condition that makes it true."""

from __future__ import annotations

import pandas as pd

OTHER_RUN = (
    "*These sentences were written for the default run. This run has other parameters; "
    "a sentence that is not true of it says so.*"
)
NOT_HERE = "**Not in this run:** "


class Findings:
    """Sentences with their conditions, shown as a list and checked together.

        found = Findings(default_run=True)
        found.add(f"PALM gains {gain:.1f} points.", gain > 0)
        found          # the last line of a cell: the list, as Markdown
        found.check()  # raises AssertionError and names what does not hold

    default_run: whether the parameters are those that the sentences were written for. If they are
    not, the list says so, marks each sentence that does not hold, and `check` accepts it.
    """

    def __init__(self, default_run: bool = True):
        self.default_run = default_run
        self.sentences: list[tuple[str, bool, str]] = []

    def add(self, sentence: str, holds, part: str = "Found") -> None:
        """Add a sentence. holds: what it claims; NaN and NA count as false. part: its heading."""
        self.sentences.append((sentence, not pd.isna(holds) and bool(holds), part))

    def check(self) -> None:
        """Raise AssertionError for sentences of the default run that do not hold."""
        wrong = [sentence for sentence, holds, _ in self.sentences if not holds]
        if self.default_run and wrong:
            raise AssertionError("not true: " + " | ".join(wrong))

    def markdown(self) -> str:
        """The list, under the headings of its parts."""
        lines = [] if self.default_run else [OTHER_RUN, ""]
        for part in dict.fromkeys(part for *_, part in self.sentences):
            lines += [f"**{part}**", ""]
            for sentence, holds, own in self.sentences:
                if own == part:
                    lines.append(f"- {'' if holds else NOT_HERE}{sentence}")
            lines.append("")
        return "\n".join(lines).strip()

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def __repr__(self) -> str:
        return f"{len(self.sentences)} findings"
