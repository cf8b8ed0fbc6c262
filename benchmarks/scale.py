"""Time and memory of everything but training and encoding, at three sizes of three kinds.

    python benchmarks/scale.py

Simulates datasets of 1,000, 10,000 and 100,000 clips, of 10, 100 and 1,000 classes, and runs of
200, 2,000 and 20,000 rows (see `simulated.py`), in a temporary folder. Each step runs at each size
in a process of its own. Prints a Markdown table: seconds, peak memory, and how they grow. A growth
of 1 means ten times the work for ten times the size; 2 means a hundred times.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
PLANNED = 200  # seeds of the plan on many clips
FEW = 20  # classes, where clips or rows are many
SHOTS = 16
ROW_SHOTS, CLASS_SHOTS = 4, 2  # of runs of many rows, and of many classes
FOLDS, DATASETS = 4, 10  # of a run of many rows
ROWS_CLIPS = 160  # of each of its datasets
CLASS_CLIPS = 8  # of each class, where classes are many
CLASS_SEEDS = 2  # of the run of many classes
SIZES = {
    "clips": (1_000, 10_000, 100_000),
    "classes": (10, 100, 1_000),
    "rows": (200, 2_000, 20_000),
}
MARKS = ("<!-- measured: begin -->", "<!-- measured: end -->")
LOAD = os.getloadavg()[0]
FAST = 0.1  # seconds; growth from there tells of fixed costs


@dataclass(frozen=True)
class Step:
    """What is timed. kind: of SIZES. prepare: what is done before, untimed; its result is given."""

    name: str
    kind: str
    work: Callable
    prepare: Callable = lambda place: None


@dataclass(frozen=True)
class Place:
    """Where a simulation is: its folder, kind and size. The environment points to it."""

    folder: Path
    kind: str
    size: int

    @property
    def dataset(self) -> str:
        return str(self.folder / "data" / "Simulated")

    @property
    def datasets(self) -> list[str]:
        return [str(self.folder / "data" / f"Set{n}") for n in range(DATASETS)]

    def environment(self) -> dict[str, str]:
        names = {"PALMKIT_CACHE": "cache", "PALMKIT_RUNS": "runs", "PALMKIT_DATA": "data"}
        folders = {name: str(self.folder / folder) for name, folder in names.items()}
        quiet = {"PALMKIT_PROGRESS": "0", "OMP_NUM_THREADS": "1", "PALMKIT_JOBS": "1"}
        return os.environ | folders | quiet


# Making. Each in a process of its own, so that the command stays small: a new process starts with
# the peak memory of the one that made it.


def build(place: Place) -> None:
    from simulated import fill_cache, make_dataset, make_run

    from palmkit import load_dataset, load_model

    model = load_model("mini", "cpu")
    if place.kind == "rows":
        for name in place.datasets:
            make_dataset(Path(name), ROWS_CLIPS, FEW, FOLDS)
        paths = [path for name in place.datasets for path in Path(name).rglob("*.wav")]
        fill_cache(model, paths)
        make_run("big", row_grid(place), model)
        return
    classes = place.size if place.kind == "classes" else FEW
    clips = place.size * CLASS_CLIPS if place.kind == "classes" else place.size
    make_dataset(Path(place.dataset), clips, classes)
    fill_cache(model, sorted(Path(place.dataset).rglob("*.wav")))
    if place.kind == "classes":
        assert len(load_dataset(place.dataset).class_names) == classes
        make_run("big", class_grid(place), model, left_out=0)


def row_grid(place: Place) -> list:
    from simulated import grid

    return grid(place.datasets, place.size, shots=ROW_SHOTS)


def class_grid(place: Place) -> list:
    from palmkit.experiments.trials import make_grid

    methods = ("zeroshot", "palm", "prototypes")
    return make_grid(methods, [place.dataset], seeds=range(CLASS_SEEDS), shots=CLASS_SHOTS)


# Steps.


def load_mini(place: Place):
    from palmkit import load_model

    return load_model("mini", "cpu")


def command(*arguments: str) -> None:
    """A command of the console script, in this process. Its output is dropped."""
    from palmkit.cli import main

    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        status = main([*arguments, "--quiet"])
    if status:
        raise SystemExit(f"palmkit {' '.join(arguments[:2])} failed ({status})")


def import_all(place: Place) -> None:
    """What commands import when they run, so that it is not timed."""
    import palmkit.datasets.check
    import palmkit.experiments.engines
    import palmkit.experiments.estimate
    import palmkit.results.export
    import palmkit.results.leaderboard
    import palmkit.results.report  # noqa: F401

    load_mini(place)


def read(place: Place, _=None):
    from palmkit import load_dataset

    return load_dataset(place.dataset)


def read_with_model(place: Place) -> tuple:
    return read(place), load_mini(place)


def hash_clips(place: Place, given) -> None:
    given[0].digest()


def hash_again(place: Place) -> tuple:
    given = read_with_model(place)
    given[0].digest()
    return given


def look_up(place: Place, given) -> None:
    from palmkit import embed

    dataset, model = given
    for frame in (dataset.train, dataset.test):
        embed(model, frame, on_progress=refuse)


def refuse(done: int, total: int) -> None:
    raise SystemExit(f"{total} embeddings are missing in the cache")


def count(place: Place, given) -> None:
    from palmkit.experiments.cached import count_missing

    dataset, model = given
    if missing := count_missing(model, dataset.test["path"]):
        raise SystemExit(f"{missing} embeddings are missing in the cache")


def draw(place: Place, given) -> None:
    from palmkit import draw_shots

    draw_shots(given[0].train, SHOTS if place.kind == "clips" else CLASS_SHOTS)


def encode_names(place: Place, given) -> None:
    from palmkit import ZeroShot

    dataset, model = given
    ZeroShot(model, dataset.class_names)


def train_step(place: Place, given) -> None:
    import torch

    from palmkit import PALM, fit

    dataset, model = given
    method = PALM(model, dataset.class_names)
    fit(method, torch.randn(16, model.dim), torch.zeros(16, dtype=torch.long), epochs=1)


def count_by_class(place: Place, _) -> None:
    from palmkit.results.confusion import count_confusions
    from palmkit.results.loading import load_rows

    count_confusions(load_rows("big", details=True), "big")


def grid_flags(place: Place) -> list[str]:
    """The flags of the grid that the run has rows of."""
    from simulated import METHODS

    seeds = sorted({str(trial.seed) for trial in row_grid(place)}, key=int)
    flags = ["--dataset", *place.datasets, "--method", *METHODS, "--seed", *seeds]
    flags += ["--shots", str(ROW_SHOTS)]
    return [*flags, "--checkpoint", "mini", "--device", "cpu", "--name", "big"]


def run_flags(place: Place) -> list[str]:
    import_all(place)
    return grid_flags(place)


def start_trial(place: Place, _) -> None:
    flags = ("--checkpoint", "mini", "--device", "cpu", "--name", "first")
    command("run", "--dataset", place.dataset, "--method", "zeroshot", *flags)


def plan_trial(place: Place, _) -> None:
    flags = ("--checkpoint", "mini", "--device", "cpu", "--dry-run")
    methods = ("--method", "zeroshot", "palm", "--seed", *map(str, range(PLANNED)))
    command("run", "--dataset", place.dataset, *methods, *flags)


def to_file(place: Place, suffix: str) -> str:
    return str(place.folder / f"out{suffix}")


def load_light(place: Place, _) -> None:
    from palmkit.results.loading import load_rows

    load_rows("big")


def write_page(place: Place, _) -> None:
    from palmkit.results.report import write_report

    page = write_report("big")
    print(f"PAGE {page.stat().st_size}")


STEPS = [
    Step("read the tables (`load_dataset`)", "clips", read, import_all),
    Step("hash all clips, once a process", "clips", hash_clips, read_with_model),
    Step("look again whether a clip has changed", "clips", hash_clips, hash_again),
    Step("draw 16 shots", "clips", draw, read_with_model),
    Step("look up all embeddings (`embed`)", "clips", look_up, read_with_model),
    Step("count what the cache lacks", "clips", count, read_with_model),
    Step("`palmkit run --dry-run`, 201 trials", "clips", plan_trial, import_all),
    Step("`palmkit run`, one zero-shot trial", "clips", start_trial, import_all),
    Step(
        "`palmkit check`, every file",
        "clips",
        lambda place, _: command("check", place.dataset),
        import_all,
    ),
    Step("draw 2 shots a class", "classes", draw, read_with_model),
    Step("encode the class names", "classes", encode_names, read_with_model),
    Step("build PALM, one step", "classes", train_step, read_with_model),
    Step("count confusions, 5 rows", "classes", count_by_class, import_all),
    Step("the report, 5 rows", "classes", write_page, import_all),
    Step(
        "plan the grid (`palmkit run --dry-run`)",
        "rows",
        lambda place, flags: command("run", *flags, "--dry-run"),
        run_flags,
    ),
    Step("`palmkit status`", "rows", lambda place, _: command("status", "big"), import_all),
    Step("read the rows (`load_rows`)", "rows", load_light, import_all),
    Step("`palmkit table`", "rows", lambda place, _: command("table", "big"), import_all),
    Step(
        "`palmkit leaderboard`", "rows", lambda place, _: command("leaderboard", "big"), import_all
    ),
    Step(
        "`palmkit export`, CSV",
        "rows",
        lambda place, _: command("export", "big", "--to", to_file(place, ".csv")),
        import_all,
    ),
    Step("the report", "rows", write_page, import_all),
    # Last, for it adds the rows that are left to do.
    Step(
        "resume: `palmkit run` with two trials left, table and report",
        "rows",
        lambda place, flags: command("run", *flags),
        run_flags,
    ),
]
STARTS = {  # whole processes, nothing before them
    "`import palmkit`": ["-c", "import palmkit"],
    "`palmkit --help`": ["-m", "palmkit", "--help"],
    "`palmkit run --help`": ["-m", "palmkit", "run", "--help"],
}


def measure(name: str, place: Place, counted: bool = False) -> dict:
    """One step, in this process.

    seconds: on the wall. cpu: seconds of all threads. peak: MiB of this process in all. added: MiB
    that the step took, at its peak, over what was held before it. counted: with counts of calls.
    """
    step = next(one for one in STEPS if (one.name, one.kind) == (name, place.kind))
    given = step.prepare(place)
    gc.collect()
    highest = resident_peak()
    forget_peak()
    before, found = resident_peak(), {}
    with counting(found) if counted else contextlib.nullcontext():
        wall, cpu = time.perf_counter(), time.process_time()
        step.work(place, given)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resident_peak()
    times = {"seconds": wall, "cpu": cpu}
    return {**times, "peak": max(highest, peak), "added": peak - before, **found}


def resident_peak() -> float:
    """MiB of memory that this process had at most, since it started or since `forget_peak`."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import resource

    unit = MIB if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def forget_peak() -> None:
    """Count the peak from here, where the system can: imports take more than many steps."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


FILES = {"opens": ("open",), "stats": ("stat", "lstat"), "lists": ("scandir", "listdir")}


@contextlib.contextmanager
def counting(found: dict) -> Iterator[None]:
    """Count calls of Python functions and of built-in ones, of all threads, in a block.

    Counts do not depend on what else the machine does.
    """
    counts: Counter[str] = Counter()

    def see(frame, event, argument) -> None:
        if event == "call":
            counts["calls"] += 1
        elif event == "c_call":
            counts["calls"] += 1
            counts[argument.__name__] += 1

    threading.setprofile(see)
    sys.setprofile(see)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        found["calls"] = counts["calls"]
        found |= {kind: sum(counts[name] for name in names) for kind, names in FILES.items()}


# The command: makes, measures in processes, prints.


def start(place: Place, task: str, *flags: str) -> str:
    """Run this file in a process for one task; its output."""
    about = [str(place.folder), place.kind, str(place.size)]
    call = [sys.executable, __file__, "--task", task, *about, *flags]
    done = subprocess.run(call, env=place.environment(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{task} at {place.size} {place.kind} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def measure_starts(repeats: int) -> list[dict]:
    """Whole processes: the fastest of some, with its peak memory."""
    lines = []
    for name, arguments in STARTS.items():
        runs = []
        for _ in range(repeats):
            begin = time.perf_counter()
            child = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            if status:
                raise SystemExit(f"{name} failed")
            runs.append({"seconds": time.perf_counter() - begin, "peak": usage.ru_maxrss / 1024})
        lines.append({"step": name} | min(runs, key=lambda one: one["seconds"]))
    return lines


def run_kind(kind: str, sizes, folder: Path, counted: bool, only: str = "") -> list[dict]:
    """Every step of a kind at each size. The simulation of a size is removed when it is done."""
    lines = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{kind}-{size}-") as made:
            place = Place(Path(made), kind, size)
            begin = time.perf_counter()
            start(place, "build")
            tell(f"{size:,} {kind}: made in {time.perf_counter() - begin:.0f} s")
            for step in STEPS:
                if step.kind != kind or only not in step.name:
                    continue
                out = start(place, step.name, *(["--count"] if counted else []))
                *_, last = out.splitlines()
                pages = [line.split()[1] for line in out.splitlines() if line.startswith("PAGE ")]
                found = json.loads(last) | ({"page": int(pages[0])} if pages else {})
                tell(f"  {step.name}: {found['seconds']:.2f} s, {found['peak']:.0f} MiB")
                lines.append({"step": step.name, "kind": kind, "size": size} | found)
    return lines


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def growth(small: float, large: float, factor: float) -> float:
    """The exponent e in large = small * factor ** e."""
    return math.log(large / small) / math.log(factor) if min(small, large) > 0 else math.nan


def to_markdown(lines: list[dict], kind: str) -> str:
    """A table: steps down, sizes across. Growth is that between the two largest sizes; that of time
    is of CPU seconds, for what else the machine does changes those less.
    """
    own = [line for line in lines if line["kind"] == kind]
    sizes = sorted({line["size"] for line in own})
    head = [f"{size:,} {kind}" for size in sizes]
    table = [["step", *head, "growth of time", "peak MiB", "added MiB", "growth of added MiB"]]
    for step in dict.fromkeys(line["step"] for line in own):
        found = [next(one for one in own if (one["step"], one["size"]) == (step, s)) for s in sizes]
        table.append([step, *(f"{one['seconds']:.3g} s" for one in found), *_trends(found, sizes)])
    return _as_table(table)


def _trends(found: list[dict], sizes: list[int]) -> list[str]:
    """Growth of time, peaks, what the step added to them, and the growth of that."""
    peaks = " / ".join(f"{one['peak']:.0f}" for one in found)
    added = " / ".join(f"{one['added']:.0f}" for one in found)
    if len(found) < 2:
        return ["", peaks, added, ""]
    factor = sizes[-1] / sizes[-2]
    exponents = [growth(*(one[name] for one in found[-2:]), factor) for name in ("cpu", "added")]
    slow, large = found[-1]["cpu"] >= FAST, found[-1]["added"] >= 16
    shown = [
        f"{value:.2f}" if known and not math.isnan(value) else "small"
        for value, known in zip(exponents, (slow, large), strict=True)
    ]
    return [shown[0], peaks, added, shown[1]]


def _as_table(table: list[list[str]]) -> str:
    table.insert(1, ["---"] * len(table[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def describe_pages(lines: list[dict]) -> str:
    pages = [f"{one['page'] / 1e3:,.0f} kB at {one['size']:,} {one['kind']}" for one in lines
             if "page" in one]  # fmt: skip
    return f"The report's page: {', '.join(pages)}." if pages else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for kind, sizes in SIZES.items():
        parser.add_argument(f"--{kind}", type=int, nargs="*", default=sizes, metavar="N")
    parser.add_argument("--only", default="", help="only steps whose name has this text")
    parser.add_argument("--repeats", type=int, default=3, help="of the starts; the fastest counts")
    parser.add_argument("--count", action="store_true", help="count calls too, which takes time")
    parser.add_argument("--folder", type=Path, help="where to simulate (default: temporary)")
    parser.add_argument("--json", type=Path, help="also write all numbers there")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this file")
    parser.add_argument("--task", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        return run_task(given.task, given.count)
    # A killed benchmark, too, removes what it made.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    starts = measure_starts(given.repeats)
    lines = []
    for kind in SIZES:
        lines += run_kind(kind, getattr(given, kind), given.folder, given.count, given.only)
    if given.json:
        given.json.write_text(json.dumps({"starts": starts, "steps": lines}, indent=1))
    text = to_text(starts, lines)
    print(text)
    if given.write:
        replace_table(given.write, text)
    return None


def to_text(starts: list[dict], lines: list[dict]) -> str:
    """All tables, and what they were measured on."""
    table = [["start", "seconds", "peak MiB"]]
    table += [[one["step"], f"{one['seconds']:.2f}", f"{one['peak']:.0f}"] for one in starts]
    kinds = [kind for kind in SIZES if any(line["kind"] == kind for line in lines)]
    load = ", ".join(f"{one:.1f}" for one in (LOAD, os.getloadavg()[0]))
    about = (
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}; load before and after: {load}."
    )
    parts = [_as_table(table), *(to_markdown(lines, kind) for kind in kinds)]
    return "\n\n".join([*parts, f"{describe_pages(lines)} Measured on {about}".strip()])


def replace_table(path: Path, text: str) -> None:
    """Put the tables between the marks of a Markdown file."""
    before, _, rest = path.read_text().partition(MARKS[0])
    _, found, after = rest.partition(MARKS[1])
    if not found:
        raise SystemExit(f"{path} has no lines {' and '.join(MARKS)}")
    path.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}")


def run_task(task: list[str], counted: bool) -> None:
    """What the process of one task does."""
    name, folder, kind, size = task
    place = Place(Path(folder), kind, int(size))
    if name == "build":
        return build(place)
    return print(json.dumps(measure(name, place, counted)))


if __name__ == "__main__":
    main()
