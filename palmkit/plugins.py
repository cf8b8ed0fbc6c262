"""Methods and models from outside of the package: Python files that a user names, and entry points.

The environment variable PALMKIT_IMPORT has the files' paths, joined by `os.pathsep`. So worker
processes and notebook kernels find them too.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
import warnings
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

VARIABLE = "PALMKIT_IMPORT"


class PluginError(ValueError):
    """A file or an entry point that cannot be used; the message names it and says why."""


def listed_files() -> list[Path]:
    """The files that PALMKIT_IMPORT names."""
    return [Path(path) for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path]


class PluginFinder:
    """Finds the module `palmkit.plugins.my_method` in the listed file `my_method.py`.

    A worker process only has the variable. With this finder it can unpickle the file's classes.
    """

    @staticmethod
    def find_spec(name, path=None, target=None):
        for file in listed_files():
            if name == f"{__name__}.{file.stem}":
                return importlib.util.spec_from_file_location(name, file)
        return None


__path__: list[str] = []  # makes this module a package, whose modules the finder finds
sys.meta_path.append(PluginFinder)


def load_plugins(paths) -> list[ModuleType]:
    """Import Python files, each once, and remember them for this process and its children.

    Raises PluginError, which names the file, for one that is missing or cannot be imported.
    """
    before = os.environ.get(VARIABLE, "")
    files = [Path(path).expanduser().absolute() for path in paths]
    known = dict.fromkeys(str(file) for file in [*listed_files(), *files])
    os.environ[VARIABLE] = os.pathsep.join(known)
    try:
        return [_import_file(file) for file in files]
    except PluginError:
        os.environ[VARIABLE] = before
        raise


def plugin_modules() -> list[ModuleType]:
    """The modules of the files that PALMKIT_IMPORT names, in order."""
    return [_import_file(file) for file in listed_files()]


def _import_file(file: Path) -> ModuleType:
    if file.suffix != ".py" or not file.stem.isidentifier() or os.pathsep in str(file):
        raise PluginError(
            f"{file} must be a Python file whose name is an identifier, such as my_method.py"
        )
    if not file.is_file():
        raise PluginError(f"there is no file {file} to import")
    try:
        module = importlib.import_module(f"{__name__}.{file.stem}")
    except Exception as error:  # whatever a user's file raises
        raise PluginError(f"{file} cannot be imported: {_describe(error, file)}") from error
    if not file.samefile(module.__file__):
        raise PluginError(f"{file} has the same name as {module.__file__}: rename one of them")
    return module


def _describe(error: Exception, file: Path) -> str:
    """The error in one line, with the line of the file where it was raised."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(file)
    ]
    in_syntax = isinstance(error, SyntaxError) and error.filename == str(file)
    line = error.lineno if in_syntax else (lines or [None])[-1]
    reason = error.msg if isinstance(error, SyntaxError) else str(error)
    where = "" if line is None else f" (line {line})"
    return f"{type(error).__name__}: {' '.join(reason.split())}{where}"


def has_plugins(group: str) -> bool:
    """Whether there are listed files, or entry points of this group. Imports none of them."""
    return bool(listed_files()) or bool(find_entry_points(group, tuple(sys.path)))


@functools.cache
def find_entry_points(group: str, path: tuple[str, ...]) -> tuple:
    """The entry points of a group. They are read once for a search path: it takes 10 ms, and every
    label in a table asks for them.
    """
    return tuple(entry_points(group=group))


def explain(error: BaseException) -> str | None:
    """An error of code from outside in one line, with its file and line; None for another error.

    An error that palmkit itself raises is another one, whoever called it.
    """
    frames = traceback.extract_tb(error.__traceback__)
    inside = str(Path(__file__).parent)
    if not frames or frames[-1].filename.startswith(inside + os.sep):
        return None
    files = {str(file) for file in listed_files()} | _entry_point_files
    outside = [frame for frame in frames if frame.filename in files]
    if not outside:
        return None
    return f"{outside[-1].filename} failed: {_describe(error, Path(outside[-1].filename))}"


_entry_point_files: set[str] = set()  # of the entry points that were loaded


def load_entry_points(group: str) -> dict[str, object]:
    """{name: object} of an entry-point group; a broken entry point gives a warning."""
    found = {}
    for point in find_entry_points(group, tuple(sys.path)):
        try:
            found[point.name] = point.load()
            module = sys.modules[point.module]
            _entry_point_files.add(str(getattr(module, "__file__", "")))
        except Exception as error:  # whatever another package raises
            warnings.warn(
                f"the entry point {point.value} of {group} is broken: {error}", stacklevel=2
            )
    return found


def plugin_digest(cls: type) -> str:
    """sha256 of the source file of a class from outside of the package; "" for one inside."""
    package, _, rest = cls.__module__.partition(".")
    if package == "palmkit" and not rest.startswith("plugins."):
        return ""
    try:
        return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
    except (OSError, TypeError) as error:
        raise PluginError(f"{cls.__name__} is not defined in a file: move it to one") from error
