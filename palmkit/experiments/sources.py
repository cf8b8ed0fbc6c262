"""The files of --import, as they travel with a call to a worker on another machine."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from palmkit.experiments.references import WorkerDiffers
from palmkit.plugins import listed_files, load_plugins
from palmkit.storage import atomic_write, cache_root


@dataclass(frozen=True)
class Sources:
    """The files of --import, {path: content}: a worker may have none of them."""

    files: dict[str, bytes]

    @classmethod
    def read(cls) -> Sources:
        return cls({str(path): path.read_bytes() for path in listed_files()})

    def load(self) -> None:
        """Import the files, from a copy in the cache where they are not as the command has them.

        Raises WorkerDiffers if this worker has imported an older content: its classes are in use.
        """
        paths = []
        for path, content in self.files.items():
            digest = hashlib.sha256(content).hexdigest()
            if (known := _imported.setdefault(Path(path).stem, digest)) != digest:
                raise WorkerDiffers(
                    f"{path} was changed after a worker imported it ({known[:12]}, now "
                    f"{digest[:12]}): restart the workers"
                )
            paths.append(_place(Path(path), content, digest))
        load_plugins(paths)


_imported: dict[str, str] = {}  # the names of files that this process imported, their sha256


def _place(path: Path, content: bytes, digest: str) -> Path:
    """Where a worker has this file."""
    loaded = sys.modules.get(f"palmkit.plugins.{path.stem}")
    if loaded is not None:
        return Path(str(loaded.__file__))
    if os.access(path, os.R_OK) and path.read_bytes() == content:
        return path
    copy = cache_root() / "imported" / digest[:32] / path.name
    if not copy.is_file():
        atomic_write(copy, content)
    return copy
