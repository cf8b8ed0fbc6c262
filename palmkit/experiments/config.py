"""What a command runs: flags, a config file and a profile become one checked set of choices.

Nothing heavy is imported here: the command line is built from this module.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from palmkit.experiments.trials import (
    AXES,
    DEFAULTS,
    FIELDS,
    SETTINGS,
    STOCHASTIC,
    Setting,
    check_settings,
    clean_flag,
    expand_methods,
)
from palmkit.names import unknown_name
from palmkit.storage import atomic_write, path_exists, run_folder

# Values of a command without flags. Names of datasets: see `expand_datasets`.
PROFILES = {
    "default": {
        "checkpoint": "mini",
        "datasets": ["default"],
        "methods": "all",
        "folds": "all",
        "seeds": [0, 1, 2],
    },
    "quick": {
        "checkpoint": "mini",
        "datasets": ["default"],
        "methods": "all",
        "folds": "first",
        "seeds": [0],
    },
    "paper": {
        "checkpoint": "pengi",
        "datasets": ["paper"],
        "methods": "all",
        "folds": "all",
        "seeds": [0, 1, 2],
    },
}
MOST_BYTES = 255  # of a name on most file systems
DEVICE = re.compile(r"(auto|cpu|cuda|mps|xpu)(:\d+)?")


def clean_profile(name: str, value) -> str:
    if value not in PROFILES:
        raise ValueError(unknown_name("profile", value, PROFILES))
    return value


def clean_run_name(name: str, value) -> str:
    """A plain name of a folder below `runs`, or a path."""
    run_folder(value)  # raises ValueError for another
    return str(value)


def clean_device(name: str, value) -> str:
    if not DEVICE.fullmatch(str(value)):
        raise ValueError(f"{name}={value!r}: use auto, cpu, cuda, cuda:1, ...")
    return value


BACKENDS = ("processes", "dask", "ray")
DASK_ADDRESS = re.compile(r"(tcp|tls|ucx|ws|wss)://\S+:\d+")
RAY_ADDRESS = re.compile(r"auto|(ray://)?[^\s/:]+:\d+")


def clean_backend(name: str, value) -> str:
    if value not in BACKENDS:
        raise ValueError(f"{name}={value!r}: use processes, dask or ray")
    return value


def clean_underscores(name: str, value) -> str:
    if value not in ("keep", "space"):
        raise ValueError(f"{name}={value!r}: use keep or space")
    return value


@dataclass(frozen=True)
class Flag:
    """A flag of the command line, also a key of config files, and the choice that it makes.

    many: it takes several values. is_switch: it takes none. is_table: its values are KEY=VALUE; in
    a config file it is a table.
    """

    choice: str
    setting: Setting
    default: object = None
    many: bool = False
    is_switch: bool = False
    is_table: bool = False

    @property
    def help(self) -> str:
        shown = self.default
        if shown is None and self.choice in PROFILES["default"]:
            shown = PROFILES["default"][self.choice]
        shown = " ".join(map(str, shown)) if isinstance(shown, list | tuple) else shown
        hidden = self.is_switch or shown in (None, "", {})
        return self.setting.help + ("" if hidden else f" (default: {shown})")


# Choices about the model and the run; those of trials follow from the fields of Trial.
FLAGS: dict[str, Flag] = {
    "name": Flag(
        "name",
        Setting("name of the run; its rows go to runs/RUN", clean_run_name, metavar="RUN"),
        "run",
    ),
    "profile": Flag(
        "profile",
        Setting(
            "default, quick (first fold and seed) or paper (the published grid, after an estimate)",
            clean_profile,
        ),
        "default",
    ),
    "checkpoint": Flag(
        "checkpoint",
        Setting(
            "name of a model, or a checkpoint file; A+B for two models; pengi with --profile paper",
            metavar="NAME|FILE",
        ),
    ),
    "device": Flag("device", Setting("auto, cpu, cuda, cuda:1, ...", clean_device), "auto"),
    "backend": Flag(
        "backend",
        Setting(
            "where trials run: processes of this machine, or a dask or ray cluster at --address",
            clean_backend,
            choices=BACKENDS,
        ),
        "processes",
    ),
    "address": Flag(
        "address",
        Setting(
            "of Dask's scheduler, tcp://HOST:PORT, or of Ray, HOST:PORT or auto", metavar="URL"
        ),
        "",
    ),
    "note": Flag(
        "note", Setting("a sentence to be shown with every output of this run", metavar="TEXT"), ""
    ),
    "skip-bad": Flag(
        "skip_bad",
        Setting("leave out audio files that cannot be used; rows and report name them", clean_flag),
        False,
        is_switch=True,
    ),
    "import": Flag(
        "imports",
        Setting("a Python file with methods or models of your own; repeatable", metavar="FILE"),
        [],
        many=True,
    ),
}
# How to read datasets: arguments of `find_dataset`.
READING: dict[str, Flag] = {
    f"{kind}-column": Flag(
        f"{kind}_column",
        Setting(f"name of the CSV's column for {what}; default: {default}", metavar="NAME"),
        "",
    )
    for kind, what, default in (
        ("path", "paths", "path"),
        ("class", "classes", "classname"),
        ("fold", "numbers of folds", "fold, if there is one"),
        ("group", "what keeps clips together", "group, if there is one"),
        ("split", "train, test and validation", "split, if there is one"),
    )
}
READING["root"] = Flag(
    "root",
    Setting("folder that a CSV's paths are relative to; default: the CSV's", metavar="FOLDER"),
    "",
)
READING["underscores"] = Flag(
    "underscores",
    Setting(
        "in class names: keep, or space to write spaces instead",
        clean_underscores,
        choices=("keep", "space"),
    ),
    "keep",
)
FLAGS |= READING
for _name, _field in FIELDS.items():
    FLAGS[_field.flag or _name.replace("_", "-")] = Flag(
        _field.several or _name,
        _field,
        DEFAULTS.get(_name),
        many=bool(_field.several) or _name == "stochastic",
        is_switch=isinstance(DEFAULTS.get(_name), bool),
        is_table=isinstance(DEFAULTS.get(_name), dict),
    )
# Parameters of notebooks: all choices but those about the run itself.
CHOICES = ("checkpoint", *AXES, *SETTINGS, "device", "note")


@dataclass(frozen=True)
class Choices:
    """What to run. values: the value of every choice. given: the choices that the user made."""

    values: dict
    given: frozenset[str]

    @property
    def name(self) -> str:
        return self.values["name"]

    def grid(self) -> dict:
        """The arguments of `make_grid`."""
        return {name: self.values[name] for name in (*AXES, *SETTINGS)}

    def parameters(self) -> dict:
        """The parameters of notebooks and of the report."""
        return {name: self.values[name] for name in CHOICES}

    def reading(self) -> dict:
        """How to read the datasets, where it is not the default: arguments of `find_dataset`."""
        values = {flag.choice: self.values[flag.choice] for flag in READING.values()}
        return {name: value for name, value in values.items() if value not in ("", "keep")}

    def replace(self, **values) -> Choices:
        return dataclasses.replace(self, values=self.values | values)


def choose(said: dict, config: dict | None = None) -> Choices:
    """Choices from flags and a config file, both by the flags' names. A flag overrides the
    file, and the profile gives the rest.

    A value of a config file that is the default counts as not given. Raises ValueError for a value
    that cannot be run.
    """
    config = config or {}
    values = {flag.choice: _clean(name, config[name]) for name, flag in _flags(config)}
    spoken = {flag.choice: _clean(name, said[name]) for name, flag in _flags(said)}
    profile = (values | spoken).get("profile", FLAGS["profile"].default)
    defaults = {flag.choice: flag.default for flag in FLAGS.values()}
    defaults |= PROFILES[profile] | {"profile": profile}
    given = {name for name, value in values.items() if value != defaults[name]} | set(spoken)
    chosen = defaults | values | spoken
    check_settings({name: chosen[name] for name in SETTINGS})
    return Choices(chosen, frozenset(given))


def _flags(names):
    for name in names:
        if name not in FLAGS:
            raise ValueError(unknown_name("setting", name, FLAGS))
        yield name, FLAGS[name]


def _clean(name: str, value):
    """A flag's value, of the command line or a config file, in its one form."""
    flag = FLAGS[name]
    if flag.is_table:
        return flag.setting.clean(name, value)
    if name == "fold":
        return _clean_folds(value)
    _check_type(name, flag, value)
    if not flag.many:
        return flag.setting.clean(name, value)
    values = value if isinstance(value, list | tuple) else [value]
    if name == "stochastic":
        return _clean_stochastic(flag.setting.clean(name, values))
    cleaned = [*dict.fromkeys(flag.setting.clean(name, one) for one in values)]
    if not cleaned and name != "import":
        raise ValueError(f"{name}: name at least one")
    if name == "method":
        return "all" if cleaned == ["all"] else expand_methods(cleaned)
    return cleaned


def _check_type(name: str, flag: Flag, value) -> None:
    """Raise ValueError for several values of one, and for a value that should be a text."""
    is_list = isinstance(value, list | tuple)
    if is_list and not flag.many:
        raise ValueError(f"{name}={value!r}: use one value, not a list")
    for one in value if is_list else [value]:
        if flag.setting.parse is str and not flag.is_switch and not isinstance(one, str | Path):
            raise ValueError(f"{name}={one!r}: use a text")
        if not str(one).strip() and flag.default != "" and name != "name":
            raise ValueError(f"{name} is empty: leave it out, or give it a value")


def _clean_stochastic(parts: tuple[str, ...]) -> str | list[str]:
    return "all" if parts == STOCHASTIC else list(parts)


def _clean_folds(value) -> str | list[int]:
    values = value if isinstance(value, list | tuple) else [value]
    if [*values] in (["all"], ["first"]):
        return values[0]
    texts = [str(one) for one in values]
    if not texts or not all(text.isdigit() for text in texts):
        raise ValueError(f"--fold takes numbers, first or all, not {' '.join(texts)}")
    return [*dict.fromkeys(int(text) for text in texts)]


def parse_flag(name: str, text):
    """A value of the command line's text (or texts). Raises ValueError that names the flag."""
    flag = FLAGS[name]
    try:
        if flag.is_switch:
            return text
        if flag.is_table:
            return dict(_parse_pair(pair) for pair in text)
        if flag.many:
            return [flag.setting.parse(one) for one in text]
        return flag.setting.parse(text)
    except ValueError as error:
        raise ValueError(f"--{name}: {error}") from None


def _parse_pair(pair: str) -> tuple[str, object]:
    key, equals, text = pair.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"{pair!r} is not KEY=VALUE")
    return key.strip(), parse_literal(text)


def parse_literal(text: str):
    """A number, list, bool or None as Python writes it; anything else is a string."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def expand_datasets(names) -> list[str]:
    """Names of datasets, each once; "default" stands for the generated ones, "paper" for the eleven
    of the paper. A folder that is named in two ways counts once.
    """
    expanded = []
    for name in names:
        if name == "default":
            from palmkit_synthetic.tasks import DEFAULT_TASKS

            expanded += DEFAULT_TASKS
        elif name == "paper":
            from palmkit.published import paper_datasets

            expanded += paper_datasets()
        else:
            expanded.append(name)
    unique = {}
    for name in expanded:
        path = Path(str(name)).expanduser()
        unique.setdefault(str(path.resolve()) if path.exists() else str(name), name)
    return [*unique.values()]


def is_default(datasets, **choices) -> bool:
    """Are these the choices of a command without flags? Notebooks check their claims only then.

    datasets: the generated ones; ESC10 may be among them too. choices: any others, by name.
    """
    defaults = choose({}).values
    names = {Path(str(name)).name for name in datasets} - {"ESC10"}
    return names == {*expand_datasets(defaults["datasets"])} and all(
        value == defaults[name] for name, value in choices.items()
    )


def check_run_folder(run) -> None:
    """Raise OSError if the run's folder cannot be written to. Makes nothing."""
    folder = run_folder(run).absolute()
    if any(len(os.fsencode(part)) > MOST_BYTES for part in folder.parts):
        raise OSError(
            f"there can be no folder {str(folder)[:100]}...: a name has {MOST_BYTES} bytes at "
            "most. Choose another --name, or another place with PALMKIT_RUNS"
        )
    there = next(one for one in (folder, *folder.parents) if path_exists(one))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        reason = "not writable" if there.is_dir() else "a file"
        raise OSError(
            f"cannot write to {folder}: {there} is {reason}. "
            "Choose another --name, or another place with PALMKIT_RUNS"
        )


def check_engine(backend: str, address: str) -> None:
    """Raise ValueError for a backend without its address, or an address without its backend."""
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}: use {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}")
    if backend == "processes" and address:
        raise ValueError(f"--address {address} is of a cluster: add --backend dask or ray")
    if backend == "dask" and not DASK_ADDRESS.fullmatch(address):
        raise ValueError("--backend dask needs --address tcp://HOST:PORT, that of the scheduler")
    if backend == "ray" and address and not RAY_ADDRESS.fullmatch(address):
        raise ValueError("--backend ray takes --address HOST:PORT or auto, or no --address")


# Config files.


def read_config(path) -> dict:
    """The choices in a TOML file, by the names of flags. Raises FileNotFoundError, ValueError."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no config file {path}")
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    for name in found:
        if name not in FLAGS:
            raise ValueError(f"{path}: {unknown_name('setting', name, FLAGS)}")
    return found


def write_config(path, choices: Choices) -> None:
    """Write the choices as a file that `read_config` reads back to the same.

    Raises FileNotFoundError if the file's folder is missing: its name may be mistyped.
    """
    path = Path(path).expanduser()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} for {path.name}: make it first")
    lines = ["# Written by palmkit; `palmkit run --config FILE` runs it."]
    tables = []
    for name, flag in FLAGS.items():
        value = choices.values[flag.choice]
        if flag.is_table:
            tables += [f"\n[{name}]", *(f"{_toml(k)} = {_toml(v)}" for k, v in value.items())]
        else:
            lines.append(f"{name} = {_toml(value)}")
    atomic_write(path, "\n".join([*lines, *tables]) + "\n")


def _toml(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_toml(k)} = {_toml(v)}' for k, v in value.items())}}}"
    if value is None:
        raise ValueError("a config file has no None: leave the option out")
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
