"""Packages that only a part of the kit needs: the extras of pyproject.toml."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around imports of optional packages: a missing one becomes a sentence that names the extra.

    name: an extra of pyproject.toml, such as "fetch". Raises ModuleNotFoundError, as the import does.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        message = f'{error.name} is not installed. Install it by: pip install "palmkit[{name}]"'
        raise ModuleNotFoundError(message, name=error.name, path=error.path) from error
