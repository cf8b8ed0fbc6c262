"""Which classes and which clips one method loses to another.

Frames have one line for each clip, trial and method: dataset, fold, clip (its number in the fold),
seed, method, and the columns of `confidence_frame`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from palmkit.experiments.rows import load_tensors
from palmkit.results.confidence import confidence_frame
from palmkit.results.statistics import (
    DIFFERENCE,
    holm,
    seed_clip_interval,
    sign_test,
)

LEVEL = 0.05  # of p, after Holm's correction
CLASS = ["dataset", "label"]
CLIP = [*CLASS, "fold", "clip"]


def clip_frame(rows: pd.DataFrame, run) -> pd.DataFrame:
    """The `confidence_frame` of each row, with dataset, method, fold, seed and clip.

    fold is 0 for a single split.
    """
    frames = []
    for _, row in rows.iterrows():
        tensors = load_tensors(row, run)
        frame = confidence_frame(tensors["logits"], tensors["labels"])
        frame = frame.rename_axis("clip").reset_index()
        frame["fold"] = 0 if pd.isna(row["fold"]) else int(row["fold"])
        for name in ("dataset", "method", "seed"):
            frame[name] = row[name]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def clip_differences(
    frame: pd.DataFrame,
    method: str,
    reference: str,
) -> pd.DataFrame:
    """Right (1) or wrong (0) of a method minus that of a reference: a line a clip, a column a seed.

    A reference with one seed, such as zero-shot, is compared with each seed of the method.
    """
    right = _right_clips(frame, method)
    other = _right_clips(frame, reference)
    if other.shape[1] == 1:
        only_seed = other.iloc[:, 0]
        return right.sub(only_seed, axis=0)
    return right - other


def _right_clips(frame: pd.DataFrame, method: str) -> pd.DataFrame:
    """[clips, seeds] of a method: 1 for a right guess, else 0."""
    part = frame.groupby("method").get_group(method)
    right = part.pivot(index=CLIP, columns="seed", values="right")
    return right.astype(float)


def class_differences(
    frame: pd.DataFrame,
    method: str = "palm",
    reference: str = "zeroshot",
) -> pd.DataFrame:
    """Each class's recall by a method minus that by a reference.

    Indexed by dataset and label. Columns: difference, low, high (for new seeds and new clips), won
    and lost (clips on which the method is right with more seeds, and with fewer), clips, p (exact
    sign test of won and lost) and p_holm (for all classes of the frame).
    """
    differences = clip_differences(frame, method, reference)
    lines = {}
    for key, part in differences.groupby(CLASS):
        lines[key] = _compare_class(part.to_numpy().T)
    table = pd.DataFrame(lines.values())
    table.index = pd.MultiIndex.from_tuples(lines, names=CLASS)
    table["p_holm"] = holm(table["p"])
    return table


def _compare_class(scores: np.ndarray) -> dict[str, float]:
    """A line of `class_differences`. scores: differences [seeds, clips] of one class."""
    change = scores.mean(0)
    won = int((change > 0).sum())
    lost = int((change < 0).sum())
    mean, low, high = seed_clip_interval(scores, bounds=DIFFERENCE)
    return {
        "difference": mean,
        "low": low,
        "high": high,
        "won": won,
        "lost": lost,
        "clips": len(change),
        "p": sign_test(won, lost),
    }


def margin_groups(
    frame: pd.DataFrame,
    method: str = "zeroshot",
    groups: int = 5,
) -> np.ndarray:
    """[lines of frame]: 1 for the clips with the smallest margins, up to `groups`.

    A clip's margin is the method's, mean over seeds. Clips are ranked within their dataset, and the
    groups of a dataset have the same number of clips, up to one.
    """
    of_method = frame[frame["method"] == method]
    margins = of_method.groupby(CLIP)["margin"].mean()
    by_dataset = margins.groupby("dataset")
    ranks = by_dataset.rank(method="first") - 1
    sizes = by_dataset.transform("size")
    group = ranks * groups // sizes
    group = group.astype(int) + 1
    clips = pd.MultiIndex.from_frame(frame[CLIP])
    return group.reindex(clips).to_numpy()


def count_lost(
    changes: pd.DataFrame,
    frame: pd.DataFrame,
    method: str = "palm",
    reference: str = "zeroshot",
) -> pd.DataFrame:
    """One line for each dataset of `class_differences`, with the frame that it was made from.

    Columns: below (classes with a lower recall), lost and won (p_holm < 0.05), classes, worst
    (label of the class with the lowest difference), its difference, and the lowest and the highest
    difference of that class over folds and seeds.
    """
    differences = clip_differences(frame, method, reference)
    runs = differences.groupby([*CLASS, "fold"]).mean()
    lines = {}
    for dataset, part in changes.groupby("dataset"):
        worst = part["difference"].idxmin()
        of_worst = runs.loc[worst].to_numpy()
        lines[dataset] = _count_classes(part) | {
            "worst": worst[1],
            "difference": part.loc[worst, "difference"],
            "lowest": of_worst.min(),
            "highest": of_worst.max(),
        }
    table = pd.DataFrame.from_dict(lines, orient="index")
    return table.rename_axis("dataset")


def _count_classes(changes: pd.DataFrame) -> dict[str, int]:
    """Numbers of classes of one dataset: with a lower recall, clearly lost, clearly won, all."""
    clear = changes["p_holm"] < LEVEL
    below = changes["difference"] < 0
    return {
        "below": below.sum(),
        "lost": (clear & below).sum(),
        "won": (clear & ~below).sum(),
        "classes": len(changes),
    }
