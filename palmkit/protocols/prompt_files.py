"""Learned prompts as files in the published code's layout, theirs and ours.

Such a file is a dict of two states, saved by `torch.save`: `prompt_learner`, and
`pengi_bn0_buffer`, the statistics of bn0 after training. Without the latter the prompt would be
tested on other embeddings than it was trained on. Such a file is a zip archive. Ours have one more
entry, `extra/palmkit.json`, which PyTorch takes no notice of: method, options, class names and the
model's digest.
"""

from __future__ import annotations

import inspect
import io
import json
import zipfile
import zlib
from pathlib import Path

import torch

from palmkit.methods.coop import CoOp
from palmkit.models.pengi import Pengi
from palmkit.models.torch_files import TensorFileError, read_tensors
from palmkit.protocols.train_mode import with_bn_statistics
from palmkit.storage import atomic_write

LEARNER, BUFFER = "prompt_learner", "pengi_bn0_buffer"
ABOUT = "extra/palmkit.json"
MOST_BYTES = 2**24  # of ABOUT
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
COUNTS = (torch.int64, torch.int32)


class PromptError(ValueError):
    """A file that is no saved prompt, or one of another model or method; the message says why."""


def save_prompt(path, method, bn0=None) -> None:
    """Write what `method` learned, to be loaded by the published code or by `load_prompt`.

    A method that the published code does not have is saved under its own parameters' names.
    bn0: `EpochEmbeddings.bn0`; None: the model's statistics as they are, which is right for what
    was learned on frozen embeddings. A model other than PENGI has none.
    """
    if bn0 is None and isinstance(method.model, Pengi):
        bn0 = dict(method.model.audio.bn0.named_buffers())
    learned = method.prompt_learner_state()
    if isinstance(method, CoOp) and isinstance(method.model, Pengi):
        learned |= _token_buffers(method)
    statistics = {name: bn0[name].cpu() for name in STATISTICS} if bn0 else {}
    buffer = io.BytesIO()
    torch.save({LEARNER: learned, BUFFER: statistics}, buffer)
    with zipfile.ZipFile(buffer, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/{ABOUT}", json.dumps(describe_prompt(method)))
    atomic_write(Path(path), buffer.getvalue())


def describe_prompt(method) -> dict:
    """What has to be known to use a prompt: method, options, class_names, weights (a digest).

    options: the method's keyword arguments that it keeps as attributes of the same name.
    """
    names = list(inspect.signature(type(method)).parameters)[3:]  # after model, class_names, seed
    options = {name: getattr(method, name) for name in names if hasattr(method, name)}
    plain = (bool, int, float, str, type(None))
    return {
        "method": method.name,
        "options": {name: value for name, value in options.items() if isinstance(value, plain)},
        "class_names": list(method.class_names),
        "weights": method.model.digest(),
    }


def read_prompt_details(path) -> dict:
    """What `describe_prompt` wrote into a file; {} for a file of the published code.

    Raises FileNotFoundError, PromptError.
    """
    path = Path(path)
    _read(path)  # it is a prompt
    about = _read_about(path)
    kinds = {"method": str, "options": dict, "class_names": list, "weights": str}
    wrong = [name for name, kind in kinds.items() if not isinstance(about.get(name, kind()), kind)]
    names = about.get("class_names", [])
    if wrong or not all(isinstance(name, str) for name in names):
        field = (wrong or ["class_names"])[0]
        raise PromptError(f"{path}: {ABOUT} in it is damaged: {field} is {about[field]!r:.100}")
    return {name: about[name] for name in kinds if about.get(name)}


def _read_about(path: Path) -> dict:
    """The JSON of ABOUT; {} in a file without it. Raises PromptError."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [one for one in archive.infolist() if one.filename.endswith(f"/{ABOUT}")]
            if not entries:
                return {}
            if entries[0].file_size > MOST_BYTES:
                raise ValueError("it is too large")
            about = json.loads(archive.read(entries[0]))
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        if not zipfile.is_zipfile(path):  # a file of before PyTorch 1.6
            return {}
        raise PromptError(f"{path}: {ABOUT} in it is damaged: {error}") from error
    if not isinstance(about, dict):
        raise PromptError(f"{path}: {ABOUT} in it is damaged: it is no JSON object")
    return about


def load_prompt(path, method):
    """Load the learned prompt of a file into `method`. Returns the model to embed test clips with.

    That model is PENGI with the file's bn0 statistics, or the method's own model if it is another;
    with what the method learned inside the audio encoder, if it does (ASPL).
    Code in the file is never run (weights_only). Raises FileNotFoundError, and PromptError for a
    file that is no prompt of this method, or whose numbers are not finite. Then `method` is as
    before.
    """
    path = Path(path)
    state = _read(path)
    model = method.model
    bn0 = (
        _statistics(state.get(BUFFER), model.audio.bn0, path) if isinstance(model, Pengi) else None
    )
    learned = {str(name).removeprefix("module."): value for name, value in state[LEARNER].items()}
    for name, value in learned.items():
        if problem := _find_problem(value):
            raise PromptError(f"{path}: {LEARNER}.{name:.100} {problem}")
    try:
        method.load_prompt_learner(learned)
    except (ValueError, TypeError, IndexError) as error:
        raise PromptError(f"{path}: {error}") from error
    encoder = method.audio_model()
    return encoder if bn0 is None else with_bn_statistics(encoder, bn0)


def _read(path: Path) -> dict:
    if path.is_dir():
        raise PromptError(f"{path} is a folder, and no saved prompt")
    if not path.is_file():
        raise FileNotFoundError(f"there is no prompt {path}")
    try:
        state = read_tensors(path)
    except TensorFileError as error:
        raise PromptError(f"{path} is no file of PyTorch with a prompt: {error}") from error
    if not isinstance(state, dict) or not isinstance(state.get(LEARNER), dict):
        raise PromptError(f"{path} holds no state {LEARNER!r}: it is no saved prompt")
    return state


def _find_problem(value) -> str:
    """What is wrong with a value that should be a tensor of finite numbers; "" if nothing is."""
    if not isinstance(value, torch.Tensor):
        return f"is {type(value).__name__}, not a tensor"
    plain = value.layout == torch.strided and value.device.type == "cpu"
    if not plain or not value.is_floating_point():
        return f"is no plain tensor of floating-point numbers, but {value.dtype}, {value.layout}"
    if not value.float().isfinite().all():
        return "holds NaN or infinite values"
    return ""


def _statistics(state, bn0, path) -> dict[str, torch.Tensor]:
    """bn0's buffers, under whatever prefix they are named in the file."""
    found = {}
    if isinstance(state, dict):
        found = {str(name).rsplit(".", 1)[-1]: value for name, value in state.items()}
    for name in ("running_mean", "running_var"):
        shape = getattr(bn0, name).shape
        if name not in found:
            raise PromptError(f"{path}: {BUFFER}.{name} is missing")
        if problem := _find_problem(found[name]):
            raise PromptError(f"{path}: {BUFFER}.{name} {problem}")
        if found[name].shape != shape:
            raise PromptError(f"{path}: {BUFFER}.{name} is not of shape {list(shape)}")
    if (found["running_var"] < 0).any():
        raise PromptError(f"{path}: {BUFFER}.running_var holds negative variances")
    count = found.get("num_batches_tracked", torch.tensor(0))
    is_count = isinstance(count, torch.Tensor) and count.dtype in COUNTS and count.shape == ()
    if not is_count or count < 0:
        raise PromptError(f"{path}: {BUFFER}.num_batches_tracked is no count")
    return {name: found[name] for name in STATISTICS if name in found}


def _token_buffers(method: CoOp) -> dict[str, torch.Tensor]:
    """Token embeddings that the published COOP and COCOOP keep beside the context.

    `sos` [c, 1, width] stands in front of it; `classes_pad` [c, 23, width] (for 16 vectors) follows
    it, up to the 40th token.
    """
    length = len(method.context)
    ids, _ = method.model.tokenize([f"{'X ' * length}{name}." for name in method.class_names])
    embedded = method.model.embed_tokens(ids).cpu()
    return {"sos": embedded[:, :1].clone(), "classes_pad": embedded[:, 1 + length :].clone()}
