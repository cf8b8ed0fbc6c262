"""The kit as a place to listen and look: six widgets, each one function that works alone in any notebook.

    from palmkit.widgets import listen
    listen("SoundEvents")

dataset: a name or a folder, as `load_dataset` takes it. pengi: a model of `load_pengi`; mini-PENGI without one.
fold: the first without one. What is shown is computed by `palmkit.widgets.session`.
"""

from palmkit.widgets.base import Explorer
from palmkit.widgets.clips import Errors, Listen
from palmkit.widgets.embedding_map import LambdaBench, Map
from palmkit.widgets.prompts import PromptBench
from palmkit.widgets.training import FewShotBench


def listen(dataset="VocalSounds", model=None, fold=None) -> Explorer:
    """A test clip, or a recording of one's own: waveform, log-mel, image, player, and four methods' top classes."""
    return Listen(dataset, model, fold)


def prompt_bench(dataset="VocalSounds", model=None, fold=None) -> Explorer:
    """Other templates and class names, with their tokens, logits, accuracy and confusion at once."""
    return PromptBench(dataset, model, fold)


def few_shot_bench(dataset="VocalSounds", model=None, fold=None) -> Explorer:
    """Train a method and see loss, accuracy and lambda move; stop, compare, keep."""
    return FewShotBench(dataset, model, fold)


def lambda_bench(dataset="VocalSounds", model=None, fold=None) -> Explorer:
    """PALM's lambda of one class by hand, and its text embedding among its clips."""
    return LambdaBench(dataset, model, fold)


def embedding_map(dataset="VocalSounds", model=None, fold=None) -> Explorer:
    """Clips and texts in two dimensions, to see and to hear."""
    return Map(dataset, model, fold)


def worst_errors(dataset="VocalSounds", model=None, fold=None, run=None) -> Explorer:
    """The worst mistakes, playable, with what each method says; of `runs/RUN`, or of methods that are trained now."""
    return Errors(dataset, model, fold, run)
