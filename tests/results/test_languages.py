"""Tables by language, on numbers that can be worked out."""

import numpy as np
import pandas as pd
import pytest
import torch

from palmkit.results import languages
from palmkit.results.statistics import seed_interval

SEEDS = (0, 1, 2)


def make_rows(method, language, accuracies, shots=16, seeds=SEEDS):
    """Two folds a seed, 0.1 above and below accuracies [seeds]."""
    lines = []
    for seed, accuracy in zip(seeds, accuracies, strict=True):
        for fold, shift in ((1, 0.1), (2, -0.1)):
            line = dict(method=method, language=language, shots=shots, seed=seed, fold=fold)
            lines.append(line | {"accuracy": accuracy + shift, "weights": "0123456789abcdef"})
    return pd.DataFrame(lines)


@pytest.fixture
def scores():
    """Zero-shot knows English alone. PALM passes it with 4 clips in English, with 16 in German."""
    parts = [make_rows("zeroshot", "English", [0.6], seeds=[0])]
    parts += [make_rows("zeroshot", "German", [0.2], seeds=[0])]
    for shots, english, german in ((1, 0.5, 0.3), (4, 0.65, 0.5), (16, 0.7, 0.62)):
        near = [english - 0.01, english, english + 0.01]
        parts += [make_rows("palm", "English", near, shots)]
        parts += [make_rows("palm", "German", [german - 0.1, german, german + 0.1], shots)]
        parts += [make_rows("palm", "Greek", [0.3, 0.31, 0.32], shots)]
    parts += [make_rows("coop", "German", [0.5, 0.4, 0.3])]
    return languages.seed_scores(pd.concat(parts))


def test_scores_are_means_over_folds(scores):
    line = scores[(scores["method"] == "coop") & (scores["seed"] == 1)].iloc[0]
    assert list(scores) == [*languages.SCORES, "accuracy", "folds"]
    assert line["accuracy"] == pytest.approx(0.4) and line["folds"] == 2
    assert line["weights"] == "0123456789"


def test_a_table_of_a_file_is_the_table(scores, tmp_path):
    """Digests of digits alone stay text, and numbers stay as they are."""
    scores.to_csv(tmp_path / "scores.csv", index=False)
    again = pd.read_csv(tmp_path / "scores.csv", dtype={"weights": str})
    pd.testing.assert_frame_equal(again, scores)
    tables = [languages.language_table(frame) for frame in (scores, again)]
    pd.testing.assert_frame_equal(*tables)


def test_the_table_by_language(scores):
    table = languages.language_table(scores)
    palm = ["PALM, 1", "PALM, 4", "PALM, 16"]
    assert list(table) == ["Zero-shot", *palm, "clips", "PALM verdict", "COOP, 16", "COOP verdict"]
    assert list(table.index) == ["English", "German", "Greek"]
    assert table.loc["German", palm].tolist() == pytest.approx([0.3, 0.5, 0.62])
    assert table["Zero-shot"].tolist()[:2] == pytest.approx([0.6, 0.2])
    assert np.isnan(table.loc["Greek", "Zero-shot"])
    assert table["clips"].tolist() == ["4", "16", "over 16"]
    # German ends above 0.6, but its seeds differ by more than that.
    assert table["PALM verdict"].tolist() == ["higher", "not shown", "lower"]
    assert table.loc["German", "COOP, 16"] == pytest.approx(0.4)
    assert table.loc["German", "COOP verdict"] == "not shown"
    for column in ("COOP, 16", "COOP verdict"):
        assert table[column].isna().tolist() == [True, False, True]


def test_tokens_by_language(tiny_pengi):
    named = {"English": {"a": "cough", "b": "throat clearing"}}
    named["Greek"] = {"a": "βήχας", "b": "καθάρισμα του λαιμού"}
    table = languages.token_table(tiny_pengi, named)
    assert table.loc["English"].tolist() == [1.5, "throat clearing", 2, *["fits"] * 3]
    greek = [23.0, "καθάρισμα του λαιμού", 36, "fits", "too long", "too long"]
    assert table.loc["Greek"].tolist() == greek
    assert list(table) == [
        "tokens, mean",
        "longest name",
        "its tokens",
        "PALM",
        "Zero-shot",
        "COOP",
    ]


@pytest.mark.parametrize(
    "means, level, needed",
    [
        ([0.1, 0.5, 0.6], 0.5, "4"),  # a level that is reached counts
        ([0.6, 0.4, 0.7], 0.5, "16"),  # it must not be lost again
        ([0.6, 0.7, 0.4], 0.5, "over 16"),
        ([0.5, 0.5, 0.5], 0.5, "1"),
        ([0.1, 0.2, np.nan], 0.1, "over 16"),
    ],
)
def test_clips_that_are_needed(means, level, needed):
    table = pd.Series(means, [1, 4, 16])
    assert languages.clips_needed(table, level) == needed
    assert languages.clips_needed(table[::-1], level) == needed


class TestZeroShot:
    @pytest.fixture
    def rows(self, monkeypatch):
        """Four classes; right about 30 of 40 clips, 10 and none."""
        right = {"English": 30, "German": 10, "Polish": 0}

        def load(row, run):
            logits = torch.zeros(40, 4)
            logits[: right[row["language"]], 0] = 1  # the class of all clips
            logits[right[row["language"]] :, 1] = 1
            return {"logits": logits, "labels": torch.zeros(40, dtype=torch.long)}

        monkeypatch.setattr("palmkit.results.per_class.load_tensors", load)
        same = dict(dataset="A", method="zeroshot", fold=1, seed=0, class_names=[["a"] * 4])
        return pd.concat([pd.DataFrame(same | {"language": one}) for one in right])

    def test_against_chance(self, rows):
        table = languages.zero_shot_table(rows, "run")
        assert table["mean"].tolist() == pytest.approx([0.75, 0.25, 0])
        assert table["than_chance"].tolist() == ["higher", "not shown", "not shown"]
        assert (table["clips"] == 40).all() and (table["seeds"] == 1).all()

    def test_intervals_are_of_the_test_clips(self, rows):
        table = languages.zero_shot_table(rows, "run")
        exact = 1.96 * np.sqrt(0.75 * 0.25 / 40)
        assert table.loc["English", "high"] - 0.75 == pytest.approx(exact, abs=0.03)
        assert table.loc["Polish", ["low", "high"]].isna().all()  # equal clips show no interval


class TestCost:
    def test_english_minus_the_mean_of_the_others_in_pairs(self, scores):
        cost = languages.name_cost(scores, 0.05)
        assert cost.index.tolist() == [1, 4, 16] and (cost["seeds"] == 3).all()
        # With 16 clips: 0.69, 0.7, 0.71 in English, 0.52 to 0.72 in German, 0.3 to 0.32 in Greek.
        pairs = [0.69 - 0.41, 0.70 - 0.465, 0.71 - 0.52]
        assert cost.loc[16, ["mean", "low", "high"]].tolist() == pytest.approx(seed_interval(pairs))
        assert cost.loc[16, "verdict"] == "higher"

    def test_equality_within_the_margin(self, scores):
        others = scores[scores["language"] != "English"].assign(accuracy=0.7)
        others.loc[others["seed"] == 0, "accuracy"] = 0.69
        same = pd.concat([scores[scores["language"] == "English"], others])
        cost = languages.name_cost(same[same["shots"] == 16], 0.05)
        assert cost.loc[16, "verdict"] == "equal within 0.05"

    def test_english_alone_has_none(self, scores):
        cost = languages.name_cost(scores[scores["language"] == "English"], 0.05)
        assert cost["mean"].isna().all() and (cost["verdict"] == "not shown").all()
