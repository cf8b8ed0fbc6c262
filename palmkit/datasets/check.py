"""What is known to go wrong with a dataset, looked for before hours are spent on it."""

from __future__ import annotations

import concurrent.futures
import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from palmkit import audio
from palmkit.checksums import verify_folder
from palmkit.data import indistinguishable_names, split_folder
from palmkit.datasets.filenames import parse_file_name
from palmkit.datasets.resolve import find_dataset, list_folds
from palmkit.published import paper_datasets
from palmkit.storage import progress_bar
from palmkit.tables import DatasetError, read_table, row_problems

SILENT = 1e-4  # a peak of -80 dB of full scale
VERY_SHORT = 0.1  # seconds; a clip is repeated until it fills seven
SHOWN = 5  # of many findings of one kind in one place
SEVERITIES = ("error", "warning", "note")  # it cannot be used; a number may be wrong; worth knowing
CLIPS = ["path", "rate", "channels", "seconds", "peak", "content"]


@dataclass(frozen=True)
class Check:
    """What `check_dataset` found. `.ok` says that nothing keeps the dataset from being used.

    findings: severity, where, what, advice. folds: fold, train, test, published_test, classes, fewest (training clips
    of a class). clips: path, rate (Hz), channels, seconds, peak, content (a digest of the samples).
    """

    name: str
    findings: pd.DataFrame
    folds: pd.DataFrame
    clips: pd.DataFrame

    @property
    def ok(self) -> bool:
        return not (self.findings["severity"] == "error").any()

    def glance(self) -> pd.DataFrame:
        """Files by sample rate and channels: how many, and how long (seconds)."""
        heard = self.clips.dropna(subset="rate").astype({"rate": int, "channels": int})
        lengths = (
            heard.groupby(["rate", "channels"])["seconds"]
            .agg(["count", "min", "median", "max"])
            .round(2)
        )
        return lengths.rename(columns={"count": "files"}).reset_index()


class _Findings(list):
    """Lines of (severity, where, what, advice)."""

    def error(self, *line):
        self.append(("error", *line))

    def warning(self, *line):
        self.append(("warning", *line))

    def note(self, *line):
        self.append(("note", *line))


def check_dataset(dataset, shots: int = 16, listen: bool = True) -> Check:
    """Look a dataset over: layout, tables, classes, counts, folds, leakage, and (with `listen`) every audio file.

    dataset: a folder or name as `load_dataset` takes it. shots: clips a class that training will draw.
    Whatever is wrong becomes a finding with what to do; only a folder that is not there raises DatasetError.
    """
    root, found = find_dataset(dataset), _Findings()
    facts = paper_datasets().get(root.name)
    if problem := verify_folder(root):
        found.error("lock", problem, "Fetch the dataset again; until then it is not loaded")
    folds = {
        fold: parts for fold in list_folds(root) if len(parts := _read_fold(root, fold, found)) == 2
    }
    paths = sorted(
        {path for parts in folds.values() for frame in parts.values() for path in frame["path"]}
    )
    clips = _listen(root, paths, found) if listen else pd.DataFrame({"path": paths})
    _check_layout(root, [*folds], facts, paths, found)
    for fold, parts in folds.items():
        _check_fold(fold, parts, shots, found)
        _check_facts(fold, parts, facts, found)
        _check_leakage(fold, parts, clips, found)
    _check_across(folds, found)
    table = pd.DataFrame(found, columns=["severity", "where", "what", "advice"])
    table = table.sort_values(
        "severity", key=lambda s: s.map(SEVERITIES.index), kind="stable", ignore_index=True
    )
    return Check(root.name, table, _count(folds, facts), clips.reindex(columns=CLIPS))


def _place(fold) -> str:
    return "the split" if fold is None else f"fold {fold}"


def _some(items) -> str:
    items = [str(item) for item in items]
    return ", ".join(items[:SHOWN]) + (
        f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    )


def _read_fold(root: Path, fold, found: _Findings) -> dict[str, pd.DataFrame]:
    """The train and test tables (path, class_name) without their bad rows, which become findings."""
    folder, suffix = split_folder(root, fold)
    parts = {}
    for part in ("train", "test"):
        path = folder / f"{part}{suffix}.csv"
        where = path.relative_to(root).as_posix()
        try:
            rows = read_table(path)
        except (DatasetError, OSError) as error:
            found.error(where, str(error), "Fetch the dataset again, or mend the table")
            continue
        bad = dict(row_problems(root, rows))
        for line, problem in [*bad.items()][:SHOWN]:
            found.error(
                f"{where}, row {line}", problem, "Mend or remove the row, or fetch the file"
            )
        if len(bad) > SHOWN:
            found.error(
                where, f"{len(bad)} of {len(rows)} rows are bad", "See the first of them, above"
            )
        good = [
            (os.path.normpath(row["path"]), row["classname"])
            for line, row in rows
            if line not in bad
        ]
        parts[part] = pd.DataFrame(good, columns=["path", "class_name"])
    return parts


def _check_layout(root: Path, folds: list, facts, paths: list[str], found: _Findings) -> None:
    single = [folder for folder in (root, root / "csv_files") if (folder / "train.csv").is_file()]
    if facts and facts.folds > 1:
        if folds == [None]:
            what = f"one split, but the paper's numbers are means over {facts.folds} folds"
            found.warning(
                "layout",
                what,
                "Use train_K.csv and test_K.csv of each fold; the single split came later",
            )
        elif len(folds) != facts.folds:
            what = f"{len(folds)} whole folds, the paper has {facts.folds}"
            found.warning(
                "layout",
                what,
                "Fetch the tables of the missing folds, or quote no mean over all folds",
            )
    if single and folds and folds != [None]:
        found.note("layout", "there is a single split beside the folds", "Nothing: it is not used")
    if len(single) == 2 and folds == [None]:
        texts = [
            [(folder / f"{part}.csv").read_bytes() for part in ("train", "test")]
            for folder in single
        ]
        if texts[0] != texts[1]:
            what = "the split in csv_files/ is another than the one above it"
            found.warning(
                "layout",
                what,
                "Nothing, if the paper's is meant: that is the one above, which is used",
            )
    suffixes = {Path(path).suffix for path in paths}
    there = {
        path.relative_to(root).as_posix()
        for path in root.glob("audios/**/*")
        if path.suffix in suffixes
    }
    if unused := sorted(there - {Path(path).as_posix() for path in paths}):
        found.note(
            "audios",
            f"{len(unused)} files are in no table: {_some(unused)}",
            "Nothing: they are not used",
        )


def _check_fold(fold, parts: dict, shots: int, found: _Findings) -> None:
    where, train, test = _place(fold), parts["train"], parts["test"]
    classes = set(train["class_name"]), set(test["class_name"])
    for part, only in (("train", classes[0] - classes[1]), ("test", classes[1] - classes[0])):
        if only:
            found.error(
                where,
                f"classes only in {part}: {_some(sorted(only))}",
                "Mend the tables: both need every one",
            )
    for names in indistinguishable_names(sorted(classes[0] | classes[1])):
        what = f"class names {' and '.join(map(repr, names))} differ in case or spaces only"
        found.error(where, what, "Give one class one spelling: the text encoder reads them alike")
    counts = train["class_name"].value_counts().sort_index()
    if len(few := counts[counts < shots]):
        what = f"fewer than {shots} clips to train on: {_some(f'{name} ({n})' for name, n in few.items())}"
        found.warning(
            where,
            what,
            "Such classes give all they have, as in the published code: say so with the number",
        )
    if fold is not None and len(test) > len(train):
        what = (
            f"more clips to test ({len(test)}) than to train ({len(train)}): the two look swapped"
        )
        found.warning(
            where,
            what,
            "Quote results with and without such folds, as the results table does for TUT2017",
        )


def _check_facts(fold, parts: dict, facts, found: _Findings) -> None:
    """Class names and the number of test clips against the published ones."""
    if not facts:
        return
    where, names = _place(fold), {name for frame in parts.values() for name in frame["class_name"]}
    here, there = sorted(names - set(facts.class_names)), sorted(set(facts.class_names) - names)
    if here or there:
        pairs = indistinguishable_names([*here, *there])
        what = (
            "class names are spelt otherwise"
            if len(pairs) == len(here) == len(there)
            else "classes are others"
        )
        found.warning(
            where,
            f"{what} than published: here {_some(map(repr, here)) or 'none'}, published {_some(map(repr, there))}",
            "Use the published names: zero-shot reads them, and their order decides the draw",
        )
    published = _published_test(fold, facts)
    if published not in (None, len(parts["test"])):
        what = f"{len(parts['test'])} test clips, the published logs have {published}"
        found.warning(
            where, what, "This is another revision, or not whole: fetch it again before comparing"
        )


def _published_test(fold, facts) -> int | None:
    """Test clips of a fold in the published logs; None if they have no such fold."""
    return dict(zip(facts.fold_numbers, facts.test_clips, strict=True)).get(fold) if facts else None


def _listen(root: Path, paths: list[str], found: _Findings) -> pd.DataFrame:
    """Decode every file, several at a time; unreadable, silent and very short ones become findings."""

    def hear(path):
        try:
            samples, rate = audio.read_samples(audio.read_bytes(root / path), path)
        except audio.AudioError as error:
            return str(error)
        content = audio.digest(f"{rate} {list(samples.shape)}".encode() + samples.numpy().tobytes())
        return (
            path,
            rate,
            len(samples),
            samples.shape[1] / rate,
            float(samples.abs().max()),
            content,
        )

    heard, workers = [], min(8, os.cpu_count() or 1)
    bar = progress_bar(len(paths), f"check {root.name}", "clip")
    with bar, concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for result in pool.map(hear, paths):
            heard.append(result)
            bar.update()
    bad = [message for message in heard if isinstance(message, str)]
    for message in bad[:SHOWN]:
        found.error("audios", message, "Fetch the file again, or remove its row")
    if len(bad) > SHOWN:
        found.error("audios", f"{len(bad)} files cannot be used", "See the first of them, above")
    clips = pd.DataFrame([line for line in heard if not isinstance(line, str)], columns=CLIPS)
    for chosen, what in (
        (clips["peak"] < SILENT, "are silent (peak under -80 dB)"),
        (clips["seconds"] < VERY_SHORT, f"are shorter than {VERY_SHORT} s"),
    ):
        if chosen.any():
            what = f"{chosen.sum()} files {what}: {_some(clips['path'][chosen])}"
            found.warning(
                "audios", what, "Listen to them; fetch damaged ones again, or remove their rows"
            )
    if count := (clips["channels"] > 1).sum():
        what = f"{count} files have several channels"
        found.note("audios", what, "Nothing: as published, channels are put one after the other")
    if count := (
        clips["seconds"] * clips["channels"] > audio.CLIP_SAMPLES / audio.SAMPLE_RATE
    ).sum():
        what = f"{count} files are longer than 7 s (channels one after the other)"
        found.note(
            "audios",
            what,
            "Nothing: a random part is heard, as published; --crop center makes it the middle",
        )
    return clips


def _check_leakage(fold, parts: dict, clips: pd.DataFrame, found: _Findings) -> None:
    """Test clips that training has heard: by path, by content, and by recording or speaker where names tell it."""
    where = _place(fold)
    train, test = (list(parts[part]["path"]) for part in ("train", "test"))
    if same := sorted(set(train) & set(test)):
        found.error(
            where,
            f"{len(same)} clips are in train and test: {_some(same)}",
            "Take them out of train",
        )
    if "content" in clips:
        content = dict(zip(clips["path"], clips["content"], strict=True))
        trained = {content[path]: path for path in train if path in content}
        twins = [(trained[content[path]], path) for path in test if content.get(path) in trained]
        if twins := [f"{a} = {b}" for a, b in twins if a != b]:
            what = (
                f"{len(twins)} test clips have the very samples of a training clip: {_some(twins)}"
            )
            found.warning(where, what, "Take the copies out of train, or say so with the number")
    for kind, report in (("recording", found.warning), ("speaker", found.note)):
        heard, asked = (
            [parse_file_name(path).get(kind) for path in paths] for paths in (train, test)
        )
        shared = set(filter(None, heard)) & set(asked)
        if count := sum(name in shared for name in asked):
            what = f"{count} of {len(asked)} test clips share their {kind} with training clips ({len(shared)} {kind}s)"
            report(
                where,
                what,
                "Accuracy is higher than on a new one; where the published split is so, say it",
            )


def _check_across(folds: dict, found: _Findings) -> None:
    """Folds against each other: a clip is tested once, and classes are the same."""
    if len(folds) < 2:
        return
    tested = pd.concat([parts["test"]["path"] for parts in folds.values()])
    if again := sorted(tested[tested.duplicated()].unique()):
        what = f"{len(again)} clips are tested in several folds: {_some(again)}"
        found.warning(
            "folds",
            what,
            "The folds do not partition the clips: their mean weighs some of them more",
        )
    if len({frozenset(parts["test"]["class_name"]) for parts in folds.values()}) > 1:
        found.warning("folds", "folds have different classes", "Do not average over them")


def _count(folds: dict, facts) -> pd.DataFrame:
    lines = []
    for fold, parts in folds.items():
        counts = parts["train"]["class_name"].value_counts()
        sizes = [len(parts[part]) for part in ("train", "test")]
        lines.append(
            (
                fold,
                *sizes,
                _published_test(fold, facts),
                len(counts),
                counts.min() if len(counts) else 0,
            )
        )
    table = pd.DataFrame(
        lines, columns=["fold", "train", "test", "published_test", "classes", "fewest"]
    )
    return table.astype({"fold": "Int64", "published_test": "Int64"})
