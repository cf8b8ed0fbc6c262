"""How fast palmkit is beside the straightforward computation, at PENGI's full size with random weights.

`python benchmarks/speed.py` prints Markdown tables. Both contenders run in this process, in turns (A B A B ...), on the
same inputs, and must give the same numbers before anything is timed. Features are given; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import psutil
import soundfile
import torch
import torch.nn.functional as F
import torchaudio
from straightforward import Audio, Learner

from palmkit.audio import CLIP_SAMPLES, SAMPLE_RATE, decode
from palmkit.methods import METHODS
from palmkit.pengi import PENGI_CONFIG, Pengi
from palmkit.standin import random_encoders

ESC50 = (
    "airplane|breathing|brushing teeth|can opening|car horn|cat|chainsaw|chirping birds|church bells|clapping|"
    "clock alarm|clock tick|coughing|cow|crackling fire|crickets|crow|crying baby|dog|door wood creaks|door wood knock|"
    "drinking sipping|engine|fireworks|footsteps|frog|glass breaking|hand saw|helicopter|hen|insects|keyboard typing|"
    "laughing|mouse click|pig|pouring water|rain|rooster|sea waves|sheep|siren|sneezing|snoring|thunderstorm|"
    "toilet flush|train|vacuum cleaner|washing machine|water drops|wind"
).split("|")
TOLERANCE = 1e-4  # of logits and embeddings, relative to the largest
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 50], help="the first so many names of ESC-50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    given = parser.parse_args()
    if not all(2 <= n <= len(ESC50) for n in given.classes) or given.batch < 1 or given.repeats < 1:
        parser.error(f"--classes takes numbers in 2..{len(ESC50)}, --batch and --repeats take 1 or more")
    device = given.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    pengi = Pengi(*random_encoders(), PENGI_CONFIG, torch.device(device))
    stopwatch = Stopwatch(pengi.device, given.repeats)

    print(machine(pengi.device), flush=True)
    text = [row for n in given.classes for row in text_rows(pengi, stopwatch, ESC50[:n], given.batch)]
    print(text_table(text, given.batch), flush=True)
    audio = [*file_rows(stopwatch), *audio_rows(pengi, stopwatch, given.batch)]
    print(audio_table(audio, given.batch), flush=True)
    if given.json:
        given.json.write_text(json.dumps({"batch": given.batch, "text": text, "audio": audio}, indent=1))


def machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, Python {platform.python_version()}, torch "
        f"{torch.__version__}, timm {version('timm')}; float32, random weights at PENGI's size."
    )


class Stopwatch:
    """Measures contenders in turns, so that a slow minute of the machine meets all of them."""

    def __init__(self, device: torch.device, repeats: int):
        self.device, self.repeats = device, repeats

    def __call__(self, **contenders: Callable) -> dict:
        """Per contender: median, fastest and slowest seconds, and peak MiB of its first, untimed run."""
        memory = {name: self.peak_memory(run) for name, run in contenders.items()}
        calls = {name: max(1, int(0.05 / self.seconds(run, 1))) for name, run in contenders.items()}
        times = {name: [] for name in contenders}
        for _ in range(self.repeats):
            for name, run in contenders.items():
                times[name].append(self.seconds(run, calls[name]))
        return {
            name: dict(seconds=statistics.median(t), fastest=min(t), slowest=max(t), mib=memory[name])
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
        """MiB over what was held before: by CUDA's allocator, else the resident memory, looked at every millisecond."""
        if self.device.type == "cuda":
            self.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            run()
            self.synchronize()
            return (torch.cuda.max_memory_allocated() - before) / MIB
        with contextlib.suppress(AttributeError):  # glibc: hand back what earlier runs freed, or it would hide this one
            psutil.heap_trim()
        process, done = psutil.Process(), threading.Event()
        before = peak = process.memory_info().rss

        def watch():
            nonlocal peak
            while not done.wait(0.001):
                peak = max(peak, process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        run()
        done.set()
        watcher.join()
        return (max(peak, process.memory_info().rss) - before) / MIB


def check_same(ours: torch.Tensor, plain: torch.Tensor, what: str) -> None:
    error = ((ours - plain).abs().max() / plain.abs().max()).item()
    if not error < TOLERANCE:
        raise AssertionError(f"{what}: the two computations differ by {error:.1e}; nothing is timed")


def train_step(forward: Callable, method, features, labels) -> Callable:
    # The rate keeps the parameters where the two were compared; a step costs the same at every rate.
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-9, momentum=0.9)

    def run():
        loss = F.cross_entropy(forward(features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def text_rows(pengi: Pengi, stopwatch: Stopwatch, names: list[str], batch: int):
    """Training step and evaluation batch of the three learners."""
    features = torch.randn(batch, pengi.dim, device=pengi.device)
    labels = torch.arange(batch, device=pengi.device) % len(names)
    for key in ("palm", "coop", "cocoop"):
        ours = METHODS[key](pengi, names)
        plain = Learner(ours)
        step = partial(train_step, method=ours)
        clips = batch
        if key == "cocoop":  # its memory grows by the clip; leave half of what is free
            one = max(stopwatch.peak_memory(step(plain, features=features[:1], labels=labels[:1])), 1)
            clips = min(batch, max(1, int(free_mib(pengi.device) / 2 / one)))
        with torch.no_grad():
            tokens, expected = count_tokens(pengi, plain, clips, ours, features)
            check_same(ours(features)[:clips], expected, f"{key}, {len(names)} classes")
        few = dict(features=features[:clips], labels=labels[:clips])
        runs = {
            "training step": (step(ours, features=features, labels=labels), step(plain, **few)),
            "evaluation batch": (partial(ours, features), partial(plain, features[:clips])),
        }
        for what, pair in runs.items():
            with torch.set_grad_enabled(what == "training step"):
                measured = stopwatch(palmkit=pair[0], plain=pair[1])
            measured["plain"] = {k: v * batch / clips for k, v in measured["plain"].items()}
            about = dict(what=f"{key.upper()}, {what}", classes=len(names), plain_clips=clips, batch=batch)
            yield about | dict(tokens=tokens, ratio=ratio(measured), **measured)


def free_mib(device: torch.device) -> float:
    return (torch.cuda.mem_get_info()[0] if device.type == "cuda" else psutil.virtual_memory().available) / MIB


def count_tokens(pengi: Pengi, plain: Learner, clips: int, ours: Callable, features: torch.Tensor):
    """Tokens that enter the text transformer for one batch, counted; and the straightforward logits of `clips` clips."""
    seen = []
    hook = pengi.text.layers[0].register_forward_hook(lambda module, given, out: seen.append(given[0].shape[:-1]))
    ours(features)
    hook.remove()
    plain.text.tokens = 0
    logits = plain(features[:clips])
    return dict(palmkit=sum(shape.numel() for shape in seen), plain=plain.text.tokens * len(features) // clips), logits


def file_rows(stopwatch: Stopwatch):
    """Decoding five seconds of 16-bit mono WAV; at other rates than 44.1 kHz with resampling, which is also timed alone."""
    for rate in (SAMPLE_RATE, 48_000, 22_050):
        samples, file = 0.1 * torch.randn(5 * rate).clamp(-9, 9), io.BytesIO()
        soundfile.write(file, samples.numpy(), rate, format="WAV")
        runs = {"decode": partial(decode, file.getvalue(), "clip.wav")}
        if rate != SAMPLE_RATE:
            runs["resample"] = partial(torchaudio.functional.resample, samples[None], rate, SAMPLE_RATE)
        measured = stopwatch(**runs)
        yield dict(what=f"decode, {rate / 1000:g} kHz", clips=1, palmkit=measured["decode"])
        if "resample" in measured:
            yield dict(what=f"of it resampling, {rate / 1000:g} kHz", clips=1, palmkit=measured["resample"])


def audio_rows(pengi: Pengi, stopwatch: Stopwatch, batch: int):
    """The stages of the audio encoder on a batch of seven-second clips."""
    ours, plain = pengi.audio, Audio(pengi)
    waveforms = (0.1 * torch.randn(batch, CLIP_SAMPLES)).to(pengi.device)
    with torch.no_grad():
        check_same(pengi.encode_audio(waveforms), plain(waveforms), "encode_audio")
        log_mel = ours.log_mel(waveforms)
        image = ours.image(log_mel)
        latent = ours.latent(image)
        stages = {
            "log-mel": (partial(ours.log_mel, waveforms), partial(plain.log_mel, waveforms)),
            "image": (partial(ours.image, log_mel), partial(plain.image, log_mel[:, None])),
            "trunk": (partial(ours.latent, image), partial(plain.trunk.forward_features, image)),
            "projection": (partial(ours.projection, latent), None),
            "`encode_audio`": (partial(pengi.encode_audio, waveforms), partial(plain, waveforms)),
        }
        for what, runs in stages.items():
            measured = stopwatch(**{name: run for name, run in zip(("palmkit", "plain"), runs, strict=True) if run})
            yield dict(what=what, clips=batch, ratio=ratio(measured), **measured)


def ratio(measured: dict) -> float | None:
    return measured["plain"]["seconds"] / measured["palmkit"]["seconds"] if "plain" in measured else None


def text_table(rows: list[dict], batch: int) -> str:
    lines = [
        f"\nText side, batch {batch}: median (fastest to slowest), tokens through the text transformer in a forward pass.\n",
        "| | classes | straightforward, ms | palmkit, ms | ratio | tokens | peak memory, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        mark = "" if row["plain_clips"] == batch else f" [{row['plain_clips']} clips]"
        plain, ours, tokens = row["plain"], row["palmkit"], row["tokens"]
        lines.append(
            f"| {row['what']} | {row['classes']} | {spread(plain)}{mark} | {spread(ours)} | {row['ratio']:.3g} "
            f"| {tokens['plain']:,} to {tokens['palmkit']:,} | {plain['mib']:,.0f} to {ours['mib']:,.0f} |"
        )
    if any(row["plain_clips"] != batch for row in rows):
        lines.append(f"\n[n clips]: memory allowed n clips; time, tokens and memory are multiplied by {batch}/n.")
    return "\n".join([*lines, memory_note()])


def audio_table(rows: list[dict], batch: int) -> str:
    lines = [
        f"\nAudio side: files one at a time (5 s), stages at batch {batch} (7 s); median (fastest to slowest) per clip.\n",
        "| | straightforward, ms | palmkit, ms | ratio | clips per second | peak memory, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, plain, clips = row["palmkit"], row.get("plain"), row["clips"]
        lines.append(
            f"| {row['what']} | {spread(plain, clips) if plain else ''} | {spread(ours, clips)} "
            f"| {format(row['ratio'], '.3g') if plain else ''} | {clips / ours['seconds']:,.1f} "
            f"| {format(plain['mib'], ',.0f') + ' to ' if plain else ''}{ours['mib']:,.0f} |"
        )
    return "\n".join([*lines, memory_note()])


def spread(measured: dict, clips: int = 1) -> str:
    middle, low, high = (1000 * measured[key] / clips for key in ("seconds", "fastest", "slowest"))
    return f"{middle:,.3g} ({low:,.3g} to {high:,.3g})".replace("e+03", "e3")


def memory_note() -> str:
    return (
        "\nPeak memory is what the first run took over what was held before it: CUDA's own count, on a CPU the resident "
        "memory, sampled every millisecond."
    )


if __name__ == "__main__":
    main()
