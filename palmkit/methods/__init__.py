"""The methods by name."""

from __future__ import annotations

from palmkit.methods.base import Method
from palmkit.methods.coop import CoCoOp, CoOp
from palmkit.methods.palm import PALM, PALMDagger
from palmkit.methods.zero_shot import ZeroShot
from palmkit.names import unknown_name
from palmkit.plugins import PluginError, load_entry_points, plugin_modules

__all__ = [
    "METHODS",
    "PALM",
    "CoCoOp",
    "CoOp",
    "Method",
    "PALMDagger",
    "ZeroShot",
    "get_method",
    "list_methods",
]

METHODS: dict[str, type[Method]] = {
    cls.name: cls for cls in (ZeroShot, CoOp, CoCoOp, PALM, PALMDagger)
}


def list_methods() -> dict[str, type[Method]]:
    """{name: class} of the package's methods and of those from outside (files, entry points).

    Raises PluginError for a name that is taken and for what is no method.
    """
    found = dict(METHODS)
    for module in plugin_modules():
        classes = [cls for cls in vars(module).values() if _is_method(cls, module.__name__)]
        if not classes and not hasattr(module, "MODELS"):
            raise PluginError(
                f"{module.__file__} defines neither a subclass of palmkit.Method with a `name` "
                "nor MODELS"
            )
        for cls in classes:
            _add(found, cls, module.__file__)
    for point, cls in load_entry_points("palmkit.methods").items():
        if not _is_method(cls, getattr(cls, "__module__", None)):
            raise PluginError(
                f"entry point palmkit.methods: {point} is no subclass of palmkit.Method with a name"
            )
        _add(found, cls, "entry point palmkit.methods")
    return found


def get_method(name: str) -> type[Method]:
    """The class of a method. Raises ValueError with the nearest name for one that is unknown."""
    if name in METHODS:
        return METHODS[name]
    methods = list_methods()
    if name in methods:
        return methods[name]
    raise ValueError(unknown_name("method", name, methods))


def _is_method(cls, module: str) -> bool:
    """Whether it is a method with a name of its own, defined in this very module."""
    return (
        isinstance(cls, type)
        and issubclass(cls, Method)
        and cls.__module__ == module
        and bool(vars(cls).get("name"))
    )


def _add(found: dict, cls: type[Method], origin: str) -> None:
    if found.get(cls.name, cls) is not cls:
        raise PluginError(
            f"{origin}: the method name {cls.name!r} of {cls.__name__} is taken by "
            f"{found[cls.name].__name__}"
        )
    found[cls.name] = cls
