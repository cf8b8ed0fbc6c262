"""The command line `palmkit`: fetch and check data, run experiments and notebooks, print tables."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

import palmkit
from palmkit.endings import Ended, quiet_pools, signals_as_interrupts
from palmkit.experiments.config import (
    FLAGS,
    READING,
    Choices,
    check_engine,
    check_run_folder,
    choose,
    expand_datasets,
    parse_flag,
    parse_literal,
    read_config,
    write_config,
)
from palmkit.experiments.trials import AXES
from palmkit.names import unknown_name
from palmkit.storage import PACKAGE, notebooks_folder, run_folder

log = logging.getLogger("palmkit")
FORMAT = "%(asctime)s %(levelname)s %(message)s"  # of the log file
METRICS = ("accuracy", "f1", "precision", "recall", "loss")
ERRORS = (ValueError, OSError, RuntimeError, ArithmeticError, ImportError, MemoryError)


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    0: done; 1: an error, in one line on stderr; 2: not understood; 130: interrupted, 143 and 129
    by SIGTERM and SIGHUP; 141: the reader of the output is gone.
    """
    argv = sys.argv[1:] if argv is None else [str(one) for one in argv]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal has no letters for is shown
            stream.reconfigure(errors="backslashreplace")
    arguments = _parse(argv)
    # A flag sets PALMKIT_SKIP_BAD; after the command it is what it was.
    skip_bad = os.environ.get("PALMKIT_SKIP_BAD", "")
    variables = {"PALMKIT_COMMAND": shlex.join(["palmkit", *argv]), "PALMKIT_SKIP_BAD": skip_bad}
    with (
        _environment(**variables),
        _messages(arguments),
        quiet_pools(),
        signals_as_interrupts(),
    ):
        try:
            return arguments.command(arguments) or 0
        except KeyboardInterrupt as interrupt:
            log.error(
                "\nInterrupted. Finished trials and notebooks are kept; "
                "the same command goes on from there."
            )
            return interrupt.status if isinstance(interrupt, Ended) else 130
        except BrokenPipeError:  # the reader of a pipe, head say, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141  # what a shell says of a program that such a pipe ended
        except Exception as error:
            from palmkit.plugins import explain

            reason = explain(error)
            known = reason or isinstance(error, ERRORS)
            if os.environ.get("PALMKIT_TRACEBACK") or not known:
                raise
            log.error("palmkit: %s", reason or error)
            return 1


# The parser. It loads nothing heavy, so that --help and a refused flag take no time.


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str):
        self.exit(2, f"palmkit: {message}; see `{self.prog} --help`\n")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser, commands = _parser()
    name = next(iter(argv), "")
    if name and not name.startswith("-") and name not in commands:
        parser.error(unknown_name("command", name, [one for one in commands if one != "own"]))
    arguments, unknown = parser.parse_known_args(argv)
    if not unknown:
        return arguments
    if name == "lab":
        arguments.arguments = unknown
        return arguments
    known = re.findall(r"--[a-z-]+", commands[name].format_help())
    close = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return commands[name].error(f"there is no argument {' '.join(unknown)}{hint}")


def _message_flags() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    amount = common.add_mutually_exclusive_group()
    amount.add_argument("--verbose", action="store_true", help="more messages")
    amount.add_argument("--quiet", action="store_true", help="results, warnings and errors only")
    return common


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of the console script.

    run: called with the parsed arguments; returns an exit status or None. describe: adds arguments
    to its parser. plugins: whether it takes --import.
    """

    name: str
    run: Callable
    describe: Callable
    help: str
    plugins: bool = False
    aliases: tuple[str, ...] = ()


def _list_commands() -> list[Command]:
    """In the order of --help."""
    return [
        Command("run", _run, _describe_run, "run trials; write one row per trial to runs/RUN/rows"),
        Command("notebooks", _notebooks, _describe_notebooks,
                "run trials, then execute the notebooks on their rows"),
        Command("status", _status, _describe_status,
                "tell how far a run is: done, running, failed, time left"),
        Command("table", _table, _describe_table, "print the results table of a run", True),
        Command("leaderboard", _leaderboard, _describe_leaderboard,
                "compare the methods of a run: mean, rank, wins, paired differences", True),
        Command("export", _export, _describe_export,
                "write all rows of a run to one CSV or Parquet file", True),
        Command("predict", _predict, _describe_predict,
                "predict the classes of clips by what a run learned", True),
        Command("check", _check, _describe_check,
                "check datasets: tables, counts, leakage, every audio file", True),
        Command("check-model", _check_model, _describe_check_model,
                "check a model of your own: embeddings, batches, digest, gradients, speed", True),
        Command("import", _import, _describe_import,
                "make a dataset from a folder of class folders, or from a CSV", aliases=("own",)),
        Command("fetch", _fetch, _describe_fetch,
                "download datasets, or PENGI's checkpoint, to the folder PALMKIT_DATA"),
        Command("doctor", _doctor, _describe_doctor,
                "show versions, folders and datasets, and test this installation", True),
        Command("lab", _lab, _describe_lab,
                "open the notebooks in JupyterLab; it gets all other arguments"),
    ]  # fmt: skip


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    common = _message_flags()
    plugins = argparse.ArgumentParser(add_help=False)
    _add_flag(plugins, "import")
    parser = Parser("palmkit", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"palmkit {palmkit.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _list_commands():
        subparser = commands.add_parser(
            command.name,
            aliases=command.aliases,
            help=command.help,
            description=command.help,
            parents=[common, plugins] if command.plugins else [common],
            allow_abbrev=False,
        )
        subparser.set_defaults(command=command.run)
        command.describe(subparser)
    return parser, commands.choices


def _describe_doctor(doctor) -> None:
    doctor.add_argument("--json", action="store_true", help="as JSON")
    doctor.add_argument(
        "--checkpoint", metavar="NAME|FILE", default="", help="check this model, too"
    )


def _describe_lab(lab) -> None:
    lab.add_argument("folder", nargs="?", help="folder to open (default: the notebooks)")


def _add_flag(parser, name: str) -> None:
    """Add a flag of FLAGS. A flag that the user leaves out gives no argument."""
    flag = FLAGS[name]
    options = {"dest": f"choice:{name}", "default": argparse.SUPPRESS, "help": flag.help}
    if flag.is_switch:
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, **options)
        return
    metavar = flag.setting.metavar or "|".join(flag.setting.choices) or name.upper()
    if flag.many or flag.is_table:
        options |= {"nargs": "+", "action": "extend"}
    parser.add_argument(f"--{name}", metavar=metavar, **options)


def _add_flags(parser) -> None:
    for name in FLAGS:
        _add_flag(parser, name)
    parser.add_argument("--quick", dest="choice:profile", action="store_const", const="quick",
                        default=argparse.SUPPRESS, help="--profile quick")  # fmt: skip
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="a TOML file with values for these flags; the command line overrides it",
    )
    parser.add_argument(
        "--save-config", metavar="FILE", help="write these settings to a TOML file, and stop"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only print what there is to do and what it costs on this machine",
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="run trials that failed before again"
    )
    parser.add_argument(
        "--compact",
        action="store_true",
        help="keep the test logits of a trial as float16, and not what was learned",
    )


def _describe_run(run) -> None:
    _add_flags(run)


def _describe_notebooks(books) -> None:
    _add_flags(books)
    books.add_argument("-p", dest="parameters", nargs=2, action="append", default=[],
                       metavar=("KEY", "VALUE"),
                       help="a parameter of the notebooks; repeatable")  # fmt: skip
    books.add_argument("--notebooks", metavar="FOLDER", help="folder of the notebooks")
    books.add_argument(
        "--only", nargs="+", type=int, metavar="N", help="run only the notebooks with these numbers"
    )
    books.add_argument(
        "--copy-to", metavar="FOLDER", help="copy the notebooks to this folder, and stop"
    )


def _describe_status(status) -> None:
    status.add_argument("run", help="name of the run, or its folder")
    status.add_argument("--json", action="store_true", help="as JSON")


def _describe_table(table) -> None:
    table.add_argument("run", help="name of the run, or its folder")
    table.add_argument("--format", default="markdown", choices=("markdown", "latex", "csv"))
    table.add_argument("--metric", default="accuracy", choices=METRICS)


def _describe_leaderboard(board) -> None:
    board.add_argument("run", help="name of the run, or its folder")
    formats = ("markdown", "latex", "csv", "html")
    board.add_argument("--format", choices=formats, help="default: by the ending of --to FILE")
    shares = [metric for metric in METRICS if metric != "loss"]  # more is better
    board.add_argument("--metric", default="accuracy", choices=shares)
    board.add_argument(
        "--reference",
        metavar="METHOD",
        help="the method that others are compared with (default: solved-palm, palm, or the best)",
    )
    board.add_argument("--to", metavar="FILE", help="write to this file instead of the terminal")


def _describe_export(export) -> None:
    export.add_argument("run", help="name of the run, or its folder")
    export.add_argument("--to", required=True, metavar="FILE", help="a .csv or a .parquet file")


def _describe_predict(predict) -> None:
    predict.add_argument(
        "clips", nargs="+", metavar="CLIP", help="audio files, folders, or patterns such as '*.wav'"
    )
    learned = predict.add_mutually_exclusive_group(required=True)
    learned.add_argument("--row", metavar="FILE", help="a row of a run: runs/RUN/rows/.../*.json")
    learned.add_argument("--prompt", metavar="FILE", help="a prompt that save_prompt wrote")
    predict.add_argument("--format", default="table", choices=("table", "csv", "json"))
    for name in ("checkpoint", "device"):
        _add_flag(predict, name)
    predict.add_argument(
        "--method", metavar="NAME", help="the prompt's method, where its file does not say it"
    )
    predict.add_argument(
        "--class-names", nargs="+", metavar="NAME",
        help="the prompt's classes in the order of training, where its file does not say them",
    )  # fmt: skip
    predict.add_argument(
        "--option", nargs="+", action="extend", metavar="KEY=VALUE",
        help="an option of the prompt's method, where its file does not say it",
    )  # fmt: skip


def _describe_check(check) -> None:
    check.add_argument("datasets", nargs="+", metavar="DATASET",
                       help="folders, or names in PALMKIT_DATA")  # fmt: skip
    check.add_argument("--shots", type=int, default=16,
                       help="clips per class for training (default: %(default)s)")  # fmt: skip
    check.add_argument("--tables-only", action="store_true", help="do not open the audio files")
    check.add_argument(
        "--checkpoint",
        metavar="NAME|FILE",
        help="the model that the clips are for (default: PENGI's rate, length and tokens)",
    )
    for name in READING:
        _add_flag(check, name)


def _describe_check_model(check) -> None:
    check.add_argument(
        "model", metavar="NAME", help="name of a model, or a checkpoint, as --checkpoint takes it"
    )
    _add_flag(check, "device")
    check.add_argument("--json", action="store_true", help="as JSON")


def _describe_import(own) -> None:
    own.add_argument(
        "path", help="class folders, a CSV, or a folder in the layout of a known dataset"
    )
    own.add_argument(
        "--folds",
        type=int,
        default=5,
        help="number of folds; 1: a single split (default: %(default)s)",
    )
    own.add_argument(
        "--groups",
        help="a column, or a regular expression on paths: clips with one value stay together",
    )
    own.add_argument("--seed", type=int, default=0, help="of the split (default: %(default)s)")
    own.add_argument(
        "--root",
        help="folder for the tables (default: in the cache); for a CSV, a folder that is there "
        "is the one that its paths are relative to",
    )
    for name in READING:
        if name != "root":
            _add_flag(own, name)


def _describe_fetch(fetch) -> None:
    fetch.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="a name in data_manifest.csv: pengi, ESC50, ESC10, ...",
    )
    choice = fetch.add_mutually_exclusive_group()
    choice.add_argument(
        "--update", action="store_true", help="fetch the newest revision of the source"
    )
    choice.add_argument("--verify", action="store_true",
                        help="only compare all files with their checksums")  # fmt: skip


# Messages: on stderr, above progress bars, and in a run's log file.


class Screen(logging.StreamHandler):
    """Messages above progress bars. tqdm's own redirection would forget the handler's level."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=self.stream)


@contextlib.contextmanager
def _environment(**variables):
    """Environment variables for this process and those that it starts; afterwards as they were."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _messages(arguments):
    """Messages of palmkit on stderr, warnings of Python in one line among them."""
    handler = Screen(sys.stderr)
    handler.setLevel(logging.WARNING if arguments.quiet else logging.INFO)
    if arguments.verbose:
        handler.setLevel(logging.DEBUG)
    level = log.level
    log.setLevel(logging.DEBUG)
    log.addHandler(handler)
    with warnings.catch_warnings():
        warnings.showwarning = _log_warning
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.setLevel(level)


def _log_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Warnings of the kit, and of methods from outside, are messages. Others are for developers."""
    if issubclass(category, UserWarning) and not _is_other_package(Path(filename)):
        log.warning("Warning: %s", message)
    log.debug("%s at %s:%s: %s", category.__name__, filename, lineno, message)


def _is_other_package(path: Path) -> bool:
    """Is it a file of Python or of an installed package other than the kit?"""
    paths = sysconfig.get_paths()
    installed = any(path.is_relative_to(paths[key]) for key in ("stdlib", "purelib", "platlib"))
    own = any(path.is_relative_to(one) for one in (PACKAGE, PACKAGE.with_name("palmkit_synthetic")))
    return installed and not own


@contextlib.contextmanager
def _run_log(name: str):
    """Messages go to runs/RUN/palmkit.log too."""
    folder = run_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / "palmkit.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
    log.addHandler(handler)
    log.debug("%s", os.environ["PALMKIT_COMMAND"])
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        about = {"name": log.name, "levelno": logging.ERROR, "levelname": "ERROR"}
        handler.handle(logging.makeLogRecord({**about, "msg": repr(error)}))
        raise
    finally:
        log.removeHandler(handler)
        handler.close()


# Commands.


def _read_flags(arguments) -> dict:
    """The values of flags that the user gave, by the flags' names."""
    said = {
        key.removeprefix("choice:"): value
        for key, value in vars(arguments).items()
        if key.startswith("choice:")
    }
    return {name: parse_flag(name, value) for name, value in said.items()}


def _reading(arguments) -> dict:
    """How a command without a run is to read datasets: arguments of `find_dataset`."""
    said = {name: value for name, value in _read_flags(arguments).items() if name in READING}
    return choose(said).reading()


def _read_choices(arguments) -> Choices:
    """The choices: from flags, else the config file, else the profile. All values are checked."""
    from palmkit.experiments.trials import check_method_name, expand_methods
    from palmkit.plugins import load_plugins

    said = _read_flags(arguments)
    choices = choose(said, read_config(arguments.config) if arguments.config else None)
    load_plugins(choices.values["imports"])
    if "skip_bad" in choices.given:  # for `load_dataset`, here and in notebooks
        os.environ["PALMKIT_SKIP_BAD"] = "1" if choices.values["skip_bad"] else ""
    # Before anything heavy is loaded: a mistyped name is refused at once.
    for name in expand_methods(choices.values["methods"]):
        check_method_name(name)
    return choices.replace(datasets=expand_datasets(choices.values["datasets"]))


def _check_choices(choices: Choices) -> None:
    """Raise for what cannot be run, before anything is generated, loaded or measured."""
    from palmkit.experiments.trials import check_datasets, check_trials

    grid = choices.grid()
    datasets = grid.pop("datasets")
    grid.pop("folds")
    also = ()
    if choices.values["profile"] == "paper":
        from palmkit.published import paper_datasets

        also = paper_datasets()
    check_datasets(datasets, also)
    check_run_folder(choices.name)
    check_engine(choices.values["backend"], choices.values["address"])
    check_trials(**grid)
    from palmkit.experiments.settings import check_settings  # loads PyTorch

    check_settings()


def _import_datasets(choices: Choices) -> Choices:
    """The choices with a folder for each dataset, where flags say how datasets are to be read."""
    from palmkit.datasets.resolve import find_dataset

    reading = choices.reading()
    if not reading:
        return choices
    absent = ()
    if choices.values["profile"] == "paper":
        from palmkit.experiments.estimate import find_absent
        from palmkit.published import paper_datasets

        named = [name for name in choices.values["datasets"] if name in paper_datasets()]
        absent = find_absent(named)
    folders = [
        name if name in absent else str(find_dataset(name, **reading))
        for name in choices.values["datasets"]
    ]
    return choices.replace(datasets=folders)


def _run(arguments) -> None:
    choices = _read_choices(arguments)
    _check_choices(choices)
    if arguments.save_config:
        return _save_config(arguments.save_config, choices)
    choices = _import_datasets(choices)
    if _needs_estimate(arguments, choices):
        choices = _estimate(choices)
    if arguments.dry_run:
        return
    with _run_log(choices.name):
        model, choices = _load_model(choices)
        failed = _try_trials(choices, model, arguments.retry_failed, arguments.compact)
        _write_report(choices)  # before the table, whose reader may be gone
        if failed is None or failed.done:
            _print_table(choices.name)
        if failed:
            raise failed


def _write_report(choices: Choices) -> None:
    try:
        from palmkit.results.report import write_report  # Matplotlib, an extra
    except ModuleNotFoundError as error:
        log.warning("No report: %s", error)
        return
    log.info("Report: %s", write_report(choices.name, parameters=choices.parameters()))


def _save_config(path: str, choices: Choices) -> None:
    write_config(path, choices)
    log.info("Written: %s", path)


def _needs_estimate(arguments, choices: Choices) -> bool:
    return arguments.dry_run or choices.values["profile"] == "paper"


def _estimate(choices: Choices) -> Choices:
    """Log what there is to do and its cost. Returns the choices without absent datasets."""
    from palmkit.experiments.estimate import check_disk, estimate_cost, fetch_note
    from palmkit.experiments.model_defaults import with_model_defaults
    from palmkit.models import load_model
    from palmkit.models.random import random_pengi

    problem = None
    checkpoint, device = choices.values["checkpoint"], choices.values["device"]
    try:
        model = load_model(checkpoint, device)
    except FileNotFoundError as error:
        if checkpoint != "pengi":
            raise
        problem, model = error, random_pengi(device)
        log.info("PENGI's checkpoint is not at hand: the estimate uses random weights of its size.")
    choices = with_model_defaults(choices, model)
    log.info("Running a few steps of each kind to measure their time ...")
    estimate = estimate_cost(model, choices.name, **choices.grid())
    log.info("%s", estimate)
    if estimate.absent:
        log.info("%s", fetch_note(estimate.absent))
    if problem:
        raise problem
    datasets = [name for name in choices.values["datasets"] if name not in estimate.absent]
    if not datasets:
        raise ValueError("none of these datasets is at hand: fetch one first")
    check_disk(estimate.disk, choices.name)
    return choices.replace(datasets=datasets)


def _load_model(choices: Choices) -> tuple:
    """The model with the user's note, and the choices with the model's defaults."""
    from palmkit.experiments.model_defaults import with_model_defaults
    from palmkit.models import load_model
    from palmkit.models.about import add_note

    model = load_model(choices.values["checkpoint"], choices.values["device"])
    add_note(model, choices.values["note"])
    return model, with_model_defaults(choices, model)


def _try_trials(choices: Choices, model, retry_failed: bool, compact: bool):
    """Run the trials; the TrialsFailed that tells of failed ones, or None."""
    from palmkit.experiments.engines import engine
    from palmkit.experiments.failures import TrialsFailed
    from palmkit.experiments.run import run_trials
    from palmkit.experiments.trials import make_grid

    # After the model was loaded: datasets may have to be generated.
    trials = make_grid(**choices.grid())
    rows = run_folder(choices.name) / "rows"
    log.info("%d trials on %s, rows in %s", len(trials), model.device, rows)
    if model.note:
        log.info("Note: %s", model.note)
    try:
        with engine(choices.values["backend"], choices.values["address"], model.device.type):
            run_trials(
                trials,
                model,
                choices.name,
                retry_failed=retry_failed,
                compact=compact,
                checkpoint=choices.values["checkpoint"],
                details=False,
            )
    except TrialsFailed as failed:
        return failed
    return None


def _notebooks(arguments) -> None:
    from palmkit.experiments.executor import count_jobs
    from palmkit.notebooks import (
        choose_parameters,
        copy_series,
        fitting_numbers,
        list_notebooks,
        run_series,
    )

    if arguments.copy_to:
        return print(copy_series(arguments.copy_to, arguments.notebooks))
    extra = {key: parse_literal(value) for key, value in arguments.parameters}
    if "run" in extra:
        raise ValueError("name the run by --name, not by -p run")
    choices = _read_choices(arguments)
    # Which trials are run is the command's affair: a notebook may show more of them, or fewer.
    reading = {flag.choice for flag in READING.values()}
    own = {"name", "profile", "imports", "skip_bad", "backend", "address", *AXES, *reading}
    given = set(extra) | (choices.given - own)
    # Checked before an hour of work, not after it.
    books = list_notebooks(arguments.notebooks, arguments.only)
    choose_parameters(books, choices.parameters() | extra | {"run": choices.name}, given)
    _check_choices(choices)
    if arguments.save_config:
        return _save_config(arguments.save_config, choices)
    choices = _import_datasets(choices)
    if _needs_estimate(arguments, choices):
        choices = _estimate(choices)
    if arguments.dry_run:
        return
    with _run_log(choices.name):
        model, choices = _load_model(choices)
        failed = _try_trials(choices, model, arguments.retry_failed, arguments.compact)
        if failed:
            _write_report(choices)
            raise failed
        jobs = count_jobs(model)
        # Kernels of small models wait while they start; a large one fills a GPU by itself.
        jobs += jobs > 1
        parameters = choices.parameters() | extra | {"run": choices.name}
        numbers = fitting_numbers(books, model)
        page = run_series(choices.name, parameters, arguments.notebooks, jobs, numbers, given)
    print(f"Open {page}")


def _status(arguments) -> None:
    from palmkit.experiments.status import format_status, read_status

    status = read_status(arguments.run)
    print(
        json.dumps(status.as_dict(), indent=1) if arguments.json else format_status(status), end=""
    )


def _table(arguments) -> None:
    from palmkit.plugins import load_plugins

    load_plugins(parse_flag("import", getattr(arguments, "choice:import", [])))
    _print_table(arguments.run, arguments.format, arguments.metric)


def _print_table(run, format="markdown", metric="accuracy") -> None:
    from palmkit.results.tables import format_tables, load_rows, result_tables

    rows = load_rows(run)
    for note in sorted({note for note in rows["note"] if note}):
        log.info("Note: %s", note)
    print(format_tables(result_tables(rows, metric), format), end="")


def _leaderboard(arguments) -> None:
    from palmkit.plugins import load_plugins
    from palmkit.results.leaderboard import format_leaderboards, format_of, run_leaderboards
    from palmkit.storage import atomic_write

    load_plugins(parse_flag("import", getattr(arguments, "choice:import", [])))
    boards, note = run_leaderboards(arguments.run, arguments.reference, arguments.metric)
    format = arguments.format or format_of(arguments.to)
    text = format_leaderboards(boards, format, note)
    if note:
        log.info("Note: %s", note)
    if not arguments.to:
        return print(text, end="")
    atomic_write(Path(arguments.to), text)
    log.info("Written: %s", arguments.to)


def _export(arguments) -> None:
    from palmkit.plugins import load_plugins
    from palmkit.results.export import export_rows

    load_plugins(parse_flag("import", getattr(arguments, "choice:import", [])))
    log.info("Written: %s", export_rows(arguments.run, arguments.to))


def _predict(arguments) -> int:
    from palmkit.plugins import load_plugins
    from palmkit.results.prediction import format_predictions, load_predictor

    load_plugins(parse_flag("import", getattr(arguments, "choice:import", [])))
    predictor = load_predictor(
        arguments.row,
        arguments.prompt,
        checkpoint=getattr(arguments, "choice:checkpoint", None),
        method=arguments.method,
        class_names=arguments.class_names,
        options=parse_flag("option", arguments.option) if arguments.option else None,
        device=choose({"device": getattr(arguments, "choice:device", "auto")}).values["device"],
    )
    if predictor.model.note:
        log.info("Note: %s", predictor.model.note)
    found = predictor.predict(arguments.clips)
    print(format_predictions(found, arguments.format), end="")
    bad = found[found["error"] != ""]
    for line in bad.itertuples():
        log.error("palmkit: %s: %s", line.path, line.error)
    return int(len(bad) > 0)


def _check(arguments) -> None:
    from palmkit.datasets.check import check_dataset
    from palmkit.results.tables import to_markdown

    bad, reading, model = [], _reading(arguments), None
    if arguments.checkpoint:
        from palmkit.models import load_model
        from palmkit.plugins import load_plugins

        load_plugins(parse_flag("import", getattr(arguments, "choice:import", [])))
        model = load_model(arguments.checkpoint)
    for dataset in arguments.datasets:
        decode = not arguments.tables_only
        check = check_dataset(dataset, arguments.shots, decode, model=model, **reading)
        folds = check.folds.astype(object).fillna("").set_index("fold")
        print(f"# {check.name}\n\n{to_markdown(folds, markup=True)}\n")
        if not arguments.tables_only:
            clips = check.summarise_clips().astype(object)  # else whole numbers become decimal
            print(f"{to_markdown(clips.set_index('files'), markup=True)}\n")
        if check.class_names["class_name"].str.contains("_").any():
            names = check.class_names.set_index("class_name")
            print(f"{to_markdown(names, markup=True)}\n")
        findings = check.findings.set_index("severity")
        text = to_markdown(findings, markup=True) if len(findings) else "No problems found."
        print(f"{text}\n")
        if not check.ok:
            bad.append(check.name)
    if bad:
        raise ValueError(f"{', '.join(bad)} cannot be used as it is: correct the errors above")


def _check_model(arguments) -> int:
    from palmkit.encoder_check import check_name
    from palmkit.plugins import load_plugins

    load_plugins(parse_flag("import", getattr(arguments, "choice:import", [])))
    device = choose({"device": getattr(arguments, "choice:device", "auto")}).values["device"]
    report = check_name(arguments.model, device)
    if arguments.json:
        findings = report.table().to_dict("records")
        said = {"model": report.title, "about": report.facts, "ok": report.ok}
        print(json.dumps(said | {"findings": findings}, indent=1))
    else:
        print(report)
    return int(not report.ok)


def _import(arguments) -> None:
    from palmkit.datasets.import_folder import import_dataset

    settings = (arguments.folds, arguments.groups, arguments.seed, arguments.root)
    print(import_dataset(arguments.path, *settings, **_reading(arguments)))


def _fetch(arguments) -> None:
    from palmkit.datasets.fetch import fetch

    for path in fetch(*arguments.names, update=arguments.update, verify=arguments.verify):
        print(path)


def _doctor(arguments) -> int:
    from palmkit.doctor import examine, find_problems, format_report
    from palmkit.plugins import load_plugins

    load_plugins(parse_flag("import", getattr(arguments, "choice:import", [])))
    found = examine(model=arguments.checkpoint)
    problems = find_problems(found)
    if arguments.json:
        print(json.dumps(found | {"problems": problems}, indent=1))
    else:
        print(format_report(found), end="")
    return int(bool(problems))


def _lab(arguments) -> int:
    folder = Path(arguments.folder) if arguments.folder else notebooks_folder()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}: `palmkit notebooks --copy-to FOLDER` makes one"
        )
    more = getattr(arguments, "arguments", [])
    return subprocess.call([sys.executable, "-m", "jupyter", "lab", str(folder), *more])


if __name__ == "__main__":
    sys.exit(main())
