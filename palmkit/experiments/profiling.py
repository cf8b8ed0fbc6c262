"""What the methods cost: multiply-adds from first principles, and seconds and memory as measured.

The counts hold for this kit's methods (a shared prefix runs once, nothing is padded) and, with
`padded`, for the published ones (40 tokens a prompt, every prompt anew). One multiply-add is two
floating-point operations.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable
from importlib.metadata import version

import pandas as pd
import psutil
import torch
import torch.nn.functional as F

from palmkit.experiments.executor import threads as torch_threads
from palmkit.methods import METHODS
from palmkit.methods.coop import CONTEXT_LENGTH, CoCoOp, CoOp
from palmkit.models.pengi import Pengi
from palmkit.training import fit

MIB = 2**20
SHOTS = 16
EPOCHS = 50
METHOD_KEYS = ("zeroshot", "coop", "cocoop", "palm")
LEARNED_KEYS = METHOD_KEYS[1:]
STORED = "inference, stored"
PUBLISHED = "training step, published"
SHORT = 0.05  # seconds; what takes less is timed over several calls
SAMPLING = 0.001  # seconds between two looks at the resident memory
BASE = {"batch": 16, "classes": 10, "context": CONTEXT_LENGTH}  # one of them varies at a time
THREADS = (1, 2)  # are measured at BASE besides all cores, where there are as many
VARIED = {"batch": (1, 4, 16, 64), "classes": (4, 10, 25, 50), "context": (4, 8, 16, 32)}


def text_operations(text, sequences, tokens, prefix=0) -> tuple[int, int]:
    """Multiply-adds of `sequences` of `tokens` each after `prefix` shared tokens: (forward,
    backward).

    The weights are frozen, so a linear layer's backward pass is one product, for its input, and
    attention's are two. Only the prefix is learned, so the first layer needs no gradient for what
    stands after it.
    """
    w = text.width
    hidden = text.layers[0].fc1.out_features
    layers = len(text.layers) - 1
    n = sequences * tokens
    attended = n * (tokens + prefix) + prefix**2
    linear = (4 * w * w + 2 * w * hidden) * (n + prefix)
    # Of the last layer: keys and values of all, and the rest of one position a sequence.
    last = 2 * w * w * (n + prefix) + sequences * (2 * w * w + 2 * w * hidden)
    last_attention = 2 * w * sequences * (tokens + prefix)
    forward = layers * (linear + 2 * w * attended) + last + last_attention
    forward += sequences * _head(text)
    constant = 3 * w * w * n + w * (n * prefix + 3 * n * tokens)
    backward = forward + layers * 2 * w * attended + last_attention - constant
    return forward, backward


def padded_operations(text, sequences) -> tuple[int, int]:
    """The same with 40 tokens a sequence through all of every layer, and a gradient for all of
    them.
    """
    w = text.width
    hidden = text.layers[0].fc1.out_features
    layers = len(text.layers)
    tokens = text.max_tokens
    attention = layers * 2 * w * sequences * tokens**2
    linear = layers * (4 * w * w + 2 * w * hidden) * sequences * tokens
    linear += sequences * _head(text)
    return linear + attention, linear + 2 * attention


def _head(text) -> int:
    return text.clip_text_projection.weight.numel() + _projection(text.projection)


def _projection(projection) -> int:
    return projection.linear1.weight.numel() + projection.linear2.weight.numel()


def operations(method, batch=1, padded=False) -> dict[str, int]:
    """Multiply-adds of a training step on `batch` embedded clips: forward (all that inference
    takes) and backward.

    padded: as in the published code, where in each step each prompt goes through the text encoder
    with all of its 40 tokens, for PALM too, and COCOOP's for every clip.
    """
    trainable = sum(parameter.numel() for parameter in method.parameters())
    forward, backward = _prompt_operations(method, padded and trainable > 0)
    if isinstance(method, CoCoOp):
        forward, backward = _conditional_operations(method, batch, padded, forward, backward)
    logits = batch * len(method.class_names) * method.model.dim
    return {
        "forward": forward + logits,
        "backward": (backward + logits) * (trainable > 0),
        "trainable": trainable,
    }


def _prompt_operations(method, padded: bool) -> tuple[int, int]:
    """Multiply-adds of encoding the prompts of all classes once: (forward, backward)."""
    text = method.model.text
    classes = len(method.class_names)
    if not isinstance(method, CoOp):
        # The published code encodes them anew in each step, though nothing in them is learned.
        return (padded_operations(text, classes)[0], 0) if padded else (0, 0)
    if padded:
        return padded_operations(text, classes)
    return text_operations(text, classes, *_prompt_tokens(method))


def _prompt_tokens(method: CoOp) -> tuple[int, int]:
    """Tokens of a class's own part of its prompt, and of the prefix that all classes share."""
    return method.names.shape[1], 1 + len(method.context)


def _conditional_operations(method: CoCoOp, batch, padded, forward, backward) -> tuple[int, int]:
    """The same for a batch of clips with a prompt each: the meta-net and the encodings."""
    first = method.meta_net.linear1.weight.numel()
    second = method.meta_net.linear2.weight.numel()
    tokens, prefix = _prompt_tokens(method)
    clips_per_chunk = max(1, method.max_tokens // (len(method.class_names) * tokens + prefix))
    if not padded and batch > clips_per_chunk:
        # To bound memory, each of several chunks is computed anew in the backward pass.
        backward += forward
    return batch * (forward + first + second), batch * (backward + first + 2 * second)


def audio_operations(encoder) -> int:
    """Multiply-adds of the audio encoder for one clip of 7 s.

    They are those of the mel bands, Swin's linear layers and windows, and the projection. The
    Fourier transform and what is done value by value are left out: together less than a hundredth.
    """
    samples = round(Pengi.sample_rate * Pengi.clip_seconds)
    frames = samples // encoder.hop_size + 1
    patch = encoder.trunk.patch_embed.proj.weight
    tokens = (encoder.spec_size // patch.shape[-1]) ** 2
    count = frames * encoder.mel.numel() + tokens * patch.numel()
    for n, stage in enumerate(encoder.trunk.layers):
        if n > 0:  # patch merging: four neighbours become one
            tokens //= 4
            count += tokens * stage.downsample.reduction.weight.numel()
        count += sum(_block_operations(block, tokens) for block in stage.blocks)
    return count + _projection(encoder.projection)


def _block_operations(block, tokens: int) -> int:
    """Multiply-adds of a block of Swin: its linear layers, and attention within its windows."""
    layers = [layer for layer in block.modules() if isinstance(layer, torch.nn.Linear)]
    linear = sum(layer.weight.numel() for layer in layers)
    width = block.norm1.normalized_shape[0]
    window = min(block.window_area, tokens)
    return tokens * (linear + 2 * window * width)


class Stopwatch:
    """Measures contenders in turns, so that a slow minute of the machine meets all of them."""

    def __init__(self, device: torch.device, repeats: int):
        self.device = device
        self.repeats = repeats

    def __call__(self, **contenders: Callable) -> dict:
        """Per contender: median, fastest and slowest seconds, and peak MiB of its first, untimed
        run.
        """
        memory = {name: self.peak_memory(run) for name, run in contenders.items()}
        calls = dict.fromkeys(contenders, 1)
        times = {name: [] for name in contenders}
        for name, run in contenders.items():
            seconds = self.seconds(run, 1)
            if seconds < SHORT:
                calls[name] = int(SHORT / seconds) + 1
            else:  # as good a measurement as the others
                times[name].append(seconds)
        while min(map(len, times.values())) < self.repeats:
            for name, run in contenders.items():
                times[name].append(self.seconds(run, calls[name]))
        return {name: _summarise(times[name], memory[name]) for name in contenders}

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, run: Callable, calls: int) -> float:
        """Seconds of one of several calls."""
        self.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            run()
        self.synchronize()
        return (time.perf_counter() - start) / calls

    def peak_memory(self, run: Callable) -> float:
        """MiB over what was held before.

        By CUDA's allocator; on a CPU the resident memory, sampled every millisecond.
        """
        if self.device.type == "cuda":
            return self._peak_of_cuda(run)
        # glibc: hand back what earlier runs freed, or it would hide this one.
        with contextlib.suppress(AttributeError):
            psutil.heap_trim()
        with PeakWatch() as watch:
            run()
        return watch.growth / MIB

    def _peak_of_cuda(self, run: Callable) -> float:
        self.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        self.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / MIB


def _summarise(times: list[float], mib: float) -> dict[str, float]:
    return {
        "seconds": statistics.median(times),
        "fastest": min(times),
        "slowest": max(times),
        "mib": mib,
    }


class PeakWatch:
    """Samples the resident memory of this process in a thread. growth: bytes, at the peak."""

    def __enter__(self):
        self.before = self.peak = _resident_memory()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._sample)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.done.set()
        self.thread.join()
        self.peak = max(self.peak, _resident_memory())

    def _sample(self) -> None:
        while not self.done.wait(SAMPLING):
            self.peak = max(self.peak, _resident_memory())

    @property
    def growth(self) -> int:
        return self.peak - self.before


def _resident_memory() -> int:
    return psutil.Process().memory_info().rss


def train_step(forward: Callable, method, features: torch.Tensor, labels: torch.Tensor) -> Callable:
    """A function that takes one step of SGD.

    Its rate leaves the parameters where they are: it costs the same. A method that learns nothing
    takes no step.
    """
    parameters = [*method.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1e-9, momentum=0.9) if parameters else None
    return functools.partial(_take_step, forward, features, labels, optimizer)


def _take_step(forward: Callable, features, labels, optimizer) -> None:
    if optimizer is None:
        return
    loss = F.cross_entropy(forward(features), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def settings(classes: int) -> list[dict]:
    """What is measured: BASE, and each of its values varied with the others at rest.

    Without what needs more classes than there are.
    """
    found = []
    for name, values in VARIED.items():
        for value in values:
            setting = BASE | {name: value}
            if setting["classes"] <= classes and setting not in found:
                found.append(setting)
    return found


def measure(
    model, class_names, repeats=5, longest=300.0, on_progress=print, published=None
) -> pd.DataFrame:
    """Seconds and memory of the four methods on random embeddings, one line a method, quantity and
    setting.

    what: "training step", "inference" (of a batch), "inference, stored" (`stored_logits`); at BASE
    also "epoch" and "fit" (16 shots a class; 50 epochs), and "training step, published" where
    `published` is given; for clips (method ""): "encode" and "encode, backward" (train mode, with
    the gradient that the published code computes and nobody uses). seconds: the median of `repeats`
    after one run that is not timed; fastest, slowest; mib: peak memory above what was held
    (`Stopwatch`). A fit that would take more than `longest` seconds is 50 times its epoch, and
    `computed` says so. forward, backward, trainable: `operations`. threads: of a CPU; BASE is
    measured with all cores and with THREADS.

    on_progress: called with each setting before it is measured. published: a function of a method
    that returns its forward as the published code computes it, with every prompt padded and anew.
    """
    stopwatch = Stopwatch(model.device, repeats)
    cores = torch.get_num_threads()
    lines = []
    for threads in thread_counts(model.device, cores):
        whole = threads == cores
        for setting in settings(len(class_names)) if whole else [BASE]:
            on_progress(f"{setting}, {threads} threads")
            with torch_threads(threads):
                measured = [*_steps(model, class_names, setting, stopwatch)]
            lines += [line | setting | {"threads": threads} for line in measured]
        on_progress(f"clips, {threads} threads")
        with torch_threads(threads):
            clips = [*_clip_encoding(model, stopwatch, backward=whole)]
        lines += [line | {"batch": BASE["batch"], "threads": threads} for line in clips]
    on_progress("epochs and fits")
    fits = [*_fits(model, class_names, stopwatch, longest)]
    if published is not None:
        on_progress("published steps")
        fits += _published_steps(model, class_names, stopwatch, published)
    lines += [line | BASE | {"threads": cores} for line in fits]
    about = {"repeats": repeats, "device": str(model.device), "model": model.note or "PENGI"}
    counts = (*BASE, "forward", "backward", "trainable")
    return pd.DataFrame(lines).assign(**about).astype(dict.fromkeys(counts, "Int64"))


def thread_counts(device: torch.device, cores: int) -> list[int]:
    """With how many threads to measure: all cores first, then THREADS. On a GPU only the first."""
    fewer = [number for number in THREADS if number < cores] if device.type == "cpu" else []
    return [cores, *fewer]


def _methods(model, class_names, setting) -> dict:
    names = list(class_names)[: setting["classes"]]
    return {key: _method(key, model, names, setting["context"]) for key in METHOD_KEYS}


def _method(key: str, model, names, context: int):
    """A method with a context of this length, if it has one."""
    if issubclass(METHODS[key], CoOp):
        return METHODS[key](model, names, context_length=context)
    return METHODS[key](model, names)


def _steps(model, class_names, setting, stopwatch):
    """Lines of a training step and of inference at a setting, of each method."""
    methods = _methods(model, class_names, setting)
    batch = setting["batch"]
    features = torch.randn(batch, model.dim, device=model.device)
    labels = torch.arange(batch, device=model.device) % setting["classes"]
    learned = {key: method for key, method in methods.items() if [*method.parameters()]}
    texts = {key: stored_text(m) for key, m in methods.items() if not isinstance(m, CoCoOp)}
    runs = {
        "training step": {key: train_step(m, m, features, labels) for key, m in learned.items()},
        "inference": {key: functools.partial(infer, m, features) for key, m in methods.items()},
        STORED: {
            key: functools.partial(stored_logits, methods[key], text, features)
            for key, text in texts.items()
        },
    }
    for what, contenders in runs.items():
        for key, measured in stopwatch(**contenders).items():
            counts = operations(methods[key], batch)
            if what == STORED:
                counts |= {"forward": batch * setting["classes"] * model.dim, "backward": 0}
            yield {"method": key, "what": what, **measured, **counts}


@torch.no_grad()
def infer(method, features):
    return method(features)


@torch.no_grad()
def stored_text(method) -> torch.Tensor:
    """Text embeddings [classes, dim] of a method, computed once after training.

    They are its logits of the unit vectors, over the scale: for the methods here logits are linear
    in the unit audio embedding. Raises ValueError for COCOOP, whose text depends on the clip.
    """
    if isinstance(method, CoCoOp):
        raise ValueError(f"the text embeddings of {method.label} depend on the clip")
    model = method.model
    axes = torch.eye(model.dim, device=model.device, dtype=model.dtype)
    return method(axes).T / method.logit_scale


@torch.no_grad()
def stored_logits(method, text, features) -> torch.Tensor:
    """Logits of features [n, dim] with stored text embeddings: all that inference has to do."""
    return method.logits(features, text)


def _published_steps(model, class_names, stopwatch, published):
    """Lines of a training step at BASE in the published form, of each method that learns."""
    methods = {k: m for k, m in _methods(model, class_names, BASE).items() if k in LEARNED_KEYS}
    features = torch.randn(BASE["batch"], model.dim, device=model.device)
    labels = torch.arange(BASE["batch"], device=model.device) % BASE["classes"]
    runs = {k: train_step(published(m), m, features, labels) for k, m in methods.items()}
    for key, measured in stopwatch(**runs).items():
        counts = operations(methods[key], BASE["batch"], padded=True)
        yield {"method": key, "what": PUBLISHED, **measured, **counts}


def _fits(model, class_names, stopwatch, longest):
    """Lines of an epoch and of a fit at BASE, of each method that learns."""
    methods = _methods(model, class_names, BASE)
    labels = torch.arange(SHOTS * BASE["classes"]) % BASE["classes"]
    features = torch.randn(len(labels), model.dim)
    few = Stopwatch(model.device, min(stopwatch.repeats, 3))
    once = Stopwatch(model.device, 1)
    for key in LEARNED_KEYS:
        settings = {"batch_size": BASE["batch"], "lr": 1e-9}
        run = functools.partial(fit, methods[key], features, labels, **settings)
        epoch = few(run=functools.partial(run, epochs=1))["run"]
        yield {"method": key, "what": "epoch", **epoch}
        computed = EPOCHS * epoch["seconds"] > longest
        if computed:
            times = {name: EPOCHS * value for name, value in epoch.items() if name != "mib"}
            whole = epoch | times
        else:
            whole = once(run=functools.partial(run, epochs=EPOCHS))["run"]
        yield {"method": key, "what": "fit", "computed": computed, **whole}


def _clip_encoding(model, stopwatch, backward: bool):
    """Lines of encoding a batch of clips, and with the backward pass of the published code."""
    samples = round(model.sample_rate * model.clip_seconds)
    waveforms = (0.1 * torch.randn(BASE["batch"], samples)).to(model.device)
    count = BASE["batch"] * audio_operations(model.audio)
    work = {"encode": 0, "encode, backward": 2 * count}
    runs = {"encode": functools.partial(model.encode_audio, waveforms)}
    if backward:
        runs["encode, backward"] = functools.partial(_encode_backward, model.audio, waveforms)
    state = {name: tensor.clone() for name, tensor in model.audio.bn0.state_dict().items()}
    try:
        for what, measured in stopwatch(**runs).items():
            counts = {"forward": count, "backward": work[what]}
            yield {"method": "", "what": what, **measured, **counts}
    finally:
        model.audio.bn0.load_state_dict(state)  # train mode changes its statistics


def _encode_backward(encoder, waveforms) -> None:
    """Encode clips in train mode, with the gradient of all weights."""
    encoder.train().requires_grad_(True)
    try:
        encoder(waveforms).square().sum().backward()
    finally:
        encoder.eval().requires_grad_(False).zero_grad()


def machine(device: torch.device) -> str:
    """What a measurement was made on, in a line."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    # Waiting threads spin by default, which on shared cores takes the time from those that work.
    waiting = os.environ.get("OMP_WAIT_POLICY", "default").lower()
    threads = torch.get_num_threads()
    return (
        f"{name}, {os.cpu_count()} cores, {threads} threads (wait policy {waiting}), "
        f"Python {platform.python_version()}, torch {torch.__version__}, timm {version('timm')}"
    )
