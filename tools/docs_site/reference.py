"""Pages of the reference: the public names by package, the methods as a table, the command line."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

from docs_site.docstrings import convert
from docs_site.names import PACKAGES, public_names

COMMANDS = re.compile(r"^    ([a-z][a-z-]*)(?: \(\w+\))?(?: |$)", re.MULTILINE)
INTRODUCTION = """\
The names that palmkit, its packages and its pages use. `[n, dim]` in a description is a shape. What
is not here may change in any release.
"""
KIT = (
    "What `from palmkit import ...` brings, and what pages import from modules beside the packages."
)


def heading(title: str, line: str = "=") -> list[str]:
    return [title, line * len(title), ""]


def describe(path: str) -> list[str]:
    """The directive of Sphinx for a class or a function."""
    module, _, name = path.rpartition(".")
    thing = getattr(importlib.import_module(module), name)
    if not inspect.isclass(thing):
        return [f".. autofunction:: {path}", ""]
    kind = "autoexception" if issubclass(thing, Exception) else "autoclass"
    return [f".. {kind}:: {path}", "   :members:", ""]


def sort_key(path: str) -> tuple[int, str, str]:
    """What a package exports itself comes before what stands in its modules."""
    module, _, name = path.rpartition(".")
    return (module not in PACKAGES, module, name.lower())


def package_page(package: str, title: str, paths: list[str]) -> str:
    """All names of a package, in reStructuredText."""
    module = importlib.import_module(package)
    about = (KIT if package == "palmkit" else module.__doc__ or "").splitlines()
    lines = [*heading(title), *convert(about)]
    if package == "palmkit.methods":
        lines += method_table()
    for path in sorted(paths, key=sort_key):
        lines += describe(path)
    return "\n".join(lines)


def method_table() -> list[str]:
    """All methods: their name on the command line, in tables, and their class."""
    methods = importlib.import_module("palmkit.methods").METHODS
    paths = {path.rpartition(".")[2]: path for names in public_names().values() for path in names}
    rows = [".. list-table::", "   :header-rows: 1", "", "   * - ``--method``", "     - in tables",
            "     - class"]  # fmt: skip
    for name, cls in methods.items():
        rows += [f"   * - ``{name}``", f"     - {cls.label}",
                 f"     - :class:`{cls.__name__} <{paths[cls.__name__]}>`"]  # fmt: skip
    return [*rows, ""]


def ask_help(*arguments: str) -> str:
    """The help of a command, as a terminal of 90 columns shows it."""
    environment = os.environ | {"COLUMNS": "90", "PYTHON_COLORS": "0", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "palmkit", *arguments, "--help"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


def command_page() -> str:
    """The help of every command of the console script."""
    overview = ask_help()
    lines = [*heading("Command line"), ".. code-block:: none", "",
             *(f"   {line}" for line in overview.splitlines()), ""]  # fmt: skip
    for command in COMMANDS.findall(overview):
        text = ask_help(command)
        lines += [*heading(f"palmkit {command}", "-"), ".. code-block:: none", "",
                  *(f"   {line}" for line in text.splitlines()), ""]  # fmt: skip
    return "\n".join(lines)


def write_reference(folder: Path) -> None:
    """Write reference/index and a page for each package, and the command line's."""
    folder.mkdir(parents=True)
    names = public_names()
    pages = ["command-line"]
    (folder / "command-line.rst").write_text(command_page())
    for package, paths in names.items():
        page = package.removeprefix("palmkit.").replace("_", "-")
        (folder / f"{page}.rst").write_text(package_page(package, PACKAGES[package], paths))
        pages.append(page)
    body = [*heading("Reference"), *convert(INTRODUCTION.splitlines()), ".. toctree::",
            "   :maxdepth: 1", "", *(f"   {page}" for page in [*pages[1:], pages[0]])]  # fmt: skip
    (folder / "index.rst").write_text("\n".join(body) + "\n")
