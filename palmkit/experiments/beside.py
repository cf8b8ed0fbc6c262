"""Several commands on one run, on one machine or on several that share the folder."""

from __future__ import annotations

import time

from palmkit.experiments.references import WorkerDiffers
from palmkit.experiments.status import Progress, others_alive

SILENT_S = 24 * 3600  # a command on another machine that wrote nothing for so long is taken as gone


def check_beside(progress: Progress) -> None:
    """Raise WorkerDiffers if a command of other versions works on the same run: rows of one run
    would have different digits.

    Each command writes its own state before it looks, so of two at least one sees the other.
    """
    own = progress.state["versions"]
    for state in others_alive(progress):
        theirs = state.get("versions")
        if not isinstance(theirs, dict) or time.time() - state.get("written", 0.0) > SILENT_S:
            continue
        names = sorted(name for name in own | theirs if own.get(name) != theirs.get(name))
        if names:
            differ = ", ".join(
                f"{name} {own.get(name, 'missing')} instead of {theirs.get(name, 'missing')}"
                for name in names
            )
            raise WorkerDiffers(
                f"{progress.state['host']} has {differ}, as process {state.get('pid')} on "
                f"{state.get('host')} has, which works on this run: use the same versions, "
                "another name for this run, or wait until that one has ended"
            )
