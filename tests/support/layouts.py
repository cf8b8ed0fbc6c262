"""Tiny stand-ins for published datasets in their exact layouts. A file holds its name, no sound."""

from __future__ import annotations

import csv
import json
from pathlib import Path


def put(path: Path, content: str | bytes | None = None) -> Path:
    """Write a file and its folders; by default its own path, so that no two files are equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = str(path) if content is None else content
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def put_table(path: Path, columns, rows, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows([columns, *rows])
    return path


def esc50(root: Path) -> Path:
    """Two classes, five folds."""
    rows = []
    for fold in range(1, 6):
        for target, category in ((0, "dog"), (14, "chirping_birds")):
            for take in "AB":
                source = 100_000 + 100 * fold + target
                name = f"{fold}-{source}-{take}-{target}.wav"
                put(root / "audio" / name)
                rows.append((name, fold, target, category, category == "dog", source, take))
    columns = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
    put_table(root / "meta" / "esc50.csv", columns, rows)
    put(root / "meta" / "esc50-human.xlsx")
    put(root / "README.md")
    return root


def urban_sound(root: Path) -> Path:
    """Two classes, ten folds; a file of another kind beside the clips, as published."""
    rows = []
    for fold in range(1, 11):
        put(root / "audio" / f"fold{fold}" / ".DS_Store")
        for label, name in ((0, "air_conditioner"), (3, "dog_bark")):
            for piece in range(2):
                source = 100_000 + 10 * fold + label
                file = f"{source}-{label}-0-{piece}.wav"
                put(root / "audio" / f"fold{fold}" / file)
                rows.append((file, source, 0.0, 4.0, 1, fold, label, name))
    columns = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")
    put_table(root / "metadata" / "UrbanSound8K.csv", columns, rows)
    return root


def speech_commands(root: Path) -> Path:
    lists = {"validation": [], "testing": []}
    for word in ("yes", "no", "marvin"):
        for speaker in range(8):
            path = f"{word}/{speaker:08x}_nohash_0.wav"
            put(root / path)
            if speaker >= 4:
                lists["validation" if speaker < 6 else "testing"].append(path)
    for kind, paths in lists.items():
        put(root / f"{kind}_list.txt", "\n".join(paths) + "\n")
    put(root / "_background_noise_" / "doing_the_dishes.wav")
    put(root / "_background_noise_" / "README.md")
    put(root / "LICENSE")
    return root


def tau(root: Path, folds: int = 1) -> Path:
    """TAU Urban Acoustic Scenes: tab-separated; a list without labels."""
    rows = []
    for scene in ("airport", "metro_station"):
        for city in ("lisbon", "lyon", "prague"):
            for piece in range(2):
                path = f"audio/{scene}-{city}-1000-{40_000 + piece}-a.wav"
                put(root / path)
                rows.append((path, scene, f"{city}-1000", "a"))
    put_table(
        root / "meta.csv", ("filename", "scene_label", "identifier", "source_label"), rows, "\t"
    )
    for fold in range(1, folds + 1):
        tested = [row for row in rows if row[2].startswith(("lisbon", "lyon", "prague")[fold - 1])]
        setup, columns = root / "evaluation_setup", ("filename", "scene_label")
        trained = [row[:2] for row in rows if row not in tested]
        put_table(setup / f"fold{fold}_train.csv", columns, trained, "\t")
        put_table(setup / f"fold{fold}_evaluate.csv", columns, [row[:2] for row in tested], "\t")
        put_table(setup / f"fold{fold}_test.csv", ("filename",), [row[:1] for row in tested])
    return root


def tut(root: Path) -> Path:
    """TUT Acoustic Scenes 2017: texts without a header, four folds."""
    clips = [
        (f"audio/{letter}{n:03d}_0_10.wav", scene)
        for letter, scene in (("a", "beach"), ("b", "cafe/restaurant"))
        for n in range(8)
    ]
    for path, _ in clips:
        put(root / path)
    setup = root / "evaluation_setup"
    for fold in range(1, 5):
        tested = [clip for n, clip in enumerate(clips) if n % 4 == fold - 1]
        for kind, rows in (("train", [c for c in clips if c not in tested]), ("evaluate", tested)):
            put(setup / f"fold{fold}_{kind}.txt", "".join(f"{p}\t{s}\n" for p, s in rows))
        put(setup / f"fold{fold}_test.txt", "".join(f"{path}\n" for path, _ in tested))
    put(root / "meta.txt", "".join(f"{p}\t{s}\tid\n" for p, s in clips))
    return root


def audiofolder(root: Path, form: str = "csv", validation: bool = True) -> Path:
    """Hugging Face: metadata.csv or metadata.jsonl in each split's folder."""
    for split in ("train", "test", *(["validation"] if validation else [])):
        rows = []
        for n in range(4):
            name = f"clips/{n:04d}.flac"
            put(root / split / name)
            rows.append((name, ("siren", "drill")[n % 2], f"text, {n}"))
        columns = ("file_name", "label", "transcription")
        if form == "csv":
            put_table(root / split / "metadata.csv", columns, rows)
        else:
            lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
            put(root / split / "metadata.jsonl", "\n".join(lines) + "\n")
    put(root / "README.md")
    return root


def crema_d(root: Path) -> Path:
    """Six emotions, six actors, one name that ends on a single X, as published."""
    for actor in range(1001, 1007):
        for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"):
            put(root / "AudioWAV" / f"{actor}_DFA_{emotion}_XX.wav")
    put(root / "AudioWAV" / "1006_ITH_SAD_X.wav")
    put(root / "AudioMP3" / "1001_DFA_ANG_XX.mp3")
    put(root / "VideoFlash" / "1001_DFA_ANG_XX.flv")
    put_table(root / "SentenceFilenames.csv", ("Stimulus_Number", "Filename"), [(1, "x")])
    put_table(root / "processedResults" / "summaryTable.csv", ("", "FileName"), [(1, "x")])
    return root


def ravdess(root: Path) -> Path:
    """Eight emotions of speech by five actors, six of song by one of them."""
    for actor in range(1, 6):
        for emotion in range(1, 9):
            place = root / "Audio_Speech_Actors_01-24" / f"Actor_{actor:02d}"
            put(place / f"03-01-{emotion:02d}-01-01-01-{actor:02d}.wav")
    for emotion in range(1, 7):
        place = root / "Audio_Song_Actors_01-24" / "Actor_01"
        put(place / f"03-02-{emotion:02d}-01-01-01-01.wav")
    return root
