"""What a model says of itself beside the protocol, and what holds where it says nothing.

A model may have these attributes:
    about: {"licence": ..., "revision": ..., "training data": ...}, texts.
    defaults: the settings of SGD that were chosen for it, {"lr": 0.05, ...}; see TRAINING.
"""

from __future__ import annotations

from palmkit.models.checkpoint import PENGI_SIZES
from palmkit.models.pengi import Pengi

FACTS = ("licence", "revision", "training data")
UNKNOWN = "not stated"
TRAINING = ("epochs", "batch_size", "lr", "momentum")  # settings that a model may have defaults for


PENGI_FACTS = {
    "licence": "MIT (code); of the weights not stated",
    "training data": "3.4 million pairs of audio and text (arXiv 2305.11834)",
}
MINI_FACTS = {"licence": "MIT", "training data": "generated sounds; see its model card"}


def describe(model) -> dict[str, str]:
    """Licence, revision and training data of a model as texts; UNKNOWN for what it does not say."""
    about = getattr(model, "about", None) or {}
    if isinstance(model, Pengi) and not about:
        about = {"revision": f"sha256 {model.checkpoint_sha256}"}
        about |= MINI_FACTS if model.name == "mini" else PENGI_FACTS if is_pengi(model) else {}
    return {name: str(about.get(name) or UNKNOWN) for name in FACTS}


def default_settings(model) -> dict:
    """The settings of SGD that a model states, some of TRAINING. Raises ValueError for others."""
    stated = getattr(model, "defaults", None) or {}
    for name in stated:
        if name not in TRAINING:
            raise ValueError(
                f"defaults of the model {model.name!r} has {name!r}: it may have "
                f"{', '.join(TRAINING)}"
            )
    return dict(stated)


def has_pengi_design(model) -> bool:
    """Whether it is built as PENGI, of any size and weights, as mini-PENGI is."""
    return type(model) is Pengi


def is_pengi(model) -> bool:
    """Whether it is PENGI by its kind and size. The kit knows no digest of PENGI's weights."""
    if not has_pengi_design(model):
        return False
    widths = (model.dim, model.text_width)
    return widths == (PENGI_SIZES["d_proj"], PENGI_SIZES["text"]["hidden_size"])


def checkpoint_config(model) -> dict:
    """The config of a checkpoint in PENGI's layout, or {}.

    Another model's `config` may be anything, say an object of `transformers`.
    """
    config = getattr(model, "config", None)
    return config if isinstance(config, dict) else {}


def not_pengi_note(model) -> str:
    """Why results of a model do not stand beside the published ones; "" if they do.

    A note of the checkpoint's config counts; a note that the user gave does not.
    """
    note = checkpoint_config(model).get("note", "")
    if note or is_pengi(model):
        return note
    return f"{model.name} is not PENGI: the published numbers are of another model"


def add_note(model, note: str) -> None:
    """Add a user's sentence to what a model's outputs carry."""
    if note not in model.note:  # "" is in every text
        model.note = "; ".join(filter(None, [model.note, note]))
