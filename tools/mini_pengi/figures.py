"""Every figure of a mini-PENGI's model card, as rows.

Choices may be made on the generated tasks. ESC-10, which is real, is measured last and decides
nothing.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mini_pengi.controls import control_rows
from mini_pengi.descriptions import WORDINGS
from mini_pengi.pretrain import untrained
from palmkit import ZeroShot, embed, evaluate, load_dataset, load_pengi, predict
from palmkit.datasets.resolve import choose_folds
from palmkit.experiments.run import run_trials
from palmkit.experiments.trials import Trial, make_grid
from palmkit_synthetic.concepts import TRAINING
from palmkit_synthetic.tasks import DEFAULT_TASKS, TASKS

UNSEEN = "UnseenConcepts"
COLUMNS = ["training_seed", "kind", "dataset", "method", "fold", "seed", "shots", "n", "accuracy"]


def measure(folder: Path, training_seed: int, esc10: Path | None = None) -> pd.DataFrame:
    """All figures of the checkpoint in `folder`, kept as `figures.csv` there.

    Rows have COLUMNS. kind: "method" (trials at the paper's settings), "control", "wording"
    (zero-shot; the method is the prompt) or "unseen" (zero-shot among held-out concepts, the
    accuracy of one class; the method is the class).
    """
    pengi, random_pengi = load_pengi(folder / "mini.safetensors", "cpu"), untrained(training_seed)
    real = [] if esc10 is None else [str(esc10)]
    others = [name for name in TASKS if name not in DEFAULT_TASKS]
    trials = make_grid("all", [*DEFAULT_TASKS, *real])
    trials += make_grid(["zeroshot", "coop", "palm"], others)
    found = [trial_rows(trials, pengi, folder)]
    for dataset in [*DEFAULT_TASKS, *others, *real]:
        controls = pd.DataFrame(control_rows(pengi, random_pengi, dataset))
        found.append(controls.assign(kind="control"))
        found.append(pd.DataFrame(wording_rows(pengi, dataset)).assign(kind="wording"))
    found.append(pd.DataFrame(unseen_rows(pengi)).assign(kind="unseen"))
    return save_figures(found, folder, training_seed)


def trial_rows(trials: list[Trial], model, folder: Path) -> pd.DataFrame:
    """Run trials, with what is kept of them in `folder`; their rows, of the kind "method"."""
    rows = pd.DataFrame(run_trials(trials, model, folder / "runs"))
    chosen = rows[["dataset", "method", "fold", "seed", "shots", "accuracy"]]
    return chosen.assign(kind="method", n=rows["n_test"])


def save_figures(found: list[pd.DataFrame], folder: Path, training_seed: int) -> pd.DataFrame:
    """Tables of figures as one with COLUMNS, kept as `figures.csv` in `folder`."""
    figures = pd.concat(found).assign(training_seed=training_seed)[COLUMNS]
    figures.to_csv(folder / "figures.csv", index=False, float_format="%.6f")
    return figures


def wording_rows(pengi, dataset, prompts=WORDINGS) -> list[dict]:
    """Zero-shot accuracy of each prompt on each fold."""
    rows = []
    for fold in choose_folds(dataset):
        data = load_dataset(dataset, fold)
        test = embed(pengi, data.test)
        for prompt in prompts:
            method = ZeroShot(pengi, data.class_names, prompt=prompt)
            accuracy = evaluate(method, test.features, test.labels)["accuracy"]
            row = {"dataset": data.name, "fold": fold, "method": prompt}
            rows.append(row | {"accuracy": accuracy, "n": len(test.labels)})
    return rows


def is_new(name: str) -> bool:
    """Whether a name has a word that no training caption has: its token embedding is untrained."""
    names = [known for concept in TRAINING.values() for known in concept.names]
    known_words = {word for known in names for word in known.lower().split()}
    return bool(set(name.lower().split()) - known_words)


def unseen_rows(pengi) -> list[dict]:
    """Zero-shot accuracy of each held-out concept among all of them.

    dataset: in which way the concept is new.
    """
    rows = []
    for fold in choose_folds(UNSEEN):
        data = load_dataset(UNSEEN, fold)
        test = embed(pengi, data.test)
        right = predict(ZeroShot(pengi, data.class_names), test.features).argmax(1) == test.labels
        for label, name in enumerate(data.class_names):
            chosen = test.labels == label
            kind = "with a new word" if is_new(name) else "known words, combined"
            row = {"dataset": kind, "fold": fold, "method": name, "n": int(chosen.sum())}
            rows.append(row | {"accuracy": right[chosen].double().mean().item()})
    return rows
