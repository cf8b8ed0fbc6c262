"""Order, label and colour of methods, and of which kind they are, from their class attributes.

Methods from outside of the package count too. A method that can no longer be imported
comes last, with its name as label and a neutral colour.
"""

from __future__ import annotations

import pandas as pd

from palmkit.methods import list_methods

NEUTRAL = "#555555"


def known_methods() -> dict[str, type]:
    """The classes by name, in the order of tables."""
    return list_methods()


def method_names() -> dict[str, str]:
    """{name: label} of the known methods."""
    return {name: cls.label for name, cls in known_methods().items()}


def method_colors() -> dict[str, str]:
    """{name: colour} of the known methods, as "#rrggbb"."""
    return {name: cls.color for name, cls in known_methods().items()}


def method_label(name: str) -> str:
    """A method in tables and figures; an unknown one as it is."""
    return method_names().get(name, name)


def method_color(name: str) -> str:
    """A method's colour in figures, "#rrggbb"; of an unknown one, a grey."""
    return method_colors().get(name, NEUTRAL)


def learns(names: pd.Series) -> pd.Series:
    """[n] method names -> [n] bool: does the method learn? An unknown one counts as learning."""
    unlearned = [name for name, cls in known_methods().items() if not cls.learns]
    return ~names.isin(unlearned)


def is_transductive(names: pd.Series) -> pd.Series:
    """[n] method names -> [n] bool: does it see the whole test batch? An unknown one does not."""
    return names.isin([name for name, cls in known_methods().items() if cls.transductive])


def method_categories(names) -> list[str]:
    """The methods among `names`, each once: known ones in the order of tables, then the others."""
    known = [name for name in known_methods() if name in set(names)]
    return known + sorted(set(names) - set(known))


def order_methods(names) -> pd.Categorical:
    """[n] method names as an ordered Categorical, so that they sort as tables show them."""
    return pd.Categorical(names, categories=method_categories(names), ordered=True)
