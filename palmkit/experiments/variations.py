"""Changes of a task before a method gets it. Each is an entry of `Trial.options`, so rows
record it.

- classes: a list of class names. Only these classes of the dataset are used.
- names: {class name: the name that the text encoder reads instead}.
- rare: {class name: how many clips of its draw are kept}.
- resample: True repeats the clips of rare classes, so that all classes have equally many.
- pca_dim: embeddings, of audio and text, are projected to the support set's first principal axes.
- corruption: [kind, strength] of `palmkit.corruptions`, applied to the test clips.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from palmkit.corruptions import CORRUPTIONS, check_strength
from palmkit.data import Dataset
from palmkit.methods.base import normalize

VARIATIONS = ("classes", "names", "rare", "resample", "pca_dim", "corruption")


def method_options(options: dict) -> dict:
    """The options of the method."""
    return {name: value for name, value in options.items() if name not in VARIATIONS}


def task_options(options: dict) -> dict:
    """The options that change the task."""
    return {name: value for name, value in options.items() if name in VARIATIONS}


def check_task_options(options: dict) -> None:
    """Raise ValueError for a value that cannot change a task.

    Names of classes are checked with the dataset.
    """
    if not isinstance(options.get("classes", []), list):
        raise ValueError(f"classes={options['classes']!r}: use a list of class names")
    classes = options.get("classes", ["a", "b"])
    if len(set(map(str, classes))) < 2:
        raise ValueError(f"classes={classes!r}: name two classes or more")
    for name in ("names", "rare"):
        if not isinstance(options.get(name, {}), dict):
            raise ValueError(f"{name}={options[name]!r}: use a dict by class name")
    for name, shown in options.get("names", {}).items():
        if not isinstance(shown, str) or not shown.strip():
            raise ValueError(f"names: {shown!r} for {name!r}; use a text that is not empty")
    for name, kept in options.get("rare", {}).items():
        if not isinstance(kept, int) or isinstance(kept, bool) or kept < 1:
            raise ValueError(f"rare: {kept!r} clips of {name!r}; use 1 or more")
    if not isinstance(options.get("resample", False), bool):
        raise ValueError(f"resample={options['resample']!r}: use True or False")
    dim = options.get("pca_dim", 1)
    if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
        raise ValueError(f"pca_dim={dim!r}: use a whole number, 1 or more")
    if "corruption" in options:
        _check_corruption(options["corruption"])


def _check_corruption(value) -> None:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"corruption={value!r}: use [kind, strength]")
    kind, strength = value
    if kind not in CORRUPTIONS:
        raise ValueError(f"there is no corruption {kind!r}; there are {', '.join(CORRUPTIONS)}")
    if isinstance(strength, bool) or not isinstance(strength, int | float):
        raise ValueError(f"corruption={value!r}: the strength is a number")
    check_strength(kind, strength)


def modify_task(dataset: Dataset, classes=None, names=None, **_others) -> Dataset:
    """The dataset with these classes only, and with other names. A renamed class keeps
    its draws.

    Raises ValueError for a class that the dataset does not have.
    """
    known = set(dataset.class_names)
    for name in [*(classes or []), *(names or {})]:
        if name not in known:
            there = ", ".join(dataset.class_names)
            raise ValueError(f"{dataset.name} has no class {name!r}; it has {there}")
    if classes is not None:
        dataset = _keep_classes(dataset, sorted(set(classes)))
    renamed = [(names or {}).get(name, name) for name in dataset.class_names]
    return replace(dataset, class_names=renamed)


def _keep_classes(dataset: Dataset, kept: list[str]) -> Dataset:
    labels = {name: label for label, name in enumerate(kept)}

    def narrow(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame[frame["class_name"].isin(kept)].copy()
        frame["label"] = frame["class_name"].map(labels)
        return frame

    return replace(
        dataset, class_names=kept, train=narrow(dataset.train), test=narrow(dataset.test)
    )


def modify_draw(drawn: pd.DataFrame, rare=None, resample=False, **_others) -> pd.DataFrame:
    """The draw with only the first clips of each class in `rare`. Fewer are a subset of more.

    resample: then the clips of each class are repeated, one after the other, until it has as many
    as the largest class.
    """
    rare = rare or {}
    if not rare and not resample:
        return drawn
    there = set(drawn["class_name"])
    for name in rare:
        if name not in there:
            raise ValueError(f"rare: no clip of class {name!r} was drawn")
    place = drawn.groupby("class_name").cumcount()
    kept = drawn[place < drawn["class_name"].map(rare).fillna(len(drawn))]
    return _repeat_clips(kept) if resample else kept


def _repeat_clips(drawn: pd.DataFrame) -> pd.DataFrame:
    most = drawn["class_name"].value_counts().max()
    parts = [
        part.iloc[np.arange(most) % len(part)]
        for _, part in drawn.groupby("class_name", sort=False)
    ]
    repeated = pd.concat(parts)
    repeated.attrs = dict(drawn.attrs)
    return repeated


def principal_axes(features: torch.Tensor, pca_dim: int) -> torch.Tensor:
    """[dim, pca_dim]: directions in which [n, dim] features vary most, the first the most; unit
    length, orthogonal.

    Raises ValueError for more axes than n - 1 or dim. An axis points to where its largest component
    is positive.
    """
    most = min(len(features) - 1, features.shape[1])
    if not 1 <= pca_dim <= most:
        raise ValueError(
            f"pca_dim={pca_dim}: {len(features)} clips of width {features.shape[1]} "
            f"have 1 to {most} axes"
        )
    centered = (features - features.mean(0)).double()
    axes = torch.linalg.svd(centered, full_matrices=False).Vh[:pca_dim]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return (axes * largest.sign()).T.to(features.dtype)


class ProjectedModel:
    """A model with text embeddings projected to `axes` [dim, pca_dim]; the rest as in the model."""

    def __init__(self, model, axes: torch.Tensor):
        self.model = model
        self.axes = axes.to(model.device, model.dtype)
        self.dim = axes.shape[1]

    def __getattr__(self, name: str):
        if name == "model":  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.model, name)

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        """Prompts -> unit embeddings [n, pca_dim]."""
        return normalize(self.model.encode_text(prompts) @ self.axes)

    def project_text(self, latents) -> torch.Tensor:
        """The text projection's input [n, any width] -> unit embeddings [n, pca_dim]."""
        return normalize(self.model.project_text(latents) @ self.axes)

    def encode_embeddings(self, prefix, suffix, lengths) -> torch.Tensor:
        """As the model's, and projected: [b, c, pca_dim]."""
        return self.model.encode_embeddings(prefix, suffix, lengths) @ self.axes
