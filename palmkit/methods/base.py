"""The base class of all methods.

A method maps audio embeddings [b, dim] to logits [b, classes]. To add one: subclass `Method`, name
it, write `forward`. A method with a closed form overrides `fit`.
"""

from __future__ import annotations

import math
import numbers
import zlib

import torch
import torch.nn.functional as F
from torch import nn

from palmkit.chunks import ChunkedClips
from palmkit.training import sgd

# Colours of seaborn's "colorblind" palette that the package's own methods do not take.
FREE_COLORS = ("#d55e00", "#ca9161", "#fbafe4", "#ece133", "#56b4e9")


def normalize(x: torch.Tensor) -> torch.Tensor:
    return F.normalize(x, dim=-1)


class Method(ChunkedClips, nn.Module):
    """Base class. Tables, plots and the command line read the class attributes of a method.

    By default a subclass with a `name` of its own gets this name as `label`, and a colour;
    `in_paper` is False. Everything that is learned must be an nn.Parameter, because `save_prompt`
    and rows keep parameters only.
    """

    name: str = ""  # on the command line, in rows and file names
    label: str = ""  # in tables and plots
    color: str = ""  # in plots, "#rrggbb"
    learns: bool = True  # False: nothing to fit, so one seed is enough
    own_fit: bool = False  # True: `fit` takes no epochs, batch_size, lr and momentum of a trial
    tunes_audio: bool = False  # True: it learns in the audio encoder, whose inputs `fit` takes
    # True: logits of a clip depend on the others, so `forward` gets all test clips at once. Such
    # methods have tables of their own.
    transductive: bool = False
    needs_pair: bool = False  # True: it takes the features of two models apart (ModelPair)
    by_clip: tuple[str, ...] = ()  # parameters that have a row for each clip of the support set
    choices: dict[str, tuple] = {}  # {option: values} that regimes choose from
    choice_settings: dict = {}  # arguments of `leave_out_logits` when options are chosen
    in_paper: bool = False  # whether it is a row of the paper's table
    published: dict[str, str] = {}  # the published code's names of parameters: {theirs: ours}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            color = FREE_COLORS[zlib.crc32(str(cls.name).encode()) % len(FREE_COLORS)]
            for attribute, value in {"label": cls.name, "color": color, "in_paper": False}.items():
                if attribute not in vars(cls):
                    setattr(cls, attribute, value)

    def __init__(self, model, class_names, seed=0, scale=None):
        """model: an AudioTextModel. class_names: two or more. seed: of the initial values.
        scale: of the logits; None is the model's.
        """
        super().__init__()
        self.class_names = check_class_names(class_names)
        if not isinstance(seed, numbers.Integral):
            raise TypeError(f"seed={seed!r} must be a whole number; give options by name")
        self.seed = seed
        self.scale = check_scale(scale)
        self.logit_scale = float(model.logit_scale if scale is None else scale)
        # The frozen encoders must not be in parameters() or state_dict().
        object.__setattr__(self, "model", model)
        self.input_dim = model.dim  # width of what `fit` takes

    def fit(self, features, labels, **settings) -> list[float]:
        """Learn from the support set. Returns the loss of each step. The base class uses SGD.

        features [n, dim], or [epochs, n, dim] if they change with the epoch; labels [n]; both on
        the model's device. settings: as in `palmkit.fit`, which checks the arguments and calls
        this. An override without SGD takes **settings and ignores those that it does not need.
        """
        return sgd(self, features, labels, **settings)

    def encode_inputs(self, inputs) -> torch.Tensor:
        """What `fit` takes, [b, input_dim] -> audio embeddings [b, dim], in every step of SGD.

        For most methods they are the same. One that learns inside the audio encoder encodes here.
        """
        return inputs

    def audio_model(self):
        """The model whose audio embeddings `forward` takes: embed test clips with it."""
        return self.model

    def parameter_groups(self) -> list[dict]:
        """What SGD learns, as groups of `torch.optim.SGD`. A group may have an `lr` of its own."""
        return [{"params": [one for one in self.parameters() if one.requires_grad]}]

    def init_from_support(self, features, labels) -> None:
        """Called before the first step of SGD with features [n, dim] and labels [n]."""

    def forward(self, audio_features) -> torch.Tensor:
        """Audio embeddings [b, dim] -> logits [b, classes]."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def logits(self, audio_features, text_features) -> torch.Tensor:
        """logit_scale * cosine of [b, dim] with unit text embeddings [c, dim] -> [b, c]."""
        audio = normalize(audio_features.to(text_features.dtype))
        return self.logit_scale * audio @ text_features.T

    def prompt_learner_state(self) -> dict[str, torch.Tensor]:
        """What was learned, on the CPU: all parameters, under their published names if any."""
        return {
            name: parameter.detach().cpu().clone() for name, parameter in self._learned().items()
        }

    @torch.no_grad()
    def load_prompt_learner(self, state: dict) -> None:
        """Load what was learned, from a state of the published code or of `prompt_learner_state`.

        Raises ValueError naming what is missing, unknown or of another shape.
        """
        parameters = self._learned()
        name = type(self).__name__
        missing = sorted(set(parameters) - set(state))
        unknown = sorted(set(state) - set(parameters))
        if missing or unknown:
            raise ValueError(f"not a state of {name}: missing {missing}, unknown {unknown}")
        expected = {key: list(parameter.shape) for key, parameter in parameters.items()}
        for key in self.by_clip:  # all have a row for each of the state's clips
            expected[key][:1] = state[self.by_clip[0]].shape[:1]
        wrong = [
            f"{key} is {list(state[key].shape)}, expected {shape}"
            for key, shape in expected.items()
            if list(state[key].shape) != shape
        ]
        if wrong:
            raise ValueError(f"a state of another {name}: {'; '.join(wrong)}")
        for key, parameter in parameters.items():
            parameter.data = state[key].to(parameter, copy=True)

    def _learned(self) -> dict[str, nn.Parameter]:
        theirs = {ours: theirs for theirs, ours in self.published.items()}
        return {theirs.get(name, name): value for name, value in self.named_parameters()}


def is_finite(value) -> bool:
    """Whether it is a number, no bool, that a float can hold."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def check_scale(scale):
    """A logit scale as it is: None or a number over 0. Raises ValueError."""
    if scale is not None and not (is_finite(scale) and scale > 0):
        raise ValueError(f"scale={scale!r}: use a number over 0, or None for the model's")
    return scale


def check_class_names(class_names) -> list[str]:
    """Class names as a list of strings: two or more, distinct. Raises TypeError or ValueError."""
    if isinstance(class_names, str):
        raise TypeError(f"class_names must be a list of names, not the string {class_names!r}")
    names = [str(name) for name in class_names]
    if len(names) < 2:
        raise ValueError(f"a classifier needs two classes or more, not {names}")
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise ValueError(f"class names must be distinct and not empty: {names}")
    return names
