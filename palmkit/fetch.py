"""Datasets from where their authors keep them. So far ESC-10: 400 real recordings, CC0 or CC-BY, 80 MB."""

from __future__ import annotations

import re
import tempfile
import zipfile
from pathlib import Path

import pandas as pd
import pooch

from palmkit.data import DatasetError, data_root, load_dataset

ESC10 = "https://github.com/karoldvl/ESC-10/archive/553c8f1743b9dba6b282e1323c3ca8fa76923448.zip"
ESC10_CLASSES = (  # of the folders 001 to 010, called as in the paper's ESC50
    *("dog", "rain", "sea waves", "crying baby", "clock tick"),
    *("sneezing", "helicopter", "chainsaw", "rooster", "crackling fire"),
)
ESC10_CLIP = re.compile(r"(?:^|/)(\d{3}) - [^/]+/((\d)-\d+-[A-Z]\.ogg)$")  # folder, file; its first number is the fold


def fetch_esc10(root=None, url: str = ESC10) -> Path:
    """ESC-10 in the published layout, in `root` (default: ESC10 in the folder PALMKIT_DATA); nothing if it is there.

    Raises DatasetError, with what to do by hand, where the archive cannot be had or is not what it should be.
    """
    root = Path(root) if root else data_root() / "ESC10"
    if (root / "csv_files" / "test_5.csv").is_file():
        return root
    by_hand = f"fetch {url} by hand and call fetch_esc10({str(root)!r}, url='file:///where/it/is.zip')"
    if root.exists():
        raise DatasetError(f"{root} is there, but is no whole ESC-10: move it away, then fetch again")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".esc10-") as scratch:  # the same disk: renamed at the end
        try:
            if url.startswith("file://"):
                archive = Path(url.removeprefix("file://"))
            else:
                archive = Path(pooch.retrieve(url, known_hash=None, path=scratch, fname="esc10.zip"))
            with zipfile.ZipFile(archive) as opened:
                unpack_esc10(opened, Path(scratch) / "ESC10")
        except (OSError, zipfile.BadZipFile) as error:  # requests' errors are OSErrors
            raise DatasetError(f"ESC-10 could not be fetched ({error}); with a network, {by_hand}") from error
        (Path(scratch) / "ESC10").rename(root)
    return root


def unpack_esc10(archive: zipfile.ZipFile, root: Path) -> None:
    """The 400 clips of an archive and the CSVs of their folds. Only names that are clips' are looked at."""
    clips = []
    for member in archive.namelist():
        if found := ESC10_CLIP.search(member):
            clips.append((f"audios/{found[2]}", ESC10_CLASSES[int(found[1]) - 1], int(found[3]), member))
    table = pd.DataFrame(sorted(clips), columns=["path", "classname", "fold", "member"])
    counts = table.groupby(["fold", "classname"]).size()
    if len(counts) != 50 or set(counts) != {8}:
        raise DatasetError(f"the archive is not ESC-10: it has {len(table)} clips, not 8 of each class and fold")
    (root / "audios").mkdir(parents=True)
    (root / "csv_files").mkdir()
    for path, member in zip(table["path"], table["member"], strict=True):
        with archive.open(member) as source:
            (root / path).write_bytes(source.read())
    for fold in range(1, 6):
        for part, chosen in (("train", table["fold"] != fold), ("test", table["fold"] == fold)):
            table.loc[chosen, ["path", "classname"]].to_csv(root / "csv_files" / f"{part}_{fold}.csv", index=False)
    load_dataset(root, fold=1)
