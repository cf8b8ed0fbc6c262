"""What a result has to be measured against: chance, an untrained network, raw log-mels, and a linear probe.

Each control is a row like a unit's, on the same few-shot draw as PALM's, so that tables hold them side by side.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from palmkit import ZeroShot, draw_shots, embed, evaluate, list_folds, load_dataset, read_clip
from palmkit_synthetic.clips import log_mel

CHANCE = "chance"
RAW = "log-mel statistics, linear probe"
UNTRAINED = "untrained network, zero-shot"
UNTRAINED_PROBE = "untrained network, linear probe"
PROBE = "mini-PENGI, linear probe"
ALL = (CHANCE, UNTRAINED, RAW, UNTRAINED_PROBE, PROBE)


@functools.lru_cache(maxsize=20_000)
def statistics_of(path: str) -> np.ndarray:
    """[256]: per mel band the mean and spread of the log-mel over time, and the mean and spread of its change."""
    log_mels = log_mel(read_clip(path, crop="start")[None])[0].numpy()
    change = np.diff(log_mels, axis=0)
    return np.concatenate(
        [log_mels.mean(0), log_mels.std(0), np.abs(change).mean(0), change.std(0)]
    )


def raw_features(clips: pd.DataFrame) -> np.ndarray:
    """[n, 256] of `statistics_of`."""
    with ThreadPoolExecutor(2) as pool:
        return np.stack(list(pool.map(statistics_of, clips["path"])))


def linear_probe(train, train_labels, test, test_labels) -> float:
    """Accuracy of scikit-learn's logistic regression at its defaults, on standardised features."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return float(probe.fit(train, train_labels).score(test, test_labels))


def control_rows(
    pengi, random_pengi, dataset, folds="all", seeds=(0, 1, 2), shots: int = 16
) -> list[dict]:
    """Rows (dataset, method, fold, seed, accuracy) of every control. shots=-1: all training clips.

    pengi: the trained model. random_pengi: the same network untrained; its zero-shot needs one seed only.
    """
    rows = []
    for fold in list_folds(dataset) if folds == "all" else folds:
        data = load_dataset(dataset, fold)
        told = dict(dataset=data.name, fold=fold, shots=shots)
        labels = torch.tensor(list(data.test["label"]))
        test = {p: embed(p, data.test).features for p in (pengi, random_pengi)}
        zero_shot = evaluate(ZeroShot(random_pengi, data.class_names), test[random_pengi], labels)[
            "accuracy"
        ]
        rows.append(dict(told, method=CHANCE, seed=seeds[0], accuracy=1 / len(data.class_names)))
        rows.append(dict(told, method=UNTRAINED, seed=seeds[0], accuracy=zero_shot))
        for seed in seeds if shots > 0 else seeds[:1]:
            drawn = draw_shots(data.train, shots, seed)
            pairs = {RAW: (raw_features(drawn), raw_features(data.test))}
            pairs |= {UNTRAINED_PROBE: (embed(random_pengi, drawn).features, test[random_pengi])}
            pairs |= {PROBE: (embed(pengi, drawn).features, test[pengi])}
            for method, (train, tested) in pairs.items():
                accuracy = linear_probe(train, drawn["label"], tested, labels)
                rows.append(dict(told, method=method, seed=seed, accuracy=accuracy))
    return rows
