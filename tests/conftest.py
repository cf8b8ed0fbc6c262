"""Fixtures of all tests: the published code's tensors, and a small PENGI with its weights."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# Before torch: threads of many tests on few cores only wait, and their number changes last digits.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import faults  # noqa: E402
import pytest  # noqa: E402
import reference  # noqa: E402
import torch  # noqa: E402

# A comparison that fails there shows its values, as it does in a test.
pytest.register_assert_rewrite("model_checks")

# Before palmkit is imported: a test never reads or fills the user's cache and runs.
_scratch = tempfile.mkdtemp(prefix="palmkit-tests-")
atexit.register(shutil.rmtree, _scratch, ignore_errors=True)
os.environ.setdefault("PALMKIT_CACHE", os.path.join(_scratch, "cache"))
os.environ.setdefault("PALMKIT_RUNS", os.path.join(_scratch, "runs"))
os.environ["PALMKIT_PROGRESS"] = "0"


@pytest.fixture(autouse=True)
def one_job(monkeypatch):
    """Trials run in this process, where a test can watch. Several processes have their tests."""
    monkeypatch.setenv("PALMKIT_JOBS", "1")


@pytest.fixture(scope="session")
def reference_dir():
    """../shared/reference beside the project; tests that need it skip in a clone without it."""
    if not reference.SHARED.is_dir():
        pytest.skip(
            "the full reference tensors (../shared/reference) are not part of the release; "
            "the copy in tests/fixtures is used"
        )
    return reference.SHARED


@pytest.fixture(scope="session")
def compact(tmp_path_factory):
    """The committed copy of the reference, its checkpoint rebuilt in a temporary folder."""
    return reference.compact(tmp_path_factory.mktemp("compact"))


@pytest.fixture(scope="session")
def full(reference_dir):
    return reference.full(reference_dir)


@pytest.fixture(scope="session", params=["compact", "full"])
def source(request):
    """The reference, once from the committed copy and once as it was made."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def tiny_pengi(compact):
    """PENGI at a small size with the reference's weights. All tests share it: do not change it."""
    from palmkit import load_pengi

    return load_pengi(compact.checkpoint, device="cpu")


@pytest.fixture(scope="session")
def pengi(source):
    """The model of `source`."""
    from palmkit import load_pengi

    return load_pengi(source.checkpoint, device="cpu")


@pytest.fixture(scope="module")
def one_thread():
    """On small tensors, two threads that wait for each other take five times as long as one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_terminal_summary(terminalreporter):
    if os.environ.get("PALMKIT_PARITY_REPORT") == "1":
        terminalreporter.write_line(reference.report())


def pytest_sessionfinish():
    if os.environ.get("PALMKIT_FAULTS_TABLE"):
        faults.save(Path(os.environ["PALMKIT_FAULTS_TABLE"]))
