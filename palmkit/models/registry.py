"""Audio-text models by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from palmkit.models.base import AudioTextModel
from palmkit.models.check import check_model
from palmkit.models.clap import is_clap, load_clap
from palmkit.models.mini_clap import load_mini_clap
from palmkit.models.msclap import is_msclap, load_msclap
from palmkit.models.pair import find_problem, load_pair, split_pair
from palmkit.models.pengi import load_mini, load_original, load_pengi
from palmkit.plugins import PluginError, load_entry_points, plugin_modules

# name: loader(device=...)
MODELS = {"mini": load_mini, "mini-clap": load_mini_clap, "pengi": load_original}


def list_models() -> dict:
    """{name: loader} of the package's models and of those from outside (files, entry points)."""
    found = dict(MODELS)
    for module in plugin_modules():
        loaders = getattr(module, "MODELS", {})
        if not isinstance(loaders, dict) or not all(map(callable, loaders.values())):
            raise PluginError(
                f"{module.__file__}: MODELS must be a dict of names and loaders, {{'toy': load}}"
            )
        for name, loader in loaders.items():
            if name in found:
                raise PluginError(f"{module.__file__}: the model name {name!r} is taken")
            found[name] = loader
    for name, loader in load_entry_points("palmkit.models").items():
        if name in found:
            raise PluginError(f"entry point palmkit.models: the model name {name!r} is taken")
        found[name] = loader
    return found


def load_model(name_or_path, device="auto") -> AudioTextModel:
    """A model by its name in `list_models()`, or PENGI from a checkpoint file.

    "clap:FOLDER" and "clap:NAME@COMMIT" are a CLAP model, see `load_clap`; "laion/NAME@COMMIT" too.
    "msclap:FOLDER" and "msclap:FILE" are MS-CLAP 2023, see `load_msclap`.
    "A+B" is a `ModelPair` of two of all these; "A+audio:B" leaves the texts of B out.
    device: "auto" is CUDA if there is one. Raises FileNotFoundError for a name of no model and no
    file, CheckpointError for a broken file, and ValueError if a model from outside of the package
    is not what the protocol says, or if two models cannot be a pair.
    """
    if names := split_pair(str(name_or_path), list_models()):
        return load_pair(*names, lambda name, protocol: _load(name, device, protocol))
    return _load(name_or_path, device, AudioTextModel)


def _load(name_or_path, device, protocol):
    """One model. protocol: AudioTextModel, or AudioModel where texts are not needed."""
    name, loaders = str(name_or_path), list_models()
    if name in loaders:
        model = loaders[name](device=device)
        if problem := find_problem(name, model, protocol):
            raise PluginError(problem)
        if name not in MODELS:
            check_model(model)
        return model
    if is_clap(name):
        return load_clap(name, device)
    if is_msclap(name):
        return load_msclap(name, device)
    close = difflib.get_close_matches(name, loaders, 1)
    if close and not Path(name).expanduser().exists():
        raise FileNotFoundError(
            f"there is no model and no checkpoint {name!r}; did you mean {close[0]!r}?"
        )
    return load_pengi(name_or_path, device)
