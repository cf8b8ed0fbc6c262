"""What a result is measured against: chance, an untrained network, log-mels, a linear probe.

Each control is a row like a trial's, on the same few-shot draw as PALM's, so that tables hold them
side by side.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mini_pengi.front_end import log_mel
from palmkit import ZeroShot, draw_shots, embed, evaluate, list_folds, load_dataset, read_clip

CHANCE = "chance"
RAW = "log-mel statistics, linear probe"
UNTRAINED = "untrained network, zero-shot"
UNTRAINED_PROBE = "untrained network, linear probe"
PROBE = "mini-PENGI, linear probe"
ALL = (CHANCE, UNTRAINED, RAW, UNTRAINED_PROBE, PROBE)


@functools.lru_cache(maxsize=20_000)
def statistics_of(path: str) -> np.ndarray:
    """[256]: mean and spread over time, per mel band, of the log-mel and of its change."""
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
    """Rows (dataset, method, fold, shots, seed, accuracy) of every control.

    pengi: the trained model.
    random_pengi: the same network untrained; its zero-shot needs one seed only.
    shots: -1 is all training clips.
    """
    rows = []
    for fold in list_folds(dataset) if folds == "all" else folds:
        data = load_dataset(dataset, fold)
        settings = {"dataset": data.name, "fold": fold, "shots": shots}
        found = _zero_shot_controls(random_pengi, data, seeds[0])
        for seed in seeds if shots > 0 else seeds[:1]:
            found += _probe_controls(pengi, random_pengi, data, shots, seed)
        rows += [settings | row for row in found]
    return rows


def _zero_shot_controls(random_pengi, data, seed: int) -> list[dict]:
    """Chance, and the untrained network's zero-shot."""
    test = embed(random_pengi, data.test)
    method = ZeroShot(random_pengi, data.class_names)
    accuracy = evaluate(method, test.features, test.labels)["accuracy"]
    return [
        {"method": CHANCE, "seed": seed, "accuracy": 1 / len(data.class_names)},
        {"method": UNTRAINED, "seed": seed, "accuracy": accuracy},
    ]


def _probe_controls(pengi, random_pengi, data, shots: int, seed: int) -> list[dict]:
    """Linear probes on log-mels, on the untrained network and on the trained one."""
    drawn, rows = draw_shots(data.train, shots, seed), []
    features = {
        RAW: raw_features,
        UNTRAINED_PROBE: lambda clips: embed(random_pengi, clips).features,
        PROBE: lambda clips: embed(pengi, clips).features,
    }
    for method, extract in features.items():
        train, test = extract(drawn), extract(data.test)
        accuracy = linear_probe(train, drawn["label"], test, list(data.test["label"]))
        rows.append({"method": method, "seed": seed, "accuracy": accuracy})
    return rows
