"""Names in other languages: the table, tokens and their limit, and the trials."""

import pandas as pd
import pytest
from notebook_cells import make_tiny_dataset

from palmkit.experiments import languages
from palmkit.methods.coop import CONTEXT_LENGTH

GRID = dict(folds=[1], seeds=[0, 1], epochs=1)
LONG = "καθάρισμα του λαιμού"  # 36 tokens

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def dataset(tmp_path):
    return str(make_tiny_dataset(tmp_path / "tiny"))  # of the classes dog and rain


def test_names_by_language_keep_the_order_of_the_classes():
    table = languages.read_class_names()
    named = languages.name_classes(["rain", "Dog"], table)
    assert [*named] == [*table] and len(named) == 11
    assert named["German"] == {"rain": "Regen", "Dog": "Hund"} and [*named["German"]][0] == "rain"
    spanish = languages.name_classes(["uno", "dos"], table)
    assert spanish["English"] == {"uno": "one", "dos": "two"}


def test_a_class_without_a_line_leaves_english_as_it_is():
    named = languages.name_classes(["dog", "Theremin"], languages.read_class_names())
    assert named == {"English": {"dog": "dog", "Theremin": "Theremin"}}


def test_tokens_are_counted_without_begin_and_end():
    assert len(languages.token_ids("dog")) == 1
    assert languages.token_ids("Dog") == languages.token_ids("dog")
    assert len(languages.token_ids(LONG)) == 36


def test_the_limit_counts_the_text_around_the_name(tiny_pengi):
    def longest(method):
        """How many tokens a name may have."""
        name = "x"
        while languages.names_fit(tiny_pengi, method, ["dog", f"{name} x"]):
            name += " x"
        return len(name.split())

    # 40 with begin and end; "The is a recording of  {}." has six tokens of its own.
    assert longest("palm") == 38
    assert longest("zeroshot") == 38 - 6
    assert longest("coop") == longest("cocoop") == 38 - CONTEXT_LENGTH - 1


def test_a_model_without_tokens_is_asked_for_its_embeddings():
    class Short:
        prompt = "{}"

        def encode_text(self, prompts):
            if max(map(len, prompts)) > 3:
                raise ValueError("too long")

    assert languages.names_fit(Short(), "palm", ["dog"])
    assert not languages.names_fit(Short(), "palm", ["dog", "rain"])


@pytest.mark.slow
def test_rows_have_their_language_and_the_names_that_were_read(dataset, tmp_path, tiny_pengi):
    named = {"English": {"dog": "Dog", "rain": "rain"}, "German": {"dog": "Hund", "rain": "Regen"}}
    named["Greek"] = {"dog": LONG, "rain": "βροχή"}
    asked = (dataset, named, ["zeroshot", "palm"], tiny_pengi, tmp_path / "run")
    rows = languages.run_languages(*asked, shots=[1, 2], **GRID)
    counts = rows.groupby(["language", "method", "shots"], sort=False).size()
    # Zero-shot has no shots and one seed; in Greek its prompt does not fit.
    expected = {(language, "zeroshot", 0): 1 for language in ("English", "German")}
    expected |= {(x, "palm", n): 2 for x in named for n in (1, 2)}
    assert counts.to_dict() == expected
    read = rows.drop_duplicates("language").set_index("language")["class_names"]
    assert read.tolist() == [["dog", "rain"], ["Hund", "Regen"], [LONG, "βροχή"]]
    english = rows[rows["language"] == "English"]
    assert all(options == {} for options in english["options"])  # case is no other name


def test_names_that_never_fit_are_an_error(dataset, tmp_path, tiny_pengi):
    named = {"Greek": {"dog": LONG, "rain": "βροχή"}}
    with pytest.raises(ValueError, match="the names fit into no prompt of zeroshot"):
        languages.run_languages(dataset, named, ["zeroshot"], tiny_pengi, tmp_path / "run", **GRID)


def test_only_the_text_changes(dataset, tmp_path, tiny_pengi):
    """The same draw and the same initial lambdas in every language."""
    named = languages.name_classes(["dog", "rain"], languages.read_class_names())
    some = {language: named[language] for language in ("English", "Russian")}
    asked = (dataset, some, ["palm"], tiny_pengi, tmp_path / "run")
    rows = languages.run_languages(*asked, shots=[1], **GRID)
    both = [part.reset_index(drop=True) for _, part in rows.groupby("language")]
    for column in ("clips", "lambdas_initial", "seed", "fold"):
        pd.testing.assert_series_equal(both[0][column], both[1][column])
    assert (both[0]["losses"].map(str) != both[1]["losses"].map(str)).all()
