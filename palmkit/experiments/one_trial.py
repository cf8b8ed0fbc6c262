"""One trial: the method learns, it is tested, and a row describes the result."""

from __future__ import annotations

import contextlib
import datetime
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from palmkit.data import Dataset
from palmkit.embeddings import Embeddings
from palmkit.experiments.clip_sources import UnembeddedClips
from palmkit.experiments.model_defaults import rate_source
from palmkit.experiments.selection import choose_options
from palmkit.experiments.stacks import Fitted
from palmkit.experiments.trials import TRANSFER, Trial, find_method, stochastic_label
from palmkit.experiments.variations import ProjectedModel, method_options, principal_axes
from palmkit.methods.base import normalize
from palmkit.models.about import checkpoint_config, describe, not_pengi_note
from palmkit.models.pengi import round_features
from palmkit.protocols.streams import EpochEmbeddings
from palmkit.protocols.train_mode import text_dropout
from palmkit.training import TrainingDiverged, fit, predict, score


def run_trial(
    trial: Trial,
    model,
    dataset: Dataset,
    test: Embeddings | UnembeddedClips,
    support: Embeddings | None,
    tuned: dict | None = None,
    fitted: Fitted | None = None,
) -> tuple[dict, dict]:
    """Run one trial. Returns its row and its tensors.

    The tensors are test logits and labels, and what was learned as `prompt.*`.

    test: the embedded test clips. support: the embedded draw, or None where nothing is learned.
    In the released protocol the draw is EpochEmbeddings. For a method that learns inside the audio
    encoder, test is UnembeddedClips, and support is what `read_inputs` returns.
    tuned: the options of regime "transfer".
    fitted: the method, if it has learned in a stack. Then the seconds of preparing and fitting are
    an equal share of the stack's, and `stacked` in the row is the size of the stack.
    """
    start = time.perf_counter()
    if "pca_dim" in trial.options:
        model, test, support = _project_features(model, test, support, trial.options["pca_dim"])
    fitted = fitted or _learn(trial, model, dataset, support, tuned, start)
    method, chosen, initial = fitted.method, fitted.chosen, fitted.initial
    start = time.perf_counter()
    if method.tunes_audio:
        test = test.embed(method.audio_model())
    logits = predict(method, test.features)
    seconds = (*fitted.seconds, time.perf_counter() - start)
    scores, diverged = _score(logits, test.labels, fitted.diverged)
    row = {
        **_describe(trial, model, dataset, method),
        **({} if initial is None else {"lambdas_initial": initial}),
        **({} if trial.regime == "published" else {"chosen": chosen}),
        **_describe_support(dataset, support),
        **scores,
        "diverged": diverged,
        "n_train": 0 if support is None else len(support.paths),
        "n_test": len(test.labels),
        "losses": fitted.losses,
        "test_offsets": test.offsets if any(test.offsets) else 0,
        "seconds": dict(zip(("prepare", "fit", "test"), _rounded(seconds), strict=True)),
        **({"stacked": fitted.size} if fitted.size > 1 else {}),
        "device": str(model.device),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if initial is not None:
        row["lambdas"] = class_lambdas(method)
    return row, _tensors(method, logits, test, support)


def _learn(trial: Trial, model, dataset: Dataset, support, tuned, start: float) -> Fitted:
    """Make the method of a trial and let it learn. start: when preparing it began."""
    options = method_options(trial.options)
    chosen = _choose(trial, model, dataset, support, options) if tuned is None else tuned
    method = find_method(trial.method)(
        model, dataset.class_names, seed=trial.seed, **options, **chosen
    )
    initial = class_lambdas(method)
    built = time.perf_counter()
    losses, diverged = _fit(trial, model, method, support)
    seconds = (built - start, time.perf_counter() - built)
    return Fitted(method, losses, diverged, seconds, initial, chosen)


def _score(logits, labels, diverged: str) -> tuple[dict, str]:
    """The scores, and why the trial diverged, or "".

    A trial that diverged has a row too. Its scores are NaN.
    """
    scores = score(logits, labels)
    if not diverged and not logits.isfinite().all():
        diverged = "logits are not finite; mend the method, or lower lr"
    return (dict.fromkeys(scores, float("nan")) if diverged else scores), diverged


def _choose(trial: Trial, model, dataset: Dataset, support, options: dict) -> dict:
    """Options that are chosen inside the support set; {} in the published regime."""
    if trial.regime == "published":
        return {}
    if trial.tuned_on:
        raise ValueError(f"regime={trial.regime}: give the tuned options, or use run_trials")
    about = (find_method(trial.method), model, dataset.class_names, trial.seed, options)
    return choose_options(*about, support.features, support.labels)


def _fit(trial: Trial, model, method, support) -> tuple[list[float], str]:
    """The losses, and the message if training diverged, else ""."""
    if support is None:
        return [], ""
    dropout = contextlib.nullcontext()
    if "text_dropout" in trial.stochastic:
        dropout = text_dropout(model, trial.seed)
    try:
        with dropout:
            losses = fit(method, support.features, support.labels, **trial.fit_settings())
    except TrainingDiverged as error:
        return error.losses, str(error)
    return losses, ""


def _project_features(model, test: Embeddings, support: Embeddings, pca_dim: int):
    """Model, test clips and support set, projected to principal axes of the support set."""
    axes = principal_axes(support.features.to(model.dtype).cpu(), pca_dim)
    test, support = (
        replace(clips, features=round_features(normalize(clips.features.to(axes) @ axes)))
        for clips in (test, support)
    )
    return ProjectedModel(model, axes), test, support


def _tensors(method, logits, test: Embeddings, support: Embeddings | None) -> dict:
    """What is kept beside the row."""
    tensors = {"logits": logits, "labels": test.labels}
    if isinstance(support, EpochEmbeddings):
        tensors |= {f"bn0.{name}": tensor for name, tensor in support.bn0.items()}
    learned = method.prompt_learner_state()
    return tensors | {f"prompt.{name}": tensor for name, tensor in learned.items()}


def class_lambdas(method) -> list[float] | None:
    """PALM's weight of each class. None for other methods, also if they have other `lambdas`."""
    lambdas = getattr(method, "lambdas", None)
    if not isinstance(lambdas, torch.Tensor) or len(method.class_names) != lambdas.numel():
        return None
    return lambdas.flatten().tolist()


# Columns of the row.


def _describe(trial: Trial, model, dataset: Dataset, method) -> dict:
    """The columns of a row that do not depend on training."""
    config = checkpoint_config(model)
    return {
        **asdict(trial),
        "stochastic": stochastic_label(trial),
        "rates": dropout_rates(config),
        "dataset": dataset.name,
        **({"regime": f"{TRANSFER}{Path(trial.tuned_on).name}"} if trial.tuned_on else {}),
        "note": model.note,
        "model": model.name,
        "model_note": not_pengi_note(model),
        "about": describe(model),
        "rate_source": rate_source(trial, model),
        "class_names": dataset.class_names,
        "trainable": sum(parameter.numel() for parameter in method.parameters()),
        **_describe_left_out(dataset),
    }


def _describe_left_out(dataset: Dataset) -> dict:
    """The files that --skip-bad left out, if any. The key has the digest of the others."""
    if not dataset.left_out:
        return {}
    return {"n_bad": len(dataset.left_out), "bad_files": list(dataset.left_out)}


def _describe_support(dataset: Dataset, support: Embeddings | None) -> dict:
    """The training clips, and where their crops begin."""
    if support is None:
        return {}
    of_epochs = isinstance(support, EpochEmbeddings)
    return {
        "clips": [dataset.relative(path) for path in support.paths],
        "clip_offsets": support.offsets[-1] if of_epochs else support.offsets,
    }


def dropout_rates(config: dict) -> dict:
    """Rates of dropout that a checkpoint's config names, which the released protocol uses."""
    if not {"projection_dropout", "audio"} <= {*config}:
        return {}
    return {
        "dropout": config["projection_dropout"],
        "drop_path": config["audio"]["drop_path_rate"],
    }


def _rounded(seconds: tuple[float, ...]) -> list[float]:
    return [round(one, 3) for one in seconds]
