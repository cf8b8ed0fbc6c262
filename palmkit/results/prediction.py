"""Predictions for clips by what a run has learned: a row of the run, or a saved prompt."""

from __future__ import annotations

import glob
import logging
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from palmkit import audio
from palmkit.datasets.bad_files import find_bad_files
from palmkit.datasets.recordings import list_sounds
from palmkit.embeddings import embed
from palmkit.experiments.row_fields import RowError, check_row
from palmkit.experiments.rows import parse_row, read_tensors, restore_method
from palmkit.experiments.trials import find_method
from palmkit.methods.base import check_class_names
from palmkit.models import load_model
from palmkit.protocols.prompt_files import PromptError, load_prompt, read_prompt_details
from palmkit.protocols.streams import crop_seed_at_test
from palmkit.protocols.train_mode import STOCHASTIC, with_bn_statistics
from palmkit.results.confidence import confidence_frame
from palmkit.results.formats import format_score, to_csv, to_markdown
from palmkit.training import predict

COLUMNS = ("path", "class", "probability", "margin", "error")
log = logging.getLogger("palmkit")
SHORT = 12  # characters of a digest in a message


class PredictionError(ValueError):
    """What is asked for cannot be predicted; the message says what is missing."""


@dataclass(frozen=True)
class Predictor:
    """A method that has learned, and how clips are embedded for it."""

    method: torch.nn.Module
    model: object  # what embeds clips: the method's model, or that with a prompt's bn0 statistics
    crop: str | int = "random"
    crop_seed: int | str = 0

    @property
    def class_names(self) -> list[str]:
        return self.method.class_names

    @property
    def note(self) -> str:
        """What a reader of the predictions must know of the method; "" for most."""
        if not self.method.transductive:
            return ""
        return (
            f"{self.method.label} is transductive: it classifies all given clips together, so the "
            "class of one depends on the others."
        )

    def logits(self, paths, cache="default") -> torch.Tensor:
        """[n, classes] of [n] files. Raises AudioError, which names the file.

        Raises PredictionError for one clip alone, if the method is transductive.
        """
        if self.method.transductive and len(paths) < 2:
            raise PredictionError(
                f"{self.method.name} is transductive: it classifies all given clips together; "
                "give two or more that can be read, best a whole test set"
            )
        clips = embed(self.model, paths, cache=cache, crop=self.crop, crop_seed=self.crop_seed)
        return predict(self.method, clips.features)

    def predict(self, clips, cache="default") -> pd.DataFrame:
        """One line for each clip: path, class, probability, margin, error.

        clips: as in `find_clips`. margin: the probability minus that of the next class. A file that
        cannot be used has no class; error says why. A transductive method classifies all clips
        that can be used together, and `note` is logged. Raises FileNotFoundError for no clip.
        """
        paths = find_clips(clips)
        if self.note:
            log.info("Note: %s", self.note)
        bad: dict[str, str] = {}
        try:
            logits = self.logits(paths, cache)
        except audio.AudioError:
            bad = find_bad_files(paths, cache)
            good = [path for path in paths if path not in bad]
            if not bad:  # what is wrong shows only in the embedding
                raise
            logits = self.logits(good, cache) if good else torch.empty(0, len(self.class_names))
        good = [path for path in paths if path not in bad]
        lines = dict(zip(good, _describe_logits(logits, self.class_names), strict=True))
        nothing = {"class": "", "probability": np.nan, "margin": np.nan}
        return pd.DataFrame(
            [
                {"path": path, **lines.get(path, nothing), "error": bad.get(path, "")}
                for path in paths
            ],
            columns=list(COLUMNS),
        )


def _describe_logits(logits, class_names) -> list[dict]:
    """Class, probability and margin of each clip."""
    found = confidence_frame(logits, labels=[-1] * len(logits))  # the labels are not known
    return [
        {"class": class_names[one.guess], "probability": one.confidence, "margin": one.margin}
        for one in found.itertuples()
    ]


def predict_clips(clips, row=None, prompt=None, cache="default", **more) -> pd.DataFrame:
    """Predict the classes of clips: `load_predictor(row, prompt, **more).predict(clips)`.

    clips: files, folders and patterns, in a list or alone. row: the file of a row of a run.
    prompt: a file of `save_prompt`, or of the published code.
    """
    return load_predictor(row, prompt, **more).predict(clips, cache)


def format_predictions(found: pd.DataFrame, format: str = "table") -> str:
    """`Predictor.predict` as a Markdown table of the clips that could be used, CSV or JSON."""
    if format == "csv":
        return to_csv(found)
    if format == "json":
        return (
            found.to_json(orient="records", indent=1, force_ascii=False, double_precision=15) + "\n"
        )
    shown = found[found["error"] == ""].drop(columns="error").set_index("path")
    for name in ("probability", "margin"):
        shown[name] = shown[name].map(format_score)
    return to_markdown(shown) + "\n"


def find_clips(clips) -> list[str]:
    """Files, the audio files below folders, and those that a pattern such as `*.wav` means.

    Each once, in the order that they are given; those of a folder by name. Raises
    FileNotFoundError for what is not there and for a folder without audio files.
    """
    given = [clips] if isinstance(clips, str | os.PathLike) else list(clips)
    found: dict[str, None] = {}
    for one in map(str, given):
        path = Path(one).expanduser()
        if not one.strip():  # a variable of a shell that is not set; Path("") is the folder itself
            files = []
        elif path.is_dir():
            files = list_sounds(path)
        elif path.exists():
            files = [path]
        else:
            matches = map(Path, sorted(glob.glob(str(path), recursive=True)))
            files = [file for match in matches for file in _files_of(match)]
        if not files:
            inside = one.strip() and path.is_dir()
            kind = "audio file in the folder" if inside else "file, folder or pattern"
            raise FileNotFoundError(f"there is no {kind} {one or repr(one)}")
        found.update(dict.fromkeys(map(str, files)))
    if not found:
        raise FileNotFoundError("name one clip at least: a file, a folder or a pattern")
    return list(found)


def _files_of(match: Path) -> list[Path]:
    return list_sounds(match) if match.is_dir() else [match]


def load_predictor(
    row=None,
    prompt=None,
    *,
    checkpoint=None,
    method: str | None = None,
    class_names=None,
    options: dict | None = None,
    device="auto",
) -> Predictor:
    """The predictor of a row, or of a saved prompt.

    checkpoint: as in `load_model`, or a model that is loaded. A row names all that is needed but
    for the checkpoint, which is that of its command; a file of `save_prompt` too, with mini-PENGI
    as the default. For a file of the published code give `checkpoint`, `method`, `class_names`, and
    `options` where they are not the method's defaults.
    Raises PredictionError for what is missing, and for a checkpoint of other weights than those
    that the row or the prompt was learned with.
    """
    if (row is None) == (prompt is None):
        raise PredictionError("give a row, or a prompt, and not both")
    if row is not None:
        if method or class_names or options:
            raise PredictionError(
                "method, class names and options are the row's own: leave them out"
            )
        return _from_row(Path(row).expanduser(), checkpoint, device)
    given = {"method": method, "class_names": class_names, "options": options}
    return _from_prompt(Path(prompt).expanduser(), checkpoint, given, device)


def _from_row(path: Path, checkpoint, device) -> Predictor:
    row = _read_row(path)
    try:
        tensors = read_tensors(path.with_suffix(".safetensors"), row)
    except ValueError as error:
        raise PredictionError(str(error)) from error
    checkpoint = checkpoint or _checkpoint_of(row.get("command", ""))
    model = _load_checked(checkpoint, device, row.get("weights", ""), path)
    try:
        method = restore_method(row, tensors, model)
    except (ValueError, TypeError) as error:
        raise PredictionError(f"row {path}: {error}") from error
    bn0 = {name.removeprefix("bn0."): t for name, t in tensors.items() if name.startswith("bn0.")}
    stochastic = row.get("stochastic", "none")
    stochastic = STOCHASTIC if stochastic == "all" else stochastic.split(" + ")
    crop_seed = crop_seed_at_test(stochastic, row["seed"], row.get("crop_seed", 0))
    encoder = method.audio_model()
    encoder = with_bn_statistics(encoder, bn0) if bn0 else encoder
    return Predictor(method, encoder, row.get("crop", "random"), crop_seed)


def _read_row(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"there is no row {path}: name a file of runs/RUN/rows/DATASET")
    if path.suffix != ".json":
        raise PredictionError(f"{path} is no row: name the .json file of one trial")
    try:
        row = parse_row(path.read_bytes())
        check_row(row)
    except RowError as error:
        raise PredictionError(f"row {path} cannot be used: {error}") from error
    except ValueError as error:
        raise PredictionError(f"row {path} is no JSON ({error})") from error
    if "failed" in row:
        raise PredictionError(f"row {path} is of a trial that failed: it has learned nothing")
    if row.get("diverged"):
        raise PredictionError(f"row {path}: its training diverged ({row['diverged']})")
    if missing := [name for name in ("class_names", "options") if name not in row]:
        raise PredictionError(f"row {path} has no {' and no '.join(missing)}")
    return row


def _checkpoint_of(command: str) -> str:
    """The checkpoint of a row's command line; mini-PENGI without one."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    for n, word in enumerate(words):
        if word.startswith("--checkpoint="):
            return word.partition("=")[2]
        if word == "--checkpoint" and n + 1 < len(words):
            return words[n + 1]
    profile = words[words.index("--profile") + 1 :][:1] if "--profile" in words else []
    return "pengi" if profile == ["paper"] or "--profile=paper" in words else "mini"


def _from_prompt(path: Path, checkpoint, given: dict, device) -> Predictor:
    about = read_prompt_details(path)
    for name, value in given.items():
        if name in about and value not in (None, about[name]):
            raise PredictionError(
                f"{path}: the file's {name} is {about[name]!r}, not {value!r}: leave it out"
            )
    known = {name: value for name, value in given.items() if value is not None} | about
    if missing := [FLAG_NAMES[name] for name in ("method", "class_names") if name not in known]:
        raise PredictionError(
            f"{path} does not say its {' and '.join(missing)} (files of the published code do "
            f"not): give {' and '.join(missing)}, class names in the order of training"
        )
    if checkpoint is None and "weights" not in about:
        raise PredictionError(f"{path} does not say its weights: give the checkpoint")
    model = _load_checked(checkpoint or "mini", device, about.get("weights", ""), path)
    names = check_class_names(known["class_names"])
    try:
        method = find_method(known["method"])(model, names, **known.get("options", {}))
    except TypeError as error:
        raise PromptError(f"{path}: {error}") from error
    encoder = load_prompt(path, method)
    return Predictor(method.requires_grad_(False), encoder)


FLAG_NAMES = {"method": "method", "class_names": "class names"}


def _load_checked(checkpoint, device, weights: str, path: Path):
    """The model of a checkpoint. Raises PredictionError if it has other weights."""
    try:
        named = isinstance(checkpoint, str | os.PathLike)
        model = load_model(checkpoint, device) if named else checkpoint
    except FileNotFoundError as error:
        raise PredictionError(f"{error}; give the checkpoint of {path.name}") from error
    if weights and model.digest() != weights:
        raise PredictionError(
            f"{path} was learned with other weights ({weights[:SHORT]}) than those of {model.name} "
            f"({model.digest()[:SHORT]}): give the checkpoint that it was learned with"
        )
    return model
