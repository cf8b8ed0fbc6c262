"""What the notebooks' pages share: whose findings their text states, and their table of claims."""

from __future__ import annotations

from numbers import Integral, Real

import pandas as pd

from palmkit.experiments.config import CHOICES, choose, is_default
from palmkit.extras import extra
from palmkit.models.about import has_pengi_design
from palmkit.results.formats import DIGITS, NOTHING, format_difference, format_score

PAPERS_N = r"\b\d+ and (?=\d)"  # "11 and " of "11 and 7 datasets"
CHANGE_NOTHING = ("device", "note")  # parameters that change no finding


def changed_parameters(page: dict, **own) -> list[str]:
    """The names of a page's parameters that differ from the default run's; [] if none does.

    page: `globals()` of the page, right after its parameters. own: the defaults of parameters that
    other pages do not have. Datasets count by name, and ESC10 may be among them (`is_default`).
    Raises KeyError if the page has no parameter of a name in `own`.
    """
    names = [name for name in CHOICES if name in page and name not in CHANGE_NOTHING]
    defaults = choose({}).values | own
    changed = [name for name in dict.fromkeys([*names, *own]) if page[name] != defaults[name]]
    if "datasets" in changed and is_default(page["datasets"]):  # spelled in another way
        changed.remove("datasets")
    return changed


def findings_note(changed: list[str]):
    """What a page says below its parameters: nothing (None) in the default run, else a sentence.

    changed: of `changed_parameters`. The sentence is Markdown for a notebook to show.
    """
    if not changed:
        return None
    with extra("notebooks"):
        from IPython.display import Markdown
    return Markdown(
        f"**This is not the default run** (changed: {', '.join(changed)}). Tables and figures are "
        "of this run. What the text finds is of the default run, and was checked only there."
    )


def claim_table(claims: dict[str, tuple], digits: int = DIGITS, model=None) -> pd.DataFrame:
    """Claims beside what was found, as text: paper, ours, difference (ours minus paper), n.

    claims: {claim: (paper, ours, n)}. paper, ours: a score, a count, a text, or None where there is
    none. n: over what the numbers are, a count or a text; "11 and 7 datasets" are the paper's and
    ours. model: whose numbers they are. The paper's are PENGI's, so they do not stand beside those
    of a model of another design. Then claims without a number of ours are left out, too.
    """
    lines = {}
    for claim, (paper, ours, n) in claims.items():
        numbers = all(isinstance(value, Real) for value in (paper, ours))
        difference = format_difference(ours - paper, digits) if numbers else NOTHING
        cells = [_cell(paper, digits), _cell(ours, digits), difference, str(n)]
        lines[claim] = cells
    columns = ["paper", "ours", "difference", "n"]
    table = pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("claim")
    if model is None or has_pengi_design(model):
        return table
    table = table.loc[table["ours"] != NOTHING, ["ours", "n"]]
    return table.assign(n=table["n"].str.replace(PAPERS_N, "", regex=True))


def _cell(value, digits: int) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, Real) and not isinstance(value, Integral):
        return format_score(value, digits)
    return str(value)
