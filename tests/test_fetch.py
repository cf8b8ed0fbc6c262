"""ESC-10 from its archive: over HTTP on the loopback interface, whole or not at all."""

from __future__ import annotations

import http.server
import io
import threading
import zipfile

import numpy as np
import pytest
import soundfile

from palmkit import DatasetError, fetch, list_folds, load_dataset
from palmkit.__main__ import main


@pytest.fixture(scope="module")
def archive():
    """A zip laid out as the repository: ten folders, forty clips each, eight a fold; a tone of 0.1 s is every clip."""
    clip = io.BytesIO()
    soundfile.write(clip, 0.1 * np.sin(np.arange(4410) / 10), 44100, format="OGG", subtype="VORBIS")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("ESC-10-553c/README.md", "a readme")
        file.writestr("ESC-10-553c/../../escaped.ogg", clip.getvalue())
        for folder in range(1, 11):
            for n in range(40):
                name = f"ESC-10-553c/{folder:03d} - Some class/{n // 8 + 1}-{folder}{n % 8}{folder}-A.ogg"
                file.writestr(name, clip.getvalue())
    return buffer.getvalue()


@pytest.fixture
def serve():
    """serve(bytes or status) -> URL of a server that answers so, on the loopback interface."""
    servers = []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(answer if isinstance(answer, int) else 200)
                body = b"" if isinstance(answer, int) else answer
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/esc10.zip"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_it_is_fetched_in_the_published_layout_once(archive, serve, tmp_path):
    root = fetch.fetch_esc10(tmp_path / "ESC10", serve(archive))
    assert list_folds(root) == [1, 2, 3, 4, 5]
    for fold in (1, 5):
        data = load_dataset(root, fold)
        assert (len(data.train), len(data.test)) == (320, 80)
        assert data.class_names == sorted(fetch.ESC10_CLASSES)
        assert {path.name[0] for path in map(root.joinpath, data.test["path"])} == {str(fold)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ESC10"]  # nothing left over, nothing escaped
    assert fetch.fetch_esc10(tmp_path / "ESC10", "http://127.0.0.1:9/nobody") == root  # there already: nobody is asked


def test_from_an_archive_fetched_by_hand(archive, tmp_path):
    (tmp_path / "by hand.zip").write_bytes(archive)
    root = fetch.fetch_esc10(tmp_path / "data" / "ESC10", f"file://{tmp_path}/by hand.zip")
    assert len(list((root / "audios").iterdir())) == 400


@pytest.mark.parametrize("answer", [404, 500, "cut short", "no zip", "another zip"])
def test_a_failure_leaves_nothing_and_says_what_to_do(answer, archive, serve, tmp_path):
    if answer == "cut short":
        answer = archive[:20_000]
    elif answer == "no zip":
        answer = b"<html>not here</html>"
    elif answer == "another zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("ESC-10/001 - Dog bark/1-1-A.ogg", b"x")
        answer = buffer.getvalue()
    with pytest.raises(DatasetError, match="by hand|is not ESC-10"):
        fetch.fetch_esc10(tmp_path / "ESC10", serve(answer))
    assert list(tmp_path.iterdir()) == []


def test_no_network_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PALMKIT_DATA", str(tmp_path))
    monkeypatch.setattr(fetch.fetch_esc10, "__defaults__", (None, "http://127.0.0.1:9/esc10.zip"))
    assert main(["fetch", "ESC10"]) == 1
    shown = capsys.readouterr().err
    assert "could not be fetched" in shown and "by hand" in shown and "Traceback" not in shown


def test_what_is_there_is_never_deleted(tmp_path, archive, serve):
    (tmp_path / "ESC10").mkdir()
    (tmp_path / "ESC10" / "mine.wav").write_bytes(b"x")
    with pytest.raises(DatasetError, match="no whole ESC-10: move it away"):
        fetch.fetch_esc10(tmp_path / "ESC10", serve(archive))
    assert (tmp_path / "ESC10" / "mine.wav").is_file()
