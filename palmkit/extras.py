"""Packages that only a part of the kit needs: the extras of pyproject.toml."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Put it around imports of optional packages. The error then names the extra to install.

    name: an extra of pyproject.toml, such as "fetch". Raises ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        message = f'{error.name} is not installed. Install it by: pip install "palmkit[{name}]"'
        raise ModuleNotFoundError(message, name=error.name, path=error.path) from error
