"""The docstrings of the package for Sphinx: plain text becomes reStructuredText.

They are written to be read in an editor. `names` of options stand at the start of a line, formulas
are indented, and no letter has a meaning of its own.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap

# `init: where z starts`, `beta, lam: None is ...`: options, and what they are.
WORD = r"`?[a-z_]\w*(?:\.\w+)*`?"
TERM = re.compile(rf"(?P<name>{WORD}(?:, (?:\.\.\.|{WORD}))*):(?: (?P<words>.*))?$", re.DOTALL)
NEXT = re.compile(rf"(?<=[.;]) (?={WORD}(?:, {WORD})*: )")  # a further option in the same line
CODE = re.compile(r"(`[^`]+`)")
# The one of torch.nn.Module says nothing about a method of palmkit.
FOREIGN = "Initialize internal Module state"


def escape(text: str) -> str:
    """A line of plain text in reStructuredText. What stands in backticks is code."""
    parts = CODE.split(text)
    parts[::2] = [re.sub(r"([\\*|_`])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"\\ `{part}`\\ " for part in parts[1::2]]  # ``code``, apart from letters
    return "".join(parts)


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())


def split_paragraphs(lines: list[str]) -> list[list[str]]:
    """Groups of lines between blank lines, and of lines of a formula."""
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            paragraphs[-1].append(line)
        elif paragraphs[-1]:
            paragraphs.append([])
    return [paragraph for paragraph in paragraphs if paragraph]


def join_lines(lines: list[str]) -> list[str]:
    """Lines of one paragraph as items: running text, bullets, and options with what they are.

    An option's further lines are indented, or go on with a sentence. Options may also be indented
    below a line that ends with a colon.
    """
    items: list[str] = []
    for line in lines:
        words = line.strip()
        last = items[-1][-1] if items else "."
        starts = words.startswith("- ") or (last in ".;:)" and TERM.match(words))
        inside = bool(items) and (items[-1].startswith("- ") or TERM.match(items[-1]))
        leaves = inside and last in ".;" and indent_of(line) == 0
        if not items or leaves or (starts and (indent_of(line) == 0 or last in ":;")):
            items.append(words)
        else:
            items[-1] += f" {words}"
    return items


def convert_text(lines: list[str]) -> list[str]:
    """Lines of one paragraph: running text, and one bullet for each option that they name."""
    result: list[str] = []
    for item in join_lines(lines):
        parts = NEXT.split(item) if TERM.match(item) else [item]
        for part in parts:
            term = TERM.match(part)
            if term:
                name = term["name"].replace("`", "")
                part = f"- **{escape(name)}**: {escape(term['words'] or '')}"
            elif part.startswith("- "):
                part = f"- {escape(part[2:])}"
            else:
                part = escape(part)
            result += [part, ""]
    return result


def convert(lines: list[str]) -> list[str]:
    """The lines of a docstring as reStructuredText."""
    lines = textwrap.dedent("\n".join(lines)).splitlines()
    result: list[str] = []
    for paragraph in split_paragraphs(lines):
        if min(map(indent_of, paragraph)) >= 2:  # a formula or an example
            body = textwrap.dedent("\n".join(paragraph)).splitlines()
            result += [".. code-block:: none", "", *(f"   {line}" for line in body), ""]
        else:
            result += convert_text(paragraph)
    return result


def read_comments(source: str) -> dict[str, tuple[str, str]]:
    """{attribute: (type, comment)} of a class: those with a type or a comment, as it has them.

    A comment stands behind the attribute, or in the lines above it.
    """
    source = textwrap.dedent(source)
    lines, found = source.splitlines(), {}
    body = ast.parse(source).body[0].body
    for node in body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if not isinstance(target, ast.Name) or target.id.startswith("_"):
            continue
        kind = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
        behind = lines[node.end_lineno - 1][node.end_col_offset :].strip()
        above: list[str] = []
        for line in reversed(lines[: node.lineno - 1]):
            if not line.strip().startswith("#"):
                break
            above.insert(0, line.strip().removeprefix("#").strip())
        comment = " ".join([*above, behind.removeprefix("#").strip()]).strip()
        if kind or comment:
            found[target.id] = (kind, comment)
    return found


def list_attributes(cls: type) -> list[str]:
    """The attributes of a class with their comments, which have units and shapes.

    Those of a protocol all; of other classes those with a comment.
    """
    try:
        comments = read_comments(inspect.getsource(cls))
    except (OSError, TypeError, SyntaxError):
        return []
    every = getattr(cls, "_is_protocol", False)
    lines = []
    for name, (kind, comment) in comments.items():
        if comment or every:
            shown = f" (``{kind}``)" if kind else ""
            lines.append(
                f"- **{escape(name)}**{shown}" + (f": {escape(comment)}" if comment else "")
            )
    return ["", "Attributes:", "", *lines, ""] if lines else []


def process(app, what, name, thing, options, lines: list[str]) -> None:
    """The handler of `autodoc-process-docstring`: changes `lines` in place.

    Of a class it is called for its docstring and for that of `__init__`.
    """
    text = "\n".join(lines).partition(FOREIGN)[0].strip()
    lines[:] = convert(text.splitlines())
    own = what == "class" and text == (inspect.getdoc(thing) or "").strip()
    if own and thing.__module__.startswith("palmkit"):
        lines += list_attributes(thing)


def setup(app) -> dict:
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True}
