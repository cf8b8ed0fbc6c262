"""`python -m palmkit`: fetch data, run units, run the notebooks on them, print the table."""

from __future__ import annotations

import argparse
import ast
import functools
import logging
import os
import sys

from palmkit.storage import run_folder

CHOICES = (
    "checkpoint", "datasets", "methods", "folds", "seeds", "shots", "epochs", "device", "crop", "protocol", "note",
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except KeyboardInterrupt:
        print(
            "\nInterrupted. Finished units and notebooks are kept; the same command goes on from there.",
            file=sys.stderr,
        )
        return 130
    except (ValueError, OSError, RuntimeError, ArithmeticError) as error:
        if os.environ.get("PALMKIT_TRACEBACK"):
            raise
        print(f"palmkit: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m palmkit", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run units and write a row of each to runs/RUN/rows")
    _add_choices(run)
    run.add_argument("--parts", nargs="+", action="extend", metavar="PART",
                     help="what is random in the released protocol: all (default), none, crops, bn0, specaugment, "
                     "drop_path, audio_dropout, text_dropout")  # fmt: skip
    run.add_argument("--autocast", action="store_true",
                     help="the released protocol's audio encoder in half precision, where safe")  # fmt: skip
    run.add_argument(
        "--dry-run",
        action="store_true",
        help="only tell what there is to do and what it takes here",
    )
    run.set_defaults(command=_run)

    books = commands.add_parser(
        "notebooks", help="run the units and then the notebooks on them, by papermill"
    )
    _add_choices(books)
    books.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"),
                       help="another parameter of a notebook; an unknown one is an error")  # fmt: skip
    books.add_argument(
        "--notebooks", help="folder of the series (default: the checkout's notebooks/)"
    )
    books.add_argument(
        "--only",
        nargs="+",
        type=int,
        metavar="N",
        help="numbers of notebooks (default: all of them)",
    )
    books.set_defaults(command=_notebooks)

    table = commands.add_parser("table", help="print the results table of a run")
    table.add_argument("run", help="name of the run, or its folder")
    table.add_argument("--format", default="markdown", choices=("markdown", "latex", "csv"))
    table.add_argument(
        "--metric", default="accuracy", choices=("accuracy", "f1", "precision", "recall", "loss")
    )
    table.set_defaults(command=_table)

    check = commands.add_parser(
        "check", help="look datasets over: tables, counts, leakage, every audio file"
    )
    check.add_argument(
        "datasets", nargs="+", metavar="DATASET", help="folders, or names in PALMKIT_DATA"
    )
    check.add_argument(
        "--shots", type=int, default=16, help="clips a class that training will draw (default: 16)"
    )
    check.add_argument("--tables-only", action="store_true", help="do not open the audio files")
    check.set_defaults(command=_check)

    own = commands.add_parser(
        "own", help="make a dataset of a folder of class folders, or of a CSV"
    )
    own.add_argument("path", help="the folder, or a CSV with the columns path and classname")
    own.add_argument(
        "--folds", type=int, default=5, help="1: a single split (default: %(default)s)"
    )
    own.add_argument(
        "--groups", help="column, or regular expression on paths, of what must not be torn apart"
    )
    own.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    own.add_argument("--root", help="where the tables go (default: the cache)")
    own.set_defaults(command=_own)

    fetch = commands.add_parser(
        "fetch", help="fetch datasets, or PENGI's checkpoint, into the folder PALMKIT_DATA"
    )
    fetch.add_argument(
        "names", nargs="+", metavar="NAME", help="of data_manifest.csv: pengi, ESC50, ESC10, ..."
    )
    choice = fetch.add_mutually_exclusive_group()
    choice.add_argument(
        "--update",
        action="store_true",
        help="take the newest revision where the source has moved on",
    )
    choice.add_argument(
        "--verify",
        action="store_true",
        help="fetch nothing; hash all files and compare with the lock",
    )
    fetch.set_defaults(command=_fetch)
    return parser


def _add_choices(parser: argparse.ArgumentParser) -> None:
    def several(flag, dest, default, what, **more):
        parser.add_argument(flag, dest=dest, nargs="+", action="extend", metavar=flag[2:].upper(),
                            help=f"{what} (default: {default})", **more)  # fmt: skip

    parser.add_argument(
        "--name", default="run", metavar="RUN", help="rows go to runs/RUN (default: %(default)s)"
    )
    parser.add_argument("--profile", default="default", choices=("default", "quick", "paper"),
                        help="quick: first fold and seed; paper: the published grid, planned first")  # fmt: skip
    parser.add_argument(
        "--checkpoint", metavar="NAME|FILE", help="default: mini; with --profile paper: pengi"
    )
    several(
        "--dataset",
        "datasets",
        "default",
        "folders, names in PALMKIT_DATA, or default: those generated",
    )
    several(
        "--method",
        "methods",
        "all",
        "zeroshot, coop, cocoop, palm, palm-dagger, or all: the paper's four",
    )
    several("--fold", "folds", "all", "fold numbers, first, or all")
    several("--seed", "seeds", "0 1 2", "seeds of draw, initial values and shuffling", type=int)
    parser.add_argument(
        "--shots", type=int, default=16, help="clips a class, -1 for all (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=50, help="default: %(default)s")
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: %(default)s)"
    )
    parser.add_argument(
        "--crop", default="random", help="random, start or center (default: %(default)s)"
    )
    parser.add_argument("--protocol", default="frozen", choices=("frozen", "released"),
                        help="encoders frozen, as the paper says, or in train mode, as its code has them "
                        "(default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--quick", dest="profile", action="store_const", const="quick", help="--profile quick"
    )
    parser.add_argument(
        "--note", default="", help="a sentence that every output of this run carries"
    )


def _choices(arguments) -> dict:
    """What is to be run: what was said, and the profile's word where nothing was."""
    from palmkit.experiments.estimate import PROFILES
    from palmkit_synthetic.tasks import DEFAULT_TASKS

    choices = {name: getattr(arguments, name) for name in CHOICES}
    choices |= {
        name: choices[name] or default for name, default in PROFILES[arguments.profile].items()
    }
    named = [[*DEFAULT_TASKS] if name == "default" else [name] for name in choices["datasets"]]
    choices["datasets"] = [name for names in named for name in names]
    if choices["folds"] in (["all"], ["first"]):
        (choices["folds"],) = choices["folds"]
    elif isinstance(choices["folds"], list):
        if not all(fold.isdigit() for fold in choices["folds"]):
            raise ValueError(
                f"--fold takes numbers, first or all, not {' '.join(choices['folds'])}"
            )
        choices["folds"] = [int(fold) for fold in choices["folds"]]
    if choices["methods"] == ["all"]:
        choices["methods"] = "all"
    return choices


GRID = ("datasets", "methods", "folds", "seeds", "shots", "epochs", "crop", "protocol")


def _grid(choices: dict) -> dict:
    return {key: choices[key] for key in (*GRID, "parts", "autocast") if key in choices}


def _tell_plan(name: str, choices: dict) -> dict:
    """Print what there is to do and what it takes; the choices without datasets that are not at hand."""
    from palmkit.experiments.estimate import check_disk, estimate_cost, fetch_note
    from palmkit.models.pengi import load_pengi
    from palmkit.models.random import random_pengi

    problem = None
    try:
        model = load_pengi(choices["checkpoint"], choices["device"])
    except FileNotFoundError as error:
        if choices["checkpoint"] != "pengi":
            raise
        problem, model = error, random_pengi(choices["device"])
        print(
            "PENGI's checkpoint is not at hand: planned with random weights of its size.",
            file=sys.stderr,
        )
    print("Running a few steps of each kind, to know what they take ...", file=sys.stderr)
    told = estimate_cost(model, name, **_grid(choices))
    print(told, file=sys.stderr)
    if told.absent:
        print(fetch_note(told.absent), file=sys.stderr)
    if problem:
        raise problem
    if len(told.absent) == len(choices["datasets"]):
        raise ValueError("none of these datasets is at hand: fetch one first")
    check_disk(told.disk, name)
    return choices | {"datasets": [name for name in choices["datasets"] if name not in told.absent]}


def _run_units(name: str, choices: dict):
    from palmkit.experiments.run import run_trials
    from palmkit.experiments.trials import make_grid
    from palmkit.models.pengi import load_pengi

    model = load_pengi(
        choices["checkpoint"], choices["device"]
    )  # first: datasets may have to be generated
    units = make_grid(**_grid(choices))
    model.note = choices["note"] or model.note
    print(
        f"{len(units)} units on {model.device}, rows in {run_folder(name) / 'rows'}",
        file=sys.stderr,
    )
    if model.note:
        print(f"Note: {model.note}", file=sys.stderr)
    run_trials(units, model, name, told=functools.partial(print, "To do:", file=sys.stderr))
    return model


def _run(arguments) -> None:
    choices = _choices(arguments)
    if arguments.parts:
        parts = {("all",): "all", ("none",): ()}.get(tuple(arguments.parts), arguments.parts)
        choices["parts"] = parts
    if arguments.autocast:
        choices["autocast"] = True
    if arguments.profile == "paper" or arguments.dry_run:
        choices = _tell_plan(arguments.name, choices)
    if arguments.dry_run:
        return
    _run_units(arguments.name, choices)
    _table(argparse.Namespace(run=arguments.name, format="markdown", metric="accuracy"))
    from palmkit.results.report import write_report

    print(f"Report: {write_report(arguments.name, parameters=choices)}", file=sys.stderr)


def _notebooks(arguments) -> None:
    from palmkit.experiments.executor import count_jobs
    from palmkit.notebooks import choose_parameters, list_notebooks, run_series

    given = {key: _literal(value) for key, value in arguments.parameters}
    if "run" in given:
        raise ValueError("name the run by --name, not by -p run")
    parameters = {**_choices(arguments), "run": arguments.name, **given}
    # Before an hour of work, not after it.
    choose_parameters(list_notebooks(arguments.notebooks, arguments.only), parameters)
    if arguments.profile == "paper":
        parameters = _tell_plan(arguments.name, parameters)
    model = _run_units(arguments.name, parameters)
    jobs = count_jobs(model)
    jobs += (
        jobs > 1
    )  # small models' kernels wait while they start; a large one fills a GPU by itself
    page = run_series(arguments.name, parameters, arguments.notebooks, jobs, arguments.only)
    print(f"Open {page}")


def _literal(text: str):
    """A number, list, bool or None as Python writes it; anything else is a string."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _check(arguments) -> None:
    from palmkit.datasets.check import check_dataset
    from palmkit.results.tables import to_markdown

    bad = []
    for dataset in arguments.datasets:
        check = check_dataset(dataset, arguments.shots, not arguments.tables_only)
        print(
            f"# {check.name}\n\n{to_markdown(check.folds.astype(object).fillna('').set_index('fold'))}\n"
        )
        if not arguments.tables_only:
            print(f"{to_markdown(check.summarise_clips().set_index('files'))}\n")
        findings = check.findings.set_index("severity")
        print(f"{to_markdown(findings)}\n" if len(findings) else "Nothing was found to be wrong.\n")
        bad += [] if check.ok else [check.name]
    if bad:
        raise ValueError(f"{', '.join(bad)} cannot be used as it is: see the errors above")


def _own(arguments) -> None:
    from palmkit.datasets.import_folder import own_dataset

    print(
        own_dataset(
            arguments.path, arguments.folds, arguments.groups, arguments.seed, arguments.root
        )
    )


def _fetch(arguments) -> None:
    from palmkit.datasets.fetch import fetch

    logger, handler = logging.getLogger("palmkit"), logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        paths = fetch(*arguments.names, update=arguments.update, verify=arguments.verify)
    finally:
        logger.removeHandler(handler)
    for path in paths:
        print(path)


def _table(arguments) -> None:
    from palmkit.results.tables import FORMATS, load_rows, result_tables

    rows = load_rows(arguments.run)
    for note in sorted({note for note in rows["note"] if note}):
        print(f"Note: {note}", file=sys.stderr)
    for table in result_tables(rows, arguments.metric):
        print(FORMATS[arguments.format](table.wide()))


if __name__ == "__main__":
    sys.exit(main())
