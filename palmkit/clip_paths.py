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
    inside of `root`, through links too; the end of an absolute path that has a folder named as
    `root`, which was moved; `\\` as separator; the same name in another form of Unicode (é as one
    character or two); the cell without spaces around it.
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
    spelt = [clip for clip in _spellings(root, text) if "\\" not in clip]
    return all(map(_leaves, spelt or [text]))


def _spellings(root: Path, text: str) -> Iterator[str]:
    yield from _spellings_of(root, text)
    if text.strip() != text:
        yield from _spellings_of(root, text.strip())


def _spellings_of(root: Path, text: str) -> Iterator[str]:
    yield text
    yield from _below(root, text)
    plain = text.replace("\\", "/")
    local = re.sub("^[A-Za-z]:/", "/", plain)  # Windows' paths start with the name of a disk
    if plain != text:
        yield plain
    if local != text:
        yield from _below(root, local)


def _below(root: Path, text: str) -> Iterator[str]:
    """What follows the folder in an absolute path."""
    if not os.path.isabs(text):
        return
    plain = unicodedata.normalize("NFC", os.path.normpath(text))
    # A file may be a link to another place, but its folder is where it is.
    linked = os.path.join(_real_folder(os.path.dirname(text)), os.path.basename(text))
    for path in (os.path.normpath(text), plain, linked):
        for folder in (os.path.abspath(root), os.path.realpath(root)):
            for spelt in (folder, unicodedata.normalize("NFC", folder)):
                if path.startswith(spelt.rstrip(os.sep) + os.sep):
                    yield os.path.relpath(path, spelt)
    name = unicodedata.normalize("NFC", os.path.basename(os.path.abspath(root)))
    before, inside, after = plain.rpartition(f"/{name}/")
    if inside:
        yield after


@functools.lru_cache(maxsize=1024)
def _real_folder(folder: str) -> str:
    try:
        return os.path.realpath(folder)
    except (OSError, ValueError):  # a NUL in the path
        return folder


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
