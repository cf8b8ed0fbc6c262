"""What the widgets compute, on tensors and DataFrames; nothing here knows of a screen.

`open_task` gives a dataset as an explorer needs it: its test clips embedded once, its methods trained once.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.manifold import TSNE

from palmkit.audio import AudioError, crop_clip, decode, read_bytes
from palmkit.data import Dataset, draw_shots
from palmkit.datasets.resolve import list_folds, load_dataset
from palmkit.embeddings import Embeddings, embed
from palmkit.experiments.rows import load_tensors
from palmkit.experiments.variations import principal_axes
from palmkit.methods import METHODS, UNLEARNED
from palmkit.methods.base import LOGIT_SCALE, Method, normalize
from palmkit.methods.zero_shot import ZERO_SHOT_PROMPT
from palmkit.models.encoders import tokenize
from palmkit.models.pengi import Pengi, load_pengi
from palmkit.results.confidence import confidence_frame, probabilities
from palmkit.results.tables import METHOD_NAMES, load_rows, split_settings
from palmkit.storage import data_root
from palmkit.training import fit, predict
from palmkit_synthetic import tasks

PROJECTIONS = ("PCA", "t-SNE")
_tasks: dict[tuple, Task] = {}
_opening = threading.Lock()
_seeding = (
    threading.Lock()
)  # methods draw from torch's one global generator, and several threads may train


class Stopped(Exception):
    """Somebody pressed Stop; raised by what a long work calls to tell how far it is."""


def unseen(done: int = 0, total: int = 0, text: str = "") -> None:
    """How long work tells its progress: a function like this one, which may raise Stopped."""


@contextlib.contextmanager
def held(lock, told, text: str):
    """Within a lock that somebody may hold for long; the wait for it can be stopped."""
    while not lock.acquire(timeout=0.1):
        told(0, 0, text)
    try:
        yield
    finally:
        lock.release()


@dataclass
class Run:
    """One training: its settings, the method as it is now, and what each epoch brought."""

    name: str
    settings: dict
    method: Method
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(
        default_factory=list
    )  # on the test clips; only if they were to be followed
    lambdas: list[list[float]] = field(default_factory=list)  # of PALM, likewise


@dataclass
class Task:
    """One fold of a dataset with its embedded test clips."""

    model: Pengi
    data: Dataset
    test: Embeddings
    runs: dict[tuple, Run] = field(default_factory=dict)
    training: dict[tuple, threading.Lock] = field(default_factory=dict)

    @property
    def class_names(self) -> list[str]:
        return self.data.class_names

    @functools.cached_property
    def clip_names(self) -> list[str]:
        return [self.data.relative(path).removeprefix("audios/") for path in self.test.paths]

    def accuracy(self, logits: torch.Tensor) -> float:
        return (logits.argmax(1) == self.test.labels).double().mean().item()

    def support(self, shots: int, seed: int, told=unseen) -> Embeddings:
        drawn = draw_shots(self.data.train, shots, seed)
        return embed(
            self.model,
            drawn,
            on_batch=lambda done, total: told(done, total, "embedding the training clips"),
        )

    def trained(
        self, name: str, told=unseen, shots: int = 16, seed: int = 0, epochs: int = 50
    ) -> Run:
        """A method at the paper's settings, trained at the first call for it."""
        key = name, shots, seed, epochs
        text = f"training {METHOD_NAMES[name]}"
        with held(
            self.training.setdefault(key, threading.Lock()), told, text
        ):  # by another widget, perhaps
            if key not in self.runs:
                settings = dict(shots=self.most_shots(shots), seed=seed, epochs=epochs, told=told)
                self.runs[key] = train(
                    self, name, **settings, on_epoch=lambda r: told(len(r.losses), epochs, text)
                )
            return self.runs[key]

    def most_shots(self, shots: int = 64) -> int:
        """As many, or as many as each class has."""
        return min(shots, int(self.data.train["label"].value_counts().min()))


def list_datasets() -> list[str]:
    """What can be opened by name: the generated datasets, and what is in the folder that PALMKIT_DATA tells."""
    there = {
        path.parent.name
        for kind in ("train.csv", "csv_files")
        for path in data_root().glob(f"*/{kind}")
    }
    return [*tasks.DEFAULT_TASKS, *sorted(there - {*tasks.DEFAULT_TASKS})]


def open_task(
    dataset="VocalSounds", model: Pengi | None = None, fold: int | None = None, told=unseen
) -> Task:
    """A dataset ready to be explored. pengi: mini-PENGI without one; fold: the first without one.

    The same split and model give the same Task, with what was trained before. Raises as `load_dataset` and `embed` do.
    """
    with held(_opening, told, "waiting for another dataset"):
        told(0, 0, "reading the dataset")
        if (
            str(dataset) in tasks.TASKS
            and not Path(dataset).exists()
            and not (data_root() / dataset).exists()
        ):
            text = f"{dataset} is made, for the first time; classes"
            tasks.build_tasks([str(dataset)], on_class=lambda done, total: told(done, total, text))
        fold = list_folds(dataset)[0] if fold is None else fold
        data = load_dataset(dataset, fold)
        model = model or _mini()
        test = embed(
            model,
            data.test,
            on_batch=lambda done, total: told(done, total, "embedding the test clips"),
        )
        key = id(model), data.name, fold, data.digest()
        return _tasks.setdefault(key, Task(model, data, test))


@functools.cache
def _mini() -> Pengi:
    return load_pengi("mini")


def train(
    task: Task,
    name="palm",
    shots=16,
    seed=0,
    lr=0.05,
    epochs=50,
    told=unseen,
    on_epoch=None,
    follow=False,
) -> Run:
    """Train a method by `fit`. on_epoch(run) after each epoch; follow: with accuracy and lambdas of each epoch."""
    learns = name not in UNLEARNED
    support = task.support(shots, seed, told) if learns else None
    with _seeding:
        method = METHODS[name](task.model, task.class_names, seed=seed)
    run = Run(name, dict(shots=shots, seed=seed, lr=lr, epochs=epochs), method)

    def after(_, loss):
        run.losses.append(loss)
        if follow:
            run.accuracies.append(task.accuracy(predict(run.method, task.test.features)))
            run.lambdas += [run.method.lambdas.tolist()] if hasattr(run.method, "lambdas") else []
        if on_epoch:
            on_epoch(run)

    if learns:
        fit(
            run.method,
            support.features,
            support.labels,
            lr=lr,
            epochs=epochs,
            seed=seed,
            on_epoch=after,
        )
    return run


# Sounds


@dataclass
class Sound:
    """A recording as the model hears it: file bytes, and the seven seconds of it with what comes of them."""

    name: str
    data: bytes
    waveform: torch.Tensor  # [308700]
    log_mel: torch.Tensor  # [frames, mel] in dB
    image: torch.Tensor  # [size, size]
    feature: torch.Tensor  # [dim], unit length


def clip_sound(task: Task, clip: int) -> Sound:
    """A test clip, cut where its embedding was cut."""
    path = task.test.paths[clip]
    data = read_bytes(path)
    waveform = crop_clip(decode(data, path), task.test.offsets[clip], path=path)[0]
    return _sound(task, task.clip_names[clip], data, waveform, task.test.features[clip])


def own_sound(task: Task, name: str, data: bytes) -> Sound:
    """A file of one's own from its bytes, its middle if it is long. Raises AudioError."""
    waveform = crop_clip(decode(data, name), "center", path=name)[0]
    if waveform.abs().max() == 0:
        raise AudioError(f"{name}: is silent; is the microphone on?")
    return _sound(task, name, data, waveform, task.model.encode_audio(waveform[None])[0].cpu())


@torch.inference_mode()
def _sound(task, name, data, waveform, feature) -> Sound:
    log_mel = task.model.audio.log_mel(waveform[None].to(task.model.device))
    image = task.model.audio.image(log_mel)[0, 0].cpu()
    return Sound(name, data, waveform, log_mel[0].cpu(), image, feature)


def mel_frequencies(model: Pengi) -> np.ndarray:
    """[mel] centre of each band in Hz, at the rate that the audio has and not the one the filters were made for."""
    mel = model.audio.mel.cpu().numpy().astype(float)  # [bins, mel]
    bins = np.arange(len(mel)) * 44_100 / len(model.audio.window)
    return bins @ mel / mel.sum(0)


def verdicts(logits: dict[str, torch.Tensor], class_names, top: int = 3) -> pd.DataFrame:
    """What each method says of one clip: its first classes with their probabilities, and the first's margin.

    logits: of each method, [c]. Columns: guess, margin, and classes, a list of (class, probability).
    """
    lines = {}
    for name, values in logits.items():
        p = probabilities(values[None])[0]
        order = np.argsort(-p, kind="stable")[:top]
        margin = p[order[0]] - p[order[1]]
        lines[name] = [class_names[order[0]], margin, [(class_names[n], p[n]) for n in order]]
    return pd.DataFrame.from_dict(lines, orient="index", columns=["guess", "margin", "classes"])


# Prompts


def prompts_of(template: str, names: list[str]) -> list[str]:
    """The prompt of each class. Raises ValueError with one sentence for what a classifier cannot have."""
    if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
        raise ValueError(
            "the template needs {} once, where the class name goes, and no other braces"
        )
    names = [name.strip() for name in names]
    if "" in names:
        raise ValueError(f"class {names.index('') + 1} has no name")
    if len({name.lower() for name in names}) < len(names):
        twice = next(
            name
            for n, name in enumerate(names)
            if name.lower() in [other.lower() for other in names[:n]]
        )
        raise ValueError(f"two classes are called {twice}")
    return [template.format(name) for name in names]


def count_tokens(prompts: list[str]) -> list[int]:
    """Tokens of each prompt with its start and end, also where they are more than the text encoder takes."""
    return tokenize(prompts, max_tokens=max(map(len, prompts)) * 4 + 2)[1].sum(1).tolist()


def prompt_logits(task: Task, prompts: list[str]) -> torch.Tensor:
    """[clips, c] of the test clips under these prompts: text is encoded, audio is not."""
    return LOGIT_SCALE * task.test.features @ task.model.encode_text(prompts).cpu().T


def confusion(logits, labels) -> np.ndarray:
    """[c, c] clips of a class (row) that were taken for a class (column)."""
    c = logits.shape[1]
    return (
        torch.bincount(torch.as_tensor(labels) * c + logits.argmax(1), minlength=c * c)
        .reshape(c, c)
        .numpy()
    )


# Lambda


@torch.no_grad()
def mixed_text(palm, lambdas) -> torch.Tensor:
    """PALM's text embeddings [..., c, dim] at other lambdas [..., c]: unit((1 - lambda) f + lambda z)."""
    weight = torch.as_tensor(lambdas, dtype=torch.float32)[..., None]
    return normalize((1 - weight) * palm.f.cpu() + weight * palm.z.detach().cpu())


# Two dimensions


class Plane:
    """A plane in the joint space: `plane(x)` are the coordinates of x [..., dim] in it."""

    def __init__(self, axes: torch.Tensor, origin=0.0):
        self.axes, self.origin = axes, origin  # [dim, 2]

    @classmethod
    def principal(cls, vectors: torch.Tensor) -> Plane:
        """That in which [n, dim] vectors vary most."""
        return cls(principal_axes(vectors, 2), vectors.mean(0))

    @classmethod
    @torch.no_grad()
    def of_class(cls, palm, label: int) -> Plane:
        """That of a class's f and z: the first axis is f, the second what of z is at a right angle to f. The class's
        mixed text never leaves this plane, so its logits are 100 times a product that can be seen in it."""
        f, z = palm.f[label].cpu(), palm.z[label].detach().cpu()
        return cls(torch.stack([f, normalize(z - (z @ f) * f)], 1))

    def __call__(self, x) -> np.ndarray:
        return ((x - self.origin) @ self.axes).numpy()


def project(vectors: torch.Tensor, kind: str = "PCA") -> np.ndarray:
    """[n, dim] -> [n, 2] by PCA, or by t-SNE (of cosine distances, seeded), in which only neighbourhoods mean much."""
    if kind not in PROJECTIONS:
        raise ValueError(f"there is no projection {kind!r}; there are {', '.join(PROJECTIONS)}")
    if kind == "PCA":
        return Plane.principal(vectors)(vectors)
    perplexity = min(30, (len(vectors) - 1) / 3)
    return TSNE(
        metric="cosine", init="random", perplexity=perplexity, random_state=0
    ).fit_transform(vectors.numpy())


def map_texts(task: Task, told=unseen) -> dict[str, torch.Tensor]:
    """The text embeddings that a map can show, [c, dim] each."""
    prompts = [ZERO_SHOT_PROMPT.format(name) for name in task.class_names]
    palm = task.trained("palm", told).method
    return {
        "prompts (zero-shot)": task.model.encode_text(prompts).cpu(),
        "class names alone": palm.f.cpu(),
        "PALM, learned": mixed_text(palm, palm.lambdas.detach().cpu()),
    }


# Errors


def run_logits(task: Task, run, seed: int = 0) -> dict[str, torch.Tensor]:
    """Test logits of each method in `runs/RUN`, of this dataset and fold. ValueError where there are none, or where
    they are of other clips."""
    rows = load_rows(run)
    rows = rows[
        (rows["dataset"] == task.data.name)
        & (rows["fold"].isna() | (rows["fold"] == task.data.fold))
    ]
    rows = rows[(rows["seed"] == seed) | rows["method"].isin(UNLEARNED)]
    if len(groups := split_settings(rows)) > 1:
        raise ValueError(
            f"the run {run} has several settings there: {'; '.join(label for label, _ in groups)}"
        )
    found = {row["method"]: load_tensors(row, run) for _, row in rows.iterrows()}
    if not found:
        raise ValueError(
            f"the run {run} has no row of {task.data.name}, fold {task.data.fold}, seed {seed}"
        )
    if any(not torch.equal(kept["labels"], task.test.labels) for kept in found.values()):
        raise ValueError(f"the run {run} was tested on other clips than {task.data.name} has now")
    return {name: found[name]["logits"] for name in METHODS if name in found}


def worst_mistakes(logits: torch.Tensor, labels) -> pd.DataFrame:
    """Wrong test clips, the worst first: clip, label, guess, confidence, and gap, by how much the guess's logit exceeds
    the true class's (which still tells apart what the softmax calls 1.00)."""
    frame = confidence_frame(logits, labels).rename_axis("clip").reset_index()
    frame["gap"] = (
        logits.max(1).values - logits.gather(1, torch.as_tensor(labels)[:, None])[:, 0]
    ).numpy()
    wrong = frame[~frame["right"]].sort_values("gap", ascending=False, kind="stable")
    return wrong[["clip", "label", "guess", "confidence", "gap"]].reset_index(drop=True)
