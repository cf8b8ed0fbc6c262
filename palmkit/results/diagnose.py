"""Rules about what can go wrong in a run of PALM. Each returns a sentence, or None if all is well.

The thresholds are conventions. A finding is a reason to look, not a verdict.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from palmkit.results.statistics import holm, sign_test

EXTREME = 0.05  # a lambda below this, or above one minus this, is at an extreme
MOST_CLASSES = 0.9  # share of the classes
LEAST_CHANGE = 0.1  # of a class's recall
LEVEL = 0.05  # of p, after Holm's correction over classes
LOSS_RISE = 2  # times the loss of the first step


def lambdas_at_extremes(row) -> str | None:
    """Nine in ten of a row's lambdas are below 0.05 or above 0.95: text or learned vector alone.

    A lambda of 0 stays there, because z no longer gets a gradient.
    """
    lambdas = np.asarray(row["lambdas"], float)
    low, high = int((lambdas < EXTREME).sum()), int((lambdas > 1 - EXTREME).sum())
    if low + high < MOST_CLASSES * len(lambdas):
        return None
    return (
        f"lambda at the extremes everywhere: of {len(lambdas)}, {low} below {EXTREME} and "
        f"{high} above {1 - EXTREME}"
    )


def changed_classes(logits, reference, labels, class_names) -> pd.DataFrame:
    """Each class's recall against a reference's on the same test clips.

    logits, reference: [n, classes]; labels: [n]. Indexed by class: recall, reference, change,
    p_holm (exact sign test on the class's clips, Holm over classes), clips. A class without test
    clips is left out.
    """
    target = torch.as_tensor(labels)
    right, right_before = (
        torch.as_tensor(scores).argmax(1).eq(target).numpy() for scores in (logits, reference)
    )
    lines = {}
    for label, name in enumerate(class_names):
        chosen = np.asarray(labels) == label
        if not chosen.any():
            continue
        recall, before = right[chosen], right_before[chosen]
        p = sign_test((recall > before).sum(), (recall < before).sum())
        lines[name] = (recall.mean(), before.mean(), p, chosen.sum())
    columns = ["recall", "reference", "p", "clips"]
    table = pd.DataFrame.from_dict(lines, orient="index", columns=columns)
    table["p"] = holm(table["p"])
    table.insert(2, "change", table["recall"] - table["reference"])
    return table.rename(columns={"p": "p_holm"}).rename_axis("class_name")


def classes_that_degrade(logits, reference, labels, class_names) -> str | None:
    """One class's recall falls by a tenth or more while another's rises by as much.

    Each with p < 0.05 after Holm's correction.
    """
    table = changed_classes(logits, reference, labels, class_names)
    clear = (table["change"].abs() >= LEAST_CHANGE) & (table["p_holm"] < LEVEL)
    changes = table.loc[clear, "change"].sort_values()
    if changes.empty or changes.iloc[0] > 0 or changes.iloc[-1] < 0:
        return None
    text = ", ".join(f"{name} {change:+.2f}" for name, change in changes.items())
    return f"some classes degrade while others improve: {text}"


def epoch_losses(row) -> np.ndarray:
    """[epochs] mean training loss of each epoch of a row; empty if nothing was trained."""
    losses = np.asarray(row["losses"], float)
    parts = np.array_split(losses, max(1, int(row["epochs"])))
    return np.array([part.mean() for part in parts if len(part)])


def unstable_training(row) -> str | None:
    """The loss is not finite, or it rose and did not come down again.

    Rose: an epoch's mean is over twice the first step's loss. Did not come down: the last epoch's
    mean is above ln(classes), the loss of equal probabilities.
    """
    losses = np.asarray(row["losses"], float)
    finite = np.isfinite(losses)
    if not finite.all():
        step = int(np.argmin(finite))
        return f"training is unstable: the loss is not finite from step {step} on"
    if not len(losses):
        return None
    epochs, guessing = epoch_losses(row), np.log(len(row["class_names"]))
    if max(epochs) <= LOSS_RISE * losses[0] or epochs[-1] <= guessing:
        return None
    return (
        f"training is unstable: the loss rose from {losses[0]:.1f} to {max(epochs):.1f} and ended "
        f"at {epochs[-1]:.1f}; guessing evenly costs {guessing:.1f}"
    )


def diagnose(row, tensors=None, reference=None) -> list[str]:
    """The findings of all rules about a row.

    tensors, reference: `load_tensors` of the row and of zero-shot's row on the same test clips, for
    the rule about classes. Raises ValueError if those are not the same clips.
    """
    found = [unstable_training(row)]
    if row["method"] == "palm":
        found.append(lambdas_at_extremes(row))
    if tensors is not None and reference is not None:
        if not torch.equal(tensors["labels"], reference["labels"]):
            raise ValueError(
                "the reference was tested on other clips: take zero-shot's row of the same fold"
            )
        logits = tensors["logits"], reference["logits"]
        found.append(classes_that_degrade(*logits, tensors["labels"], row["class_names"]))
    return [sentence for sentence in found if sentence]
