"""Processes and their threads: one thread each, or PALMKIT_THREADS."""

from __future__ import annotations

import os
import re

import joblib

SETTING = "PALMKIT_THREADS"


def stated_jobs() -> int | None:
    """Processes at a time, by PALMKIT_JOBS; None if it is not set. Raises ValueError."""
    given = os.environ.get("PALMKIT_JOBS", "")
    if not given:
        return None
    if not re.fullmatch("[1-9][0-9]{0,3}", given):
        raise ValueError(f"PALMKIT_JOBS={given}: use a number of processes, 1 to 9999")
    return int(given)


def threads_each(jobs: int) -> int:
    """Threads of each of `jobs` processes: PALMKIT_THREADS, or else one.

    Results keep their bits wherever a trial runs: this number is also used where one of several
    runs in the command's own process. Raises ValueError for more threads than there are cores.
    """
    given = os.environ.get(SETTING, "")
    if not given:
        return 1
    if not re.fullmatch("[1-9][0-9]{0,3}", given):
        raise ValueError(f"{SETTING}={given}: use a number of threads, 1 to 9999")
    cores = joblib.cpu_count()
    if int(given) > 1 and int(given) * jobs > cores:
        raise ValueError(
            f"{SETTING}={given}: {jobs} processes of {given} threads are more than the {cores} "
            "cores here; use fewer of either (PALMKIT_JOBS sets the processes)"
        )
    return int(given)
