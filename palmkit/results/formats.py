"""Tables of text as Markdown, LaTeX and CSV."""

from __future__ import annotations

import pandas as pd

LATEX_SIGNS = {"±": r"$\pm$", "–": "--", "†": r"$^\dagger$"}


def to_markdown(table: pd.DataFrame) -> str:
    """A table of GitHub's Markdown. Bars in cells are escaped, line breaks become spaces."""
    lines = [[table.index.name or "", *table.columns], ["---"] * (1 + len(table.columns))]
    lines += [[index, *values] for index, values in zip(table.index, table.to_numpy(), strict=True)]
    return "\n".join(f"| {' | '.join(map(_markdown_cell, line))} |" for line in lines)


def _markdown_cell(value) -> str:
    return one_line(value).replace("|", r"\|")


def to_latex(table: pd.DataFrame) -> str:
    """A tabular with booktabs' rules; what LaTeX would read as a command is escaped."""
    cells = table.rename_axis(index=table.index.name or "").reset_index().astype(str)
    cells.columns = [one_line(name) for name in cells.columns]
    form = "l" + "c" * len(table.columns)
    text = cells.map(one_line).to_latex(index=False, escape=True, column_format=form)
    for sign, command in LATEX_SIGNS.items():
        text = text.replace(sign, command)
    return text


def to_csv(table: pd.DataFrame) -> str:
    return table.to_csv()


def one_line(value) -> str:
    return " ".join(str(value).splitlines())


# pandas' own to_markdown needs one more package (tabulate) and does not escape bars.
FORMATS = {"markdown": to_markdown, "latex": to_latex, "csv": to_csv}
