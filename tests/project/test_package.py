"""The wheel works outside of a checkout, and the core without the extras."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
# What each extra brings, as imported. A block of them stands for an install without extras.
OPTIONAL = {
    "report": ("matplotlib", "seaborn", "jinja2", "nbformat"),
    "notebooks": ("jupyterlab", "papermill", "nbconvert"),
    "widgets": ("ipywidgets", "anywidget"),
    "synthetic": ("pretty_midi", "espeakng_loader"),
    "fetch": ("pooch", "requests"),
    "clap": ("transformers", "tokenizers"),
    "dask": ("distributed", "dask"),
    "ray": ("ray",),
}
HEAVY = ("torch", "pandas", "sklearn", "scipy", "open_clip", "timm", "matplotlib")


def run(arguments, folder, path, **variables) -> subprocess.CompletedProcess:
    """Python in `folder`, with the package of `path` alone, and no setting of the outside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PALMKIT_")}
    env = kept | {"PYTHONPATH": str(path), "PALMKIT_CACHE": str(folder / "cache")} | variables
    env |= {"PALMKIT_PROGRESS": "0", "PALMKIT_JOBS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def palmkit(*arguments, folder, path) -> str:
    done = run(["-m", "palmkit", *arguments], folder, path)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the tracked files, so that no earlier build can add to it."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode or not listing.stdout:
        pytest.skip("not in a git checkout, so it is not known which files belong to it")
    home = tmp_path_factory.mktemp("build")
    names = [name for name in listing.stdout.splitlines() if (ROOT / name).is_file()]
    for name in names:
        if not name.startswith("tests/"):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, home / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "-w", "out", "."], cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return next((home / "out").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The wheel's files in a folder of their own."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def write_dataset(folder: Path) -> Path:
    """Two classes of four seconds of noise, as folders of recordings."""
    rng = np.random.default_rng(0)
    for name, width in (("low", 50), ("high", 1)):
        (folder / name).mkdir(parents=True)
        for n in range(6):
            noise = np.convolve(rng.normal(0, 0.1, 32_000), np.ones(width) / width, "same")
            soundfile.write(folder / name / f"{n}.wav", noise, 16_000)
    return folder


@pytest.mark.slow
def test_the_wheel_has_all_that_it_needs_and_no_more(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {
        "palmkit",
        "palmkit_synthetic",
    }
    tracked = {
        f"notebooks/{x.relative_to(ROOT / 'notebooks')}"
        for x in (ROOT / "notebooks").rglob("*")
        if x.suffix in (".ipynb", ".csv") and ".ipynb_checkpoints" not in x.parts
    }
    shared = {name.removeprefix("palmkit/share/") for name in names if "palmkit/share/" in name}
    assert shared == tracked | {"data_manifest.csv"}
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = [name for name in listing.stdout.splitlines() if name.startswith("palmkit")]
    assert files and [name for name in files if name not in names] == []
    with zipfile.ZipFile(wheel) as file:
        (scripts,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "palmkit = palmkit.cli:main" in file.read(scripts).decode()


@pytest.mark.slow
def test_names_and_help_outside_of_a_checkout(installed, tmp_path):
    from palmkit import __version__

    assert palmkit("--version", folder=tmp_path, path=installed).split()[-1] == __version__
    assert "fetch" in palmkit("--help", folder=tmp_path, path=installed)
    done = run(["-c", "import palmkit; print(palmkit.__file__)"], tmp_path, installed)
    assert done.stdout.startswith(str(installed))


@pytest.mark.slow
def test_fetch_lists_the_manifest_of_the_package(installed, tmp_path):
    done = run(["-m", "palmkit", "fetch", "ESC500"], tmp_path, installed)
    assert done.returncode == 1 and "ESC50" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_notebooks_are_copied_out(installed, tmp_path):
    palmkit("notebooks", "--copy-to", "mine", folder=tmp_path, path=installed)
    for name in ("00_start_here.ipynb", "explore.ipynb", "appendix/A1_corpus.ipynb",
                 "data/class_names.csv"):  # fmt: skip
        copied = tmp_path / "mine" / name
        assert copied.read_bytes() == (ROOT / "notebooks" / name).read_bytes()


@pytest.mark.slow
def test_a_run_outside_of_a_checkout(installed, tmp_path):
    write_dataset(tmp_path / "noises")
    settings = ["--dataset", "noises", "--method", "zeroshot", "palm", "--epochs", "1"]
    settings += ["--shots", "2", "--seed", "0", "--fold", "1"]
    table = palmkit("run", *settings, "--name", "one", folder=tmp_path, path=installed)
    assert "noises" in table and "PALM" in table
    assert (tmp_path / "runs" / "one" / "index.html").is_file()
    assert palmkit("table", "one", folder=tmp_path, path=installed) == table


MISSING = """
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec


def find_others(cls, name, *arguments, **keywords):
    if name.partition(".")[0] in {blocked!r}:
        return None
    return find_spec(name, *arguments, **keywords)


PathFinder.find_spec = classmethod(find_others)
"""


def without(extras, code: str, folder: Path) -> subprocess.CompletedProcess:
    """Run code where the packages of these extras are not installed, nor in its child processes."""
    blocked = {package for extra in extras for package in OPTIONAL[extra]}
    (folder / "sitecustomize.py").write_text(MISSING.format(blocked=blocked))
    return run(["-c", code], folder, os.pathsep.join([str(folder), str(ROOT)]))


EXAMPLE = """
from palmkit import PALM, draw_shots, embed, evaluate, fit, load_dataset, load_model
model = load_model("mini", device="cpu")
data = load_dataset("noises", fold=1)
train = embed(model, draw_shots(data.train, shots=2, seed=0))
method = PALM(model, data.class_names, seed=0)
fit(method, train.features, train.labels, epochs=1)
print(evaluate(method, train.features, train.labels))
"""


@pytest.mark.slow
def test_the_core_needs_no_extra(tmp_path):
    write_dataset(tmp_path / "noises")
    done = without(OPTIONAL, EXAMPLE, tmp_path)
    assert done.returncode == 0 and "accuracy" in done.stdout, done.stderr[-3000:]


NEEDS = {
    "report": "import palmkit.results.plots",
    "notebooks": "import palmkit.notebooks",
    "widgets": "from palmkit.widgets import listen",
    "fetch": "import palmkit; palmkit.fetch",
    "dask": "from palmkit.experiments.engines import engine\n"
    "engine('dask', 'tcp://127.0.0.1:1').__enter__()",
    "ray": "from palmkit.experiments.engines import engine\nengine('ray').__enter__()",
    "clap": "from palmkit import load_model; load_model('laion/clap@' + 40 * '0')",
}


EACH_WITHOUT = """
import json, os, sys, traceback
import pandas, torch  # of the core; loaded once for all
code, needs = json.loads(sys.argv[1])
for extra, (blocked, needed) in needs.items():
    if not (child := os.fork()):
        os.dup2(os.open(f"{extra}.txt", os.O_WRONLY | os.O_CREAT), 2)
        try:
            assert not {*blocked} & {name.partition(".")[0] for name in sys.modules}
            exec(code % blocked, {})
            exec(needed, {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    print(extra, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.slow
def test_a_missing_extra_is_named_in_one_sentence(tmp_path):
    needs = {extra: (OPTIONAL[extra], code) for extra, code in NEEDS.items()}
    given = json.dumps([MISSING.replace("{blocked!r}", "%r"), needs])
    done = run(["-c", EACH_WITHOUT, given], tmp_path, ROOT)
    assert done.stdout.splitlines() == [f"{extra} 1" for extra in NEEDS], done.stderr
    for extra in NEEDS:
        last = (tmp_path / f"{extra}.txt").read_text().strip().splitlines()[-1]
        assert f'pip install "palmkit[{extra}]"' in last, last


@pytest.mark.slow
def test_a_missing_extra_of_child_processes_too(tmp_path):
    code = "from palmkit import load_dataset; load_dataset('Instruments', fold=1)"
    done = without(["synthetic"], code, tmp_path)
    assert done.returncode == 1
    assert 'pip install "palmkit[synthetic]"' in done.stderr.strip().splitlines()[-1], done.stderr


@pytest.mark.slow
def test_a_missing_extra_on_the_command_line(tmp_path):
    code = "import sys; from palmkit.cli import main; sys.exit(main(['fetch', 'ESC50']))"
    done = without(["fetch"], code, tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert 'pip install "palmkit[fetch]"' in done.stderr


def test_import_is_light(tmp_path):
    code = "import sys, palmkit; print([name for name in sys.modules])"
    loaded = run(["-c", code], tmp_path, ROOT).stdout
    assert "'palmkit'" in loaded
    assert [name for name in HEAVY if f"'{name}'" in loaded] == []


def test_trials_without_pengi_load_neither_timm_nor_open_clip(tmp_path):
    code = (
        "import sys, palmkit, palmkit.experiments.run, palmkit.experiments.one_trial\n"
        "import palmkit.methods, palmkit.models.pengi\n"
        "print({'torch', 'timm', 'open_clip', 'torchvision', 'transformers'} & set(sys.modules))"
    )
    done = run(["-c", code], tmp_path, ROOT)
    assert done.stdout == "{'torch'}\n", done.stderr


def test_help_is_light(tmp_path):
    code = "import sys, palmkit.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    done = run(["-c", f"{code}print([name for name in sys.modules])"], tmp_path, ROOT)
    assert done.returncode == 0 and "usage" in done.stdout
    assert [name for name in HEAVY if f"'{name}'" in done.stdout] == []
