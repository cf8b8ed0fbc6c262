"""Which classes and which clips one method loses to another.

Frames have one line for each clip, trial and method: dataset, fold, clip (its number in the fold),
seed, method, and the columns of `confidence_frame`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from palmkit.experiments.rows import load_tensors
from palmkit.results.confidence import confidence_frame
from palmkit.results.statistics import DIFFERENCE, holm, seed_clip_interval, sign_test

LEVEL = 0.05  # of p, after Holm's correction
CLIP = ["dataset", "label", "fold", "clip"]


def clip_frame(rows: pd.DataFrame, run) -> pd.DataFrame:
    """The `confidence_frame` of each row, with dataset, method, fold, seed and clip.

    fold is 0 for a single split.
    """
    frames = []
    for _, row in rows.iterrows():
        tensors = load_tensors(row, run)
        frame = confidence_frame(tensors["logits"], tensors["labels"])
        frame = frame.rename_axis("clip").reset_index()
        fold = 0 if pd.isna(row["fold"]) else int(row["fold"])
        frames.append(frame.assign(fold=fold, **row[["dataset", "method", "seed"]]))
    return pd.concat(frames, ignore_index=True)


def clip_differences(frame: pd.DataFrame, method: str, reference: str) -> pd.DataFrame:
    """Right (1) or wrong (0) of a method minus that of a reference: a line a clip, a column a seed.

    A reference with one seed, such as zero-shot, is compared with each seed of the method.
    """
    right = {
        name: part.pivot(index=CLIP, columns="seed", values="right").astype(float)
        for name, part in frame.groupby("method")
        if name in (method, reference)
    }
    other = right[reference]
    if other.shape[1] == 1:
        return right[method].sub(other.iloc[:, 0], axis=0)
    return right[method] - other


def class_differences(frame: pd.DataFrame, method="palm", reference="zeroshot") -> pd.DataFrame:
    """Each class's recall by a method minus that by a reference.

    Indexed by dataset and label. Columns: difference, low, high (for new seeds and new clips), won
    and lost (clips on which the method is right with more seeds, and with fewer), clips, p (exact
    sign test of won and lost) and p_holm (for all classes of the frame).
    """
    lines = {}
    for key, part in clip_differences(frame, method, reference).groupby(["dataset", "label"]):
        scores = part.to_numpy().T
        change = scores.mean(0)
        won, lost = int((change > 0).sum()), int((change < 0).sum())
        interval = seed_clip_interval(scores, bounds=DIFFERENCE)
        lines[key] = (*interval, won, lost, len(change), sign_test(won, lost))
    columns = ["difference", "low", "high", "won", "lost", "clips", "p"]
    table = pd.DataFrame.from_dict(lines, orient="index", columns=columns)
    table.index = pd.MultiIndex.from_tuples(lines, names=["dataset", "label"])
    return table.assign(p_holm=holm(table["p"]))


def margin_groups(frame: pd.DataFrame, method="zeroshot", groups: int = 5) -> np.ndarray:
    """[lines of frame]: 1 for the clips with the smallest margins, up to `groups`.

    A clip's margin is the method's, mean over seeds. Clips are ranked within their dataset, and the
    groups of a dataset have the same number of clips, up to one.
    """
    margins = frame[frame["method"] == method].groupby(CLIP)["margin"].mean()
    ranks = margins.groupby("dataset").rank(method="first") - 1
    sizes = margins.groupby("dataset").transform("size")
    group = (ranks * groups // sizes).astype(int) + 1
    return group.reindex(pd.MultiIndex.from_frame(frame[CLIP])).to_numpy()


def count_lost(changes: pd.DataFrame, frame: pd.DataFrame, method="palm", reference="zeroshot"):
    """One line for each dataset of `class_differences`, with the frame that it was made from.

    Columns: below (classes with a lower recall), lost and won (p_holm < 0.05), classes, worst
    (label of the class with the lowest difference), its difference, and the lowest and the highest
    difference of that class over folds and seeds.
    """
    runs = clip_differences(frame, method, reference).groupby(["dataset", "label", "fold"]).mean()
    lines = {}
    for dataset, part in changes.groupby("dataset"):
        clear, below = part["p_holm"] < LEVEL, part["difference"] < 0
        worst = part["difference"].idxmin()
        of_worst = runs.loc[worst].to_numpy()
        counts = below.sum(), (clear & below).sum(), (clear & ~below).sum(), len(part)
        span = part.loc[worst, "difference"], of_worst.min(), of_worst.max()
        lines[dataset] = (*counts, worst[1], *span)
    columns = ["below", "lost", "won", "classes", "worst", "difference", "lowest", "highest"]
    table = pd.DataFrame.from_dict(lines, orient="index", columns=columns)
    return table.rename_axis("dataset")
