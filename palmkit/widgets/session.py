"""What the widgets compute, on tensors and DataFrames. Nothing here draws.

`open_task` opens a dataset: its test clips are embedded once, and its methods trained once.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from sklearn.manifold import TSNE

from palmkit.audio import (
    AudioError,
    clip_policy,
    count_samples,
    open_file,
    read_crop,
    resampled_length,
)
from palmkit.data import Dataset, draw_shots
from palmkit.datasets.resolve import list_folds, load_dataset
from palmkit.embeddings import Embeddings, embed
from palmkit.experiments.one_trial import class_lambdas
from palmkit.experiments.rows import load_tensors
from palmkit.experiments.variations import principal_axes
from palmkit.methods import get_method, list_methods
from palmkit.methods.base import Method, normalize
from palmkit.models import AudioTextModel, load_model
from palmkit.models.encoders import tokenize
from palmkit.models.pair import each_encoder
from palmkit.models.pengi import Pengi
from palmkit.results.confidence import confidence_frame, probabilities
from palmkit.results.method_style import is_transductive, learns, method_categories
from palmkit.results.tables import load_rows, split_settings
from palmkit.results.versions import (
    describe_duplicates,
    drop_repeats,
    is_duplicate,
    mark_versions,
    versioned_datasets,
)
from palmkit.sound_files import open_sound
from palmkit.storage import data_root, path_exists
from palmkit.training import fit, predict
from palmkit_synthetic import tasks

PROJECTIONS = ("PCA", "t-SNE")
# A clip that the model takes as a whole is played from its own file, if browsers play it.
PLAYABLE = (".wav", ".wave", ".mp3", ".ogg", ".oga", ".opus", ".flac")
LARGE = 2**21  # bytes; a larger file is not sent to a browser
_tasks: dict[tuple, Task] = {}
_opening = threading.Lock()
# Methods draw from torch's one global generator, and several threads may train.
_seeding = threading.Lock()


class Stopped(Exception):
    """Somebody pressed Stop. A progress callback raises it."""


def no_progress(done: int = 0, total: int = 0, text: str = "") -> None:
    """A progress callback that does nothing. Others show a message, and may raise Stopped."""


@contextlib.contextmanager
def locked(lock, on_progress, text: str):
    """Hold a lock that somebody may hold for long. The wait for it can be stopped."""
    while not lock.acquire(timeout=0.1):
        on_progress(0, 0, text)
    try:
        yield
    finally:
        lock.release()


@dataclass
class Run:
    """One training: its settings, the method in its present state, and the results of each epoch.

    accuracies (on the test clips) and lambdas (of PALM) are empty unless the training is tracked.
    A method with a fit of its own has its own number of epochs; without any, as a closed form,
    losses is empty, and the result is tracked once.
    """

    name: str
    settings: dict
    method: Method
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    lambdas: list[list[float]] = field(default_factory=list)


@dataclass
class Task:
    """One fold of a dataset with its embedded test clips."""

    model: AudioTextModel
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

    @functools.cached_property
    def features(self) -> torch.Tensor:
        """[clips, dim] embeddings of the test clips, in the type that the model's texts have."""
        return self.test.features.to(self.model.dtype)

    def accuracy(self, logits: torch.Tensor) -> float:
        return (logits.argmax(1) == self.test.labels).double().mean().item()

    def support(self, shots: int, seed: int, on_progress=no_progress) -> Embeddings:
        """Embeddings of `shots` training clips of each class."""
        drawn = draw_shots(self.data.train, shots, seed)
        on_batch = _on_batch(on_progress, "embedding the training clips")
        return embed(self.model, drawn, on_progress=on_batch)

    def trained(self, name: str, on_progress=no_progress, shots=16, seed=0, epochs=50) -> Run:
        """A method at the paper's settings. The first call trains it."""
        key = name, shots, seed, epochs
        text = f"training {get_method(name).label}"
        total = 0 if get_method(name).own_fit else epochs
        lock = self.training.setdefault(key, threading.Lock())
        with locked(lock, on_progress, text):  # another widget may be training it
            if key not in self.runs:
                self.runs[key] = train(
                    self,
                    name,
                    shots=self.max_shots(shots),
                    seed=seed,
                    epochs=epochs,
                    on_progress=on_progress,
                    on_epoch=lambda run: on_progress(len(run.losses), total, text),
                )
            return self.runs[key]

    def max_shots(self, shots: int = 64) -> int:
        """`shots`, or as many clips as the smallest class has."""
        return min(shots, int(self.data.train["label"].value_counts().min()))


def _on_batch(on_progress, text: str):
    return lambda done, total: on_progress(done, total, text)


def list_datasets() -> list[str]:
    """Datasets that can be opened by name: the generated ones, and those in PALMKIT_DATA."""
    found = [*data_root().glob("*/train.csv"), *data_root().glob("*/csv_files")]
    names = {path.parent.name for path in found}
    return [*tasks.DEFAULT_TASKS, *sorted(names - {*tasks.DEFAULT_TASKS})]


def open_task(
    dataset="VocalSounds",
    model: AudioTextModel | None = None,
    fold: int | None = None,
    on_progress=no_progress,
) -> Task:
    """Load a dataset and embed its test clips.

    model: None for mini-PENGI. fold: None for the first one.
    The same split and model give the same Task, with the methods that it has trained.
    Raises as `load_dataset` and `embed` do.
    """
    with locked(_opening, on_progress, "waiting for another dataset"):
        on_progress(0, 0, "reading the dataset")
        _generate(dataset, on_progress)
        fold = list_folds(dataset)[0] if fold is None else fold
        data = load_dataset(dataset, fold)
        model = model or _mini()
        on_batch = _on_batch(on_progress, "embedding the test clips")
        test = embed(model, data.test, on_progress=on_batch)
        # The model itself, not its digest: two copies may be on two devices.
        key = model, data.name, fold, data.digest()
        return _tasks.setdefault(key, Task(model, data, test))


def _generate(dataset, on_progress) -> None:
    """Generate a default dataset at its first use, with progress by class."""
    name = str(dataset)
    is_folder = path_exists(name) or path_exists(data_root() / name)
    if name in tasks.TASKS and not is_folder:
        text = f"generating {name} for the first time; classes"
        tasks.build_tasks([name], on_class=_on_batch(on_progress, text))


@functools.cache
def _mini() -> AudioTextModel:
    return load_model("mini")


def bench_methods() -> dict[str, type[Method]]:
    """The methods that the benches train, by name: those on embeddings of one model. So neither
    ASPL nor the product kernel.
    """
    return {
        name: cls for name, cls in list_methods().items() if not (cls.tunes_audio or cls.needs_pair)
    }


def train(
    task: Task,
    name="palm",
    shots=16,
    seed=0,
    lr=0.05,
    epochs=50,
    on_progress=no_progress,
    on_epoch=None,
    track=False,
) -> Run:
    """Train a method by `fit`.

    lr, epochs: not of methods with a fit of their own. on_epoch(run): called after each epoch, and
    once for a method without epochs. track: record accuracy and lambdas then.
    """
    cls = get_method(name)
    if cls.tunes_audio:
        raise ValueError(f"{cls.label} learns inside the audio encoder: use `palmkit run`")
    support = task.support(shots, seed, on_progress) if cls.learns else None
    with _seeding:
        method = cls(task.model, task.class_names, seed=seed)
    run = Run(name, dict(shots=shots, seed=seed, lr=lr, epochs=epochs), method)

    def record():
        if track:
            run.accuracies.append(task.accuracy(predict(run.method, task.test.features)))
            lambdas = class_lambdas(run.method)
            if lambdas is not None:
                run.lambdas.append(lambdas)
        if on_epoch:
            on_epoch(run)

    def after_epoch(_, loss):
        run.losses.append(loss)
        record()

    if cls.learns:
        settings = dict(lr=lr, epochs=epochs, seed=seed, on_epoch=after_epoch)
        on_progress(0, 0, f"training {cls.label}")
        fit(run.method, support.features, support.labels, **settings)
    if not run.losses:
        record()
    return run


def answer(task: Task, method: Method, feature, clip: int | None = None) -> torch.Tensor:
    """Logits [c] of one clip with this embedding [dim]; clip: its number, if it is a test clip.

    A transductive method classifies it together with all test clips.
    """
    if not method.transductive:
        return predict(method, feature[None])[0]
    if clip is not None:
        return predict(method, task.test.features)[clip]
    return predict(method, torch.cat([task.test.features, feature[None].to(task.test.features)]))[
        -1
    ]


# Recordings


@dataclass
class ClipSound:
    """One clip of an audio file: what the model takes, and what a player plays.

    data: a file of the seconds that the model takes. name: of that file.
    """

    name: str
    data: bytes
    waveform: torch.Tensor  # [samples]


@dataclass
class Recording:
    """An audio file's clip, and what the model makes of it.

    data, sound_name: the sound for a player, as `ClipSound` has it. log_mel and image are None for
    a model that does not have PENGI's input.
    """

    name: str
    data: bytes
    waveform: torch.Tensor  # [samples]
    feature: torch.Tensor  # [dim], unit length
    sound_name: str
    log_mel: torch.Tensor | None = None  # [frames, mel] in dB
    image: torch.Tensor | None = None  # [size, size]


def clip_sound(task: Task, clip: int) -> ClipSound:
    """A test clip, cropped as it was for its embedding. Raises AudioError."""
    path = task.test.paths[clip]
    with open_file(path) as file:
        return _read_sound(task.model, file, path, task.test.offsets[clip])


def clip_recording(task: Task, clip: int) -> Recording:
    """A test clip, cropped as it was for its embedding."""
    played = clip_sound(task, clip)
    return _recording(task, task.clip_names[clip], played, task.test.features[clip])


def uploaded_recording(task: Task, name: str, data: bytes) -> Recording:
    """A file from its bytes. The center of a long one is taken. Raises AudioError."""
    played = _read_sound(task.model, io.BytesIO(data), name, "center")
    if played.waveform.abs().max() == 0:
        raise AudioError(f"{name}: is silent; is the microphone on?")
    feature = _encode_sound(task.model, name, data)
    return _recording(task, name, played, feature)


def _encode_sound(model, name: str, data: bytes) -> torch.Tensor:
    """[dim] embedding of a file from its bytes, as `embed` has it with crop="center"."""
    parts = []
    for encoder, crop, _ in each_encoder(model, "center"):
        waveform = _read_sound(encoder, io.BytesIO(data), name, crop).waveform
        parts.append(encoder.encode_audio(waveform[None])[0].cpu())
    return parts[0] if len(parts) == 1 else model.join(parts)


def _read_sound(model, file, path, crop) -> ClipSound:
    rate, samples = model.sample_rate, count_samples(model.clip_seconds, model.sample_rate)
    policy = clip_policy(model)
    waveform, _ = read_crop(file, path, rate, samples, crop, **policy)
    with open_sound(file, path) as sound:
        times = sound.channels if policy["channels"] == "join" else 1
        length = resampled_length(sound.frames, sound.rate, rate) * times or samples
    name, size = Path(str(path)).name, file.seek(0, os.SEEK_END)
    if length <= samples and size <= LARGE and Path(name).suffix.lower() in PLAYABLE:
        file.seek(0)
        return ClipSound(name, file.read(), waveform)
    target = io.BytesIO()
    peak = max(1.0, float(waveform.abs().max()))  # louder sound would be cut off
    samples_played = waveform[:length].numpy() / peak
    soundfile.write(target, samples_played, rate, format="WAV", subtype="PCM_16")
    return ClipSound(f"{name}.wav", target.getvalue(), waveform)


@torch.inference_mode()
def _recording(task, name: str, played: ClipSound, feature) -> Recording:
    known = (name, played.data, played.waveform, feature, played.name)
    if not isinstance(task.model, Pengi):
        return Recording(*known)
    log_mel = task.model.audio.log_mel(played.waveform[None].to(task.model.device))
    image = task.model.audio.image(log_mel)[0, 0].cpu()
    return Recording(*known, log_mel[0].cpu(), image)


def mel_frequencies(model: Pengi) -> np.ndarray:
    """[mel] center of each band in Hz.

    This is at the audio's sample rate. The filters were made for another one, as published.
    """
    mel = model.audio.mel.cpu().numpy().astype(float)  # [bins, mel]
    bins = np.arange(len(mel)) * model.sample_rate / len(model.audio.window)
    return bins @ mel / mel.sum(0)


def verdicts(logits: dict[str, torch.Tensor], class_names, top: int = 3) -> pd.DataFrame:
    """What each method answers for one clip: its top classes, and the margin of the first.

    logits: [c] of each method.
    Columns: guess, margin, and classes, a list of (class, probability).
    """
    lines = {}
    for name, values in logits.items():
        p = probabilities(values[None])[0]
        order = np.argsort(-p, kind="stable")[:top]
        margin = p[order[0]] - p[order[1]]
        lines[name] = [class_names[order[0]], margin, [(class_names[n], p[n]) for n in order]]
    return pd.DataFrame.from_dict(lines, orient="index", columns=["guess", "margin", "classes"])


# Prompts


def fill_template(template: str, names: list[str]) -> list[str]:
    """The prompt of each class. Raises ValueError, with one sentence, for unusable words."""
    if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
        raise ValueError(
            "the template needs {} once, where the class name goes, and no other braces"
        )
    names = [name.strip() for name in names]
    if "" in names:
        raise ValueError(f"class {names.index('') + 1} has no name")
    seen = set()
    for name in names:
        if name.lower() in seen:
            raise ValueError(f"two classes are called {name}")
        seen.add(name.lower())
    return [template.format(name) for name in names]


def token_limit(model) -> int | None:
    """Tokens that the text encoder takes, None where that is not known."""
    return model.text.max_tokens if isinstance(model, Pengi) else None


def count_tokens(prompts: list[str]) -> list[int]:
    """Tokens of each prompt with start and end, also of one that is too long for the encoder."""
    return tokenize(prompts, max_tokens=max(map(len, prompts)) * 4 + 2)[1].sum(1).tolist()


def prompt_logits(task: Task, prompts: list[str]) -> torch.Tensor:
    """[clips, c] of the test clips under these prompts. Only the text is encoded."""
    text = task.model.encode_text(prompts).cpu()
    return task.model.logit_scale * task.features @ text.T


def confusion(logits, labels) -> np.ndarray:
    """[c, c] number of clips by true class (row) and predicted class (column)."""
    c = logits.shape[1]
    pairs = torch.as_tensor(labels) * c + logits.argmax(1)
    return torch.bincount(pairs, minlength=c * c).reshape(c, c).numpy()


# Lambda


@torch.no_grad()
def mixed_text(palm, lambdas) -> torch.Tensor:
    """PALM's text embeddings [..., c, dim] at other lambdas [..., c].

    normalize((1 - lambda) f + lambda z)
    """
    weight = torch.as_tensor(lambdas, dtype=palm.f.dtype)[..., None]
    return normalize((1 - weight) * palm.f.cpu() + weight * palm.z.detach().cpu())


# Two dimensions


class Plane:
    """A plane in the joint space. `plane(x)` gives the coordinates of x [..., dim] in it."""

    def __init__(self, axes: torch.Tensor, origin=0.0):
        self.axes = axes  # [dim, 2]
        self.origin = origin

    @classmethod
    def principal(cls, vectors: torch.Tensor) -> Plane:
        """The plane of the largest variance of [n, dim] vectors."""
        return cls(principal_axes(vectors, 2), vectors.mean(0))

    @classmethod
    @torch.no_grad()
    def of_class(cls, palm, label: int) -> Plane:
        """The plane of a class's f and z.

        The first axis is f. The second is the part of z at a right angle to f. The class's mixed
        text never leaves this plane, so its logits are logit_scale times a product that is visible
        here.
        """
        f = palm.f[label].cpu()
        z = palm.z[label].detach().cpu()
        return cls(torch.stack([f, normalize(z - (z @ f) * f)], 1))

    def __call__(self, x) -> np.ndarray:
        return ((x - self.origin) @ self.axes).numpy()


def project(vectors: torch.Tensor, kind: str = "PCA") -> np.ndarray:
    """[n, dim] -> [n, 2].

    kind: "PCA", or "t-SNE" (of cosine distances, seeded), where only neighbourhoods mean much.
    """
    if kind not in PROJECTIONS:
        raise ValueError(f"there is no projection {kind!r}; there are {', '.join(PROJECTIONS)}")
    if kind == "PCA":
        return Plane.principal(vectors)(vectors)
    perplexity = min(30, (len(vectors) - 1) / 3)
    tsne = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=0)
    return tsne.fit_transform(vectors.numpy())


def map_texts(task: Task, on_progress=no_progress) -> dict[str, torch.Tensor]:
    """The text embeddings that a map can show, [c, dim] each."""
    prompts = [task.model.prompt.format(name) for name in task.class_names]
    palm = task.trained("palm", on_progress).method
    return {
        "prompts (zero-shot)": task.model.encode_text(prompts).cpu(),
        "class names alone": palm.f.cpu(),
        "PALM, learned": mixed_text(palm, palm.lambdas.detach().cpu()),
    }


# Errors


def run_logits(task: Task, run, seed: int = 0) -> dict[str, torch.Tensor]:
    """Test logits of each method in `runs/RUN`, of this dataset and fold.

    Of a method that learns nothing, the row of another seed serves too. Raises ValueError where
    there are no rows, where several rows of a method could be meant, and where rows are of other
    clips.
    """
    rows = _rows_of_task(task, run, seed)
    found = {row["method"]: load_tensors(row, run) for _, row in rows.iterrows()}
    if any(not torch.equal(kept["labels"], task.test.labels) for kept in found.values()):
        raise ValueError(f"the run {run} was tested on other clips than {task.data.name} has now")
    return {name: found[name]["logits"] for name in method_categories(found)}


def _rows_of_task(task: Task, run, seed: int) -> pd.DataFrame:
    """One row of each method in a run, of this dataset and fold."""
    rows = load_rows(run)
    name, fold = task.data.name, task.data.fold
    of_fold = rows["fold"].isna() if fold is None else rows["fold"] == fold
    of_seed = (rows["seed"] == seed) | ~learns(rows["method"])
    rows = drop_repeats(rows[(rows["dataset"] == name) & of_fold & of_seed])
    if rows.empty:
        raise ValueError(f"the run {run} has no row of {name}, fold {fold}, seed {seed}")
    if versioned_datasets(rows):
        versions = "; ".join(sorted(set(mark_versions(rows)["version"])))
        raise ValueError(
            f"the run {run} has rows of several versions of {name} ({versions}): delete all but "
            "those of one version"
        )
    # Transductive methods are groups of their own; nothing is averaged over methods here.
    kinds = [split_settings(part) for _, part in rows.groupby(is_transductive(rows["method"]))]
    groups = next((kind for kind in kinds if len(kind) > 1), [])
    if groups:
        labels = "; ".join(label for label, _ in groups)
        raise ValueError(f"the run {run} has several settings there: {labels}")
    duplicate = is_duplicate(rows)
    if duplicate.any():
        raise ValueError(f"the run {run}: {describe_duplicates(rows[duplicate])}")
    # Only methods that learn nothing have several rows now, one a seed.
    nearest = rows.sort_values("seed", key=lambda seeds: (seeds - seed).abs(), kind="stable")
    return nearest.drop_duplicates("method")


def worst_mistakes(logits: torch.Tensor, labels) -> pd.DataFrame:
    """Wrong test clips, the worst first: clip, label, guess, confidence, gap.

    gap: by how much the guess's logit exceeds the true class's. It orders also
    clips whose confidence is 1.00 for all.
    """
    frame = confidence_frame(logits, labels).rename_axis("clip").reset_index()
    true = logits.gather(1, torch.as_tensor(labels)[:, None])[:, 0]
    frame["gap"] = (logits.max(1).values - true).numpy()
    wrong = frame[~frame["right"]].sort_values("gap", ascending=False, kind="stable")
    return wrong[["clip", "label", "guess", "confidence", "gap"]].reset_index(drop=True)
