"""`check_dataset`: each thing that it looks for, present and absent."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
from standin import make_dataset, write_csv, write_sound

from palmkit import DatasetError, check_dataset, load_dataset
from palmkit.checksums import hash_files, write_checksums
from palmkit.cli import main
from palmkit.datasets.filenames import parse_file_name
from palmkit.published import paper_datasets


def lines(check, severity=None):
    chosen = (
        check.findings
        if severity is None
        else check.findings[check.findings["severity"] == severity]
    )
    return [f"{line.where}: {line.what}" for line in chosen.itertuples()]


def one(check, *parts):
    """The only finding that holds all these words, its advice too."""
    (line,) = [
        f
        for f in check.findings.itertuples()
        if all(p in f"{f.where}: {f.what} {f.advice}" for p in parts)
    ]
    assert line.advice
    return line


def rewrite(path, change):
    table = pd.read_csv(path, keep_default_na=False)
    change(table).to_csv(path, index=False)


@pytest.fixture
def small(tmp_path):
    """Beijing-Opera with two test clips a class and fold, one second each."""
    return make_dataset(tmp_path, "Beijing-Opera", per_class=2, seconds=1)


def quiet(root, shots=8, **options):
    """Findings but those on the number of test clips, which a small stand-in has not."""
    check = check_dataset(root, shots=shots, **options)
    counted = check.findings["what"].str.contains("published logs")
    return replace(check, findings=check.findings[~counted])


@pytest.mark.slow
@pytest.mark.parametrize("name", paper_datasets())
def test_published_layouts_pass_as_they_are(name, tmp_path):
    """With the published counts nothing is found, but TUT2017's swapped folds and classes that are
    rare.
    """
    check = check_dataset(make_dataset(tmp_path, name), shots=1, decode=False)
    facts = paper_datasets()[name]
    assert check.ok and tuple(check.folds["test"]) == facts.test_clips == tuple(
        check.folds["published_test"]
    )
    assert set(check.folds["classes"]) == {len(facts.class_names)}
    if facts.train_clips:
        assert tuple(check.folds["train"]) == facts.train_clips
    swapped = (
        [f"fold {fold}: more clips to test" for fold in (2, 3, 4)] if name == "TUT2017" else []
    )
    found = [line for line in lines(check) if "tested in several folds" not in line]
    assert [line[: len(s)] for line, s in zip(found, swapped, strict=True)] == swapped
    assert ("tested in several folds" in str(lines(check))) == (name == "TUT2017")


def test_a_good_dataset_has_no_findings(small):
    check = quiet(small)
    assert lines(check) == [] and check.ok
    assert list(check.folds["train"]) == [32] * 5 and list(check.folds["fewest"]) == [8] * 5
    clips = check.summarise_clips()
    assert clips.to_dict("list") == {
        "rate": [22050], "channels": [1], "files": [40],
        "min": [1.0], "median": [1.0], "max": [1.0],
    }  # fmt: skip


def test_number_of_test_clips_against_the_logs(small):
    check = check_dataset(small, shots=8, decode=False)
    assert lines(check) == [
        f"fold {n}: 8 test clips, the published logs have {clips}"
        for n, clips in enumerate([48, 47, 47, 47, 47], 1)
    ]
    assert check.clips["rate"].isna().all() and len(check.clips) == 40


def test_every_bad_row_is_a_finding_not_only_the_first(small):
    table = small / "csv_files" / "train_2.csv"
    rewrite(table, lambda t: t.assign(path=t["path"].where(t.index > 6, "audios/gone.wav")))
    check = quiet(small)
    errors = lines(check, "error")
    assert errors[0] == "csv_files/train_2.csv, row 2: there is no file " + str(
        small / "audios/gone.wav"
    )
    assert len(errors) == 6 and "7 of 32 rows are bad" in errors[5] and not check.ok
    assert (
        check.folds.set_index("fold").loc[2, "train"] == 25
    )  # the others are looked at all the same


def test_a_table_that_is_no_table(small):
    (small / "csv_files" / "test_1.csv").write_text("file,label\na,b\n")
    (small / "csv_files" / "test_2.csv").unlink()
    check = quiet(small)
    assert "has no column path, classname" in one(check, "csv_files/test_1.csv", "column").what
    assert one(check, "csv_files/test_2.csv", "there is no").severity == "error"
    assert "3 whole folds, the paper has 5" in one(check, "layout").what
    assert list(check.folds["fold"]) == [3, 4, 5]


def test_unreadable_silent_and_very_short_files(small):
    files = sorted((small / "audios").iterdir())
    files[0].write_bytes(b"no sound")
    files[1].write_bytes(b"")
    soundfile.write(files[2], np.zeros(22050), 22050)
    soundfile.write(files[3], 0.5 * np.ones(2000), 22050)
    soundfile.write(files[4], np.full((22050 * 4, 2), 0.1), 22050)
    soundfile.write(files[5], np.full(22050, 2e-4), 22050)  # faint, not silent
    check = quiet(small)
    assert len(lines(check, "error")) == 2 and all(
        "audios/clip_0000" in line for line in lines(check, "error")
    )
    assert (
        "1 files are silent (peak under -80 dB): audios/clip_00002.wav" in one(check, "silent").what
    )
    assert "1 files are shorter than 0.1 s: audios/clip_00003.wav" in one(check, "shorter").what
    assert one(check, "1 files have several channels").severity == "note"
    assert one(check, "1 files are longer than 7 s").severity == "note"
    assert set(check.summarise_clips()["channels"]) == {1, 2} and len(check.clips) == 38
    assert not check.ok and quiet(small, decode=False).ok


def test_class_names_against_the_published_ones(small):
    for table in (small / "csv_files").iterdir():
        rewrite(table, lambda t: t.assign(classname=t["classname"].replace("bangu", "Bangu ")))
    check = quiet(small, decode=False)
    assert len(check.findings) == 5 and check.ok
    assert (
        "spelt otherwise than published: here 'Bangu ', published 'bangu'"
        in one(check, "fold 3").what
    )
    for table in (small / "csv_files").iterdir():
        rewrite(table, lambda t: t.assign(classname=t["classname"].replace("Bangu ", "gong")))
    assert (
        "classes are others than published: here 'gong', published 'bangu'"
        in one(quiet(small), "fold 3").what
    )


def test_class_names_that_differ_in_case_or_spaces_only(small):
    for split in ("train", "test"):
        table = small / "csv_files" / f"{split}_1.csv"
        rewrite(table, lambda t: t.assign(classname=t["classname"].where(t.index != 0, "Bangu")))
    check = quiet(small, decode=False)
    assert (
        one(
            check, "'Bangu' and 'bangu' differ in case, spaces or invisible characters only"
        ).severity
        == "error"
    )
    with pytest.raises(
        DatasetError,
        match="'Bangu' and 'bangu' differ in case, .* only.*one spelling",
    ):
        load_dataset(small, fold=1)


def test_a_class_in_one_part_only(small):
    rewrite(small / "csv_files" / "test_4.csv", lambda t: t[t["classname"] != "daluo"])
    assert one(quiet(small), "fold 4", "classes only in train: daluo").severity == "error"


def test_few_shot_feasibility(small):
    assert (
        "bangu (8), daluo (8), naobo (8), xiaoluo (8)"
        in one(quiet(small, shots=9), "fold 1", "fewer than 9").what
    )
    rewrite(small / "csv_files" / "train_1.csv", lambda t: t.iloc[4:])
    assert "xiaoluo (7)" in one(quiet(small, shots=8), "fold 1", "fewer than 8").what


def test_leakage_by_path(small):
    tested = pd.DataFrame([("audios/./clip_00000.wav", "bangu")], columns=["path", "classname"])
    rewrite(small / "csv_files" / "train_1.csv", lambda t: pd.concat([t, tested]))
    check = quiet(small)
    assert (
        one(check, "fold 1", "1 clips are in train and test: audios/clip_00000.wav").severity
        == "error"
    )
    assert len(lines(check)) == 1  # not reported again as a copy


def test_leakage_by_content(small):
    """The same samples under another name, and in another format."""
    samples, rate = soundfile.read(small / "audios/clip_00000.wav", dtype="int16")
    soundfile.write(small / "audios/copy.flac", samples, rate)
    rewrite(
        small / "csv_files" / "train_1.csv",
        lambda t: pd.concat([t, t.iloc[:1].assign(path="audios/copy.flac")]),
    )
    check = quiet(small)
    assert one(check, "fold 1", "1 test clips have the very samples").what.endswith(
        "audios/copy.flac = audios/clip_00000.wav"
    )
    assert not [line for line in lines(quiet(small, decode=False)) if "samples" in line]


@pytest.mark.parametrize(
    "name, origin",
    [
        ("audios/1-100032-A-0.wav", {"recording": "100032"}),
        ("1-100032-A.ogg", {"recording": "100032"}),
        ("100032-3-0-11.wav", {"recording": "100032"}),
        ("1001_DFA_ANG_XX.wav", {"speaker": "1001"}),
        ("03-01-06-01-02-01-12.wav", {"speaker": "12"}),
        ("dog-1.wav", {}),
        ("a/1-100032-A-0/x.wav", {}),
    ],
)
def test_origin_by_file_name(name, origin):
    assert parse_file_name(name) == origin


@pytest.mark.parametrize(
    "names, severity, kind",
    [
        (("1-77-A-1.wav", "2-77-B-1.wav"), "warning", "recording"),
        (("1001_DFA_ANG_XX.wav", "1001_IEO_SAD_HI.wav"), "note", "speaker"),
    ],
)
def test_leakage_by_origin(small, names, severity, kind):
    for n, (split, name) in enumerate(zip(("train", "test"), names, strict=True)):
        write_sound(small / "audios" / name, 100 + n, 0, 1)
        row = pd.DataFrame([(f"audios/{name}", "bangu")], columns=["path", "classname"])
        rewrite(small / "csv_files" / f"{split}_5.csv", lambda t, row=row: pd.concat([t, row]))
    line = one(
        quiet(small),
        "fold 5",
        f"1 of 9 test clips share their {kind} with training clips (1 {kind}s)",
    )
    assert line.severity == severity


def test_folds_that_look_swapped(tmp_path):
    check = quiet(make_dataset(tmp_path, "TUT2017", per_class=1), decode=False, shots=1)
    swapped = [line for line in lines(check, "warning") if "look swapped" in line]
    assert swapped == [
        f"fold {n}: more clips to test (45) than to train (15): the two look swapped"
        for n in (2, 3, 4)
    ]


def test_a_clip_tested_twice(small):
    first = pd.read_csv(small / "csv_files" / "test_1.csv")
    rewrite(small / "csv_files" / "test_2.csv", lambda t: pd.concat([t, first.iloc[:1]]))
    rewrite(small / "csv_files" / "train_2.csv", lambda t: t[t["path"] != first["path"][0]])
    assert (
        "1 clips are tested in several folds: audios/clip_00000.wav"
        in one(quiet(small), "folds", "several").what
    )


def test_single_split_where_folds_were_published(small):
    for split in ("train", "test"):
        shutil.copy(small / "csv_files" / f"{split}_1.csv", small / "csv_files" / f"{split}.csv")
    assert one(quiet(small), "layout", "a single split beside the folds").severity == "note"
    for table in (small / "csv_files").glob("*_*.csv"):
        table.unlink()
    line = one(quiet(small), "layout", "one split, but the paper's numbers are means over 5 folds")
    assert line.severity == "warning"


def test_the_later_split_of_a_single_split_dataset(tmp_path):
    root = make_dataset(tmp_path, "SESA", per_class=2, seconds=0.5)
    for split in ("train", "test"):
        write_csv(
            root / "csv_files" / f"{split}.csv",
            [tuple(r) for r in pd.read_csv(root / f"{split}.csv").to_numpy()],
        )
    assert not [line for line in lines(quiet(root, shots=2)) if "layout" in line]
    rewrite(root / "csv_files" / "test.csv", lambda t: t.iloc[4:])
    assert (
        one(quiet(root, shots=2), "layout", "another than the one above it").severity == "warning"
    )
    assert len(load_dataset(root).test) == 8  # the upper one


def test_class_names_that_list_others_or_are_long(small):
    for table in (small / "csv_files").iterdir():
        names = {"bangu": "daluo,naobo", "xiaoluo": "gong " * 50}
        rewrite(table, lambda t, names=names: t.assign(classname=t["classname"].replace(names)))
    check = quiet(small, decode=False)
    assert one(check, "class names list others", "daluo,naobo").severity == "warning"
    assert one(check, "1 class names have more than 38 tokens").severity == "warning"


def test_files_in_no_table(small):
    write_sound(small / "audios" / "extra.wav", 1, 1, 0.5)
    assert one(quiet(small), "1 files are in no table: audios/extra.wav").severity == "note"


def test_files_that_are_not_as_they_were_fetched(small):
    write_checksums(
        small,
        hash_files(small, "hash"),
        name=small.name,
        source="hf:MahiA/Beijing-Opera",
        revision="1",
    )
    assert quiet(small).ok
    write_sound(small / "audios" / "clip_00003.wav", 99, 1, 0.3)
    assert "clip_00003.wav" in one(quiet(small), "checksums").what and not quiet(small).ok


@pytest.mark.parametrize("clips", [0, 2])
def test_a_folder_without_tables_and_class_folders(clips, tmp_path, capsys):
    """An error says what must be there."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    for n in range(clips):
        write_samples(folder / f"{n}.wav", np.zeros(50))
    assert main(["check", str(folder)]) == 1
    said = capsys.readouterr()
    assert "a table is a CSV file with the columns path and classname" in said.out
    assert said.err.splitlines()[-1].startswith("palmkit: sounds cannot be used as it is")


def test_no_such_dataset(tmp_path):
    with pytest.raises(DatasetError, match="there is no dataset folder"):
        check_dataset(tmp_path / "nowhere")


def test_command(small, capsys):
    assert main(["check", str(small), "--shots", "8"]) == 0
    page = capsys.readouterr().out
    assert (
        "# Beijing-Opera" in page
        and "| 1 | 32 | 8 | 48 | 4 | 8 |" in page
        and "| warning | fold 1 | 8 test" in page
    )
    os.truncate(small / "audios" / "clip_00000.wav", 0)
    assert main(["check", str(small), "--shots", "8"]) == 1
    assert "Beijing-Opera cannot be used as it is" in capsys.readouterr().err
    assert main(["check", str(small), "--shots", "8", "--tables-only"]) == 0


# Sound that is unusual.


def write_samples(path, samples, rate=44_100, **kwargs):
    soundfile.write(path, samples, rate, format="WAV", **kwargs)


def test_one_bad_file_costs_one_file(small):
    """Whatever is wrong with it, all others are checked."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 8000)
    good, telephone, lfs, fast = (small / f"audios/clip_{n:05d}.wav" for n in range(4))
    write_samples(telephone, noise, 8000, subtype="GSM610")
    lfs.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    write_samples(fast, noise, 10**9)
    check = quiet(small)
    assert "git lfs pull" in one(check, "clip_00002.wav").what
    assert "1,000,000,000 Hz" in one(check, "clip_00003.wav").what
    assert len(lines(check, "error")) == 2
    decoded = set(check.clips["path"])
    assert {"audios/clip_00000.wav", "audios/clip_00001.wav"} <= decoded
    assert {"audios/clip_00002.wav", "audios/clip_00003.wav"}.isdisjoint(decoded)
    assert str(small) not in one(check, "clip_00002.wav").what


def test_loud_files_and_odd_rates(small):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 44_100)
    write_samples(small / "audios/clip_00000.wav", 1e19 * samples, subtype="FLOAT")
    write_samples(small / "audios/clip_00001.wav", 1.5 * samples, subtype="FLOAT")
    write_samples(small / "audios/clip_00002.wav", samples, 44_101)
    check = quiet(small)
    loud = one(check, "1 files have peaks well over 1", "clip_00000.wav (5e+18)")
    assert loud.severity == "warning" and check.ok
    odd = one(check, "1 files have odd sample rates", "clip_00002.wav (44101 Hz)", "soxr")
    assert odd.severity == "note"
    assert not [line for line in lines(quiet(small, sample_rate=44_101)) if "(44101 Hz)" in line]


def test_rates_are_printed_as_whole_numbers(small, capsys):
    main(["check", str(small), "--shots", "1"])
    table = capsys.readouterr().out
    assert "| 22050 | 1 | 1.0 |" in table, table
