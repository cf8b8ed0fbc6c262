"""`python -m palmkit`: fetch data, run units, run the notebooks on them, print the table."""

from __future__ import annotations

import argparse
import ast
import functools
import os
import sys

from palmkit.storage import run_folder

CHOICES = ("checkpoint", "datasets", "methods", "folds", "seeds", "shots", "epochs", "device", "crop", "note")


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
    run.set_defaults(command=_run)

    books = commands.add_parser("notebooks", help="run the units and then the notebooks on them, by papermill")
    _add_choices(books)
    books.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"),
                       help="another parameter of a notebook; an unknown one is an error")  # fmt: skip
    books.add_argument("--notebooks", help="folder of the series (default: the checkout's notebooks/)")
    books.set_defaults(command=_notebooks)

    table = commands.add_parser("table", help="print the results table of a run")
    table.add_argument("run", help="name of the run, or its folder")
    table.add_argument("--format", default="markdown", choices=("markdown", "latex", "csv"))
    table.add_argument("--metric", default="accuracy", choices=("accuracy", "f1", "precision", "recall", "loss"))
    table.set_defaults(command=_table)

    fetch = commands.add_parser("fetch", help="fetch datasets, or PENGI's checkpoint, into the folder PALMKIT_DATA")
    fetch.add_argument("names", nargs="+", metavar="NAME", help="of data_manifest.csv: pengi, ESC50, ESC10, ...")
    choice = fetch.add_mutually_exclusive_group()
    choice.add_argument("--update", action="store_true", help="take the newest revision where the source has moved on")
    choice.add_argument("--verify", action="store_true", help="fetch nothing; hash all files and compare with the lock")
    fetch.set_defaults(command=_fetch)
    return parser


def _add_choices(parser: argparse.ArgumentParser) -> None:
    def several(flag, dest, default, what, **more):
        parser.add_argument(flag, dest=dest, nargs="+", action="extend", metavar=flag[2:].upper(),
                            help=f"{what} (default: {default})", **more)  # fmt: skip

    parser.add_argument("--name", default="run", metavar="RUN", help="rows go to runs/RUN (default: %(default)s)")
    parser.add_argument("--checkpoint", default="mini", metavar="NAME|FILE", help="default: %(default)s")
    several("--dataset", "datasets", "default", "folders, names in PALMKIT_DATA, or default: those generated")
    several("--method", "methods", "all", "zeroshot, coop, cocoop, palm, palm-dagger, or all: the paper's four")
    several("--fold", "folds", "all", "fold numbers, first, or all")
    several("--seed", "seeds", "0 1 2", "seeds of draw, initial values and shuffling", type=int)
    parser.add_argument("--shots", type=int, default=16, help="clips a class, -1 for all (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: %(default)s)")
    parser.add_argument("--crop", default="random", help="random, start or center (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="the first fold and the first seed only")
    parser.add_argument("--note", default="", help="a sentence that every output of this run carries")


def _choices(arguments) -> dict:
    from palmkit_mini.tasks import DEFAULT_TASKS

    choices = {name: getattr(arguments, name) for name in CHOICES}
    quick = {"folds": ["first"], "seeds": [0]} if arguments.quick else {}
    defaults = {"datasets": ["default"], "methods": ["all"], "folds": ["all"], "seeds": [0, 1, 2]} | quick
    choices |= {name: choices[name] or default for name, default in defaults.items()}
    named = [[*DEFAULT_TASKS] if name == "default" else [name] for name in choices["datasets"]]
    choices["datasets"] = [name for names in named for name in names]
    if choices["folds"] in (["all"], ["first"]):
        (choices["folds"],) = choices["folds"]
    elif not all(fold.isdigit() for fold in choices["folds"]):
        raise ValueError(f"--fold takes numbers, first or all, not {' '.join(choices['folds'])}")
    else:
        choices["folds"] = [int(fold) for fold in choices["folds"]]
    if choices["methods"] == ["all"]:
        choices["methods"] = "all"
    return choices


def _run_units(name: str, choices: dict):
    from palmkit.pengi import load_pengi
    from palmkit.units import plan, run_units

    settings = {setting: choices[setting] for setting in ("shots", "epochs", "crop")}
    units = plan(choices["methods"], choices["datasets"], choices["folds"], choices["seeds"], **settings)
    pengi = load_pengi(choices["checkpoint"], choices["device"])
    pengi.note = choices["note"] or pengi.note
    print(f"{len(units)} units on {pengi.device}, rows in {run_folder(name) / 'rows'}", file=sys.stderr)
    if pengi.note:
        print(f"Note: {pengi.note}", file=sys.stderr)
    run_units(units, pengi, name, told=functools.partial(print, "To do:", file=sys.stderr))
    return pengi


def _run(arguments) -> None:
    _run_units(arguments.name, _choices(arguments))
    _table(argparse.Namespace(run=arguments.name, format="markdown", metric="accuracy"))


def _notebooks(arguments) -> None:
    from palmkit.series import choose_parameters, list_notebooks, run_series
    from palmkit.workers import count_jobs

    given = {key: _literal(value) for key, value in arguments.parameters}
    if "run" in given:
        raise ValueError("name the run by --name, not by -p run")
    parameters = {**_choices(arguments), "run": arguments.name, **given}
    choose_parameters(list_notebooks(arguments.notebooks), parameters)  # before an hour of work, not after it
    pengi = _run_units(arguments.name, parameters)
    print(f"Open {run_series(arguments.name, parameters, arguments.notebooks, count_jobs(pengi))}")


def _literal(text: str):
    """A number, list, bool or None as Python writes it; anything else is a string."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _fetch(arguments) -> None:
    from palmkit.fetch import fetch

    told = functools.partial(print, file=sys.stderr, flush=True)
    for path in fetch(*arguments.names, update=arguments.update, verify=arguments.verify, told=told):
        print(path)


def _table(arguments) -> None:
    from palmkit.results import FORMATS, load_rows, split_settings, summarise, wide

    rows = load_rows(arguments.run)
    notes = sorted({note for note in rows["note"] if note})
    for note in notes:
        print(f"Note: {note}", file=sys.stderr)
    for label, group in split_settings(rows):
        table = wide(summarise(group, arguments.metric)).rename_axis(index=label or "dataset")
        print(FORMATS[arguments.format](table))


if __name__ == "__main__":
    sys.exit(main())
