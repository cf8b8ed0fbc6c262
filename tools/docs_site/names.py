"""The public names of the package: what it exports, and what its pages import."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import nbformat

ROOT = Path(__file__).resolve().parents[2]
# {package: title of its page}, in the order of the site.
PACKAGES = {
    "palmkit": "The kit: palmkit",
    "palmkit.methods": "Methods",
    "palmkit.models": "Models",
    "palmkit.datasets": "Datasets",
    "palmkit.experiments": "Experiments",
    "palmkit.results": "Results and statistics",
    "palmkit.protocols": "Protocols of the published code",
    "palmkit.encoder_check": "The check of a model",
    "palmkit.published": "Published numbers",
    "palmkit.widgets": "The explorer",
    "palmkit_synthetic": "Generated datasets",
}
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def read_code() -> list[str]:
    """The Python code of the README, of docs/ and of the notebooks, cell by cell."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    code = [block for page in pages for block in PYTHON_BLOCK.findall(page.read_text())]
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            book = nbformat.read(path, as_version=4)
            code += [cell.source for cell in book.cells if cell.cell_type == "code"]
    return code


def imported_names(code: list[str]) -> set[tuple[str, str]]:
    """(module, name) of every `from palmkit... import name`."""
    found = set()
    for block in code:
        try:
            tree = ast.parse(block)
        except SyntaxError:  # a cell with a magic command
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("palmkit"):
                found |= {(node.module, alias.name) for alias in node.names}
    return found


def members(module: ModuleType) -> list[str]:
    """What a module exports: its `__all__`, else the functions and classes that it defines."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    mine = [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")
    ]
    return [name for name in mine if is_documented(getattr(module, name))]


def is_documented(thing) -> bool:
    return inspect.isclass(thing) or inspect.isfunction(thing)


def package_of(module: str) -> str:
    """The longest entry of PACKAGES that is the module or holds it."""
    holding = [name for name in PACKAGES if module == name or module.startswith(f"{name}.")]
    return max(holding, key=len)


def page_of(path: str, thing) -> str:
    """The page of a name. One of a module beside the packages (`palmkit.audio`) is the kit's."""
    return "palmkit" if path.startswith("palmkit.") and path.count(".") == 1 else package_of(path)


def public_names() -> dict[str, list[str]]:
    """{package: import paths of its functions and classes}, each object once, on one page.

    A name that `palmkit` itself exports is on its page; others on the page of their package.
    """
    wanted = [(package, name) for package in PACKAGES for name in members(load(package))]
    wanted += sorted(imported_names(read_code()))
    paths: dict[int, str] = {}
    for module, name in wanted:
        thing = getattr(load(module), name, None) or load(f"{module}.{name}")
        if inspect.ismodule(thing):
            inside = [(f"{thing.__name__}.{one}", getattr(thing, one)) for one in members(thing)]
        else:
            inside = [(f"{module}.{name}", thing)]
        for path, one in inside:
            if is_documented(one) and one.__module__.startswith("palmkit"):
                paths.setdefault(id(one), path)
    for cls in load("palmkit.methods").METHODS.values():
        paths.setdefault(id(cls), f"{cls.__module__}.{cls.__name__}")
    pages = defaultdict(list)
    for path in paths.values():
        pages[page_of(path, None)].append(path)
    return {package: pages[package] for package in PACKAGES if pages[package]}


def load(module: str) -> ModuleType:
    return importlib.import_module(module)
