"""Build the wheel and the source distribution into dist/, and check what is in them.

`make dist` builds from the tracked files alone: the source distribution, a wheel from it, and for
comparison a wheel from the tracked files. `make try-dist` (`--try`) installs the wheel of dist/
with the locked versions in an empty environment, and runs the main job in an empty folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
GENERATED = {"PKG-INFO", "setup.cfg"}  # files of a source distribution that setuptools writes
# Needed where the package is used, at their places in the wheel.
NEEDED = (
    "palmkit/mini/mini.safetensors",
    "palmkit/mini_clap/mini_clap.safetensors",
    "palmkit/published/paper_table.csv",
    "palmkit/results/report.html.jinja",
    "palmkit/widgets/style.css",
    "palmkit/share/data_manifest.csv",
    "palmkit/share/notebooks/00_start_here.ipynb",
    "palmkit_synthetic/clips.py",
)
# As `make quick`.
MAIN_JOB = ["notebooks", "--name", "quick", "--only", *"0123456", "--quick"]


def tracked_files(root: Path = ROOT) -> list[str]:
    """The files of the checkout that git knows."""
    command = ["git", "ls-files", "-z"]
    listing = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return [name for name in listing.split("\0") if name and (root / name).is_file()]


def copy_files(names: list[str], target: Path) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)


def build(source: Path, out: Path, *options: str) -> None:
    """`python -m build` with the locked setuptools. Raises CalledProcessError."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *options]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        done.check_returncode()


def read_sdist(path: Path) -> set[str]:
    """The names of the files of a source distribution, without its top folder."""
    with tarfile.open(path) as file:
        return {one.name.partition("/")[2] for one in file.getmembers() if one.isfile()}


def read_wheel(path: Path) -> dict[str, bytes]:
    """{name: content} of a wheel. The list of files stays out: their order may differ."""
    with zipfile.ZipFile(path) as file:
        names = [name for name in file.namelist() if not name.endswith("/RECORD")]
        return {name: file.read(name) for name in names}


def check_sdist(names: set[str], tracked: list[str]) -> list[str]:
    """What is wrong with the files of a source distribution: missing or unexpected ones."""
    own = {name for name in names if name not in GENERATED and ".egg-info/" not in name}
    wanted = {name for name in tracked if not name.startswith(".")}
    return [f"the sdist lacks {name}" for name in sorted(wanted - own)] + [
        f"the sdist has {name}, which is not tracked" for name in sorted(own - wanted)
    ]


def check_wheel(files: dict[str, bytes], tracked: list[str]) -> list[str]:
    """What is wrong with the files of a wheel: missing or unexpected ones."""
    packages = {name for name in tracked if name.startswith(("palmkit/", "palmkit_synthetic/"))}
    shared = {f"palmkit/share/{name}" for name in tracked
              if name == "data_manifest.csv" or name.startswith("notebooks/")}  # fmt: skip
    own = {name for name in files if ".dist-info/" not in name}
    wanted = packages | shared
    faults = [f"the wheel lacks {name}" for name in sorted({*wanted, *NEEDED} - own)]
    return faults + [f"the wheel has {name} in addition" for name in sorted(own - wanted)]


def compare_wheels(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """The files that two wheels do not have in common, or not with the same bytes."""
    names = sorted(one.keys() | other.keys())
    differ = [name for name in names if one.get(name) != other.get(name)]
    return [f"the wheels of sdist and checkout differ in {name}" for name in differ]


def describe(names) -> str:
    """Files by folder: "palmkit 210, tests 150"."""
    counts = Counter(name.partition("/")[0] if "/" in name else "top level" for name in names)
    return ", ".join(f"{folder} {count}" for folder, count in counts.most_common())


def make_dist() -> int:
    """Build, check, and write dist/. 0 if nothing is wrong."""
    tracked = tracked_files()
    with tempfile.TemporaryDirectory() as folder:
        source, out, other = (Path(folder) / name for name in ("source", "out", "other"))
        copy_files(tracked, source)
        build(source, out)  # the sdist, and the wheel from the sdist
        build(source, other, "--wheel")
        (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
        files, names = read_wheel(wheel), read_sdist(sdist)
        faults = check_sdist(names, tracked) + check_wheel(files, tracked)
        faults += compare_wheels(files, read_wheel(next(other.glob("*.whl"))))
        check = [sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)]
        status = subprocess.run(check).returncode
        for path, content in ((wheel, files), (sdist, names)):
            size = path.stat().st_size / 1e6
            print(f"{path.name}: {size:.1f} MB, {len(content)} files ({describe(content)})")
        for fault in faults:
            print(fault, file=sys.stderr)
        if status or faults:
            return 1
        shutil.rmtree(DIST, ignore_errors=True)
        shutil.copytree(out, DIST)
    print("The wheel of the sdist and that of the checkout have the same files. Both are in dist/.")
    return 0


def try_wheel() -> int:
    """Install the wheel of dist/ in an empty environment and run the main job. 0 if all ran."""
    (wheel,) = DIST.glob("*.whl")
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("PALMKIT_", "PYTHON"))}  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "env", with_pip=True)
        python, work = folder / "env" / "bin" / "python", folder / "work"
        work.mkdir()
        install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "requirements.lock"]
        subprocess.run([*install, f"{wheel}[all]"], check=True)
        environment = kept | {"PALMKIT_CACHE": str(folder / "cache"), "PALMKIT_PROGRESS": "0"}
        for arguments in (["--version"], ["doctor"], MAIN_JOB):
            print(f"$ palmkit {' '.join(arguments)}", flush=True)
            command = [folder / "env" / "bin" / "palmkit", *arguments]
            subprocess.run(command, cwd=work, env=environment, check=True)
        pages = sorted((work / "runs" / "quick").rglob("*.ipynb"))
        print(f"{len(pages)} notebooks were run from {wheel.name} outside of a checkout.")
        return 0 if len(pages) >= 7 and (work / "runs" / "quick" / "index.html").is_file() else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--try", action="store_true", dest="attempt", help="try the wheel of dist/")
    try:
        return try_wheel() if parser.parse_args().attempt else make_dist()
    except subprocess.CalledProcessError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
