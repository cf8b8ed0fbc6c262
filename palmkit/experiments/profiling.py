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
METHOD_KEYS = ("zeroshot", "coop", "cocoop", "palm")
BASE = {"batch": 16, "classes": 10, "context": CONTEXT_LENGTH}  # one of them varies at a time
VARIED = {"batch": (1, 4, 16, 64), "classes": (4, 10, 25, 50), "context": (4, 8, 16, 32)}


def text_operations(text, sequences, tokens, prefix=0) -> tuple[int, int]:
    """Multiply-adds of `prefix` shared tokens and, after them, `sequences` of `tokens` each:
    (forward, backward).

    The weights are frozen, so a linear layer's backward pass is one product, for its input, and
    attention's are two; and since only the prefix is learned, the first layer needs none for what
    stands after it.
    """
    w, hidden, layers = text.width, text.layers[0].fc1.out_features, len(text.layers) - 1
    n, attended = sequences * tokens, sequences * tokens * (tokens + prefix) + prefix**2
    linear = (4 * w * w + 2 * w * hidden) * (n + prefix)
    # Of the last layer: keys and values of all, and the rest of one position a sequence.
    last = 2 * w * w * (n + prefix) + sequences * (2 * w * w + 2 * w * hidden)
    looked = 2 * w * sequences * (tokens + prefix)
    forward = layers * (linear + 2 * w * attended) + last + looked + sequences * _head(text)
    constant = 3 * w * w * n + w * (n * prefix + 3 * n * tokens)
    return forward, forward + layers * 2 * w * attended + looked - constant


def padded_operations(text, sequences) -> tuple[int, int]:
    """The same with 40 tokens a sequence through all of every layer, and a gradient for all of
    them.
    """
    w, hidden, tokens = text.width, text.layers[0].fc1.out_features, text.max_tokens
    attention = len(text.layers) * 2 * w * sequences * tokens**2
    linear = len(text.layers) * (
        4 * w * w + 2 * w * hidden
    ) * sequences * tokens + sequences * _head(text)
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
    classes, text = len(method.class_names), method.model.text
    trainable = sum(parameter.numel() for parameter in method.parameters())
    forward = backward = again = 0
    if isinstance(method, CoOp):
        shape = classes, method.names.shape[1], 1 + len(method.context)
        forward, backward = (
            padded_operations(text, classes) if padded else text_operations(text, *shape)
        )
    elif padded and trainable:  # encoded anew, though nothing in front of it is learned
        forward = padded_operations(text, classes)[0]
    if isinstance(method, CoCoOp):
        first, second = (
            layer.weight.numel() for layer in (method.meta_net.linear1, method.meta_net.linear2)
        )
        if not padded and batch > max(1, method.max_tokens // (shape[0] * shape[1] + shape[2])):
            again = forward  # more than one chunk: each is computed anew in the backward pass, to bound memory
        forward, backward = (
            batch * (n + first + second) for n in (forward, backward + again + second)
        )
    logits = batch * classes * method.model.dim
    return {
        "forward": forward + logits,
        "backward": (backward + logits) * (trainable > 0),
        "trainable": trainable,
    }


def audio_operations(encoder) -> int:
    """Multiply-adds of the audio encoder for one clip of 7 s: mel bands, Swin's linear layers and
    windows, projection.

    The Fourier transform and what is done value by value are left out: together less than a
    hundredth.
    """
    samples = round(Pengi.sample_rate * Pengi.clip_seconds)
    trunk, frames = encoder.trunk, samples // encoder.hop_size + 1
    patch = trunk.patch_embed.proj.weight
    tokens = (encoder.spec_size // patch.shape[-1]) ** 2
    count = frames * encoder.mel.numel() + tokens * patch.numel()
    for stage in trunk.layers:
        width = stage.blocks[0].norm1.normalized_shape[0]
        if stage is not trunk.layers[0]:  # patch merging: four neighbours become one
            tokens //= 4
            count += tokens * stage.downsample.reduction.weight.numel()
        window = min(stage.blocks[0].window_area, tokens)
        for block in stage.blocks:
            linear = sum(
                layer.weight.numel()
                for layer in block.modules()
                if isinstance(layer, torch.nn.Linear)
            )
            count += tokens * (linear + 2 * window * width)
    return count + _projection(encoder.projection)


class Stopwatch:
    """Measures contenders in turns, so that a slow minute of the machine meets all of them."""

    def __init__(self, device: torch.device, repeats: int):
        self.device, self.repeats = device, repeats

    def __call__(self, **contenders: Callable) -> dict:
        """Per contender: median, fastest and slowest seconds, and peak MiB of its first, untimed
        run.
        """
        memory = {name: self.peak_memory(run) for name, run in contenders.items()}
        calls, times = dict.fromkeys(contenders, 1), {name: [] for name in contenders}
        for name, run in contenders.items():
            if (seconds := self.seconds(run, 1)) < 0.05:
                calls[name] = int(0.05 / seconds) + 1
            else:  # as good a measurement as the others
                times[name].append(seconds)
        while min(map(len, times.values())) < self.repeats:
            for name, run in contenders.items():
                times[name].append(self.seconds(run, calls[name]))
        return {
            name: dict(
                seconds=statistics.median(t), fastest=min(t), slowest=max(t), mib=memory[name]
            )
            for name, t in times.items()
        }

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, run: Callable, calls: int) -> float:
        self.synchronize()
        start = time.perf_counter()
        for _ in range(calls):  # what takes a millisecond is timed over many calls
            run()
        self.synchronize()
        return (time.perf_counter() - start) / calls

    def peak_memory(self, run: Callable) -> float:
        """MiB over what was held before: by CUDA's allocator, else the resident memory, looked at
        every millisecond.
        """
        if self.device.type == "cuda":
            self.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            run()
            self.synchronize()
            return (torch.cuda.max_memory_allocated() - before) / MIB
        with contextlib.suppress(
            AttributeError
        ):  # glibc: hand back what earlier runs freed, or it would hide this one
            psutil.heap_trim()
        resident, done = (lambda: psutil.Process().memory_info().rss), threading.Event()
        before = peak = resident()

        def watch():
            nonlocal peak
            while not done.wait(0.001):
                peak = max(peak, resident())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            run()
        finally:
            done.set()
            watcher.join()
        return (max(peak, resident()) - before) / MIB


def train_step(forward: Callable, method, features: torch.Tensor, labels: torch.Tensor) -> Callable:
    """A function that takes one step of SGD.

    Its rate leaves the parameters where they are: it costs the same.
    """
    parameters = [*method.parameters()]
    if not parameters:
        return lambda: None
    optimizer = torch.optim.SGD(parameters, lr=1e-9, momentum=0.9)

    def run():
        loss = F.cross_entropy(forward(features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def settings(classes: int) -> list[dict]:
    """What is measured: BASE, and each of its values varied with the others at rest, as far as
    there are classes.
    """
    one_by_one = [BASE | {name: value} for name, values in VARIED.items() for value in values]
    return [setting for n, setting in enumerate(one_by_one)
            if setting["classes"] <= classes and setting not in one_by_one[:n]]  # fmt: skip


def measure(model, class_names, repeats=5, longest=300.0, on_progress=print) -> pd.DataFrame:
    """Seconds and memory of the four methods on random embeddings, one line a method, quantity and
    setting.

    what: "training step", "inference" (of a batch), at BASE also "epoch" and "fit" (16 shots a
    class; 50 epochs); for "clips" (method ""): "encode" and "encode, backward" (train mode, with
    the gradient that the published code computes and nobody uses). seconds: the median of `repeats`
    after one run that is not timed; fastest, slowest; mib: peak memory above what was held
    (`Stopwatch`). A fit that would take more than `longest` seconds is 50 times its epoch, and
    `computed` says so. operations: `operations`. on_progress: called with each setting before it is
    measured.
    """
    stopwatch, lines = Stopwatch(model.device, repeats), []
    cores = torch.get_num_threads()
    for threads in dict.fromkeys([cores, 1]):
        for setting in settings(len(class_names)) if threads == cores else [BASE]:
            on_progress(f"{setting}, {threads} threads")
            with torch_threads(threads):
                measured = _steps(model, class_names, setting, stopwatch)
                lines += [line | setting | {"threads": threads} for line in measured]
    on_progress("epochs and fits")
    lines += [
        line | BASE | {"threads": cores} for line in _fits(model, class_names, stopwatch, longest)
    ]
    on_progress("clips")
    lines += [
        line | {"batch": BASE["batch"], "threads": cores}
        for line in _clip_encoding(model, stopwatch)
    ]
    table = pd.DataFrame(lines).assign(
        repeats=repeats, device=str(model.device), model=model.note or "PENGI"
    )
    return table.astype(dict.fromkeys((*BASE, "forward", "backward", "trainable"), "Int64"))


def _methods(model, class_names, setting) -> dict:
    names = list(class_names)[: setting["classes"]]
    length = {"context_length": setting["context"]}
    return {
        key: METHODS[key](model, names, **(length if "co" in key else {})) for key in METHOD_KEYS
    }


def _steps(model, class_names, setting, stopwatch):
    methods = _methods(model, class_names, setting)
    features = torch.randn(setting["batch"], model.dim, device=model.device)
    labels = torch.arange(len(features), device=model.device) % setting["classes"]
    steps = {
        key: train_step(m, m, features, labels) for key, m in methods.items() if [*m.parameters()]
    }
    for what, runs in {
        "training step": steps,
        "inference": {key: functools.partial(infer, m, features) for key, m in methods.items()},
    }.items():
        for key, measured in stopwatch(**runs).items():
            yield {
                "method": key,
                "what": what,
                **measured,
                **operations(methods[key], setting["batch"]),
            }


@torch.no_grad()
def infer(method, features):
    return method(features)


def _fits(model, class_names, stopwatch, longest):
    methods = _methods(model, class_names, BASE)
    labels = torch.arange(SHOTS * BASE["classes"]) % BASE["classes"]
    features = torch.randn(len(labels), model.dim)
    for key in ("coop", "cocoop", "palm"):
        run = functools.partial(
            fit, methods[key], features, labels, batch_size=BASE["batch"], lr=1e-9
        )
        epoch = Stopwatch(model.device, min(stopwatch.repeats, 3))(
            run=functools.partial(run, epochs=1)
        )["run"]
        yield {"method": key, "what": "epoch", **epoch}
        if computed := 50 * epoch["seconds"] > longest:
            whole = {name: (1 if name == "mib" else 50) * value for name, value in epoch.items()}
        else:
            whole = Stopwatch(model.device, 1)(run=run)["run"]
        yield {"method": key, "what": "fit", "computed": computed, **whole}


def _clip_encoding(model, stopwatch):
    samples = round(model.sample_rate * model.clip_seconds)
    waveforms = (0.1 * torch.randn(BASE["batch"], samples)).to(model.device)
    count = BASE["batch"] * audio_operations(model.audio)

    def backward():
        encoder = model.audio.train().requires_grad_(True)
        try:
            encoder(waveforms).square().sum().backward()
        finally:
            encoder.eval().requires_grad_(False).zero_grad()

    state = {name: tensor.clone() for name, tensor in model.audio.bn0.state_dict().items()}
    runs = {
        "encode": functools.partial(model.encode_audio, waveforms),
        "encode, backward": backward,
    }
    try:
        for what, measured in stopwatch(**runs).items():
            yield {
                "method": "",
                "what": what,
                **measured,
                "forward": count,
                "backward": 2 * count * (what != "encode"),
            }
    finally:
        model.audio.bn0.load_state_dict(state)  # training had moved its statistics


def machine(device: torch.device) -> str:
    """What a measurement was made on, in a line."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    # Waiting threads spin by default, which on shared cores takes the time from those that work.
    waiting = os.environ.get("OMP_WAIT_POLICY", "default").lower()
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads (wait policy {waiting}), "
        f"Python {platform.python_version()}, torch {torch.__version__}, timm {version('timm')}"
    )
