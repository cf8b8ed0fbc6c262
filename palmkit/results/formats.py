"""Tables of text as Markdown, LaTeX and CSV."""

from __future__ import annotations

import pandas as pd

LATEX_SIGNS = {"±": r"$\pm$", "–": "--", "†": r"$^\dagger$"}


def to_markdown(table: pd.DataFrame) -> str:
    """A table of GitHub's Markdown. Bars in cells are escaped, line breaks become spaces."""
    head = [table.index.name or "", *table.columns]
    lines = [head, ["---"] * len(head)]
    for index, values in zip(table.index, table.to_numpy(), strict=True):
        lines.append([index, *values])
    return "\n".join(map(_markdown_line, lines))


def _markdown_line(values) -> str:
    cells = map(_markdown_cell, values)
    return f"| {' | '.join(cells)} |"


def _markdown_cell(value) -> str:
    return one_line(value).replace("|", r"\|")


def to_latex(table: pd.DataFrame) -> str:
    """A tabular with booktabs' rules; what LaTeX would read as a command is escaped."""
    named = table.rename_axis(index=table.index.name or "")
    cells = named.reset_index().astype(str).map(one_line)
    cells.columns = [one_line(name) for name in cells.columns]
    form = "l" + "c" * len(table.columns)
    text = cells.to_latex(index=False, escape=True, column_format=form)
    for sign, command in LATEX_SIGNS.items():
        text = text.replace(sign, command)
    return text


def to_csv(table: pd.DataFrame) -> str:
    return table.to_csv()


def one_line(value) -> str:
    return " ".join(str(value).splitlines())


# pandas' own to_markdown needs one more package (tabulate) and does not escape bars.
FORMATS = {"markdown": to_markdown, "latex": to_latex, "csv": to_csv}
