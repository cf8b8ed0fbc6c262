"""Tables of trials with class names in several languages. Notebook 13 shows them.

Rows are those of `palmkit.experiments.languages.run_languages`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from palmkit.experiments.languages import ENGLISH, names_fit, token_ids
from palmkit.results.method_style import method_label
from palmkit.results.per_class import per_clip_accuracy
from palmkit.results.statistics import (
    DIFFERENCE,
    describe_difference,
    paired_bootstrap,
    seed_interval,
)
from palmkit.results.tables import intervals

SCORES = ["method", "language", "shots", "seed", "weights"]
DIGEST = 10  # characters of the weights' digest that are kept


def zero_shot_table(rows: pd.DataFrame, run) -> pd.DataFrame:
    """Zero-shot of one dataset, with intervals over test clips, because it has no seeds.

    One line a language: mean, low, high (95 percent, by bootstrap), seeds (1), clips, and
    than_chance: "higher", "lower" or "not shown" (`describe_difference`), where chance is one over
    the number of classes.
    """
    lines = {}
    for language, part in rows.groupby("language", sort=False):
        right = per_clip_accuracy(part, run)
        found = paired_bootstrap(right, np.zeros(len(right)))
        chance = 1 / len(part["class_names"].iloc[0])
        verdict = describe_difference(found["low"] - chance, found["high"] - chance, 0)
        line = [right.mean(), found["low"], found["high"], 1, len(right), verdict]
        lines[language] = line
    columns = ["mean", "low", "high", "seeds", "clips", "than_chance"]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("language")


def seed_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy over folds: one line for each method, language, shots and seed.

    Columns: SCORES (of `weights` the first DIGEST characters), accuracy, folds.
    """
    rows = rows.assign(weights=rows["weights"].str[:DIGEST])
    scores = rows.groupby(SCORES, sort=False)["accuracy"].agg(accuracy="mean", folds="size")
    return scores.reset_index()


def clips_needed(means: pd.Series, level: float) -> str:
    """The number of clips from which on all means are at a level or above; "over 16" if none is.

    means: by shots.
    """
    means = means.sort_index()
    below = means.index[~(means >= level)]
    enough = means.index[means.index > below[-1]] if len(below) else means.index
    return str(enough[0]) if len(enough) else f"over {means.index[-1]}"


def language_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by language: zero-shot, PALM by shots, and the other methods with the most shots.

    scores: of `seed_scores`, of one dataset, with zero-shot and PALM. The level that methods are
    compared with is zero-shot in English. `clips`: `clips_needed` by PALM. Of each method,
    `verdict`: what its interval over seeds shows with the most shots, "higher" than the level,
    "lower" or "not shown". NaN: not run.
    """
    found = intervals(scores, ["method", "language", "shots"])
    zero_shot, most = found["mean"].loc["zeroshot"].droplevel("shots"), int(scores["shots"].max())
    level, means = zero_shot[ENGLISH], found["mean"].loc["palm"].unstack("shots")
    means = means.loc[found.loc["palm"].index.unique("language")]  # in their order
    table = means.rename(columns=lambda shots: f"{method_label('palm')}, {shots}")
    table.insert(0, method_label("zeroshot"), zero_shot.reindex(table.index))
    table["clips"] = [clips_needed(line, level) for _, line in means.iterrows()]
    for method in found.index.unique("method").drop("zeroshot"):
        own = found.loc[method].xs(most, level="shots")
        verdicts = [describe_difference(x.low - level, x.high - level, 0) for x in own.itertuples()]
        label = method_label(method)
        table[f"{label}, {most}"] = own["mean"].reindex(table.index)
        table[f"{label} verdict"] = pd.Series(verdicts, own.index).reindex(table.index)
    return table.rename_axis(columns=None)


def token_table(model, named: dict[str, dict[str, str]]) -> pd.DataFrame:
    """One line a language: tokens of the names (mean), the longest name and its tokens, and whether
    all names fit into the prompts of PALM, zero-shot and COOP ("fits" or "too long").

    named: of `name_classes`.
    """
    lines = {}
    for language, names in named.items():
        tokens = {text: len(token_ids(text)) for text in names.values()}
        longest = max(tokens, key=tokens.get)
        line = {"tokens, mean": float(np.mean([*tokens.values()])), "longest name": longest}
        line["its tokens"] = tokens[longest]
        for method in ("palm", "zeroshot", "coop"):
            fits = names_fit(model, method, names.values())
            line[method_label(method)] = "fits" if fits else "too long"
        lines[language] = line
    return pd.DataFrame.from_dict(lines, orient="index")


def name_cost(scores: pd.DataFrame, margin: float) -> pd.DataFrame:
    """What names that are not English cost PALM, by shots, in pairs of equal seeds.

    scores: of `seed_scores`. The cost is the accuracy with English names minus the mean over the
    other languages. Columns: mean, low, high (Student's interval over seeds, 95 percent), verdict
    (`describe_difference` with this margin), seeds. NaN if there is no other language.
    """
    palm = scores[scores["method"] == "palm"]
    wide = palm.pivot(index=["shots", "seed"], columns="language", values="accuracy")
    cost = wide[ENGLISH] - wide.drop(columns=ENGLISH).mean(axis=1)
    lines = {}
    for shots, seeds in cost.groupby("shots"):
        mean, low, high = seed_interval(seeds, bounds=DIFFERENCE)
        lines[shots] = [mean, low, high, describe_difference(low, high, margin), len(seeds)]
    columns = ["mean", "low", "high", "verdict", "seeds"]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("shots")
