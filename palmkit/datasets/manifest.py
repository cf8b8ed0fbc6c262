"""data_manifest.csv: what can be fetched or is generated, and from where."""

from __future__ import annotations

import csv

from palmkit.storage import manifest_path

# Kind of a row that says where to get a dataset and how to load it; nothing is downloaded.
BY_HAND = "by hand"


def read_manifest() -> dict[str, dict[str, str]]:
    """The rows of data_manifest.csv by name.

    An empty cell is unknown. A source that begins with "hf:" is a dataset repository on Hugging
    Face.
    """
    path = manifest_path()
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}, which lists what can be fetched and from where: install "
            "palmkit again"
        )
    with open(path, encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}
