"""The environment variables that say how trials run, checked before anything is computed."""

from __future__ import annotations

from palmkit.experiments.stacks import stack_size
from palmkit.experiments.threads import stated_jobs, threads_each
from palmkit.memory import stated_memory


def check_settings() -> None:
    """Raise ValueError for a PALMKIT_JOBS, _THREADS, _MEMORY or _STACK that cannot be used."""
    threads_each(stated_jobs() or 1)
    stated_memory()
    stack_size()
