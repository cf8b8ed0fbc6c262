"""Fetching over HTTP from a stand-in on the loopback interface (hub.py): whole or not at all,
whatever goes wrong.
"""

from __future__ import annotations

import errno
import importlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import hub
import huggingface_hub.constants
import numpy as np
import pytest
import soundfile

from palmkit import (
    CheckpointError,
    DatasetError,
    FetchError,
    checksums,
    list_folds,
    load_dataset,
    load_pengi,
)
from palmkit.cli import main
from palmkit.datasets import hosts, manifest
from palmkit.datasets.archives import ESC10_CLASSES, unpack

fetch = importlib.import_module("palmkit.datasets.fetch")  # palmkit.fetch is the function
ROOT = Path(__file__).resolve().parents[2]
TABLE = "path,classname\naudios/a1.wav,cat\naudios/b1.wav,dog\n"
ESC10_ZIP = "/karoldvl/ESC-10/archive/553c8f1743b9dba6b282e1323c3ca8fa76923448.zip"


def make(root: Path, marker: str = "", folds=(1, 2)) -> Path:
    """A published dataset whose clips are some bytes."""
    (root / "audios").mkdir(parents=True)
    (root / "csv_files").mkdir()
    for name in ("a1", "b1"):
        (root / "audios" / f"{name}.wav").write_bytes(f"{name}{marker}".encode() * 50)
    for fold in folds:
        for part in ("train", "test"):
            (root / "csv_files" / f"{part}_{fold}.csv").write_text(TABLE)
    (root / ".gitattributes").write_text("*.wav filter=lfs")
    return root


def pack(folder: Path, path: Path, inside: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, inside + file.relative_to(folder).as_posix())
        archive.writestr("__MACOSX/._x", b"junk")
    return path


@pytest.fixture
def server(tmp_path):
    published = tmp_path / "published"
    make(published / "ESC50")
    make(published / "SESA", folds=())
    pack(
        make(tmp_path / "plain"),
        published / "NS-Instruments" / "NS-Instruments.zip",
        "NS-Instruments/",
    )
    (published / "NS-Instruments" / "README.md").write_text("a readme")
    (published / "pengi").mkdir()
    (published / "pengi" / "base.pth").write_bytes(np.random.default_rng(0).bytes(300_000))
    with hub.serve(published) as server:
        yield server


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """An empty data root; clients that wait for nothing, and see no settings of the user's."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PALMKIT_DATA", str(tmp_path / "data"))
    for name in ("HF_ENDPOINT", "PALMKIT_ZENODO", "PALMKIT_GITHUB"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody
    return tmp_path / "data"


@pytest.fixture
def online(server, monkeypatch):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def said():
    """The messages that are logged."""
    messages, logger = [], logging.getLogger("palmkit")
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield messages
    logger.removeHandler(handler)
    logger.setLevel(level)


def refused(*names, **options) -> str:
    """The one sentence a fetch is refused with."""
    with pytest.raises(FetchError) as caught:
        fetch.fetch(*names, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def is_whole(root: Path) -> bool:
    return (
        checksums.verify_folder(root, rehash=True) is None
        and len(load_dataset(root, fold=2).test) == 2
    )


def left(data: Path) -> list[str]:
    return sorted(path.name for path in data.iterdir() if path.name != ".fetch")


# What is asked for, and nothing else.


def test_a_dataset_is_fetched_and_checked(online, data, said):
    assert fetch.fetch("ESC50") == [data / "ESC50"]
    assert list_folds("ESC50") == [1, 2] and is_whole(data / "ESC50")
    content = checksums.read_checksums(data / "ESC50")
    revision = [*online.repos["MahiA/ESC50"]][-1]
    assert (content["name"], content["source"], content["revision"]) == (
        "ESC50",
        "hf:MahiA/ESC50",
        revision,
    )
    clip = data / "ESC50" / "audios" / "a1.wav"
    assert content["file_count"] == 6 and content["bytes"] == 2 * 100 + 4 * len(TABLE)
    assert content["files"]["audios/a1.wav"] == (
        100,
        clip.stat().st_mtime_ns,
        checksums.sha256_of(clip),
    )
    assert "6 of 6 files, 0.0 MB, from hf:MahiA/ESC50" in said[0] and str(data / "ESC50") in said[0]
    assert left(data) == ["ESC50"] and not list((data / "ESC50").glob(".cache"))
    assert all("/MahiA/ESC50" in path for _, path, _ in online.requests)

    online.requests.clear()
    assert fetch.fetch("ESC50") == [data / "ESC50"] and len(said) == 1
    assert online.asked("resolve|tree") == []  # what is there is not fetched again


@pytest.mark.parametrize("large", [1, 10**9], ids=["by pieces", "by huggingface_hub"])
def test_a_zip_is_unpacked_into_the_folder_of_its_name(large, online, data, monkeypatch):
    monkeypatch.setattr(hosts, "LARGE", large)
    (root,) = fetch.fetch("NS-Instruments")
    assert is_whole(root) and (root / "README.md").read_text() == "a readme"
    assert (
        left(data) == ["NS-Instruments"]
        and not list(data.rglob("*.zip"))
        and not list(data.rglob("._x"))
    )
    assert not list((data / ".fetch").glob("*/*"))


def test_pengi_by_zenodos_md5(online, data, monkeypatch):
    with pytest.raises(FileNotFoundError, match="palmkit fetch pengi"):
        load_pengi("pengi")
    online.fault("content", times=1, corrupt=True)
    assert "does not match the known hash" in refused("pengi") and left(data) == []
    assert fetch.fetch("pengi") == [data / "pengi" / "base.pth"]
    assert checksums.read_checksums(data / "pengi")["revision"] == "8387083"
    with pytest.raises(CheckpointError, match="no whole PyTorch"):  # found, and it is noise
        load_pengi("pengi")
    (data / "pengi" / "base.pth").write_bytes(b"other")
    with pytest.raises(
        CheckpointError, match="not what was fetched: changed: base.pth.*fetch pengi"
    ):
        load_pengi("pengi")


def test_names_are_checked_before_anything_is_asked(online, capsys):
    assert "ESC99 and mini cannot be fetched: there are pengi, Beijing-Opera" in refused(
        "ESC50", "ESC99", "mini"
    )
    assert "nothing cannot be fetched" in refused() and online.requests == []
    assert main(["fetch", "Instruments"]) == 1 and "made at first use" in capsys.readouterr().err


def test_what_is_downloaded_by_hand_is_one_sentence(online, data, capsys):
    message = refused("ESC50", "EmoDB")
    assert message.startswith(
        "EmoDB cannot be fetched: get it from http://emodb.bilderbar.info by hand and put it into "
    )
    assert f"{data / 'EmoDB'}: German" in message and "own_dataset(folder, groups=" in message
    assert (
        main(["fetch", "MSWC"]) == 1
        and "MSWC cannot be fetched: get it from https" in capsys.readouterr().err
    )
    assert "EmoDB" not in refused("ESC99") and online.requests == [] and not data.exists()


def test_command(online, data, capsys):
    assert main(["fetch", "SESA", "pengi"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [str(data / "SESA"), str(data / "pengi" / "base.pth")]
    assert "pengi: 1 of 1 files, 0.3 MB" in shown.err
    assert main(["fetch", "--verify", "SESA"]) == 0
    assert (
        main(["fetch", "--verify", "ESC50"]) == 1
        and "has no checksum file" in capsys.readouterr().err
    )


def test_without_a_manifest(monkeypatch, tmp_path):
    monkeypatch.setattr(manifest, "manifest_path", lambda: tmp_path / "data_manifest.csv")
    with pytest.raises(FileNotFoundError, match="install palmkit again"):
        fetch.fetch("ESC50")


def test_token_goes_to_the_hub_only(online, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(hosts, "LARGE", 1)
    fetch.fetch("ESC50", "pengi")
    assert {token for path, token in online.tokens if "ESC50" in path} == {"Bearer hf_secret"}
    assert {token for path, token in online.tokens if "records" in path} == {None}


# Revisions.


def test_a_pinned_revision_is_what_is_fetched(online, data, tmp_path, monkeypatch, said):
    first = [*online.repos["MahiA/ESC50"]][0]
    online.commit("MahiA/ESC50", make(tmp_path / "second", "!"))
    rows = fetch.read_manifest()
    monkeypatch.setattr(
        fetch, "read_manifest", lambda: rows | {"ESC50": rows["ESC50"] | {"revision": first}}
    )
    fetch.fetch("ESC50")
    fetch.fetch("ESC50")
    assert checksums.read_checksums(data / "ESC50")["revision"] == first and len(said) == 1
    assert (data / "ESC50" / "audios" / "a1.wav").read_bytes() == b"a1" * 50


def test_what_was_fetched_stays_when_the_revision_moves_until_asked(online, data, tmp_path, said):
    fetch.fetch("ESC50")
    fetch.fetch("ESC50", update=True)
    assert "nothing newer" in said[-1] and left(data) == ["ESC50"]
    old = checksums.read_checksums(data / "ESC50")["revision"]
    new = online.commit("MahiA/ESC50", make(tmp_path / "second", "!"))
    fetch.fetch("ESC50")
    assert f"moved from {old} to {new}" in said[-1] and "--update ESC50" in said[-1]
    assert checksums.read_checksums(data / "ESC50")["revision"] == old and is_whole(data / "ESC50")

    online.fault("resolve", status=404)
    assert "404" in refused("ESC50", update=True)
    assert checksums.read_checksums(data / "ESC50")["revision"] == old and is_whole(
        data / "ESC50"
    )  # nothing is lost
    online.faults.clear()
    fetch.fetch("ESC50", update=True)
    assert checksums.read_checksums(data / "ESC50")["revision"] == new and is_whole(data / "ESC50")
    assert left(data) == ["ESC50", f"ESC50-{old[:12]}"] and is_whole(data / f"ESC50-{old[:12]}")


# The checksums.


def test_a_load_notices_what_has_changed_since(online, data):
    fetch.fetch("ESC50")
    root, clip = data / "ESC50", data / "ESC50" / "audios" / "a1.wav"
    original, times = clip.read_bytes(), clip.stat()

    def problem() -> str:
        with pytest.raises(DatasetError, match="not what was fetched") as caught:
            load_dataset("ESC50", fold=1)
        return str(caught.value)

    clip.write_bytes(b"x" * 99)
    os.utime(clip, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "changed: audios/a1.wav." in problem() and "palmkit fetch ESC50" in problem()
    assert "changed: audios/a1.wav." in refused("ESC50")
    clip.write_bytes(b"x" * 100)  # as long, but later
    assert "changed: audios/a1.wav." in problem()
    clip.unlink()
    (root / "csv_files" / "train_3.csv").write_text(TABLE)
    assert "missing: audios/a1.wav; not part of it: csv_files/train_3.csv." in problem()
    (root / "csv_files" / "train_3.csv").unlink()
    clip.write_bytes(original)
    (root / "audios" / ".DS_Store").touch()  # nobody's
    load_dataset("ESC50", fold=1)

    clip.write_bytes(b"y" * 100)  # neither size nor time tells
    os.utime(
        clip, ns=(times.st_atime_ns, checksums.read_checksums(root)["files"]["audios/a1.wav"][1])
    )
    load_dataset("ESC50", fold=1)
    assert "changed: audios/a1.wav." in refused("ESC50", verify=True)


def test_a_copy_is_hashed_once(online, data, tmp_path, monkeypatch):
    fetch.fetch("ESC50")
    copy = shutil.copytree(data / "ESC50", tmp_path / "copy", copy_function=shutil.copyfile)
    hashed = []
    monkeypatch.setattr(
        checksums,
        "sha256_of",
        lambda path, real=checksums.sha256_of: hashed.append(path.name) or real(path),
    )
    load_dataset(copy, fold=1)
    assert len(hashed) == 6
    load_dataset(copy, fold=1)
    assert len(hashed) == 6
    before, after = (checksums.read_checksums(root) for root in (data / "ESC50", copy))
    assert before | {"files": 0} == after | {"files": 0}


@pytest.mark.parametrize("text", ["", "[]", '{"files": {"a": [1]}}', '{"files": {"a": 1}}'])
def test_a_damaged_checksum_file(text, online, data):
    fetch.fetch("SESA")
    (data / "SESA" / checksums.CHECKSUM_FILE).write_text(text)
    with pytest.raises(DatasetError, match="is no checksum file"):
        load_dataset("SESA")
    assert "is no checksum file" in refused("SESA") and "is no checksum file" in refused(
        "SESA", verify=True
    )


# Faults.


@pytest.mark.parametrize("path", ["audios/a1.wav", "csv_files/train_1.csv"])
def test_content_that_is_not_what_was_announced(path, online, data):
    """huggingface_hub compares sizes only."""
    online.fault(f"resolve/.*{path}", times=1, corrupt=True)
    assert f"changed: {path}" in refused("ESC50") and left(data) == []
    online.requests.clear()
    fetch.fetch("ESC50")
    assert is_whole(data / "ESC50")
    assert [asked[1].split("/", 6)[6] for asked in online.asked("resolve")] == [
        path
    ]  # the rest was there


def test_a_file_that_is_cut_off_every_time(online, data):
    online.fault("resolve/.*b1.wav", cut=20)
    assert "same command resumes" in refused("ESC50") and left(data) == []
    online.faults.clear()
    fetch.fetch("ESC50")
    assert is_whole(data / "ESC50")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ESC50", "NS-Instruments", "pengi"])
@pytest.mark.parametrize("answered", [0, 1, 2, 5])
def test_the_server_goes_half_way(answered, name, online, data, monkeypatch):
    monkeypatch.setattr(hosts, "LARGE", 150)
    online.fault("", skip=answered, drop=True)
    done = name == "pengi" and answered >= 2  # all it takes
    if not done:
        message = refused(name)
        assert "by hand" in message and "same command" in message and left(data) == []
    online.faults.clear()
    fetch.fetch(name)
    assert checksums.verify_folder(data / name, rehash=True) is None


def test_huggingface_hub_forgives_what_is_not_forgiven_here(online, data, monkeypatch):
    """Without a listing, snapshot_download is content with what is there: here, the clips without
    their tables.
    """
    monkeypatch.setattr(hosts, "LARGE", 100)
    online.fault("tree", skip=1, status=500)
    assert (
        "4 of 6 files have not come, csv_files/test_1.csv for one" in refused("ESC50")
        and left(data) == []
    )


@pytest.mark.parametrize("status", [404, 429, 500])
@pytest.mark.parametrize(
    ("name", "pattern"), [("ESC50", "api"), ("ESC50", "a1.wav"), ("pengi", "8387083$|content")]
)
def test_status_is_in_the_message(status, name, pattern, online, data):
    online.fault(pattern, status=status, headers=(("Retry-After", "0"),))
    message = refused(name)
    assert str(status) in message and "by hand" in message and left(data) == []


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("large", [1, 10**9])
def test_a_server_that_is_busy_is_asked_again(status, large, online, data, monkeypatch):
    monkeypatch.setattr(hosts, "LARGE", large)
    online.fault("resolve.*a1.wav", times=3, status=status, headers=(("Retry-After", "0"),))
    fetch.fetch("ESC50")
    assert is_whole(data / "ESC50")


@pytest.mark.slow
def test_a_slow_server_is_waited_for_and_a_stuck_one_is_asked_again(online, data, monkeypatch):
    real = threading.Event().wait
    monkeypatch.setattr(hub.time, "sleep", real)
    online.fault("content", times=1, delay=0.1)
    fetch.fetch("pengi")
    assert len(online.asked("content")) == 1
    monkeypatch.setattr(hosts, "TIMEOUT", (1, 0.2))
    monkeypatch.setattr(hosts, "WAIT", 0)
    shutil.rmtree(data / "pengi")
    online.fault("content", times=1, delay=0.5)
    fetch.fetch("pengi")
    assert (
        len(online.asked("content")) == 3
        and checksums.verify_folder(data / "pengi", rehash=True) is None
    )


@pytest.mark.parametrize("cut", [1, 70_000, 299_999])
def test_a_large_file_goes_on_where_it_was_cut_off(cut, online, data, monkeypatch):
    online.fault("content", times=1, cut=cut)
    fetch.fetch("pengi")  # in one call
    again = f"bytes={cut}-"
    assert [asked[2] for asked in online.asked("content")] == [None, again]
    shutil.rmtree(data / "pengi")
    online.requests.clear()
    monkeypatch.setattr(hosts, "TRIES", 1)
    online.fault("content", times=1, cut=cut)
    refused("pengi")
    fetch.fetch("pengi")  # in another one
    assert [asked[2] for asked in online.asked("content")] == [None, again]
    assert checksums.verify_folder(data / "pengi", rehash=True) is None


def test_what_is_left_of_another_file_does_no_harm(online, data):
    scratch = data / ".fetch" / "pengi" / "8387083" / "large"
    scratch.mkdir(parents=True)
    (scratch / f"{online.zenodo['base.pth'].md5}.part").write_bytes(b"x" * 300_001)  # too long
    fetch.fetch("pengi")
    shutil.rmtree(data / "pengi")
    scratch.mkdir(parents=True)
    (scratch / f"{online.zenodo['base.pth'].md5}.part").write_bytes(
        b"x" * 1000
    )  # a beginning, but of what
    assert "does not match" in refused("pengi")
    fetch.fetch("pengi")


STAGES = {
    "list": (fetch, "look_up"),
    "download": (fetch, "download"),
    "hash": (fetch, "hash_files"),
    "unpack": (fetch, "unpack"),
    "checksums": (fetch, "write_checksums"),
    "rename": (Path, "rename"),
    "clean": (shutil, "rmtree"),
}


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ["ESC50", "NS-Instruments"])
def test_interrupted_anywhere_a_second_call_ends_whole(
    name, stage, after, online, data, monkeypatch
):
    place, function = STAGES[stage]
    real = getattr(place, function)

    def interrupted(*arguments, **options):
        if after:
            real(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(place, function, interrupted)
        fetch.fetch(name)
        raise KeyboardInterrupt  # this dataset has no such stage
    assert not (data / name).exists() or is_whole(data / name)
    fetch.fetch(name)
    assert is_whole(data / name) and left(data) == [name]


# The disk.


def test_room_is_seen_to_beforehand(online, data, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=250_000))
    message = refused("pengi")
    assert (
        "pengi needs 0.000 GB, and" in message
        and str(data) in message
        and "PALMKIT_DATA" in message
    )
    (entries,) = online.repos["MahiA/NS-Instruments"].values()
    size = entries["NS-Instruments.zip"].size
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2 * size - 1))
    assert "NS-Instruments needs" in refused("NS-Instruments")  # packed and unpacked
    assert online.asked("content|resolve") == [] and left(data) == []


def test_room_for_what_is_unpacked(online, data, tmp_path, monkeypatch):
    (tmp_path / "plain" / "audios" / "silence.wav").write_bytes(bytes(100_000))
    packed = tmp_path / "again"
    path = packed / "NS-Instruments.zip"
    packed.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (tmp_path / "plain").rglob("*.*"):
            archive.write(file, f"NS-Instruments/{file.relative_to(tmp_path / 'plain')}")
    online.commit("MahiA/NS-Instruments", packed)
    usage = shutil.disk_usage("/")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=50_000))
        assert "NS-Instruments, unpacked, needs" in refused("NS-Instruments") and left(data) == []
    online.requests.clear()
    fetch.fetch("NS-Instruments")
    assert online.asked("zip") == [] and is_whole(data / "NS-Instruments")  # the zip was kept


class Full(io.FileIO):
    """A file on a disk that has room for 100,000 bytes more."""

    def write(self, block):
        if self.tell() + len(block) > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(block)


def test_a_disk_that_fills_up_while_fetching(online, data, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(hosts, "open", Full, raising=False)
        message = refused("pengi")
    assert f"the disk of {data} is full" in message and "free some" in message and left(data) == []
    fetch.fetch("pengi")
    assert online.asked("content")[-1][2] is not None  # what had come was kept


def test_a_disk_that_fills_up_while_unpacking(online, data, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        assert f"the disk of {data} is full" in refused("NS-Instruments") and left(data) == []
    online.requests.clear()
    fetch.fetch("NS-Instruments")
    assert is_whole(data / "NS-Instruments") and online.asked("zip") == []


@pytest.mark.parametrize("below", ["", "data"])
def test_a_file_where_the_data_root_should_be(below, online, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("PALMKIT_DATA", str(tmp_path / "file" / below))
    message = refused("SESA")
    assert "is a file where a folder is needed" in message and "PALMKIT_DATA" in message
    assert (tmp_path / "file").read_text() == "mine"


def test_a_read_only_data_root(online, data, monkeypatch):
    """Tests may run as root, who may write everywhere: the system's answer is given here."""
    fetch.fetch("ESC50")

    def read_only(path, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    for name in ("mkdir", "rename", "unlink", "touch"):
        monkeypatch.setattr(Path, name, read_only)
    monkeypatch.setattr(checksums, "atomic_write", read_only)
    assert f"{data} cannot be written to: choose another place with PALMKIT_DATA" in refused("SESA")
    assert fetch.fetch("ESC50") == [data / "ESC50"] and is_whole(
        data / "ESC50"
    )  # what is there can be used
    os.utime(data / "ESC50" / "audios" / "a1.wav")
    assert is_whole(data / "ESC50")


# Zips of which something is wrong.


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("NS-Instruments/link")
    info.external_attr = 0o120777 << 16
    return info


EVIL = {
    "up": ("NS-Instruments/../../../escaped", b"x"),
    "up at once": ("../escaped", b"x"),
    "absolute": ("/escaped", b"x"),
    "drive": ("C:escaped", b"x"),
    "windows": ("NS-Instruments\\..\\..\\escaped", b"x"),
    "link": (link(), b"/etc"),
    "bomb": ("NS-Instruments/bomb.wav", bytes(20_000_000)),
}


@pytest.mark.parametrize("kind", EVIL)
def test_an_evil_zip_is_refused_before_a_byte_is_written(kind, online, data, tmp_path):
    evil = pack(tmp_path / "plain", tmp_path / "evil" / "NS-Instruments.zip", "NS-Instruments/")
    with zipfile.ZipFile(evil, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(*EVIL[kind])
    online.commit("MahiA/NS-Instruments", evil.parent)
    before = {path for path in tmp_path.rglob("*") if data not in path.parents}
    message = refused("NS-Instruments")
    assert "nothing was unpacked" in message and left(data) == []
    assert before == {path for path in tmp_path.rglob("*") if data not in path.parents} - {data}
    assert {path.name for path in (data / ".fetch").rglob("*") if path.is_file()} == {
        "NS-Instruments.lock"
    }
    with zipfile.ZipFile(evil) as archive, pytest.raises(DatasetError):
        unpack(archive, tmp_path / "there" / "NS-Instruments")  # by itself, too
    assert not (tmp_path / "there").exists()


def test_a_zip_that_lies_about_its_size(tmp_path):
    """The size in the directory is what was checked; no more than that is written."""
    path = pack(make(tmp_path / "plain"), tmp_path / "x.zip", "")
    content = bytearray(path.read_bytes())
    at = content.rindex(
        b"PK\x01\x02", 0, content.index(b"audios/a1.wav", content.index(b"PK\x01\x02"))
    )
    content[at + 24 : at + 28] = (10).to_bytes(4, "little")  # of 100
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive, pytest.raises(zipfile.BadZipFile):
        unpack(archive, tmp_path / "there")
    assert (tmp_path / "there" / "audios" / "a1.wav").stat().st_size <= 10


def test_a_broken_zip(online, data, tmp_path):
    whole = (tmp_path / "published" / "NS-Instruments" / "NS-Instruments.zip").read_bytes()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "NS-Instruments.zip").write_bytes(whole[: len(whole) // 2])
    online.commit("MahiA/NS-Instruments", tmp_path / "broken")
    assert "cannot be unpacked" in refused("NS-Instruments") and left(data) == []


# By hand.


@pytest.mark.parametrize("name", ["ESC50", "NS-Instruments", "pengi", "ESC10"])
def test_no_network_is_one_sentence(name, data, capsys):
    assert main(["fetch", name]) == 1
    shown = capsys.readouterr().err
    where = {"pengi": "pengi/base.pth", "ESC10": "ESC10.zip"}.get(name, name)
    source = {
        "pengi": "https://zenodo.org/records/8387083",
        "ESC10": f"https://github.com{ESC10_ZIP}",
    }
    assert (
        source.get(name, f"https://huggingface.co/datasets/MahiA/{name}") in shown
        and f"{data}/{where}" in shown
    )
    assert "by hand" in shown and "Traceback" not in shown
    assert shown.splitlines()[-1].startswith(f"palmkit: {name} could not be fetched")


@pytest.mark.parametrize("network", [False, True])
def test_what_was_put_there_by_hand_is_checked(
    network, server, data, tmp_path, monkeypatch, request, said
):
    if network:
        request.getfixturevalue("online")
    published = tmp_path / "published"
    shutil.copytree(published / "ESC50", data / "ESC50")
    shutil.copytree(published / "pengi", data / "pengi")
    shutil.copy(published / "NS-Instruments" / "NS-Instruments.zip", data)
    fetch.fetch("ESC50", "pengi", "NS-Instruments")
    assert (
        is_whole(data / "ESC50")
        and is_whole(data / "NS-Instruments")
        and (data / "NS-Instruments.zip").is_file()
    )
    assert len(said) == (0 if network else 3) and all(
        "taken as it is" in sentence for sentence in said
    )
    for name in ("ESC50", "pengi", "NS-Instruments"):
        assert (
            bool(checksums.read_checksums(data / name)["revision"]) == network
        )  # "" where nothing was compared
    assert server.asked("resolve|content") == []
    fetch.fetch("ESC50")
    assert len(said) == (0 if network else 3)


def test_a_zip_that_was_unpacked_by_hand_belongs_to_no_revision(online, data, tmp_path, said):
    """Its files cannot be compared with the zip, so only that all clips are there is known."""
    shutil.copytree(tmp_path / "plain", data / "NS-Instruments")
    for _ in range(2):
        fetch.fetch("NS-Instruments")
        assert (
            is_whole(data / "NS-Instruments")
            and checksums.read_checksums(data / "NS-Instruments")["revision"] == ""
        )
    assert said == []  # so there is no message on a newer one either


def test_what_was_put_there_by_hand_and_is_something_else(online, data, tmp_path, monkeypatch):
    shutil.copytree(tmp_path / "published" / "ESC50", data / "ESC50")
    (data / "ESC50" / "audios" / "a1.wav").write_bytes(b"x" * 100)
    (data / "ESC50" / "csv_files" / "test_2.csv").unlink()
    assert "missing: csv_files/test_2.csv; changed: audios/a1.wav" in refused("ESC50")
    (data / "pengi").mkdir()
    (data / "pengi" / "base.pth").write_bytes(b"x")
    assert "changed: base.pth" in refused("pengi")
    pack(make(tmp_path / "another", "!"), data / "NS-Instruments.zip", "NS-Instruments/")
    assert "is not the zip that hf:MahiA/NS-Instruments has" in refused("NS-Instruments")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        DatasetError, match="test_2.csv"
    ):  # nothing to compare with, but it cannot be read either
        fetch.fetch("ESC50")
    assert left(data) == ["ESC50", "NS-Instruments.zip", "pengi"] and not list(
        data.glob(f"*/{checksums.CHECKSUM_FILE}")
    )
    assert (
        data / "ESC50" / "audios" / "a1.wav"
    ).read_bytes() == b"x" * 100  # what is there is never deleted


def test_a_broken_zip_that_was_put_there_by_hand_is_left_alone(data):
    data.mkdir()
    (data / "ESC50.zip").write_bytes(b"half of it")
    assert "ESC50.zip cannot be unpacked" in refused("ESC50")
    assert (data / "ESC50.zip").read_bytes() == b"half of it"


# Two at once.


@pytest.mark.slow
def test_a_second_one_waits_for_the_first(online, data, monkeypatch, said):
    monkeypatch.setattr(hub.time, "sleep", threading.Event().wait)
    online.fault("resolve.*a1.wav", times=1, delay=0.5)
    results = []
    threads = [
        threading.Thread(target=lambda: results.extend(fetch.fetch("ESC50"))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [data / "ESC50"] * 2 and is_whole(data / "ESC50")
    assert len(online.asked("resolve")) == 6
    assert len(said) == 2 and any("another process is fetching it" in sentence for sentence in said)


@pytest.mark.slow
def test_two_processes_one_killed(online, data):
    """The one that waits takes over from the one that is killed, and goes on in the middle of the
    file.
    """
    settings = os.environ | {"PYTHONPATH": str(ROOT), "PALMKIT_PROGRESS": "0"}
    command = [sys.executable, "-m", "palmkit", "fetch", "pengi"]

    def wait_for(ready):
        end = time.monotonic() + 120
        while not ready():
            assert time.monotonic() < end, "nothing has come"
            threading.Event().wait(0.05)

    with pytest.MonkeyPatch.context() as patch:
        # The first process gets one block, however slow the machine.
        killed, blocks = threading.Event(), []

        def stuck(delay):
            if delay:
                blocks.append(delay)
                if len(blocks) > 1:
                    killed.wait(120)

        patch.setattr(hub.time, "sleep", stuck)
        online.fault("content", times=1, delay=1)
        first = subprocess.Popen(command, env=settings, stderr=subprocess.PIPE, text=True)
        wait_for(
            lambda: (
                list(data.rglob("*.part"))
                and max(p.stat().st_size for p in data.rglob("*.part")) > 0
            )
        )
        second = subprocess.Popen(
            command, env=settings, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert "another process is fetching it" in second.stderr.readline()
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
        killed.set()
        out, _ = second.communicate(timeout=120)
    assert (second.returncode, out) == (0, f"{data / 'pengi' / 'base.pth'}\n")
    assert (
        online.asked("content")[-1][2].startswith("bytes=")
        and checksums.verify_folder(data / "pengi", True) is None
    )


@pytest.mark.slow
@pytest.mark.parametrize("offline", ["0", "1"])
def test_settings_of_huggingface_hub(offline, server, data, tmp_path):
    """As a user has them: in the environment, and another user's folders are not touched."""
    settings = server.environment | {"HF_HUB_OFFLINE": offline, "HF_HOME": str(tmp_path / "hf")}
    settings["PYTHONPATH"] = str(ROOT)
    run = subprocess.run(
        [sys.executable, "-m", "palmkit", "fetch", "ESC50"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    if offline == "0":
        assert (run.returncode, run.stdout) == (0, f"{data / 'ESC50'}\n") and is_whole(
            data / "ESC50"
        )
    else:
        assert run.returncode == 1 and "HF_HUB_OFFLINE" in run.stderr and server.requests == []
    assert not list(tmp_path.glob("hf/**/*.wav"))


# ESC-10: an archive in its authors' layout.


@pytest.fixture(scope="module")
def esc10():
    """A zip laid out as the repository: ten folders, forty clips each, eight a fold; a tone of 0.1
    s is every clip.
    """
    clip = io.BytesIO()
    soundfile.write(clip, 0.1 * np.sin(np.arange(4410) / 10), 44100, format="OGG", subtype="VORBIS")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("ESC-10-553c/README.md", "a readme")
        file.writestr("ESC-10-553c/../../escaped.ogg", clip.getvalue())
        for folder in range(1, 11):
            for n in range(40):
                clip_name = f"{n // 8 + 1}-{folder}{n % 8}{folder}-A.ogg"
                name = f"ESC-10-553c/{folder:03d} - Some class/{clip_name}"
                file.writestr(name, clip.getvalue())
    return buffer.getvalue()


def publish(server, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    server.archives[ESC10_ZIP] = hub.Entry(path.name, path)


def test_esc10_in_the_published_layout(esc10, online, data, tmp_path):
    publish(online, tmp_path / "esc10.zip", esc10)
    (root,) = fetch.fetch("ESC10")
    assert list_folds(root) == [1, 2, 3, 4, 5]
    for fold in (1, 5):
        dataset = load_dataset(root, fold)
        assert (len(dataset.train), len(dataset.test)) == (320, 80)
        assert dataset.class_names == sorted(ESC10_CLASSES)
        assert {path.name[0] for path in map(root.joinpath, dataset.test["path"])} == {str(fold)}
    assert left(data) == ["ESC10"] and not list(tmp_path.rglob("escaped.ogg"))
    assert checksums.read_checksums(root)["revision"] == ESC10_ZIP.split("/")[-1].removesuffix(
        ".zip"
    )
    assert len(online.requests) == 1
    fetch.fetch("ESC10")
    assert len(online.requests) == 1  # there already: nobody is asked


def test_esc10_from_an_archive_fetched_by_hand(esc10, data):
    data.mkdir()
    (data / "ESC10.zip").write_bytes(esc10)
    (root,) = fetch.fetch("ESC10")
    assert len(list((root / "audios").iterdir())) == 400


@pytest.mark.parametrize("answer", ["cut short", "no zip", "another zip"])
def test_an_archive_that_is_not_esc10_is_thrown_away(answer, esc10, online, data, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("ESC-10/001 - Dog bark/1-1-A.ogg", b"x")
    contents = {
        "cut short": esc10[:20_000],
        "no zip": b"<html>not here</html>",
        "another zip": buffer.getvalue(),
    }
    publish(online, tmp_path / "esc10.zip", contents[answer])
    assert "cannot be unpacked" in refused("ESC10") and left(data) == []
    publish(online, tmp_path / "esc10.zip", esc10)
    fetch.fetch("ESC10")
    assert list_folds(data / "ESC10") == [1, 2, 3, 4, 5]


def test_a_folder_that_is_no_esc10_is_left_alone(esc10, online, data, tmp_path):
    publish(online, tmp_path / "esc10.zip", esc10)
    (data / "ESC10").mkdir(parents=True)
    (data / "ESC10" / "mine.wav").write_bytes(b"x")
    with pytest.raises(DatasetError, match="holds no dataset: it has neither"):
        fetch.fetch("ESC10")
    assert json.dumps(sorted(path.name for path in (data / "ESC10").iterdir())) == '["mine.wav"]'


@pytest.mark.slow
def test_an_update_there_and_back_keeps_both(online, data, tmp_path, said):
    """A source that takes a revision back: each former one is kept under a name of its own."""
    one, two = tmp_path / "published" / "ESC50", make(tmp_path / "newer", "new")
    fetch.fetch("ESC50")
    for folder in (two, one, two):
        online.commit("MahiA/ESC50", folder)
        assert fetch.fetch("ESC50", update=True) == [data / "ESC50"]
        assert (data / "ESC50" / "audios" / "a1.wav").read_bytes() == (
            folder / "audios" / "a1.wav"
        ).read_bytes()
    assert len(left(data)) == 4 and is_whole(data / "ESC50")


@pytest.mark.parametrize("sha", ["../../x", "", ".", 7, "a/b", "x" * 200])
def test_a_revision_that_is_none_becomes_no_path(sha, online, data, tmp_path, monkeypatch):
    def others():
        return {path for path in tmp_path.rglob("*") if not path.is_relative_to(data)}

    before = others()
    monkeypatch.setattr(hosts, "current_revision", lambda row: sha)
    assert "which is none" in refused("SESA")
    assert others() == before


def test_a_checksum_of_the_server_becomes_no_path(online, data, tmp_path, monkeypatch):
    monkeypatch.setattr(hub.Entry, "md5", "../../../../escaped")
    assert "no checksum" in refused("pengi")
    assert not list(tmp_path.rglob("*escaped*"))
