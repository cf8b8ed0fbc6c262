"""The leaderboard against sums done by hand, and what it refuses or leaves out."""

import numpy as np
import pandas as pd
import pytest
import result_rows
from scipy import stats

from palmkit.cli import main
from palmkit.results.leaderboard import (
    compare_entrants,
    format_leaderboards,
    leaderboards,
    name_entrants,
    win_rate,
)
from palmkit.results.statistics import seed_interval

DATASETS, SEEDS = ("Rain", "Wind", "Snow"), (0, 1, 2)
GAINS = {"palm": 0.0, "coop": -0.05, "cocoop": -0.10}


def rows(methods=GAINS, datasets=DATASETS, seeds=SEEDS, **more) -> pd.DataFrame:
    """Accuracies .5, .6, .7 by dataset, .00, .01, .02 more by seed, plus the gain of a method."""
    found = []
    for d, dataset in enumerate(datasets):
        for method, gain in methods.items():
            for seed in seeds:
                accuracy = 0.5 + 0.1 * d + 0.01 * seed + gain
                found.append(result_rows.make_row(dataset, method, 1, seed, accuracy, **more))
    return pd.DataFrame(found)


def zero_shot(datasets=DATASETS, accuracy=0.3) -> pd.DataFrame:
    return rows({"zeroshot": accuracy - 0.5}, datasets, seeds=(0,), shots=0, epochs=0)


class TestTable:
    def test_by_hand(self):
        (board,) = leaderboards(rows(), "palm")
        table = board.table
        assert [*table.index] == ["PALM", "COOP", "COCOOP"] and board.reference == "PALM"
        assert table["mean"].to_list() == pytest.approx([0.61, 0.56, 0.51])
        assert table["rank"].to_list() == [1, 2, 3]
        assert table["wins"].to_list() == [1, 0.5, 0]
        assert table["difference"].to_list() == pytest.approx([0, -0.05, -0.1])
        assert table["ahead"].to_list() == [0, 0, 0]
        assert set(table["datasets"]) == {3} and set(table["seeds"]) == {3}
        low, high = seed_interval([0.60, 0.61, 0.62])[1:]
        assert table.loc["PALM", ["low", "high"]].to_list() == pytest.approx([low, high])

    def test_p_is_wilcoxons_over_datasets_with_holm(self):
        noise = np.random.default_rng(3)
        index = pd.MultiIndex.from_product([list("ABCDEFG"), SEEDS], names=["dataset", "seed"])
        scores = pd.DataFrame(noise.random((21, 3)), index, columns=["x", "y", "z"])
        table = compare_entrants(scores, "x")
        means = scores.groupby("dataset").mean()
        p = [stats.wilcoxon(means[name] - means["x"]).pvalue for name in ("y", "z")]
        assert table.loc[["y", "z"], "p"].to_list() == pytest.approx(p)
        expected = [min(1, 2 * min(p)), max(min(1, 2 * min(p)), max(p))]
        assert sorted(table.loc[["y", "z"], "p_holm"]) == pytest.approx(expected)
        assert np.isnan(table.loc["x", ["p", "p_holm"]].astype(float)).all()

    def test_a_tie_is_half_a_win(self):
        index = pd.MultiIndex.from_product([["A"], [0, 1]], names=["dataset", "seed"])
        scores = pd.DataFrame({"x": [0.5, 0.5], "y": [0.5, 0.4]}, index)
        assert (win_rate(scores, "x"), win_rate(scores, "y")) == (0.75, 0.25)
        assert np.isnan(win_rate(scores[["x"]], "x"))

    def test_folds_are_averaged_first(self):
        """A dataset with two folds counts as much as one with a single fold."""
        more = rows({"palm": 0.2, "coop": 0.1}, ("Rain",)).assign(fold=2)
        both = pd.concat([rows({"palm": 0, "coop": 0}, ("Rain", "Wind")), more])
        (board,) = leaderboards(both.assign(key=range(len(both))), "palm")
        assert board.table["mean"].to_dict() == pytest.approx({"PALM": 0.61, "COOP": 0.585})

    def test_a_method_that_learns_nothing_counts_for_every_seed(self):
        (board,) = leaderboards(pd.concat([rows(), zero_shot()]))
        assert board.table.loc["Zero-shot", "mean"] == pytest.approx(0.4)
        assert set(board.table["seeds"]) == {3}


class TestEntrantsAndBoards:
    def test_other_options_make_another_entrant(self):
        both = pd.concat([rows({"palm": 0}), rows({"palm": 0.1}, options={"init": "audio"})])
        (board,) = leaderboards(both)
        assert [*board.table.index] == ["PALM (init=audio)", "PALM"]

    def test_a_method_without_variants_keeps_its_label(self):
        names = name_entrants(pd.concat([rows(), zero_shot()], ignore_index=True))
        assert set(names) == {"PALM", "COOP", "COCOOP", "Zero-shot"}

    def test_another_rate_makes_another_entrant(self):
        both = pd.concat([rows({"palm": 0}), rows({"palm": 0.1}, lr=0.5)])
        (board,) = leaderboards(both)
        assert [*board.table.index] == ["PALM (lr=0.5)", "PALM (lr=0.05)"]

    def test_shots_make_another_board_and_zero_shot_is_on_each(self):
        several = pd.concat([rows(shots=n) for n in (4, 16)] + [zero_shot()])
        boards = leaderboards(several)
        assert {board.label for board in boards} == {"shots=4", "shots=16"}
        assert all("Zero-shot" in board.table.index for board in boards)

    @pytest.mark.slow
    def test_transductive_methods_have_a_board_of_their_own(self):
        """Zero-shot is not on it, and `reference` is that of the boards of its own kind."""
        together = rows({"transclip": 0.2, "text-mixture": 0.1})
        both = pd.concat([together, rows(), zero_shot()])
        for reference in ("coop", "text-mixture", None):
            apart, seen = leaderboards(both, reference)
            assert [*apart.table["method"]] == ["palm", "coop", "cocoop", "zeroshot"]
            assert [*seen.table["method"]] == ["transclip", "text-mixture"]
            assert (apart.label, seen.label) == ("transductive=no", "transductive=yes")
            assert "see the whole test batch" in seen.caption
            assert "whole test batch" not in apart.caption
        chosen = [board.reference for board in leaderboards(both, "coop")]
        assert chosen == ["COOP", "TransCLIP"]
        chosen = [board.reference for board in leaderboards(both, "text-mixture")]
        assert chosen == ["PALM", "Text mixture"]

    def test_transductive_methods_alone_are_called_so(self):
        (board,) = leaderboards(rows({"transclip": 0.2, "text-mixture": 0.1}))
        assert board.label == "transductive=yes" and board.reference == "TransCLIP"

    def test_an_option_of_the_task_makes_another_board(self):
        both = pd.concat([rows(), rows(options={"pca_dim": 8})])
        assert len(leaderboards(both)) == 2

    def test_the_reference_may_be_chosen(self):
        (board,) = leaderboards(rows(), "coop")
        assert board.table.loc["PALM", "difference"] == pytest.approx(0.05)
        assert board.table.loc["PALM", "ahead"] == 3
        with pytest.raises(ValueError, match="no zeroshot"):
            leaderboards(rows(), "zeroshot")


class TestWhatIsLeftOut:
    def test_a_dataset_that_an_entrant_lacks(self):
        part = rows()
        part = part[~((part["method"] == "coop") & (part["dataset"] == "Snow"))]
        with pytest.warns(UserWarning, match="COOP has no complete trials on Snow, seed 0"):
            (board,) = leaderboards(part)
        assert set(board.table["datasets"]) == {2}

    def test_a_seed_without_all_folds(self):
        both = pd.concat([rows(), rows().assign(fold=2)]).assign(key=range(54))
        part = both[~((both["method"] == "palm") & (both["seed"] == 2) & (both["fold"] == 2))]
        with pytest.warns(UserWarning, match="PALM has no complete trials on Rain, seed 2"):
            (board,) = leaderboards(part)
        assert set(board.table["seeds"]) == {2}

    def test_a_seed_that_a_dataset_lacks_is_named(self):
        more = pd.concat([rows(datasets=("Rain",)), rows(datasets=("Wind",), seeds=(0,))])
        with pytest.warns(UserWarning, match="2 of 4 .* no complete trials on Wind, seed 1"):
            (board,) = leaderboards(more)
        assert set(board.table["seeds"]) == {1} and set(board.table["datasets"]) == {2}
        apart = pd.concat([rows(datasets=("Rain",), seeds=(1,)), more[more["dataset"] == "Wind"]])
        with pytest.raises(ValueError, match="no complete trials on Rain, seed 0"):
            leaderboards(apart)

    def test_nothing_in_common_is_an_error(self):
        apart = pd.concat([rows({"palm": 0}, ("Rain",)), rows({"coop": 0}, ("Wind",))])
        with pytest.raises(ValueError, match="no dataset and seed has every entrant"):
            leaderboards(apart)

    def test_versions_of_a_dataset_are_refused(self):
        both = pd.concat([rows(), rows({"palm": 0.1}, dataset_digest="1" * 64)])
        with pytest.raises(ValueError, match="several versions of Rain"):
            leaderboards(both)


class TestOutput:
    def test_every_format_has_every_entrant(self):
        boards = leaderboards(pd.concat([rows(), zero_shot()]))
        for format in ("markdown", "latex", "csv", "html"):
            text = format_leaderboards(boards, format)
            assert all(name in text for name in ("PALM", "COOP", "COCOOP", "Zero-shot")), format

    def test_names_are_escaped(self):
        (board,) = leaderboards(rows({"palm": 0}, options={"init": "<b>"}))
        text = format_leaderboards([board], "html", note="<i>")
        assert "<i>" not in text and "&lt;i&gt;" in text

    def test_the_command(self, tmp_path, capsys):
        for row in pd.concat([rows(), zero_shot()]).to_dict("records"):
            result_rows.write_row(tmp_path / "run", row)
        assert main(["leaderboard", str(tmp_path / "run"), "--reference", "coop"]) == 0
        text = capsys.readouterr().out
        assert "| PALM | 0.61 |" in text and "entrant minus COOP" in text
        page = tmp_path / "board.html"
        command = ["leaderboard", str(tmp_path / "run"), "--format", "html", "--to", str(page)]
        assert main(command) == 0 and "<table" in page.read_text()

    def test_the_command_names_an_unknown_reference(self, tmp_path, capsys):
        result_rows.write_row(tmp_path / "run", rows({"palm": 0}).iloc[0].to_dict())
        assert main(["leaderboard", str(tmp_path / "run"), "--reference", "x"]) == 1
        assert "no method 'x': choose of palm" in capsys.readouterr().err


def test_a_dataset_that_only_zero_shot_has_is_left_out_without_a_warning(recwarn):
    """As the one that options are tuned on: its zero-shot rows are on every board."""
    both = pd.concat([rows(datasets=DATASETS[:2]), zero_shot()], ignore_index=True)
    (board,) = leaderboards(both, "palm")
    assert set(board.table["datasets"]) == {2} and "Zero-shot" in board.table.index
    assert not [one for one in recwarn if "left out" in str(one.message)]


def test_boards_come_in_the_order_of_their_shots():
    parts = [rows(shots=shots) for shots in (16, 2, 1, 8)]
    boards = leaderboards(pd.concat(parts, ignore_index=True), "palm")
    assert [board.label for board in boards] == [f"shots={n}" for n in (1, 2, 8, 16)]


def test_the_ending_of_a_file_says_its_format(tmp_path, monkeypatch, capsys):
    for _, row in rows().iterrows():
        result_rows.write_row(tmp_path / "run", row.to_dict())
    for name, start in (("a.html", "<!doctype html>"), ("a.csv", "entrant,"), ("a.md", "| method")):
        assert main(["leaderboard", str(tmp_path / "run"), "--to", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_text().startswith(start)
    assert main(["leaderboard", str(tmp_path / "run"), "--to", str(tmp_path / "a.pdf")]) != 0
    assert "use the ending .md, .tex, .csv, .html, or give --format" in capsys.readouterr().err
