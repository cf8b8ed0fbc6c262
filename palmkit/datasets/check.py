"""Check a dataset before hours are spent on it: tables, classes, folds, leakage, audio files."""

from __future__ import annotations

import concurrent.futures
import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from palmkit.audio import AudioError
from palmkit.channels import model_channels
from palmkit.checksums import verify_folder
from palmkit.data import indistinguishable_names
from palmkit.datasets.filenames import parse_file_name
from palmkit.datasets.import_folder import read_notes
from palmkit.datasets.recordings import list_multi_label, name_some
from palmkit.datasets.resolve import find_dataset
from palmkit.models.encoders import tokenize
from palmkit.models.pengi import Pengi
from palmkit.names import one_spelling
from palmkit.published import paper_datasets
from palmkit.resampling import uses_soxr
from palmkit.sound_files import scan
from palmkit.storage import map_in_chunks, progress_bar
from palmkit.tables import SPLITS, DatasetError, find_folds, read_table, resolve_rows, split_path

SILENT = 1e-4  # a peak of -80 dB of full scale
LOUD = 2  # a peak; full scale is 1, and decoders of MP3 and Ogg go a little over it
VERY_SHORT = 0.1  # seconds; a short clip is repeated until it fills the model's clip length
DECODING_THREADS = 8
SHOWN = 5  # of many findings of one kind in one place
# A dataset with an error cannot be used; with a warning, a number may be wrong.
SEVERITIES = ("error", "warning", "note")
CONTEXT_TOKENS = 40  # of PENGI's text encoder, start and end included
CLIP_COLUMNS = ["path", "rate", "channels", "seconds", "peak", "content"]
FINDING_COLUMNS = ["severity", "where", "what", "advice"]


@dataclass(frozen=True)
class Check:
    """What `check_dataset` found. `.ok`: no finding is an error.

    findings: severity, where, what, advice.
    folds: fold, train, test (clips), published_test (test clips in the published logs), classes,
        fewest (training clips of the rarest class).
    clips: path, rate (Hz), channels, seconds, peak, content (a digest of the samples).
    class_names: class_name, tokens (of CLIP's tokenizer), tokens_with_spaces (for underscores).
    """

    name: str
    findings: pd.DataFrame
    folds: pd.DataFrame
    clips: pd.DataFrame
    class_names: pd.DataFrame

    @property
    def ok(self) -> bool:
        return not (self.findings["severity"] == "error").any()

    def summarise_clips(self) -> pd.DataFrame:
        """Files by sample rate and channels: how many, and how long (seconds)."""
        decoded = self.clips.dropna(subset="rate").astype({"rate": int, "channels": int})
        seconds = decoded.groupby(["rate", "channels"])["seconds"]
        table = seconds.agg(["count", "min", "median", "max"]).round(2)
        return table.rename(columns={"count": "files"}).reset_index()


class _Findings(list):
    """Rows of (severity, where, what, advice)."""

    def error(self, where: str, what: str, advice: str) -> None:
        self.append(("error", where, what, advice))

    def warning(self, where: str, what: str, advice: str) -> None:
        self.append(("warning", where, what, advice))

    def note(self, where: str, what: str, advice: str) -> None:
        self.append(("note", where, what, advice))

    def table(self) -> pd.DataFrame:
        """Sorted by severity."""
        table = pd.DataFrame(self, columns=FINDING_COLUMNS)
        rank = table["severity"].map(SEVERITIES.index)
        return table.loc[rank.sort_values(kind="stable").index].reset_index(drop=True)


@dataclass(frozen=True)
class _Fold:
    """The good rows of a fold's two tables: path below the folder, class_name."""

    number: int | None
    train: pd.DataFrame
    test: pd.DataFrame

    @property
    def place(self) -> str:
        return "the split" if self.number is None else f"fold {self.number}"

    @property
    def class_names(self) -> set[str]:
        return {*self.train["class_name"], *self.test["class_name"]}


def check_dataset(
    dataset,
    shots: int = 16,
    decode: bool = True,
    clip_seconds: float | None = None,
    sample_rate: int | None = None,
    model=None,
    **reading,
) -> Check:
    """Check a dataset: layout, tables, classes, counts, folds, leakage, and every audio file.

    dataset: a folder or name, as `load_dataset` takes it.
    shots: clips per class that training will draw.
    decode: False skips the audio files.
    model: the AudioTextModel that the clips are for; None is PENGI. Longer clips than its own are
        cropped, clips of other rates resampled, and its text encoder must take the class names.
    clip_seconds, sample_rate: instead of the model's.
    reading: how to read a CSV, as in `find_dataset`: path_column, ..., root, underscores.

    A fault becomes a finding with advice. Only an unknown dataset raises DatasetError.
    """
    encoder = Pengi if model is None else model
    root, found = find_dataset(dataset, **reading), _Findings()
    name = Path(os.path.abspath(root)).name
    facts = paper_datasets().get(name)
    if problem := verify_folder(root):
        found.error("checksums", problem, "Fetch the dataset again; until then it is not loaded")
    folds = _read_folds(root, found)
    paths = sorted({path for fold in folds for path in [*fold.train["path"], *fold.test["path"]]})
    clips = pd.DataFrame({"path": paths})
    if decode:
        clips = _decode(root, name, paths, found)
        seconds = clip_seconds or encoder.clip_seconds
        rate = sample_rate or encoder.sample_rate
        _check_audio(clips, seconds, rate, model_channels(encoder), found)
    _check_published_folds(folds, facts, found)
    _check_layout(root, folds, paths, found)
    _check_folds(folds, shots, facts, clips, found)
    _check_parts(root, folds, found)
    names = count_tokens({name for fold in folds for name in fold.class_names})
    _check_names(names, facts, model, found)
    clips = clips.reindex(columns=CLIP_COLUMNS)
    return Check(name, found.table(), _count(folds, facts), clips, names)


def _check_folds(folds: list[_Fold], shots: int, facts, clips, found: _Findings) -> None:
    """Each fold by itself, then all of them together."""
    for fold in folds:
        _check_fold(fold, shots, found)
        _check_facts(fold, facts, found)
        _check_leakage(fold, clips, found)
    _check_across(folds, found)


def _some(items) -> str:
    return name_some(items, SHOWN)


def _read_folds(root: Path, found: _Findings) -> list[_Fold]:
    """The folds that have both tables."""
    folds = []
    for number in find_folds(root):
        tables = {split: _read_good_rows(root, split, number, found) for split in SPLITS}
        if all(table is not None for table in tables.values()):
            names = [name for table in tables.values() for name in table["class_name"]]
            spelling = one_spelling(names)
            for table in tables.values():
                table["class_name"] = table["class_name"].map(spelling)
            folds.append(_Fold(number, **tables))
    return folds


def _read_good_rows(root: Path, split: str, number, found: _Findings) -> pd.DataFrame | None:
    """A table (path, class_name) without its bad rows, which become findings."""
    path = split_path(root, split, number)
    where = path.relative_to(root).as_posix()
    try:
        rows = read_table(path)
    except DatasetError as error:
        found.error(where, str(error), "Fetch the dataset again, or correct the table")
        return None
    resolved = list(resolve_rows(root, rows))
    bad = {line: problem for line, _, problem in resolved if problem}
    for line, problem in [*bad.items()][:SHOWN]:
        what, _, advice = problem.rpartition("; ")
        found.error(f"{where}, row {line}", what, advice[:1].upper() + advice[1:])
    if len(bad) > SHOWN:
        what = f"{len(bad)} of {len(rows)} rows are bad"
        found.error(where, what, "See the first of them, above")
    good = [
        (os.path.normpath(row["path"]), row["classname"])
        for _, row, problem in resolved
        if not problem
    ]
    return pd.DataFrame(good, columns=["path", "class_name"])


def _check_published_folds(folds: list[_Fold], facts, found: _Findings) -> None:
    """The number of folds against the paper's."""
    if not facts or facts.folds == 1 or len(folds) == facts.folds:
        return
    if [fold.number for fold in folds] == [None]:
        what = f"one split, but the paper's numbers are means over {facts.folds} folds"
        advice = "Use train_K.csv and test_K.csv of each fold; the single split came later"
    else:
        what = f"{len(folds)} whole folds, the paper has {facts.folds}"
        advice = "Fetch the tables of the missing folds, or quote no mean over all folds"
    found.warning("layout", what, advice)


def _check_layout(root: Path, folds: list[_Fold], paths: list[str], found: _Findings) -> None:
    """Single splits beside the tables in use, and files in no table."""
    single = [folder for folder in (root, root / "csv_files") if (folder / "train.csv").is_file()]
    has_folds = any(fold.number is not None for fold in folds)
    if single and has_folds:
        found.note("layout", "there is a single split beside the folds", "Nothing: it is not used")
    if len(single) == 2 and folds and not has_folds and _differ(*single):
        what = "the split in csv_files/ is another than the one above it"
        advice = "Nothing, if the paper's is meant: that is the one above, which is used"
        found.warning("layout", what, advice)
    suffixes = {Path(path).suffix for path in paths}
    there = {
        path.relative_to(root).as_posix()
        for path in root.glob("audios/**/*")
        if path.suffix in suffixes and path.is_file()
    }
    if unused := sorted(there - {Path(path).as_posix() for path in paths}):
        what = f"{len(unused)} files are in no table: {_some(unused)}"
        found.note("audios", what, "Nothing: they are not used")


def _differ(one: Path, other: Path) -> bool:
    """Whether two folders have other tables of a single split."""

    def read(path: Path) -> bytes | None:
        return path.read_bytes() if path.is_file() else None

    return any(read(one / f"{split}.csv") != read(other / f"{split}.csv") for split in SPLITS)


def _check_fold(fold: _Fold, shots: int, found: _Findings) -> None:
    """Classes and counts of one fold."""
    train, test = set(fold.train["class_name"]), set(fold.test["class_name"])
    for split, only in (("train", train - test), ("test", test - train)):
        if only:
            what = f"classes only in {split}: {_some(sorted(only))}"
            found.error(fold.place, what, "Correct the tables: both need every class")
    if len(train | test) == 1:
        what = f"one class only: {_some(train | test)}"
        found.error(fold.place, what, "Add clips of another class to both tables")
    for names in indistinguishable_names(sorted(train | test)):
        shown = " and ".join(map(repr, names))
        what = f"class names {shown} differ in case, spaces or invisible characters only"
        advice = (
            "Give one class one spelling: the text encoder or the reader does not tell them apart"
        )
        found.error(fold.place, what, advice)
    counts = fold.train["class_name"].value_counts().sort_index()
    if len(few := counts[counts < shots]):
        names = _some(f"{name} ({count})" for name, count in few.items())
        what = f"fewer than {shots} clips to train on: {names}"
        advice = "Such classes give all they have, as in the published code: say so with the number"
        found.warning(fold.place, what, advice)
    if fold.number is not None and len(fold.test) > len(fold.train):
        clips = f"more clips to test ({len(fold.test)}) than to train ({len(fold.train)})"
        advice = "Quote results with and without such folds, as the results table does for TUT2017"
        found.warning(fold.place, f"{clips}: the two look swapped", advice)


def _check_facts(fold: _Fold, facts, found: _Findings) -> None:
    """Class names and the number of test clips against the published ones."""
    if not facts:
        return
    here = sorted(fold.class_names - set(facts.class_names))
    there = sorted(set(facts.class_names) - fold.class_names)
    if here or there:
        same = len(indistinguishable_names([*here, *there])) == len(here) == len(there)
        what = "class names are spelt otherwise" if same else "classes are others"
        names = f"here {_some(map(repr, here)) or 'none'}"
        names += f", published {_some(map(repr, there)) or 'none'}"
        advice = "Use the published names: zero-shot reads them, and their order decides the draw"
        found.warning(fold.place, f"{what} than published: {names}", advice)
    published = _published_test(fold, facts)
    if published not in (None, len(fold.test)):
        what = f"{len(fold.test)} test clips, the published logs have {published}"
        advice = "This is another revision, or not whole: fetch it again before comparing"
        found.warning(fold.place, what, advice)


def _published_test(fold: _Fold, facts) -> int | None:
    """Test clips of a fold in the published logs; None if they have no such fold."""
    if not facts:
        return None
    return dict(zip(facts.fold_numbers, facts.test_clips, strict=True)).get(fold.number)


def _decode(root: Path, name: str, paths: list[str], found: _Findings) -> pd.DataFrame:
    """Decode every file, several at a time: CLIP_COLUMNS. Unreadable files become findings."""

    def decode_one(path: str) -> dict:
        try:
            sound = scan(root / path)
        except AudioError as error:
            return {"error": str(error).replace(f"{root / path}", path, 1)}
        return {
            "path": path,
            "rate": sound.rate,
            "channels": sound.channels,
            "seconds": sound.frames / sound.rate,
            "peak": sound.peak,
            "content": sound.content,
        }

    decoded, workers = [], min(DECODING_THREADS, os.cpu_count() or 1)
    bar = progress_bar(len(paths), f"check {name}", "clip")
    with bar, concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for result in map_in_chunks(pool, decode_one, paths, size=16):
            decoded.append(result)
            bar.update()
    bad = [clip["error"] for clip in decoded if "error" in clip]
    for message in bad[:SHOWN]:
        found.error("audios", message, "Fetch the file again, or remove its row")
    if len(bad) > SHOWN:
        found.error("audios", f"{len(bad)} files cannot be used", "See the first of them, above")
    good = [clip for clip in decoded if "error" not in clip]
    return pd.DataFrame(good, columns=CLIP_COLUMNS)


def _check_audio(
    clips: pd.DataFrame, clip_seconds: float, sample_rate: int, channels: str, found: _Findings
) -> None:
    """Silent, loud, very short, long and multi-channel files, and odd sample rates."""
    for chosen, what in (
        (clips["peak"] < SILENT, "are silent (peak under -80 dB)"),
        (clips["seconds"] < VERY_SHORT, f"are shorter than {VERY_SHORT} s"),
    ):
        if chosen.any():
            what = f"{chosen.sum()} files {what}: {_some(clips['path'][chosen])}"
            advice = "Listen to them; fetch damaged ones again, or remove their rows"
            found.warning("audios", what, advice)
    if (loud := clips["peak"] > LOUD).any():
        shown = _some(f"{row.path} ({row.peak:.3g})" for row in clips[loud].itertuples())
        what = f"{loud.sum()} files have peaks well over 1, which is full scale: {shown}"
        found.warning("audios", what, "Scale them to -1..1, or write them as integers")
    rates = clips["rate"].astype("Int64")
    if (odd := rates.map(lambda rate: uses_soxr(int(rate), sample_rate)).astype(bool)).any():
        shown = _some(
            f"{path} ({rate} Hz)" for path, rate in zip(clips["path"][odd], rates[odd], strict=True)
        )
        what = f"{odd.sum()} files have odd sample rates: {shown}"
        advice = "Nothing: soxr resamples them, not the published resampler; say so with the number"
        found.note("audios", what, advice)
    if count := (clips["channels"] > 1).sum():
        advice = {
            "join": "Nothing: as published, channels are put one after the other",
            "mix": "Nothing: the model takes their mean",
        }
        found.note("audios", f"{count} files have several channels", advice[channels])
    repeats, how = {
        "join": (clips["channels"], " (channels one after the other)"),
        "mix": (1, ""),
    }[channels]
    if count := (clips["seconds"] * repeats > clip_seconds).sum():
        what = f"{count} files are longer than {clip_seconds:g} s{how}"
        advice = "Nothing: as published, a random part is used; --crop center takes the middle"
        found.note("audios", what, advice)


def _check_leakage(fold: _Fold, clips: pd.DataFrame, found: _Findings) -> None:
    """Test clips that are in train: by path, by content, by recording or speaker."""
    train, test = list(fold.train["path"]), list(fold.test["path"])
    if same := sorted(set(train) & set(test)):
        what = f"{len(same)} clips are in train and test: {_some(same)}"
        found.error(fold.place, what, "Take them out of train")
    if "content" in clips:
        content = dict(zip(clips["path"], clips["content"], strict=True))
        trained = {content[path]: path for path in train if path in content}
        twins = [(trained[content[path]], path) for path in test if content.get(path) in trained]
        if twins := [f"{a} = {b}" for a, b in twins if a != b]:
            what = f"{len(twins)} test clips have the very samples of a training clip"
            advice = "Take the copies out of train, or say so with the number"
            found.warning(fold.place, f"{what}: {_some(twins)}", advice)
    for kind, report in (("recording", found.warning), ("speaker", found.note)):
        trained, tested = (
            [parse_file_name(path).get(kind) for path in paths] for paths in (train, test)
        )
        shared = set(filter(None, trained)) & set(tested)
        if count := sum(name in shared for name in tested):
            what = f"{count} of {len(tested)} test clips share their {kind} with training clips"
            advice = "Accuracy is higher than on a new one; where the published split is so, say it"
            report(fold.place, f"{what} ({len(shared)} {kind}s)", advice)


def _check_across(folds: list[_Fold], found: _Findings) -> None:
    """Folds against each other: each clip is tested once, and classes are the same."""
    if len(folds) < 2:
        return
    tested = pd.concat([fold.test["path"] for fold in folds])
    if again := sorted(tested[tested.duplicated()].unique()):
        what = f"{len(again)} clips are tested in several folds: {_some(again)}"
        advice = "The folds do not partition the clips: their mean weighs some of them more"
        found.warning("folds", what, advice)
    if len({frozenset(fold.test["class_name"]) for fold in folds}) > 1:
        found.warning("folds", "folds have different classes", "Do not average over them")


def _check_parts(root: Path, folds: list[_Fold], found: _Findings) -> None:
    """What an import left out or kept aside, and the validation split of another dataset."""
    notes = read_notes(root)
    for what in notes:
        found.note("import", what, "Nothing, if that is meant")
    kept = [split_path(root, "validation", fold.number) for fold in folds]
    if not any("validation" in note for note in notes) and any(path.is_file() for path in kept):
        what = "there is a validation split"
        found.note("layout", what, "Nothing: nothing trains or tests on it")


def count_tokens(class_names) -> pd.DataFrame:
    """The tokens of class names, without start and end: the `class_names` of a Check."""

    def count(name: str) -> int:
        # A token is a byte or more.
        _, mask = tokenize([name], len(name.encode()) + 2)
        return int(mask.sum()) - 2

    names = sorted(class_names)
    spaced = [name.replace("_", " ") for name in names]
    return pd.DataFrame(
        {
            "class_name": pd.Series(names, dtype=str),  # none, of a folder without tables
            "tokens": [count(name) for name in names],
            "tokens_with_spaces": [count(name) for name in spaced],
        }
    )


def _check_names(names: pd.DataFrame, facts, model, found: _Findings) -> None:
    """Underscores in class names, but for published ones, names that list several classes, and
    names that are too long for the model (None is PENGI).
    """
    published = facts.class_names if facts else ()
    has_underscore = names["class_name"].str.contains("_", regex=False)
    low = names[has_underscore & ~names["class_name"].isin(published)]
    if len(low):
        counts = _some(
            f"{one.class_name} ({one.tokens}, with spaces {one.tokens_with_spaces})"
            for one in low.itertuples()
        )
        what = f"{len(low)} class names have underscores, which are tokens: {counts}"
        advice = "--underscores space (underscores='space') writes spaces instead"
        found.note("class names", what, advice)
    if several := list_multi_label(list(names["class_name"])):
        what = f"class names list others, as multi-label data do: {_some(several)}"
        found.warning("class names", what, "Keep one class for each clip")
    if model is None:
        _check_length(names, found)
    else:
        _check_prompts(list(names["class_name"]), model, found)


def _check_length(names: pd.DataFrame, found: _Findings) -> None:
    """Names of more tokens than PENGI's text encoder takes."""
    most = CONTEXT_TOKENS - 2
    if len(long := names[names["tokens"] > most]):
        shown = _some(f"{one.class_name[:40]} ({one.tokens})" for one in long.itertuples())
        what = f"{len(long)} class names have more than {most} tokens: {shown}"
        advice = "Shorten them for PENGI, whose text encoder takes no more"
        found.warning("class names", what, advice)


def _check_prompts(names: list[str], model, found: _Findings) -> None:
    """Class names that a model's text encoder does not take in its own prompt."""
    if not names or _refusal(model, names) is None:  # one call, where all is well
        return
    reasons = {name: _refusal(model, [name]) for name in names}
    refused = [name for name, reason in reasons.items() if reason is not None]
    if refused:
        reason = reasons[refused[0]]
        what = f"{model.name} does not take {len(refused)} class names: {_some(refused)} ({reason})"
        found.warning("class names", what, "Shorten them, or take another model")


def _refusal(model, names: list[str]) -> str | None:
    """Why a model does not take these class names in its prompt; None if it does."""
    try:
        model.encode_text([model.prompt.format(name) for name in names])
    except ValueError as error:
        return str(error).partition("\n")[0]
    return None


def _count(folds: list[_Fold], facts) -> pd.DataFrame:
    """The `folds` of a Check."""
    rows = []
    for fold in folds:
        counts = fold.train["class_name"].value_counts()
        rows.append(
            {
                "fold": fold.number,
                "train": len(fold.train),
                "test": len(fold.test),
                "published_test": _published_test(fold, facts),
                "classes": len(counts),
                "fewest": counts.min() if len(counts) else 0,
            }
        )
    columns = ["fold", "train", "test", "published_test", "classes", "fewest"]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"fold": "Int64", "published_test": "Int64"})
