"""`runs/RUN/index.html`: a run as a report to send to a colleague, in one file that needs no network.

Tables, figures and settings are in the file itself; links lead to the executed notebooks, the tables as CSV, LaTeX and
Markdown and the figures as PDF, which lie beside it.
"""

from __future__ import annotations

import base64
import datetime
import html
import re
import warnings
from pathlib import Path

import nbformat
import pandas as pd

from palmkit.published import paper_datasets
from palmkit.results.comparison import verdict_table
from palmkit.results.plots import PNG_DPI
from palmkit.results.statistics import compare_paired
from palmkit.results.tables import (
    AVERAGE,
    METHOD_NAMES,
    load_rows,
    split_tables,
    summarise,
    write_tables,
)
from palmkit.storage import atomic_write, run_folder

DONE, FAILED, OPEN = "done", "failed", "not run"
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#222;max-width:62em;margin:2.5em auto;padding:0 1.2em}
h1{font-size:1.7em;margin-bottom:.1em}h2{font-size:1.25em;margin:2em 0 .5em;border-bottom:2px solid #029e73}
h3{font-size:1em;margin:1.6em 0 .3em}.sub{color:#666;margin-top:0}.wide{overflow-x:auto}a{color:#0173b2}
.note{background:#fff4e5;border-left:4px solid #de8f05;padding:.5em 1em}.small{color:#666;font-size:.88em}
table{border-collapse:collapse;margin:.6em 0}th,td{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child,.text td,.text th{text-align:left}thead th{border-bottom:2px solid #888}
tr.total td{border-top:2px solid #888}tr.total td:first-child{font-weight:600}
b{color:#00684b}td span{color:#777;font-size:.85em}
figure{display:inline-block;vertical-align:top;margin:1em 1.5em 1em 0;max-width:100%}
img{max-width:100%}figcaption{color:#555;font-size:.9em}
.failed{color:#b00020;font-weight:600}nav a{margin-right:1em}
@media print{body{max-width:none;margin:0}figure,table{break-inside:avoid}nav{display:none}}
"""


def write_report(run, status: dict[str, str] | None = None, parameters: dict | None = None) -> Path:
    """Write the report of what is in `runs/RUN`; its path.

    status: of each notebook (its stem), "done", "failed" or "not run"; default: of those that the run has. parameters:
    what the run was started with. What is not there (rows, figures, notebooks) is left out.
    """
    folder = run_folder(run)
    if status is None:
        found = sorted(path.stem for path in (folder / "notebooks").glob("*.ipynb"))
        status = {
            stem: DONE if (folder / "notebooks" / f".{stem}.json").is_file() else FAILED
            for stem in found
        }
    pages = [
        folder / "notebooks" / f"{name}.ipynb" for name, state in status.items() if state != OPEN
    ]
    books = {page.stem: nbformat.read(page, as_version=4) for page in pages if page.is_file()}
    try:
        rows = load_rows(run)
        body = _results(rows, run)
    except (FileNotFoundError, ValueError) as error:
        rows, body = pd.DataFrame(), [f"<p class=note>No table: {_text(error)}</p>"]
    figures = _figures(folder, books)
    parts = [f"<h1>{_text(folder.name)}</h1>", f"<p class=sub>{_subtitle(rows)}</p>"]
    if len(rows) and (notes := sorted(set(rows["note"]) - {""})):
        parts.append(f"<p class=note>{_text('; '.join(notes))}</p>")
    titles = [
        *["Results"] * bool(len(rows)),
        *["Figures"] * bool(figures),
        *["Notebooks"] * bool(status),
        "Settings",
    ]
    parts.append(f"<nav>{''.join(f'<a href=#{title}>{title}</a>' for title in titles)}</nav>")
    parts += [*body, *figures, *_notebooks(status, books), *_settings(rows, parameters or {})]
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(folder.name)}</title><style>{STYLE}</style>"
    atomic_write(folder / "index.html", "\n".join([head, *parts, "</html>"]))
    return folder / "index.html"


def _text(value) -> str:
    return html.escape(str(value))


def _subtitle(rows: pd.DataFrame) -> str:
    today = f"{datetime.date.today():%d %B %Y}"
    if rows.empty:
        return f"palmkit, {today}"
    counts = {
        "dataset": rows["dataset"].nunique(),
        "method": rows["method"].nunique(),
        "seed": rows["seed"].nunique(),
    }
    told = ", ".join(f"{n} {name}{'s' * (n > 1)}" for name, n in counts.items())
    return f"Few-shot prompt learning with palmkit: {told}, {len(rows)} units. {today}."


def _results(rows: pd.DataFrame, run) -> list[str]:
    parts = ["<h2 id=Results>Results</h2>"]
    for label, group in split_tables(rows):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of incomplete seeds the table's n tells
            table = summarise(group)
        parts += [
            f"<h3>{_text(label)}</h3>" * bool(label),
            _accuracy(table, group),
            *_differences(table),
        ]
    files = ", ".join(
        f"<a href='tables/{path.name}'>{_text(path.name)}</a>" for path in write_tables(run)
    )
    parts.append(
        "<p class=small>Accuracy: mean over folds for each seed, then mean ± standard deviation over n seeds; methods "
        f"that learn nothing have no seeds. Bold: the best mean. As {files}.</p>"
    )
    if set(rows["dataset"]) & set(paper_datasets()):
        parts += [
            "<h3>Beside the published numbers</h3>",
            "<div class='wide'>",
            _html(verdict_table(rows)),
            "</div>",
        ]
    return parts


def _accuracy(table: pd.DataFrame, rows: pd.DataFrame) -> str:
    """The paper's table: datasets down, methods across, the best in bold, and what guessing gives."""
    datasets = dict.fromkeys(table["dataset"])  # `summarise` has them in order
    methods = [key for key in METHOD_NAMES if key in set(table["method"])]
    methods += [key for key in dict.fromkeys(table["method"]) if key not in methods]
    lines = table.set_index(["dataset", "method"])
    seeds = table.groupby("method")["seeds"].max()
    heads = "".join(
        f"<th>{_text(METHOD_NAMES.get(key, key))} <span>n={seeds[key]}</span>" for key in methods
    )
    chance = 1 / rows.drop_duplicates("dataset").set_index("dataset")["class_names"].map(len)
    chance[AVERAGE] = chance.mean()
    out = ["<div class=wide><table><thead><tr><th>", heads, "<th>chance</thead>"]
    for dataset in datasets:
        own = lines.loc[dataset]
        best = own["mean"].max()
        cells = []
        for key in methods:
            if key not in own.index:
                cells.append("<td>–")
                continue
            mean, std, n = own.loc[key, ["mean", "std", "seeds"]]
            spread = f" <span>± {std:.3f}</span>" if n > 1 else ""
            few = f" <span>n={n:.0f}</span>" if n != seeds[key] else ""
            told = f"<b>{mean:.3f}</b>" if mean == best else f"{mean:.3f}"
            cells.append(f"<td>{told}{spread}{few}")
        total = " class=total" * (dataset == AVERAGE)
        out.append(
            f"<tr{total}><td>{_text(dataset)}{''.join(cells)}<td><span>{chance[dataset]:.3f}</span>"
        )
    return "".join([*out, "</table></div>"])


def _differences(table: pd.DataFrame) -> list[str]:
    """PALM against each other method over datasets, in a sentence each; nothing with one dataset."""
    scores = (
        table[table["dataset"] != AVERAGE]
        .pivot(index="dataset", columns="method", values="mean")
        .dropna(axis=1)
    )
    if len(scores) < 2 or "palm" not in scores or len(scores.columns) < 2:
        return []
    try:
        found = compare_paired(scores)
    except ValueError:  # a tie on every dataset: nothing to test
        return []
    lines = [
        f"<li>PALM over {_text(METHOD_NAMES.get(line.Index, line.Index))}: {100 * line.difference:+.1f} points, ahead "
        f"on {line.wins} of {line.n} datasets (Wilcoxon, Holm's p {line.p_holm:.3f})."
        for line in found.itertuples()
    ]
    return ["<ul>", *lines, "</ul>"]


def _figures(folder: Path, books: dict) -> list[str]:
    """Figures, those of a notebook together, in its order; what no notebook names comes last."""
    paths, parts = {path.stem: path for path in (folder / "figures").glob("*.png")}, []
    for book in [*books.values(), None]:
        stems = _stems(book, paths) if book else sorted(paths)
        if found := [paths.pop(stem) for stem in stems if stem in paths]:
            parts.append(f"<h3>{_text(_title(book)) if book else 'Others'}</h3>")
            parts += map(_figure, found)
    return ["<h2 id=Figures>Figures</h2>", *parts] if parts else []


def _stems(book, paths) -> list[str]:
    """Names of the figures that a notebook's code saves, in order; a name that it makes up (f"...") is a pattern."""
    code = "\n".join(cell.source for cell in book.cells if cell.cell_type == "code")
    patterns = []
    for name in re.findall(r"save_figure\(.*?f?\"([^\"]+)\"\)", code):
        patterns.append(".+".join(map(re.escape, re.split(r"\{[^}]*\}", name))))
    return [stem for pattern in patterns for stem in sorted(paths) if re.fullmatch(pattern, stem)]


def _figure(path: Path) -> str:
    data = path.read_bytes()
    width = int(
        int.from_bytes(data[16:20], "big") * 96 / PNG_DPI
    )  # a PNG's header tells; at its true size
    data = base64.b64encode(data).decode()
    title = _text(path.stem.replace("_", " "))
    pdf = (
        f" (<a href='figures/{path.stem}.pdf'>PDF</a>)"
        if path.with_suffix(".pdf").is_file()
        else ""
    )
    image = f"<img width={width} src='data:image/png;base64,{data}' alt='{title}'>"
    return f"<figure>{image}<figcaption>{title}{pdf}</figcaption></figure>"


def _title(book) -> str:
    return next((line.lstrip("# ") for cell in book.cells for line in cell.source.splitlines()
                 if cell.cell_type == "markdown" and line.startswith("# ")), "")  # fmt: skip


def _notebooks(status: dict[str, str], books: dict) -> list[str]:
    if not status:
        return []
    lines = []
    for name, state in status.items():
        title = _text(_title(books[name]) if name in books and _title(books[name]) else name)
        links = f"<a href='notebooks/{name}.html'>{title}</a> (<a href='notebooks/{name}.ipynb'>ipynb</a>)"
        lines.append(
            f"<li>{links if state != OPEN else title}: <span class={state.replace(' ', '-')}>{state}</span></li>"
        )
    return ["<h2 id=Notebooks>Notebooks, executed</h2><ul>", *lines, "</ul>"]


def _settings(rows: pd.DataFrame, parameters: dict) -> list[str]:
    told = {
        key: ", ".join(map(str, value)) if isinstance(value, list) else value
        for key, value in parameters.items()
    }
    told = {key: value for key, value in told.items() if value != ""}
    if len(rows):
        versions = sorted(
            {
                ", ".join(f"{k} {v}" for k, v in row.items())
                for row in rows.get("versions", [])
                if row
            }
        )
        told |= {
            "versions": "; ".join(versions),
            "ran on": ", ".join(sorted(set(rows.get("device", [])))),
        }
        told |= {
            "weights (sha256)": ", ".join(
                sorted({str(sha)[:16] for sha in rows.get("weights", [])})
            )
        }
        told |= {
            "test clips": f"{int(rows.drop_duplicates(['dataset', 'fold'])['n_test'].sum()):,}"
        }
        seconds = sum(
            sum(parts.values()) for parts in rows.get("seconds", []) if isinstance(parts, dict)
        )
        told |= {"time": f"{seconds / 3600:.2f} hours in units; clips are embedded before"}
    lines = [
        f"<tr><td>{_text(key)}<td>{_text(value)}"
        for key, value in told.items()
        if value not in ("", None)
    ]
    return ["<h2 id=Settings>Settings</h2><table class=text>", *lines, "</table>"]


def _html(table: pd.DataFrame) -> str:
    return table.to_html(border=0, index=isinstance(table.index, pd.MultiIndex), classes="text")
