"""Trials that failed: their rows, and the error that tells of them when all others are done."""

from __future__ import annotations

import datetime
from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path

from palmkit.experiments.rows import read_row
from palmkit.experiments.trials import Trial, stochastic_label

SHOWN = 3  # reasons that an error names; the rest is counted


class TrialsFailed(RuntimeError):
    """Some trials of a run failed; their rows say why, and all others are done.

    failed: the rows of those trials. done: how many others there are.
    """

    def __init__(self, failed: list[dict], done: int):
        self.failed, self.done = failed, done
        super().__init__(describe_failed(failed, len(failed) + done))


def describe_failed(failed: list[dict], total: int) -> str:
    """One line: how many trials failed, which, why, and what to do."""
    reasons = Counter(row["failed"] for row in failed)
    texts = []
    for reason, count in reasons.most_common(SHOWN):
        first = next(row for row in failed if row["failed"] == reason)
        more = f" and {count - 1} more" if count > 1 else ""
        texts.append(f"{name_row(first)}{more}: {reason}")
    if len(reasons) > SHOWN:
        texts.append(f"{len(reasons) - SHOWN} more reasons")
    advice = ""
    if any(reason.startswith("AudioError") for reason in reasons):
        advice = ", or --skip-bad leaves bad files out"
    return (
        f"{len(failed)} of {total} trials failed and count in no table ({'; '.join(texts)}). "
        f"Mend that; the same command with --retry-failed runs them again{advice}"
    )


def name_row(row: dict) -> str:
    """As `Trial.name`."""
    return f"{row['method']} on {row['dataset']}, fold {row['fold']}, seed {row['seed']}"


def failed_row(trial: Trial, dataset, model, reason: str) -> dict:
    """The row of a trial that failed. It has no scores, and `failed` says why."""
    return {
        **asdict(trial),
        "stochastic": stochastic_label(trial),
        "dataset": dataset.name,
        "note": model.note,
        "model": model.name,
        "class_names": dataset.class_names,
        "n_test": len(dataset.test),
        "failed": reason,
        "device": str(model.device),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def forget_mended(rows: dict[Path, dict]) -> None:
    """Delete the rows of failures that were mended: those of trials that are done now.

    rows: of the present trials, by their files. A mended clip or method, or `--skip-bad`, gives
    a trial another key, so that the row of its failure is another file.
    """
    same = ["weights", *(one.name for one in fields(Trial) if one.name != "dataset")]
    others: dict[tuple[Path, str], list[Path]] = {}
    for folder in {path.parent for path in rows}:
        for other in set(folder.glob("*.json")) - rows.keys():
            others.setdefault(_without_key(other), []).append(other)
    for path, row in rows.items():
        for other in others.get(_without_key(path), []) if "failed" not in row else ():
            old = read_row(other)
            if old and "failed" in old and all(old.get(one) == row.get(one) for one in same):
                other.unlink(missing_ok=True)


def _without_key(path: Path) -> tuple[Path, str]:
    """Folder and name of a row's file without the key at its end."""
    return path.parent, path.name.rpartition("-")[0]
