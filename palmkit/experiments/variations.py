"""What a study changes about a task before a method sees it. Each is an entry of `Unit.options`, so a row tells it.

- classes: a list of class names, the only ones of the dataset that there are.
- names: {class name: the name that the text encoder reads instead}.
- rare: {class name: clips that are kept of its draw}.
- width: embeddings, of audio and text, are projected to the support set's first principal axes.
- damage: [kind, strength] of `palmkit.damage`, done to the test clips.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import torch

from palmkit.data import Dataset
from palmkit.methods.base import normalize

VARIATIONS = ("classes", "names", "rare", "width", "damage")


def method_options(options: dict) -> dict:
    """Those of a unit's options that are the method's."""
    return {name: value for name, value in options.items() if name not in VARIATIONS}


def modify_task(dataset: Dataset, classes=None, names=None, **_others) -> Dataset:
    """The dataset with these classes only, and with other names. Draws of a renamed class are what they were.

    Raises ValueError for a class that the dataset has not.
    """
    known = set(dataset.class_names)
    if unknown := [name for name in [*(classes or []), *(names or {})] if name not in known]:
        raise ValueError(
            f"{dataset.name} has no class {unknown[0]!r}; it has {', '.join(dataset.class_names)}"
        )
    if classes is not None:
        kept = sorted(set(classes))
        frames = [
            frame[frame["class_name"].isin(kept)].copy() for frame in (dataset.train, dataset.test)
        ]
        for frame in frames:
            frame["label"] = frame["class_name"].map(
                {name: label for label, name in enumerate(kept)}
            )
        dataset = replace(dataset, class_names=kept, train=frames[0], test=frames[1])
    return replace(
        dataset, class_names=[(names or {}).get(name, name) for name in dataset.class_names]
    )


def modify_draw(drawn: pd.DataFrame, rare=None, **_others) -> pd.DataFrame:
    """A draw of which each class in `rare` keeps its first so many clips: those of 2 are among those of 4."""
    if unknown := [name for name in rare or {} if name not in set(drawn["class_name"])]:
        raise ValueError(f"rare: no clip of class {unknown[0]!r} was drawn")
    place = drawn.groupby("class_name").cumcount()
    return drawn[place < drawn["class_name"].map(rare or {}).fillna(len(drawn))]


def principal_axes(features: torch.Tensor, width: int) -> torch.Tensor:
    """[dim, width]: directions in which [n, dim] features vary most, the first the most; unit length, orthogonal.

    Raises ValueError for more axes than n - 1 or dim. An axis points to where its largest component is positive.
    """
    most = min(len(features) - 1, features.shape[1])
    if not 1 <= width <= most:
        raise ValueError(
            f"width={width}: {len(features)} clips of width {features.shape[1]} have 1 to {most} axes"
        )
    axes = torch.linalg.svd((features - features.mean(0)).double(), full_matrices=False).Vh[:width]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return (axes * largest.sign()).T.to(features.dtype)


class ProjectedModel:
    """A model whose text embeddings are projected to `axes` [dim, width]; the rest is the model's."""

    def __init__(self, model, axes: torch.Tensor):
        self.model, self.axes = model, axes.to(model.device, model.dtype)
        self.dim = axes.shape[1]

    def __getattr__(self, name: str):
        if name == "model":  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.model, name)

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        """Prompts -> unit embeddings [n, width]."""
        return normalize(self.model.encode_text(prompts) @ self.axes)

    def project_text(self, latents) -> torch.Tensor:
        """The text projection's input [n, any width] -> unit embeddings [n, width]."""
        return normalize(self.model.project_text(latents) @ self.axes)

    def encode_embeddings(self, prefix, suffix, lengths) -> torch.Tensor:
        """As the model's, and projected: [b, c, width]."""
        return self.model.encode_embeddings(prefix, suffix, lengths) @ self.axes
