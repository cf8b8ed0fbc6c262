"""Messages about names that nobody knows."""

from __future__ import annotations

import difflib


def unknown_name(kind: str, name, known) -> str:
    """The message about a name that is not among the known ones, with the closest of them."""
    known = [str(one) for one in known]
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"there is no {kind} {name!r}; there are {', '.join(known)}{hint}"
