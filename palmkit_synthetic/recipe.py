"""A digest of all that decides what a clip is: the code, the domain, and the sources' versions."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
from collections.abc import Iterable, Iterator
from pathlib import Path

from palmkit_synthetic.domain import Domain

FOLDER = Path(__file__).parent
# Packages whose version may change a clip.
SOURCES = ("numpy", "scipy", "pretty_midi", "espeakng-loader")
# Files that decide what a clip is, beside those in sounds/. Of domain.py the domain's values count.
CODE = (
    *("clips.py", "concepts.py", "draw.py", "dsp.py", "espeak_server.py", "finish.py", "music.py"),
    *("scenes.py", "sentences.py", "soundfont.py", "speech.py"),
)


def recipe(domain: Domain, more: Iterable[Path] = ()) -> str:
    """A digest of the generators' definitions, the domain and the versions of SOURCES.

    more: further source files whose definitions count. Neither comments and docstrings, nor the
    file that a definition is in, nor imports of the project's own modules, nor the version of
    Python change the digest. Raises ModuleNotFoundError if a source is not installed.
    """
    paths = [FOLDER / name for name in CODE] + [*(FOLDER / "sounds").glob("*.py"), *more]
    texts = sorted(text for path in paths for text in definitions(path))
    sha = hashlib.sha256("\n".join(texts).encode())
    sha.update(repr((domain, [_version(name) for name in SOURCES])).encode())
    return sha.hexdigest()[:16]


def definitions(path: Path) -> Iterator[str]:
    """Each top-level statement of a source file as one text."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not _is_ignored(node):
            yield _text(node)


def _is_ignored(node) -> bool:
    """Whether a statement is a docstring, or an import of the project's own modules."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] in ("palmkit", "palmkit_synthetic", "__future__")
    return False


def _text(node) -> str:
    """A syntax tree as text. Empty fields are left out: which there are depends on Python."""
    if isinstance(node, list):
        return f"[{', '.join(_text(entry) for entry in node if not _is_ignored(entry))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
    return f"{type(node).__name__}({', '.join(f'{name}={_text(value)}' for name, value in fields)})"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        message = f'{package} is not installed. Install it by: pip install "palmkit[synthetic]"'
        raise ModuleNotFoundError(message, name=package) from error
