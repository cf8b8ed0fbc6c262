"""Data as people have them, and faults: the result is right, or one sentence names the file."""

import csv
import io
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import time
import unicodedata

import layouts
import pytest
from faults import attempt, count_tries, fuzz
from hypothesis import strategies as st
from layouts import put

from palmkit import DatasetError, check_dataset, list_folds, load_dataset, own_dataset
from palmkit_synthetic import tasks

pytestmark = pytest.mark.slow

FORK = multiprocessing.get_context("fork")  # a new process would take seconds to start
CLASSES = ("cat", "big dog", "café", "rain, heavy", 'the "loud" one', "Übung", "鳥", "door_knock")
NFC, NFD = (lambda text, form=form: unicodedata.normalize(form, text) for form in ("NFC", "NFD"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A function that makes a new folder for each example."""
    base, number = tmp_path_factory.mktemp("data"), itertools.count()

    def make():
        folder = base / str(next(number))
        folder.mkdir()
        return folder

    return make


def clips_of(root, folds=None):
    """{(path, class)} that the folds test, each clip once."""
    found = []
    for fold in folds or list_folds(root):
        data = load_dataset(root, fold)
        trained, tested = set(data.train["path"]), list(data.test["path"])
        assert not trained & set(tested) and data.train["label"].notna().all()
        names = data.test["class_name"]
        found += [(data.relative(p), name) for p, name in zip(tested, names, strict=True)]
    assert len(set(found)) == len(found)
    return set(found)


def refused(call, *named):
    """What a call returns; None if it raises a DatasetError of one line with these names."""
    try:
        return call()
    except DatasetError as error:
        text = str(error)
        assert "\n" not in text and any(str(name) in text for name in named), text
        return None


# Tables.


@fuzz(
    "table as programs save it",
    few=25,
    many=400,
    delimiter=st.sampled_from(",;\t"),
    newline=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    order=st.permutations(["path", "classname", "fold", "remark"]),
    names=st.lists(st.sampled_from(CLASSES), min_size=2, max_size=4, unique=True),
    spelling=st.sampled_from(["plain", "dotted", "absolute", "windows", "moved"]),
    forms=st.tuples(st.sampled_from([NFC, NFD]), st.sampled_from([NFC, NFD])),
)
def test_tables(fresh, delimiter, newline, encoding, quoting, order, names, spelling, forms):
    root = fresh() / "sounds"
    in_table, on_disk = forms
    if encoding == "latin-1":
        in_table = NFC  # it has no combining characters
    rows, expected = [], set()
    for n, (name, fold) in enumerate(itertools.product(names, (1, 2))):
        path = f"take é/{n}-café.wav"
        put(root / on_disk(path))
        expected.add((f"audios/{on_disk(path)}", name))
        rows.append({"path": in_table(path), "classname": name, "fold": fold, "remark": "a, b; c"})
    spell = {
        "plain": lambda path: path,
        "dotted": lambda path: f"./{path}",
        "absolute": lambda path: f"{root}/{path}",
        "windows": lambda path: path.replace("/", "\\"),
        "moved": lambda path: f"D:\\old\\sounds\\{path}".replace("/", "\\"),
    }[spelling]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, order, delimiter=delimiter, quoting=quoting, lineterminator=newline
    )
    writer.writeheader()
    writer.writerows([row | {"path": spell(row["path"])} for row in rows])
    data = text.getvalue().encode(encoding, "replace")
    table = put(root / "list.csv", data)
    if encoding in ("utf-8", "utf-8-sig"):
        found = clips_of(table)
        plain = {(os.path.normpath(path), name) for path, name in found}
        assert plain == expected
    elif text.getvalue().isascii() and encoding == "latin-1":
        assert len(clips_of(table)) == len(expected)
    else:
        wanted = "Latin-1" if encoding == "latin-1" else "UTF-16"
        with pytest.raises(DatasetError, match=rf"list\.csv.*{wanted}"):
            own_dataset(table)


GOOD = b"path,classname,fold\na.wav,cat,1\nb.wav,dog,1\nc.wav,cat,2\nd.wav,dog,2\n"


@fuzz(
    "damaged table",
    few=150,
    many=3000,
    cuts=st.lists(
        st.tuples(
            st.integers(0, len(GOOD)),
            st.integers(0, 6),
            st.binary(max_size=3) | st.sampled_from([b'"', b"\r", b"\n", b",", b"\0", b"\xff"]),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_damaged_tables(fresh, cuts):
    root = fresh()
    for name in "abcd":
        put(root / f"{name}.wav")
    data = GOOD
    for start, length, new in cuts:
        data = data[:start] + new + data[start + length :]
    table = put(root / "list.csv", data)
    made = refused(lambda: own_dataset(table), table)
    if made:
        assert len(clips_of(made)) >= 2


@fuzz(
    "cells of a table",
    few=60,
    many=1500,
    column=st.sampled_from(["path", "classname", "fold", "split", "group"]),
    cell=st.text(max_size=12)
    | st.sampled_from(["..", "/", "../a.wav", ".", "~", "nan", "-1", "1e3", "١", "a.wav ", "CON"])
    | st.sampled_from(["a" * 300 + ".wav", "\ud7ff", "b.wav\\", "//a.wav", "C:a.wav", "file://a"]),
)
def test_cells(fresh, column, cell):
    root = fresh()
    for name in "abcd":
        put(root / f"{name}.wav")
    rows = [{"path": f"{name}.wav", "classname": "xy"[n % 2]} for n, name in enumerate("abcd")]
    for n, row in enumerate(rows):
        row |= {"fold": str(n // 2 + 1), "split": ("train", "test")[n // 2], "group": str(n // 2)}
    columns = ["path", "classname", *({column} - {"path", "classname"})]
    rows[1][column] = cell
    table = root / "list.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, columns, extrasaction="ignore", quoting=csv.QUOTE_ALL, lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
    made = refused(lambda: own_dataset(table, folds=2), table)
    if made:
        folds = list_folds(made)
        data = load_dataset(made, folds[0])
        assert len(data.train) + len(data.test) in (3, 4) and len(data.class_names) >= 2
        for path in [*data.train["path"], *data.test["path"]]:
            assert os.path.realpath(path).startswith(os.path.realpath(root))


LAYOUTS = {
    "meta/esc50.csv": layouts.esc50,
    "metadata/UrbanSound8K.csv": layouts.urban_sound,
    "testing_list.txt": layouts.speech_commands,
    "evaluation_setup/fold1_evaluate.csv": layouts.tau,
    "evaluation_setup/fold2_train.txt": layouts.tut,
    "train/metadata.jsonl": lambda root: layouts.audiofolder(root, "jsonl"),
    "test/metadata.csv": layouts.audiofolder,
}


@fuzz(
    "damaged metadata of a known layout",
    few=40,
    many=600,
    name=st.sampled_from(sorted(LAYOUTS)),
    where=st.floats(0, 1),
    length=st.integers(0, 40),
    new=st.binary(max_size=3) | st.sampled_from([b'"', b"\n", b"\t", b",", b"\0", b"[]", b"{"]),
)
def test_damaged_metadata(fresh, name, where, length, new):
    root = LAYOUTS[name](fresh() / "sounds")
    path = root / name
    data = path.read_bytes()
    start = int(where * len(data))
    path.write_bytes(data[:start] + new + data[start + length :])

    def load():
        made = own_dataset(root)
        return [load_dataset(made, fold) for fold in list_folds(made)]

    for dataset in refused(load, root) or ():
        assert not set(dataset.train["path"]) & set(dataset.test["path"])


@fuzz(
    "damaged file of splits beside an import",
    few=12,
    many=200,
    name=st.sampled_from(["split.json", "csv_files/test_1.csv", "csv_files"]),
    data=st.binary(max_size=30) | st.sampled_from([b"", b"{}", b"[]", b"null", b'{"notes": 3}']),
)
def test_damaged_import(fresh, name, data):
    """In the cache it is made again, or the error names it."""
    root = fresh() / "sounds"
    for clip, kind in itertools.product(range(5), ("cat", "dog")):
        put(root / kind / f"{clip}.wav")
    made = own_dataset(root)
    if name == "csv_files":
        shutil.rmtree(made / name)
    else:
        (made / name).write_bytes(data)
    if refused(lambda: load_dataset(root, 1), made, root.name):
        assert check_dataset(root, shots=1, decode=False).folds is not None


# Folders.

ODD = (".git", "__MACOSX", "@eaDir", "#recycle", ".hidden")
PARTS = (
    (),
    ("train", "test"),
    ("Train", "TEST"),
    ("train", "validation", "test"),
    ("fold1", "fold2"),
)


@fuzz(
    "odd tree of folders",
    few=25,
    many=600,
    names=st.lists(
        st.sampled_from([*CLASSES, "test.wav", "1", "a\nb", "b\ra", " x", "-x", "%s", "train7"]),
        min_size=2,
        max_size=4,
        unique=True,
    ),
    parts=st.sampled_from(PARTS),
    depth=st.sampled_from(["", "deep", "deep/er.wav"]),
    suffix=st.sampled_from([".wav", ".WAV", ".flac", ".caf", ".aifc", ".wave", ".sph"]),
    odd=st.lists(st.sampled_from(ODD), max_size=2),
    beside=st.sampled_from(["", "notes.txt", "LICENSE", "list.pdf", "beside.wav"]),
)
def test_folders(fresh, names, parts, depth, suffix, odd, beside):
    root = fresh() / "sounds"
    expected = set()
    for part, name, clip in itertools.product(parts or ("",), names, range(2)):
        path = os.path.normpath(f"{part}/{name}/{depth}/{clip}{suffix}").lstrip("/")
        put(root / path)
        expected.add((f"audios/{path}", name))
    for part, folder in itertools.product(parts or ("",), odd):
        put(root / part / folder / "x.wav")
        put(root / part / names[0] / folder / "y.wav")
    if beside:
        put(root / beside)
        put(root / (parts or ("",))[0] / names[0] / beside.replace(".wav", ".txt"))
    (root / "empty").mkdir()
    made = own_dataset(root, folds=2)
    found = clips_of(made)
    assert {name for _, name in found} == set(names)
    if not parts or parts[0].startswith("fold"):
        assert found == expected
    else:
        assert found == {row for row in expected if row[0].lower().startswith("audios/test/")}


@fuzz(
    "file name that is not UTF-8",
    few=40,
    many=600,
    name=st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & set(b"/\0.")),
    is_class=st.booleans(),
)
def test_names_in_other_encodings(fresh, name, is_class):
    root = fresh() / "sounds"
    for kind, clip in itertools.product(("cat", "dog"), range(3)):
        put(root / kind / f"{clip}.wav")
    folder = os.fsencode(root) + (b"/" + name if is_class else b"/cat")
    os.makedirs(folder, exist_ok=True)
    for clip in range(3):
        odd = b"%d.wav" % clip if is_class else name + b"%d.wav" % clip
        with open(os.path.join(folder, odd), "wb") as file:
            file.write(os.path.join(folder, odd))
    made = refused(lambda: own_dataset(root, folds=2), root.name, "is not in UTF-8")
    if made:
        count = len(clips_of(made))
        assert count == (9 if is_class and name.decode() not in ("cat", "dog") else 6 + 3)
    again = refused(lambda: own_dataset(root, folds=2), root.name, "is not in UTF-8")
    assert again == made


@fuzz(
    "name of a dataset",
    few=150,
    many=2000,
    name=st.text(max_size=20) | st.text(min_size=200, max_size=400) | st.binary().map(os.fsdecode),
)
def test_names_of_datasets(fresh, name, monkeypatch):
    monkeypatch.chdir(fresh())
    if os.path.normpath(name or " ").startswith(("/", "..", "~")) or name.strip() in (".", "./"):
        return
    with pytest.raises(DatasetError):
        load_dataset(name)


# Groups.


@fuzz(
    "grouped folds",
    few=40,
    many=800,
    groups=st.lists(
        st.sets(st.sampled_from("abcdef"), min_size=2, max_size=4), min_size=2, max_size=5
    ),
    folds=st.sampled_from([1, 2, 3]),
)
def test_grouped_folds(fresh, groups, folds):
    """A division is found if there is one, and refused if there is none."""
    root = fresh()
    rows = []
    for n, letters in enumerate(groups):
        for letter in sorted(letters):
            put(root / f"{letter}{n}.wav")
            rows.append((f"{letter}{n}.wav", f"class {n}", letter))
    table = layouts.put_table(root / "list.csv", ("path", "classname", "group"), rows)
    pieces = max(folds, 2)
    letters = sorted(set().union(*groups))
    exists = any(
        all({number[letter] for letter in one} == set(range(pieces)) for one in groups)
        for number in (
            dict(zip(letters, numbers, strict=True))
            for numbers in itertools.product(range(pieces), repeat=len(letters))
        )
    )
    try:
        made = own_dataset(table, folds=folds)
    except DatasetError:
        assert not exists
        return
    assert exists
    for fold in list_folds(made):
        data = load_dataset(made, fold)
        sides = [
            {os.path.basename(p)[0] for p in frame["path"]} for frame in (data.train, data.test)
        ]
        assert not sides[0] & sides[1] and len(data.class_names) == len(groups)


# Kills, and several processes at once.


def start(function, *arguments) -> multiprocessing.Process:
    process = FORK.Process(target=function, args=arguments)
    process.start()
    return process


def make_recordings(root, clips=40):
    for kind, clip in itertools.product(("cat", "dog"), range(clips)):
        put(root / kind / f"{clip}.wav")
    return root


def leftovers(root):
    return [path for path in root.rglob("*") if "unfinished" in path.name]


def test_kills_of_an_import(fresh):
    rng = random.Random(0)
    begun = time.perf_counter()
    own_dataset(make_recordings(fresh() / "sounds"))
    seconds = time.perf_counter() - begun
    for tries in range(count_tries(6, 150)):
        with attempt("kill of an import"):
            root, out = make_recordings(fresh() / "sounds"), fresh() / "out"
            chosen = out if tries % 2 else None
            process = start(own_dataset, root, 5, None, 0, chosen)
            time.sleep(rng.uniform(0, 1.5 * seconds))
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            made = own_dataset(root, root=chosen)
            assert len(clips_of(made)) == 80
            assert not leftovers(made.parent)


def test_imports_at_once(fresh):
    for tries in range(count_tries(2, 40)):
        with attempt("imports at the same time"):
            root, out = make_recordings(fresh() / "sounds"), fresh() / "out"
            chosen = out if tries % 2 else None
            processes = [start(own_dataset, root, 5, None, 0, chosen) for _ in range(3)]
            for process in processes:
                process.join()
            assert [process.exitcode for process in processes] == [0, 0, 0]
            assert len(clips_of(own_dataset(root, root=chosen))) == 80


TASK, PER_CLASS = "VocalSounds", 1


def generate(root):
    tasks.CLIPS_PER_CLASS = PER_CLASS
    tasks.build_task(TASK, root, processes=1)


def check_generated(root, reference):
    process = start(generate, root)
    process.join()
    assert process.exitcode == 0 and not leftovers(root)
    files = {p.name: p.read_bytes() for p in (root / TASK / "audios").iterdir()}
    assert files == reference


@pytest.fixture(scope="module")
def generated(fresh):
    """(seconds, {file: bytes}) of a whole generation."""
    root = fresh()
    begun = time.perf_counter()
    generate_process = start(generate, root)
    generate_process.join()
    seconds = time.perf_counter() - begun
    return seconds, {p.name: p.read_bytes() for p in (root / TASK / "audios").iterdir()}


@pytest.mark.slow
def test_kills_of_a_generation(fresh, generated):
    seconds, reference = generated
    rng = random.Random(0)
    for _ in range(count_tries(2, 15)):
        with attempt("kill of a generation"):
            root = fresh()
            process = start(generate, root)
            time.sleep(rng.uniform(0, seconds))
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            check_generated(root, reference)


@pytest.mark.slow
def test_generations_at_once(fresh, generated):
    _, reference = generated
    for _ in range(count_tries(1, 8)):
        with attempt("generations at the same time"):
            root = fresh()
            processes = [start(generate, root) for _ in range(2)]
            for process in processes:
                process.join()
            assert [process.exitcode for process in processes] == [0, 0]
            check_generated(root, reference)
