"""Names: what to say of one that nobody knows, and one spelling for names that look the same."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable


def unknown_name(kind: str, name, known) -> str:
    """The message about a name that is not among the known ones, with the closest of them."""
    known = [str(one) for one in known]
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"there is no {kind} {name!r}; there are {', '.join(known)}{hint}"


def unknown_method(name, known) -> str:
    """The message about a method that is not known: it may be the user's own."""
    return f"{unknown_name('method', name, known)}; one of your own: --import FILE"


def one_spelling(names: Iterable[str]) -> dict[str, str]:
    """{name: its spelling}: the composed form (NFC) for names that are equal in it, else the name.

    "café" is written with four characters or with five, and looks the same.
    """
    names = set(names)
    composed = {name: unicodedata.normalize("NFC", name) for name in names}
    counts = Counter(composed.values())
    return {name: composed[name] if counts[composed[name]] > 1 else name for name in names}
