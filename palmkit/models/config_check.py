"""Types and ranges of the values in a checkpoint's config."""

from __future__ import annotations

import math

LARGEST = 1_000_000  # of a size: nothing of this kind is larger


def check_values(config: dict, defaults: dict, where: str = "") -> None:
    """Raise ValueError that names the first field of another type than its default, or out of
    range. Fields without a default are left to others.
    """
    for name, default in defaults.items():
        if name not in config:
            continue
        field, value = f"{where}{name}", config[name]
        if isinstance(default, dict):
            if not isinstance(value, dict):
                raise ValueError(f"{field} must be a dict, not {value!r:.100}")
            check_values(value, default, f"{field}.")
        elif problem := find_problem(name, value, default):
            raise ValueError(f"{field}={value!r:.100} in a config must be {problem}")


def find_problem(name: str, value, default) -> str:
    """What a value must be and is not; "" if it is fine."""
    if isinstance(default, str):
        return "" if isinstance(value, str) else "a text"
    if isinstance(default, int):
        fits = type(value) is int and 1 <= value <= LARGEST
        return "" if fits else f"a whole number from 1 to {LARGEST:,}"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and isinstance(value, int) and abs(value) > LARGEST:
        number = False
    if not number or not math.isfinite(value):
        return "a number"
    if name.endswith(("dropout", "rate", "momentum")):
        return "" if 0 <= value < 1 else "a number from 0 on and below 1"
    return "" if 0 < value <= 1 else "a number over 0, and 1 at most"
