"""Tables as Markdown, LaTeX and CSV, and how many digits a score is shown with."""

from __future__ import annotations

import csv
import re
from numbers import Integral

import pandas as pd

# The rule for digits in tables, notebooks and reports: scores (shares: 0.84) and their differences
# have two, p-values three, counts are integers. Published numbers keep the digits of their source,
# and files of numbers keep all digits.
DIGITS = 2
P_DIGITS = 3
NOTHING = "–"  # stands for a number that is not there

LATEX_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "±": r"$\pm$",
        "–": "--",
        "†": r"$^\dagger$",
    }
)
# A backslash before punctuation, a bar, a tag, emphasis, code, a link, a strike; an entity; a line
# below a word. What Markdown shows as it is stays as it is, so that a terminal shows it so too.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
SURROGATES = re.compile(r"[\ud800-\udfff]")  # of file names that are no Unicode
MARKUP = re.compile(r"\\(?=[!-/:-@\[-`{-~])|[|<*`\[\]~]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")


def format_score(value, digits: int = DIGITS) -> str:
    """0.8449 -> "0.84"; NOTHING for a missing value."""
    return NOTHING if pd.isna(value) else f"{value:.{digits}f}"


def format_difference(value, digits: int = DIGITS) -> str:
    """0.0449 -> "+0.04"; of two counts, "+3". Never "-0.00"; NOTHING for a missing value."""
    if pd.isna(value):
        return NOTHING
    if isinstance(value, Integral):
        return f"{value:+d}"
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def format_interval(low, high, digits: int = DIGITS) -> str:
    """The limits of an interval, "0.71 to 0.84"; NOTHING where there is no interval."""
    limits = [format_score(value, digits) for value in (low, high)]
    return NOTHING if NOTHING in limits else " to ".join(limits)


def format_p(p) -> str:
    """A p-value: "0.012", or "<0.001"; NOTHING for a missing one."""
    if pd.isna(p):
        return NOTHING
    least = 10**-P_DIGITS
    return f"<{least}" if p < least else f"{p:.{P_DIGITS}f}"


def format_frame(frame: pd.DataFrame, digits: int = DIGITS) -> pd.DataFrame:
    """A table as text, by the rule for digits: p-values are in columns p and p_...."""

    def as_text(column: pd.Series):
        if column.name == "p" or str(column.name).startswith("p_"):
            return column.map(format_p)
        if pd.api.types.is_float_dtype(column):
            return column.map(lambda value: format_score(value, digits))
        return column.astype(object).where(column.notna(), NOTHING)

    return frame.apply(as_text)


def format_spread(std, n: int, digits: int = DIGITS) -> str:
    """The standard deviation over n seeds, "± 0.02"; "" where there is none."""
    return f"± {std:.{digits}f}" if n > 1 else ""


def to_markdown(table: pd.DataFrame, markup: bool = False) -> str:
    """A table of GitHub's Markdown. Line breaks become spaces.

    Cells are text: what Markdown would read as markup is escaped. markup: cells are Markdown, so
    only bars are escaped.
    """
    # pandas' own to_markdown needs one more package (tabulate) and escapes nothing.
    head = [table.index.name or "", *table.columns]
    lines = [_markdown_line(head, markup), _markdown_line(["---"] * len(head), True)]
    for index, values in zip(table.index, table.to_numpy(), strict=True):
        lines.append(_markdown_line([index, *values], markup))
    return "\n".join(lines)


def _markdown_line(values, markup: bool) -> str:
    special = "[|]" if markup else MARKUP
    cells = (re.sub(special, r"\\\g<0>", one_line(value)) for value in values)
    return f"| {' | '.join(cells)} |"


def to_latex(table: pd.DataFrame, caption: str = "", label: str = "") -> str:
    """A tabular with booktabs' rules. All that LaTeX would read as a command is escaped.

    caption, label: with a caption the tabular stands in a `table` that can be referred to.
    """
    # pandas needs one more package (Jinja), leaves < and |, and formats a label that has braces.
    lines = [[table.index.name or "", *table.columns]]
    lines += [[index, *line] for index, line in zip(table.index, table.to_numpy(), strict=True)]
    head, *body = (" & ".join(map(escape_latex, line)) + r" \\" for line in lines)
    text = [rf"\begin{{tabular}}{{l{'c' * len(table.columns)}}}", r"\toprule", head, r"\midrule"]
    text += [*body, r"\bottomrule", r"\end{tabular}"]
    if caption:
        above = [r"\begin{table}[t]", r"\centering", rf"\caption{{{escape_latex(caption)}}}"]
        text = [*above, rf"\label{{{label}}}", *text, r"\end{table}"]
    return "\n".join(text) + "\n"


def escape_latex(text) -> str:
    """Text for LaTeX, in one line."""
    return one_line(text).translate(LATEX_ESCAPES)


def to_csv(table: pd.DataFrame) -> str:
    """Numbers with all their digits; a line ends with a line feed."""
    text = table.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # a name with a carriage return, which Python quotes only if all texts are
        text = table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return text


def one_line(value) -> str:
    """The text of a value in one line: control characters and line breaks become spaces."""
    return SURROGATES.sub("\N{REPLACEMENT CHARACTER}", CONTROL.sub(" ", str(value)))
