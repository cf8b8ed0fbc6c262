"""Servers that answer wrongly: a fetch ends, whole or with one sentence, and leaves nothing."""

import hashlib
import os
import time

import answers
import hub
import pytest
from faults import fuzz
from hypothesis import strategies as st

from palmkit.datasets import hosts
from palmkit.datasets.fetch import FetchError, fetch

pytestmark = pytest.mark.slow

CONTENT = bytes(range(251)) * 800  # 200 kB: three blocks and a rest
LONGEST = 1200  # seconds that all waits together may take
WRONG = sorted(set(answers.ANSWERS) - {"right"})


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A data root, and a server with PENGI's checkpoint and a dataset of one large file."""
    (tmp_path / "published" / "pengi").mkdir(parents=True)
    (tmp_path / "published" / "pengi" / "base.pth").write_bytes(CONTENT)
    monkeypatch.setattr(hosts, "TIMEOUT", (1, 0.15))
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
    with hub.serve(tmp_path / "published") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield tmp_path, server


def try_fetch(place, name: str, patch) -> float:
    """Fetch into a new folder; the seconds that it would have waited. Checks what is left."""
    folder, server = place
    root = folder / f"data{len([*folder.iterdir()])}"
    waits = []
    patch.setenv("PALMKIT_DATA", str(root))
    patch.setattr(time, "sleep", waits.append)
    before = sorted(folder.iterdir())
    try:
        (path,) = fetch(name)
        assert path.read_bytes() == CONTENT
    except FetchError as error:
        assert name in str(error) and "\n" not in str(error), str(error)
        assert not (root / name).exists()
    assert set(folder.iterdir()) - set(before) <= {root}
    # A whole file is kept once as a part, and once under its name.
    kept = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    assert kept <= 2 * len(CONTENT) + 100_000
    return sum(waits)


@pytest.mark.slow
@fuzz(
    "wrong answers to a download",
    few=150,
    many=3000,
    names=st.lists(st.sampled_from(WRONG), min_size=1, max_size=4),
    recovers=st.booleans(),
)
def test_wrong_answers(place, names, recovers):
    server = place[1]
    server.faults.clear()
    wrong = answers.Server(names, recovers)
    server.fault("content", answer=wrong)
    with pytest.MonkeyPatch.context() as patch:
        waited = try_fetch(place, "pengi", patch)
    assert not wrong.ran_away and waited <= LONGEST, (names, wrong.requests, wrong.sent, waited)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**30),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["md5:../../x", "md5:", "md5:/etc/x", "sha256:" + "../" * 20 + "x", "crc:0a"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
FIELDS = st.sampled_from(["key", "size", "checksum", "links", "files"])


@fuzz("damaged records of Zenodo", few=100, many=2000, field=FIELDS, value=VALUES)
def test_damaged_records(place, field, value):
    server = place[1]
    entry = {
        "key": "base.pth",
        "size": len(CONTENT),
        "checksum": f"md5:{hashlib.md5(CONTENT).hexdigest()}",
        "links": {"self": f"{server.url}/api/records/8387083/files/base.pth/content"},
    }
    record = {"files": [entry]}
    (record if field == "files" else entry)[field] = value
    server.faults.clear()
    counted = answers.Server([], recovers=True)
    server.fault("content", answer=counted)
    with pytest.MonkeyPatch.context() as patch:
        answer_record(patch, record)
        try_fetch(place, "pengi", patch)
    assert not counted.ran_away


def answer_record(patch, record) -> None:
    """The stand-in's record is this one."""
    import json

    plain = hub.Handler.send

    def send(self, status, body, *more):
        is_record = self.path.endswith("/api/records/8387083")
        return plain(self, status, json.dumps(record).encode() if is_record else body, *more)

    patch.setattr(hub.Handler, "send", send)


def test_an_endless_record_is_not_read_to_its_end(place, monkeypatch):
    wrong = answers.Server(["endless"], recovers=False)
    monkeypatch.setattr(hub.Handler, "send", lambda self, *_: wrong(self, b"[" * 1000))
    monkeypatch.setattr(hosts, "MOST_ANSWER", 1_000_000)
    try_fetch(place, "pengi", monkeypatch)
    assert wrong.requests == 1 and not wrong.ran_away


@pytest.mark.parametrize("answer", ["longer", "shorter", "endless", "cut", "right"])
def test_a_file_of_the_hub(place, answer, monkeypatch):
    """huggingface_hub brings small files: what it brings is bounded too."""
    folder, server = place
    clips = folder / "clips"
    clips.mkdir()
    (clips / "a.wav").write_bytes(CONTENT)
    server.commit("MahiA/SESA", clips)
    monkeypatch.setattr(hosts, "MOST_ANSWER", 1_000_000)
    monkeypatch.setenv("PALMKIT_DATA", str(folder / "data"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    wrong = answers.Server([answer], recovers=False)
    server.fault("resolve.*wav", answer=wrong)
    if answer == "right":
        assert (fetch("SESA")[0] / "a.wav").read_bytes() == CONTENT
    else:
        with pytest.raises(FetchError, match="SESA"):
            fetch("SESA")
        assert not os.path.lexists(folder / "data" / "SESA")
    assert not wrong.ran_away
