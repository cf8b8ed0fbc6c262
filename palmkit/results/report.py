"""`runs/RUN/index.html`: the report of a run in one file, which needs no network.

Tables, figures and settings are in the file. Links lead to the executed notebooks, the tables as
CSV, LaTeX and Markdown and the figures as PDF, which lie beside it.
"""

from __future__ import annotations

import base64
import datetime
import re
import warnings
from pathlib import Path

import pandas as pd

from palmkit.experiments.failures import name_row
from palmkit.extras import extra
from palmkit.published import paper_datasets
from palmkit.results.comparison import verdict_table
from palmkit.results.loading import load_failed, load_rows
from palmkit.results.method_style import method_label, method_names, order_methods
from palmkit.results.plots import PNG_DPI
from palmkit.results.settings import split_settings
from palmkit.results.statistics import compare_paired
from palmkit.results.tables import AVERAGE, ResultTable, order_datasets, result_tables, write_tables
from palmkit.results.versions import dataset_labels, mark_versions
from palmkit.storage import atomic_write, run_folder

with extra("report"):
    import jinja2
    import markupsafe
    import nbformat

DONE, FAILED, OPEN = "done", "failed", "not run"
TEMPLATE = "report.html.jinja"
SHORT = 16  # characters of a hash that are shown
CSS_DPI = 96  # a browser's pixels to the inch


def write_report(run, status: dict[str, str] | None = None, parameters: dict | None = None) -> Path:
    """Write the report of `runs/RUN`. Returns its path.

    status: of each notebook (its stem), "done", "failed" or "not run"; default: of those that the
    run has. parameters: what the run was started with. What is not there (rows, figures, notebooks)
    is left out.
    """
    folder = run_folder(run)
    status = _find_notebooks(folder) if status is None else status
    books = _read_notebooks(folder, status)
    content = {"tables": [], "verdicts": [], "left_out": [], "files": [], "problem": ""}
    rows = pd.DataFrame()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            rows = mark_versions(load_rows(run))
            tables = result_tables(rows)
            content |= {"tables": [_table_content(table) for table in tables]}
            content |= {"files": [path.name for path in write_tables(run, tables=tables)]}
        except (FileNotFoundError, ValueError) as error:
            content["problem"] = str(error)
    content["left_out"] = list(dict.fromkeys(str(warning.message) for warning in caught))
    content["left_out"] += _bad_files(rows)
    content["failed"] = [f"{name_row(row)}: {row['failed']}" for row in load_failed(run)]
    content |= {
        "title": folder.name,
        "subtitle": _subtitle(rows),
        "notes": sorted(set(rows["note"]) - {""}) if len(rows) else [],
        "verdicts": _verdicts(rows) if content["tables"] else [],
        "figures": _figures(folder, books),
        "notebooks": _notebooks(status, books),
        "settings": _parameters(parameters or {}) | _provenance(rows),
    }
    parts = {
        "Results": "tables",
        "Failed": "failed",
        "Figures": "figures",
        "Notebooks": "notebooks",
    }
    content["sections"] = [name for name, part in parts.items() if content[part]] + ["Settings"]
    atomic_write(folder / "index.html", _render(content))
    return folder / "index.html"


def _bad_files(rows: pd.DataFrame) -> list[str]:
    """The files that --skip-bad left out of each dataset."""
    if "bad_files" not in rows:
        return []
    named: dict[str, dict] = {}
    for row in rows.dropna(subset="bad_files").itertuples():
        named.setdefault(row.dataset, {}).update(dict.fromkeys(row.bad_files))
    return [
        f"{dataset}: --skip-bad left out {len(files)} bad files. {'; '.join(files)}"
        for dataset, files in named.items()
    ]


def _render(content: dict) -> str:
    loader = jinja2.PackageLoader("palmkit.results", "")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(content)


def _subtitle(rows: pd.DataFrame) -> str:
    today = f"{datetime.date.today():%d %B %Y}"
    if rows.empty:
        return f"palmkit, {today}"
    counts = {name: rows[name].nunique() for name in ("dataset", "method", "seed")}
    text = ", ".join(f"{n} {name}{'s' * (n > 1)}" for name, n in counts.items())
    return f"Few-shot prompt learning with palmkit: {text}, {len(rows)} trials. {today}."


# Tables


def _table_content(table: ResultTable) -> dict:
    """The paper's table: datasets down, methods across, the best in bold, and chance."""
    summary = table.summary
    methods = list(order_methods(summary["method"]).categories)
    seeds, names = summary.groupby("method")["seeds"].max(), method_names()
    chance = _chance(table.rows)
    lines = summary.set_index(["dataset", "method"])
    return {
        "label": table.label,
        "methods": [{"label": names.get(key, key), "seeds": seeds[key]} for key in methods],
        "lines": [
            {
                "dataset": dataset,
                "total": dataset == AVERAGE,
                "cells": _cells(lines.loc[dataset], methods, seeds),
                "chance": f"{chance[dataset]:.3f}",
            }
            for dataset in order_datasets(summary["dataset"]).categories
        ],
        "differences": _differences(summary),
    }


def _chance(rows: pd.DataFrame) -> pd.Series:
    """What guessing evenly gives, by dataset and on average."""
    classes = rows.assign(dataset=dataset_labels(rows)).drop_duplicates("dataset")
    chance = 1 / classes.set_index("dataset")["n_classes"]
    chance[AVERAGE] = chance.mean()
    return chance


def _cells(line: pd.DataFrame, methods: list[str], seeds: pd.Series) -> list[dict]:
    """One dataset's cells: mean, whether it is the best, and spread and seeds where they differ."""
    cells = []
    for key in methods:
        if key not in line.index:
            cells.append({"mean": "–", "best": False, "note": ""})
            continue
        mean, std, n = line.loc[key, ["mean", "std", "seeds"]]
        notes = [f"± {std:.3f}"] if n > 1 else []
        notes += [f"n={n:.0f}"] if n != seeds[key] else []
        best = mean == line["mean"].max()
        cells.append({"mean": f"{mean:.3f}", "best": best, "note": " ".join(notes)})
    return cells


def _differences(summary: pd.DataFrame) -> list[str]:
    """PALM against each other method over datasets, in a sentence each."""
    lines = summary[summary["dataset"] != AVERAGE]
    scores = lines.pivot(index="dataset", columns="method", values="mean").dropna(axis=1)
    if len(scores) < 2 or "palm" not in scores or len(scores.columns) < 2:
        return []
    try:
        found = compare_paired(scores)
    except ValueError:  # a tie on every dataset: nothing to test
        return []
    return [
        f"PALM over {method_label(line.Index)}: {100 * line.difference:+.1f} points, ahead on "
        f"{line.wins} of {line.n} datasets (Wilcoxon, Holm's p {line.p_holm:.3f})."
        for line in found.itertuples()
    ]


def _verdicts(rows: pd.DataFrame) -> list[dict]:
    """The comparison with the paper, for each group of equal settings with published datasets."""
    verdicts = []
    for label, group in split_settings(rows):
        if not set(group["dataset"]) & set(paper_datasets()):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they stand in the report already
            try:
                table = verdict_table(group)
            except ValueError:  # no complete seed; that stands there too
                continue
        index = isinstance(table.index, pd.MultiIndex)
        markup = markupsafe.Markup(table.to_html(border=0, index=index, classes="text"))
        verdicts.append({"label": label, "table": markup})
    return verdicts


# Figures and notebooks


def _find_notebooks(folder: Path) -> dict[str, str]:
    """The executed notebooks of a run; one without its record of success has failed."""
    stems = sorted(path.stem for path in (folder / "notebooks").glob("*.ipynb"))
    return {
        stem: DONE if (folder / "notebooks" / f".{stem}.json").is_file() else FAILED
        for stem in stems
    }


def _read_notebooks(folder: Path, status: dict[str, str]) -> dict:
    executed = [name for name, state in status.items() if state != OPEN]
    pages = [folder / "notebooks" / f"{name}.ipynb" for name in executed]
    return {page.stem: nbformat.read(page, as_version=4) for page in pages if page.is_file()}


def _figures(folder: Path, books: dict) -> list[dict]:
    """Figures, those of a notebook together and in its order; those of no notebook come last."""
    paths = {path.stem: path for path in (folder / "figures").glob("*.png")}
    groups = []
    for book in books.values():
        if found := [paths.pop(stem) for stem in _figure_names(book, paths) if stem in paths]:
            groups.append({"title": _title(book), "figures": [_figure(path) for path in found]})
    if paths:
        others = [_figure(path) for _, path in sorted(paths.items())]
        groups.append({"title": "Others", "figures": others})
    return groups


def _figure_names(book, paths) -> list[str]:
    """Names of the figures that a notebook's code saves, in order.

    A name that the code computes (f"...") becomes a pattern.
    """
    code = "\n".join(cell.source for cell in book.cells if cell.cell_type == "code")
    names = []
    for name in re.findall(r"save_figure\(.*?f?\"([^\"]+)\"\)", code):
        pattern = ".+".join(map(re.escape, re.split(r"\{[^}]*\}", name)))
        names += [stem for stem in sorted(paths) if re.fullmatch(pattern, stem)]
    return names


def _figure(path: Path) -> dict:
    data = path.read_bytes()
    pixels = int.from_bytes(data[16:20], "big")  # the width in the PNG's header
    pdf = path.with_suffix(".pdf")
    return {
        "title": path.stem.replace("_", " "),
        "width": int(pixels * CSS_DPI / PNG_DPI),  # at its true size
        "data": base64.b64encode(data).decode(),
        "pdf": pdf.name if pdf.is_file() else "",
    }


def _title(book) -> str:
    """A notebook's first heading, or nothing."""
    lines = [
        line
        for cell in book.cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
    ]
    return next((line.lstrip("# ") for line in lines if line.startswith("# ")), "")


def _notebooks(status: dict[str, str], books: dict) -> list[dict]:
    titles = {name: _title(book) for name, book in books.items()}
    return [
        {
            "name": name,
            "title": titles.get(name) or name,
            "state": state,
            "executed": state != OPEN,
        }
        for name, state in status.items()
    ]


# Settings


def _parameters(parameters: dict) -> dict[str, str]:
    """What the run was started with, as text; empty values are left out."""
    texts = {
        key: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in parameters.items()
        if value is not None
    }
    return {key: text for key, text in texts.items() if text}


def _provenance(rows: pd.DataFrame) -> dict[str, str]:
    """Where the rows come from: program, command, model, data, machine and time."""
    if rows.empty:
        return {}
    versions = [
        ", ".join(f"{package} {number}" for package, number in row.items())
        for row in rows.get("versions", [])
        if isinstance(row, dict)
    ]
    clips = rows.drop_duplicates(["dataset", "fold"])["n_test"].sum()
    seconds = [sum(row.values()) for row in rows.get("seconds", []) if isinstance(row, dict)]
    found = {
        "palmkit": _distinct(rows.get("palmkit", [])),
        "commit": _distinct(rows.get("commit", [])),
        "command": _distinct(rows.get("command", [])),
        "versions": _distinct(versions),
        "ran on": _distinct(rows.get("device", []), ", "),
        "weights (sha256)": _distinct(_short(rows.get("weights", [])), ", "),
        "checkpoint (sha256)": _distinct(_short(rows.get("checkpoint_sha256", [])), ", "),
        "datasets (sha256)": _distinct(_dataset_digests(rows), ", "),
        "test clips": f"{int(clips):,}",
        "time": f"{sum(seconds) / 3600:.2f} hours in trials; clips are embedded before",
    }
    return {name: text for name, text in found.items() if text}


def _distinct(values, separator: str = "; ") -> str:
    return separator.join(sorted({str(value) for value in values if value and pd.notna(value)}))


def _short(hashes) -> list[str]:
    return [str(value)[:SHORT] for value in hashes if value and pd.notna(value)]


def _dataset_digests(rows: pd.DataFrame) -> list[str]:
    if "dataset_digest" not in rows:
        return []
    known = rows.dropna(subset="dataset_digest").drop_duplicates(["dataset", "dataset_digest"])
    return [f"{row.dataset} {row.dataset_digest[:SHORT]}" for row in known.itertuples()]
