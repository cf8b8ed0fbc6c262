"""A worker process ends with the process that started it, also where that one was killed.

Nothing heavy is imported: a worker calls this before anything else.
"""

from __future__ import annotations

import os
import threading
import time

from tqdm import tqdm

INTERVAL = 1.0  # seconds between two looks


def end_with(parent: int) -> None:
    """End this process within about a second after its parent, whose id this is, has ended.

    A worker shares no progress bar, so tqdm needs no semaphores, which a killed one would leave.
    """
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_watch, args=(parent,), name="watchdog", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(INTERVAL)
    os._exit(1)  # at once: nobody is left to take a result
