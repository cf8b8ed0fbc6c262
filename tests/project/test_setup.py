"""The files that make the environment agree with each other, and make does what the README says."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from lock import UNLOCKED, list_pythons
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = CONFIG["project"]
EXTRAS = PROJECT["optional-dependencies"]
PYTHONS = [
    one.removeprefix("Programming Language :: Python :: ")
    for one in PROJECT["classifiers"]
    if re.search(r":: Python :: 3\.\d+$", one)
]
# An extra that names others brings nothing by itself.
LOCKED_EXTRAS = sorted(
    {
        requirement
        for name, requirements in EXTRAS.items()
        for requirement in requirements
        if name not in UNLOCKED and not requirement.startswith("palmkit[")
    }
)
LOCK_LINES = [
    line
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if not line.startswith("#")
]
LOCK = {canonicalize_name(Requirement(line).name): Requirement(line) for line in LOCK_LINES}

FILES = [
    "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "MANIFEST.in",
    "Makefile", "pyproject.toml", "setup.py", "requirements.lock", "environment.yml",
    "data_manifest.csv", ".ci/run", ".gitignore", "palmkit/__init__.py", "palmkit/__main__.py",
    "tools/execute_notebooks.py", "benchmarks/speed.py",
]  # fmt: skip
TARGETS = [
    *(
        "help",
        "env",
        "check",
        "test",
        "test-arithmetics",
        "endurance",
        "reproduce",
        "quick",
        "mini",
        "notebooks",
        "browser",
        "lab",
        "benchmark",
        "gpu",
        "rehearsal",
        "site",
        "dist",
        "try-dist",
        "lock",
        "clean",
    )
]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess:
    """Run make without what an outer make, which may have started these tests, hands down."""
    ours = {
        "MAKEFLAGS",
        "MFLAGS",
        "MAKELEVEL",
        "MAKEOVERRIDES",
        "PYTHON",
        "VENV",
        "SHARED",
        "REPRODUCE",
    }
    ours |= {"ESC10", "SEED", "PALMKIT_DATA"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("name", FILES)
def test_file_exists(name):
    assert (ROOT / name).is_file()


def test_ci_run_is_executable():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize(
    "requirement",
    [*CONFIG["build-system"]["requires"], *PROJECT["dependencies"], *LOCKED_EXTRAS],
)
def test_range_admits_the_locked_version(requirement):
    wanted = Requirement(requirement)
    (pin,) = LOCK[canonicalize_name(wanted.name)].specifier
    assert wanted.specifier.contains(pin.version), (
        f"{requirement} and {pin} disagree: run `make lock`"
    )


def test_lock_lines_are_exact_versions_and_nothing_else():
    only = r'python_version == "3\.\d+"'
    pin = re.compile(rf'[\w.-]+==[\w.]+(; sys_platform == "linux"|; {only}( or {only})*)?')
    assert [line for line in LOCK_LINES if not pin.fullmatch(line)] == []


def test_lock_names_no_host_and_no_path():
    text = (ROOT / "requirements.lock").read_text().lower()
    assert not re.search(r"://|@|--|\\|(^|\s)[/~]", text)
    assert canonicalize_name(PROJECT["name"]) not in LOCK


def test_lock_keeps_linux_packages_from_other_systems():
    """What torch needs on Linux only, and what only such packages need, has no wheels elsewhere."""
    if importlib.metadata.version("torch") != next(iter(LOCK["torch"].specifier)).version:
        pytest.skip("another torch than the locked one is installed, and asks for other packages")

    def needed(name: str, system: str) -> set[str]:
        requirements = map(Requirement, importlib.metadata.requires(name) or [])
        environment = {"platform_system": system, "sys_platform": system.lower(), "extra": ""}
        return {
            canonicalize_name(r.name)
            for r in requirements
            if not r.marker or r.marker.evaluate(environment)
        }

    linux_only = needed("torch", "Linux") - needed("torch", "Darwin")
    assert {name for name in linux_only if LOCK[name].marker is None} == set()
    marked = {name for name, one in LOCK.items() if "sys_platform" in str(one.marker)}
    assert all(name in linux_only or name.startswith(("nvidia-", "cuda-")) for name in marked)
    assert not marked & needed("torch", "Darwin")


def pinned(python: str) -> dict[str, str]:
    """{name: version} that the lock installs on Linux with a release of Python."""
    return {
        name: next(iter(one.specifier)).version
        for name, one in LOCK.items()
        if not one.marker or one.marker.evaluate(on_linux(python))
    }


def on_linux(python: str) -> dict[str, str]:
    """The variables of markers. The first patch release is the strictest."""
    system = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    return system | {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_all_that_its_packages_need(python):
    """On each Python that the classifiers name. On 3.12 alone, papermill needs aiohttp."""
    versions = pinned(python)
    missing = set()
    for name in versions:
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another Python than this one
        for wanted in map(Requirement, requirements):
            if wanted.marker and not wanted.marker.evaluate(on_linux(python)):
                continue
            version = versions.get(canonicalize_name(wanted.name))
            if version is None or not wanted.specifier.contains(version, prereleases=True):
                missing.add(f"{name} needs {wanted}, and {version} is locked")
    assert sorted(missing) == []


def test_the_releases_of_python_agree():
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert PYTHONS[0] == lowest and list_pythons(PROJECT) == PYTHONS
    tools = tomllib.loads((ROOT / "tools" / "pyproject.toml").read_text())["project"]
    assert tools["requires-python"] == PROJECT["requires-python"]
    assert f"python={lowest} " in (ROOT / "environment.yml").read_text()
    assert f"Python {lowest}" in (ROOT / "README.md").read_text()
    named = set(re.findall(r'python_version == "([\d.]+)"', "\n".join(LOCK_LINES)))
    assert named <= set(PYTHONS)


def test_extras_that_are_not_locked_are_extras():
    assert set(EXTRAS) >= UNLOCKED


def test_the_version_is_the_same_everywhere():
    from palmkit import __version__

    tools = tomllib.loads((ROOT / "tools" / "pyproject.toml").read_text())["project"]
    assert tools["version"] == __version__
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    first = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert re.fullmatch(rf"{re.escape(__version__)} \(\d{{4}}-\d\d-\d\d\)", first)


def test_environment_yml_repeats_no_version():
    lines = [
        line.split(" #")[0].strip() for line in (ROOT / "environment.yml").read_text().splitlines()
    ]
    entries = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    assert [entry for entry in entries if re.search(r"[=<>~!]", entry)] == ["python=3.11"]
    assert {"-r requirements.lock", "-e .[all,test]"} < set(entries)


@pytest.mark.slow
def test_the_skips_of_a_run_are_listed_at_its_end(tmp_path):
    reason = "nothing to see here"
    (tmp_path / "test_it.py").write_text(f"import pytest\ndef test_it(): pytest.skip({reason!r})\n")
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", tmp_path]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"], cwd=tmp_path, capture_output=True, text=True
    )
    (skip,) = [line for line in done.stdout.splitlines()[-3:] if line.startswith("SKIPPED")]
    assert reason in skip


def test_version_is_in_one_place():
    assert "version" not in PROJECT and PROJECT["dynamic"] == ["version"]
    source = (ROOT / "palmkit" / "__init__.py").read_text()
    assert re.findall(r'^__version__ = "(\d+\.\d+\.\d+)"$', source, re.MULTILINE), (
        "setuptools reads this literal"
    )


def test_tracked_files_name_no_folder_of_one_machine():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode or not listing.stdout:
        pytest.skip("not in a git checkout")
    machine = re.compile(rb"(?<![\w.])(/(home|Users|root|tmp|work)/\w|[A-Z]:\\\\?Users\\)")
    found = {}
    for name in listing.stdout.rstrip("\0").split("\0"):
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in content and (match := machine.search(content)):
            found[name] = content[match.start() :][:60]
    assert found == {}


@needs_make
def test_help_lists_every_target():
    listed = [line.split()[0] for line in make("help").stdout.splitlines()]
    assert listed == TARGETS
    assert make("--dry-run", *TARGETS).returncode == 0


@needs_make
def test_reproduce_takes_the_real_recordings_when_they_are_there(tmp_path):
    (tmp_path / "datasets" / "ESC10").mkdir(parents=True)
    begin, series = ".venv/bin/python -m palmkit notebooks --name", "--only 0 1 2 3 4 5 6"
    commands = {
        target: make("--dry-run", target, f"SHARED={tmp_path}").stdout.splitlines()[-1]
        for target in TARGETS
    }
    assert (
        commands["reproduce"]
        == f"{begin} reproduce --dataset default {tmp_path}/datasets/ESC10 {series} 7"
    )
    assert commands["quick"] == f"{begin} quick {series} --quick"
    command = make("--dry-run", "mini", f"SHARED={tmp_path}").stdout.splitlines()[-1]
    assert command.endswith(f" -m mini_pengi --seed 0 --esc10 {tmp_path}/datasets/ESC10")


@needs_make
def test_reproduce_needs_no_recordings_and_says_so(tmp_path):
    command = make("--dry-run", "reproduce", f"SHARED={tmp_path}").stdout.splitlines()[-1]
    assert " ".join(command.split()).endswith(
        " --name reproduce --dataset default --only 0 1 2 3 4 5 6 7"
    )
    assert "left out" in make("no-esc10", f"SHARED={tmp_path}").stderr


FAKE_PYTHON = """\
#!/bin/sh
# Stands in for Python and for pip: writes down what it is asked for, and fails on demand.
case "$*" in
*"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo venv >> calls ;;
*"-m pip install"*) shift 3; echo "pip $*" >> calls; test ! -e broken ;;
esac
"""


@needs_make
def test_environment_is_installed_once_and_repaired_when_needed(tmp_path):
    for name in ["Makefile", "pyproject.toml", "requirements.lock"]:
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "pyproject.toml", tmp_path / "tools")
    (tmp_path / "python").write_text(FAKE_PYTHON)
    (tmp_path / "python").chmod(0o755)
    locked, package = "pip -r requirements.lock", "pip --no-deps --no-build-isolation -e . -e tools"

    def calls() -> tuple[int, list[str]]:
        (tmp_path / "calls").write_text("")
        status = make("env", "PYTHON=./python", folder=tmp_path).returncode
        return status, (tmp_path / "calls").read_text().splitlines()

    assert calls() == (0, ["venv", locked, package])
    assert calls() == (0, [])
    (tmp_path / "requirements.lock").touch()
    assert calls() == (0, []), "a time is not a change"

    original = (tmp_path / "requirements.lock").read_text()
    (tmp_path / "requirements.lock").write_text(original + "another==1.0\n")
    (tmp_path / "broken").touch()
    assert calls() == (2, [locked])
    (tmp_path / "requirements.lock").write_text(original)
    (tmp_path / "broken").unlink()
    assert calls() == (0, [locked, package]), (
        "half an upgrade was installed, so the old lock does not hold either"
    )
