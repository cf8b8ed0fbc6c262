"""Where the kit keeps things, and how it writes them: whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from tqdm.auto import tqdm


def data_root() -> Path:
    """Where datasets are looked for by name: PALMKIT_DATA, or `data` in the current folder."""
    return Path(os.environ.get("PALMKIT_DATA") or "data").expanduser()


PROJECT = Path(__file__).resolve().parent.parent  # the checkout, where there is one
SHARE = Path(__file__).resolve().parent / "share"  # in a wheel: copies of the checkout's files


def manifest_path() -> Path:
    """data_manifest.csv of the checkout, else the copy inside the package."""
    return _shared("data_manifest.csv")


def notebooks_folder() -> Path:
    """The folder of the notebooks: the checkout's, else the copy inside the package."""
    return _shared("notebooks")


def _shared(name: str) -> Path:
    is_checkout = (PROJECT / "pyproject.toml").is_file()
    return (PROJECT if is_checkout else SHARE) / name


def cache_root() -> Path:
    """Embeddings and generated data: PALMKIT_CACHE, or ~/.cache/palmkit."""
    return Path(os.environ.get("PALMKIT_CACHE") or Path.home() / ".cache" / "palmkit").expanduser()


def run_folder(name) -> Path:
    """`runs/NAME` of the checkout (else of the current folder), or NAME if it is a path. PALMKIT_RUNS moves `runs`."""
    if os.sep in str(name) or Path(name).is_absolute():
        return Path(name)
    home = PROJECT if (PROJECT / "notebooks").is_dir() else Path.cwd()
    return Path(os.environ.get("PALMKIT_RUNS") or home / "runs") / name


def progress_bar(total: float, what: str, unit: str, **options):
    """A tqdm bar that goes when it is done; none for nothing to do, nor with PALMKIT_PROGRESS=0 (notebooks' tests)."""
    quiet = total == 0 or os.environ.get("PALMKIT_PROGRESS") == "0"
    return tqdm(total=total, desc=what, unit=unit, leave=False, disable=quiet, **options)


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a file under a temporary name and rename it: readers see the old file or the new one, never half of it.

    A failure (full disk, no permission, killed) leaves what was there; OSError then says what to do.
    """
    data = data.encode() if isinstance(data, str) else data
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(data)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            advice = (
                "free some space" if error.errno == errno.ENOSPC else "make the folder writable"
            )
            raise OSError(
                error.errno,
                f"cannot write {path}: {error.strerror}. {advice[0].upper()}{advice[1:]}, or choose another place with "
                "PALMKIT_CACHE or PALMKIT_RUNS; what was written before is whole and will be used again",
            ) from error
        raise
