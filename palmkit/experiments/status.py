"""How far a run is: what its commands write while they work, and `palmkit status`.

A command that runs trials has two files in runs/RUN/status: the plan (the rows that there will be),
and the state (what runs, since when). Rows say what is done. So a killed command loses nothing:
its plan stays, and its process is found to be gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from palmkit.experiments.light_rows import read_light_row
from palmkit.experiments.row_fields import RowError
from palmkit.experiments.timing import duration
from palmkit.storage import atomic_write, run_folder

log = logging.getLogger(__name__)

PLAN, STATE = ".plan.json", ".state.json"
SHOWN = 10  # running trials, and reasons of failures, that the text names


class Progress:
    """What a command that runs trials tells `palmkit status`. A context manager.

    keys: of the rows that the run will have, by their files. A file that cannot be written is no
    reason to end the run: rows tell of a full disk. versions: (name, version) of what changes
    results, for commands beside this one.
    """

    def __init__(self, run, keys: dict[Path, str], versions: tuple = ()):
        self.folder = run_folder(run) / "status"
        self.rows = run_folder(run) / "rows"
        self.keys = keys
        self.lock = threading.Lock()  # joblib starts trials from a thread of its own
        self.seconds: dict[str, float] = {}
        process = psutil.Process()
        self.state = {
            "host": platform.node(),
            "pid": process.pid,
            "created": process.create_time(),
            "phase": "starting",
            "started": time.time(),
            "running": {},
            "versions": dict(versions),
        }
        self.path = self.folder / f"{platform.node() or 'host'}-{process.pid}{STATE}"

    def __enter__(self) -> Progress:
        plan = {str(path.relative_to(self.rows)): key for path, key in self.keys.items()}
        with _unless_refused():
            self.folder.mkdir(parents=True, exist_ok=True)
            _forget_ended(self.folder)
            atomic_write(_plan_of(self.path), json.dumps({"rows": plan}))
        self._write(phase="starting")
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._write(phase="ended" if kind is None else "stopped", running={})

    def plan(self, seconds: dict[str, float], jobs: int, embedding: float) -> None:
        """State what there is to do. seconds: of each trial on one core, by the file of its row.
        jobs: trials at a time. embedding: seconds before the first trial, at most.
        """
        self.seconds = seconds
        work = {"to_do": sum(seconds.values()), "done": 0.0, "jobs": jobs}
        self._write(phase="embedding clips", embedding=embedding, **work)

    def begin(self, files: list[str]) -> None:
        """The trials begin: those that have not failed already. files: of their rows."""
        to_do = sum(self.seconds.get(file, 0.0) for file in files)
        self._write(phase="running trials", began=time.time(), to_do=to_do)

    def start(self, file: str, name: str) -> None:
        """A trial starts, or is given to a worker. file: of its row."""
        with self.lock:
            about = {"name": name, "since": time.time(), "seconds": self.seconds.get(file, 0.0)}
            self.state["running"][file] = about
        self._write()

    def finish(self, file: str) -> None:
        """A trial has its row, be it a failed one."""
        with self.lock:
            self.state["running"].pop(file, None)
            self.state["done"] = self.state.get("done", 0.0) + self.seconds.get(file, 0.0)
        self._write(finished=time.time())

    def _write(self, **changes) -> None:
        with self.lock:
            self.state |= {**changes, "written": time.time()}
            # A folder that somebody deleted is not made again.
            if self.folder.is_dir():
                with _unless_refused():
                    atomic_write(self.path, json.dumps(self.state))


@contextlib.contextmanager
def _unless_refused():
    """Go on without the file where the disk refuses it."""
    try:
        yield
    except OSError as error:
        log.debug("no status: %s", error)


def others_alive(progress: Progress) -> list[dict]:
    """The states of other commands that work on the same run."""
    paths = [one for one in progress.folder.glob(f"*{STATE}") if one != progress.path]
    return [state for state in map(_read_json, sorted(paths)) if state and _is_alive(state)]


def _plan_of(state: Path) -> Path:
    return state.with_name(state.name.removesuffix(STATE) + PLAN)


def _forget_ended(folder: Path) -> None:
    """Delete the files of commands that have ended: the new one's plan takes their place."""
    for path in folder.glob(f"*{STATE}"):
        state = _read_json(path)
        if state is None or not _is_alive(state):
            path.unlink(missing_ok=True)
            _plan_of(path).unlink(missing_ok=True)


def _read_json(path: Path) -> dict | None:
    """The content of a file of this module; None if it is gone or damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _is_alive(state: dict) -> bool:
    """Whether the command still works. One on another machine is believed."""
    if state.get("phase") in ("ended", "stopped"):
        return False
    if state.get("host") != platform.node():
        return True
    try:
        created = psutil.Process(state["pid"]).create_time()
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False
    return abs(created - state.get("created", 0.0)) < 1.0  # else the number is another process's


# Reading.


@dataclass
class Command:
    """A command that runs, or ran, trials of the run. left: seconds, if known."""

    host: str
    pid: int
    phase: str
    alive: bool
    silent: float  # seconds since it wrote its state
    left: float | None = None


@dataclass
class Status:
    """How far a run is. total: None for a run without a plan, of an older version of palmkit.

    running: {"name", "seconds" since it started} of each trial. reasons: why trials failed, with
    counts. others: rows of the run that no command has planned which is remembered here: of earlier
    commands, or of datasets and weights that have changed since.
    """

    run: str
    total: int | None
    done: int
    failed: int
    waiting: int | None
    others: int = 0
    running: list[dict] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)

    @property
    def left(self) -> float | None:
        """Seconds until the last command ends, if known."""
        known = [one.left for one in self.commands if one.alive and one.left is not None]
        return max(known, default=None)

    def as_dict(self) -> dict:
        return asdict(self) | {"seconds_left": self.left}


def read_status(run, clock: Callable[[], float] = time.time) -> Status:
    """How far a run is, from its rows and what its commands wrote.

    The rows that count are those that the commands plan, also where several work on one run. Other
    rows are only counted.
    Raises FileNotFoundError for a run that is not there.
    """
    folder = run_folder(run)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no run {folder}: `palmkit run --name {run}` makes it")
    states = {path: _read_json(path) for path in sorted((folder / "status").glob(f"*{STATE}"))}
    states = {path: state for path, state in states.items() if state is not None}
    keys: dict[str, str] = {}
    for path in states:
        keys |= (_read_json(_plan_of(path)) or {}).get("rows", {})
    planned: dict = {folder / "rows" / name: key for name, key in keys.items()}
    written = dict.fromkeys(sorted(folder.glob("rows/*/*.json")))
    expected = planned or written
    # Rows are not kept: there may be thousands.
    outcomes = Counter(_read_outcome(path, key) for path, key in expected.items())
    done = outcomes.pop("", 0)
    outcomes.pop(None, None)
    reasons = dict(outcomes)
    failed = sum(reasons.values())
    now = clock()
    commands = [_describe_command(state, now) for state in states.values()]
    running = [
        {"name": trial["name"], "seconds": max(now - trial["since"], 0.0)}
        for state, command in zip(states.values(), commands, strict=True)
        for trial in state.get("running", {}).values()
        if command.alive
    ]
    total = len(keys) or None
    waiting = None if total is None else max(total - done - failed - len(running), 0)
    others = len(written.keys() - expected.keys())
    counts = (total, done, failed, waiting, others)
    return Status(folder.name, *counts, running, reasons, commands)


def _read_outcome(path: Path, key: str | None) -> str | None:
    """Why a trial failed, or "" if it did not. None for a row that is not there, damaged or of
    other settings. Long lists of the row are not looked at.
    """
    try:
        row = read_light_row(path)
    except RowError:  # the run itself tells of damaged rows
        return None
    if key is not None and row.get("key") != key:
        return None
    return row.get("failed", "")


def _describe_command(state: dict, now: float) -> Command:
    about = (state.get("host", ""), state.get("pid", 0), state.get("phase", ""))
    alive = _is_alive(state)
    silent = max(now - state.get("written", now), 0.0)
    return Command(*about, alive, silent, _seconds_left(state, now) if alive else None)


def _seconds_left(state: dict, now: float) -> float | None:
    """Seconds until a command ends: from its measured speed, else from its estimate.

    None where neither tells: all that runs takes longer than estimated.
    """
    if "to_do" not in state:
        return None
    left = state["to_do"] - state["done"]
    began = state.get("began")
    if began is None:  # it embeds
        embedding = max(state["embedding"] - (now - state["started"]), 0.0)
        return embedding + left / state["jobs"]
    running = [trial["seconds"] - (now - trial["since"]) for trial in state["running"].values()]
    longest = max([*running, 0.0])  # no trial is shared by workers
    if state["done"] <= 0:
        rest = left / state["jobs"] - (now - began)
    else:
        speed = state["done"] / max(state["finished"] - began, 1e-3)
        rest = left / speed - (now - state["finished"])
    return None if rest <= 0 and running and longest <= 0 else max(rest, longest)


def format_status(status: Status) -> str:
    """The status as text: one line of counts, then what runs, what failed, and the time left."""
    total = "unknown" if status.total is None else str(status.total)
    waiting = "unknown" if status.waiting is None else str(status.waiting)
    counts = f"done {status.done}, running {len(status.running)}, failed {status.failed}"
    lines = [f"Run {status.run}: {counts}, waiting {waiting}; trials in all: {total}"]
    running = sorted(status.running, key=lambda trial: -trial["seconds"])
    lines += [f"running: {one['name']}, for {_short(one['seconds'])}" for one in running[:SHOWN]]
    lines += _more(len(running) - SHOWN, "running")
    reasons = sorted(status.reasons.items(), key=lambda pair: -pair[1])
    lines += [f"failed: {count} trials: {reason}" for reason, count in reasons[:SHOWN]]
    lines += _more(len(reasons) - SHOWN, "reasons of failures")
    lines += [_tell_command(command) for command in status.commands]
    if status.others:
        lines.append(f"beside these: {status.others} rows of earlier commands")
    if status.total is None and not status.done + status.failed:
        lines.append("No plan and no rows: its command was refused or stopped. Run it again")
    elif status.total is None:
        lines.append("Rows only: this run has no plan, so what is missing is not known")
    return "\n".join(lines) + "\n"


def _tell_command(command: Command) -> str:
    name = f"process {command.pid} on {command.host}"
    if command.alive:
        left = "not known yet" if command.left is None else duration(command.left)
        seen = f", last message {_short(command.silent)} ago"
        return f"{name}: {command.phase}{seen}; time left: {left}"
    if command.phase == "ended":
        return f"{name}: ended"
    reason = "stopped by an error or by the user" if command.phase == "stopped" else "was killed"
    return f"{name}: {reason}; the same command goes on from there"


def _more(count: int, what: str) -> list[str]:
    return [f"and {count} more {what}"] if count > 0 else []


def _short(seconds: float) -> str:
    return duration(seconds).removeprefix("about ")
