"""Find the file that a table means: absolute paths, Windows separators, forms of Unicode."""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path


def find_clip(root: Path, text: str) -> str | None:
    """The path below `root` of the file that a table's cell names; None if there is no such file.

    A cell that names a file as it is comes back unchanged. Else these are tried: an absolute path
    inside of `root`; the end of an absolute path that has a folder named as `root`, which was
    moved; `\\` as separator; the same name in another form of Unicode (é as one character or two).
    """
    for clip in _spellings(root, text):
        if _leaves(clip):
            continue
        if _is_file(root / clip):
            return clip
        if found := _find_other_form(root, clip):
            return found
    return None


def leaves_folder(root: Path, text: str) -> bool:
    """Whether no reading of a cell is a path inside of `root`."""
    return all(_leaves(clip) for clip in _spellings(root, text))


def _spellings(root: Path, text: str) -> Iterator[str]:
    yield text
    yield from _below(root, text)
    if "\\" in text:
        plain = text.replace("\\", "/")
        yield plain
        yield from _below(root, re.sub("^[A-Za-z]:", "", plain))


def _below(root: Path, text: str) -> Iterator[str]:
    """What follows the folder in an absolute path."""
    if not os.path.isabs(text):
        return
    plain = os.path.normpath(text)
    for folder in (os.path.abspath(root), os.path.realpath(root)):
        if plain.startswith(folder.rstrip(os.sep) + os.sep):
            yield os.path.relpath(plain, folder)
    before, inside, after = plain.rpartition(f"/{os.path.basename(os.path.abspath(root))}/")
    if inside:
        yield after


def _leaves(clip: str) -> bool:
    """Whether a path is not a relative one that stays below its folder."""
    return os.path.isabs(clip) or os.path.normpath(clip).split(os.sep)[0] == ".."


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, for example
        return False


def _find_other_form(root: Path, clip: str) -> str | None:
    """A file whose path differs in its form of Unicode only."""
    if clip.isascii():
        return None
    found = ""
    for part in os.path.normpath(clip).split(os.sep):
        folder = root / found
        try:
            if not (folder / part).exists():
                names = _names_by_form(str(folder), os.stat(folder).st_mtime_ns)
                part = names.get(unicodedata.normalize("NFC", part))
        except (OSError, ValueError):
            return None
        if part is None:
            return None
        found = os.path.join(found, part)
    return found if _is_file(root / found) else None


@functools.lru_cache(maxsize=64)
def _names_by_form(folder: str, _mtime: int) -> dict[str, str]:
    """The names in a folder by their NFC form."""
    return {unicodedata.normalize("NFC", name): name for name in sorted(os.listdir(folder))}
