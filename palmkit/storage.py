"""Folders of the kit, and atomic writes: a file is written completely or not at all.

One rule says where `runs` and `data` are:
1. where PALMKIT_RUNS and PALMKIT_DATA say;
2. else in the checkout of palmkit that the current folder belongs to;
3. else in the checkout that this package is imported from;
4. else, for an installed package, in the current folder.
The cache is where PALMKIT_CACHE says, else `~/.cache/palmkit`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

from tqdm.auto import tqdm

from palmkit.leftovers import writer_mark

PACKAGE = Path(__file__).resolve().parent
SHARE = PACKAGE / "share"  # copies of the manifest and the notebooks, in an installed package

CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# Folders


def find_checkout() -> Path | None:
    """The checkout around the current folder, else the one of this package, else None."""
    here = Path.cwd()
    for folder in (here, *here.parents, PACKAGE.parent):
        if (folder / "pyproject.toml").is_file() and (folder / "palmkit" / "storage.py").is_file():
            return folder
    return None


def _root(variable: str, name: str) -> Path:
    if os.environ.get(variable):
        return Path(os.environ[variable]).expanduser()
    checkout = find_checkout()
    return Path(name) if checkout is None else checkout / name


def data_root() -> Path:
    """The folder of named datasets and checkpoints: PALMKIT_DATA, else `data` (rule above)."""
    return _root("PALMKIT_DATA", "data")


def run_folder(name) -> Path:
    """NAME if it is a path, else NAME in PALMKIT_RUNS, else in `runs` (rule above).

    Raises ValueError for what is no name, and for a path that climbs (`a/../../b`) unless it is
    absolute or begins with `./`.
    """
    text = str(name)
    path = Path(text).expanduser()
    if not text.strip() or text in (".", "..") or CONTROL.search(text):
        raise ValueError(f"name={text!r}: use a plain name, or a path of the run's folder")
    if ".." in path.parts and not (path.is_absolute() or text.startswith(f".{os.sep}")):
        raise ValueError(
            f"name={text!r}: a path with `..` must be absolute, or begin with `./`, so that it is "
            "meant"
        )
    is_path = os.sep in text or path.is_absolute()
    return path if is_path else _root("PALMKIT_RUNS", "runs") / path


def cache_root() -> Path:
    """The folder of embeddings and generated data: PALMKIT_CACHE, or ~/.cache/palmkit."""
    return Path(os.environ.get("PALMKIT_CACHE") or Path.home() / ".cache" / "palmkit").expanduser()


def cache_folder(cache="default") -> Path | None:
    """The folder that `cache=` means: `cache_root()` for "default"; None for None; else it."""
    if cache is None:
        return None
    return cache_root() if cache == "default" else Path(cache).expanduser()


def manifest_path() -> Path:
    """`data_manifest.csv`: the checkout's, else the copy inside the installed package."""
    return _shipped("data_manifest.csv")


def notebooks_folder() -> Path:
    """The folder of the notebooks: the checkout's, else the copy inside the installed package."""
    return _shipped("notebooks")


def _shipped(name: str) -> Path:
    checkout = find_checkout()
    return SHARE / name if checkout is None else checkout / name


def path_exists(path) -> bool:
    """Whether a path is there. False also for a name that no file can have: 300 letters, say."""
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


# Progress and whole files


def progress_bar(total: float, what: str, unit: str, **options):
    """A tqdm bar that disappears at the end. Hidden if total is 0 or PALMKIT_PROGRESS is 0."""
    quiet = total == 0 or os.environ.get("PALMKIT_PROGRESS") == "0"
    return tqdm(total=total, desc=what, unit=unit, leave=False, disable=quiet, **options)


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a file under a temporary name and rename it: readers see the old file or the new one.

    After a failure (full disk, no permission, killed) the old file is unchanged. Raises OSError,
    which says what to do.
    The file's permissions follow the umask.
    """
    data = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}{writer_mark()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:  # unlike tempfile, this applies the umask to 0666
            file.write(data)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise write_error(path, error) from error
        raise


ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Free some space"),
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR), "Move away what is there"),
    errno.ENOENT: "Its folder cannot be made, or was deleted meanwhile: run the command again",
    errno.ENAMETOOLONG: "Use a shorter name",
}


def write_error(path, error: OSError) -> OSError:
    """The same error, with the name of the file and what to do."""
    advice = ADVICE.get(error.errno, "Make the folder writable")
    return OSError(
        error.errno,
        f"cannot write {path}: {error.strerror}. {advice}, or choose another place with "
        "PALMKIT_CACHE or PALMKIT_RUNS; files written before are complete and will be used again",
    )
