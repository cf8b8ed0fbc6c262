"""A small grid of mini-PENGI that is run, disturbed, run to its end, and compared.

`Grid` has the datasets and the results of a run that nothing disturbed. Each `Try` has folders of
its own: for the run, the cache and temporary files. So what it leaves can be seen.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil

from palmkit.cli import main

SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[1]
METHODS = ("zeroshot", "solved-palm", "kernel-ridge", "palm", "coop")
SEEDS = (0, 1)
DATASETS = ("VocalSounds", "Instruments")
CLASSES = 5  # of each dataset, with so many clips each
CLIPS = {"train": 3, "test": 3}
TRIALS = len(DATASETS) * (1 + (len(METHODS) - 1) * len(SEEDS))
# What differs between two runs: times, the command, and what the process has imported.
UNEQUAL = ("seconds", "written", "command", "versions")
ENDS_S = 15  # seconds for all processes of a command to end after it


def copy_part(source: Path, target: Path) -> None:
    """Some classes and clips of a generated dataset, as one split."""
    (target / "audios").mkdir(parents=True)
    for split, count in CLIPS.items():
        table = pd.read_csv(source / "csv_files" / f"{split}_1.csv")
        table = table[table["classname"].isin(table["classname"].unique()[:CLASSES])]
        table = table.groupby("classname", sort=False).head(count)
        for path in table["path"]:
            shutil.copy(source / path, target / path)
        table.to_csv(target / f"{split}.csv", index=False)


@dataclass
class Grid:
    """folder: with the datasets, and a cache that has all embeddings after the whole run."""

    folder: Path
    rows: dict = field(default_factory=dict)
    table: str = ""
    files: set = field(default_factory=set)
    server: subprocess.Popen | None = None

    @classmethod
    def make(cls, folder: Path) -> "Grid":
        from palmkit.datasets.resolve import find_dataset

        for name in DATASETS:
            copy_part(Path(find_dataset(name)), folder / "data" / name)
        grid = cls(folder)
        grid.server = start_server(folder)
        whole = Try(grid, folder / "whole")
        status, said = whole.run(jobs=1)
        assert status == 0, said
        grid.rows, grid.table, grid.files = (
            whole.read_rows(),
            whole.read_table(),
            whole.list_files(),
        )
        assert len(grid.rows) == TRIALS
        return grid

    def close(self) -> None:
        self.server.stdin.close()
        self.server.wait(timeout=60)

    def ask(self, **request):
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        answer = self.server.stdout.readline()
        assert answer, "the server of runs has ended"
        return int(answer)


def start_server(folder: Path) -> subprocess.Popen:
    environment = base_environment() | {"TMPDIR": str(folder)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, str(SUPPORT / "run_server.py")]
    return subprocess.Popen(command, env=environment, cwd=ROOT, **pipes)


def base_environment() -> dict:
    """This process's environment without what a fault or a test put there."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PLANTED", "PALMKIT_"))}
    paths = [str(SUPPORT), str(ROOT), str(ROOT / "tools"), kept.get("PYTHONPATH", "")]
    return kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PALMKIT_PROGRESS": "0",
        "OMP_NUM_THREADS": "1",
        # PyTorch's own folder, which the import of timm makes: it is not left by palmkit.
        "TORCHINDUCTOR_CACHE_DIR": str(Path(tempfile.gettempdir()) / "torchinductor"),
    }


def heed_signals() -> None:
    """A shell may have started the tests in the background, where these signals are ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Process:
    """A command that was started. fresh: by an interpreter of its own, not by the server."""

    def __init__(self, grid: Grid, argv, environment: dict, output: Path, fresh: bool):
        self.grid, self.output, self.fresh = grid, output, fresh
        self.status = None
        if fresh:
            with output.open("w") as file:
                self.popen = subprocess.Popen(
                    [sys.executable, "-m", "palmkit", *argv],
                    env=environment,
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                    preexec_fn=heed_signals,
                )
            self.pid = self.popen.pid
        else:
            self.pid = grid.ask(argv=argv, env=environment, output=str(output))

    def send(self, number: int, group: bool = False) -> None:
        """Send a signal, to the whole group as a terminal does with Ctrl-C."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def ended(self) -> bool:
        """Whether it has ended. It is not waited for, so that its number stays its own."""
        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def cpu_seconds(self) -> float:
        """That it has worked. Before half a second Python itself begins, and answers signals."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return sum(psutil.Process(self.pid).cpu_times()[:2])
        return 0.0

    def wait(self, seconds: float = 300) -> int:
        """The exit status, negative for a signal."""
        if self.status is None:
            assert wait_for(self.ended, seconds), f"it does not end: {self.said()[-2000:]}"
            if self.fresh:
                self.status = self.popen.wait()
            else:
                self.status = self.grid.ask(wait=self.pid)
        return self.status

    def said(self) -> str:
        return self.output.read_text()


class Try:
    """One run in folders of its own: `run`, `cache`, `tmp`."""

    def __init__(self, grid: Grid, folder: Path, warm: bool = False):
        """warm: the cache has the embeddings."""
        self.grid, self.folder = grid, folder
        self.run_folder = folder / "run" / "grid"
        self.cache, self.tmp = folder / "cache", folder / "tmp"
        for one in (self.run_folder.parent, self.cache, self.tmp):
            one.mkdir(parents=True, exist_ok=True)
        if warm:
            shutil.copytree(grid.folder / "whole" / "cache", self.cache, dirs_exist_ok=True)
        self.datasets = grid.folder / "data"
        self.started: list[Process] = []
        self.pids: set[int] = set()
        self.memory_before = list_shared_memory()  # a process of any time may have had a number

    def command(self) -> list[str]:
        """Always the same command. Its faults are in the environment."""
        return [
            *("run", "--import", str(SUPPORT / "planted_grid.py"), "--name", str(self.run_folder)),
            *("--dataset", *(str(self.datasets / name) for name in DATASETS)),
            *("--method", *METHODS, "--seed", *map(str, SEEDS)),
            *("--shots", "2", "--epochs", "3"),
        ]

    def __enter__(self) -> "Try":
        return self

    def __exit__(self, *_) -> None:
        """End what a failed try left."""
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for process in self.started:
            process.wait()

    def start(self, planted=None, jobs: int = 2, fresh: bool = False, more=()) -> Process:
        environment = base_environment() | {
            "PALMKIT_CACHE": str(self.cache),
            "TMPDIR": str(self.tmp),
            "PALMKIT_JOBS": str(jobs),
            "TRY": str(self.folder),
            **({"PLANTED": json.dumps(planted)} if planted else {}),
        }
        output = self.folder / f"output{len(self.started)}.txt"
        process = Process(self.grid, [*self.command(), *more], environment, output, fresh)
        self.started.append(process)
        self.pids.add(process.pid)
        return process

    def run(self, planted=None, jobs: int = 2, **options) -> tuple[int, str]:
        process = self.start(planted, jobs, **options)
        return process.wait(), process.said()

    # What is there.

    def read_rows(self) -> dict:
        """{file: the row, without what differs between runs}."""
        found = {}
        for path in sorted(self.run_folder.glob("rows/*/*.json")):
            row = json.loads(path.read_text())
            found[str(path.relative_to(self.run_folder))] = {
                name: value for name, value in row.items() if name not in UNEQUAL
            }
        return found

    def count_rows(self) -> int:
        return len([*self.run_folder.glob("rows/*/*.json")])

    def phase(self) -> str:
        """What the command says of itself in its status file."""
        for path in self.run_folder.glob("status/*.state.json"):
            with contextlib.suppress(OSError, ValueError):
                return json.loads(path.read_text())["phase"]
        return ""

    def read_table(self) -> str:
        output = self.folder / "table.md"
        with output.open("w") as file, contextlib.redirect_stdout(file):
            assert main(["table", str(self.run_folder)]) == 0
        return output.read_text()

    def list_files(self) -> set[str]:
        """Files of the run, but those of status, which name a process."""
        found = (path.relative_to(self.run_folder) for path in self.run_folder.rglob("*"))
        return {str(path) for path in found if path.parts[0] != "status"}

    # What must be so.

    def finish(self, *more: str, jobs: int = 1) -> str:
        """The same command without a fault runs to its end. What it said. more: flags."""
        process = self.start(jobs=jobs, more=more)
        status, said = process.wait(), process.said()
        assert status == 0, said[-2000:]
        assert "Traceback" not in said, said[-2000:]
        return said

    def check(self) -> None:
        """Rows and table are those of the run that nothing disturbed, and nothing is left over."""
        assert_equal(self.read_rows(), self.grid.rows)
        assert self.read_table() == self.grid.table
        assert self.list_files() == self.grid.files
        self.check_processes()
        self.check_files()
        for process in self.started:  # that were not killed
            assert process.status < 0 or "leaked" not in process.said(), process.said()[-1000:]

    def check_processes(self) -> None:
        """No process of the try is alive after some seconds."""
        assert wait_for(lambda: not self.family(), ENDS_S), [p.cmdline() for p in self.family()]
        assert wait_for(lambda: not self.shared_memory(), ENDS_S), self.shared_memory()

    def family(self) -> list[psutil.Process]:
        """All processes of the try that are alive, found by their environment."""
        mark = f"TRY={self.folder}".encode()
        # A command of the server is a fork, whose environment is not shown.
        found = [psutil.Process(one.pid) for one in self.started if not one.ended()]
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError, psutil.Error):
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        found.append(psutil.Process(int(folder.name)))
        self.pids |= {one.pid for one in found}
        return found

    def shared_memory(self) -> list[str]:
        """Shared memory and semaphores of the try's processes."""
        marks = [f"{sign}{pid}{sign}" for pid in self.pids for sign in "-_"]
        new = list_shared_memory() - self.memory_before
        return [name for name in new if any(mark in name for mark in marks)]

    def check_files(self) -> None:
        """No temporary file, no lock that is held."""
        assert not [*self.tmp.rglob("*")], [*self.tmp.rglob("*")]
        for folder in (self.run_folder, self.cache):
            left = [path for path in folder.rglob("*") if is_temporary(path)]
            assert not left, left
        for path in self.cache.glob("locks/*.lock"):
            with path.open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError if it is held


def list_shared_memory() -> set[str]:
    return {*os.listdir("/dev/shm")} if os.path.isdir("/dev/shm") else set()


def is_temporary(path: Path) -> bool:
    return path.suffix == ".part" or path.name.startswith(".")


def assert_equal(found: dict, expected: dict) -> None:
    """Equal rows. The message names the first difference, not all rows."""
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    for name, row in expected.items():
        other = found[name]
        differ = [key for key in row.keys() | other.keys() if row.get(key) != other.get(key)]
        assert not differ, (name, {key: (other.get(key), row.get(key)) for key in differ})


def wait_for(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@contextlib.contextmanager
def mounted(folder: Path, size: str):
    """A file system in memory of this size at the folder. Gives a function that changes it.

    Raises PermissionError where this process may not mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PermissionError(f"no file system can be mounted here: {error}") from error

    def change(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    try:
        yield change
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
