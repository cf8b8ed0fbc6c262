"""What a reader of recordings finds, and what all readers share: names of files and of folders."""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from palmkit.data import indistinguishable_names
from palmkit.names import one_spelling
from palmkit.tables import DatasetError

# What libsndfile decodes.
SUFFIXES = {
    *(".aif", ".aifc", ".aiff", ".au", ".avr", ".bwf", ".caf", ".flac", ".htk", ".ircam", ".mp2"),
    *(".mp3", ".nist", ".oga", ".ogg", ".opus", ".paf", ".pvf", ".rf64", ".sds", ".snd", ".sph"),
    *(".svx", ".voc", ".w64", ".wav", ".wave", ".wve"),
}
# What ffmpeg decodes, where it is installed.
FFMPEG_SUFFIXES = {
    *(".3gp", ".aac", ".ac3", ".amr", ".ape", ".m4a", ".mka", ".mov", ".mp4", ".spx"),
    *(".tta", ".webm", ".wma", ".wv"),
}
# Files of other kinds that lie beside recordings. A folder of these alone is no class.
OTHER_SUFFIXES = {
    *(".bat", ".bib", ".cfg", ".csv", ".doc", ".docx", ".gif", ".gz", ".htm", ".html", ".ini"),
    *(".ipynb", ".jams", ".jpeg", ".jpg", ".json", ".jsonl", ".lab", ".log", ".mat", ".md"),
    *(".npy", ".npz", ".parquet", ".pdf", ".pkl", ".png", ".pt", ".py", ".pyc", ".rst", ".rtf"),
    *(".sh", ".srt", ".svg", ".tar", ".textgrid", ".tex", ".tgz", ".toml", ".tsv", ".txt"),
    *(".xls", ".xlsx", ".xml", ".yaml", ".yml", ".zip"),
}
# Folders that systems and archives leave behind, and the noise of Speech Commands.
IGNORED_FOLDERS = {
    *("__macosx", "__pycache__", "@eadir", "@recycle", "@recently-snapshot", "#recycle"),
    *("#snapshot", "$recycle.bin", "system volume information", "lost+found"),
    "_background_noise_",
}
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
}
DEVELOPMENT = ("dev", "development")  # to validate beside "train"; elsewhere to train on: refused
# Words around that of a split: "train_set", "audio_test".
AROUND = r"(?:set|data|audio|sounds?|wavs?|clips|files|split)"
AROUND_SPLIT = re.compile(rf"(?:{AROUND}[ _-])?(.+?)(?:[ _-]?{AROUND})?")
FOLD = re.compile(r"(?:(?:fold|split)[ _-]?)?0*(\d+)(?:\.0)?", re.ASCII | re.IGNORECASE)
LIST_COLUMNS = ("labels", "positive_labels", "tags")  # names of columns with several classes each
SHOWN = 3  # of many names in one message
SURE = 100  # by so many more files of another layout it is clear that a folder is not of this one


@dataclass(frozen=True)
class Split:
    """The rows (path, classname) of a split; fold None is a single split."""

    fold: int | None
    train: pd.DataFrame
    test: pd.DataFrame
    validation: pd.DataFrame | None = None

    def parts(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """(name, rows) of each part that there is."""
        yield "train", self.train
        yield "test", self.test
        if self.validation is not None and len(self.validation):
            yield "validation", self.validation


@dataclass(frozen=True)
class Recordings:
    """Recordings with their classes, before they are split.

    source: the folder or CSV that they come from. base: the folder that paths are relative to.
    layout: what was recognised. clips: path, classname, and perhaps split (train, test or
    validation), fold (a number) or columns to group by; indexed by the row of a CSV.
    splits: official splits, where columns cannot say them. grouped_by: what the column `group` is.
    notes: what the user should know.
    """

    source: Path
    base: Path
    layout: str
    clips: pd.DataFrame
    splits: tuple[Split, ...] = ()
    grouped_by: str = ""
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.source.stem if self.source.is_file() else self.source.name

    def rename_classes(self, spelling: dict[str, str]) -> Recordings:
        """The same with other names of classes, in the splits too."""

        def rename(frame: pd.DataFrame | None) -> pd.DataFrame | None:
            if frame is None:
                return None
            return frame.assign(classname=frame["classname"].map(spelling))

        splits = tuple(
            Split(one.fold, rename(one.train), rename(one.test), rename(one.validation))
            for one in self.splits
        )
        return replace(self, clips=rename(self.clips), splits=splits)

    def with_one_spelling(self) -> Recordings:
        """The same with one spelling for names that differ in their form of Unicode only."""
        spelling = one_spelling(self.clips["classname"])
        if all(name == spelt for name, spelt in spelling.items()):
            return self
        return self.rename_classes(spelling)


def name_some(names: Iterable, shown: int = SHOWN) -> str:
    """The first of several names, and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


# Files and folders.


def sound_suffixes() -> frozenset[str]:
    """Suffixes of the files that can be decoded here."""
    return _suffixes(os.environ.get("PATH", ""))


@functools.cache
def _suffixes(path: str) -> frozenset[str]:
    return frozenset(SUFFIXES | (FFMPEG_SUFFIXES if shutil.which("ffmpeg", path=path) else set()))


def is_sound(path: Path) -> bool:
    """Whether a file's name is that of a recording."""
    return path.suffix.lower() in sound_suffixes() and not path.name.startswith(".")


def is_ignored(name: str) -> bool:
    """Whether a folder is hidden, or one that a system left behind."""
    return name.startswith(".") or name.lower() in IGNORED_FOLDERS


def list_folders(path: Path) -> list[Path]:
    """The folders in a folder that may be classes, sorted. Raises DatasetError."""
    try:
        return sorted(one for one in path.iterdir() if one.is_dir() and not is_ignored(one.name))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}): make it readable") from error


def list_files(folder: Path) -> list[Path]:
    """All files below a folder, sorted; none that is hidden or in an ignored folder.

    Links to folders are not followed. Raises DatasetError for a folder that cannot be read.
    """
    files = []

    def refuse(error: OSError):
        raise DatasetError(f"{error.filename} cannot be read ({error.strerror})") from error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not is_ignored(name)]
        files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.is_file())


def list_sounds(folder: Path) -> list[Path]:
    """The recordings below a folder, sorted, as `list_files` lists them."""
    return [file for file in list_files(folder) if is_sound(file)]


def has_sounds(folder: Path) -> bool:
    """Whether there is a recording below a folder."""
    return next(_walk_sounds(folder), None) is not None


def most_sounds(folder: Path, is_right: Callable[[Path], bool]) -> bool:
    """Whether `is_right` is true of more than half of the recordings below a folder.

    A copy or a note of one's own beside thousands of recordings does not make another dataset.
    """
    right = wrong = 0
    for path in _walk_sounds(folder):
        if is_right(path):
            right += 1
        else:
            wrong += 1
        if wrong > right + SURE:
            return False
    return right > wrong


def _walk_sounds(folder: Path) -> Iterator[Path]:
    """The recordings below a folder, one after the other, in no order."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_ignored(name)]
        paths = [Path(place, name) for name in names]
        yield from (path for path in paths if is_sound(path) and path.is_file())


def check_text(path: Path | str, kind: str) -> None:
    """Raise DatasetError for a name that no table in UTF-8 can hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("latin-1")
        raise DatasetError(
            f"the name of the {kind} {shown!r} is not in UTF-8: rename it, or use a UTF-8 locale"
        ) from None


# Words of splits and numbers of folds.


def read_split_words(words: Iterable[str]) -> dict[str, str] | None:
    """{word: train, test or validation}; None if one of them is no such word.

    "train_set" and "audio_train" are as "train". "dev" is a validation split only beside a training
    split.
    """
    words = set(words)
    found = {word: _read_split_word(word.strip().lower()) for word in words}
    for word in words:
        if word.strip().lower() in DEVELOPMENT and "train" in found.values():
            found[word] = "validation"
    return found if words and all(found.values()) else None


def _read_split_word(word: str) -> str | None:
    inside = AROUND_SPLIT.fullmatch(word)
    return SPLIT_WORDS.get(word) or (SPLIT_WORDS.get(inside[1]) if inside else None)


def read_fold(word: str) -> int | None:
    """The number of a fold: 3 for "3", "3.0", "fold3" and "Fold 03"; None for another word."""
    match = FOLD.fullmatch(word.strip())
    return int(match[1]) if match else None


# Classes.


def check_classes(recordings: Recordings) -> None:
    """Raise DatasetError if the names of the classes make no classification task."""
    path, names = recordings.source, sorted(recordings.clips["classname"].unique())
    for name in names:
        check_text(name, "class")
        if not name.strip():
            raise DatasetError(f"{path}: a class is named {name!r}: give it a name")
    if len(names) < 2:
        inner = f". If the classes are folders inside of {names[0]}, give that" if names else ""
        raise DatasetError(
            f"{path} has the classes {names}; a task needs two or more, with audio files (.wav, "
            f".flac, .mp3, ...) in each{inner}"
        )
    if several := list_multi_label(names):
        raise DatasetError(
            f"{path}: clips have several classes each, {name_some(map(repr, several))} for "
            "example; such multi-label data cannot be used: keep one class for each clip"
        )
    if same := indistinguishable_names(names):
        raise DatasetError(
            f"{path}: the class names {' and '.join(map(repr, same[0]))} differ in case, "
            "spaces or invisible characters only; give one class one spelling"
        )


def refuse_lists(path: Path, column: str, cells: pd.Series) -> None:
    """Raise DatasetError for a list of classes in a column whose name promises lists."""
    listed = cells.str.contains("[,;|]") & (column.lower() in LIST_COLUMNS)
    if listed.any():
        raise DatasetError(
            f"{path}, row {cells.index[listed][0]}: the column `{column}` has the classes "
            f"{cells[listed].iloc[0]!r}; such multi-label data cannot be used: keep one class for "
            "each clip"
        )


def list_multi_label(names: list[str]) -> list[str]:
    """Names that list other classes: "cat|dog" beside "cat" and "dog", or "['cat', 'dog']".

    After commas and semicolons every part must be a class by itself: "rain, heavy" is a name.
    After | a part that another name has too is enough.
    """
    whole, found = set(names), []
    parts = {name: [part.strip() for part in name.split("|")] for name in names}
    common = Counter(part for split in parts.values() for part in set(split))
    for name in names:
        listed = name.strip().startswith("[") and name.strip().endswith("]")
        barred = len(parts[name]) > 1 and all(common[part] > 1 for part in parts[name])
        split = [part.strip() for part in re.split("[,;]", name)]
        if listed or barred or (len(split) > 1 and set(split) <= whole):
            found.append(name)
    return found
