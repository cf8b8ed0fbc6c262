"""AudioSet on paper: bytes, hours and cost of 2 million clips and 527 classes, from measured rates.

    python benchmarks/audioset.py --price 2.50

prints the tables of docs/scale.md. Rates of a CPU are those of notebooks/data/efficiency.csv
(PENGI's size, random weights, two threads). No rate of a GPU has been measured: hours on GPUs are a
function of the rate, and one line is an estimate from operations.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

ROWS = Path(__file__).resolve().parent.parent / "notebooks" / "data" / "efficiency.csv"
CLIPS, CLASSES, SECONDS = 2_000_000, 527, 10
DIM = 1024  # PENGI's
ENTRY = 4224  # bytes of the store for an embedding of 1,024 numbers: measured
INDEX = 800  # bytes of memory for an entry of an open store: measured
SHOTS, EPOCHS, BATCH = 16, 50, 16
RATES = (100, 300, 1_000, 3_000)  # clips a second of one GPU, to choose from
GPUS = (1, 16)
PEAK, SHARE = 19.5e12, 0.3  # operations a second of an A100 in float32 by its data sheet; a guess
HOUR, NOTHING = 3600, "–"


def read_rows() -> list[dict]:
    with open(ROWS, newline="") as file:
        return [row for row in csv.DictReader(file) if row["model"] == "PENGI's size"]


def encode_row(threads: int) -> dict:
    """The measured row of encoding a batch of clips."""
    return next(
        row for row in read_rows() if row["what"] == "encode" and int(row["threads"]) == threads
    )


def encode_rate(threads: int) -> float:
    """Measured clips a second."""
    row = encode_row(threads)
    return int(row["batch"]) / float(row["seconds"])


def extrapolate(method: str, column: str, classes: int = CLASSES) -> float:
    """A column of a training step of 16 clips: the line through those of 25 and 50 classes.

    Beyond 50 classes nothing has been measured.
    """
    found = {
        int(row["classes"]): float(row[column])
        for row in read_rows()
        if row["method"] == method
        and row["what"] == "training step"
        and (row["batch"], row["context"], row["threads"]) == (str(BATCH), "16", "2")
    }
    few, many = sorted(found)[-2:]
    slope = (found[many] - found[few]) / (many - few)
    return found[many] + slope * (classes - many)


def estimated_rate() -> float:
    """Clips a second of an A100 in float32 at SHARE of its peak. An estimate: nothing was run."""
    row = encode_row(2)
    operations = 2 * float(row["forward"]) / int(row["batch"])  # a multiply and an add
    return SHARE * PEAK / operations


def describe_bytes() -> list[list[str]]:
    rows = [
        ("audio, 16-bit mono WAV at 44.1 kHz", f"clips x {SECONDS} s x 88.2 kB", SECONDS * 88_200),
        ("audio, 16-bit mono WAV at 32 kHz", f"clips x {SECONDS} s x 64 kB", SECONDS * 64_000),
        ("numbers of the embeddings", f"clips x {DIM:,} x 4 B", DIM * 4),
        ("cache on disk", f"clips x {ENTRY:,} B", ENTRY),
        ("index of the open cache, in memory", f"clips x {INDEX} B", INDEX),
    ]
    lines = [[what, formula, f"{CLIPS * each / 1e9:,.1f} GB"] for what, formula, each in rows]
    return [["what", "formula", "size"], *lines]


def describe_hours(price: float) -> list[list[str]]:
    """Hours to encode all clips once, without decoding."""
    lines = [["rate", "clips a second", *(f"hours on {n}" for n in GPUS), "cost"]]
    for threads in (1, 2):
        rate = encode_rate(threads)
        name = f"CPU, {threads} thread{'s' * (threads > 1)}: measured"
        lines.append([name, f"{rate:.1f}", f"{CLIPS / rate / HOUR:.0f}", NOTHING, NOTHING])
    estimate = estimated_rate()
    named = [(f"GPU, if it does {rate:,}", rate) for rate in RATES]
    for name, rate in [*named, ("A100, float32: estimated from operations", estimate)]:
        hours = [CLIPS / (rate * count) / HOUR for count in GPUS]
        cost = f"{CLIPS / rate / HOUR * price:.1f}"
        lines.append([name, f"{rate:,.0f}", *(f"{one:.2f}" for one in hours), cost])
    return lines


def describe_trials() -> list[list[str]]:
    """Hours of one trial: 16 shots, 50 epochs, 527 classes; and memory of its step."""
    steps = EPOCHS * -(-SHOTS * CLASSES // BATCH)
    lines = [["method", "s a step", "GiB a step", "steps", "hours, CPU", "hours, A100 (estimate)"]]
    for method in ("palm", "coop", "cocoop"):
        seconds = extrapolate(method, "seconds")
        operations = 2 * sum(extrapolate(method, name) for name in ("forward", "backward"))
        guess = f"{steps * operations / (SHARE * PEAK) / HOUR:.2g}"
        lines.append(
            [
                method,
                f"{seconds:.3g}",
                f"{extrapolate(method, 'mib') / 1024:.2g}",
                f"{steps:,}",
                f"{seconds * steps / HOUR:.3g}",
                NOTHING if method == "palm" else guess,  # its time is not that of arithmetic
            ]
        )
    return lines


def to_markdown(lines: list[list[str]]) -> str:
    table = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--price", type=float, default=2.0, help="of one GPU for an hour")
    price = parser.parse_args().price
    for table in (describe_bytes(), describe_hours(price), describe_trials()):
        print(f"{to_markdown(table)}\n")
    print(f"Cost: at a price of {price:g} for an hour of one GPU; the same on any number of them.")


if __name__ == "__main__":
    main()
