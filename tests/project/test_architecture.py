"""The shape of the package: imports run down, in no circle, and no private name crosses a file."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("palmkit", "palmkit_synthetic")
# From the bottom up; a module imports from lower layers, or from its own folder.
LAYERS = (
    ("palmkit.leftovers", "palmkit.endings"),
    ("palmkit.storage", "palmkit.extras", "palmkit.names", "palmkit.clip_paths"),
    ("palmkit.thread_pools",),
    ("palmkit.padding", "palmkit.channels", "palmkit.memory"),
    ("palmkit.sound_headers", "palmkit.resampling", "palmkit.csv_files", "palmkit.locks"),
    ("palmkit.sound_files",),
    ("palmkit.store", "palmkit.tables", "palmkit.checksums", "palmkit.audio", "palmkit.plugins"),
    ("palmkit.corruptions", "palmkit.data", "palmkit_synthetic"),
    ("palmkit.models",),
    ("palmkit.chunks",),
    ("palmkit.embeddings",),
    ("palmkit.training",),
    ("palmkit.methods",),
    ("palmkit.protocols",),
    ("palmkit.encoder_check",),
    ("palmkit.published",),
    ("palmkit.datasets",),
    ("palmkit.experiments",),
    ("palmkit.results",),
    ("palmkit.notebooks",),
    ("palmkit.widgets",),
    ("palmkit.self_test",),
    ("palmkit.doctor",),
    ("palmkit.cli",),
    ("palmkit.__main__",),
)
# The kit proper. All else stands beside it and imports it.
KIT = {
    *(
        "palmkit.storage",
        "palmkit.store",
        "palmkit.audio",
        "palmkit.tables",
        "palmkit.data",
        "palmkit.embeddings",
    ),
    *("palmkit.models", "palmkit.methods", "palmkit.training", "palmkit.plugins"),
    *("palmkit.checksums", "palmkit.extras", "palmkit.names"),
    *("palmkit.sound_files", "palmkit.sound_headers", "palmkit.resampling"),
    *("palmkit.clip_paths", "palmkit.csv_files", "palmkit.padding", "palmkit.channels"),
    *("palmkit.memory", "palmkit.chunks"),
    *("palmkit.leftovers", "palmkit.thread_pools"),
}
# What one reads in a sitting, in this order: model, cache, methods, training, data.
READ = (
    *("models/base", "models/registry", "models/pengi", "models/encoders"),
    *("methods/base", "methods/__init__", "methods/zero_shot", "methods/palm", "methods/coop"),
    *("training", "embeddings", "audio", "data", "tables", "storage"),
)
READ_LINES = 1600  # of code: no blank line, comment or docstring


def list_modules() -> dict[str, Path]:
    modules = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            modules[name.removesuffix(".__init__")] = path
    return modules


MODULES = list_modules()


def imports(name: str) -> set[tuple[str, str]]:
    """(module, name imported from it) for every import of the project's own, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add((whole, "") if whole in MODULES else (node.module, alias.name))
        elif isinstance(node, ast.Import):
            found |= {(a.name, "") for a in node.names if a.name.split(".")[0] in PACKAGES}
    return found


def room(name: str) -> str:
    """The entry of LAYERS that a module belongs to: the longest that is a prefix of its name."""
    entries = [entry for layer in LAYERS for entry in layer]
    return max((e for e in entries if name == e or name.startswith(f"{e}.")), key=len, default="")


def layer_of(name: str) -> int:
    return next(n for n, entries in enumerate(LAYERS) if room(name) in entries)


def test_every_module_has_a_layer():
    assert [name for name in MODULES if not room(name) and name != "palmkit"] == []


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"palmkit"}))
def test_no_import_runs_up(name):
    up = {
        target
        for target, _ in imports(name)
        if target != "palmkit" and room(target) != room(name) and layer_of(target) >= layer_of(name)
    }
    assert not up, f"{name} imports {', '.join(sorted(up))}, which stands higher or beside it"


@pytest.mark.slow
def test_no_circle():
    graph = {name: {target for target, _ in imports(name)} - {"palmkit"} for name in MODULES}
    done: set[str] = set()

    def visit(name, path):
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            for target in graph.get(name, ()):
                visit(target, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_private_name_crosses_a_file(name):
    private = {f"{target}.{what}" for target, what in imports(name) if what.startswith("_")}
    private -= {"palmkit.__version__"}
    assert not private


@pytest.mark.parametrize("name", sorted(n for n in MODULES if room(n) in KIT))
def test_the_kit_imports_only_the_kit(name):
    beside = {target for target, _ in imports(name) if room(target) not in KIT} - {"palmkit"}
    assert not beside, f"{name} is of the kit and imports {', '.join(sorted(beside))}"


def test_the_synthetic_data_need_little_of_the_kit():
    targets = {
        t for name in MODULES if name.startswith("palmkit_synthetic") for t, _ in imports(name)
    }
    allowed = {f"palmkit.{name}" for name in ("endings", "locks", "storage", "tables")}
    assert {t for t in targets if t.startswith("palmkit.")} <= allowed


PROTOCOLS = {"AudioTextModel", "PromptableText", "StochasticText", "AudioModel"}


@pytest.mark.parametrize("name", MODULES)
def test_models_are_not_asked_by_isinstance(name):
    """From Python 3.12 on it does not see what `__getattr__` gives; `find_missing` does."""
    calls = (n for n in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(n, ast.Call))
    asked = {
        getattr(part, "id", "")
        for call in calls
        if getattr(call.func, "id", "") == "isinstance"
        for part in ast.walk(call.args[1])
    }
    assert not asked & PROTOCOLS


def count_lines(path: Path) -> int:
    """Lines of code: without blank lines, comments and docstrings."""
    text = path.read_text()
    described = set()
    for node in ast.walk(ast.parse(text)):
        first = getattr(node, "body", [None])
        first = first[0] if isinstance(first, list) and first else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            described |= set(range(first.lineno, first.end_lineno + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(n not in described and bool(line.split("#")[0].strip()) for n, line in lines)


def test_the_core_can_be_read_in_a_sitting():
    lines = {name: count_lines(ROOT / "palmkit" / f"{name}.py") for name in READ}
    assert sum(lines.values()) <= READ_LINES, lines
