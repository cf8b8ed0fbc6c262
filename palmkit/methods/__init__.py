"""The methods by name."""

from __future__ import annotations

import inspect
import re

from palmkit.methods.aspl import TUNED
from palmkit.methods.base import Method
from palmkit.methods.coop import CoCoOp, CoOp
from palmkit.methods.palm import PALM, PALMDagger
from palmkit.methods.rivals import RIVALS
from palmkit.methods.solved import SolvedPALM
from palmkit.methods.zero_shot import ZeroShot
from palmkit.names import unknown_method
from palmkit.plugins import PluginError, load_entry_points, plugin_modules

__all__ = [
    "METHODS",
    "PALM",
    "RIVALS",
    "CoCoOp",
    "CoOp",
    "Method",
    "PALMDagger",
    "TUNED",
    "SolvedPALM",
    "ZeroShot",
    "get_method",
    "list_methods",
]

METHODS: dict[str, type[Method]] = {
    cls.name: cls for cls in (ZeroShot, CoOp, CoCoOp, PALM, PALMDagger, SolvedPALM, *RIVALS, *TUNED)
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
    raise ValueError(unknown_method(name, methods))


def _is_method(cls, module: str) -> bool:
    """Whether it is a method with a name of its own, defined in this very module."""
    return (
        isinstance(cls, type)
        and issubclass(cls, Method)
        and cls.__module__ == module
        and bool(vars(cls).get("name"))
    )


FIT_SETTINGS = ("epochs", "batch_size", "lr", "momentum", "seed", "batches")


def check_class(cls: type[Method]) -> None:
    """Raise ValueError for a method that the kit cannot construct, fit or show."""
    name = cls.name
    if not isinstance(name, str) or not re.fullmatch(r"[^\s/\\]+", name) or name == "all":
        raise ValueError(f"name = {name!r}: use a text without spaces and slashes, and not 'all'")
    if not isinstance(cls.label, str) or not cls.label.strip() or "\n" in cls.label:
        raise ValueError(f"label = {cls.label!r}: use a text of one line")
    if not re.fullmatch("#[0-9a-fA-F]{6}", str(cls.color)):
        raise ValueError(f"color = {cls.color!r}: use '#rrggbb', say '#0173b2'")
    if cls.forward is Method.forward:
        raise ValueError("it has no forward: define forward(self, features) -> logits")
    try:
        inspect.signature(cls).bind("model", ["a", "b"], seed=0)
    except TypeError as error:
        raise ValueError(f"__init__ must take (model, class_names, seed=0): {error}") from None
    try:
        settings = dict.fromkeys(FIT_SETTINGS)
        inspect.signature(cls.fit).bind("self", "features", "labels", **settings)
    except TypeError as error:
        raise ValueError(f"fit must take (features, labels, **settings): {error}") from None


def _add(found: dict, cls: type[Method], origin: str) -> None:
    if found.get(cls.name, cls) is not cls:
        raise PluginError(
            f"{origin}: the method name {cls.name!r} of {cls.__name__} is taken by "
            f"{found[cls.name].__name__}"
        )
    try:
        check_class(cls)
    except ValueError as error:
        raise PluginError(f"{origin}: the method {cls.__name__} cannot be used: {error}") from None
    found[cls.name] = cls
