"""The explorer: six widgets to listen and look with. Each is a function that works in any notebook.

    from palmkit.widgets import listen
    listen("SoundEvents")

dataset: a name or a folder, as `load_dataset` takes it.
model: an AudioTextModel, or None for mini-PENGI.
fold: a number, or None for the first fold.
`palmkit.widgets.session` computes what is shown.
"""

from palmkit.widgets.base import Panel
from palmkit.widgets.clips import Errors, Listen
from palmkit.widgets.embedding_map import LambdaBench, Map
from palmkit.widgets.prompts import PromptBench
from palmkit.widgets.training import FewShotBench


def listen(dataset="VocalSounds", model=None, fold=None) -> Panel:
    """A test clip, or a recording of one's own, and the top classes of four methods and of others.

    A clip is shown as player, waveform, log-mel spectrogram and the model's input image.
    """
    return Listen(dataset, model, fold)


def prompt_bench(dataset="VocalSounds", model=None, fold=None) -> Panel:
    """Edit template and class names, and see tokens, logits, accuracy and confusion at once."""
    return PromptBench(dataset, model, fold)


def few_shot_bench(dataset="VocalSounds", model=None, fold=None) -> Panel:
    """Train a method and watch loss, accuracy and lambda; stop, keep and compare runs."""
    return FewShotBench(dataset, model, fold)


def lambda_bench(dataset="VocalSounds", model=None, fold=None) -> Panel:
    """Set the lambda of one class by hand, of PALM or solved PALM, and see its text among clips."""
    return LambdaBench(dataset, model, fold)


def embedding_map(dataset="VocalSounds", model=None, fold=None) -> Panel:
    """Embeddings of clips and texts in two dimensions, playable."""
    return Map(dataset, model, fold)


def worst_errors(dataset="VocalSounds", model=None, fold=None, run=None) -> Panel:
    """The worst mistakes, playable, with what each method answers.

    run: the mistakes in `runs/RUN`, or None for those of methods that are trained now.
    """
    return Errors(dataset, model, fold, run)
