"""What published file names say about recording and speaker."""

from __future__ import annotations

import re
from pathlib import Path

# File names that tell which clips were cut from one recording, or spoken by one person.
FILE_NAME_PATTERNS = {
    "recording": [
        re.compile(
            r"\d-(\d+)-[A-Z](?:-\d+)?\.\w+"
        ),  # ESC-50, ESC-10: fold, Freesound's number, take, class
        re.compile(
            r"(\d+)-\d-\d+-\d+\.\w+"
        ),  # UrbanSound8K: Freesound's number, class, occurrence, slice
    ],
    "speaker": [
        re.compile(
            r"(\d{4})_[A-Z]{3}_[A-Z]{3}_[A-Z]{2}\.\w+"
        ),  # CREMA-D: actor, sentence, emotion, level
        re.compile(r"(?:\d\d-){6}(\d\d)\.\w+"),  # RAVDESS: actor last
    ],
}


def parse_file_name(path: str) -> dict[str, str]:
    """What a file's name tells of its origin: {"recording": "100032"} for ESC-50's 1-100032-A-0.wav."""
    name = Path(path).name
    matches = {
        kind: [m[1] for p in patterns if (m := p.fullmatch(name))]
        for kind, patterns in FILE_NAME_PATTERNS.items()
    }
    return {kind: names[0] for kind, names in matches.items() if names}
