"""Archives, unpacked safely: a published dataset's zip, and ESC-10's."""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
from pathlib import Path

import pandas as pd

from palmkit.datasets.resolve import load_dataset
from palmkit.storage import progress_bar
from palmkit.tables import DatasetError

MOST_PER_BYTE = (
    50  # unpacked bytes a packed one; sound packs to a half, tables to a tenth, a bomb to 1/1000
)
ALWAYS_FINE = 10_000_000  # bytes, whatever they are packed to
OUTSIDE = re.compile(r"\\|^/|^[A-Za-z]:|(^|/)\.\.(/|$)|\0")  # with Windows' ways

ESC10_CLASSES = (  # of the folders 001 to 010, called as in the paper's ESC50
    *("dog", "rain", "sea waves", "crying baby", "clock tick"),
    *("sneezing", "helicopter", "chainsaw", "rooster", "crackling fire"),
)
ESC10_CLIP = re.compile(
    r"(?:^|/)(\d{3}) - [^/]+/((\d)-\d+-[A-Z]\.ogg)$"
)  # folder, file; its first number is the fold


def list_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by name, every one checked. Raises DatasetError for what no dataset's zip has: a name
    that leaves the folder, a link or device, a name twice, or far more bytes than it is packed in."""
    members = {}
    for member in archive.infolist():
        kind = stat.S_IFMT(member.external_attr >> 16)
        if OUTSIDE.search(member.filename):
            raise DatasetError(
                f"the zip's {member.filename!r} would leave the dataset's folder; nothing was unpacked"
            )
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DatasetError(
                f"the zip's {member.filename!r} is a link or device, no file; nothing was unpacked"
            )
        if member.is_dir() or member.filename.startswith("__MACOSX/"):
            continue
        if member.filename in members:
            raise DatasetError(f"the zip has {member.filename!r} twice; nothing was unpacked")
        members[member.filename] = member
    packed = sum(member.compress_size for member in members.values())
    unpacked = sum(member.file_size for member in members.values())
    if unpacked > max(ALWAYS_FINE, MOST_PER_BYTE * packed):
        raise DatasetError(
            f"the zip makes {unpacked:,} bytes of {packed:,}, as no sound does; nothing was unpacked"
        )
    return members


def unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Unpack a dataset's zip into `folder`. Where all is in a folder of the dataset's name, `folder` stands for that.

    Raises DatasetError before the first byte is written (`list_members`); zipfile.BadZipFile for a broken one.
    """
    members = list_members(archive)
    inside = f"{folder.name}/"
    cut = len(inside) if all(name.startswith(inside) for name in members) else 0
    with progress_bar(
        sum(m.file_size for m in members.values()), f"unpack {folder.name}", "B", unit_scale=True
    ) as bar:
        for name, member in members.items():
            path = folder / name[cut:]
            path.parent.mkdir(parents=True, exist_ok=True)
            with (
                archive.open(member) as source,
                open(path, "xb") as target,
            ):  # no more bytes than were announced
                shutil.copyfileobj(source, target, 1 << 20)
            bar.update(member.file_size)


def unpack_esc10(archive: zipfile.ZipFile, root: Path) -> None:
    """The 400 clips of an archive and the CSVs of their folds. Only names that are clips' are looked at."""
    clips = []
    for member in archive.namelist():
        if found := ESC10_CLIP.search(member):
            clips.append(
                (f"audios/{found[2]}", ESC10_CLASSES[int(found[1]) - 1], int(found[3]), member)
            )
    table = pd.DataFrame(sorted(clips), columns=["path", "classname", "fold", "member"])
    counts = table.groupby(["fold", "classname"]).size()
    if len(counts) != 50 or set(counts) != {8}:
        raise DatasetError(
            f"the archive is not ESC-10: it has {len(table)} clips, not 8 of each class and fold"
        )
    (root / "audios").mkdir(parents=True)
    (root / "csv_files").mkdir()
    for path, member in zip(table["path"], table["member"], strict=True):
        with archive.open(member) as source:
            (root / path).write_bytes(source.read())
    for fold in range(1, 6):
        for part, chosen in (("train", table["fold"] != fold), ("test", table["fold"] == fold)):
            table.loc[chosen, ["path", "classname"]].to_csv(
                root / "csv_files" / f"{part}_{fold}.csv", index=False
            )
    load_dataset(root, fold=1)
