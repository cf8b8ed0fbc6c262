"""The clips that a trial learns from and is tested on.

A source has `load()`, which returns (test clips, training clips). The training clips are None
where the method learns nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pandas as pd

from palmkit.corruptions import Corruption
from palmkit.embeddings import Embeddings, embed
from palmkit.experiments.jobs import ClipSet, Job
from palmkit.experiments.quiet import show_nothing
from palmkit.experiments.trials import Trial
from palmkit.methods.aspl import read_inputs
from palmkit.models.pengi import Pengi
from palmkit.protocols.streams import EpochEmbeddings, crop_seed_at_test, embed_stream
from palmkit.protocols.train_mode import with_bn_statistics


@dataclass(frozen=True)
class EmbedSettings:
    """How clips are embedded. corruption: (kind, strength), or () for none."""

    crop: str | int
    crop_seed: int | str
    corruption: tuple = ()

    def arguments(self, model) -> dict:
        """Arguments of `embed`."""
        transform = Corruption(*self.corruption, model.sample_rate) if self.corruption else None
        return {"crop": self.crop, "crop_seed": self.crop_seed, "transform": transform}


def settings_at_test(trial: Trial) -> EmbedSettings:
    """How the test clips of a trial are embedded."""
    corruption = tuple(trial.options.get("corruption", ()))
    return replace(support_settings(trial), corruption=corruption)


def support_settings(trial: Trial) -> EmbedSettings:
    """How the training clips of a trial are embedded."""
    seed = crop_seed_at_test(trial.stochastic, trial.seed, trial.crop_seed)
    return EmbedSettings(trial.crop, seed)


# Trials that learn from frozen embeddings, or learn nothing.


@dataclass(frozen=True)
class EmbeddedClips:
    """The embedded test clips, and the embedded draw if the method learns."""

    test: Embeddings
    support: Embeddings | None

    def load(self) -> tuple[Embeddings, Embeddings | None]:
        return self.test, self.support


# Trials of the released protocol. They learn from streams: embeddings of every epoch.


@dataclass(frozen=True)
class StreamSource:
    """A stream, and the test clips. Streams are large, so each trial reads its own from the cache.

    settings: arguments of `embed_stream`.
    """

    model: Pengi
    drawn: pd.DataFrame
    test: pd.DataFrame
    settings: dict
    cache: object

    def load(self) -> tuple[Embeddings, EpochEmbeddings]:
        """The test clips, embedded with the last statistics of bn0, and the draw in every epoch."""
        settings = self.settings
        stream = embed_stream(self.model, self.drawn, cache=self.cache, **settings)
        seed = crop_seed_at_test(settings["stochastic"], settings["seed"], settings["crop_seed"])
        tested = with_bn_statistics(self.model, stream.bn0)
        test = embed(tested, self.test, cache=self.cache, crop=settings["crop"], crop_seed=seed)
        return test, stream


STREAM_SETTINGS = ("epochs", "batch_size", "seed", "autocast", "crop", "crop_seed")


def _stream_settings(trial: Trial) -> dict:
    """Arguments of `embed_stream`. Text dropout is not one: it changes no audio embedding."""
    settings = {name: getattr(trial, name) for name in STREAM_SETTINGS}
    parts = tuple(part for part in trial.stochastic if part != "text_dropout")
    return settings | {"stochastic": parts}


def stream_key(job: Job) -> tuple[ClipSet, str]:
    """Equal for jobs that share a stream, whatever their methods."""
    return job.learned, json.dumps(_stream_settings(job.trial), sort_keys=True)


def stream_source(job: Job, model, cache) -> StreamSource:
    return StreamSource(model, job.drawn, job.dataset.test, _stream_settings(job.trial), cache)


# Trials that learn inside the audio encoder.


@dataclass(frozen=True)
class UnembeddedClips:
    """Test clips that are embedded when the method has learned."""

    frame: pd.DataFrame
    settings: EmbedSettings

    def embed(self, model) -> Embeddings:
        """The embedded clips. They are not cached: no other trial has this model."""
        arguments = self.settings.arguments(model)
        return embed(model, self.frame, cache=None, on_progress=show_nothing, **arguments)


@dataclass(frozen=True)
class AudioSource:
    """Test clips that are not embedded yet, and the log-mels of the draw.

    Log-mels are large. Each trial reads its own, and keeps them only while it runs.
    """

    model: Pengi
    drawn: pd.DataFrame
    settings: EmbedSettings
    test: UnembeddedClips

    def load(self) -> tuple[UnembeddedClips, Embeddings]:
        crop, crop_seed = self.settings.crop, self.settings.crop_seed
        return self.test, read_inputs(self.model, self.drawn, crop, crop_seed)


def audio_source(job: Job, model) -> AudioSource:
    test = UnembeddedClips(job.dataset.test, settings_at_test(job.trial))
    return AudioSource(model, job.drawn, support_settings(job.trial), test)
