"""Archives, unpacked safely: a published dataset's zip, and ESC-10's."""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
from pathlib import Path

import pandas as pd

from palmkit.data import read_dataset
from palmkit.storage import progress_bar
from palmkit.tables import DatasetError, write_split

# Unpacked bytes for each packed one. Sound packs to a half, tables to a tenth, a bomb to 1/1000.
MOST_PER_BYTE = 50
ALWAYS_FINE = 10_000_000  # bytes, however small they are packed
OUTSIDE = re.compile(r"\\|^/|^[A-Za-z]:|(^|/)\.\.(/|$)|\0")  # with Windows' separators and drives

ESC10_CLASSES = (  # of the folders 001 to 010, named as in the paper's ESC50
    *("dog", "rain", "sea waves", "crying baby", "clock tick"),
    *("sneezing", "helicopter", "chainsaw", "rooster", "crackling fire"),
)
# Folder and file of a clip; the file's first number is the fold.
ESC10_CLIP = re.compile(r"(?:^|/)(00[1-9]|010) - [^/]+/((\d)-\d+-[A-Z]\.ogg)$")


def list_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by name, all checked.

    Raises DatasetError for a name that leaves the folder, a link or device, a name twice, or far
    more bytes than they are packed in: no dataset's zip has these.
    """
    members = {}
    for member in archive.infolist():
        _check_member(member)
        if member.is_dir() or member.filename.startswith("__MACOSX/"):
            continue
        if member.filename in members:
            raise DatasetError(f"the zip has {member.filename!r} twice; nothing was unpacked")
        members[member.filename] = member
    packed = sum(member.compress_size for member in members.values())
    unpacked = sum(member.file_size for member in members.values())
    if unpacked > max(ALWAYS_FINE, MOST_PER_BYTE * packed):
        raise DatasetError(
            f"the zip makes {unpacked:,} bytes of {packed:,}, as no sound does; nothing was "
            "unpacked"
        )
    return members


def _check_member(member: zipfile.ZipInfo) -> None:
    if OUTSIDE.search(member.filename):
        raise DatasetError(
            f"the zip's {member.filename!r} would leave the dataset's folder; nothing was unpacked"
        )
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DatasetError(
            f"the zip's {member.filename!r} is a link or device, no file; nothing was unpacked"
        )


def unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Unpack a dataset's zip into `folder`.

    If everything is in a folder of the dataset's name, `folder` takes that folder's place. Raises
    DatasetError before the first byte is written (`list_members`), zipfile.BadZipFile for a
    damaged archive.
    """
    members = list_members(archive)
    inside = f"{folder.name}/"
    cut = len(inside) if all(name.startswith(inside) for name in members) else 0
    total = sum(member.file_size for member in members.values())
    with progress_bar(total, f"unpack {folder.name}", "B", unit_scale=True) as bar:
        for name, member in members.items():
            path = folder / name[cut:]
            path.parent.mkdir(parents=True, exist_ok=True)
            # zipfile reads no more bytes than the archive's directory announces.
            with archive.open(member) as source, open(path, "xb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            bar.update(member.file_size)


def unpack_esc10(archive: zipfile.ZipFile, root: Path) -> None:
    """Unpack ESC-10's 400 clips and write the CSVs of its five folds. Other files are ignored."""
    table = _list_esc10(archive)
    (root / "audios").mkdir(parents=True)
    for path, member in zip(table["path"], table["member"], strict=True):
        with archive.open(member) as source:
            (root / path).write_bytes(source.read())
    for fold in range(1, 6):
        for split, chosen in (("train", table["fold"] != fold), ("test", table["fold"] == fold)):
            rows = table.loc[chosen, ["path", "classname"]]
            write_split(root, split, fold, rows.itertuples(index=False))
    read_dataset(root, fold=1)


def _list_esc10(archive: zipfile.ZipFile) -> pd.DataFrame:
    """ESC-10's clips: path, classname, fold, and member of the archive, sorted."""
    clips = []
    for member in archive.namelist():
        if found := ESC10_CLIP.search(member):
            folder, file, fold = found.groups()
            name = ESC10_CLASSES[int(folder) - 1]
            clips.append((f"audios/{file}", name, int(fold), member))
    table = pd.DataFrame(sorted(clips), columns=["path", "classname", "fold", "member"])
    counts = table.groupby(["fold", "classname"]).size()
    if len(counts) != 50 or set(counts) != {8}:
        raise DatasetError(
            f"the archive is not ESC-10: it has {len(table)} clips, not 8 of each class and fold; "
            "get it again"
        )
    return table
