"""What can go wrong in a run of PALM, as rules: each function gives a sentence, or None where the rule does not hold.

The thresholds are conventions, named and stated; a finding is a reason to look, not a verdict.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from palmkit.results.statistics import holm, paired_bootstrap

NEAR = 0.05  # a lambda below this, or above one minus this, is at an extreme
EVERYWHERE = 0.9  # share of the classes
LEAST_CHANGE = 0.1  # of a class's recall
LEVEL = 0.05  # of p, after Holm's correction over classes
OVERSHOT = 2  # times the loss of the first step


def lambdas_at_extremes(row) -> str | None:
    """Nine in ten of a row's lambdas are below 0.05 or above 0.95: PALM has become its text, or has let go of it.

    At 0 it stays there: z gets no gradient any more.
    """
    lambdas = np.asarray(row["lambdas"], float)
    low, high = int((lambdas < NEAR).sum()), int((lambdas > 1 - NEAR).sum())
    if low + high < EVERYWHERE * len(lambdas):
        return None
    return f"lambda at the extremes everywhere: of {len(lambdas)}, {low} below {NEAR} and {high} above {1 - NEAR}"


def changed_classes(logits, reference, labels, class_names) -> pd.DataFrame:
    """Each class's recall against a reference's on the same test clips: logits, reference [n, c], labels [n].

    Indexed by class: recall, reference, change, p_holm (paired bootstrap over the class's clips, Holm over classes),
    clips. A class without test clips is left out.
    """
    right, before = (
        torch.as_tensor(x).argmax(1).eq(torch.as_tensor(labels)).numpy()
        for x in (logits, reference)
    )
    labels, lines = np.asarray(labels), {}
    for label, name in enumerate(class_names):
        if (own := labels == label).any():
            p = paired_bootstrap(right[own], before[own])["p"]
            lines[name] = (right[own].mean(), before[own].mean(), p, own.sum())
    table = pd.DataFrame.from_dict(
        lines, orient="index", columns=["recall", "reference", "p", "clips"]
    )
    table["p"] = holm(table["p"])
    table.insert(2, "change", table["recall"] - table["reference"])
    return table.rename(columns={"p": "p_holm"}).rename_axis("class_name")


def classes_that_degrade(logits, reference, labels, class_names) -> str | None:
    """Some class's recall falls by a tenth or more while another's rises by as much, each with p < 0.05 after Holm."""
    table = changed_classes(logits, reference, labels, class_names)
    sure = table[(table["change"].abs() >= LEAST_CHANGE) & (table["p_holm"] < LEVEL)][
        "change"
    ].sort_values()
    if sure.empty or sure.iloc[0] > 0 or sure.iloc[-1] < 0:
        return None
    told = ", ".join(f"{name} {change:+.2f}" for name, change in sure.items())
    return f"some classes degrade while others improve: {told}"


def unstable_training(row) -> str | None:
    """The loss is not finite; or an epoch's mean is over twice the first step's loss and the last epoch's is still
    above ln(classes), what guessing evenly costs: training was thrown off, and did not find back."""
    losses = np.asarray(row["losses"], float)
    if not np.isfinite(losses).all():
        return f"training is unstable: the loss is not finite from step {int(np.argmin(np.isfinite(losses)))} on"
    if not len(losses):
        return None
    epochs = [
        part.mean() for part in np.array_split(losses, max(1, int(row["epochs"]))) if len(part)
    ]
    guessing = np.log(len(row["class_names"]))
    if max(epochs) <= OVERSHOT * losses[0] or epochs[-1] <= guessing:
        return None
    return (
        f"training is unstable: the loss rose from {losses[0]:.1f} to {max(epochs):.1f} and ended at {epochs[-1]:.1f}; "
        f"guessing evenly costs {guessing:.1f}"
    )


def diagnose(row, tensors=None, reference=None) -> list[str]:
    """What is to be said of a row, by all rules. tensors, reference: `load_tensors` of it and of zero-shot's row on the
    same test clips, for the rule about classes. Raises ValueError if those are not the same clips.
    """
    found = [unstable_training(row)]
    if row["method"] == "palm":
        found.append(lambdas_at_extremes(row))
    if tensors is not None and reference is not None:
        if not torch.equal(tensors["labels"], reference["labels"]):
            raise ValueError(
                "the reference was tested on other clips: take zero-shot's row of the same fold"
            )
        both = (tensors["logits"], reference["logits"])
        found.append(classes_that_degrade(*both, tensors["labels"], row["class_names"]))
    return [sentence for sentence in found if sentence]
