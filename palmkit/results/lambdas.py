"""What a learned lambda does, and what it goes with."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from scipy import stats

from palmkit.results.statistics import holm
from palmkit.training import predict


@torch.no_grad()
def predict_without(method, features, dropped) -> torch.Tensor:
    """Logits [n, classes] of a fitted PALM with lambda set to 0 for some classes.

    features: audio embeddings [n, dim]. dropped: [classes] bool. A lambda of 0 leaves f alone.
    """
    device, dtype = method.model.device, method.model.dtype
    features = torch.as_tensor(features).to(device, dtype)
    text = method.logits(features, method.f).cpu()
    return torch.where(torch.as_tensor(dropped), text, predict(method, features))


def zeroed_lambdas(method, features, labels) -> pd.DataFrame:
    """One line for each class of a fitted PALM: what changes if its lambda alone is set to 0.

    Columns: class_name; changed: share of the clips with another guess; accuracy and recall:
    changes, of all clips and of the class's own. labels: [n].
    """
    labels = torch.as_tensor(labels).cpu()
    guess = predict(method, features).argmax(1)
    lines = []
    for label, name in enumerate(method.class_names):
        dropped = torch.arange(len(method.class_names)) == label
        other = predict_without(method, features, dropped).argmax(1)
        gain = other.eq(labels).double() - guess.eq(labels).double()
        changed = other.ne(guess).double().mean().item()
        own = labels == label
        lines.append((name, changed, gain.mean().item(), gain[own].mean().item()))
    return pd.DataFrame(lines, columns=["class_name", "changed", "accuracy", "recall"])


def class_relations(frame: pd.DataFrame, value: str, columns: Mapping[str, str]) -> pd.DataFrame:
    """Spearman's correlation of `value` with other columns, over classes within their dataset.

    frame: with dataset and class_name; lines of a class are averaged, and the mean of its dataset
    is subtracted. columns: {column: label}. Indexed by label: rho, p, p_holm (for all columns) and
    n (classes).
    """
    means = frame.groupby(["dataset", "class_name"])[[value, *columns]].mean()
    within = means - means.groupby("dataset").transform("mean")
    found = {
        label: stats.spearmanr(within[value], within[column]) for column, label in columns.items()
    }
    lines = {label: (one.statistic, one.pvalue) for label, one in found.items()}
    table = pd.DataFrame.from_dict(lines, orient="index", columns=["rho", "p"])
    return table.assign(p_holm=holm(table["p"]), n=len(means))
