"""Results by class and by clip."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from palmkit.experiments.rows import load_tensors

LAMBDA_FIELDS = {"class_names": "class_name", "lambdas_initial": "initial", "lambdas": "learned"}


def class_frame(rows: pd.DataFrame, run, model) -> pd.DataFrame:
    """One line for each class of each PALM row.

    Columns: dataset, fold, seed, shots, class_name, initial and learned (lambda), recall, z_norm,
    angle (degrees between f and f'), and zeroshot: the recall of the zero-shot row of the same
    fold, NaN if `rows` has none. rows: with class_names and lambdas (`details=True`).
    """
    zero_shot = {
        _fold(row): _recalls(load_tensors(row, run), len(row["class_names"]))
        for _, row in rows[rows["method"] == "zeroshot"].iterrows()
    }
    frames = []
    for _, row in rows[rows["method"] == "palm"].iterrows():
        tensors = load_tensors(row, run)
        f, z = model.encode_text(row["class_names"]).cpu(), tensors["prompt.ctx"]
        weight = torch.tensor(row["lambdas"])[:, None]
        cosine = F.cosine_similarity(f, (1 - weight) * f + weight * z).clamp(-1, 1)
        columns = {name: row[name] for name in ("dataset", "fold", "seed", "shots")}
        columns |= {short: row[name] for name, short in LAMBDA_FIELDS.items()}
        columns |= {
            "recall": _recalls(tensors, len(f)),
            "zeroshot": zero_shot.get(_fold(row), np.nan),
            "z_norm": z.norm(dim=1).numpy(),
            "angle": torch.rad2deg(cosine.acos()).numpy(),
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def _fold(row) -> tuple[str, str]:
    return row["dataset"], str(row["fold"])


def _recalls(tensors, classes: int) -> np.ndarray:
    right = (tensors["logits"].argmax(1) == tensors["labels"]).double()
    return np.array([right[tensors["labels"] == label].mean().item() for label in range(classes)])


def per_clip_accuracy(rows: pd.DataFrame, run) -> np.ndarray:
    """[clips]: for each test clip, the share of seeds that are right; folds one after the other.

    rows: of one dataset, method and setting; otherwise raises ValueError. The result is an argument
    of `paired_bootstrap`.
    """
    kinds = rows[["dataset", "method"]].drop_duplicates()
    if len(kinds) != 1 or rows[["fold", "seed"]].duplicated().any():
        raise ValueError(
            "these rows are not of one dataset, method and setting: use select(rows, ...)"
        )
    folds: dict[str, list] = {}
    for _, row in rows.iterrows():
        tensors = load_tensors(row, run)
        right = (tensors["logits"].argmax(1) == tensors["labels"]).double().numpy()
        folds.setdefault(str(row["fold"]), []).append(right)
    return np.concatenate([np.mean(folds[fold], axis=0) for fold in sorted(folds)])


def lambda_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each learned lambda: dataset, fold, seed, class_name, initial, learned.

    rows: with class_names and lambdas (`details=True`).
    """
    rows = rows.loc[rows["method"] == "palm", ["dataset", "fold", "seed", *LAMBDA_FIELDS]]
    frame = rows.explode(list(LAMBDA_FIELDS)).rename(columns=LAMBDA_FIELDS)
    return frame.astype({"initial": float, "learned": float}).reset_index(drop=True)
