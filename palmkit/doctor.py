"""What an installation is and whether it works: `palmkit doctor`, and what a bug report needs."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import shutil
from pathlib import Path

import psutil
import torch

import palmkit
from palmkit.audio import digest
from palmkit.checksums import CHECKSUM_FILE, ChecksumError, read_checksums, sha256_of, verify_folder
from palmkit.datasets.manifest import read_manifest
from palmkit.encoder_check import check_name
from palmkit.experiments.rows import COMMAND, git_commit, package_versions
from palmkit.models.base import choose_device
from palmkit.self_test import LIMIT, run_parity_tests, run_self_test
from palmkit.sound_files import ffmpeg_version
from palmkit.storage import PACKAGE, cache_root, data_root, run_folder
from palmkit.tables import find_folds
from palmkit_synthetic.tasks import TASKS, is_built, version

# Optional packages: a command that needs one says so.
EXTRAS = ("jinja2", "matplotlib", "jupyterlab", "papermill", "anywidget", "huggingface_hub", "soxr")
CHECKPOINTS = (".pth", ".pt", ".ckpt", ".safetensors")
SHORT = 16  # characters of a checksum that are shown
UNITS = ("B", "kB", "MB", "GB", "TB")
LOW_DISK = 5e9  # bytes
# The models that come with the kit, and their names in the manifest.
SHIPPED = {
    PACKAGE / "mini" / "mini.safetensors": "mini",
    PACKAGE / "mini_clap" / "mini_clap.safetensors": "mini-clap",
}


def examine(parity: bool = True, model: str = "", device="auto") -> dict:
    """All that `palmkit doctor` shows, as JSON-able values. Raises nothing for what is broken.

    parity: also run the tests against the published code's tensors, in a checkout. model: also
    check the model of this name. Raises FileNotFoundError if there is none.
    """
    memory = psutil.virtual_memory()
    outcomes = run_self_test()
    if parity and (outcome := run_parity_tests()):
        outcomes.append(outcome)
    return {
        "palmkit": palmkit.__version__,
        "commit": git_commit(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "packages": package_versions() | _extras(),
        "ffmpeg": ffmpeg_version(),
        "devices": _devices(),
        "memory": {"total": memory.total, "free": memory.available},
        "folders": {name: _folder(path) for name, path in _roots().items()},
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith("PALMKIT_") and value and name != COMMAND
        },
        "checkpoints": [_checkpoint(path) for path in _list_checkpoints()],
        "datasets": [_dataset(path) for path in _list_datasets()],
        "self_test": [dataclasses.asdict(one) | {"ok": one.ok} for one in outcomes],
        "model": _model(model, device) if model else None,
    }


def _model(name: str, device) -> dict:
    """What `check-model` finds of a model; its `facts` are licence, revision and training data."""
    report = check_name(name, device)
    wrong = [f"{one.check}: {one.what} {one.advice}" for one in report.select("wrong")]
    title = f"{report.title}; {len(report.findings)} checks, {len(wrong)} wrong"
    return {"name": name, "title": title, "facts": report.facts, "wrong": wrong}


def find_problems(found: dict) -> list[str]:
    """What is wrong, a sentence each; [] if all is well."""
    problems = []
    for step in found["self_test"]:
        if step["problem"]:
            problems.append(f"self-test, {step['step']}: {step['problem']}")
        elif not step["ok"]:
            problems.append(
                f"self-test, {step['step']}: differs by {step['difference']:.1e}, and {LIMIT:.0e} "
                "is allowed: install the versions of requirements.lock"
            )
    for name, folder in found["folders"].items():
        variable = f"PALMKIT_{name.upper()}"
        if not folder["writable"]:
            problems.append(f"{folder['path']} is not writable: choose another by {variable}")
        elif folder["free"] < LOW_DISK:
            free = format_bytes(folder["free"])
            problems.append(f"{free} are free for {folder['path']}: choose another by {variable}")
    if model := found["model"]:
        problems += [f"model {model['name']}, {what}" for what in model["wrong"]]
    for one in [*found["checkpoints"], *found["datasets"]]:
        if one["problem"]:
            problems.append(f"{one['name']}: {one['problem']}")
    return problems


def format_report(found: dict) -> str:
    """The findings as text, to be read and to be sent with a bug report."""
    lines = [
        f"palmkit {found['palmkit']}{', commit ' + found['commit'] if found['commit'] else ''}",
        f"System: {found['system']}",
        "Packages: " + ", ".join(f"{k} {v}" for k, v in found["packages"].items()),
        found["ffmpeg"] or "ffmpeg: not found; only formats of libsndfile are read",
        "Devices: " + "; ".join(found["devices"]),
        f"Memory: {format_bytes(found['memory']['free'])} free "
        f"of {format_bytes(found['memory']['total'])}",
        "",
        "Folders",
    ]
    for name, folder in found["folders"].items():
        state = f"{format_bytes(folder['free'])} free"
        state += "" if folder["writable"] else ", not writable"
        lines.append(f"  {name}: {folder['path']} ({state})")
    lines += [f"  {name}={value}" for name, value in found["environment"].items()]
    lines += ["", "Checkpoints", *map(_line_of_checkpoint, found["checkpoints"])]
    lines += ["", "Datasets", *(map(_line_of_dataset, found["datasets"]))]
    if not found["datasets"]:
        lines.append("  none; `palmkit run` generates some, `palmkit fetch` fetches others")
    lines += ["", "Self-test", *map(_line_of_step, found["self_test"])]
    if model := found["model"]:
        facts = [f"  {name}: {text}" for name, text in model["facts"].items()]
        lines += ["", "Model", f"  {model['title']}", *facts]
    problems = find_problems(found)
    lines += ["", "Problems" if problems else "No problems found."]
    lines += [f"  {problem}" for problem in problems]
    return "\n".join([*lines, "", BUG_REPORT]) + "\n"


BUG_REPORT = """For a bug report send all of the above, and
  - the command, and its messages with PALMKIT_TRACEBACK=1 set;
  - runs/RUN/palmkit.log of the run, if there is one;
  - for a fault of one file: the file, or its first 100 kB.
Check first that names of folders and files may be seen by others."""


def _line_of_checkpoint(one: dict) -> str:
    checksum = f"sha256 {one['sha256'][:SHORT]}" if one["sha256"] else "not hashed"
    state = f", {one['state']}" if one["state"] else ""
    return f"  {one['name']}: {format_bytes(one['bytes'])}, {checksum}{state}"


def _line_of_dataset(one: dict) -> str:
    folds = f"{one['folds']} fold{'s' if one['folds'] > 1 else ''}"
    return f"  {one['name']}: {folds}, sha256 of its {one['hashed']} {one['sha256'][:SHORT]}" + (
        f", {one['state']}" if one["state"] else ""
    )


def _line_of_step(step: dict) -> str:
    result = "ok" if step["ok"] else "FAILED"
    difference = "" if step["difference"] is None else f", difference {step['difference']:.0e}"
    return f"  {step['step']}: {result}{difference} ({step['seconds']:.1f} s)"


def format_bytes(size: float) -> str:
    """12345678 -> "12 MB"."""
    power = min(len(UNITS) - 1, max(0, int(math.log10(max(size, 1))) // 3))
    size /= 1000**power
    return f"{size:.1f} {UNITS[power]}" if power > 0 and size < 10 else f"{size:.0f} {UNITS[power]}"


# What there is.


def _extras() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in EXTRAS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _devices() -> list[str]:
    """The CPU, and GPUs with their memory; "(auto)" stands at the one that is taken."""
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    found = [f"cpu: {platform.processor() or platform.machine()}, {threads}"]
    for n in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(n)
        found.append(f"cuda:{n}: {about.name}, {format_bytes(about.total_memory)}")
    chosen = choose_device("auto").type
    taken = next((one for one in found if one.startswith(chosen)), None)
    return [f"{one} (auto)" if one == taken else one for one in found]


def _roots() -> dict[str, Path]:
    return {
        "data": data_root().absolute(),
        "cache": cache_root().absolute(),
        "runs": run_folder("x").absolute().parent,
    }


def _folder(path: Path) -> dict:
    # os.path answers also for a path that no folder can have, and in a folder without permission.
    there = next(one for one in (path, *path.parents) if os.path.exists(one))
    return {
        "path": str(path),
        "exists": os.path.isdir(path),
        "writable": os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK),
        "free": shutil.disk_usage(there).free,
    }


def _list_checkpoints() -> list[Path]:
    """mini-PENGI, and checkpoint files in the folder of data: pengi/base.pth and others."""
    found = []
    for folder in (data_root(), *_subfolders(data_root())):
        found += [path for path in _entries(folder) if path.suffix in CHECKPOINTS]
    return [*SHIPPED, *sorted(found)]


def _subfolders(folder: Path) -> list[Path]:
    return [one for one in _entries(folder) if os.path.isdir(one) and not one.name.startswith(".")]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _checkpoint(path: Path) -> dict:
    """Name, size, sha256, and whether it is as it was fetched."""
    found = {"name": f"{path.parent.name}/{path.name}", "bytes": 0, "sha256": "", "state": ""}
    try:
        found["bytes"] = path.stat().st_size
        recorded = read_checksums(path.parent)
        if recorded and path.name in recorded["files"]:
            problem = verify_folder(path.parent) or ""
            checksum = recorded["files"][path.name][2]
            state = "" if problem else "as fetched"
            return found | {"sha256": checksum, "state": state, "problem": problem}
        found["sha256"] = sha256_of(path)
        if path not in SHIPPED:
            return found | {"problem": ""}
        if f"sha256:{found['sha256']}" != read_manifest()[SHIPPED[path]]["checksum"]:
            return found | {"problem": "is not the file that was shipped: install palmkit again"}
        return found | {"state": "as shipped", "problem": ""}
    except (OSError, ChecksumError, KeyError) as error:
        return found | {"problem": str(error)}


def _list_datasets() -> list[Path]:
    """Folders with tables in the folder of data, and the datasets that were generated."""
    found = [one for one in _subfolders(data_root()) if _is_dataset(one)]
    generated = cache_root() / "mini-tasks" / version()
    return found + [generated / name for name in TASKS if is_built(generated / name)]


def _is_dataset(folder: Path) -> bool:
    """Has it tables, or was it fetched and is no folder of a checkpoint?"""
    fetched = (folder / CHECKSUM_FILE).is_file()
    return bool(_tables(folder)) or (
        fetched and not any(path.suffix in CHECKPOINTS for path in _entries(folder))
    )


def _tables(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.csv"), *folder.glob("csv_files/*.csv")])


def _dataset(path: Path) -> dict:
    """Name, folds, and a checksum: of all its files where it was fetched, else of its tables."""
    found = {"name": path.name, "path": str(path), "folds": len(find_folds(path)), "problem": ""}
    try:
        recorded = read_checksums(path)
        if recorded:
            listed = sorted((name, entry[2]) for name, entry in recorded["files"].items())
            problem = verify_folder(path) or ""
            found |= {"sha256": digest(repr(listed).encode()), "hashed": "files"}
            return found | {"problem": problem, "state": "" if problem else "as fetched"}
        parts = [table.name.encode() + table.read_bytes() for table in _tables(path)]
        return found | {"sha256": digest(b"".join(parts)), "hashed": "tables", "state": ""}
    except (OSError, ChecksumError) as error:
        return found | {"sha256": "", "hashed": "files", "state": "", "problem": str(error)}
