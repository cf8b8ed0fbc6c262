"""Recording and speaker, read from published file names."""

from __future__ import annotations

import re
from pathlib import Path

# Which clips were cut from one recording, or spoken by one person.
FILE_NAME_PATTERNS = {
    "recording": [
        # ESC-50 and ESC-10: fold, Freesound's number, take, class.
        re.compile(r"\d-(\d+)-[A-Z](?:-\d+)?\.\w+"),
        # UrbanSound8K: Freesound's number, class, occurrence, slice.
        re.compile(r"(\d+)-\d-\d+-\d+\.\w+"),
    ],
    "speaker": [
        # CREMA-D: actor, sentence, emotion, level.
        re.compile(r"(\d{4})_[A-Z]{3}_[A-Z]{3}_[A-Z]{2}\.\w+"),
        # RAVDESS: the actor comes last.
        re.compile(r"(?:\d\d-){6}(\d\d)\.\w+"),
    ],
}


def parse_file_name(path: str) -> dict[str, str]:
    """Recording or speaker in a file's name: {"recording": "100032"} for 1-100032-A-0.wav.

    {} for a name that follows none of the published patterns.
    """
    name = Path(path).name
    matches = {
        kind: [m[1] for p in patterns if (m := p.fullmatch(name))]
        for kind, patterns in FILE_NAME_PATTERNS.items()
    }
    return {kind: found[0] for kind, found in matches.items() if found}
