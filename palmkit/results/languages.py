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
        low, high = found["low"], found["high"]
        chance = 1 / len(part["class_names"].iloc[0])
        lines[language] = {
            "mean": right.mean(),
            "low": low,
            "high": high,
            "seeds": 1,
            "clips": len(right),
            "than_chance": describe_difference(low - chance, high - chance, 0),
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("language")


def seed_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy over folds: one line for each method, language, shots and seed.

    Columns: SCORES (of `weights` the first DIGEST characters), accuracy, folds.
    """
    rows = rows.assign(weights=rows["weights"].str[:DIGEST])
    accuracies = rows.groupby(SCORES, sort=False)["accuracy"]
    return accuracies.agg(accuracy="mean", folds="size").reset_index()


def clips_needed(means: pd.Series, level: float) -> str:
    """The number of clips from which on all means are at a level or above; "over 16" if none is.

    means: by shots.
    """
    means = means.sort_index()
    below = means.index[~(means >= level)]
    if below.empty:
        return str(means.index[0])
    enough = means.index[means.index > below[-1]]
    if enough.empty:
        return f"over {means.index[-1]}"
    return str(enough[0])


def language_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by language: zero-shot, PALM by shots, and the other methods with the most shots.

    scores: of `seed_scores`, of one dataset, with zero-shot and PALM. Methods are compared with a
    level, which is zero-shot in English. `clips`: `clips_needed` by PALM. `verdict`, of each
    method: what its interval over seeds shows with the most shots, "higher" than the level, "lower"
    or "not shown". NaN: not run.
    """
    found = intervals(scores, ["method", "language", "shots"])
    zero_shot = found["mean"].loc["zeroshot"].droplevel("shots")
    level = zero_shot[ENGLISH]
    means = _palm_means(found)
    table = means.rename(columns=lambda shots: f"{method_label('palm')}, {shots}")
    table.insert(0, method_label("zeroshot"), zero_shot.reindex(table.index))
    table["clips"] = [clips_needed(line, level) for _, line in means.iterrows()]
    most = int(scores["shots"].max())
    for method in found.index.unique("method").drop("zeroshot"):
        own = found.loc[method].xs(most, level="shots")
        verdicts = _verdicts(own, level)
        label = method_label(method)
        table[f"{label}, {most}"] = own["mean"].reindex(table.index)
        table[f"{label} verdict"] = verdicts.reindex(table.index)
    return table.rename_axis(columns=None)


def _palm_means(found: pd.DataFrame) -> pd.DataFrame:
    """[languages, shots] mean accuracy of PALM, the languages in the order of `found`."""
    languages = found.loc["palm"].index.unique("language")
    return found["mean"].loc["palm"].unstack("shots").loc[languages]


def _verdicts(found: pd.DataFrame, level: float) -> pd.Series:
    """What intervals (low, high) show of their difference to a level, in words."""
    verdicts = []
    for line in found.itertuples():
        verdicts.append(describe_difference(line.low - level, line.high - level, 0))
    return pd.Series(verdicts, found.index)


def token_table(model, named: dict[str, dict[str, str]]) -> pd.DataFrame:
    """One line a language: the mean number of tokens of the names, the longest name, its tokens,
    and for PALM, zero-shot and COOP whether all names fit into the prompt ("fits" or "too long").

    named: of `name_classes`.
    """
    lines = {}
    for language, names in named.items():
        tokens = {text: len(token_ids(text)) for text in names.values()}
        longest = max(tokens, key=tokens.get)
        line = {
            "tokens, mean": float(np.mean([*tokens.values()])),
            "longest name": longest,
            "its tokens": tokens[longest],
        }
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
    others = wide.drop(columns=ENGLISH).mean(axis=1)
    cost = wide[ENGLISH] - others
    lines = {}
    for shots, seeds in cost.groupby("shots"):
        mean, low, high = seed_interval(seeds, bounds=DIFFERENCE)
        lines[shots] = [mean, low, high, describe_difference(low, high, margin), len(seeds)]
    columns = ["mean", "low", "high", "verdict", "seeds"]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("shots")
