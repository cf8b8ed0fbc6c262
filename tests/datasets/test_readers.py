"""Published datasets in their own layouts are recognised by their files."""

import json
import shutil

import layouts
import pytest
from layouts import put, put_table
from standin import write_sound

from palmkit import DatasetError, check_dataset, import_dataset, list_folds, load_dataset
from palmkit.cli import main
from palmkit.datasets.readers import READERS


def folds_of_clips(root):
    """{path below the folder: folds that it is tested in}."""
    found = {}
    for fold in list_folds(root):
        data = load_dataset(root, fold)
        trained = {data.relative(path) for path in data.train["path"]}
        for path in data.test["path"]:
            assert data.relative(path) not in trained
            found.setdefault(data.relative(path).removeprefix("audios/"), []).append(fold)
    return found


def layout_of(root):
    return json.loads((import_dataset(root) / "split.json").read_text())["layout"]


def test_esc50(tmp_path):
    root = layouts.esc50(tmp_path / "ESC-50-master")
    assert layout_of(root) == "ESC-50" and list_folds(root) == [1, 2, 3, 4, 5]
    data = load_dataset(root, 3)
    assert data.name == "ESC-50-master" and data.class_names == ["chirping_birds", "dog"]
    assert len(data.train) == 16 and len(data.test) == 4
    # The first digit of a name is the official fold.
    assert folds_of_clips(root) == {
        path.name: [int(path.name[0])] for path in (root / "audio").glob("*.wav")
    }


def test_urban_sound(tmp_path):
    root = layouts.urban_sound(tmp_path / "UrbanSound8K")
    assert layout_of(root) == "UrbanSound8K" and list_folds(root) == [*range(1, 11)]
    assert load_dataset(root, 10).class_names == ["air_conditioner", "dog_bark"]
    for path, folds in folds_of_clips(root).items():
        assert path.startswith(f"audio/fold{folds[0]}/") and len(folds) == 1


def test_speech_commands(tmp_path):
    root = layouts.speech_commands(tmp_path / "speech_commands_v0.02")
    assert layout_of(root) == "Speech Commands" and list_folds(root) == [None]
    data = load_dataset(root)
    assert data.class_names == ["marvin", "no", "yes"]
    assert (len(data.train), len(data.test), len(data.read_validation())) == (12, 6, 6)
    listed = (root / "testing_list.txt").read_text().split()
    assert {data.relative(path) for path in data.test["path"]} == {f"audios/{p}" for p in listed}
    said = " ".join(check_dataset(root, decode=False).findings["what"])
    assert "_background_noise_ left out" in said and "validation split of 6 clips is kept" in said


@pytest.mark.parametrize("folds", [1, 3])
def test_tau(folds, tmp_path):
    root = layouts.tau(tmp_path / "TAU-urban-acoustic-scenes-2019-development", folds)
    assert layout_of(root) == "TAU/DCASE"
    assert list_folds(root) == ([None] if folds == 1 else [1, 2, 3])
    data = load_dataset(root, None if folds == 1 else 1)
    assert data.class_names == ["airport", "metro_station"] and len(data.train) == 8
    assert all("lisbon" in path for path in data.test["path"])


def test_a_list_that_is_missing(tmp_path):
    root = layouts.tau(tmp_path / "scenes")
    (root / "evaluation_setup" / "fold1_evaluate.csv").unlink()
    with pytest.raises(DatasetError, match="no .*fold1_evaluate.csv: .*filename and scene_label"):
        load_dataset(root)


def test_lists_that_differ_on_a_class(tmp_path):
    root = layouts.tut(tmp_path / "scenes")
    path = root / "evaluation_setup" / "fold2_train.txt"
    path.write_text(path.read_text().replace("a000_0_10.wav\tbeach", "a000_0_10.wav\tbaech"))
    with pytest.raises(DatasetError, match=r"a000_0_10.wav the classes beach, baech: a clip has"):
        load_dataset(root, 1)


def test_tut(tmp_path):
    root = layouts.tut(tmp_path / "TUT-acoustic-scenes-2017-development")
    assert layout_of(root) == "TAU/DCASE" and list_folds(root) == [1, 2, 3, 4]
    data = load_dataset(root, 4)
    assert data.class_names == ["beach", "cafe/restaurant"]
    found = folds_of_clips(root)
    assert len(found) == 16 and all(len(folds) == 1 for folds in found.values())


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("inside", ["", "data"])
def test_audiofolder(form, inside, tmp_path):
    layouts.audiofolder(tmp_path / "sounds" / inside, form)
    root = tmp_path / "sounds"
    assert layout_of(root) == "Hugging Face audiofolder"
    data = load_dataset(root)
    assert data.class_names == ["drill", "siren"]
    assert [len(part) for part in (data.train, data.test, data.read_validation())] == [4, 4, 4]
    assert all("/train/" in path for path in data.train["path"])


def test_audiofolder_with_one_metadata_file(tmp_path):
    """The paths have the split's folder; without one, folds are made."""
    for names, folds in ((("train", "test"), [None]), (("train",), [1, 2]), (("clips",), [1, 2])):
        root = tmp_path / "-".join(names)
        rows = [(f"{name}/{n}.wav", "ab"[n % 2], str(n)) for name in names for n in range(4)]
        for path, *_ in rows:
            put(root / path)
        put_table(root / "metadata.csv", ("file_name", "category", "note"), rows)
        assert list_folds(import_dataset(root, folds=2)) == folds


def test_audiofolder_without_metadata(tmp_path):
    for split in ("train", "validation", "test"):
        for name in ("cat", "dog"):
            for n in range(3):
                put(tmp_path / "sounds" / "data" / split / name / f"{n}.wav")
    data = load_dataset(tmp_path / "sounds")
    assert data.class_names == ["cat", "dog"] and len(data.read_validation()) == 6


def test_audiofolder_whose_class_has_another_name(tmp_path):
    root = tmp_path / "intents"
    for n in range(10):
        put(root / f"{n}.wav")
    rows = [(f"{n}.wav", ("pay", "ask")[n % 2]) for n in range(10)]
    put_table(root / "metadata.csv", ("file_name", "intent"), rows)
    with pytest.raises(DatasetError, match="the class in none of label.*--class-column"):
        load_dataset(root, 1)
    assert load_dataset(root, 1, class_column="intent").class_names == ["ask", "pay"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"file_name": "a.wav", "label": ["dog", "cat"]}\n', r"row 1: .*multi-label data"),
        ('{"file_name": "a.wav", "label": "dog"}\n[1]\n', "row 2: is no JSON object"),
        ('{"file_name": "a.wav", "label": "dog"}\n{"file_\n', "row 2: is not JSON"),
        ('{"file_name": "a.wav", "label": 0.5}\n', r"row 1: the class is 0\.5"),
        ('{"file_name": 3, "label": "dog"}\n', "row 1: the file_name is 3"),
        ('{"file_name": "b.wav", "label": "dog"}\n', "row 1: there is no file"),
        ('{"file_name": "a.wav", "label": null}\n', "row 1: the class name is empty"),
    ],
)
def test_bad_metadata(text, said, tmp_path):
    put(tmp_path / "sounds" / "a.wav")
    path = put(tmp_path / "sounds" / "metadata.jsonl", text)
    with pytest.raises(DatasetError, match=said) as caught:
        load_dataset(tmp_path / "sounds", 1)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("make", "layout", "classes", "actor", "files"),
    [
        (layouts.crema_d, "CREMA-D", 6, lambda path: path.rsplit("/", 1)[-1][:4], 37),
        (layouts.ravdess, "RAVDESS", 8, lambda path: path[-6:-4], 46),
    ],
)
def test_actors_stay_together(make, layout, classes, actor, files, tmp_path):
    root = make(tmp_path / "emotions")
    assert layout_of(root) == layout and list_folds(root) == [1, 2, 3, 4, 5]
    data = load_dataset(root, 1)
    assert len(data.class_names) == classes and "fear" in " ".join(data.class_names)
    found = folds_of_clips(root)
    assert len(found) == files and all(len(folds) == 1 for folds in found.values())
    folds_of = {}
    for path, (fold,) in found.items():
        folds_of.setdefault(actor(path), set()).add(fold)
    assert all(len(folds) == 1 for folds in folds_of.values())
    assert json.loads((import_dataset(root) / "split.json").read_text())["groups"] == "actors"


def test_files_that_an_archive_has_twice(tmp_path):
    root = layouts.ravdess(tmp_path / "emotions")
    put(root / "again" / "Actor_01" / "03-01-01-01-01-01-01.wav")
    assert len(folds_of_clips(root)) == 46
    said = " ".join(check_dataset(root, decode=False).findings["what"])
    assert "1 files are there twice and count once" in said


def test_emotions_in_class_folders_are_as_their_folders_say(tmp_path):
    for actor in range(1001, 1006):
        for name, code in (("calm voice", "NEU"), ("shouting", "ANG")):
            put(tmp_path / "mine" / name / f"{actor}_DFA_{code}_XX.wav")
    assert load_dataset(tmp_path / "mine", 1).class_names == ["calm voice", "shouting"]


def describe(root):
    made = import_dataset(root)
    return json.loads((made / "split.json").read_text())


@pytest.mark.parametrize("make", [layouts.crema_d, layouts.ravdess])
def test_a_copy_beside_the_clips_does_not_make_another_dataset(make, tmp_path):
    """Without this, the classes would be actors, or the folders of the archives."""
    root = make(tmp_path / "emotions")
    clip = sorted(root.rglob("*.wav"))[0]
    put(clip.with_name(f"{clip.stem} (1).wav"))
    made = describe(root)
    assert made["layout"] in ("CREMA-D", "RAVDESS")
    assert made["notes"][-1].startswith("1 files have other names, and are left out: ")
    assert made["notes"][-1].endswith(f"{clip.stem} (1).wav")


def test_ravdess_with_video(tmp_path):
    """A performance counts once, by its sound alone; video without sound is left out."""
    root = layouts.ravdess(tmp_path / "emotions")
    for file in [*root.glob("Audio_Speech*/*/*.wav")]:
        for modality in ("01", "02"):
            place = root / "Video_Speech_Actor_01" / file.parent.name
            put(place / f"{modality}{file.stem[2:]}.wav")
    assert {path.rsplit("/", 1)[-1][:2] for path in folds_of_clips(root)} == {"03"}
    said = " ".join(describe(root)["notes"])
    assert "40 files are there twice" in said and "40 files are video without sound" in said


@pytest.mark.parametrize(
    "make", [layouts.esc50, layouts.urban_sound, layouts.speech_commands, layouts.crema_d]
)
def test_a_layout_in_a_folder_of_its_own(make, tmp_path):
    """As an archive is unpacked."""
    make(tmp_path / "download" / "inner")
    assert (
        describe(tmp_path / "download")["layout"]
        == describe(tmp_path / "download" / "inner")["layout"]
    )
    assert len(folds_of_clips(tmp_path / "download")) > 5


@pytest.mark.slow
def test_layouts_of_kaggle(tmp_path):
    esc = layouts.esc50(tmp_path / "esc")
    (esc / "meta" / "esc50.csv").rename(esc / "esc50.csv")
    (esc / "audio").rename(esc / "inner")
    (esc / "audio").mkdir()
    (esc / "inner").rename(esc / "audio" / "audio")
    urban = layouts.urban_sound(tmp_path / "urban")
    (urban / "metadata" / "UrbanSound8K.csv").rename(urban / "UrbanSound8K.csv")
    for folder in [*(urban / "audio").iterdir()]:
        folder.rename(urban / folder.name)
    (urban / "audio").rmdir()
    words = layouts.speech_commands(tmp_path / "words" / "train")
    (words / "audio").mkdir()
    for name in ("yes", "no", "marvin", "_background_noise_"):
        (words / name).rename(words / "audio" / name)
    assert len(folds_of_clips(esc)) == 20 and len(list_folds(esc)) == 5
    assert len(folds_of_clips(urban)) == 40 and len(list_folds(urban)) == 10
    assert len(folds_of_clips(words)) == 6 and len(load_dataset(words).train) == 12


def test_some_words_of_speech_commands(tmp_path):
    """Many keep ten words; the lists still name all of them, here with Windows' separators."""
    root = layouts.speech_commands(tmp_path / "words")
    shutil.rmtree(root / "marvin")
    path = root / "testing_list.txt"
    path.write_text(path.read_text().replace("/", "\\"))
    data = load_dataset(root)
    assert data.class_names == ["no", "yes"] and (len(data.train), len(data.test)) == (8, 4)
    said = "2 clips of testing_list.txt are of words that are not there"
    assert said in describe(root)["notes"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("role", ["split", "fold", "group"])
def test_columns_of_audiofolder_s_metadata(role, form, tmp_path):
    root = tmp_path / "sounds"
    rows = []
    for n in range(20):
        put(root / f"{n}.wav")
        value = {"split": ("train", "test")[n // 10], "fold": n // 10, "group": n // 2}[role]
        rows.append((f"{n}.wav", "ab"[n % 2], value))
    columns = ("file_name", "label", role)
    if form == "csv":
        put_table(root / "metadata.csv", columns, rows)
    else:  # U+2028 separates lines for Python, and not in JSON
        lines = [dict(zip((*columns, "text"), (*row, "a\u2028b"), strict=True)) for row in rows]
        lines = [json.dumps(line, ensure_ascii=False) for line in lines]
        put(root / "metadata.jsonl", "\r\n".join(lines) + "\r\n")
    expected = {"split": [None], "fold": [0, 1], "group": [1, 2, 3, 4, 5]}[role]
    assert list_folds(root) == expected
    found = folds_of_clips(root)
    if role == "split":
        assert set(found) == {f"{n}.wav" for n in range(10, 20)}
    elif role == "fold":
        assert all(found[f"{n}.wav"] == [n // 10] for n in range(20))
    else:
        assert all(found[f"{n}.wav"] == found[f"{n + 1}.wav"] for n in range(0, 20, 2))


@pytest.mark.parametrize(
    "file", ["FSD50K.ground_truth/dev.csv", "eval_segments.csv"], ids=["FSD50K", "AudioSet"]
)
def test_multi_label_datasets_are_refused_by_name(file, tmp_path):
    put(tmp_path / "sounds" / file)
    with pytest.raises(DatasetError, match="is (FSD50K|AudioSet).*multi-label data"):
        load_dataset(tmp_path / "sounds")


def test_a_clip_of_a_list_that_is_not_there(tmp_path):
    root = layouts.speech_commands(tmp_path / "words")
    (root / "no" / "00000007_nohash_0.wav").unlink()
    with pytest.raises(DatasetError, match=r"testing_list\.txt, row 4: there is no file"):
        load_dataset(root)
    root = layouts.esc50(tmp_path / "esc")
    (root / "audio" / "1-100100-A-0.wav").unlink()
    with pytest.raises(DatasetError, match=r"esc50\.csv, row 2: there is no file"):
        load_dataset(root, 1)


def test_every_reader_has_a_source_in_its_docstring():
    for reader in READERS:
        assert reader.name and len(reader.__doc__) > 60


@pytest.mark.slow
def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    """`check` and `run` take a folder in a published layout, with spaces for underscores."""
    monkeypatch.setenv("PALMKIT_RUNS", str(tmp_path / "runs"))
    root = layouts.esc50(tmp_path / "ESC-50-master")
    for n, path in enumerate(sorted((root / "audio").glob("*.wav"))):
        write_sound(path, n, "-14." in path.name, 0.2)
    assert main(["check", str(root), "--shots", "4"]) == 0
    page = capsys.readouterr().out
    assert "chirping_birds (4, with spaces 3)" in page and "| chirping_birds | 4 | 3 |" in page
    assert main(["check", str(root), "--shots", "4", "--underscores", "space"]) == 0
    assert "underscores" not in capsys.readouterr().out
    arguments = ["--fold", "2", "--method", "zeroshot", "--underscores", "space"]
    assert main(["run", "--dataset", str(root), *arguments]) == 0
    assert "| ESC-50-master |" in capsys.readouterr().out
    (row,) = (tmp_path / "runs" / "run" / "rows" / "ESC-50-master").glob("*.json")
    assert json.loads(row.read_text())["class_names"] == ["chirping birds", "dog"]


@pytest.mark.parametrize("content, problem", [(None, "cannot be read"), ("\n", "has no rows")])
def test_a_list_that_is_missing_or_empty(content, problem, tmp_path):
    path = layouts.tut(tmp_path / "tut") / "evaluation_setup" / "fold2_evaluate.txt"
    path.unlink()
    if content:
        path.write_text(content)
    with pytest.raises(DatasetError, match=f"fold2_evaluate.txt {problem}.*get"):
        load_dataset(tmp_path / "tut", 1)
