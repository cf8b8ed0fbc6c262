"""data_manifest.csv, the published facts and the code say the same."""

import csv
import hashlib
import re
from pathlib import Path

import pytest

from palmkit import load_dataset, own_dataset
from palmkit.datasets.archives import ESC10_CLASSES
from palmkit.datasets.hosts import current_revision
from palmkit.datasets.manifest import read_manifest
from palmkit.models.mini_clap import MINI_CLAP
from palmkit.models.pengi import MINI
from palmkit.published import paper_datasets
from palmkit_synthetic.tasks import CLIPS_PER_CLASS, FOLDS, TASKS

ROWS = read_manifest()
BY_HAND = {  # a file of each as its source calls it, and who or what must stay together
    "EmoDB": ("anger/03a01Wa.wav", "03"),
    "CaFE": ("Peur/Fort/12-P-2-6.wav", "12"),
    "AESDD": ("sadness/s05 (3).wav", "3"),
    "ShEMO": ("anger/F01A02.wav", "F01"),
    "ESD": ("angry/0001_000351.wav", "0001"),
    "VoxLingua107": ("German/__3pgD6pjXI__U__S20---0413.580-0424.130.wav", "__3pgD6pjXI"),
    "FLEURS": None,  # by a CSV with a column `group`
    "MSWC": None,
}
COLUMNS = [
    *("name", "kind", "task", "source", "revision", "bytes", "checksum", "licence", "owner"),
    *("classes", "folds", "shots", "test_clips_per_fold", "notes"),
]


def test_one_row_an_artefact():
    with open(Path(__file__).resolve().parents[2] / "data_manifest.csv", newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == COLUMNS and {len(line) for line in lines} == {len(COLUMNS)}
    names = [line[0] for line in lines[1:]]
    assert names == ["pengi", *paper_datasets(), "ESC10", "mini", "mini-clap", *TASKS, *BY_HAND]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_cells_are_what_their_column_says(row):
    assert (
        row["kind"] in ("checkpoint", "dataset", "generated", "by hand")
        and row["source"]
        and row["owner"]
    )
    assert re.fullmatch(r"(\d+)?", row["bytes"]) and re.fullmatch(
        r"((md5|sha256):[0-9a-f]+)?", row["checksum"]
    )
    if row["kind"] in ("dataset", "generated"):
        assert len(row["test_clips_per_fold"].split(";")) == int(row["folds"])
        assert int(row["shots"]) >= 16 and int(row["classes"]) > 1


@pytest.mark.parametrize("facts", paper_datasets().values(), ids=paper_datasets())
def test_the_papers_datasets(facts):
    row = ROWS[facts.name]
    assert (row["kind"], row["task"], row["source"]) == ("dataset", facts.task, f"hf:{facts.repo}")
    assert (int(row["classes"]), int(row["folds"])) == (len(facts.class_names), facts.folds)
    assert row["test_clips_per_fold"] == ";".join(map(str, facts.test_clips))
    assert not facts.train_clips or int(row["shots"]) * len(facts.class_names) <= min(
        facts.train_clips
    )
    assert not row["revision"] or re.fullmatch(
        "[0-9a-f]{40}", row["revision"]
    )  # a branch would move
    assert ("not the paper's" in row["notes"]) == (
        facts.folds > 1
    )  # the single split that came later
    assert ("one zip" in row["notes"]) == (facts.name in ("NS-Instruments", "VocalSound"))


def test_tut2017_is_warned_of():
    assert "look swapped in folds 2 to 4" in ROWS["TUT2017"]["notes"]


def test_checkpoints():
    assert ROWS["pengi"]["source"] == "https://zenodo.org/records/8387083/files/base.pth"
    assert (
        "https://zenodo.org/api/records/8387083" in ROWS["pengi"]["notes"]
    )  # where the md5 comes from
    assert current_revision(ROWS["pengi"]) == "8387083"
    for name, path in {"mini": MINI, "mini-clap": MINI_CLAP}.items():
        assert int(ROWS[name]["bytes"]) == path.stat().st_size
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        assert ROWS[name]["checksum"] == f"sha256:{checksum}"


def test_esc10():
    row = ROWS["ESC10"]
    assert re.fullmatch("[0-9a-f]{40}", row["revision"]) and int(row["classes"]) == len(
        ESC10_CLASSES
    )
    assert set(ESC10_CLASSES) < set(paper_datasets()["ESC50"].class_names)
    assert int(row["shots"]) * 10 + 80 == 400 and row["test_clips_per_fold"] == "80;80;80;80;80"


@pytest.mark.parametrize("name", TASKS)
def test_generated_datasets(name):
    row, task = ROWS[name], TASKS[name]
    tested = CLIPS_PER_CLASS // FOLDS
    folds = FOLDS if task.folds else 1
    assert (row["kind"], row["task"], row["source"]) == (
        "generated",
        task.kind,
        "palmkit_synthetic.tasks",
    )
    assert (int(row["classes"]), int(row["folds"])) == (len(task.classes), folds)
    assert row["test_clips_per_fold"] == ";".join([str(tested * len(task.classes))] * folds)
    assert int(row["shots"]) == CLIPS_PER_CLASS - tested


@pytest.mark.parametrize("name", BY_HAND)
def test_datasets_got_by_hand(name):
    """Not English; the notes say what to do, and how to load what comes so that speakers stay
    together.
    """
    row = ROWS[name]
    assert (
        row["kind"] == "by hand"
        and row["source"].startswith("http")
        and re.search(r"20\d\d\)$", row["owner"])
    )
    assert not any(
        row[column]
        for column in ("revision", "bytes", "checksum", "folds", "shots", "test_clips_per_fold")
    )
    assert re.match("German|French|Greek|Persian|Mandarin|[0-9]+ languages", row["notes"])
    assert "own_dataset(" in row["notes"]
    if BY_HAND[name] is None:
        assert "write a CSV with path, classname and group" in row["notes"]
    else:
        path, group = BY_HAND[name]
        assert re.search(re.search(r'groups=r"(.+?)"\)', row["notes"])[1], path)[1] == group


def test_own_dataset_with_the_regular_expression_of_the_manifest(tmp_path):
    groups = re.search(r'groups=r"(.+?)"\)', ROWS["EmoDB"]["notes"])[1]
    for n, name in enumerate(("anger/{}a01Wa.wav", "anger/{}b02Wb.wav", "neutral/{}a01Nc.wav")):
        for speaker in ("03", "08", "09"):
            path = tmp_path / "EmoDB" / name.format(speaker)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{n}{speaker}".encode())
    root = own_dataset(tmp_path / "EmoDB", folds=3, groups=groups, root=tmp_path / "tables")
    for fold in (1, 2, 3):
        data = load_dataset(root, fold)
        trained, tested = (
            {Path(path).name[:2] for path in frame["path"]} for frame in (data.train, data.test)
        )
        assert data.class_names == ["anger", "neutral"]
        assert len(tested) == 1 and not trained & tested
