"""`runs/RUN/index.html`: the report of a run in one file, which needs no network.

Tables, figures and settings are in the file, and tables and rows as downloads. Links lead to the
executed notebooks and to the figures as PDF, which lie beside it; the page says so.
"""

from __future__ import annotations

import base64
import datetime
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from palmkit.experiments.failures import name_row
from palmkit.experiments.timing import duration
from palmkit.extras import extra
from palmkit.published import paper_datasets
from palmkit.results.captions import find_caption
from palmkit.results.comparison import has_two_encoders, verdict_table
from palmkit.results.confusion import Confusion, count_confusions
from palmkit.results.export import export_frame
from palmkit.results.formats import NOTHING, format_score, format_spread, one_line, to_csv
from palmkit.results.loading import load_failed, load_rows
from palmkit.results.method_style import method_label, method_names, order_methods
from palmkit.results.plots import CAPTION, PNG_DPI
from palmkit.results.settings import ANY, ENCODERS, KIND, label_settings, split_settings
from palmkit.results.statistics import compare_paired
from palmkit.results.tables import AVERAGE, ResultTable, order_datasets, result_tables, write_tables
from palmkit.results.versions import dataset_labels, mark_versions
from palmkit.storage import atomic_write, run_folder

with extra("report"):
    import jinja2
    import markupsafe
    import nbformat
    from PIL import Image

DONE, FAILED, OPEN = "done", "failed", "not run"
TEMPLATE = "report.html.jinja"
SHORT = 16  # characters of a hash that are shown
CSS_DPI = 96  # a browser's pixels to the inch
MOST_CLASSES = 30  # of a confusion matrix that is shown
OPEN_DATASETS = 3  # results by class of so many datasets are open, of more they are folded
# What a page has at most, so that a browser opens it. What is left out is counted, and is in files.
MOST_TABLES = 40
MOST_BY_CLASS = 100  # classes of a table by class: those of lowest recall
MOST_DATASETS = 40  # results by class
MOST_TEXTS = 50  # of each list
MOST_VALUES = 100  # of a setting
LARGEST_DOWNLOAD = 2_000_000  # bytes of a file inside of the page
CLASSES_FILE, ROWS_FILE = "classes.csv", "rows.csv"  # in `tables`
TYPES = {".csv": "text/csv", ".tex": "text/x-tex", ".md": "text/markdown"}
# Headings of the page, and the parts of its content that stand there.
SECTIONS = {
    "Results": "tables",
    "Failed": "failed",
    "Classes": "classes",
    "Figures": "figures",
    "Notebooks": "notebooks",
}
# Settings that stand elsewhere in the report, or have no meaning for a reader.
NOT_SHOWN = (KIND, ENCODERS, "weights", "method_digest")


def write_report(run, status: dict[str, str] | None = None, parameters: dict | None = None) -> Path:
    """Write the report of `runs/RUN`. Returns its path. What the run lacks is left out.

    status: of each notebook (its stem), "done", "failed" or "not run"; default: of those that the
    run has. parameters: what the last command was started with. It is shown only where there are no
    rows, because the settings are those of the rows.
    """
    folder = run_folder(run)
    status = _find_notebooks(folder) if status is None else status
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        books = _read_notebooks(folder, status)
        rows, results = _read_results(run)
        figures = _figures(folder, books)
    content = results | {
        "title": folder.name,
        "subtitle": _subtitle(rows),
        "notes": sorted(set(rows["note"]) - {""}) if len(rows) else [],
        "left_out": _first(_messages(caught)) + _bad_files(rows),
        "failed": [f"{name_row(row)}: {row['failed']}" for row in load_failed(run)],
        "verdicts": _verdicts(rows) if results["tables"] else [],
        "figures": figures,
        "notebooks": _notebooks(status, books),
        "settings": (_settings(rows) or _parameters(parameters or {})) | _provenance(rows),
        "folder": folder.name,
    }
    content["sections"] = _sections(content)
    # A file name that is no Unicode (a dataset's, say) must not keep the report from being written.
    page = _render(content).encode(errors="backslashreplace")
    path = folder / "index.html"
    atomic_write(path, page)
    return path


def _read_results(run) -> tuple[pd.DataFrame, dict]:
    """The rows of a run, and the parts of the page that come from its tables.

    `problem` says what keeps the parts from being made. Those that were not made are empty.
    """
    rows = pd.DataFrame()
    parts = {
        "tables": [],
        "more_tables": 0,
        "classes": [],
        "classes_note": "",
        "downloads": [],
        "problem": "",
    }
    try:
        rows = mark_versions(load_rows(run, details=["class_names"]))
        rows = rows.assign(n_classes=rows["class_names"].map(_count))
        tables = result_tables(rows)
        parts["tables"] = [_table_content(table) for table in tables[:MOST_TABLES]]
        parts["classes"], parts["classes_note"] = _class_content(tables, run)
        parts["downloads"] = _downloads(write_tables(run, tables=tables), run)
        parts["more_tables"] = len(tables) - len(parts["tables"])
    except (FileNotFoundError, ValueError) as error:
        parts["problem"] = one_line(error)
    return rows, parts


def _messages(caught: list[warnings.WarningMessage]) -> list[str]:
    """The kit's own warnings among those that were caught, each once."""
    own = [one for one in caught if issubclass(one.category, UserWarning)]
    return list(dict.fromkeys(one_line(warning.message) for warning in own))


def _sections(content: dict) -> list[str]:
    """Headings of the parts of the page that are not empty."""
    return [name for name, part in SECTIONS.items() if content[part]] + ["Settings"]


def _bad_files(rows: pd.DataFrame) -> list[str]:
    """The files that --skip-bad left out of each dataset."""
    if "bad_files" not in rows:
        return []
    named: dict[str, dict] = {}
    for row in rows.dropna(subset="bad_files").itertuples():
        named.setdefault(row.dataset, {}).update(dict.fromkeys(row.bad_files))
    return [
        f"{dataset}: --skip-bad left out {len(files)} bad files. {'; '.join(_first(files))}"
        for dataset, files in named.items()
    ]


def _first(texts, most: int = MOST_TEXTS) -> list[str]:
    """The first of several texts, and how many more there are."""
    texts = [*texts]
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return texts[:most] + more


def _count(names) -> int:
    return len(names) if isinstance(names, list) else 0


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
        "caption": table.caption,
        "methods": [{"label": names.get(key, key), "seeds": seeds[key]} for key in methods],
        "lines": [
            {
                "dataset": dataset,
                "total": dataset == AVERAGE,
                "cells": _cells(lines.loc[dataset], methods, seeds),
                "chance": format_score(chance[dataset]),
            }
            for dataset in order_datasets(summary["dataset"]).categories
        ],
        "differences": _differences(summary),
    }


def _chance(rows: pd.DataFrame) -> pd.Series:
    """What guessing evenly gives, by dataset and on average."""
    classes = rows.assign(dataset=dataset_labels(rows)).drop_duplicates("dataset")
    counts = classes.set_index("dataset")["n_classes"]
    chance = 1 / counts.where(counts > 0)
    chance[AVERAGE] = chance.mean()
    return chance


def _cells(line: pd.DataFrame, methods: list[str], seeds: pd.Series) -> list[dict]:
    """One dataset's cells: mean, whether it is the best, and spread and seeds where they differ."""
    highest = format_score(line["mean"].max())
    cells = []
    for key in methods:
        if key not in line.index:
            cells.append({"mean": NOTHING, "best": False, "note": ""})
            continue
        mean, std, n = line.loc[key, ["mean", "std", "seeds"]]
        notes = [format_spread(std, n), f"n={n:.0f}" if n != seeds[key] else ""]
        text = format_score(mean)
        note = " ".join(filter(None, notes))
        cells.append({"mean": text, "best": text == highest, "note": note})
    return cells


# Results by class


def _class_content(tables: list[ResultTable], run) -> tuple[list[dict], str]:
    """For each table and dataset: recall of each class by method, and the best one's confusions.

    And a sentence on what is left out of the page, which is then in `tables/classes.csv`; or "".
    """
    parts, lines, count = [], [], 0
    for table in tables:
        if ", TUT2017: fold 1 only" in f", {table.label}":
            continue  # the same rows, but for some
        # One dataset at a time: a matrix of 1,000 classes has 8 MB.
        for _, rows in table.rows.groupby(dataset_labels(table.rows)):
            if not (found := count_confusions(rows, run)):
                continue
            count += 1
            lines.append(class_lines(table.label, found))
            if count <= MOST_DATASETS:
                parts.append(_dataset_content(table.label, found))
    for part in parts:
        part["open"] = len(parts) <= OPEN_DATASETS
    more = count - len(parts)
    if not more and not any(part["more"] for part in parts):
        return parts, ""
    path = run_folder(run) / "tables" / CLASSES_FILE
    atomic_write(path, to_csv(pd.concat(lines, ignore_index=True)))
    others = f"{more} more datasets and settings are left out. " if more else ""
    return parts, f"{others}All classes of all datasets are in tables/{CLASSES_FILE}."


def class_lines(label: str, confusions: list[Confusion]) -> pd.DataFrame:
    """Recall of each class by each method of one dataset: what `tables/classes.csv` has."""
    frames = [
        pd.DataFrame(
            {
                "table": label,
                "dataset": one.dataset,
                "method": one.method,
                "class_name": one.class_names,
                "decisions": one.counts.sum(1),
                "recall": one.recalls,
            }
        )
        for one in confusions
    ]
    return pd.concat(frames, ignore_index=True)


def _dataset_content(label: str, confusions: list[Confusion]) -> dict:
    best = max(confusions, key=lambda one: one.accuracy)
    names = best.class_names
    shown = range(len(names))
    if len(names) > MOST_BY_CLASS:
        hardest = np.argsort(np.nan_to_num(best.recalls, nan=2.0), kind="stable")
        shown = sorted(hardest[:MOST_BY_CLASS].tolist())
    recalls = [one.recalls for one in confusions]
    clips = best.counts.sum(1)
    lines = []
    for number in shown:
        other = best.most_confused(number)
        lines.append(
            {
                "name": names[number],
                "clips": int(clips[number]),
                "recalls": [format_score(one[number]) for one in recalls],
                "other": f"{names[other[0]]} ({format_score(other[1])})" if other else NOTHING,
            }
        )
    return {
        "title": ", ".join(filter(None, [best.dataset, label])),
        "methods": [method_label(one.method) for one in confusions],
        "best": method_label(best.method),
        "trials": best.trials,
        "lines": lines,
        "more": len(names) - len(lines),
        "matrix": _matrix(best) if len(names) <= MOST_CLASSES else [],
        "names": names if len(names) <= MOST_CLASSES else [],
    }


def _matrix(confusion: Confusion) -> list[dict]:
    """Lines of a confusion matrix; each cell with its share of the class's clips."""
    return [
        {
            "name": confusion.class_names[number],
            "cells": [
                {
                    "count": int(count),
                    "share": 0 if math.isnan(share) else round(float(share), 3),
                    "right": other == number,
                }
                for other, (count, share) in enumerate(zip(counts, shares, strict=True))
            ],
        }
        for number, (counts, shares) in enumerate(
            zip(confusion.counts, confusion.shares, strict=True)
        )
    ]


# Downloads


def _downloads(paths: list[Path], run) -> list[dict]:
    """The files of tables, and all rows, with their content as data: URIs.

    Where they are too large for the page, they have none: they lie in `tables`.
    """
    files = {path.name: path.read_bytes() for path in paths}
    files[ROWS_FILE] = to_csv(export_frame(run)).encode(errors="backslashreplace")
    found, size = [], 0
    # The tables come first. Of those that are too many, the first are in the page.
    for name, data in files.items():
        inside = size + len(data) <= LARGEST_DOWNLOAD
        size += len(data) if inside else 0
        if name == ROWS_FILE and not inside:
            atomic_write(run_folder(run) / "tables" / ROWS_FILE, data)
        found.append(
            {
                "name": name,
                "type": TYPES.get(Path(name).suffix, "text/plain"),
                "data": base64.b64encode(data).decode() if inside else "",
                "size": f"{len(data) / 1e6:.1f} MB",
            }
        )
    return found


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
    """The comparison with the paper, for each group of equal settings with published datasets.

    Rows of two encoders have none.
    """
    verdicts = []
    for label, group in split_settings(rows):
        if not set(group["dataset"]) & set(paper_datasets()) or has_two_encoders(group).any():
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
    """The executed notebooks by their stems. One that cannot be read gives a warning."""
    executed = [name for name, state in status.items() if state != OPEN]
    books = {}
    for page in (folder / "notebooks" / f"{name}.ipynb" for name in executed):
        try:
            books[page.stem] = nbformat.read(page, as_version=4)
        except FileNotFoundError:
            pass
        except Exception as error:  # what a damaged file raises in the reader is not a closed list
            reason = one_line(error)[:200]
            warnings.warn(f"notebook {page} cannot be read ({reason}): run it again", stacklevel=2)
    return books


def _figures(folder: Path, books: dict) -> list[dict]:
    """Figures, those of a notebook together and in its order; those of no notebook come last."""
    paths = {path.stem: path for path in (folder / "figures").glob("*.png")}
    groups = {}
    for book in books.values():
        found = [paths.pop(stem) for stem in _figure_names(book, paths) if stem in paths]
        groups.setdefault(_title(book), []).extend(filter(None, map(_figure, found)))
    groups["Others"] = [*filter(None, (_figure(path) for _, path in sorted(paths.items())))]
    return [{"title": title, "figures": found} for title, found in groups.items() if found]


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


def _figure(path: Path) -> dict | None:
    """A figure with its caption. A file that is no PNG gives a warning, and None."""
    try:
        with Image.open(path) as image:
            image.load()
            pixels, caption = image.width, image.info.get(CAPTION, "")
    except (OSError, ValueError, SyntaxError) as error:
        warnings.warn(f"figure {path} cannot be read ({error}): make it again", stacklevel=2)
        return None
    pdf = path.with_suffix(".pdf")
    name = path.stem
    return {
        "name": name,
        "caption": caption or find_caption(name) or f"A figure of this run, saved as {name}.",
        "width": int(pixels * CSS_DPI / PNG_DPI),  # at its true size
        "data": base64.b64encode(path.read_bytes()).decode(),
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


def _settings(rows: pd.DataFrame) -> dict[str, str]:
    """What was run, from the rows: every value of every setting that affects one of them."""
    if rows.empty:
        return {}
    folds = rows["fold"].dropna().astype(int)
    found = {
        "datasets": _listed(rows["dataset"]),
        "methods": ", ".join(method_label(one) for one in order_methods(rows["method"]).categories),
        "folds": _listed(folds) or "a single split",
        "seeds": _listed(rows["seed"]),
    }
    labels = label_settings(rows)
    for name in labels.columns.drop(list(NOT_SHOWN)):
        values = labels[name][~labels[name].isin([ANY, "", "{}"])]
        if name == "options":
            values = values.map(lambda text: text.strip("{}").replace("'", ""))
        plain = labels[name].isin(["{}"]).any() and len(values)
        found[name] = "; ".join(filter(None, ["none" if plain else "", _listed(values, "; ")]))
    return {name: text for name, text in found.items() if text}


def _listed(values, separator: str = ", ") -> str:
    """Different values in order, numbers by size."""
    texts = {str(value) for value in values}
    try:
        return separator.join(_first(sorted(texts, key=float), MOST_VALUES))
    except ValueError:
        return separator.join(_first(sorted(texts), MOST_VALUES))


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
    seconds = [_sum(row) for row in rows.get("seconds", []) if isinstance(row, dict)]
    found = {
        "palmkit": _distinct(rows.get("palmkit", [])),
        "commit": _distinct(rows.get("commit", [])),
        "command": _distinct(rows.get("command", [])),
        "versions": _distinct(versions),
        "ran on": _distinct(rows.get("device", []), ", "),
        "model": _distinct(rows.get("model", [])),
        **_about_models(rows),
        "learning rate": _tell_rates(rows),
        "weights (sha256)": _distinct(_short(rows.get("weights", [])), ", "),
        "first of two models (sha256)": _distinct(_short(rows.get("first", [])), ", "),
        "second of two models (sha256)": _distinct(_short(rows.get("second", [])), ", "),
        "checkpoint (sha256)": _distinct(_short(rows.get("checkpoint_sha256", [])), ", "),
        "datasets (sha256)": _distinct(_dataset_digests(rows), ", "),
        "test clips": f"{int(clips):,}",
        "time": f"{duration(sum(seconds))} in trials; clips are embedded before",
    }
    return {name: text for name, text in found.items() if text}


def _about_models(rows: pd.DataFrame) -> dict[str, str]:
    """What the models say of themselves: licence, revision, training data."""
    about = [row for row in rows.get("about", []) if isinstance(row, dict)]
    names = dict.fromkeys(name for row in about for name in row)
    return {f"{name} of the model": _distinct(row.get(name) for row in about) for name in names}


def _tell_rates(rows: pd.DataFrame) -> str:
    """Where rates come from, if some are PENGI's on a model that states none."""
    if "rate_source" not in rows or not (rows["rate_source"] == "published").any():
        return ""
    rates = _distinct(rows.loc[rows["rate_source"] == "published", "lr"], ", ")
    return f"{rates} is the one published for PENGI; the model states none"


def _sum(seconds: dict) -> float:
    return sum(value for value in seconds.values() if isinstance(value, int | float))


def _distinct(values, separator: str = "; ") -> str:
    texts = sorted({str(value) for value in values if value and pd.notna(value)})
    return separator.join(_first(texts, MOST_VALUES))


def _short(hashes) -> list[str]:
    return [str(value)[:SHORT] for value in hashes if value and pd.notna(value)]


def _dataset_digests(rows: pd.DataFrame) -> list[str]:
    if "dataset_digest" not in rows:
        return []
    known = rows.dropna(subset="dataset_digest").drop_duplicates(["dataset", "dataset_digest"])
    return [f"{row.dataset} {row.dataset_digest[:SHORT]}" for row in known.itertuples()]
