"""Trials whose classes have names in other languages. Notebook 13 runs them.

The option `names` of a trial changes the input of the text encoder and nothing else: the clips, the
draws and the initial values stay the same.
"""

from __future__ import annotations

import pandas as pd

from palmkit.experiments.run import run_trials
from palmkit.experiments.trials import Trial, make_grid
from palmkit.methods.coop import CONTEXT_LENGTH
from palmkit.models.encoders import tokenize
from palmkit.storage import notebooks_folder

ENGLISH = "English"
MANY_TOKENS = 400  # more than a name has; the model's own limit is 40


def read_class_names() -> pd.DataFrame:
    """The kit's table: a line for each class, by its name in lower case, a column a language."""
    path = notebooks_folder() / "data" / "class_names.csv"
    table = pd.read_csv(path, comment="#", index_col="class_name", keep_default_na=False)
    return table.set_axis(table.index.str.lower())


def name_classes(class_names, table: pd.DataFrame) -> dict[str, dict[str, str]]:
    """{language: {class name: its name there}} by a table of `read_class_names`.

    If the table lacks one of the classes: English alone, with the names as they are.
    """
    keys = [name.lower() for name in class_names]
    if not set(keys) <= set(table.index):
        return {ENGLISH: {name: name for name in class_names}}
    named = {}
    for language, names in table.loc[keys].items():
        named[language] = dict(zip(class_names, names, strict=True))
    return named


def token_ids(text: str) -> list[int]:
    """The ids of a text in CLIP's vocabulary, without begin and end."""
    ids, mask = tokenize([text], MANY_TOKENS)
    return ids[0, 1 : int(mask.sum()) - 1].tolist()


def prompt_of(model, method: str) -> str:
    """What a method gives the text encoder, with {} for the class name.

    Each context vector of COOP and COCOOP takes the place of one token, X.
    """
    if method in ("coop", "cocoop"):
        return "X " * CONTEXT_LENGTH + "{}."
    return model.prompt if method == "zeroshot" else "{}"


def names_fit(model, method: str, names) -> bool:
    """Whether the text encoder takes the prompts of a method with all these names.

    A model refuses a prompt with too many tokens by ValueError; the published code does so too.
    """
    check = getattr(model, "tokenize", model.encode_text)
    try:
        check([prompt_of(model, method).format(name) for name in names])
    except ValueError:
        return False
    return True


def run_languages(
    dataset, named: dict[str, dict[str, str]], methods, model, run, shots=(16,), **settings
) -> pd.DataFrame:
    """Rows of trials with a dataset's classes named in each language, with a column `language`.

    named: of `name_classes`, or a part of it. A method is left out of a language whose names do not
    fit (`names_fit`). settings: arguments of `make_grid`. Raises ValueError if no name fits at all.
    """
    trials, languages = [], []
    for language, names in named.items():
        fitting = [method for method in methods if names_fit(model, method, names.values())]
        if not fitting:
            continue
        for trial in language_trials(dataset, names, fitting, shots, **settings):
            if trial not in trials:
                trials.append(trial)
                languages.append(language)
    if not trials:
        raise ValueError(f"the names fit into no prompt of {', '.join(methods)}")
    rows = run_trials(trials, model, run)
    return pd.DataFrame(rows).assign(language=languages)


def language_trials(dataset, names: dict[str, str], methods, shots, **settings) -> list[Trial]:
    """The trials of a dataset with these names. Zero-shot has no shots: it repeats for each number.

    names: {class name: its name in a language}. CLIP's tokenizer ignores case, so a name that
    differs in case alone is not changed.
    """
    changed = {name: text for name, text in names.items() if text.lower() != name.lower()}
    options = {"names": changed} if changed else {}
    trials = []
    for number in shots:
        chosen = {**settings, "shots": number, "options": options}
        trials += make_grid(methods, [dataset], **chosen)
    return trials
