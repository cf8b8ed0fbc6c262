"""Datasets in the layouts that they are published in, recognised by their files.

A reader has two functions: `matches(folder)` says cheaply whether a folder is of this layout, and
`read(folder)` returns `Recordings`. Official folds and splits are kept. To add a layout, write a
class here and put it into READERS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from palmkit.datasets.folders import read_class_folders
from palmkit.datasets.listing import Columns, read_folds, read_listing, read_splits
from palmkit.datasets.recordings import (
    Recordings,
    Split,
    check_text,
    list_folders,
    list_sounds,
    most_sounds,
    name_some,
    read_split_words,
    refuse_lists,
)
from palmkit.tables import DatasetError, check_rows, read_table


class _Table:
    """A dataset that is recognised by its table."""

    TABLES: tuple[str, ...]  # where it may be

    @classmethod
    def matches(cls, folder: Path) -> bool:
        return _find_table(folder, cls.TABLES) is not None


class Esc50(_Table):
    """ESC-50, github.com/karolpiczak/ESC-50: `meta/esc50.csv`, `audio/1-100032-A-0.wav`.

    Columns filename, fold (1 to 5), target, category, esc10, src_file, take. The five folds are
    official, and keep the clips of a recording together. Kaggle's copy has `esc50.csv` in the
    folder itself, and the clips in `audio/audio/`.
    """

    name = "ESC-50"
    TABLES = ("meta/esc50.csv", "esc50.csv")

    @staticmethod
    def read(folder: Path) -> Recordings:
        inner = folder / "audio" / "audio"
        root = inner if inner.is_dir() else folder / "audio"
        columns = Columns("filename", "category", fold="fold", root=root)
        found = read_listing(_find_table(folder, Esc50.TABLES), columns)
        return Recordings(folder, found.base, Esc50.name, found.clips)


class UrbanSound8K(_Table):
    """UrbanSound8K, urbansounddataset.weebly.com: `metadata/UrbanSound8K.csv`, `audio/fold1/...`.

    Columns slice_file_name, fsID, start, end, salience, fold (1 to 10), classID, class. The ten
    folds are official; the authors ask not to shuffle them. Kaggle's copy has `UrbanSound8K.csv`
    and `fold1/`, ... in the folder itself.
    """

    name = "UrbanSound8K"
    TABLES = ("metadata/UrbanSound8K.csv", "UrbanSound8K.csv")

    @staticmethod
    def read(folder: Path) -> Recordings:
        path = _find_table(folder, UrbanSound8K.TABLES)
        inside = "audio/" if (folder / "audio").is_dir() else ""
        wanted = ("slice_file_name", "fold", "class")
        rows = []
        for line, row in read_table(path, wanted):
            place = f"{inside}fold{row['fold']}/{row['slice_file_name']}"
            rows.append((line, row | {"path": place, "classname": row["class"]}))
        clips = _frame(check_rows(folder, path, rows))
        clips = clips.assign(fold=read_folds(path, clips["fold"]))
        return Recordings(folder, folder, UrbanSound8K.name, clips)


class SpeechCommands:
    """Speech Commands, arxiv.org/abs/1804.03209: a folder for each word, and two lists.

    `validation_list.txt` and `testing_list.txt` have a path in each line, `bed/0c40e715_nohash_0.
    wav`; all other clips are to train on. `_background_noise_` is no class. Kaggle's copy has the
    words in `audio/`. Listed clips of words that are not there are no error: many keep ten words.
    """

    name = "Speech Commands"

    @staticmethod
    def matches(folder: Path) -> bool:
        return (folder / "testing_list.txt").is_file()

    @staticmethod
    def read(folder: Path) -> Recordings:
        is_inside = (folder / "audio").is_dir() and list_folders(folder / "audio")
        base = folder / "audio" if is_inside else folder
        found, notes = read_class_folders(base), []
        split = pd.Series("train", found.clips.index)
        for word in ("validation", "testing"):
            path = folder / f"{word}_list.txt"
            listed, missing = SpeechCommands.read_list(path, base) if path.is_file() else ([], 0)
            if missing:
                notes.append(f"{missing} clips of {path.name} are of words that are not there")
            split[found.clips["path"].isin(listed)] = "test" if word == "testing" else word
        clips = found.clips.assign(split=split)
        notes = (*found.notes, *notes)
        return Recordings(folder, base, SpeechCommands.name, clips, notes=notes)

    @staticmethod
    def read_list(path: Path, base: Path) -> tuple[list[str], int]:
        """(the clips of a list, how many more are of words without a folder)."""
        listed, missing = [], 0
        for line, clip in _read_lines(path):
            clip = clip.replace("\\", "/")
            if (base / clip).is_file():
                listed.append(clip)
            elif "/" in clip and not (base / clip).parent.is_dir():
                missing += 1
            else:
                raise DatasetError(
                    f"{path}, row {line}: there is no file {base / clip}; fetch the dataset "
                    "again, or remove the line"
                )
        return listed, missing


class Dcase:
    """TAU Urban Acoustic Scenes and TUT Acoustic Scenes, dcase.community: `evaluation_setup/`.

    TAU: `fold1_train.csv` and `fold1_evaluate.csv`, separated by tabs, with the columns filename
    and scene_label. TUT 2016 and 2017: `fold1_train.txt` and `fold1_evaluate.txt`, without a
    header. Paths are relative to the folder: `audio/airport-lisbon-1000-40000-a.wav`.
    The lists `foldK_test` have no labels, and are not read.
    """

    name = "TAU/DCASE"
    LIST = re.compile(r"fold(\d+)_train\.(csv|txt)")

    @staticmethod
    def matches(folder: Path) -> bool:
        lists = (folder / "evaluation_setup").glob("fold*_train.*")
        return any(Dcase.LIST.fullmatch(path.name) for path in lists)

    @staticmethod
    def read(folder: Path) -> Recordings:
        setup, splits = folder / "evaluation_setup", []
        for path in sorted(setup.glob("fold*_train.*")):
            if found := Dcase.LIST.fullmatch(path.name):
                fold, suffix = int(found[1]), found[2]
                tested = setup / f"fold{fold}_evaluate.{suffix}"
                train, test = (Dcase.read_list(folder, one) for one in (path, tested))
                splits.append(Split(fold, train, test))
        splits.sort(key=lambda split: split.fold)
        if len(splits) == 1:  # TAU's only division
            splits = [Split(None, splits[0].train, splits[0].test)]
        clips = pd.concat([frame for split in splits for _, frame in split.parts()])
        clips = clips.drop_duplicates(ignore_index=True)
        if len(again := clips[clips["path"].duplicated(keep=False)]):
            raise DatasetError(
                f"{setup}: the lists give {again['path'].iloc[0]} the classes "
                f"{name_some(again['classname'])}: a clip has one class; get the lists again"
            )
        return Recordings(folder, folder, Dcase.name, clips, tuple(splits))

    @staticmethod
    def read_list(folder: Path, path: Path) -> pd.DataFrame:
        if path.suffix == ".csv":
            rows = read_table(path, ("filename", "scene_label"))
            cells = [(line, row["filename"], row["scene_label"]) for line, row in rows]
        else:
            fields = [(line, text.split("\t")) for line, text in _read_lines(path)]
            if not fields:
                raise DatasetError(f"{path} has no rows: get the lists again")
            cells = [(line, one[0], one[1] if len(one) > 1 else "") for line, one in fields]
        rows = [(line, {"path": clip, "classname": name}) for line, clip, name in cells]
        return _frame(check_rows(folder, path, rows))


class AudioFolder:
    """Hugging Face's `audiofolder`, huggingface.co/docs/datasets/audio_dataset.

    `metadata.csv` or `metadata.jsonl` with a column file_name, in the folder or in each of its
    `train/`, `test/` and `validation/` (also below `data/`). The class is in a column label, class,
    category or another of CLASS_COLUMNS. A column split, fold or group is as in a CSV of one's own,
    but folders of splits come first. Without metadata a folder is read as class folders.
    """

    name = "Hugging Face audiofolder"
    FILES = ("metadata.csv", "metadata.jsonl")
    CLASS_COLUMNS = ("label", "labels", "classname", "class_name", "class", "category", "target")
    ROLES = ("split", "fold", "group")

    @staticmethod
    def matches(folder: Path) -> bool:
        return bool(AudioFolder.list_files(folder))

    @staticmethod
    def list_files(folder: Path) -> list[Path]:
        """The metadata files: the folder's own, or those of its splits."""
        for place in (folder, folder / "data"):
            inside = [place, *list_folders(place)] if place.is_dir() else []
            paths = [one / name for one in inside for name in AudioFolder.FILES]
            if found := [path for path in paths if path.is_file() and _has_file_names(path)]:
                return found
        return []

    @staticmethod
    def read(folder: Path, class_column: str | None = None) -> Recordings:
        tables = []
        for path in AudioFolder.list_files(folder):
            rows = AudioFolder.read_metadata(path, class_column)
            where = path.parent.relative_to(folder)
            table = _frame(check_rows(path.parent, path, rows))
            if "split" in table:
                table["split"] = read_splits(path, table["split"])
            elif "fold" in table:
                table["fold"] = read_folds(path, table["fold"])
            tables.append(table.assign(path=[(where / clip).as_posix() for clip in table["path"]]))
        clips = pd.concat(tables, ignore_index=True)
        words = [AudioFolder.split_word(path) for path in clips["path"]]
        known = read_split_words(filter(None, words))
        if known and None in words:
            path = clips["path"][words.index(None)]
            raise DatasetError(f"{folder}: {path} is in no folder of a split, others are")
        if known and set(known.values()) != {"train"}:
            clips["split"] = [known[word] for word in words]
        elif len(tables) > 1:  # columns that only some of the files have say nothing
            clips = clips.dropna(axis="columns")
        return Recordings(folder, folder, AudioFolder.name, clips)

    @staticmethod
    def split_word(path: str) -> str | None:
        """The folder of a path that names a split: `train` in `data/train/a.wav`."""
        parts = [part for part in Path(path).parts[:-1] if part != "data"]
        return parts[0] if parts and read_split_words([parts[0], "train"]) else None

    @staticmethod
    def read_metadata(path: Path, class_column: str | None) -> list[tuple[int, dict]]:
        """(line, row with path and classname) of a metadata file."""
        if path.suffix == ".csv":
            rows = read_table(path, ("file_name",))
        else:
            rows = [(line, _read_json(path, line, text)) for line, text in _read_lines(path)]
        keys = {key for _, row in rows for key in row if key is not None}
        wanted = (class_column,) if class_column else AudioFolder.CLASS_COLUMNS
        column = next((name for name in wanted if name in keys), None)
        if column is None:
            raise DatasetError(
                f"{path} has the columns {sorted(keys)}, and the class in none of "
                f"{', '.join(wanted)}: name its column as class_column (--class-column)"
            )
        named = []
        for line, row in rows:
            # A row of a CSV may have fields beyond the header, under None.
            clip, name = row.get("file_name"), _one_class(path, line, row.get(column))
            beyond = {None: row[None]} if None in row else {}
            more = {role: _text(row.get(role)) for role in AudioFolder.ROLES if role in keys}
            named.append((line, {"path": clip, "classname": name} | more | beyond))
            if not isinstance(clip, str):
                raise DatasetError(f"{path}, row {line}: the file_name is {clip!r}: write a path")
        names = pd.Series([row["classname"] for _, row in named], [line for line, _ in named])
        refuse_lists(path, column, names)
        return named


class CremaD:
    """CREMA-D, github.com/CheyneyComputerScience/CREMA-D: `AudioWAV/1001_DFA_ANG_XX.wav`.

    Actor, sentence, emotion, level. There is no official split: folds are made, and each of the 91
    actors is in one of them.
    """

    name = "CREMA-D"
    FILE = re.compile(r"(?P<clip>(?P<actor>\d{4})_[A-Z]{3}_(?P<emotion>[A-Z]{3})_[A-Z]{1,2})")
    EMOTIONS = {
        **{"ANG": "anger", "DIS": "disgust", "FEA": "fear"},
        **{"HAP": "happy", "NEU": "neutral", "SAD": "sad"},
    }

    @staticmethod
    def sounds(folder: Path) -> Path:
        return folder / "AudioWAV" if (folder / "AudioWAV").is_dir() else folder

    @staticmethod
    def matches(folder: Path) -> bool:
        inside = CremaD.sounds(folder)
        # In class folders the folders say the classes.
        return most_sounds(
            inside, lambda path: path.parent == inside and bool(CremaD.FILE.fullmatch(path.stem))
        )

    @staticmethod
    def read(folder: Path) -> Recordings:
        return _read_names(CremaD, folder, CremaD.sounds(folder))


class Ravdess:
    """RAVDESS, zenodo.org/records/1188976: `Actor_01/03-01-06-01-02-01-12.wav`.

    Modality, channel (01 speech, 02 song), emotion, intensity, statement, repetition, actor. The
    folders of the archives (`Audio_Speech_Actors_01-24/`) may be around. Modality 02 is video
    without sound; a performance in 01 (with video) and 03 (sound alone) counts once. There is no
    official split: folds are made, and each of the 24 actors is in one of them.
    """

    name = "RAVDESS"
    FILE = re.compile(
        r"(?P<modality>\d\d)-(?P<clip>\d\d-(?P<emotion>\d\d)(?:-\d\d){3}-(?P<actor>\d\d))"
    )
    EMOTIONS = {
        **{"01": "neutral", "02": "calm", "03": "happy", "04": "sad"},
        **{"05": "angry", "06": "fearful", "07": "disgust", "08": "surprised"},
    }

    @staticmethod
    def matches(folder: Path) -> bool:
        return most_sounds(
            folder,
            lambda path: (
                (path.parent == folder or path.parent.name.startswith("Actor_"))
                and bool(Ravdess.FILE.fullmatch(path.stem))
            ),
        )

    @staticmethod
    def read(folder: Path) -> Recordings:
        return _read_names(Ravdess, folder, folder)


class MultiLabel:
    """FSD50K and AudioSet: a clip has several classes. They are refused by name."""

    name = "multi-label data"
    FILES = {
        "FSD50K": ("FSD50K.ground_truth/dev.csv", "FSD50K.ground_truth/eval.csv"),
        "AudioSet": (
            *("balanced_train_segments.csv", "unbalanced_train_segments.csv"),
            "eval_segments.csv",
        ),
    }

    @staticmethod
    def matches(folder: Path) -> bool:
        return MultiLabel.find(folder) is not None

    @staticmethod
    def find(folder: Path) -> str | None:
        for name, files in MultiLabel.FILES.items():
            if any((folder / file).is_file() for file in files):
                return name
        return None

    @staticmethod
    def read(folder: Path) -> Recordings:
        raise DatasetError(
            f"{folder} is {MultiLabel.find(folder)}, whose clips have several classes each; such "
            "multi-label data cannot be used: choose clips of one class, and list them in a CSV"
        )


VIDEO_ALONE = "02"  # RAVDESS's modality

READERS = (Esc50, UrbanSound8K, Dcase, SpeechCommands, AudioFolder, MultiLabel, CremaD, Ravdess)


def find_reader(folder: Path) -> tuple[type, Path] | None:
    """(reader, folder) of a known layout, None if it is none of these.

    The layout may be in the only folder of the folder, as where an archive was unpacked.
    """
    for reader in READERS:
        if reader.matches(folder):
            return reader, folder
    inside = list_folders(folder)
    return find_reader(inside[0]) if len(inside) == 1 else None


def _frame(rows: list[tuple[int, dict]]) -> pd.DataFrame:
    lines, values = zip(*rows, strict=True)
    return pd.DataFrame(values, index=lines)


def _find_table(folder: Path, tables: Sequence[str]) -> Path | None:
    return next((folder / one for one in tables if (folder / one).is_file()), None)


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text that are not blank, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}): get it again") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is no text in UTF-8 ({error}): get it again") from error
    # Not `splitlines`: JSON may hold other line separators, such as U+2028.
    lines = enumerate(re.split("\r\n|\r|\n", text), 1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def _read_json(path: Path, line: int, text: str) -> dict:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise DatasetError(f"{path}, row {line}: is not JSON ({error}); correct it") from error
    if not isinstance(row, dict):
        raise DatasetError(f"{path}, row {line}: is no JSON object; write {{...}}")
    return row


def _one_class(path: Path, line: int, value) -> str:
    """A class's name. Raises DatasetError for a list of several, and for what is no name."""
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, list):
        raise DatasetError(
            f"{path}, row {line}: the clip has the classes {value}; such multi-label data cannot "
            "be used: keep one class for each clip"
        )
    if isinstance(value, dict | bool | float):
        raise DatasetError(f"{path}, row {line}: the class is {value!r}: write a name")
    return _text(value)


def _text(value) -> str:
    return "" if value is None else str(value)


def _has_file_names(path: Path) -> bool:
    """Whether the first line of a metadata file has the name `file_name`."""
    try:
        with open(path, "rb") as file:
            return b"file_name" in file.readline()
    except OSError:
        return False


def _read_names(reader, folder: Path, inside: Path) -> Recordings:
    """Recordings whose names tell emotion and actor. A clip that is there twice counts once."""
    rows, seen, again, silent, unnamed = [], set(), [], [], []
    files = [(file, reader.FILE.fullmatch(file.stem)) for file in list_sounds(inside)]
    # Of a clip with video and as sound alone, the latter is taken: 03 before 01.
    for file, match in sorted(files, key=lambda one: _modality(one[1]), reverse=True):
        shown = file.relative_to(folder).as_posix()
        if match is None:
            unnamed.append(shown)
        elif match["emotion"] not in reader.EMOTIONS:
            raise DatasetError(f"{file}: {reader.name} has no emotion {match['emotion']}")
        elif _modality(match) == VIDEO_ALONE:
            silent.append(shown)
        elif match["clip"] in seen:
            again.append(shown)
        else:
            seen.add(match["clip"])
            check_text(file, "file")
            rows.append((shown, reader.EMOTIONS[match["emotion"]], match["actor"]))
    rows.sort()
    clips = pd.DataFrame(rows, columns=["path", "classname", "group"])
    found = (
        (again, "are there twice and count once"),
        (silent, "are video without sound, and left out"),
        (unnamed, "have other names, and are left out"),
    )
    notes = tuple(f"{len(some)} files {what}: {name_some(some)}" for some, what in found if some)
    return Recordings(folder, folder, reader.name, clips, grouped_by="actors", notes=notes)


def _modality(match: re.Match | None) -> str:
    """RAVDESS: "01" sound with video, "02" video alone, "03" sound alone; "" of other datasets."""
    return match.groupdict().get("modality", "") if match else ""
