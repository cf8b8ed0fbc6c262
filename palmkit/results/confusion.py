"""Which class the test clips of which class were taken for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from palmkit.experiments.rows import load_tensors
from palmkit.results.method_style import method_categories
from palmkit.results.versions import dataset_labels


@dataclass(frozen=True)
class Confusion:
    """Decisions of one method on one dataset, over the folds and seeds of its rows.

    counts: [classes, classes]; the clips of a class (down) that were taken for a class (across).
    trials: how many rows are summed.
    """

    dataset: str
    method: str
    class_names: list[str]
    counts: np.ndarray
    trials: int

    @property
    def shares(self) -> np.ndarray:
        """[classes, classes]: counts as shares of the class's clips; NaN for one without clips."""
        clips = self.counts.sum(1, keepdims=True)
        return np.where(clips > 0, self.counts / np.maximum(clips, 1), np.nan)

    @property
    def recalls(self) -> np.ndarray:
        """[classes]: the share of each class's clips that is right; NaN for one without clips."""
        clips = self.counts.sum(1)
        return np.where(clips > 0, self.counts.diagonal() / np.maximum(clips, 1), np.nan)

    @property
    def accuracy(self) -> float:
        """The share of all decisions that is right."""
        return float(self.counts.trace() / max(self.counts.sum(), 1))

    def most_confused(self, label: int) -> tuple[int, float] | None:
        """The other class that this class's clips are most often taken for, and their share.

        None if no clip is taken for another class.
        """
        others = self.counts[label].copy()
        others[label] = 0
        if not others.any():
            return None
        other = int(others.argmax())
        return other, float(others[other] / self.counts[label].sum())


def count_confusions(rows: pd.DataFrame, run) -> list[Confusion]:
    """The confusions of each dataset and method, datasets by name, methods in their order.

    rows: of equal settings, with class_names (`load_rows(run, details=True)`). A row whose logits
    are missing, not finite or of other classes is left out, with a warning for each dataset.
    """
    found = []
    for dataset, part in rows.groupby(dataset_labels(rows)):
        names = part["class_names"].iloc[0]
        for method in method_categories(part["method"]):
            own = part[part["method"] == method]
            whole, trials = None, 0
            for counts in _counts_of_rows(own, run, names):
                whole = counts if whole is None else np.add(whole, counts, out=whole)
                trials += 1
            if whole is not None:
                found.append(Confusion(str(dataset), method, list(names), whole, trials))
            if missing := len(own) - trials:
                warnings.warn(
                    f"{dataset}, {method}: {missing} of {len(own)} rows have no usable logits; "
                    "they are left out of the results by class",
                    stacklevel=2,
                )
    return found


def _counts_of_rows(rows: pd.DataFrame, run, class_names) -> Iterator[np.ndarray]:
    """[classes, classes] of each row with usable logits."""
    if not isinstance(class_names, list):
        return
    n = len(class_names)
    for row in rows.to_dict("records"):
        try:
            tensors = load_tensors(row, run)
            logits, labels = tensors["logits"].double().numpy(), tensors["labels"].numpy()
        except (OSError, ValueError, KeyError):  # missing, damaged, or not the row's
            continue
        right_shape = len(labels) > 0 and logits.shape == (len(labels), n)
        if not right_shape or row["class_names"] != class_names or not np.isfinite(logits).all():
            continue
        if labels.min() < 0 or labels.max() >= n:
            continue
        yield np.bincount(labels * n + logits.argmax(1), minlength=n * n).reshape(n, n)
