"""How well a mini-PENGI hears: every figure of its model card, as rows.

The generated tasks are what choices may be made on. ESC-10, which is real, is measured last and decides nothing.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mini_pengi.controls import control_rows
from mini_pengi.pretrain import untrained
from palmkit import ZeroShot, embed, evaluate, load_dataset, load_pengi, predict
from palmkit.datasets.resolve import choose_folds
from palmkit.experiments.run import run_trials
from palmkit.experiments.trials import make_grid
from palmkit_synthetic.concepts import TRAINING
from palmkit_synthetic.tasks import DEFAULT_TASKS, TASKS

WORDINGS = (
    "The is a recording of  {}.", "This is a recording of {}.", "{}", "the sound of {}", "I can hear {}.",
    "a noisy recording of {}",
)  # fmt: skip
UNSEEN = "UnseenConcepts"
COLUMNS = ["training_seed", "kind", "dataset", "method", "fold", "seed", "shots", "n", "accuracy"]


def measure(folder: Path, training_seed: int, esc10: Path | None = None) -> pd.DataFrame:
    """All figures of the checkpoint in `folder`, kept as `figures.csv` there. Rows have COLUMNS.

    kind: "method" (units at the paper's settings), "control", "wording" (zero-shot; the method is the prompt) or
    "unseen" (zero-shot among held-out concepts, the accuracy of one class; the method is the class).
    """
    pengi, random_pengi = load_pengi(folder / "mini.safetensors", "cpu"), untrained(training_seed)
    real = [] if esc10 is None else [str(esc10)]
    others = [name for name in TASKS if name not in DEFAULT_TASKS]
    units = make_grid("all", [*DEFAULT_TASKS, *real]) + make_grid(
        ["zeroshot", "coop", "palm"], others
    )
    rows = pd.DataFrame(run_trials(units, pengi, folder / "runs", told=print))
    found = [
        rows[["dataset", "method", "fold", "seed", "shots", "accuracy"]].assign(
            kind="method", n=rows["n_test"]
        )
    ]
    for dataset in [*DEFAULT_TASKS, *others, *real]:
        found.append(
            pd.DataFrame(control_rows(pengi, random_pengi, dataset)).assign(kind="control")
        )
        found.append(pd.DataFrame(wording_rows(pengi, dataset)).assign(kind="wording"))
    found.append(pd.DataFrame(unseen_rows(pengi)).assign(kind="unseen"))
    figures = pd.concat(found).assign(training_seed=training_seed)[COLUMNS]
    figures.to_csv(folder / "figures.csv", index=False, float_format="%.6f")
    return figures


def wording_rows(pengi, dataset) -> list[dict]:
    """Zero-shot accuracy of each prompt on each fold."""
    rows = []
    for fold in choose_folds(dataset):
        data = load_dataset(dataset, fold)
        test = embed(pengi, data.test)
        for prompt in WORDINGS:
            accuracy = evaluate(
                ZeroShot(pengi, data.class_names, prompt), test.features, test.labels
            )["accuracy"]
            rows.append(
                dict(
                    dataset=data.name,
                    fold=fold,
                    method=prompt,
                    accuracy=accuracy,
                    n=len(test.labels),
                )
            )
    return rows


def is_new(name: str) -> bool:
    """Whether a name has a word that no training caption has: its token embedding is as random as it began."""
    heard = {
        word
        for concept in TRAINING.values()
        for known in concept.names
        for word in known.lower().split()
    }
    return bool(set(name.lower().split()) - heard)


def unseen_rows(pengi) -> list[dict]:
    """Zero-shot accuracy of each held-out concept among all of them; dataset says which kind of new it is."""
    rows = []
    for fold in choose_folds(UNSEEN):
        data = load_dataset(UNSEEN, fold)
        test = embed(pengi, data.test)
        right = predict(ZeroShot(pengi, data.class_names), test.features).argmax(1) == test.labels
        for label, name in enumerate(data.class_names):
            own = test.labels == label
            kind = "with a new word" if is_new(name) else "known words, combined"
            accuracy = right[own].double().mean().item()
            rows.append(
                dict(dataset=kind, fold=fold, method=name, accuracy=accuracy, n=int(own.sum()))
            )
    return rows
