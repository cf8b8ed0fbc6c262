"""The table of class names in other languages, read by notebook 13."""

import unicodedata

import pandas as pd
import pytest

from palmkit.datasets.archives import ESC10_CLASSES
from palmkit.published import paper_datasets
from palmkit.storage import notebooks_folder
from palmkit_synthetic.tasks import TASKS

NAMES = pd.read_csv(
    notebooks_folder() / "data" / "class_names.csv",
    comment="#",
    index_col="class_name",
    keep_default_na=False,
)
SCRIPTS = {
    "Greek": "GREEK",
    "Russian": "CYRILLIC",
    "Arabic": "ARABIC",
    "Hindi": "DEVANAGARI",
    "Chinese": "CJK",
}
COVERED = {
    name: [*TASKS[name].classes]
    for name in TASKS
    if name not in ("Instruments", "Scenes", "UnseenConcepts")
}
COVERED |= {
    name: paper_datasets()[name].class_names
    for name in ("VocalSound", "GT-Music-Genre", "CREMA-D", "RAVDESS")
}
COVERED["ESC10"] = ESC10_CLASSES


def test_every_cell_is_filled_and_normalised():
    assert len(NAMES.columns) == 11 and NAMES.index.is_unique and (NAMES != "").all(axis=None)
    assert all(name == unicodedata.normalize("NFC", name).strip() for name in NAMES.to_numpy().flat)


@pytest.mark.parametrize("dataset", COVERED)
def test_names_of_one_dataset_differ_in_every_language(dataset):
    names = NAMES.loc[
        [name.lower() if name.lower() in NAMES.index else name for name in COVERED[dataset]]
    ]
    for language in names:
        assert names[language].str.lower().is_unique, language


@pytest.mark.parametrize("language, script", SCRIPTS.items())
def test_names_are_written_in_the_script_of_their_language(language, script):
    letters = {letter for name in NAMES[language] for letter in name if letter.isalpha()}
    assert {
        letter for letter in letters if not unicodedata.name(letter).startswith(script)
    } == set()
