"""A leaderboard: the methods of a run by their mean over datasets, compared in pairs.

A method with other options, or with another learning rate, is an entrant of its own. Entrants share
a board if their shots, regime, protocol, crop, model and task are the same. Transductive methods
have boards of their own.
"""

from __future__ import annotations

import html
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from palmkit.experiments.variations import method_options, task_options
from palmkit.results.formats import (
    DIGITS,
    NOTHING,
    format_difference,
    format_interval,
    format_p,
    format_score,
    to_csv,
    to_latex,
    to_markdown,
)
from palmkit.results.loading import load_rows
from palmkit.results.method_style import (
    is_transductive,
    learns,
    method_categories,
    method_label,
)
from palmkit.results.settings import ANY, label_settings, split_settings
from palmkit.results.statistics import DIFFERENCE, SHARE, holm, mean_ranks, seed_interval
from palmkit.results.statistics import DIGITS as EXACT
from palmkit.results.versions import drop_repeats, mark_versions, versioned_datasets

# Settings that make a variant of a method. All others make another board.
VARIANT = ("options", "lr", "epochs", "batch_size", "momentum", "method_digest")
REFERENCES = ("solved-palm", "palm")  # with which others are compared, if the user names none
FORMATS = ("markdown", "latex", "csv", "html")
ENDINGS = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".html": "html"}
CAPTION = (
    "Mean: over folds, then over datasets. 95%: Student's interval over seeds. Rank: mean over "
    "datasets, 1 is best. Wins: share of the pairs of a dataset, a seed and another entrant in "
    "which the entrant is ahead; a tie is half a win. Difference: entrant minus {reference}, in "
    "pairs of a dataset and a seed. p: Wilcoxon's signed-rank test over datasets, adjusted by "
    "Holm for all entrants of the board."
)
TOGETHER = (
    "These methods are transductive: they see the whole test batch, and are not comparable with "
    "methods that do not."
)


@dataclass(frozen=True)
class Leaderboard:
    """One board.

    label: what tells its settings from those of the other boards; "" if there is only one.
    table: indexed by entrant, the best first. Columns: method, mean, low, high, rank, wins,
        difference, difference_low, difference_high, ahead, p, p_holm, datasets, seeds.
    reference: the entrant that the others are compared with.
    """

    label: str
    table: pd.DataFrame
    reference: str

    @property
    def caption(self) -> str:
        text = CAPTION.format(reference=self.reference)
        if is_transductive(self.table["method"]).any():
            text = f"{text} {TOGETHER}"
        return f"{text} Settings: {self.label}." if self.label else text

    def wide(self, digits: int = DIGITS) -> pd.DataFrame:
        """The table as text."""
        shown = {}
        for entrant, line in self.table.iterrows():
            is_reference = entrant == self.reference
            span = format_interval(line["difference_low"], line["difference_high"], digits)
            shown[entrant] = {
                "mean": format_score(line["mean"], digits),
                "95%": format_interval(line["low"], line["high"], digits),
                "rank": format_score(line["rank"], 1),
                "wins": format_score(line["wins"]),
                "difference": NOTHING
                if is_reference
                else format_difference(line["difference"], digits),
                "95% of it": NOTHING if is_reference else span,
                "ahead on": NOTHING if is_reference else f"{line['ahead']} of {line['datasets']}",
                "p": NOTHING if is_reference else format_p(line["p_holm"]),
                "seeds": str(line["seeds"]),
            }
        table = pd.DataFrame.from_dict(shown, orient="index")
        return table.rename_axis(self.label or "method")


def leaderboards(
    rows: pd.DataFrame, reference: str | None = None, metric: str = "accuracy"
) -> list[Leaderboard]:
    """The boards of a run's rows, one for each group of equal settings.

    reference: a method's name; None is the first of REFERENCES that the board has, else the best
        entrant. With several variants of it, the first one is taken. It is that of boards of its
        own kind, transductive or not; the others are as with None.
    Raises ValueError if no dataset and seed has every entrant, if no board has the reference, and
    for rows of several versions of a dataset.
    """
    rows = drop_repeats(mark_versions(rows)).reset_index(drop=True)
    if versioned := versioned_datasets(rows):
        raise ValueError(
            f"the rows are of several versions of {', '.join(versioned)}: compare methods on one"
        )
    rows = rows.assign(entrant=name_entrants(rows))
    boards, problems = [], []
    for label, group in _split_boards(rows):
        try:
            scores = entrant_scores(group, metric)
        except ValueError as error:
            problems.append(f"{label}: {error}" if label else str(error))
            continue
        methods = group.drop_duplicates("entrant").set_index("entrant")["method"]
        wanted = reference if _is_of_kind(reference, group) else None
        chosen = _choose_reference(scores, methods, wanted)
        if chosen is None:
            problems.append(f"{label}: it has no {reference}" if label else f"no {reference}")
            continue
        table = compare_entrants(scores, chosen)
        table.insert(0, "method", methods[table.index])
        boards.append(Leaderboard(label, table, chosen))
    if not boards:
        raise ValueError("there is no leaderboard: " + ("; ".join(problems) or "no rows"))
    for problem in problems:
        warnings.warn(f"left out: {problem}", stacklevel=2)
    return boards


def name_entrants(rows: pd.DataFrame) -> pd.Series:
    """[n] label of each row's method, with what varies between the rows of this method."""
    options = rows["options"].map(method_options)
    labels = label_settings(rows.assign(options=options))[list(VARIANT)]
    names = rows["method"].map(method_label)
    for _, part in labels.groupby(rows["method"]):
        varied = [name for name in VARIANT if part[name].nunique() > 1]
        for index, values in part[varied].iterrows():
            pieces = [_describe(name, value, options[index]) for name, value in values.items()]
            if text := ", ".join(filter(None, pieces)):
                names[index] += f" ({text})"
    return names


def _describe(name: str, value: str, options: dict) -> str:
    if name == "options":
        return ", ".join(f"{key}={options[key]}" for key in sorted(options))
    return "" if value == ANY else f"{name}={value[:12]}"


def _split_boards(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Rows in groups of equal settings, apart from those of VARIANT."""
    plain = rows.drop(columns=[name for name in VARIANT if name in rows])
    plain["options"] = rows["options"].map(task_options)
    boards = [(label, rows.loc[group.index]) for label, group in split_settings(plain)]
    return sorted(((_short(label), group) for label, group in boards), key=_in_order)


def _short(label: str) -> str:
    """A board's label without the options of a task that has none."""
    return ", ".join(piece for piece in label.split(", ") if piece != "options={}")


def _in_order(board: tuple[str, pd.DataFrame]) -> list:
    """Labels in the order of their numbers: 2 shots come before 16."""
    pieces = re.split(r"(\d+)", board[0])
    return [(piece.isdigit(), int(piece) if piece.isdigit() else piece) for piece in pieces]


def entrant_scores(rows: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """[dataset and seed, entrants] mean over folds, where every entrant has all folds.

    An entrant that learns nothing has one seed, which counts for every seed. Datasets and seeds
    that an entrant lacks are left out, with a warning. Datasets of such an entrant alone count as
    not run: it is on every board, and a board of regime transfer has fewer. Raises ValueError if
    none is left.
    """
    learned = learns(rows["method"])
    if learned.any():
        rows = rows[rows["dataset"].isin(rows.loc[learned, "dataset"])]
    cells = rows.groupby(["dataset", "seed", "entrant"])[metric].agg(["mean", "count"])
    folds = rows.groupby("dataset")["fold"].nunique(dropna=False)
    complete = cells["count"] == cells.index.get_level_values("dataset").map(folds)
    wide = cells["mean"].where(complete).unstack("entrant")
    unlearned = rows.loc[~learns(rows["method"]), "entrant"].unique()
    for entrant in unlearned:
        wide[entrant] = wide.groupby("dataset")[entrant].transform("first")
    whole = wide.notna().all(axis=1).unstack("seed", fill_value=False)
    datasets = whole.index[whole.any(axis=1)]
    seeds = whole.columns[whole.loc[datasets].all(axis=0)]
    if not len(datasets) or not len(seeds):
        raise ValueError(f"no dataset and seed has every entrant: {_list_missing(wide)}")
    kept = wide.loc[[(dataset, seed) for dataset in datasets for seed in seeds]]
    if len(kept) < len(wide):
        warnings.warn(
            f"{len(wide) - len(kept)} of {len(wide)} pairs of a dataset and a seed are left out: "
            f"{_list_missing(wide)}",
            stacklevel=3,
        )
    return kept


def _list_missing(wide: pd.DataFrame, most: int = 3) -> str:
    seeds = wide.index.get_level_values("seed").unique()
    every = pd.MultiIndex.from_product([wide.index.get_level_values("dataset").unique(), seeds])
    missing = [
        f"{entrant} has no complete trials on {dataset}, seed {seed}"
        for (dataset, seed), line in wide.reindex(every).iterrows()
        for entrant in line.index[line.isna()]
    ]
    more = f" and {len(missing) - most} more" if len(missing) > most else ""
    return "; ".join(missing[:most]) + more


def _is_of_kind(method: str | None, rows: pd.DataFrame) -> bool:
    """Whether a method may be on the board of these rows, which are all transductive or none is."""
    kinds = is_transductive(pd.Series([method, rows["method"].iloc[0]]))
    return bool(kinds.nunique() == 1)


def _choose_reference(scores: pd.DataFrame, methods: pd.Series, wanted: str | None):
    names = (wanted,) if wanted else REFERENCES
    for name in names:
        if found := [entrant for entrant in scores if methods[entrant] == name]:
            return found[0]
    return None if wanted else scores.mean().idxmax()


def compare_entrants(scores: pd.DataFrame, reference: str) -> pd.DataFrame:
    """The table of a `Leaderboard` from scores [dataset and seed, entrants], the best mean first.

    Every dataset has the same seeds.
    """
    of_seeds = scores.groupby("seed").mean()
    of_datasets = scores.groupby("dataset").mean()
    ranks = mean_ranks(of_datasets)
    lines = {}
    for entrant in scores:
        mean, low, high = seed_interval(of_seeds[entrant], bounds=SHARE)
        change = of_seeds[entrant] - of_seeds[reference]
        difference, below, above = seed_interval(change, bounds=DIFFERENCE)
        gain = (of_datasets[entrant] - of_datasets[reference]).round(EXACT)
        lines[entrant] = {
            "mean": mean,
            "low": low,
            "high": high,
            "rank": ranks[entrant],
            "wins": win_rate(scores, entrant),
            "difference": difference,
            "difference_low": below,
            "difference_high": above,
            "ahead": int((gain > 0).sum()),
            "p": stats.wilcoxon(gain[gain != 0]).pvalue if gain.any() else np.nan,
            "datasets": len(of_datasets),
            "seeds": len(of_seeds),
        }
    table = pd.DataFrame.from_dict(lines, orient="index").rename_axis("entrant")
    others = table.index != reference
    adjusted = pd.Series(np.nan, table.index)
    adjusted[others] = holm(table.loc[others, "p"])
    table.insert([*table].index("p") + 1, "p_holm", adjusted)
    return table.sort_values("mean", ascending=False, kind="stable")


def win_rate(scores: pd.DataFrame, entrant: str) -> float:
    """Share of won pairs with the other entrants [0, 1]; a tie is half a win. NaN for no other."""
    gain = scores.drop(columns=entrant).rsub(scores[entrant], axis=0).round(EXACT).to_numpy()
    return float(((np.sign(gain) + 1) / 2).mean()) if gain.size else np.nan


def format_leaderboards(boards: list[Leaderboard], format: str = "markdown", note="") -> str:
    """All boards as one text of one of FORMATS. note: a sentence for the page (html)."""
    if format == "csv":
        tables = [board.table.reset_index().assign(board=board.label) for board in boards]
        return to_csv(pd.concat(tables, ignore_index=True))
    if format == "latex":
        return "\n".join(
            to_latex(board.wide(), board.caption, f"tab:leaderboard-{n}")
            for n, board in enumerate(boards, 1)
        )
    if format == "html":
        return _as_page(boards, note)
    return "\n\n".join(f"{to_markdown(board.wide())}\n\n{board.caption}" for board in boards) + "\n"


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Leaderboard</title>
<style>
body {{ font: 15px/1.5 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse }}
th, td {{ padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd }}
th:first-child {{ text-align: left }}
.note {{ background: #fff3cd; padding: .5em 1em }}
</style>
<h1>Leaderboard</h1>
{note}
{boards}
</html>
"""


def format_of(file) -> str:
    """The format that the ending of a file's name stands for; Markdown for None.

    Raises ValueError for another ending.
    """
    if file is None:
        return "markdown"
    ending = Path(file).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"--to {file}: use the ending {', '.join(ENDINGS)}, or give --format")
    return ENDINGS[ending]


def _as_page(boards: list[Leaderboard], note: str) -> str:
    parts = [
        f"<h2>{html.escape(board.label or 'All datasets')}</h2>\n"
        f"{board.wide().rename_axis('method').to_html(border=0)}\n"
        f"<p>{html.escape(board.caption)}</p>"
        for board in boards
    ]
    shown = f'<p class="note">{html.escape(note)}</p>' if note else ""
    return PAGE.format(note=shown, boards="\n".join(parts))


def run_leaderboards(run, reference: str | None = None, metric: str = "accuracy"):
    """(boards, note) of a run. Raises FileNotFoundError if it has no rows."""
    rows = load_rows(run)
    known = set(method_categories(rows["method"]))
    if reference and reference not in known:
        raise ValueError(f"the run has no method {reference!r}: choose of {', '.join(known)}")
    notes = sorted({note for note in rows["note"] if note})
    return leaderboards(rows, reference, metric), " ".join(notes)
