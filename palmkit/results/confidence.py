"""Confidence of a method: margins, entropy, calibration, and detection of unknown clips.

Logits are [n, classes] as methods give them, at their fixed scale. Probabilities are their softmax.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

BINS = 10
SURE = 0.9


def probabilities(logits) -> np.ndarray:
    """[n, classes] float64, each row sums to 1."""
    return torch.softmax(torch.as_tensor(logits).double(), 1).numpy()


def confidence_frame(logits, labels) -> pd.DataFrame:
    """One line for each clip: label, guess, right, confidence, margin and entropy.

    confidence: the probability of the guess. margin: confidence minus the second largest
    probability. entropy: in bits; equal probabilities have log2 of the number of classes.
    """
    p, labels = probabilities(logits), np.asarray(labels)
    top = np.sort(p, axis=1)[:, ::-1]
    guess = p.argmax(1)
    columns = {
        "label": labels,
        "guess": guess,
        "right": guess == labels,
        "confidence": top[:, 0],
        "margin": top[:, 0] - top[:, 1],
        "entropy": -(p * np.log2(np.where(p > 0, p, 1))).sum(1),
    }
    return pd.DataFrame(columns)


def reliability(frame: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """Clips of a `confidence_frame` in bins of equal width of confidence.

    Columns: confidence and accuracy (means), clips.
    """
    bin_of = np.minimum((frame["confidence"] * bins).astype(int), bins - 1)
    return frame.groupby(bin_of.rename("bin")).agg(
        confidence=("confidence", "mean"), accuracy=("right", "mean"), clips=("right", "size")
    )


def calibration_error(frame: pd.DataFrame, bins: int = BINS) -> float:
    """Expected calibration error (Guo et al. 2017).

    |accuracy - confidence| of the bins, weighted by their clips.
    """
    table = reliability(frame, bins)
    gaps = (table["accuracy"] - table["confidence"]).abs()
    return float((gaps * table["clips"]).sum() / table["clips"].sum())


def calibration_table(frame: pd.DataFrame) -> pd.DataFrame:
    """How sure each method is, and how right: means over the datasets of a `clip_frame`.

    Indexed by method: accuracy, confidence (mean), sure_and_wrong (share of the clips with a wrong
    guess at over 90%), ece (`calibration_error`), and auroc: whether confidence ranks right guesses
    above wrong ones; datasets without both kinds do not count.
    """
    lines = []
    for (_, method), part in frame.groupby(["dataset", "method"]):
        right, sure = part["right"], part["confidence"]
        ranked = unknown_auroc(sure[right], sure[~right]) if right.nunique() > 1 else np.nan
        wrong = (~right & (sure > SURE)).mean()
        lines.append((method, right.mean(), sure.mean(), wrong, calibration_error(part), ranked))
    columns = ["method", "accuracy", "confidence", "sure_and_wrong", "ece", "auroc"]
    return pd.DataFrame(lines, columns=columns).groupby("method").mean()


def unknown_auroc(known, unknown) -> float:
    """AUROC of a score: [n] of clips of known classes against [m] of clips of no known class.

    0.5: the score does not tell them apart. 1: it always does.
    """
    truth = np.r_[np.ones(len(known)), np.zeros(len(unknown))]
    return float(roc_auc_score(truth, np.r_[np.asarray(known), np.asarray(unknown)]))
