"""Tables show no mean of rows that do not belong together, and say what they leave out."""

import html
import io
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import result_rows

from palmkit.cli import main
from palmkit.results import formats, tables
from palmkit.results.comparison import compare_with_paper
from palmkit.results.export import export_frame
from palmkit.results.report import write_report
from palmkit.results.statistics import seed_interval

OLD, NEW = "1" * 64, "2" * 64


def frame(*rows) -> pd.DataFrame:
    return pd.DataFrame([result_rows.make_row(**row) for row in rows])


def changed(*folds_of_old, new=(1, 2)):
    """PALM on a dataset that changed between two runs."""
    old = [dict(fold=f, accuracy=0.2, dataset_digest=OLD) for f in folds_of_old]
    return frame(*old, *[dict(fold=f, accuracy=0.8, dataset_digest=NEW) for f in new])


class TestVersions:
    def test_two_versions_of_a_fold_are_not_averaged(self):
        """The fault: 0.5 (n=1) was shown, the mean of two different fold 1s."""
        with pytest.warns(UserWarning, match="several versions of Rain"):
            table = tables.summarise(changed(1, new=(1,)))
        assert dict(zip(table["dataset"], table["mean"], strict=True)) == {
            "Rain (11111111, 2026-01-02)": 0.2,
            "Rain (22222222, 2026-01-02)": 0.8,
        }

    def test_folds_of_two_versions_do_not_make_one_seed(self):
        """Fold 1 of before the change and fold 2 of after it."""
        with pytest.warns(UserWarning, match="several versions"):
            table = tables.summarise(changed(1, new=(2,)))
        assert table["mean"].tolist() == [0.2, 0.8] and table["folds"].tolist() == [1, 1]

    def test_methods_of_two_versions_stand_apart(self):
        rows = pd.concat([changed(1, new=()), frame(dict(method="coop", dataset_digest=NEW))])
        with pytest.warns(UserWarning, match="several versions"):
            table = tables.to_wide(tables.summarise(rows), 2)
        assert table.to_numpy().tolist() == [["–", "0.20 (n=1)"], ["0.50 (n=1)", "–"]]

    def test_there_is_no_average_then(self):
        rows = pd.concat([changed(1), frame(dict(dataset="Dogs"), dict(dataset="Dogs", fold=2))])
        with pytest.warns(UserWarning, match=f"no {tables.AVERAGE}"):
            table = tables.summarise(rows)
        assert len(table) == 3 and tables.AVERAGE not in set(table["dataset"])

    def test_rows_without_a_digest_are_a_version(self):
        rows = frame(dict(accuracy=0.2), dict(accuracy=0.8)).assign(dataset_digest=[np.nan, NEW])
        with pytest.warns(UserWarning, match="several versions"):
            names = list(tables.summarise(rows)["dataset"])
        assert names == ["Rain (22222222, 2026-01-02)", "Rain (no digest, 2026-01-02)"]

    def test_rows_of_other_versions_of_the_kit_are_a_version(self):
        rows = frame(dict(accuracy=0.2, trial_version=1), dict(accuracy=0.8, trial_version=2))
        with pytest.warns(UserWarning, match="several versions"):
            names = list(tables.summarise(rows)["dataset"])
        assert names == [f"Rain (abcdef01, 2026-01-02, results of version {n})" for n in (1, 2)]

    def test_one_version_has_no_label(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert list(tables.summarise(changed())["dataset"]) == ["Rain"]

    def test_a_version_is_labelled_where_the_other_has_other_settings(self):
        rows = pd.concat([changed(1, new=()), frame(dict(shots=4, dataset_digest=NEW))])
        with pytest.warns(UserWarning, match="several versions"):
            names = [table.summary["dataset"].item() for table in tables.result_tables(rows)]
        assert sorted(names) == ["Rain (11111111, 2026-01-02)", "Rain (22222222, 2026-01-02)"]

    def test_they_cannot_be_compared_with_the_paper(self):
        rows = changed(None, new=(None,)).assign(dataset="SESA", n_test=105)
        with pytest.warns(UserWarning, match="several versions"):
            table = compare_with_paper(rows)
        assert set(table["verdict"]) == {"not comparable"}
        assert set(table["reason"]) == {"there are rows of several versions of SESA"}

    def test_a_study_refuses_them(self):
        with pytest.raises(ValueError, match="several versions of Rain"):
            tables.intervals(changed(1), ["method"])

    def test_the_command_and_the_report_say_so(self, tmp_path, capsys):
        for row in changed(1).to_dict("records"):
            result_rows.write_row(tmp_path, row)
        assert main(["table", str(tmp_path)]) == 0
        out, err = capsys.readouterr()
        assert "several versions of Rain" in err
        assert "| Rain (11111111, 2026-01-02) | 0.20 (n=1) |" in out
        assert "| Rain (22222222, 2026-01-02) | 0.80 (n=1) |" in out
        page = write_report(tmp_path).read_text()
        assert "<td>Rain (22222222, 2026-01-02)" in page and "several versions of Rain" in page


class TestDuplicates:
    def test_two_rows_of_one_trial_are_left_out(self):
        rows = frame(dict(accuracy=0.2, key="first"), dict(accuracy=0.8, key="second"))
        more = frame(dict(seed=1, accuracy=0.3))
        with pytest.warns(UserWarning, match=r"seed 0: 2 rows .*keys first, second\); delete"):
            table = tables.summarise(pd.concat([rows, more]))
        assert table["mean"].tolist() == [0.3] and table["seeds"].tolist() == [1]

    def test_they_are_named_where_the_dataset_has_a_single_split(self):
        rows = frame(dict(fold=None, key="first"), dict(fold=None, key="second"))
        with pytest.raises(ValueError, match=r"palm, seed 0: 2 rows .*keys first, second"):
            tables.intervals(rows, ["method"])

    def test_they_do_not_stand_for_a_fold_that_is_missing(self):
        """Two rows of fold 1 are not folds 1 and 2."""
        rows = frame(dict(key="first"), dict(key="second"), dict(seed=1), dict(seed=1, fold=2))
        with pytest.warns(UserWarning):
            assert tables.summarise(rows)["seeds"].tolist() == [1]

    def test_the_same_row_twice_counts_once(self):
        rows = frame(dict(accuracy=0.2), dict(fold=2, accuracy=0.4))
        table = tables.summarise(pd.concat([rows, rows[:1]]))
        assert table["mean"].tolist() == [pytest.approx(0.3)]
        study = tables.intervals(pd.concat([rows, rows[:1]]), ["method"])
        assert study["mean"].tolist() == [pytest.approx(0.3)]

    def test_a_study_refuses_them(self):
        rows = frame(dict(key="first"), dict(key="second"))
        with pytest.raises(ValueError, match="2 rows of equal settings"):
            tables.intervals(rows, ["method"])
        apart = rows.assign(options=[{"names": 1}, {"names": 2}])
        assert tables.intervals(apart, ["method"])["seeds"].tolist() == [1]


class TestIncomplete:
    ROWS = (dict(fold=1), dict(fold=2, seed=1))

    def test_a_run_without_a_complete_seed_says_so(self):
        with pytest.raises(ValueError, match="no seed .* has all folds.*seed 0: 1 of 2 folds"):
            tables.summarise(frame(*self.ROWS))

    def test_the_command_fails_and_the_report_says_so(self, tmp_path, capsys):
        for row in frame(*self.ROWS).to_dict("records"):
            result_rows.write_row(tmp_path, row)
        assert main(["table", str(tmp_path)]) != 0
        assert "no seed of any method has all folds" in capsys.readouterr().err
        page = write_report(tmp_path).read_text()
        assert "No table: no seed of any method" in page and "2 trials" in page

    def test_one_table_of_two_is_shown(self):
        rows = pd.concat([frame(*self.ROWS), frame(dict(shots=4))])
        with pytest.warns(UserWarning, match="shots=16: no seed"):
            (table,) = tables.result_tables(rows)
        assert table.label == "shots=4"

    def test_long_lists_of_seeds_are_cut(self):
        seeds = [dict(seed=seed) for seed in range(30)]
        rows = frame(dict(seed=99), dict(seed=99, fold=2), *seeds)
        with pytest.warns(UserWarning) as caught:
            tables.summarise(rows)
        assert len(caught) == tables.SHOWN_WARNINGS + 1
        assert str(caught[-1].message).startswith("20 more seeds")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all tests: a method's file is imported once under its name."""
    return tmp_path_factory.mktemp("methods")


class TestMethods:
    """A method from outside: in PALMKIT_IMPORT, or in rows only."""

    CODE = (
        "from palmkit.methods import PALM\n"
        "class Mine(PALM):\n"
        "    name, label, color, learns = 'mine', 'My method', '#123456', {learns}\n"
    )

    @pytest.fixture(params=[True, False], ids=["learns", "does-not-learn"])
    def learns(self, request, folder, monkeypatch):
        file = folder / f"mine_{request.param}.py".lower()
        file.write_text(self.CODE.format(learns=request.param))
        monkeypatch.setenv("PALMKIT_IMPORT", str(file))
        return request.param

    def rows(self, **more):
        return frame(dict(method="mine", **more), dict(), dict(method="zeroshot", shots=0))

    def test_it_has_its_label_and_colour(self, learns):
        from palmkit.results.plots import COLORS, plot_accuracy

        assert COLORS["mine"] == "#123456"
        table = tables.summarise(self.rows())
        assert list(tables.to_wide(table)) == ["Zero-shot", "PALM", "My method"]
        ax = plot_accuracy(table)
        assert [text.get_text() for text in ax.get_legend().get_texts()][-1] == "My method (n=1)"
        assert ax.patches[-1].get_facecolor()[:3] == pytest.approx(
            (0x12 / 255, 0x34 / 255, 0x56 / 255)
        )

    def test_whether_it_learns_decides_its_settings(self, learns):
        labels = [label for label, _ in tables.split_settings(self.rows(shots=0))]
        assert sorted(labels) == (["shots=0", "shots=16"] if learns else [""])

    def test_it_stands_in_the_report(self, learns, tmp_path):
        for row in self.rows().to_dict("records"):
            result_rows.write_row(tmp_path / "run", row)
        assert "<th>My method <span>n=1</span>" in write_report(tmp_path / "run").read_text()

    def test_one_that_is_gone_stands_last_under_its_name(self):
        from palmkit.results.method_style import NEUTRAL, method_color

        rows = frame(dict(method="a_b"), dict(), dict(method="zeroshot"))
        assert list(tables.to_wide(tables.summarise(rows))) == ["Zero-shot", "PALM", "a_b"]
        assert method_color("a_b") == NEUTRAL

    def test_versions_of_its_source_are_settings(self):
        rows = frame(dict(method_digest="a" * 64), dict(method_digest="b" * 64, accuracy=0.9))
        labels = [label for label, _ in tables.split_settings(rows)]
        assert sorted(labels) == [f"method_digest={digit * 12}" for digit in "ab"]


class TestTransductive:
    """Methods that see the whole test batch are in no table with others."""

    ROWS = [dict(method=name) for name in ("transclip", "palm", "zeroshot", "text-mixture")]

    def test_they_have_tables_of_their_own(self):
        apart, seen = tables.result_tables(frame(*self.ROWS))
        assert set(apart.summary["method"]) == {"palm", "zeroshot"}
        assert set(seen.summary["method"]) == {"transclip", "text-mixture"}
        assert (apart.label, seen.label) == ("transductive=no", "transductive=yes")
        assert "see the whole test batch" in seen.caption and "whole" not in apart.caption
        kinds = [set(table.numbers()["transductive"]) for table in (apart, seen)]
        assert kinds == [{"no"}, {"yes"}]

    def test_they_are_apart_within_each_setting(self):
        rows = frame(*(row | dict(shots=n) for n in (4, 16) for row in self.ROWS[:2]))
        found = [(table.label, *table.summary["method"]) for table in tables.result_tables(rows)]
        assert sorted(found) == [
            ("transductive=no, shots=16", "palm"),
            ("transductive=no, shots=4", "palm"),
            ("transductive=yes, shots=16", "transclip"),
            ("transductive=yes, shots=4", "transclip"),
        ]

    def test_they_are_called_so_without_others_too(self):
        (table,) = tables.result_tables(frame(self.ROWS[0]))
        assert table.wide().index.name == "transductive=yes"
        (table,) = tables.result_tables(frame(self.ROWS[1]))
        assert table.wide().index.name == "dataset"

    def test_no_mean_is_over_both(self):
        with pytest.raises(ValueError, match="transductive=no; transductive=yes"):
            tables.summarise(frame(*self.ROWS))


class TestOrder:
    def test_datasets_by_name_and_the_average_last(self):
        """Names that sort after "~" too."""
        names = ["日本", "A", "z"]
        table = tables.summarise(frame(*[dict(dataset=name) for name in names]))
        assert list(table["dataset"]) == ["A", "z", "日本", tables.AVERAGE]
        assert list(tables.to_wide(table).index) == ["A", "z", "日本", tables.AVERAGE]


ODD = 'a|b\\c_d & <e> {f} $g ~h ^i 50% #1 "q"\n*j* `k` [l](m) &lt; \\| é日本'


class TestFormats:
    TABLE = pd.DataFrame({"PALM†": ["0.5 ± 0.1", "a|b"]}, index=["50% #1_x & $y", "two\nlines"])

    def test_markdown_keeps_its_columns(self):
        lines = formats.to_markdown(self.TABLE.rename_axis("data|set")).splitlines()
        assert lines[0] == r"| data\|set | PALM† |"
        assert lines[2:] == ["| 50% #1_x & $y | 0.5 ± 0.1 |", r"| two lines | a\|b |"]

    def test_markdown_shows_the_text_of_a_cell(self):
        import mistune

        text = formats.to_markdown(pd.DataFrame({ODD: [ODD]}, index=[ODD]).rename_axis(ODD))
        page = mistune.create_markdown(plugins=["table", "strikethrough"])(text)
        found = re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", page, re.S)
        plain = [html.unescape(cell) for cell in found]
        assert plain == [ODD.replace("\n", " ")] * 4

    def test_latex_escapes_its_signs(self):
        text = formats.to_latex(self.TABLE.rename_axis("shots=4, crop_seed=1"))
        assert r"shots=4, crop\_seed=1 & PALM$^\dagger$ \\" in text
        assert r"50\% \#1\_x \& \$y & 0.5 $\pm$ 0.1 \\" in text
        assert r"two lines & a\textbar{}b \\" in text

    def test_latex_escapes_every_special_sign(self):
        text = formats.to_latex(pd.DataFrame({ODD: [ODD]}, index=[ODD]), caption=ODD, label="tab:x")
        bare = re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]", "", text)
        inside = [line for line in bare.splitlines() if "é" in line]
        assert len(inside) == 3 and r"\label{tab:x}" in text
        for line in inside:
            body = line.removesuffix(r" \\").removeprefix(r"\caption{").removesuffix("}")
            assert not re.search(r'[\\%$#_{}~^<>|"]', body), body
            assert body.count("&") == (0 if "caption" in line else 1)

    def test_csv_quotes_what_ends_a_line(self):
        table = pd.DataFrame({"a": ["x\ry", "x\ny", 'q"', "plain"], "n": [1, 2, 3, 4]})
        read = pd.read_csv(io.StringIO(formats.to_csv(table), newline=""))
        pd.testing.assert_frame_equal(read, table)

    def test_two_methods_may_have_one_label(self):
        table = pd.DataFrame([["1", "2"]], columns=["x", "x"], index=["x"]).rename_axis("x")
        assert "x & x & x" in formats.to_latex(table)

    def test_one_rule_for_digits(self):
        assert formats.format_difference(-0.001) == "+0.00"
        assert formats.format_difference(-0.0449) == "-0.04"
        assert formats.format_difference(np.int64(-3)) == "-3"
        assert formats.format_difference(np.nan) == formats.format_p(None) == "–"
        assert [formats.format_p(p) for p in (0.0625, 0.001, 0.0009)] == [
            "0.062",
            "0.001",
            "<0.001",
        ]
        assert formats.format_interval(0.5, 1) == "0.50 to 1.00"
        assert formats.format_interval(np.nan, np.nan) == "–"

    def test_a_frame_follows_the_rule(self):
        table = pd.DataFrame(
            {"gain": [0.123, np.nan], "wins": [9, 10], "p": [0.02, 1e-9], "p_holm": [0.04, np.nan]},
            index=["coop", "palm"],
        ).assign(clips=pd.array([3, None], "Int64"), name="x")
        text = formats.format_frame(table)
        assert text.loc["coop"].tolist() == ["0.12", 9, "0.020", "0.040", 3, "x"]
        assert text.loc["palm"].tolist() == ["–", 10, "<0.001", "–", "–", "x"]

    def test_scores_have_the_same_digits_everywhere(self, tmp_path, capsys):
        for seed, accuracy in enumerate((0.51234, 0.61234)):
            result_rows.write_row(tmp_path, result_rows.make_row(seed=seed, accuracy=accuracy))
        rows = tables.load_rows(tmp_path)
        notebook = tables.to_wide(tables.summarise(rows)).loc["Rain", "PALM"]
        assert notebook == "0.56 ± 0.07 (n=2)"
        assert main(["table", str(tmp_path)]) == 0
        assert notebook in capsys.readouterr().out
        assert "<b>0.56</b> <span>± 0.07</span>" in write_report(tmp_path).read_text()


class TestNumbers:
    @pytest.fixture
    def run(self, tmp_path):
        for shots in (4, 16):
            for seed, accuracy in enumerate((0.25, 0.75)):
                row = result_rows.make_row("a,b", "palm", None, seed, accuracy, shots=shots)
                result_rows.write_row(tmp_path / "run", row)
        row = result_rows.make_row("a,b", "zeroshot", None, 0, 0.3, shots=0, epochs=0)
        result_rows.write_row(tmp_path / "run", row)
        return tmp_path / "run"

    def test_csv_has_numbers_in_columns(self, run, capsys):
        assert main(["table", str(run), "--format", "csv"]) == 0
        found = pd.read_csv(io.StringIO(capsys.readouterr().out), keep_default_na=False)
        palm = found[found["method"] == "palm"]
        assert sorted(palm["shots"]) == ["16", "4"] and set(palm["lr"]) == {"0.05"}
        assert set(found.loc[found["method"] == "zeroshot", "shots"]) == {""}
        line = palm.iloc[0]
        assert (line["dataset"], line["mean"], line["n"]) == ("a,b", 0.5, 2)
        mean, low, high = seed_interval([0.25, 0.75], bounds=(0, 1))
        assert (low, high) == (0, 1)
        assert [float(line[name]) for name in ("std", "low", "high")] == pytest.approx(
            [np.std([0.25, 0.75], ddof=1), low, high]
        )

    @pytest.mark.parametrize(
        "values, low, high",
        [((0.99, 0.9), 0.373, 1.0), ((0.75, 0.75), np.nan, np.nan), ((0.5,), np.nan, np.nan)],
    )
    def test_limits_are_possible_accuracies_and_equal_seeds_have_none(self, values, low, high):
        rows = frame(*[dict(seed=seed, accuracy=value) for seed, value in enumerate(values)])
        (table,) = tables.result_tables(rows)
        line = table.numbers().iloc[0]
        assert [line["low"], line["high"]] == pytest.approx([low, high], abs=1e-3, nan_ok=True)
        study = tables.intervals(rows, ["method"]).loc["palm", ["low", "high"]]
        assert [*study] == pytest.approx([line["low"], line["high"]], nan_ok=True)

    def test_a_loss_may_be_over_one_but_not_below_zero(self):
        rows = frame(*[dict(seed=seed) for seed in range(2)]).assign(loss=[0.1, 3.0])
        study = tables.intervals(rows, ["method"], "loss").loc["palm"]
        assert study["low"] == 0 and study["high"] > 3

    def test_each_setting_has_its_file_its_caption_and_its_label(self, run):
        paths = tables.write_tables(run)
        assert [path.name for path in paths] == [
            f"results{number}.{suffix}" for number in ("", "-2") for suffix in ("md", "tex", "csv")
        ]
        first, second = (path.read_text() for path in paths if path.suffix == ".tex")
        shown = [re.search(r"Settings: shots=(\d+)\.\}", text)[1] for text in (first, second)]
        assert sorted(shown) == ["16", "4"]
        assert r"\label{tab:accuracy}" in first and r"\label{tab:accuracy-2}" in second
        assert pd.read_csv(paths[5])["mean"].tolist() == [0.3, 0.5]

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_export_has_every_row_setting_and_metric(self, run, tmp_path, suffix, capsys):
        file = tmp_path / f"all.{suffix}"
        assert main(["export", str(run), "--to", str(file)]) == 0
        read = pd.read_csv if suffix == "csv" else pd.read_parquet
        found, rows = read(file), tables.load_rows(run)
        assert len(found) == len(rows) == 5
        assert {*tables.SETTINGS} - {"rates", "method_digest"} <= set(found)
        assert {"accuracy", "f1", "seconds.fit", "versions.torch", "key"} <= set(found)
        assert sorted(found["accuracy"]) == [0.25, 0.25, 0.3, 0.75, 0.75]
        assert found["fold"].isna().all() and found["seed"].tolist() == [0, 0, 0, 1, 1]

    def test_an_option_has_a_column_of_its_own(self, tmp_path):
        for seed, value in enumerate([1, "text", [1, 2], None, {"a": 1}]):
            row = result_rows.make_row(seed=seed, options={"init": value, "n": seed})
            result_rows.write_row(tmp_path, row)
        frame = export_frame(tmp_path)
        assert frame["options.init"].fillna("").tolist() == ["1", "text", "[1, 2]", "", '{"a": 1}']
        assert frame["options.n"].tolist() == [0, 1, 2, 3, 4]
        assert frame["fold"].tolist() == [1] * 5

    def test_another_format_is_refused(self, run, tmp_path, capsys):
        assert main(["export", str(run), "--to", str(tmp_path / "all.xls")]) == 1
        assert "all.xls: the file's name must end in .csv or .parquet" in capsys.readouterr().err
        assert main(["export", str(tmp_path / "none"), "--to", str(tmp_path / "x.csv")]) == 1
        assert "there are no rows" in capsys.readouterr().err

    def test_a_metric_that_no_row_has_is_named(self, run, capsys):
        assert main(["table", str(run), "--metric", "loss"]) == 1
        assert "no row has a loss" in capsys.readouterr().err
