"""The kit as a place to listen and look: six widgets, each one function that works alone in any notebook.

    from palmkit.widgets import listen
    listen("SoundEvents")

dataset: a name or a folder, as `load_dataset` takes it. pengi: a model of `load_pengi`; mini-PENGI without one.
fold: the first without one. What is shown is computed by `palmkit.widgets.explore`.
"""

from palmkit.widgets.bench import Bench
from palmkit.widgets.clips import Errors, Listen
from palmkit.widgets.prompts import PromptBench
from palmkit.widgets.shots import FewShotBench
from palmkit.widgets.space import LambdaBench, Map


def listen(dataset="VocalSounds", pengi=None, fold=None) -> Bench:
    """A test clip, or a recording of one's own: waveform, log-mel, image, player, and four methods' top classes."""
    return Listen(dataset, pengi, fold)


def prompt_bench(dataset="VocalSounds", pengi=None, fold=None) -> Bench:
    """Other templates and class names, with their tokens, logits, accuracy and confusion at once."""
    return PromptBench(dataset, pengi, fold)


def few_shot_bench(dataset="VocalSounds", pengi=None, fold=None) -> Bench:
    """Train a method and see loss, accuracy and lambda move; stop, compare, keep."""
    return FewShotBench(dataset, pengi, fold)


def lambda_bench(dataset="VocalSounds", pengi=None, fold=None) -> Bench:
    """PALM's lambda of one class by hand, and its text embedding among its clips."""
    return LambdaBench(dataset, pengi, fold)


def embedding_map(dataset="VocalSounds", pengi=None, fold=None) -> Bench:
    """Clips and texts in two dimensions, to see and to hear."""
    return Map(dataset, pengi, fold)


def worst_errors(dataset="VocalSounds", pengi=None, fold=None, run=None) -> Bench:
    """The worst mistakes, playable, with what each method says; of `runs/RUN`, or of methods that are trained now."""
    return Errors(dataset, pengi, fold, run)
