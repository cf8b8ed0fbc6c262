"""Results by class and by clip."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from palmkit.experiments.rows import load_tensors

LAMBDA_FIELDS = {
    "class_names": "class_name",
    "lambdas_initial": "initial",
    "lambdas": "learned",
}
CLASS_COLUMNS = (
    *("dataset", "fold", "seed", "shots", *LAMBDA_FIELDS.values()),
    *("recall", "zeroshot", "z_norm", "angle"),
)


def class_frame(rows: pd.DataFrame, run, model) -> pd.DataFrame:
    """One line for each class of each PALM row.

    Columns: dataset, fold, seed, shots, class_name, initial and learned (lambda), recall, z_norm,
    angle (degrees between f and f'), and zeroshot: the recall of the zero-shot row of the same
    fold, NaN if `rows` has none. rows: with class_names and lambdas (`details=True`).
    """
    zero_shot = {}
    for _, row in rows[rows["method"] == "zeroshot"].iterrows():
        tensors = load_tensors(row, run)
        zero_shot[_fold(row)] = _recalls(tensors, len(row["class_names"]))
    frames = []
    for _, row in rows[rows["method"] == "palm"].iterrows():
        f = model.encode_text(row["class_names"]).cpu()
        frame = _palm_frame(row, load_tensors(row, run), f)
        frames.append(frame.assign(zeroshot=zero_shot.get(_fold(row), np.nan)))
    return pd.concat(frames, ignore_index=True)[list(CLASS_COLUMNS)]


def _palm_frame(row, tensors, f: torch.Tensor) -> pd.DataFrame:
    """One line for each class of a PALM row. f: its text embeddings [classes, dim]."""
    z = tensors["prompt.ctx"]
    weight = torch.tensor(row["lambdas"])[:, None]
    mixed = (1 - weight) * f + weight * z
    cosine = F.cosine_similarity(f, mixed).clamp(-1, 1)
    columns = {name: row[name] for name in ("dataset", "fold", "seed", "shots")}
    for field, column in LAMBDA_FIELDS.items():
        columns[column] = row[field]
    columns["recall"] = _recalls(tensors, len(f))
    columns["z_norm"] = z.norm(dim=1).numpy()
    columns["angle"] = torch.rad2deg(cosine.acos()).numpy()
    return pd.DataFrame(columns)


def _fold(row) -> tuple[str, str]:
    return row["dataset"], str(row["fold"])


def _right(tensors) -> torch.Tensor:
    """[clips] 1.0 where a test clip's class is predicted, else 0.0."""
    predicted = tensors["logits"].argmax(1)
    return (predicted == tensors["labels"]).double()


def _recalls(tensors, classes: int) -> np.ndarray:
    """[classes]: the share of each class's test clips that are right."""
    right = _right(tensors)
    labels = tensors["labels"]
    return np.array([right[labels == label].mean().item() for label in range(classes)])


def right_by_seed(rows: pd.DataFrame, run) -> np.ndarray:
    """[seeds, clips]: 1 where a seed is right about a test clip, else 0; folds one after the other.

    rows: of one dataset, method and setting, with the same folds for each seed; otherwise raises
    ValueError. The result, or the difference of two, is an argument of `seed_clip_interval`.
    """
    _check_one_setting(rows)
    rows = rows.assign(fold_name=rows["fold"].map(str)).sort_values(["seed", "fold_name"])
    folds = rows.groupby("seed")["fold_name"].agg(tuple)
    if folds.nunique() != 1:
        raise ValueError("seeds have different folds: choose seeds that have all of them")
    seeds = [
        np.concatenate([_right(load_tensors(row, run)).numpy() for _, row in part.iterrows()])
        for _, part in rows.groupby("seed")
    ]
    return np.stack(seeds)


def _check_one_setting(rows: pd.DataFrame) -> None:
    kinds = rows[["dataset", "method"]].drop_duplicates()
    repeated = rows.duplicated(["fold", "seed"])
    if len(kinds) != 1 or repeated.any():
        raise ValueError(
            "these rows are not of one dataset, method and setting: use select(rows, ...)"
        )


def per_clip_accuracy(rows: pd.DataFrame, run) -> np.ndarray:
    """[clips]: for each test clip, the share of seeds that are right; folds one after the other.

    rows: of one dataset, method and setting; otherwise raises ValueError. The result is an argument
    of `paired_bootstrap`.
    """
    _check_one_setting(rows)
    folds: dict[str, list] = {}
    for _, row in rows.iterrows():
        right = _right(load_tensors(row, run))
        folds.setdefault(str(row["fold"]), []).append(right.numpy())
    shares = [np.mean(folds[fold], axis=0) for fold in sorted(folds)]
    return np.concatenate(shares)


def lambda_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each learned lambda: dataset, fold, seed, class_name, initial, learned.

    rows: with class_names and lambdas (`details=True`).
    """
    columns = ["dataset", "fold", "seed", *LAMBDA_FIELDS]
    palm = rows.loc[rows["method"] == "palm", columns]
    frame = palm.explode(list(LAMBDA_FIELDS)).rename(columns=LAMBDA_FIELDS)
    frame = frame.astype({"initial": float, "learned": float})
    return frame.reset_index(drop=True)
