"""Results by class and by clip."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from palmkit.experiments.rows import load_tensors


def class_frame(rows: pd.DataFrame, run, model) -> pd.DataFrame:
    """One line a class of each PALM row: its lambda and what came of it.

    dataset, fold, seed, shots, class_name, initial, learned, recall (share of its test clips that are right), z_norm,
    angle (degrees between f and f'), and zeroshot: the recall of the zero-shot row of the same fold, if `rows` has it.
    """
    known = {}
    for _, row in rows[rows["method"] == "zeroshot"].iterrows():
        known[row["dataset"], str(row["fold"])] = _recalls(
            load_tensors(row, run), len(row["class_names"])
        )
    frames = []
    for _, row in rows[rows["method"] == "palm"].iterrows():
        tensors, f = load_tensors(row, run), model.encode_text(row["class_names"]).cpu()
        z, weight = tensors["prompt.ctx"], torch.tensor(row["lambdas"])[:, None]
        cosine = F.cosine_similarity(f, (1 - weight) * f + weight * z).clamp(-1, 1)
        frame = {name: row[name] for name in ("dataset", "fold", "seed", "shots")} | {
            "class_name": row["class_names"], "initial": row["lambdas_initial"], "learned": row["lambdas"],
            "recall": _recalls(tensors, len(f)), "zeroshot": known.get((row["dataset"], str(row["fold"])), np.nan),
            "z_norm": z.norm(dim=1).numpy(), "angle": torch.rad2deg(cosine.acos()).numpy(),
        }  # fmt: skip
        frames.append(pd.DataFrame(frame))
    return pd.concat(frames, ignore_index=True)


def _recalls(tensors, classes):
    right = (tensors["logits"].argmax(1) == tensors["labels"]).double()
    return np.array([right[tensors["labels"] == label].mean().item() for label in range(classes)])


def per_clip_accuracy(rows: pd.DataFrame, run) -> np.ndarray:
    """[clips]: on which share of its seeds a method is right about each test clip, the folds one after the other.

    rows: of one dataset, method and setting; what `paired_bootstrap` wants of each side. ValueError for a mixture.
    """
    if (
        len(rows[["dataset", "method"]].drop_duplicates()) != 1
        or rows[["fold", "seed"]].duplicated().any()
    ):
        raise ValueError(
            "these rows are not of one dataset, method and setting: use select(rows, ...)"
        )
    folds: dict = {}
    for _, row in rows.iterrows():
        kept = load_tensors(row, run)
        folds.setdefault(str(row["fold"]), []).append(
            (kept["logits"].argmax(1) == kept["labels"]).double().numpy()
        )
    return np.concatenate([np.mean(folds[fold], axis=0) for fold in sorted(folds)])


def lambda_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a learned lambda: dataset, fold, seed, class_name, initial, learned."""
    rows = rows[rows["method"] == "palm"]
    columns = {"class_names": "class_name", "lambdas_initial": "initial", "lambdas": "learned"}
    frame = (
        rows[["dataset", "fold", "seed", *columns]].explode(list(columns)).rename(columns=columns)
    )
    return frame.astype({"initial": float, "learned": float}).reset_index(drop=True)
