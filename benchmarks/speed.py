"""How fast palmkit is beside the straightforward computation, at PENGI's size (random weights).

`python benchmarks/speed.py` prints a Markdown table. Both contenders run in this process, in turns
(A B A B ...), on the same inputs, and must give the same numbers before anything is timed. The
learners' features are given.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import soundfile
import torch
import torchaudio
from straightforward import Audio, Learner

from palmkit.audio import count_samples, decode
from palmkit.experiments.profiling import MIB, Stopwatch, machine, train_step
from palmkit.methods import METHODS
from palmkit.models.checkpoint import PENGI_CONFIG
from palmkit.models.pengi import Pengi
from palmkit.models.random import random_encoders
from palmkit.published import paper_datasets

ESC50 = list(paper_datasets()["ESC50"].class_names)
TOLERANCE = 1e-4  # of logits and embeddings, relative to the largest
NOTES = """

Median (fastest to slowest); straightforward to palmkit. [n clips]: memory allowed n clips, and
time, tokens and a step's memory are scaled up to the batch. Text tokens: through the text
transformer in a forward pass. Peak memory: what an untimed first run took over what was held before
it; CUDA's own count, on a CPU the resident memory sampled every millisecond.
Waveforms are 7 s; files are 5 s of 16-bit mono WAV, decoded one by one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--classes", type=int, nargs="+", default=[10, 50], help="the first so many names of ESC-50"
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    given = parser.parse_args()
    if not all(2 <= n <= len(ESC50) for n in given.classes) or given.batch < 1 or given.repeats < 1:
        parser.error(
            f"--classes takes numbers in 2..{len(ESC50)}, --batch and --repeats take 1 or more"
        )
    if given.threads:
        torch.set_num_threads(given.threads)
    device = given.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"

    torch.manual_seed(0)
    start, load = time.perf_counter(), psutil.getloadavg()[0]
    pengi = Pengi(*random_encoders(), PENGI_CONFIG, torch.device(device))
    stopwatch = Stopwatch(pengi.device, given.repeats)
    rows = [
        row for n in given.classes for row in learner_rows(pengi, stopwatch, ESC50[:n], given.batch)
    ]
    rows += [*file_rows(stopwatch, given.batch), *audio_rows(pengi, stopwatch, given.batch)]

    print(f"{machine(pengi.device)}, load {load:.1f} before; {time.perf_counter() - start:.0f} s.")
    print(f"PENGI's size, random weights, float32, batch {given.batch}, {given.repeats} repeats.\n")
    print(table(rows))
    if given.json:
        given.json.write_text(json.dumps({"batch": given.batch, "rows": rows}, indent=1))


def check_same(ours: torch.Tensor, plain: torch.Tensor, what: str) -> None:
    error = ((ours - plain).abs().max() / plain.abs().max()).item()
    if not error < TOLERANCE:
        raise AssertionError(
            f"{what}: the two computations differ by {error:.1e}; nothing is timed"
        )


def learner_rows(
    pengi: Pengi, stopwatch: Stopwatch, names: list[str], batch: int
) -> Iterator[dict]:
    """Training step and evaluation batch of the three learners."""
    features = torch.randn(batch, pengi.dim, device=pengi.device)
    labels = torch.arange(batch, device=pengi.device) % len(names)
    for key in ("palm", "coop", "cocoop"):
        ours = METHODS[key](pengi, names)
        plain = Learner(ours)
        clips = batch
        if (
            key == "cocoop"
        ):  # the straightforward one's memory grows by the clip: take a sixth of what is free
            one = stopwatch.peak_memory(train_step(plain, ours, features[:1], labels[:1]))
            clips = min(batch, max(1, int(free_memory(pengi.device) / 6 / max(one, 1))))
        few, few_labels = features[:clips], labels[:clips]
        with torch.no_grad():
            tokens, plain.text.tokens = (
                dict(palmkit=count_tokens(pengi, partial(ours, features))),
                0,
            )
            check_same(ours(features)[:clips], plain(few), f"{key}, {len(names)} classes")
            tokens["plain"] = plain.text.tokens * batch // clips
        runs = {
            "training step": (
                train_step(ours, ours, features, labels),
                train_step(plain, ours, few, few_labels),
            ),
            "evaluation batch": (partial(ours, features), partial(plain, few)),
        }
        for what, (run, plain_run) in runs.items():
            training = what == "training step"
            with torch.set_grad_enabled(training):
                measured = stopwatch(palmkit=run, plain=plain_run)
            measured[
                "plain"
            ] = {  # without gradient its loop over clips needs no more memory for more of them
                name: value * (batch / clips if training or name != "mib" else 1)
                for name, value in measured["plain"].items()
            }
            about = dict(
                what=f"{key.upper()}, {what}", classes=len(names), clips=batch, plain_clips=clips
            )
            yield about | dict(tokens=tokens, **measured)


def free_memory(device: torch.device) -> float:
    return (
        torch.cuda.mem_get_info()[0] if device.type == "cuda" else psutil.virtual_memory().available
    ) / MIB


def count_tokens(pengi: Pengi, run: Callable) -> int:
    """Tokens that really enter palmkit's text transformer."""
    seen = []
    hook = pengi.text.layers[0].register_forward_hook(
        lambda module, given, out: seen.append(given[0].shape[:-1])
    )
    run()
    hook.remove()
    return sum(shape.numel() for shape in seen)


def file_rows(stopwatch: Stopwatch, batch: int) -> Iterator[dict]:
    """A batch of files, one after the other; other rates than 44.1 kHz are resampled."""
    for rate in (Pengi.sample_rate, 48_000, 22_050):
        samples, file = 0.1 * torch.randn(1, 5 * rate), io.BytesIO()
        soundfile.write(file, samples[0].numpy(), rate, format="WAV")
        stages = {"decode": partial(decode, file.getvalue(), "clip.wav", Pengi.sample_rate)}
        if rate != Pengi.sample_rate:
            stages["decode and resample"] = stages.pop("decode")
            stages["resample alone"] = partial(
                torchaudio.functional.resample, samples, rate, Pengi.sample_rate
            )
        for what, one in stages.items():
            measured = stopwatch(palmkit=partial(several, one, batch))
            yield dict(what=f"{what}, {rate / 1000:g} kHz", clips=batch, **measured)


def several(run: Callable, calls: int) -> None:
    for _ in range(calls):
        run()


def audio_rows(pengi: Pengi, stopwatch: Stopwatch, batch: int) -> Iterator[dict]:
    """The stages of the audio encoder on a batch of seven-second clips."""
    ours, plain = pengi.audio, Audio(pengi)
    samples = count_samples(pengi.clip_seconds, pengi.sample_rate)
    waveforms = (0.1 * torch.randn(batch, samples)).to(pengi.device)
    with torch.no_grad():
        check_same(pengi.encode_audio(waveforms), plain(waveforms), "encode_audio")
        log_mel = ours.log_mel(waveforms)
        image = ours.image(log_mel)
        latent = ours.pooled(image)
        stages = {
            "log-mel": dict(
                palmkit=partial(ours.log_mel, waveforms), plain=partial(plain.log_mel, waveforms)
            ),
            "image": dict(
                palmkit=partial(ours.image, log_mel), plain=partial(plain.image, log_mel[:, None])
            ),
            "trunk": dict(palmkit=partial(ours.pooled, image), plain=partial(plain.latent, image)),
            "projection": dict(palmkit=partial(ours.projection, latent)),
            "`encode_audio`": dict(
                palmkit=partial(pengi.encode_audio, waveforms), plain=partial(plain, waveforms)
            ),
        }
        for what, runs in stages.items():
            yield dict(what=what, clips=batch, **stopwatch(**runs))


def table(rows: list[dict]) -> str:
    lines = [
        "| | classes | straightforward, s | palmkit, s | ratio | clips per second | text tokens "
        "| peak memory, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, plain, clips = row["palmkit"], row.get("plain"), row["clips"]
        cells = [
            row["what"],
            row.get("classes", ""),
            "",
            spread(ours),
            "",
            number(clips / ours["seconds"]),
            "",
        ]
        memory = f"{ours['mib']:,.0f}"
        if plain:
            mark = f" [{row['plain_clips']} clips]" if row.get("plain_clips", clips) < clips else ""
            cells[2], cells[4] = spread(plain) + mark, number(plain["seconds"] / ours["seconds"])
            memory = f"{plain['mib']:,.0f} to {memory}"
        if "tokens" in row:
            cells[6] = f"{row['tokens']['plain']:,} to {row['tokens']['palmkit']:,}"
        lines.append(f"| {' | '.join(map(str, cells))} | {memory} |")
    return "\n".join(lines) + NOTES


def spread(measured: dict) -> str:
    return "{} ({} to {})".format(
        *(number(measured[key]) for key in ("seconds", "fastest", "slowest"))
    )


def number(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:#.3g}" if x >= 1e-4 else f"{x:.6f}"


if __name__ == "__main__":
    main()
